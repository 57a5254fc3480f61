"""What `videogender train` says on stderr: a live line, or a plain one now and then."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.text import Text

if TYPE_CHECKING:
    from videogender.evaluation.gender import GenderFigures
    from videogender.evaluation.validation import Validation
    from videogender.training.engine import Progress

PLAIN_SECONDS = 30.0  # between two lines where there is no terminal
SMOOTHING = 0.98  # of the losses that are shown; crops differ much from step to step

__all__ = ["TrainReport"]


class TrainReport:
    """Shows a training run on stderr.

    Args:
        quiet: only warnings and errors.
    """

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._live = self._console.is_terminal and not quiet
        self._bars = Bars(
            BarColumn(bar_width=16),
            TextColumn("{task.description}", markup=False),
            console=self._console,
            transient=True,
            disable=not self._live,
        )
        self._task: TaskID | None = None
        self._losses: tuple[float, ...] = ()
        self._reports = 0
        self._last_line = -PLAIN_SECONDS

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def say(self, line: str) -> None:
        """Print a sentence."""
        if not self._quiet:
            self._console.print(Text(line))

    def progress(self, progress: Progress) -> None:
        """Show how far training is."""
        # a mean of few values at first, then of about the last fifty
        self._reports += 1
        weight = max(1 - SMOOTHING, 1 / self._reports)
        new = (progress.face, progress.box, progress.gender)
        old = self._losses or new
        self._losses = tuple(a + weight * (b - a) for a, b in zip(old, new, strict=True))
        line = progress_line(progress, self._losses)
        if self._live:
            if self._task is None:  # not before: the bar has a thread, and training forks
                self._bars.start()
                self._task = self._bars.add_task("", total=1.0)
            self._bars.update(self._task, completed=min(1.0, progress.share), description=line)
        elif time.monotonic() - self._last_line >= PLAIN_SECONDS or progress.share >= 1:
            self._last_line = time.monotonic()
            self.say(line)

    def validated(self, found: Validation, step: int, is_best: bool) -> None:
        """Print what a validation found."""
        parts = [f"step {step:,}: {validation_line(found)}"]
        self.say(", ".join([*parts, "best so far"] if is_best else parts))

    def interrupted(self, folder: Path) -> None:
        """Say how to go on."""
        self._bars.stop()
        self._console.print(
            Text(f"interrupted: go on with `videogender train --out {folder} --resume`"),
        )

    def done(self, weights: Path) -> None:
        """Say where the weights are and how they are used."""
        self._bars.stop()
        self.say(f"weights -> {weights} (videogender annotate CLIP --weights {weights})")


def progress_line(progress: Progress, losses: tuple[float, ...]) -> str:
    """Put everything that matters into one line."""
    face, box, gender = losses
    return (
        f"step {progress.step:,} ({progress.share:.1%}), "
        f"loss: face {face:.3f} box {box:.3f} gender {gender:.3f}, "
        f"{progress.images_per_second:.0f} img/s ({progress.data_share:.0%} on data), "
        f"{clock(progress.seconds_left)} left"
    )


def validation_line(found: Validation) -> str:
    """Put the figures of a validation into one line."""
    parts = []
    if found.tall and found.small:
        parts.append(
            f"AP {found.tall.average_precision:.3f} from 16 px, "
            f"{found.small.average_precision:.3f} from 8 px"
        )
    if found.portraits and found.portraits.faces:
        parts.append(f"gender in portraits {_gender(found.portraits)}")
    if found.scenes and found.scenes.faces:
        parts.append(f"in scenes {_gender(found.scenes)}")
    return "; ".join(parts) or "nothing to measure"


def clock(seconds: float) -> str:
    """Write a time as h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def _gender(figures: GenderFigures) -> str:
    low, high = figures.interval
    return f"{figures.accuracy:.3f} ({low:.3f} to {high:.3f}, {figures.found:.1%} found)"
