"""What `videogender annotate` says on stderr: device, progress bar, warnings, summary."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Literal, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.text import Text

from videogender.annotation import Progress, Summary
from videogender.cli.signals import Caught
from videogender.pipeline import BatchDetector
from videogender.progress import DRAW_SECONDS, DetectorFacts
from videogender.targets import Job

__all__ = ["Report"]

MANY_INPUTS = 5
_LOG = logging.getLogger(__name__)  # of what only --debug shows


class _FpsColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        if task.fields.get("unit") != "frames":
            return Text("")
        speed = task.finished_speed or task.speed
        return Text("- fps" if speed is None else f"{speed:.1f} fps", style="cyan")


class Report(Progress):
    """Shows a run on stderr, so that stdout stays free for data.

    Args:
        quiet: only warnings and errors.
        model: name of the model, for the advice on missing gender heads.
        caught: SIGTERM, if it has come.
    """

    def __init__(self, *, quiet: bool, model: str, caught: Caught) -> None:
        self._quiet = quiet
        self._model = model
        self._caught = caught
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._told: set[str] = set()
        self._processes = 1
        self._began = 0.0
        self._rows: dict[int, _Row] = {}  # of inputs that run beside each other
        self._finished: set[int] = set()
        self._row = _Row(self)
        self._total: TaskID | None = None
        self.bars = Bars(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            _FpsColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=quiet or not self._console.is_terminal,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bars.stop()

    def left_out(self, line: str) -> None:
        """Say what of a folder is left out."""
        self._note(line)

    def begin(self, count: int, processes: int) -> None:
        """Add a bar for all inputs, where several run beside each other."""
        self._processes = processes
        if processes > 1:
            self._total = self.bars.add_task("all", total=count, unit="inputs")

    def ready(self, detector: BatchDetector | DetectorFacts) -> None:
        """Say which model runs where, and whether it can label at all."""
        self._began = time.perf_counter()
        if callable(describe := getattr(detector, "describe", None)):
            many = f", in {self._processes} processes" if self._processes > 1 else ""
            self._note(f"model: {describe()}{many}")
        if not (getattr(detector, "has_gender", True) or getattr(detector, "classes", ())):
            self._warn(
                f"{self._model} has no gender heads, so every face is unsure; train them with "
                f"videogender finetune DATA --model {self._model}"
            )
        self.bars.start()

    def row(self, position: int) -> Progress:
        """Return a row for one of several inputs that run beside each other."""
        return self._rows.setdefault(position, _Row(self, position))

    def start(self, job: Job, frames: int | None, position: int, count: int) -> None:
        """Show a bar for this input."""
        self._row.start(job, frames, position, count)

    def begin_pass(self, name: Literal["looking", "drawing"], frames: int | None) -> None:
        """Begin the bar anew for one of the two passes over a video."""
        self._row.begin_pass(name, frames)

    def stopped(self, frames: int) -> float | None:
        """Say why there is still something to wait for after Ctrl-C."""
        is_terminated = self._caught.number is not None
        line = f"stopping: the {_many(frames, 'frame')} seen so far are being written"
        if is_terminated or self._processes > 1:
            line = "stopping: a few seconds to write what was seen so far"
        if line not in self._told:
            self._told.add(line)
            self._note(f"{line}; Ctrl-C again keeps what is written by then")
        # Whoever sends SIGTERM kills before long.
        return DRAW_SECONDS if is_terminated else None

    def look(self, faces: int) -> None:
        """Move the bar by a frame."""
        self._row.look(faces)

    def advance(self, faces: int) -> None:
        """Move the bar by a frame."""
        self._row.advance(faces)

    def finish(self, summary: Summary, position: int | None = None) -> None:
        """Replace the bar by a line on what came of this input."""
        if position is None:
            self._row.end()
        else:
            self._rows.pop(position).end()
            self._finished.add(position)
            if self._total is not None:
                self.bars.update(self._total, completed=len(self._finished))
        for warning in summary.warnings:
            self._warn(warning)
        if summary.error is not None:
            self._say(Text("error: ", style="bold red"), str(summary.error))
            for trace in getattr(summary.error, "__notes__", ()):
                _LOG.debug(trace)
        elif summary.skipped:
            why = "its data were kept"
            if summary.output is not None:
                why = f"{summary.output} is there and up to date"
            self._note(f"{summary.source}: skipped, as {why}")
        elif summary.frames and not summary.interrupted:
            where = f" -> {summary.output}" if summary.output else ""
            self._note(f"{summary.source}{where}: {_counts(summary)}")

    def done(self, summaries: Sequence[Summary], data: Sequence[str]) -> None:
        """Say what the whole run came to."""
        self.bars.stop()
        failed = sum(summary.error is not None for summary in summaries)
        if len(summaries) > 1:
            lost = f", {failed} failed" if failed else ""
            skipped = sum(summary.skipped for summary in summaries)
            lost += f", {skipped} skipped" if skipped else ""
            seconds = time.perf_counter() - self._began if self._processes > 1 else None
            self._note(f"{len(summaries)} inputs{lost}: {_counts(*summaries, seconds=seconds)}")
        if len(summaries) >= MANY_INPUTS:  # what went wrong has long been scrolled away
            for summary in summaries:
                if summary.error is not None:
                    self._say(Text("failed: ", style="bold red"), str(summary.error))
        if failed < len(summaries):
            self._note_data(data)

    def interrupted(self, summaries: Sequence[Summary], data: Sequence[str]) -> None:
        """Say what is there although Ctrl-C or SIGTERM ended the run."""
        self.bars.stop()
        unfinished = [summary for summary in summaries if summary.interrupted]
        for last in unfinished:
            kept = f"nothing was kept of {last.source}"
            if last.output is not None:
                kept = f"{last.output} holds the first {_many(last.frames, 'frame')} and plays"
            elif last.frames and data:
                kept = "data only"
            self._warn(f"interrupted: {kept}")
        if not unfinished:
            are_done = any(summary.output for summary in summaries)
            self._warn(f"interrupted: {'finished copies were' if are_done else 'nothing was'} kept")
        if any(summary.frames for summary in summaries):
            self._note_data(data)

    def _note_data(self, data: Sequence[str]) -> None:
        for path in data:
            if path != "-":
                self._note(f"data -> {path}")

    def _note(self, line: str) -> None:
        if not self._quiet:
            self._say(line)

    def _warn(self, line: str) -> None:
        if line not in self._told:
            self._told.add(line)
            self._say(Text("warning: ", style="yellow"), line)

    def _say(self, *parts: Any) -> None:
        self._console.print(Text.assemble(*parts))


class _Row(Progress):
    """The bar of one input.

    Args:
        report: shows it.
        position: of the input, where several run beside each other.
    """

    def __init__(self, report: Report, position: int | None = None) -> None:
        self._report, self._position = report, position
        self._task: TaskID | None = None
        self._name = ""

    def start(self, job: Job, frames: int | None, position: int, count: int) -> None:
        self.end()
        place = f"[{position + 1}/{count}] " if count > 1 else ""
        self._name = f"{place}{job.source.name}"
        self._task = self._report.bars.add_task(self._name, total=frames, unit="frames")

    def begin_pass(self, name: Literal["looking", "drawing"], frames: int | None) -> None:
        if self._task is not None:
            place = "1/2" if name == "looking" else "2/2"
            line = f"{self._name} {place} {name}"
            self._report.bars.reset(self._task, total=frames, description=line)

    def stopped(self, frames: int) -> float | None:
        return self._report.stopped(frames)

    def look(self, faces: int) -> None:
        self.advance(faces)

    def advance(self, faces: int) -> None:
        if self._task is not None:
            self._report.bars.advance(self._task)

    def finish(self, summary: Summary) -> None:
        self._report.finish(summary, self._position)

    def end(self) -> None:
        """Take the bar away."""
        if self._task is not None:
            self._report.bars.remove_task(self._task)
            self._task = None


def _counts(*summaries: Summary, seconds: float | None = None) -> str:
    frames = sum(summary.frames for summary in summaries)
    faces = sum(summary.faces for summary in summaries)
    if seconds is None:
        seconds = sum(summary.seconds for summary in summaries)
    speed = f", {frames / seconds:.1f} fps" if seconds > 0 else ""
    return f"{_many(frames, 'frame')}, {_many(faces, 'face')}, {seconds:.1f} s{speed}"


def _many(count: int, thing: str) -> str:
    return f"{count:,} {thing}{'' if count == 1 else 's'}"
