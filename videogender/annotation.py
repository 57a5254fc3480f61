"""Annotates videos and images: opens each, runs the pipeline over it, writes copies and data."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from videogender.config import Settings
from videogender.errors import ConfigError, OutputError, SourceError, VideogenderError
from videogender.frames import Faces, Frame
from videogender.pipeline import BatchDetector, Pipeline, detect_in, unbatched
from videogender.targets import Job, plan_jobs

if TYPE_CHECKING:
    from videogender.render import Canvas
    from videogender.sinks.rows import RowSink
    from videogender.sources import Source

__all__ = ["AnnotationInterrupted", "Progress", "Summary", "annotate"]

# Finished frames whose count may wait for whoever watches the progress.
PROGRESS_DEPTH = 64


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
    """

    source: str
    output: Path | None = None
    frames: int = 0
    faces: int = 0
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()
    error: VideogenderError | None = None
    interrupted: bool = False

    @property
    def fps(self) -> float:
        """Frames a second, all work included."""
        return self.frames / self.seconds if self.seconds > 0 else 0.0


class AnnotationInterrupted(KeyboardInterrupt):
    """Ctrl-C ended the run. What was done is complete and described by `summaries`."""

    def __init__(self, summaries: list[Summary]) -> None:
        super().__init__("interrupted")
        self.summaries = summaries


class Progress:
    """Told what happens, in the caller's thread; override what is of interest."""

    def ready(self, detector: BatchDetector) -> None:
        """Note that the detector is loaded and the work begins."""

    def start(self, job: Job, frames: int | None, position: int, count: int) -> None:
        """Note that input `position` (from 0) of `count` is open; `frames` is an estimate."""

    def advance(self, faces: int) -> None:
        """Note that one more frame is written, with this many faces."""

    def finish(self, summary: Summary) -> None:
        """Note that an input is done, or has failed, perhaps before it could be opened."""


class _FrameSink(Protocol):
    def write(self, frame: Frame, draw: Callable[[Canvas], None] | None) -> None: ...


class _NothingDoneError(Exception):
    """Every input failed: takes the data files away before they get their names."""


