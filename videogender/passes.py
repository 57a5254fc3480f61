"""Two passes over a video file: one finds and follows the faces, one draws what that settled.

    first:   decode, scale  ->  batches of looks  ->  tracks, on a tape of a few bytes a face
    second:  decode         ->  faces of the tape ->  draw, encode

Detection runs in the first pass alone, pictures are kept in neither.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from videogender.config import TrackSettings
from videogender.errors import ConfigError
from videogender.frames import Faces, Frame, NoPicture, Picture
from videogender.pipeline import (
    FRAME_BUDGET_BYTES,
    QUEUE_DEPTH,
    BatchDetector,
    PictureDetector,
    Pipeline,
    Stage,
    WeakDetector,
    batches_in_flight,
    in_order,
    look,
)
from videogender.tracking.cuts import CutDetector, Shot, thumbnail
from videogender.tracking.settle import Settled, settle
from videogender.tracking.tape import Tape
from videogender.tracking.tracker import Tracker

if TYPE_CHECKING:
    from videogender.sources import Source

__all__ = [
    "FirstPass",
    "Following",
    "Glance",
    "Looks",
    "Schedule",
    "check",
    "second_pass",
    "without_pictures",
]

# Followed frames whose count may wait for whoever watches the progress.
PROGRESS_DEPTH = 64
# Frames without a look that may travel with those of a batch.
_MOST_IN_BATCH = 256


def check(settings: TrackSettings) -> None:
    """Refuse settings that contradict each other.

    Raises:
        ConfigError: of `every`, `detect_fps` and `label_by`, two do not go together.
    """
    rate = settings.detect_fps or 0.0
    sparse = settings.stride > 1 or rate > 0
    if settings.stride > 1 and rate > 0:
        raise ConfigError("--every and --detect-fps say the same in two ways; give one of them")
    if sparse and settings.label_by == "frame":
        raise ConfigError(
            "--label-by frame keeps no tracks, which boxes follow between the looks of --every "
            "and --detect-fps; leave one of them out"
        )


class Schedule:
    """Decides at which frames the detector looks.

    Args:
        settings: `every` or `detect_fps`.
    """

    def __init__(self, settings: TrackSettings) -> None:
        self._every = settings.stride
        self._period = 1 / settings.detect_fps if settings.detect_fps else 0.0
        self._slot: int | None = None  # of the grid, in which the last frame lay

    def slot(self, index: int, seconds: float) -> int:
        """Return where a frame lies on a grid that is the same wherever reading begins."""
        if self._period:
            return math.floor(seconds / self._period + 1e-6)  # times are rounded
        return index // self._every

    def is_due(self, index: int, seconds: float, shot: Shot) -> bool:
        """Tell whether to look at the next frame; the first of a shot is always looked at."""
        before, self._slot = self._slot, self.slot(index, seconds)
        return before is None or shot is not Shot.SAME or self._slot != before


@dataclass(slots=True)
class Glance:
    """What the first pass sees of a frame.

    Attributes:
        index: position of the frame in the source.
        seconds: its time.
        shot: how it follows the frame before.
        faces: what the detector found, or None where it did not look.
        small: its `videogender.tracking.cuts.thumbnail`, where cuts are told from it.
    """

    index: int
    seconds: float
    shot: Shot
    faces: Faces | None = None
    small: NDArray[np.float32] | None = None


@dataclass(slots=True)
class _Batch:
    """Glances, and of some the pictures: scaled for the network, and as they were decoded."""

    glances: list[Glance] = field(default_factory=list)
    looks: list[tuple[Glance, NDArray[np.uint8], Picture]] = field(default_factory=list)


class Looks:
    """Decodes a video, notices cuts, and lets a detector look now and then.

    The picture as it was decoded travels along only for detectors that look at it too.

    Args:
        source: the video.
        detector: finds the faces; it is asked for unsure ones too, if it is a `WeakDetector`.
        settings: how often to look.

    Attributes:
        network_scale: pixels of the network's input a pixel of the source.
    """

    def __init__(self, source: Source, detector: BatchDetector, settings: TrackSettings) -> None:
        self._source = source
        self._settings = settings
        self._detector = detector
        if isinstance(detector, WeakDetector):
            low = min(settings.low_threshold, detector.face_threshold)
            self._detector = detector.at_threshold(low, follows=True)
        self._input_wh = self._detector.input_size_wh(source.width, source.height)
        self._shows_pictures = isinstance(self._detector, PictureDetector)
        self.network_scale = self._input_wh[1] / max(1, source.height)

    def start(self, pipeline: Pipeline) -> Stage[list[Glance]]:
        """Begin to decode and to look, ahead of time in threads of the pipeline.

        Returns:
            a stage that yields the glances of all frames, in order.
        """
        read = pipeline.stage(self._read(), depth=QUEUE_DEPTH, name="reader")
        return pipeline.stage(self._look(read), depth=QUEUE_DEPTH, name="inference")

    def _read(self) -> Iterator[_Batch]:
        """Decode, notice cuts, and scale what is looked at."""
        schedule, cuts = Schedule(self._settings), CutDetector()
        wide, high = self._input_wh
        frame_bytes = wide * high * 3
        if self._shows_pictures:
            frame_bytes += self._source.width * self._source.height * 3 // 2
        fits = FRAME_BUDGET_BYTES // (batches_in_flight(self._detector) * frame_bytes)
        size = max(1, min(self._detector.batch_size, fits))
        batch = _Batch()
        for frame in self._source:
            glance = Glance(frame.index, frame.pts_seconds or 0.0, Shot.SAME)
            if self._settings.cuts:
                glance.small = thumbnail(frame.picture)
                glance.shot = cuts.step(glance.small, glance.seconds)
            batch.glances.append(glance)
            if schedule.is_due(glance.index, glance.seconds, glance.shot):
                scaled = frame.picture.to_rgb(self._input_wh)
                seen = frame.picture if self._shows_pictures else None
                picture = seen or NoPicture(self._source.width, self._source.height)
                batch.looks.append((glance, scaled, picture))
                del scaled, seen, picture
            del frame
            if len(batch.looks) >= size or len(batch.glances) >= _MOST_IN_BATCH:
                yield batch
                batch = _Batch()
        if batch.glances:
            yield batch

    def _look(self, batches: Iterable[_Batch]) -> Iterator[list[Glance]]:
        def work(batch: _Batch) -> list[Glance]:
            if batch.looks:
                glances, scaled, pictures = zip(*batch.looks, strict=True)
                for glance, faces in zip(
                    glances, look(self._detector, scaled, pictures), strict=True
                ):
                    glance.faces = faces
                batch.looks.clear()
            return batch.glances

        return in_order(batches, work, self._detector)


class Following:
    """Follows faces through the glances of a video.

    Args:
        settings: how to follow them.
        face_threshold: least score that begins a track.
    """

    def __init__(self, settings: TrackSettings, face_threshold: float) -> None:
        self._settings, self._face_threshold = settings, face_threshold
        self._tracker = Tracker(settings, face_threshold)
        self._tape = Tape()

    def take(self, glances: Iterable[Glance]) -> Iterator[int]:
        """Follow the faces of the next frames, and yield how many each of them shows."""
        tracker, tape = self._tracker, self._tape
        for glance in glances:
            if glance.shot is Shot.NEW:
                tracker.cut()
                tape.cut()
            elif glance.shot is Shot.BACK:
                tracker.no_cut()
                tape.no_cut()
            faces, seconds = glance.faces, glance.seconds
            tape.frame(glance.index, seconds, looked=faces is not None)
            if faces is None:
                yield 0
                continue
            tape.faces(faces, tracker.look(faces.boxes, faces.scores, seconds))
            yield len(faces)

    def settle(self, network_scale: float) -> Settled:
        """Return the faces of all frames so far.

        Args:
            network_scale: see `Looks`.
        """
        recording = self._tape.read()
        return settle(recording, self._settings, self._face_threshold, network_scale=network_scale)


class FirstPass:
    """Looks at a video and follows its faces.

    Args:
        source: the video.
        detector: finds the faces; it is asked for unsure ones too, if it is a `WeakDetector`.
        settings: how to follow them.
        face_threshold: least score that begins a track, where the detector names none.
    """

    def __init__(
        self,
        source: Source,
        detector: BatchDetector,
        settings: TrackSettings,
        face_threshold: float,
    ) -> None:
        if isinstance(detector, WeakDetector):
            face_threshold = detector.face_threshold
        self._looks = Looks(source, detector, settings)
        self._following = Following(settings, face_threshold)

    def start(self, pipeline: Pipeline) -> Stage[int]:
        """Begin to decode and to look, ahead of time in threads of the pipeline.

        Returns:
            a stage that yields the number of faces found in each frame. Closing it ends the pass
            early, with the frames that were followed by then.
        """
        looked = self._looks.start(pipeline)
        return pipeline.stage(self._follow(looked), depth=PROGRESS_DEPTH, name="tracker")

    def settle(self) -> Settled:
        """Return the faces of all frames, once the pipeline of the pass has been left."""
        return self._following.settle(self._looks.network_scale)

    def _follow(self, looked: Iterable[list[Glance]]) -> Iterator[int]:
        for glances in looked:
            yield from self._following.take(glances)


def second_pass(source: Source, settled: Settled) -> Iterator[tuple[Frame, Faces]]:
    """Decode a video again and yield its frames with what the first pass settled.

    Args:
        source: the video, opened anew with the same span.
        settled: of the first pass; frames beyond those it knows are left out.
    """
    # to the source's end, not to the last row alone, so that it is known whether this is all of it
    for count, frame in enumerate(source):
        if count == len(settled):
            return
        row = settled.row_of(frame.pts_seconds or 0.0)
        yield frame, Faces.empty() if row is None else settled.faces(row)
        del frame  # while the next one is awaited, this one is not needed


def without_pictures(source: Source, settled: Settled) -> Iterator[tuple[Frame, Faces]]:
    """Yield the frames of the first pass with their faces, but nothing to see: for data alone."""
    picture = NoPicture(source.width, source.height)
    frames = zip(settled.index.tolist(), settled.seconds.tolist(), strict=True)
    for row, (index, seconds) in enumerate(frames):
        yield Frame(picture, index, seconds, source.name), settled.faces(row)
