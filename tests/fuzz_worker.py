"""Annotates files that are named on standard input, one after another, and tells how each ended.

It lives in a process of its own, so that a crash or a hang in a decoder is an answer, not the end
of the tests. The detector is that of `squares.py`; everything else is the command line as it is.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import types

from run_squares import Detector

from videogender.cli.main import main

if __name__ == "__main__":
    stand_in = types.ModuleType("videogender.detector")
    stand_in.Detector = Detector  # type: ignore[attr-defined]
    sys.modules["videogender.detector"] = stand_in
    answers = sys.stdout
    for line in sys.stdin:
        job = json.loads(line)
        said, printed = io.StringIO(), io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(printed):
            code = main(["annotate", job["source"], "--output", job["target"], "--quiet"])
        answers.write(json.dumps({"code": code, "said": said.getvalue()}) + "\n")
        answers.flush()
