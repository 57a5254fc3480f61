"""Motion: a Kalman filter over boxes, all tracks at once, with time in seconds.

Each of a box's four numbers (centre x and y, width, height) moves on its own, so a track is four
filters of two numbers each, place and speed, and a step is a few array operations without a matrix
inverse. Speeds follow an Ornstein-Uhlenbeck process: they are kept for a moment and then forgotten,
as heads do, so that a long gap predicts "about where it was" with an honest spread instead of a
place far off (Singer, "Estimating optimal tracking filter performance", 1970, a step simpler).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["boxes_of", "predict", "reach_of", "start", "update"]

Floats = NDArray[np.float64]

# Seconds after which the speed of each number is forgotten to 1/e. A face that slips behind
# something seems to shrink; to go on shrinking while it is hidden would lose it.
_MEMORY_SECONDS = np.array([2.0, 2.0, 0.2, 0.2])
# Seconds after which a larger size is forgotten to 1/e. A face that is half hidden looks small, yet
# it moves, and comes back, as the large one that it is.
_SIZE_SECONDS = 2.0
# Usual speeds in face sizes a second, of centre x, centre y, width, height: a walk past a camera
# shows 1 to 3.
_USUAL_SPEED = np.array([2.0, 2.0, 0.5, 0.5])
# How far a detector's box lies off, in face sizes, if it is sure; and how much more if it is not.
_BOX_NOISE, _UNSURE_NOISE = 0.05, 0.15
_LEAST_PX = 1.0
_REACH = 2.0  # standard deviations, within which 19 of 20 lie

# Rows of a track's state, each over (centre x, centre y, width, height); the last, the size of the
# whole face, is the same for all four.
_PLACE, _SPEED, _PLACE_VAR, _COVARIANCE, _SPEED_VAR, _WHOLE = range(6)


def start(boxes: NDArray[np.floating], scores: NDArray[np.floating]) -> Floats:
    """Return the states [N, 6, 4] of tracks that begin with these boxes.

    Args:
        boxes: [N, 4], xyxy in pixels.
        scores: [N], 0 to 1.
    """
    place = _centred(boxes)
    size = _size(place)
    state = np.zeros((len(place), 6, 4))
    state[:, _PLACE] = place
    state[:, _PLACE_VAR] = _noise(size, scores)
    state[:, _SPEED_VAR] = (_USUAL_SPEED * size) ** 2
    state[:, _WHOLE] = size
    return state


def predict(state: Floats, seconds: float) -> Floats:
    """Return states [N, 6, 4] some time later.

    Args:
        state: [N, 6, 4].
        seconds: how much later, 0 or more.
    """
    place, speed, place_var, covariance, speed_var, whole = state.swapaxes(0, 1)
    gone = seconds / _MEMORY_SECONDS
    keep = np.exp(-gone)
    reach = _MEMORY_SECONDS * (1 - keep)
    # What chance adds in this time: exact for the process, small differences of large terms aside.
    usual = (_USUAL_SPEED * whole) ** 2
    wander = np.maximum(2 * gone - 3 + 4 * keep - keep**2, 0.0) * _MEMORY_SECONDS**2
    later = np.empty_like(state)
    later[:, _PLACE] = place + reach * speed
    later[:, _PLACE, 2:] = np.maximum(later[:, _PLACE, 2:], _LEAST_PX)
    later[:, _SPEED] = keep * speed
    later[:, _PLACE_VAR] = (
        place_var + 2 * reach * covariance + reach**2 * speed_var + wander * usual
    )
    later[:, _COVARIANCE] = (
        keep * (covariance + reach * speed_var) + _MEMORY_SECONDS * (1 - keep) ** 2 * usual
    )
    later[:, _SPEED_VAR] = keep**2 * speed_var + (1 - keep**2) * usual
    size = _size(later[:, _PLACE])
    later[:, _WHOLE] = size + np.maximum(whole - size, 0.0) * np.exp(-seconds / _SIZE_SECONDS)
    return later


def update(state: Floats, boxes: NDArray[np.floating], scores: NDArray[np.floating]) -> Floats:
    """Return predicted states [N, 6, 4] corrected by what the detector saw.

    Args:
        state: [N, 6, 4], predicted to the time of the boxes.
        boxes: [N, 4], xyxy in pixels.
        scores: [N], 0 to 1.
    """
    place, speed, place_var, covariance, speed_var, whole = state.swapaxes(0, 1)
    surprise = _centred(boxes) - place
    total = place_var + _noise(_size(place), scores)
    gain, speed_gain = place_var / total, covariance / total
    better = np.empty_like(state)
    better[:, _PLACE] = place + gain * surprise
    better[:, _PLACE, 2:] = np.maximum(better[:, _PLACE, 2:], _LEAST_PX)
    better[:, _SPEED] = speed + speed_gain * surprise
    better[:, _PLACE_VAR] = (1 - gain) * place_var
    better[:, _COVARIANCE] = (1 - gain) * covariance
    better[:, _SPEED_VAR] = speed_var - speed_gain * covariance
    better[:, _WHOLE] = np.maximum(whole, _size(better[:, _PLACE]))
    return better


def boxes_of(state: Floats) -> Floats:
    """Return the boxes [N, 4], xyxy in pixels, of states [N, 6, 4]."""
    centre, half = state[:, _PLACE, :2], state[:, _PLACE, 2:] / 2
    return np.hstack([centre - half, centre + half])


def reach_of(state: Floats) -> Floats:
    """Return how far off the centres of states [N, 6, 4] may be, [N, 2], in pixels.

    Twice their standard deviations, within which 19 of 20 lie, but no more than the size of the
    whole face.
    """
    reach: Floats = np.minimum(_REACH * np.sqrt(state[:, _PLACE_VAR, :2]), state[:, _WHOLE, :2])
    return reach


def _centred(boxes: NDArray[np.floating]) -> Floats:
    wide = boxes.astype(np.float64)
    low, high = wide[:, :2], wide[:, 2:]
    return np.hstack([(low + high) / 2, np.maximum(high - low, _LEAST_PX)])


def _size(place: Floats) -> Floats:
    """Return face sizes [N, 1]: the side of the square of a box's area."""
    size: Floats = np.sqrt(place[:, 2:3] * place[:, 3:4])
    return size


def _noise(size: Floats, scores: NDArray[np.floating]) -> Floats:
    """Return the variance [N, 1] of a measured number, alike for all four."""
    unsure = 1 - scores.astype(np.float64)
    off = (_BOX_NOISE + _UNSURE_NOISE * unsure)[:, None] * size
    variance: Floats = off**2
    return variance
