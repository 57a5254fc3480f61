"""What a fine-tuning run is asked for, and who is told what becomes of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videogender.finetuning.data import Data
from videogender.finetuning.loop import Progress

__all__ = ["Request", "Watcher"]


@dataclass(frozen=True, slots=True)
class Request:
    """What a run is asked for, besides its settings.

    Attributes:
        data: the faces.
        source: where they were read from: `data`, `images` and `label_column`, as JSON holds them.
        weights: the file to begin from.
        out: the run's folder.
        device: auto, cpu, cuda.
        resume: go on with the run that `out` holds.
        force: delete a run that is there.
    """

    data: Data
    source: dict[str, str | None]
    weights: Path
    out: Path
    device: str = "auto"
    resume: bool = False
    force: bool = False


class Watcher:
    """Told what happens, on process 0; override what is of interest."""

    def say(self, line: str) -> None:
        """Take a sentence."""

    def looking(self, done: int, total: int) -> None:
        """Note how many pictures the trunk has looked at."""

    def learning(self, progress: Progress) -> None:
        """Note a step."""

    def epoch(self, row: dict[str, Any], is_best: bool) -> None:
        """Note what an epoch came to."""

    def checking(self, done: int, total: int) -> None:
        """Note how many parts of the search for wrong labels are done."""
