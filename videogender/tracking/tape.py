"""Tape: what the first pass over a video keeps, a few bytes a frame and 36 a face.

A fine-tuned head adds 4 bytes a class to each face.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from videogender.frames import Faces

__all__ = ["Recording", "Tape"]


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """A tape as arrays.

    Attributes:
        index: int64 [F], position of each frame in the source.
        seconds: float64 [F], its time, ascending.
        looked: bool [F], whether the detector looked at it.
        shot: int64 [F], number of its shot, from 0.
        frame: int64 [N], row of the frame that each face was found in, ascending.
        track: int64 [N], the tracker's number for it.
        boxes: float32 [N, 4], xyxy in pixels.
        scores: float32 [N].
        female: float32 [N], of this frame alone.
        attributes: float32 [N, C], of this frame alone; a row of NaN where no head was asked.
        classes: the C names.
    """

    index: NDArray[np.int64]
    seconds: NDArray[np.float64]
    looked: NDArray[np.bool_]
    shot: NDArray[np.int64]
    frame: NDArray[np.int64]
    track: NDArray[np.int64]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    female: NDArray[np.float32]
    attributes: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    classes: tuple[str, ...] = ()


class Tape:
    """Grows by a frame at a time."""

    def __init__(self) -> None:
        self._index, self._seconds, self._looked = array("q"), array("d"), array("b")
        self._shots = [0]  # the rows of frames at which shots begin
        self._frame, self._track = array("q"), array("q")
        self._numbers = array("f")  # x1, y1, x2, y2, score, female
        self._attributes, self._classes = array("f"), tuple[str, ...]()

    def __len__(self) -> int:
        return len(self._index)

    def cut(self) -> None:
        """Note that the next frame begins a shot."""
        self._shots.append(len(self))

    def no_cut(self) -> None:
        """Take the last cut back."""
        if len(self._shots) > 1:
            self._shots.pop()

    def frame(self, index: int, seconds: float, *, looked: bool) -> None:
        """Add a frame.

        Args:
            index: its position in the source.
            seconds: its time, later than the last frame's.
            looked: whether the detector looked at it.
        """
        self._index.append(index)
        self._seconds.append(seconds)
        self._looked.append(looked)

    def faces(self, faces: Faces, tracks: NDArray[np.int64]) -> None:
        """Add what was found in the last frame.

        Args:
            faces: the N faces.
            tracks: [N], the track of each; those with 0 are left out.
        """
        kept = np.flatnonzero(tracks)
        if not len(kept):
            return
        numbers = np.column_stack([faces.boxes[kept], faces.scores[kept], faces.female[kept]])
        self._frame.frombytes(np.full(len(kept), len(self) - 1, np.int64).tobytes())
        self._track.frombytes(tracks[kept].astype(np.int64).tobytes())
        self._numbers.frombytes(numbers.astype(np.float32).tobytes())
        if faces.classes:
            self._classes = faces.classes
            self._attributes.frombytes(faces.attributes[kept].astype(np.float32).tobytes())

    def read(self) -> Recording:
        """Return everything as arrays; the tape can go on afterwards."""
        numbers = _copy(self._numbers, np.float32).reshape(-1, 6)
        starts = np.zeros(len(self), np.int64)
        starts[[row for row in self._shots[1:] if row < len(self)]] = 1
        return Recording(
            index=_copy(self._index, np.int64),
            seconds=_copy(self._seconds, np.float64),
            looked=_copy(self._looked, np.int8).astype(bool),
            shot=starts.cumsum(),
            frame=_copy(self._frame, np.int64),
            track=_copy(self._track, np.int64),
            boxes=numbers[:, :4],
            scores=numbers[:, 4],
            female=numbers[:, 5],
            attributes=_copy(self._attributes, np.float32).reshape(
                len(self._frame) if self._classes else 0, len(self._classes)
            ),
            classes=self._classes,
        )


def _copy(values: array[Any], dtype: Any) -> NDArray[Any]:
    return np.array(np.frombuffer(values, dtype)) if len(values) else np.zeros(0, dtype)
