"""Parts of a long video: where it is divided, and what a worker does with a part."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import av
import av.error

from videogender.config import Settings
from videogender.errors import VideogenderError
from videogender.jobs.messages import (
    Draw,
    Drawn,
    LookAt,
    Looked,
    Message,
    Seen,
    Setup,
    Task,
)
from videogender.outputs import DataOutputs
from videogender.passes import Looks, second_pass
from videogender.pipeline import BatchDetector, Pipeline
from videogender.progress import Progress, Summary
from videogender.sinks.video import VideoSink
from videogender.sources import open_source
from videogender.sources.seeking import go_to
from videogender.sources.video import VideoSource, open_input
from videogender.work import READ_DEPTH, drawing, follow_of, unexpected

if TYPE_CHECKING:
    from videogender.targets import Job

# Shorter parts are not worth a process's start, nor the key frame at which each begins.
LEAST_SECONDS = 30.0

__all__ = ["LEAST_SECONDS", "can_be_divided", "do_part", "plan_parts"]


def can_be_divided(settings: Settings, data: DataOutputs, job: Job) -> bool:
    """Tell whether the parts of a video can be drawn without knowing of each other.

    Zones are drawn with what was counted so far, and the small pictures of a report are the best of
    the whole video.
    """
    draws_zones = job.target is not None and bool(settings.zones.zone or settings.zones.line)
    shows_faces = data.report is not None and settings.report.thumbnails != "none"
    return settings.track.label_by == "track" and not draws_zones and not shows_faces


def plan_parts(
    path: Path, span_seconds: tuple[float | None, float | None], most: int
) -> list[LookAt]:
    """Divide a video at key frames.

    Args:
        path: the video.
        span_seconds: where to begin and end in it.
        most: parts of about one length; they are fewer where the video or its index allows no more.

    Returns:
        The parts in order, or none if it is no video, or not long enough.
    """
    start, end = span_seconds
    try:
        with open_source(path, start_seconds=start, end_seconds=end) as source:
            if not isinstance(source, VideoSource) or source.duration_seconds is None:
                return []
            count = min(most, int(source.duration_seconds // LEAST_SECONDS))
            inner = _key_times(source, count)
    except (VideogenderError, av.FFmpegError, OSError):
        return []  # whoever works on it will tell
    if not inner:
        return []
    edges = [start, *inner, end]
    return [LookAt(*each) for each in pairwise(edges)]


def _key_times(source: VideoSource, count: int) -> list[float]:
    """Return the times of the key frames that divide a video into parts of about one length."""
    begin, length = source.zero_seconds, Fraction(source.duration_seconds or 0)
    times: list[float] = []
    with open_input(source.path, source.name) as container:
        stream = container.streams[source.stream_index]
        assert isinstance(stream, av.VideoStream)
        base = stream.time_base or Fraction(1, 90_000)
        last = begin
        for number in range(1, count):
            key = go_to(container, stream, int((begin + length * number / count) / base))
            if key is None or key[0] * base - last < LEAST_SECONDS / 2:
                continue
            last = key[0] * base
            times.append(float(last - source.origin_seconds))
    return times


def do_part(
    task: Task,
    detector: BatchDetector,
    setup: Setup,
    send: Callable[[Message], None],
    news: Progress,
) -> Summary:
    """Look at a part of a video, or draw it.

    Args:
        task: names it.
        detector: finds the faces.
        setup: of the run.
        send: takes what was seen, or where the part lies in time.
        news: told of progress.
    """
    name = str(task.job.source)
    try:
        if isinstance(task.part, LookAt):
            return _look_at(task, task.part, detector, setup.settings, send, news)
        assert task.part is not None
        return _draw(task, task.part, setup, send, news)
    except VideogenderError as error:
        return Summary(name, error=error)
    except Exception as error:
        return Summary(name, error=unexpected(task.job, error))


def _open(stack: ExitStack, task: Task, span: LookAt) -> VideoSource:
    source = open_source(
        task.job.source, start_seconds=span.start_seconds, end_seconds=span.end_seconds
    )
    assert isinstance(source, VideoSource)
    return stack.enter_context(source)


def _look_at(
    task: Task,
    span: LookAt,
    detector: BatchDetector,
    settings: Settings,
    send: Callable[[Message], None],
    news: Progress,
) -> Summary:
    with ExitStack() as stack:
        source = _open(stack, task, span)
        looks = Looks(source, detector, follow_of(settings))
        first = last = None
        for glances in looks.start(stack.enter_context(Pipeline())):
            for glance in glances:
                news.look(len(glance.faces) if glance.faces is not None else 0)
                last, glance.small = glance.small, None
                first = last if first is None else first
            send(Seen(glances))
        send(Looked(looks.network_scale, first, last))
    return Summary(str(task.job.source), warnings=tuple(source.warnings))


def _draw(
    task: Task, part: Draw, setup: Setup, send: Callable[[Message], None], news: Progress
) -> Summary:
    settings = setup.settings
    with ExitStack() as stack:
        source = _open(stack, task, part.span)
        sink = stack.enter_context(
            VideoSink(
                part.place,
                source,
                settings.video,
                picture_only=True,
                threads=setup.encoder_threads,
            )
        )
        pipeline = stack.enter_context(Pipeline())
        for frame, faces in pipeline.stage(
            second_pass(source, part.settled), depth=READ_DEPTH, name="reader"
        ):
            sink.write(frame, drawing(settings, faces))
            news.advance(len(faces))
            del frame, faces
    send(Drawn(source.zero_seconds))
    return Summary(str(task.job.source))
