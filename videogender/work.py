"""Annotates one input: opens it, runs the pipeline over it, writes its copy and its data."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from videogender.config import Settings, TrackSettings
from videogender.errors import SourceError, VideogenderError
from videogender.frames import Faces, Frame
from videogender.outputs import InputOutputs, RunOutputs
from videogender.passes import FirstPass, second_pass, without_pictures
from videogender.pipeline import BatchDetector, Pipeline, Stage, detect_in, unbatched
from videogender.progress import Progress, Summary
from videogender.targets import Job, date_before

if TYPE_CHECKING:
    from types import TracebackType

    from videogender.render import Canvas
    from videogender.sources import Source
    from videogender.tracking.settle import Settled
    from videogender.zones.figures import Whereabouts

__all__ = ["Work", "drawing", "follow_of", "load_detector", "unexpected"]

# Finished frames whose count may wait for whoever watches the progress.
PROGRESS_DEPTH = 64
# Decoded frames that may wait to be drawn.
READ_DEPTH = 4


def load_detector(settings: Settings) -> BatchDetector:
    """Load the detector that the settings name.

    Raises:
        ModelError: its weights cannot be used.
        DeviceError: the asked-for device is not there.
    """
    from videogender.detector import Detector

    detect = settings.detect
    detector = Detector.load(
        detect.model, weights=detect.weights, device=detect.device, settings=detect
    )
    if detect.refine is None:
        return detector
    from videogender.refine import RefinedDetector

    return RefinedDetector.around(detector, detect)


def follow_of(settings: Settings) -> TrackSettings:
    """Return how faces of files are followed; to be hidden, they are followed for longer."""
    follow = settings.follow
    if not settings.render.blur:
        return follow
    # A face hidden too many does no harm, one too few does.
    longest = max(follow.bridge_seconds, follow.lost_seconds)
    return replace(follow, min_hits=1, bridge_seconds=longest)


def drawing(
    settings: Settings, faces: Faces, where: Whereabouts | None = None
) -> Callable[[Canvas], None] | None:
    """Return what draws the faces of a frame, and its zones; None if there is nothing to draw."""
    render = settings.render
    is_plain = render.style == "none" and not render.labels and not render.blur
    if where is None and (is_plain or not len(faces)):
        return None
    from videogender.render import draw_faces
    from videogender.render.zones import draw_zones

    def draw(canvas: Canvas) -> None:
        if where is not None:
            draw_zones(canvas, where)
        draw_faces(canvas, faces, settings.label, render)

    return draw


class _FrameSink(Protocol):
    def write(self, frame: Frame, draw: Callable[[Canvas], None] | None) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class Work:
    """What all inputs of a run have in common.

    Attributes:
        detector: finds the faces; None if every input has failed already.
        settings: of the run.
        data: its open data files.
        span_seconds: where to begin and end in each video.
        force: existing outputs may be replaced.
        progress: told what happens.
        keeps_parts: what Ctrl-C leaves unfinished is kept as far as it goes, not thrown away.
        encoder_threads: 0 lets the encoder decide.
    """

    detector: BatchDetector | None
    settings: Settings
    data: RunOutputs
    span_seconds: tuple[float | None, float | None]
    force: bool
    progress: Progress
    keeps_parts: bool = True
    encoder_threads: int = 0

    def run(self, job: Job, position: int, count: int) -> Summary:
        """Annotate one input; its failure is told in the summary, not raised."""
        began = time.perf_counter()
        if job.is_done:
            return Summary(str(job.source), output=job.target, skipped=True)
        if job.error is not None or self.detector is None:
            return Summary(str(job.source), error=job.error)
        tally, marks = _Tally(), list[tuple[int, ...]]()
        kept, failure = False, None
        try:
            marks += self.data.mark()
            self._annotate(job, self.detector, tally, position, count)
            kept = True
        except BrokenPipeError:  # nobody reads standard output any more: that ends the run
            raise
        except Exception as error:  # one odd input must not end the others
            failure = error if isinstance(error, VideogenderError) else unexpected(job, error)
            self.data.rollback(marks)
        except KeyboardInterrupt:  # nothing was done yet, or it came three times
            tally.presses = tally.presses or 1
            if not self.keeps_parts:
                tally.frames = tally.faces = 0
        if kept and tally.interrupted and job.target is not None:
            date_before(job.target, job.source)
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
            data = InputOutputs(self.data, stack, job, source)
            follows = source.kind == "video" and self.settings.track.label_by == "track"
            # The frames that are drawn are read anew; whether that can be done is known at once.
            shows = job.target is not None or data.wants_pictures
            drawn = self._open(stack, job, tally) if follows and shows else source
            sink = None
            if job.target is not None:
                place = stack.enter_context(pending(job.target, force=self.force))
                sink = stack.enter_context(self._open_sink(place, drawn))
            settled = self._look(source, detector, tally) if follows else None
            pipeline = stack.enter_context(Pipeline())
            found: Stage[Any]
            if settled is None:
                found = detect_in(pipeline, source, detector)
                writing = self._write(unbatched(found), sink, data, tally)
            else:
                data.follow(settled, stopped=tally.interrupted)
                give = second_pass if shows else without_pictures
                found = pipeline.stage(give(drawn, settled), depth=READ_DEPTH, name="reader")
                writing = self._write(found, sink, data, tally)
            written = pipeline.stage(writing, depth=PROGRESS_DEPTH, name="writer")
            while True:
                try:
                    self._follow(written, tally)
                    break
                except KeyboardInterrupt:
                    # The writer sees the end of its input and closes a file that plays. Whoever
                    # presses twice is not to lose it; only the third gives it up.
                    tally.presses += 1
                    if tally.presses > 2:
                        raise
                    found.close()
            if tally.interrupted and not (tally.frames and self.keeps_parts):
                raise KeyboardInterrupt
            if not tally.frames:
                raise SourceError(f"{source.name}: no frame lies in the part that was asked for")
            data.finish(interrupted=tally.interrupted)

    def _open(self, stack: ExitStack, job: Job, tally: _Tally) -> Source:
        from videogender.sources import open_source

        start, end = self.span_seconds
        source = open_source(job.source, start_seconds=start, end_seconds=end)
        if source.kind == "image" and (start is not None or end is not None):
            # The same for all of them, so that it is said once.
            source.warnings.append("--start and --end are for videos; images have no time")
        tally.told.append(source.warnings)
        return stack.enter_context(source)

    def _look(self, source: Source, detector: BatchDetector, tally: _Tally) -> Settled:
        """Run the first of two passes. Ctrl-C ends it, and what was seen goes on to the second."""
        settings = self.settings
        first = FirstPass(source, detector, follow_of(settings), settings.detect.face_threshold)
        self.progress.begin_pass("looking", source.frame_count)
        with Pipeline() as pipeline:
            looked = first.start(pipeline)
            try:
                for faces in looked:
                    self.progress.look(faces)
            except KeyboardInterrupt:
                tally.presses += 1
                looked.close()
        settled = first.settle()
        if tally.interrupted:
            if not len(settled) or not self.keeps_parts:
                raise KeyboardInterrupt
            seconds = self.progress.stopped(len(settled))
            if seconds is not None:
                tally.draws_until = time.monotonic() + seconds
        self.progress.begin_pass("drawing", len(settled))
        return settled

    def _follow(self, written: Iterable[int], tally: _Tally) -> None:
        for faces in written:
            tally.frames += 1
            tally.faces += faces
            self.progress.advance(faces)

    def _write(
        self,
        found: Iterable[tuple[Frame, Faces]],
        sink: _FrameSink | None,
        data: InputOutputs,
        tally: _Tally,
    ) -> Iterator[int]:
        """Draw and encode in the writer's thread, and yield the number of faces of each frame."""
        # The sink is closed here: Ctrl-C in the caller's thread cannot disturb the end of a file.
        with sink if sink is not None else nullcontext():
            for frame, faces in found:
                if time.monotonic() >= tally.draws_until:
                    return
                where = data.write(frame, faces)
                if sink is not None:
                    sink.write(frame, drawing(self.settings, faces, where))
                faces_found = len(faces)
                del frame, faces  # while the next one is awaited, this one is not needed
                yield faces_found

    def _open_sink(self, place: Path, source: Source) -> _FrameSink:
        from videogender.sources.video import VideoSource

        # Cover pictures, tags and Exif data may give away who is to be hidden.
        blur = self.settings.render.blur
        if isinstance(source, VideoSource):
            from videogender.sinks.video import VideoSink

            return VideoSink(
                place,
                source,
                self.settings.video,
                anonymous=blur,
                threads=self.encoder_threads,
            )
        from videogender.sinks.images import ImageSink

        return ImageSink(place, source.path, with_exif=not blur)


def unexpected(job: Job, error: Exception) -> VideogenderError:
    """Put a defect into words; its trace goes along as a note."""
    said = " ".join(str(error).split())
    failure = VideogenderError(f"{job.source}: unexpected {type(error).__name__}: {said}")
    failure.add_note("".join(traceback.format_exception(error)))
    return failure


@dataclass(slots=True)
class _Tally:
    """What has been done for one input so far."""

    frames: int = 0
    faces: int = 0
    told: list[list[str]] = field(default_factory=list)  # the warnings of each opened source
    presses: int = 0  # of Ctrl-C
    draws_until: float = math.inf  # on the clock of `time.monotonic`

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended it early."""
        return self.presses > 0

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the sources told, once each: two passes over a file find the same faults."""
        return tuple(dict.fromkeys(line for lines in self.told for line in lines))
