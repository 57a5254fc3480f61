"""Runs the command line with the detector of `squares.py` in place of a network.

Environment: SQUARES_DELAY is what a batch takes, in seconds; SQUARES_GENDERLESS leaves the gender
heads out; SQUARES_MODELLESS fails to load; SQUARES_FATAL_WIDTH is that of frames which kill the
process, after SQUARES_FATAL_AFTER batches of them, and if SQUARES_FATAL_ONCE names a file that is
not there, it is made and only then they do; SQUARES_PART_SECONDS is the least length of the parts
into which long videos are divided; SQUARES_DEFECT, a width of frames or `join`, is what a defect
shows in.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import types
from pathlib import Path
from typing import Any

from squares import SquareDetector

from videogender.cli.main import main
from videogender.errors import ModelError


class Detector(SquareDetector):
    fatal = 0  # batches of the fatal width so far

    @classmethod
    def load(cls, model: str, **options: Any) -> Detector:
        if "SQUARES_MODELLESS" in os.environ:
            raise ModelError("no such squares")
        return cls(has_gender="SQUARES_GENDERLESS" not in os.environ)

    def detect(self, scaled, sizes_wh):  # type: ignore[no-untyped-def]
        time.sleep(float(os.environ.get("SQUARES_DELAY", "0")))
        if sizes_wh[0][0] == int(os.environ.get("SQUARES_FATAL_WIDTH", "0")):
            self.fatal += 1
            if self.fatal > int(os.environ.get("SQUARES_FATAL_AFTER", "0")):
                perhaps_die()
        if os.environ.get("SQUARES_DEFECT") == str(sizes_wh[0][0]):
            raise KeyError("defect")
        return super().detect(scaled, sizes_wh)


def perhaps_die() -> None:
    if once := os.environ.get("SQUARES_FATAL_ONCE"):
        if Path(once).exists():
            return
        Path(once).touch()
    os.kill(os.getpid(), signal.SIGKILL)


def fail_to_join(*_: object, **__: object) -> None:
    raise KeyError("defect")


def stand_in() -> None:
    """Take the place of the detector in this process."""
    module = types.ModuleType("videogender.detector")
    module.Detector = Detector  # type: ignore[attr-defined]
    sys.modules["videogender.detector"] = module


# The processes of --jobs run this file too, under a name of their own; those of Ray call a hook.
if __name__ in ("__main__", "__mp_main__"):
    stand_in()

if __name__ == "__main__":
    if least := os.environ.get("SQUARES_PART_SECONDS"):
        import videogender.jobs.parts

        videogender.jobs.parts.LEAST_SECONDS = float(least)
    if os.environ.get("SQUARES_DEFECT") == "join":
        import videogender.jobs.divided

        videogender.jobs.divided.join = fail_to_join
    sys.exit(main())
