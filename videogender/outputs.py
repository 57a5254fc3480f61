"""What a run writes besides annotated copies: which data files there are, and what goes in."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from videogender.config import Settings
from videogender.errors import ConfigError
from videogender.frames import Faces, Frame

if TYPE_CHECKING:
    from videogender.reports.summary import FaceCounts
    from videogender.reports.thumbnails import Thumbnails
    from videogender.sinks.rows import RowSink, Stdout
    from videogender.sources import Source
    from videogender.targets import Job
    from videogender.tracking.settle import Settled
    from videogender.zones.figures import Whereabouts
    from videogender.zones.live import LooseZones
    from videogender.zones.settled import SettledZones

__all__ = ["DataOutputs", "InputOutputs", "Pieces", "Rows", "RunOutputs", "check_zones"]

Place = str | Path | None


class _Undoable(Protocol):
    def mark(self) -> tuple[int, ...]: ...
    def rollback(self, mark: tuple[int, ...], /) -> None: ...


class Rows(_Undoable, Protocol):
    """Takes the faces of every frame; see `videogender.sinks.rows.RowSink`."""

    def write(self, frame: Frame, faces: Faces, where: Whereabouts | None = None) -> None:
        """Write one frame."""


class Pieces(_Undoable, Protocol):
    """Takes what is known of an input when it is done, such as its summary."""

    def add(self, piece: Any, /) -> None:
        """Write what is known of one input."""


@dataclass(frozen=True, slots=True)
class DataOutputs:
    """The data files of a run; None leaves one out, `-` is standard output.

    Attributes:
        json: JSON Lines, one object a frame.
        csv: CSV, one row a face.
        coco: COCO JSON, over all inputs.
        mot: MOTChallenge text; of several inputs a folder.
        vtt: WebVTT subtitles; of several inputs a folder.
        summary: JSON of who was in view and for how long.
        report: the same as a page, with a timeline.
    """

    json: Place = None
    csv: Place = None
    coco: Place = None
    mot: Place = None
    vtt: Place = None
    summary: Place = None
    report: Place = None

    @property
    def shared(self) -> dict[str, Place]:
        """The files that hold all inputs, by flag."""
        names = ("json", "csv", "coco", "summary", "report")
        return {f"--{name}": getattr(self, name) for name in names}

    @property
    def each(self) -> dict[str, Place]:
        """The files that every input has for itself, by flag."""
        return {"--mot": self.mot, "--vtt": self.vtt}

    @property
    def places(self) -> list[str]:
        """All that are wanted."""
        return [str(place) for place in (self.shared | self.each).values() if place is not None]


def check_zones(settings: Settings) -> None:
    """Refuse zones and lines that cannot be told apart or counted.

    Raises:
        ConfigError: two have one name, or lines are to be counted without tracks.
    """
    from videogender.zones.plan import plan_of

    plan_of(settings.zones, (1, 1))
    if settings.zones.line and settings.track.label_by == "frame":
        raise ConfigError(
            "--line counts tracks that cross it, and --label-by frame keeps none; leave one of "
            "them out"
        )


class RunOutputs:
    """The open data files of a run.

    Args:
        stack: closes them, and gives them their names if it is left without an error.
        wanted: which there are.
        settings: of the run.
        model: what finds the faces, in a word or two.
        force: existing files may be replaced.
        attributes: a fine-tuned head tells classes of faces apart.
        copies: annotated copies are written, too.

    Attributes:
        stdout: standard output.

    Raises:
        OutputError: a file cannot be opened.
    """

    def __init__(
        self,
        stack: ExitStack,
        wanted: DataOutputs,
        settings: Settings,
        model: str,
        force: bool,
        *,
        attributes: bool = False,
        copies: bool = True,
    ) -> None:
        from videogender.sinks.rows import Stdout

        self.settings, self.force = settings, force
        self.stdout = Stdout(is_all=wanted.places == ["-"] and not copies)
        self.rows: list[Rows] = []
        self.summaries: Pieces | None = None
        self.report: Pieces | None = None
        if wanted.json is not None:
            from videogender.sinks.jsonl import JsonlSink

            self.rows.append(self.open(stack, JsonlSink, wanted.json))
        if wanted.csv is not None:
            from videogender.sinks.table import CsvSink

            has_zones = bool(settings.zones.zone)
            self.rows.append(
                self.open(stack, CsvSink, wanted.csv, zones=has_zones, attributes=attributes)
            )
        if wanted.coco is not None:
            from videogender.sinks.coco import CocoSink

            self.rows.append(self.open(stack, CocoSink, wanted.coco))
        if wanted.summary is not None:
            from videogender.sinks.summary import SummarySink

            place = self._place(stack, wanted.summary)
            sink = SummarySink(place, settings=settings, name=wanted.summary)
            self.summaries = stack.enter_context(sink)
        if wanted.report is not None:
            from videogender.sinks.report import ReportSink

            page = ReportSink(self._pending(stack, wanted.report), settings=settings, model=model)
            self.report = stack.enter_context(page)

    def open(
        self,
        stack: ExitStack,
        kind: Callable[..., RowSink],
        target: str | Path,
        **options: bool,
    ) -> RowSink:
        """Open a file of rows, which gets its name when the stack is left without an error."""
        place = self._place(stack, target)
        unsure_below = self.settings.label.unsure_below
        sink = kind(place, unsure_below=unsure_below, name=target, **options)
        return stack.enter_context(sink)

    def mark(self) -> list[tuple[int, ...]]:
        """Return a place to which `rollback` can return."""
        return [sink.mark() for sink in self._sinks]

    def rollback(self, marks: list[tuple[int, ...]]) -> None:
        """Forget what was written since; marks may be missing if taking them failed."""
        for sink, mark in zip(self._sinks, marks, strict=False):
            sink.rollback(mark)

    @property
    def _sinks(self) -> list[_Undoable]:
        further = [sink for sink in (self.summaries, self.report) if sink is not None]
        return [*self.rows, *further]

    def _place(self, stack: ExitStack, target: str | Path) -> Path | Stdout:
        place = self.stdout.or_file(target)
        return self._pending(stack, place) if isinstance(place, Path) else place

    def _pending(self, stack: ExitStack, target: str | Path) -> Path:
        from videogender.sinks.atomic import pending

        return stack.enter_context(pending(target, force=self.force))


class InputOutputs:
    """What is written about one input.

    Args:
        run: the files of the whole run.
        stack: closes the files of this input.
        job: names them.
        source: the input; warnings are added to it.
    """

    def __init__(self, run: RunOutputs, stack: ExitStack, job: Job, source: Source) -> None:
        from videogender.zones.plan import plan_of

        self._run, self._source = run, source
        self._unsure_below = run.settings.label.unsure_below
        self._rows: list[Rows] = [*run.rows, *self._own_rows(stack, job)]
        self._settled: Settled | None = None
        self._stopped = False  # before all of the video was looked at
        self._thumbnails: Thumbnails | None = None
        self._counts: FaceCounts | None = None
        self._plan = plan_of(run.settings.zones, self._size_wh)
        self._zones: SettledZones | LooseZones | None = None
        if self._plan is not None:
            from videogender.zones.live import LooseZones

            self._zones = LooseZones(self._plan, self._unsure_below)
            for name in self._plan.outside(self._size_wh):
                wide, high = self._size_wh
                source.warnings.append(
                    f"{source.name}: {name} lies beside the picture of {wide} by {high} pixels"
                )
        if run.summaries is not None or run.report is not None:
            from videogender.reports.summary import FaceCounts

            self._counts = FaceCounts(source.name, self._unsure_below)

    @property
    def wants_pictures(self) -> bool:
        """Whether the pictures of followed faces are needed, even without an annotated copy."""
        return self._run.report is not None and self._run.settings.report.thumbnails != "none"

    def follow(self, settled: Settled, *, stopped: bool) -> None:
        """Take what the first pass settled, before the frames come.

        Args:
            settled: of the first pass.
            stopped: that ended before the video did.
        """
        self._settled, self._stopped, self._counts = settled, stopped, None
        if self._plan is not None:
            from videogender.zones.settled import SettledZones

            self._zones = SettledZones(settled, self._plan, self._unsure_below)
        if self.wants_pictures:
            from videogender.reports.thumbnails import Thumbnails

            kind = self._run.settings.report.thumbnails
            self._thumbnails = Thumbnails(settled, kind, size_wh=self._size_wh)  # type: ignore[arg-type]  # checked by its rule

    def write(self, frame: Frame, faces: Faces) -> Whereabouts | None:
        """Write a frame to all data files, and return which zones its faces are in."""
        where = None
        if self._zones is not None:
            where = self._zones.at(faces, frame.pts_seconds or 0.0)
        for rows in self._rows:
            rows.write(frame, faces, where)
        if self._counts is not None:
            self._counts.add(frame, faces)
        if self._thumbnails is not None:
            self._thumbnails.offer(frame, faces)
        return where

    def finish(self, *, interrupted: bool) -> None:
        """Write what is known only when all frames have been written.

        Args:
            interrupted: some were left out.
        """
        run, settled = self._run, self._settled
        if run.summaries is None and run.report is None:
            return
        figures = None if self._zones is None else self._zones.figures()
        if self._counts is not None:
            summary = self._counts.summary(zones=figures, interrupted=interrupted)
        else:
            from videogender.reports.summary import summarize

            assert settled is not None
            summary = summarize(
                settled,
                source=self._source.name,
                size_wh=self._size_wh,
                unsure_below=self._unsure_below,
                zones=figures,
                interrupted=self._stopped,
            )
        if run.summaries is not None:
            run.summaries.add(summary)
        if run.report is not None:
            from videogender.reports.video_report import VideoSection

            run.report.add(VideoSection(summary, settled, self._thumbnails, self._counts))

    @property
    def _size_wh(self) -> tuple[int, int]:
        return self._source.width, self._source.height

    def _own_rows(self, stack: ExitStack, job: Job) -> list[RowSink]:
        """Open the files that this input has for itself."""
        rows = []
        for flag, target in job.data.items():
            if flag == "--mot":
                from videogender.sinks.mot import MotSink

                rows.append(self._run.open(stack, MotSink, target))
            elif self._source.kind == "video":
                from videogender.sinks.vtt import VttSink

                rows.append(self._run.open(stack, VttSink, target))
            else:
                # The same for all of them, so that it is said once.
                self._source.warnings.append("stills have no time, so --vtt leaves them out")
        return rows
