"""Where one shot ends and another begins, told from tiny pictures of the frames."""

from __future__ import annotations

from enum import Enum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from videogender.frames import Picture

__all__ = ["CutDetector", "Shot", "thumbnail"]

_ROWS, _COLUMNS = 18, 32
# Samples of the picture that a cell averages, down and across.
_DOWN, _ACROSS = 4, 8
_MEAN = np.full((_ACROSS, 1), 1 / (_DOWN * _ACROSS), np.float32)

# Correlation of two frames of one shot: 0.89 and more from frame to frame at 12 to 30 frames a
# second, but 0.5 after half a second where somebody walks past the camera. Frames of different
# shots stay below 0.7, unless they show the same room.
_ALIKE = 0.7
_ALIKE_LATER = 0.4
_SOON_SECONDS = 0.11
# Shots of the same room: still fairly alike, but far less so than the frames before.
_FAIRLY_ALIKE = 0.85
_SUDDEN = 10.0
_USUAL_UNREST = 0.005
# Grey levels by which the mean cell must change; less is noise on a flat picture.
_LEAST_CHANGE = 4.0
# A picture that returns within this time was only lit by a flash or spoilt for a moment.
_FLASH_SECONDS = 0.5
_RETURNS = 0.9


class Shot(Enum):
    """How a frame follows the one before."""

    SAME = "same"
    """The shot goes on."""
    NEW = "new"
    """A cut: another shot begins."""
    BACK = "back"
    """The last cut was none: the picture from before it is back within a moment."""


def thumbnail(picture: Picture) -> NDArray[np.float32]:
    """Shrink a picture to float32 [18, 32] brightness, 0 to 255, from some thousand samples."""
    seen = picture.brightness(*_samples(picture.height, picture.width))
    strips = seen.reshape(_ROWS, _DOWN, -1).sum(1, dtype=np.uint16).astype(np.float32)
    small: NDArray[np.float32] = strips.reshape(-1, _ACROSS) @ _MEAN
    return small.reshape(_ROWS, _COLUMNS)


@lru_cache(maxsize=8)
def _samples(height: int, width: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return rows [R, 1] and columns [1, C], evenly spread over a picture."""
    rows = ((np.arange(_ROWS * _DOWN) + 0.5) * height / (_ROWS * _DOWN)).astype(np.intp)
    columns = ((np.arange(_COLUMNS * _ACROSS) + 0.5) * width / (_COLUMNS * _ACROSS)).astype(np.intp)
    return rows[:, None], columns[None]


class CutDetector:
    """Compares each frame with the one before. Dissolves and fades are not seen as cuts."""

    def __init__(self) -> None:
        self._last: NDArray[np.float32] | None = None
        self._last_seconds = 0.0
        self._unrest = 0.0  # mean of 1 - correlation over the last frames
        self._left: NDArray[np.float32] | None = None  # the last picture of the shot before
        self._left_seconds = 0.0

    def step(self, small: NDArray[np.float32], seconds: float) -> Shot:
        """Tell how a frame follows the one that came before it.

        Args:
            small: of `thumbnail`.
            seconds: the frame's time.
        """
        before, before_seconds = self._last, self._last_seconds
        self._last, self._last_seconds = small, seconds
        if before is None:
            return Shot.SAME
        alike = _correlation(before, small)
        soon = seconds - before_seconds <= _SOON_SECONDS
        is_cut = alike < (_ALIKE if soon else _ALIKE_LATER)
        if soon and alike < _FAIRLY_ALIKE:
            is_cut |= 1 - alike > _SUDDEN * (self._unrest + _USUAL_UNREST)
        if not is_cut or float(np.abs(small - before).mean()) < _LEAST_CHANGE:
            self._unrest += 0.2 * (1 - alike - self._unrest)
            return Shot.SAME
        left, self._left = self._left, before
        left_seconds, self._left_seconds = self._left_seconds, before_seconds
        if (
            left is not None
            and seconds - left_seconds <= _FLASH_SECONDS
            and _correlation(left, small) >= _RETURNS
        ):
            self._left = None
            return Shot.BACK
        self._unrest = 0.0
        return Shot.NEW


def _correlation(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Return how alike two pictures are, -1 to 1, whatever their brightness and contrast."""
    a, b = a - a.mean(), b - b.mean()
    # One grey level of noise a cell: without it two flat pictures would compare noise.
    noise = float(a.size)
    scale = np.sqrt((float(np.vdot(a, a)) + noise) * (float(np.vdot(b, b)) + noise))
    return (float(np.vdot(a, b)) + noise) / float(scale)
