"""What `videogender eval` says: tables for people, JSON and a folder for everybody else."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from PIL import Image

    from videogender.evaluation.detect_result import DetectResult
    from videogender.evaluation.gender_result import GenderResult
    from videogender.evaluation.groups import Gap, Group
    from videogender.evaluation.video import VideoResult

T = TypeVar("T")
Interval = tuple[float, float]

__all__ = ["EvalReport", "detect_table", "gender_tables", "video_table"]


class EvalReport:
    """Shows the work on stderr, and in the end puts results where they were asked for.

    Args:
        json: a file, `-` for standard output, or None.
        folder: of the report, or None.
        force: replace what is there.
        quiet: no progress, no notes.
    """

    def __init__(self, json: str | None, folder: Path | None, *, force: bool, quiet: bool) -> None:
        self._to_stdout = json == "-"
        self._json = None if json in (None, "-") else Path(str(json))
        self._folder, self._force = folder, force
        self._quiet = quiet
        self._aside = Console(stderr=True, highlight=False, soft_wrap=True)
        self._stack = ExitStack()
        self._bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._aside,
            transient=True,
            disable=quiet or not self._aside.is_terminal,
        )

    def __enter__(self) -> Self:
        """Claim the outputs: a refusal should come before the long work."""
        from videogender.evaluation.report_folder import pending_folder
        from videogender.sinks.atomic import pending

        with ExitStack() as stack:
            if self._json is not None:
                self._json = stack.enter_context(pending(self._json, force=self._force))
            if self._folder is not None:
                self._folder = stack.enter_context(pending_folder(self._folder, force=self._force))
            stack.enter_context(self._bars)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def note(self, line: str) -> None:
        """Say something about the run."""
        if not self._quiet:
            self._aside.print(Text(line))

    def counted(self, items: Iterable[T], total: int, what: str) -> Iterator[T]:
        """Yield the items while a bar grows."""
        task = self._bars.add_task(what, total=total)
        for item in items:
            yield item
            self._bars.advance(task)
        self._bars.remove_task(task)

    def bar(self, what: str, total: int | None) -> Callable[[], None]:
        """Begin a bar and return what moves it on."""
        task = self._bars.add_task(what, total=total)
        return lambda: self._bars.advance(task)

    def deliver(
        self,
        found: dict[str, Any],
        tables: Sequence[Table | str],
        plots: Callable[[], dict[str, Image.Image]],
    ) -> None:
        """Print the tables, write the JSON, fill the folder."""
        from videogender.evaluation.report_folder import REPORT_NAME

        text = json.dumps(found, indent=2, allow_nan=False) + "\n"
        if self._json is not None:
            self._json.write_text(text, encoding="utf-8")
        if self._folder is not None:
            (self._folder / REPORT_NAME).write_text(text, encoding="utf-8")
            for name, image in plots().items():
                image.save(self._folder / name)
        self._bars.stop()
        console = Console(stderr=self._to_stdout, highlight=False)
        # figures are worth more than tidy lines where the terminal is narrow
        console.width = max(console.width, 120) if console.is_terminal else 160
        for number, table in enumerate(tables):
            if number:
                console.print()
            console.print(table)
        if self._to_stdout:
            print(text, end="")


def detect_table(results: Sequence[DetectResult], heights_at: float) -> Table:
    """Lay out how well faces are found, a column for each detector."""
    table = _table("IoU 0.5", "faces", *(result.name for result in results))
    first = results[0]
    for name in first.bands:
        bands = [result.bands[name] for result in results]
        if not bands[0].figures.faces:
            continue
        table.add_row(f"[bold]faces {name} at long side {heights_at:g}")
        faces = f"{bands[0].figures.faces:,}"
        table.add_row(
            "  average precision",
            faces,
            *(_figure(b.figures.average_precision, b.precision_interval) for b in bands),
        )
        if name in (">= 16 px", ">= 8 px"):
            for row, value, ends in (
                ("  recall at 0.1 false alarms an image", "recall_at_tenth", "tenth_interval"),
                ("  recall at 1 false alarm an image", "recall_at_one", "one_interval"),
            ):
                cells = (_figure(getattr(b.figures, value), getattr(b, ends)) for b in bands)
                table.add_row(row, "", *cells)
    if first.wider:
        table.add_row("[bold]WIDER FACE, official protocol")
    for level, figures in first.wider.items():
        levels = [result.wider[level] for result in results]
        cells = (_figure(each.average_precision, each.interval) for each in levels)
        table.add_row(f"  {level}", f"{figures.faces:,}", *cells)
    return table


def gender_tables(result: GenderResult) -> list[Table | str]:
    """Lay out how well gender is told: by group, and as a whole."""
    table = _table("presented gender", "faces", "found", "accuracy", "balanced", "women", "men")
    grown = f"from {result.least_age:g} years, or unknown" if result.least_age else "all ages"
    table.add_row(f"[bold]{grown}")
    _group(table, result.all, "all")
    for name, groups in (
        ("height at long side 640", result.sizes),
        ("age", [*([result.younger] if result.younger else []), *result.ages]),
        *((key.replace("_", " "), groups) for key, groups in result.labels.items()),
    ):
        if groups:
            table.add_row(f"[bold]by {name}")
        for group in groups:
            _group(table, group, group.name)
    return [table, _whole(result)]


def _whole(result: GenderResult) -> Table:
    """Lay out what is not by group."""
    table = _table("as a whole", "", "")
    error = result.all.figures.calibration_error
    table.add_row(
        "calibration error of the female probability", _figure(error, result.calibration_interval)
    )
    if result.gender_gap:
        _gap(table, "women and men", result.gender_gap)
    for key, gap in result.gaps.items():
        _gap(table, f"groups by {key.replace('_', ' ')} (>= 100 found faces)", gap)
    band = result.band
    name = f"with unsure below {band.unsure_below:g}"
    table.add_row(f"{name}: faces that get a label", _figure(band.coverage, band.coverage_interval))
    table.add_row(f"{name}: labels that are right", _figure(band.accuracy, band.accuracy_interval))
    for below, covered, accuracy in result.ladder:
        if round(below * 100) in (50, 60, 70, 80, 90) and not math.isnan(accuracy):
            table.add_row(
                f"  unsure below {below:g}", f"{accuracy:.3f}", f"of {covered:.1%} of found faces"
            )
    return table


def video_table(results: Sequence[VideoResult]) -> Table:
    """Lay out how labels hold over time, a column for each way of labelling."""
    table = _table("", *(str(result.way) for result in results))
    rows: list[tuple[str, list[str]]] = [
        ("labelled faces", [f"{r.faces:,}" for r in results]),
        ("  found", [_number(r.found) for r in results]),
        ("  false alarms a labelled frame", [_number(r.false_alarms) for r in results]),
        ("  right, where labelled", [_number(r.face_accuracy) for r in results]),
        ("  labelled, of those found", [_number(r.face_coverage) for r in results]),
        ("tracks", [f"{len(r.tracks):,}" for r in results]),
        ("  right, where labelled", [_number(r.track_accuracy) for r in results]),
        ("    95 % interval", [_ends(r.track_interval) for r in results]),
        ("  labelled", [_number(r.track_coverage) for r in results]),
        ("label changes", [f"{r.label_changes:,}" for r in results]),
        ("  a minute that a face is in view", [_number(r.flicker, 1) for r in results]),
        ("id switches", ["" if r.id_switches is None else f"{r.id_switches:,}" for r in results]),
        ("processor time, seconds", [_number(r.processor_seconds, 1) for r in results]),
    ]
    for name, cells in rows:
        table.add_row(name, *cells)
    return table


def _table(first: str, *columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(escape(column), justify="right", no_wrap=True)
    return table


def _group(table: Table, group: Group, name: str) -> None:
    figures = group.figures
    table.add_row(
        f"  {escape(name)}",
        f"{figures.faces:,}",
        _number(figures.found),
        _figure(figures.accuracy, figures.interval),
        _figure(group.balanced, group.balanced_interval),
        _number(figures.accuracy_female),
        _number(figures.accuracy_male),
    )


def _gap(table: Table, name: str, gap: Gap) -> None:
    remark = f"{escape(gap.best)} over {escape(gap.worst)}"
    table.add_row(f"gap between {name}", _figure(gap.width, gap.interval), remark)


def _number(value: float, digits: int = 3) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def _ends(ends: Interval) -> str:
    return "-" if math.isnan(ends[0]) else f"{ends[0]:.2f}-{ends[1]:.2f}"


def _figure(value: float, ends: Interval) -> str:
    if math.isnan(value):
        return "-"
    if math.isnan(ends[0]):
        return f"{value:.3f}"
    to = "-" if ends[0] >= 0 else " to "
    return f"{value:.3f} ({ends[0]:.3f}{to}{ends[1]:.3f})"
