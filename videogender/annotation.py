"""Annotates videos and images: opens each, runs the pipeline over it, writes copies and data."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from videogender.config import Settings
from videogender.errors import ConfigError, OutputError, SourceError, VideogenderError
from videogender.frames import Faces, Frame
from videogender.passes import FirstPass, check, second_pass, without_pictures
from videogender.pipeline import BatchDetector, Pipeline, Stage, detect_in, unbatched
from videogender.progress import AnnotationInterrupted, Progress, Summary
from videogender.targets import Job, plan_jobs

if TYPE_CHECKING:
    from types import TracebackType

    from videogender.render import Canvas
    from videogender.sinks.rows import RowSink
    from videogender.sources import Source
    from videogender.tracking.settle import Settled

__all__ = ["AnnotationInterrupted", "Progress", "Summary", "annotate"]

# Finished frames whose count may wait for whoever watches the progress.
PROGRESS_DEPTH = 64
# Decoded frames that may wait to be drawn.
READ_DEPTH = 4


class _FrameSink(Protocol):
    def write(self, frame: Frame, draw: Callable[[Canvas], None] | None) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


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

    Videos are read twice where faces are labelled by track (`settings.track`): first they are
    looked at and every face is followed, then they are drawn; data come with the second pass.

    Args:
        inputs: files, folders and patterns.
        output: a folder, or with one input a file; None writes `<name>.annotated.<suffix>` beside
            each input.
        detector: finds the faces; None loads the one that `settings` names. Given, its own
            threshold holds, if it names one.
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
    check(settings.track)
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
            warnings=tally.warnings,
            error=failure,
            interrupted=tally.interrupted,
        )

    def _annotate(
        self, job: Job, detector: BatchDetector, tally: _Tally, position: int, count: int
    ) -> None:
        from videogender.sinks.atomic import pending

        with ExitStack() as stack:
            source = self._open(stack, job, tally)
            self.progress.start(job, source.frame_count, position, count)
            follows = source.kind == "video" and self.settings.track.label_by == "track"
            # The frames that are drawn are read anew; whether that can be done is known at once.
            drawn = self._open(stack, job, tally) if follows and job.target else source
            sink = None
            if job.target is not None:
                place = stack.enter_context(pending(job.target, force=self.force))
                stack.enter_context(_named(place, job.target))
                sink = stack.enter_context(self._open_sink(place, drawn))
            settled = self._look(source, detector, tally) if follows else None
            pipeline = stack.enter_context(Pipeline())
            found: Stage[Any]
            if settled is None:
                found = detect_in(pipeline, source, detector)
                writing = self._write(unbatched(found), sink)
            else:
                give = second_pass if sink is not None else without_pictures
                found = pipeline.stage(give(drawn, settled), depth=READ_DEPTH, name="reader")
                writing = self._write(found, sink)
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

    def _open(self, stack: ExitStack, job: Job, tally: _Tally) -> Source:
        from videogender.sources import open_source

        start, end = self.span_seconds
        source = open_source(job.source, start_seconds=start, end_seconds=end)
        tally.told.append(source.warnings)
        return stack.enter_context(source)

    def _look(self, source: Source, detector: BatchDetector, tally: _Tally) -> Settled:
        """Run the first of two passes. Ctrl-C ends it, and what was seen goes on to the second."""
        follow = self.settings.track
        if self.settings.render.blur:
            # A face hidden too many does no harm, one too few does.
            longest = max(follow.bridge_seconds, follow.lost_seconds)
            follow = replace(follow, min_hits=1, bridge_seconds=longest)
        first = FirstPass(source, detector, follow, self.settings.detect.face_threshold)
        self.progress.begin_pass("looking", source.frame_count)
        with Pipeline() as pipeline:
            looked = first.start(pipeline)
            try:
                for faces in looked:
                    self.progress.look(faces)
            except KeyboardInterrupt:
                tally.interrupted = True
                looked.close()
        settled = first.settle()
        if tally.interrupted:
            if not len(settled):
                raise KeyboardInterrupt
            self.progress.stopped(len(settled))
        self.progress.begin_pass("drawing", len(settled))
        return settled

    def _follow(self, written: Iterable[int], tally: _Tally) -> None:
        for faces in written:
            tally.frames += 1
            tally.faces += faces
            self.progress.advance(faces)

    def _write(
        self, found: Iterable[tuple[Frame, Faces]], sink: _FrameSink | None
    ) -> Iterator[int]:
        """Draw and encode in the writer's thread, and yield the number of faces of each frame."""
        # The sink is closed here: Ctrl-C in the caller's thread cannot disturb the end of a file.
        with sink if sink is not None else nullcontext():
            for frame, faces in found:
                if sink is not None:
                    sink.write(frame, self._drawing(faces))
                for rows in self.data:
                    rows.write(frame, faces)
                faces_found = len(faces)
                del frame, faces  # while the next one is awaited, this one is not needed
                yield faces_found

    def _open_sink(self, place: Path, source: Source) -> _FrameSink:
        from videogender.sources.video import VideoSource

        if isinstance(source, VideoSource):
            from videogender.sinks.video import VideoSink

            return VideoSink(place, source, self.settings.video)
        from videogender.sinks.images import ImageSink

        # Exif data may hold a small copy of the picture, with its faces.
        like = None if self.settings.render.blur else source.path
        return ImageSink(place, like)

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
    told: list[list[str]] = field(default_factory=list)  # the warnings of each opened source
    interrupted: bool = False

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the sources told, once each: two passes over a file find the same faults."""
        return tuple(dict.fromkeys(line for lines in self.told for line in lines))
