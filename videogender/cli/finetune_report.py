"""What `videogender finetune` says on stderr: a live line, or a plain one now and then."""

from __future__ import annotations

import math
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.text import Text

from videogender.cli.train_report import clock
from videogender.finetuning.loop import Progress
from videogender.finetuning.request import Watcher

PLAIN_SECONDS = 20.0  # between two lines where there is no terminal

__all__ = ["FinetuneReport"]


class FinetuneReport(Watcher):
    """Shows a fine-tuning run on stderr.

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
        self._last_line = time.monotonic()
        self._began: float | None = None

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

    def looking(self, done: int, total: int) -> None:
        """Show how many pictures the trunk has looked at."""
        now = time.monotonic()
        self._began = self._began or now
        speed = done / max(now - self._began, 1e-9)
        left = f", {clock((total - done) / speed)} left" if self._began < now else ""
        self._show(done / total, f"looking at pictures: {done:,} of {total:,}{left}")

    def learning(self, progress: Progress) -> None:
        """Show how far an epoch is."""
        p = progress
        share = (p.epoch - 1 + p.done / p.total) / p.epochs
        what = f"epoch {p.epoch} of {p.epochs}, loss {p.loss:.4f}, accuracy {p.accuracy:.3f}"
        if math.isnan(p.accuracy):  # joint training counts steps
            what = f"step {p.done} of {p.total}, gender loss {p.loss:.3f}"
        speed = f"{p.faces_per_second:,.0f} img/s, {clock(p.seconds_left)} left"
        self._show(share, f"{what}, {speed}")

    def epoch(self, row: dict[str, Any], is_best: bool) -> None:
        """Print what an epoch came to."""
        parts = [
            f"epoch {row['epoch']}: loss {row['train_loss']:.4f}",
            f"accuracy {row['train_accuracy']:.3f}",
        ]
        if "val_loss" in row:
            parts.append(f"val loss {row['val_loss']:.4f}, accuracy {row['val_accuracy']:.3f}")
            parts += ["best so far"] if is_best else []
        self.say(", ".join(parts) + f" ({row['seconds']:.1f} s)")

    def checking(self, done: int, total: int) -> None:
        """Show how many parts of the search for wrong labels are done."""
        self._show(done / total, f"looking for wrong labels: part {done} of {total}")

    def interrupted(self, folder: Path) -> None:
        """Say how to go on."""
        self._bars.stop()
        line = f"interrupted: go on with `videogender finetune --resume {folder}`"
        self._console.print(Text(line))

    def done(self, results: dict[str, Any]) -> None:
        """Say what came out, and how it is used."""
        self._bars.stop()
        speed = results.get("speed", {})
        if "later / first" in speed:
            self.say(
                f"first epoch {speed['first epoch, s']:.1f} s (features "
                f"{speed['features, s']:.1f} s), later ones {speed['later epochs, s']:.2f} s: "
                f"1/{1 / max(speed['later / first'], 1e-9):.0f}"
            )
        self.say(f"judged on {results['judged_on']}")
        for name in ("before", "after"):
            if figures := results.get(name):
                self.say(f"{name}: {figures_line(figures)}")
        if suspects := results.get("suspected"):
            labels = "label" if len(suspects) == 1 else "labels"
            self.say(f"{len(suspects)} {labels} to look at, first {_suspect(suspects[0])}")
        self.say(f"weights -> {results['weights']}")
        self.say(f"use them: {results['command']}")

    def _show(self, share: float, line: str) -> None:
        if self._live:
            if self._task is None:
                self._bars.start()
                self._task = self._bars.add_task("", total=1.0)
            self._bars.update(self._task, completed=min(1.0, share), description=line)
        elif time.monotonic() - self._last_line >= PLAIN_SECONDS:
            self._last_line = time.monotonic()
            self.say(line)


def figures_line(figures: dict[str, Any]) -> str:
    """Put figures into one line."""
    if "accuracy" not in figures:
        return f"none of {figures.get('faces', 0)} faces was found"
    spread = f"too few people for an interval: {figures.get('people')}"
    if figures["interval"] is not None:
        spread = "{:.3f} to {:.3f}".format(*figures["interval"])
    parts = [f"accuracy {figures['accuracy']:.3f} ({spread})"]
    labels = figures.get("by_label", {})
    if 0 < len(labels) <= 5:
        parts += [f"{name} {share:.3f}" for name, share in labels.items()]
    if "average_precision" in figures:
        parts.append(f"AP {figures['average_precision']:.3f}")
    parts.append(f"{figures['found']:.1%} of {figures['faces']} found")
    parts.append(f"confidence error {figures['confidence_error']:.3f}")
    return ", ".join(parts)


def _suspect(row: dict[str, Any]) -> str:
    name = Path(row["image"]).name
    return f"{name}: called {row['label']}, looks {row['answer']} ({row['probability']:.0%})"
