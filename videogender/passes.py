"""Two passes over a video file: one finds and follows the faces, one draws what that settled.

    first:   decode, scale  ->  batches of looks  ->  tracks, on a tape of a few bytes a face
    second:  decode         ->  faces of the tape ->  draw, encode

Detection runs in the first pass alone, pictures are kept in neither.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from videogender.config import TrackSettings
from videogender.errors import ConfigError
from videogender.frames import Faces, Frame, Picture
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

__all__ = ["FirstPass", "Schedule", "check", "second_pass", "without_pictures"]

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
    sparse = settings.every > 1 or rate > 0
    if settings.every > 1 and rate > 0:
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
        self._every = settings.every
        self._period = 1 / settings.detect_fps if settings.detect_fps else 0.0
        self._count = 0  # frames since the shot began
        self._next = -math.inf  # when the next look is due, if time decides

    def is_due(self, seconds: float, shot: Shot) -> bool:
        """Tell whether to look at the next frame; the first of a shot is always looked at."""
        if self._count == 0 or shot is not Shot.SAME:
            self._count, self._next = 0, seconds
        due = self._count % self._every == 0
        self._count += 1
        if self._period:
            late = (seconds - self._next) / self._period + 1e-6  # times are rounded
            due = late >= 0
            if due:
                self._next += (math.floor(late) + 1) * self._period
        return due


@dataclass(slots=True)
class _Glance:
    """What the first pass sees of a frame: its picture for the network, or None.

    The picture as it was decoded travels along only for detectors that look at it too.
    """

    index: int
    seconds: float
    shot: Shot
    scaled: NDArray[np.uint8] | None  # HWC RGB
    picture: Picture
    faces: Faces | None = None


@dataclass(slots=True)
class _Batch:
    glances: list[_Glance] = field(default_factory=list)
    looks: int = 0


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
        self._source = source
        self._settings = settings
        self._detector = detector
        if isinstance(detector, WeakDetector):
            face_threshold = detector.face_threshold
            low = min(settings.low_threshold, face_threshold)
            self._detector = detector.at_threshold(low)
        self._face_threshold = face_threshold
        self._tracker = Tracker(settings, face_threshold)
        self._tape = Tape()
        self._size_wh = (source.width, source.height)
        self._input_wh = self._detector.input_size_wh(*self._size_wh)
        self._shows_pictures = isinstance(self._detector, PictureDetector)

    def start(self, pipeline: Pipeline) -> Stage[int]:
        """Begin to decode and to look, ahead of time in threads of the pipeline.

        Returns:
            a stage that yields the number of faces found in each frame. Closing it ends the pass
            early, with the frames that were followed by then.
        """
        glances = pipeline.stage(self._read(), depth=QUEUE_DEPTH, name="reader")
        looked = pipeline.stage(self._look(glances), depth=QUEUE_DEPTH, name="inference")
        return pipeline.stage(self._follow(looked), depth=PROGRESS_DEPTH, name="tracker")

    def settle(self) -> Settled:
        """Return the faces of all frames, once the pipeline of the pass has been left."""
        scale = self._input_wh[1] / max(1, self._size_wh[1])
        return settle(self._tape.read(), self._settings, self._face_threshold, network_scale=scale)

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
            seconds = frame.pts_seconds or 0.0
            shot, scaled = Shot.SAME, None
            if self._settings.cuts:
                shot = cuts.step(thumbnail(frame.picture), seconds)
            if schedule.is_due(seconds, shot):
                scaled = frame.picture.to_rgb(self._input_wh)
                batch.looks += 1
            kept = frame.picture if self._shows_pictures and scaled is not None else None
            picture = kept or _NoPicture(*self._size_wh)
            batch.glances.append(_Glance(frame.index, seconds, shot, scaled, picture))
            del frame, scaled, kept, picture
            if batch.looks >= size or len(batch.glances) >= _MOST_IN_BATCH:
                yield batch
                batch = _Batch()
        if batch.glances:
            yield batch

    def _look(self, batches: Iterable[_Batch]) -> Iterator[list[_Glance]]:
        def work(batch: _Batch) -> list[_Glance]:
            looks = [glance for glance in batch.glances if glance.scaled is not None]
            if looks:
                scaled = [glance.scaled for glance in looks if glance.scaled is not None]
                found = look(self._detector, scaled, [glance.picture for glance in looks])
                for glance, faces in zip(looks, found, strict=True):
                    glance.scaled, glance.picture = None, _NoPicture(*self._size_wh)
                    glance.faces = faces
            return batch.glances

        return in_order(batches, work, self._detector)

    def _follow(self, looked: Iterable[list[_Glance]]) -> Iterator[int]:
        tracker, tape = self._tracker, self._tape
        for glances in looked:
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


def second_pass(source: Source, settled: Settled) -> Iterator[tuple[Frame, Faces]]:
    """Decode a video again and yield its frames with what the first pass settled.

    Args:
        source: the video, opened anew with the same span.
        settled: of the first pass; frames beyond those it knows are left out.
    """
    for frame in islice(source, len(settled)):
        row = settled.row_of(frame.pts_seconds or 0.0)
        yield frame, Faces.empty() if row is None else settled.faces(row)
        del frame  # while the next one is awaited, this one is not needed


def without_pictures(source: Source, settled: Settled) -> Iterator[tuple[Frame, Faces]]:
    """Yield the frames of the first pass with their faces, but nothing to see: for data alone."""
    picture = _NoPicture(source.width, source.height)
    frames = zip(settled.index.tolist(), settled.seconds.tolist(), strict=True)
    for row, (index, seconds) in enumerate(frames):
        yield Frame(picture, index, seconds, source.name), settled.faces(row)


@dataclass(frozen=True, slots=True)
class _NoPicture:
    """Stands where a picture was: its size is all that is left."""

    width: int
    height: int

    def to_rgb(self, size_wh: tuple[int, int] | None = None) -> NDArray[np.uint8]:
        raise RuntimeError("the pixels of this frame were not kept")

    def brightness(self, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.uint8]:
        raise RuntimeError("the pixels of this frame were not kept")

    def squares_rgb(self, squares: NDArray[np.int64], side_px: int) -> NDArray[np.uint8]:
        raise RuntimeError("the pixels of this frame were not kept")