def annotate(
    inputs: str | Path | Sequence[str | Path],
    *,
    output: str | Path | None = None,
    detector: BatchDetector | None = None,
    settings: Settings | None = None,
    json: str | Path | None = None,
    csv: str | Path | None = None,
    video: bool = True,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> list[Summary]:
    """Find and label the faces of videos and images, and write annotated copies and data.

    An input that fails does not stop the others: its summary carries the error. Outputs appear
    under their names only when they are complete.

    Args:
        inputs: files, folders and patterns.
        output: a folder, or with one input a file; None writes `<name>.annotated.<suffix>` beside
            each input.
        detector: finds the faces; None loads the one that `settings` names.
        settings: thresholds, looks and encoding; None takes the defaults.
        json: file for JSON Lines, one object a frame; `-` is standard output.
        csv: file for CSV, one row a face; `-` is standard output.
        video: False writes data only.
        start_seconds: where to begin in each video, on its own clock from its first frame.
        end_seconds: where to end.
        force: replace existing outputs.
        progress: told what happens.

    Returns:
        a summary for each input, in order.

    Raises:
        ConfigError: the arguments contradict each other.
        OutputError: an output exists, is an input, or cannot be written; nothing was started.
        ModelError: the detector's weights cannot be used.
        DeviceError: the asked-for device is not there.
        AnnotationInterrupted: Ctrl-C; a `KeyboardInterrupt` that carries the summaries.
    """
    settings = settings or Settings()
    progress = progress or Progress()
    if start_seconds is not None and end_seconds is not None and end_seconds <= start_seconds:
        raise ConfigError(f"the end ({end_seconds:g} s) should lie after the start")
    given = [inputs] if isinstance(inputs, (str, Path)) else list(inputs)
    data = {"--json": json, "--csv": csv}
    jobs = plan_jobs(given, output=output, data=data, video=video, force=force)
    if detector is None and any(job.error is None for job in jobs):
        from videogender.detector import Detector

        detect = settings.detect
        detector = Detector.load(
            detect.model, weights=detect.weights, device=detect.device, settings=detect
        )
    if detector is not None:
        progress.ready(detector)
    summaries: list[Summary] = []
    try:
        with ExitStack() as stack:
            sinks = _open_data(stack, json, csv, settings.label.unsure_below, force)
            work = _Work(detector, settings, sinks, (start_seconds, end_seconds), force, progress)
            for position, job in enumerate(jobs):
                summaries.append(work.run(job, position, len(jobs)))
                progress.finish(summaries[-1])
                if summaries[-1].interrupted:
                    break
            if not any(summary.frames for summary in summaries):
                raise _NothingDoneError
    except _NothingDoneError:
        pass
    if any(summary.interrupted for summary in summaries):
        raise AnnotationInterrupted(summaries)
    return summaries


def _open_data(
    stack: ExitStack,
    json: str | Path | None,
    csv: str | Path | None,
    unsure_below: float,
    force: bool,
) -> list[RowSink]:
    """Open the data files; they get their names when the stack is left without an error."""
    from videogender.sinks.atomic import pending
    from videogender.sinks.jsonl import JsonlSink
    from videogender.sinks.table import CsvSink

    sinks: list[RowSink] = []
    for kind, target in ((JsonlSink, json), (CsvSink, csv)):
        if target is not None:
            place = Path(target)
            if str(target) != "-":
                place = stack.enter_context(pending(place, force=force))
            sinks.append(stack.enter_context(kind(place, unsure_below=unsure_below, name=target)))
    return sinks


@dataclass(frozen=True, slots=True)
class _Work:
    """What all inputs of a run have in common."""

    detector: BatchDetector | None
    settings: Settings
    data: list[RowSink]
    span_seconds: tuple[float | None, float | None]
    force: bool
    progress: Progress

    def run(self, job: Job, position: int, count: int) -> Summary:
        """Annotate one input; its failure is told in the summary, not raised."""
        began = time.perf_counter()
        if job.error is not None or self.detector is None:
            return Summary(str(job.source), error=job.error)
        tally, marks = _Tally(), list[int | None]()
        kept, failure = False, None
        try:
            marks += [sink.mark() for sink in self.data]
            self._annotate(job, self.detector, tally, position, count)
            kept = True
        except VideogenderError as error:
            failure = error
            for sink, mark in zip(self.data, marks, strict=False):
                sink.rollback(mark)
        except KeyboardInterrupt:  # nothing was done yet, or it came twice
            tally.interrupted = True
        return Summary(
            str(job.source),
            output=job.target if kept else None,
            frames=tally.frames if failure is None else 0,
            faces=tally.faces if failure is None else 0,
            seconds=time.perf_counter() - began,
            warnings=tuple(tally.warnings),
            error=failure,
            interrupted=tally.interrupted,
        )

    def _annotate(
        self, job: Job, detector: BatchDetector, tally: _Tally, position: int, count: int
    ) -> None:
        from videogender.sinks.atomic import pending
        from videogender.sources import open_source

        start, end = self.span_seconds
        with ExitStack() as stack:
            source = stack.enter_context(
                open_source(job.source, start_seconds=start, end_seconds=end)
            )
            tally.warnings = source.warnings
            self.progress.start(job, source.frame_count, position, count)
            place = None
            if job.target is not None:
                place = stack.enter_context(pending(job.target, force=self.force))
                stack.enter_context(_named(place, job.target))
            pipeline = stack.enter_context(Pipeline())
            found = detect_in(pipeline, source, detector)
            writing = self._write(unbatched(found), source, place)
            written = pipeline.stage(writing, depth=PROGRESS_DEPTH, name="writer")
            try:
                self._follow(written, tally)
            except KeyboardInterrupt:
                # The writer sees the end of its input and closes a file that plays.
                tally.interrupted = True
                found.close()
                self._follow(written, tally)
                if not tally.frames:
                    raise
            if not tally.frames:
                raise SourceError(f"{source.name}: no frame lies in the part that was asked for")

    def _follow(self, written: Iterable[int], tally: _Tally) -> None:
        for faces in written:
            tally.frames += 1
            tally.faces += faces
            self.progress.advance(faces)

    def _write(
        self, found: Iterable[tuple[Frame, Faces]], source: Source, place: Path | None
    ) -> Iterator[int]:
        """Draw and encode in the writer's thread, and yield the number of faces of each frame."""
        with ExitStack() as stack:
            sink = None if place is None else self._open_sink(stack, place, source)
            for frame, faces in found:
                if sink is not None:
                    sink.write(frame, self._drawing(faces))
                for rows in self.data:
                    rows.write(frame, faces)
                faces_found = len(faces)
                del frame, faces  # while the next one is awaited, this one is not needed
                yield faces_found

    def _open_sink(self, stack: ExitStack, place: Path, source: Source) -> _FrameSink:
        from videogender.sources.video import VideoSource

        if isinstance(source, VideoSource):
            from videogender.sinks.video import VideoSink

            return stack.enter_context(VideoSink(place, source, self.settings.video))
        from videogender.sinks.images import ImageSink

        # Exif data may hold a small copy of the picture, with its faces.
        like = None if self.settings.render.blur else source.path
        return stack.enter_context(ImageSink(place, like))

    def _drawing(self, faces: Faces) -> Callable[[Canvas], None] | None:
        render = self.settings.render
        if not len(faces) or (render.style == "none" and not render.labels and not render.blur):
            return None
        from videogender.render import draw_faces

        return lambda canvas: draw_faces(canvas, faces, self.settings.label, render)


@contextmanager
def _named(place: Path, target: Path) -> Iterator[None]:
    """Let errors speak of the target, not of the temporary name that it has while it is made."""
    try:
        yield
    except OutputError as error:
        if str(place) in str(error):
            raise OutputError(str(error).replace(str(place), str(target))) from error
        raise


@dataclass(slots=True)
class _Tally:
    """What has been done for one input so far."""

    frames: int = 0
    faces: int = 0
    warnings: list[str] = field(default_factory=list)
    interrupted: bool = False
