"""What runs in a worker's process: sets a part up, then answers one line of JSON with another."""

from __future__ import annotations

import json
import os
import sys
import traceback
from typing import Any, Protocol

from videogender.errors import VideogenderError

__all__ = ["PARTS", "Part", "main"]


class Part(Protocol):
    """Something that can be measured again and again."""

    def facts(self) -> dict[str, Any]:
        """Return what the parent should know before it asks, as plain values."""

    def ask(self, **request: Any) -> dict[str, Any]:
        """Measure once and return plain values."""


# Module and class; a child imports only what its own part needs.
PARTS = {
    "annotate": ("videogender.benchmark.clips", "Annotate"),
    "cut": ("videogender.benchmark.clips", "Cut"),
    "data": ("videogender.benchmark.clips", "Data"),
    "forward": ("videogender.benchmark.network", "ForwardPass"),
    "frame": ("videogender.benchmark.network", "FrameParts"),
    "live": ("videogender.benchmark.live", "LiveRun"),
    "make-clip": ("videogender.benchmark.clips", "MakeClip"),
    "peer": ("videogender.benchmark.peer", "PeerPass"),
    "stages": ("videogender.benchmark.stages", "StagedAnnotate"),
    "stream": ("videogender.benchmark.clips", "Stream"),
    "transcode": ("videogender.benchmark.clips", "Transcode"),
}


def main() -> int:
    """Serve until standard input ends."""
    from importlib import import_module

    # Answers get a stream of their own: what libraries print must not fall between them.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    part: Part | None = None
    try:
        for line in sys.stdin:
            message = json.loads(line)
            try:
                if part is None:
                    module, name = PARTS[sys.argv[1]]
                    part = getattr(import_module(module), name)(**message)
                    answer = part.facts()
                else:
                    answer = part.ask(**message)
            except VideogenderError as error:
                answer = {"error": type(error).__name__, "message": str(error)}
            print(json.dumps(answer), file=answers, flush=True)
    except KeyboardInterrupt:
        return 130
    except Exception:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
