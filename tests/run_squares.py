"""Runs the command line with the detector of `squares.py` in place of a network.

Environment: SQUARES_DELAY is what a batch takes, in seconds; SQUARES_GENDERLESS leaves the gender
heads out.
"""

from __future__ import annotations

import os
import sys
import time
import types
from typing import Any

from squares import SquareDetector

from videogender.cli.main import main


class Detector(SquareDetector):
    @classmethod
    def load(cls, model: str, **options: Any) -> Detector:
        return cls(has_gender="SQUARES_GENDERLESS" not in os.environ)

    def detect(self, scaled, sizes_wh):  # type: ignore[no-untyped-def]
        time.sleep(float(os.environ.get("SQUARES_DELAY", "0")))
        return super().detect(scaled, sizes_wh)


if __name__ == "__main__":
    stand_in = types.ModuleType("videogender.detector")
    stand_in.Detector = Detector  # type: ignore[attr-defined]
    sys.modules["videogender.detector"] = stand_in
    sys.exit(main())
