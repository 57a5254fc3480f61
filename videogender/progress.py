"""What whoever runs `annotate` is told: while it runs, and in the end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from videogender.errors import VideogenderError
from videogender.pipeline import BatchDetector
from videogender.targets import Job

__all__ = ["DRAW_SECONDS", "AnnotationInterrupted", "DetectorFacts", "Progress", "Summary"]

# How long what was looked at may take to be drawn, where whoever stopped it does not wait long.
DRAW_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of one input.

    Attributes:
        source: the input, as the user named it.
        output: the annotated copy, or None if there is none.
        frames: frames annotated.
        faces: faces found in them.
        seconds: time it took.
        warnings: what the user should know about the result, one line each.
        error: why the input failed; its outputs were removed.
        interrupted: Ctrl-C ended it early; `output` holds the frames up to there.
        skipped: `output` was there and up to date, so that nothing was done.
    """

    source: str
    output: Path | None = None
    frames: int = 0
    faces: int = 0
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()
    error: VideogenderError | None = None
    interrupted: bool = False
    skipped: bool = False

    @property
    def fps(self) -> float:
        """Frames a second, all work included."""
        return self.frames / self.seconds if self.seconds > 0 else 0.0


class AnnotationInterrupted(KeyboardInterrupt):
    """Ctrl-C ended the run. What was done is complete and described by `summaries`."""

    def __init__(self, summaries: list[Summary]) -> None:
        super().__init__("interrupted")
        self.summaries = summaries


@dataclass(frozen=True, slots=True)
class DetectorFacts:
    """What is known of a detector that is loaded in other processes.

    Attributes:
        description: which model runs where.
        has_gender: whether it tells presented gender.
        classes: of a fine-tuned head.
    """

    description: str
    has_gender: bool = True
    classes: tuple[str, ...] = ()

    def describe(self) -> str:
        """Say what runs where, such as `lite, cpu, fp32, 2 threads`."""
        return self.description


class Progress:
    """Told what happens, in the caller's thread; override what is of interest.

    Where several processes work, `row` is asked for whom to tell about each input.
    """

    def left_out(self, line: str) -> None:
        """Note what of a folder is left out, before anything begins."""

    def begin(self, count: int, processes: int) -> None:
        """Note how many inputs there are, and how many processes work on them; 1 is this one."""

    def ready(self, detector: BatchDetector | DetectorFacts) -> None:
        """Note that the detector is loaded and the work begins."""

    def row(self, position: int) -> Progress:
        """Return who is told about input `position` (from 0) while others run beside it."""
        return self

    def start(self, job: Job, frames: int | None, position: int, count: int) -> None:
        """Note that input `position` (from 0) of `count` is open; `frames` is an estimate."""

    def begin_pass(self, name: Literal["looking", "drawing"], frames: int | None) -> None:
        """Note that one of the two passes over a video begins; `frames` is what it is over."""

    def stopped(self, frames: int) -> float | None:
        """Note Ctrl-C in the first pass: `frames` were looked at and are still to be written.

        Returns:
            how many seconds that may take; None is as long as it takes.
        """
        return None

    def look(self, faces: int) -> None:
        """Note that the first of two passes has looked at one more frame."""

    def advance(self, faces: int) -> None:
        """Note that one more frame is written, with this many faces."""

    def finish(self, summary: Summary) -> None:
        """Note that an input is done, or has failed, perhaps before it could be opened."""
