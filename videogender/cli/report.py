"""What `videogender annotate` says on stderr: device, progress bar, warnings, summary."""

from __future__ import annotations

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
from videogender.pipeline import BatchDetector
from videogender.targets import Job

__all__ = ["Report"]


class _FpsColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("- fps" if speed is None else f"{speed:.1f} fps", style="cyan")


class Report(Progress):
    """Shows a run on stderr, so that stdout stays free for data.

    Args:
        quiet: only warnings and errors.
        model: name of the model, for the advice on missing gender heads.
    """

    def __init__(self, *, quiet: bool, model: str) -> None:
        self._quiet = quiet
        self._model = model
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._told: set[str] = set()
        self._task: TaskID | None = None
        self._name = ""
        self._bars = Bars(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("frames"),
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
        self._bars.stop()

    def ready(self, detector: BatchDetector) -> None:
        """Say which model runs where, and whether it can label at all."""
        if callable(describe := getattr(detector, "describe", None)):
            self._note(f"model: {describe()}")
        if not getattr(detector, "has_gender", True):
            self._warn(
                f"{self._model} has no gender heads, so every face is unsure; --model lite has them"
            )
        self._bars.start()

    def start(self, job: Job, frames: int | None, position: int, count: int) -> None:
        """Show a bar for this input."""
        place = f"[{position + 1}/{count}] " if count > 1 else ""
        self._name = f"{place}{job.source.name}"
        self._task = self._bars.add_task(self._name, total=frames)

    def begin_pass(self, name: Literal["looking", "drawing"], frames: int | None) -> None:
        """Begin the bar anew for one of the two passes over a video."""
        if self._task is not None:
            place = "1/2" if name == "looking" else "2/2"
            self._bars.reset(self._task, total=frames, description=f"{self._name} {place} {name}")

    def stopped(self, frames: int) -> None:
        """Say why there is still something to wait for after Ctrl-C."""
        self._note(
            f"stopping: the {_many(frames, 'frame')} seen so far are being written; "
            "Ctrl-C again keeps what is written by then"
        )

    def look(self, faces: int) -> None:
        """Move the bar by a frame."""
        self.advance(faces)

    def advance(self, faces: int) -> None:
        """Move the bar by a frame."""
        if self._task is not None:
            self._bars.advance(self._task)

    def finish(self, summary: Summary) -> None:
        """Replace the bar by a line on what came of this input."""
        if self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None
        for warning in summary.warnings:
            self._warn(warning)
        if summary.error is not None:
            self._say(Text("error: ", style="bold red"), str(summary.error))
        elif summary.frames and not summary.interrupted:
            where = f" -> {summary.output}" if summary.output else ""
            self._note(f"{summary.source}{where}: {_counts(summary)}")

    def done(self, summaries: Sequence[Summary], data: Sequence[str]) -> None:
        """Say what the whole run came to."""
        self._bars.stop()
        failed = sum(summary.error is not None for summary in summaries)
        if len(summaries) > 1:
            lost = f", {failed} failed" if failed else ""
            self._note(f"{len(summaries)} inputs{lost}: {_counts(*summaries)}")
        if failed < len(summaries):
            self._note_data(data)

    def interrupted(self, summaries: Sequence[Summary], data: Sequence[str]) -> None:
        """Say what is there although Ctrl-C ended the run."""
        self._bars.stop()
        last = summaries[-1]
        if last.output is not None:
            kept = f"{last.output} holds the first {_many(last.frames, 'frame')} and plays"
        else:
            kept = f"nothing was kept of {last.source}" if not last.frames else "data only"
        self._warn(f"interrupted: {kept}")
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


def _counts(*summaries: Summary) -> str:
    frames = sum(summary.frames for summary in summaries)
    faces = sum(summary.faces for summary in summaries)
    seconds = sum(summary.seconds for summary in summaries)
    speed = f", {frames / seconds:.1f} fps" if seconds > 0 else ""
    return f"{_many(frames, 'frame')}, {_many(faces, 'face')}, {seconds:.1f} s{speed}"


def _many(count: int, thing: str) -> str:
    return f"{count:,} {thing}{'' if count == 1 else 's'}"
