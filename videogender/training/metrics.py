"""Writes the means of the losses to a run's metrics, a line every so many steps."""

from __future__ import annotations

from dataclasses import asdict
from types import TracebackType
from typing import Self

from videogender.training.engine import Progress
from videogender.training.run_folder import RunFolder

STEPS_A_LINE = 50
MEANS = ("face", "box", "gender", "data_share")

__all__ = ["MetricsLog"]


class MetricsLog:
    """Gathers what steps report; what has gathered at the end is written then."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._waiting: list[Progress] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.flush()

    def add(self, progress: Progress) -> None:
        """Take a report, and write a line if it is time."""
        self._waiting.append(progress)
        if progress.step // STEPS_A_LINE > (self._waiting[0].step - 1) // STEPS_A_LINE:
            self.flush()

    def flush(self) -> None:
        """Write what has gathered."""
        if not self._waiting:
            return
        row = asdict(self._waiting[-1])
        for name in MEANS:
            row[name] = sum(getattr(p, name) for p in self._waiting) / len(self._waiting)
        self._waiting = []
        row = {k: float(f"{v:.5g}") if isinstance(v, float) else v for k, v in row.items()}
        self._folder.log({"kind": "train", **row})
