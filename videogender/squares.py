"""Shrinks arrays of samples, and cuts squares out of them, always area-aware."""

from __future__ import annotations

from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from videogender.opencv import opencv

MOST_SHRUNK = 8  # of squares that are larger than so many results, samples are left out
# Larger ones are halved first, as the pictures were whose close-ups the networks learned from.
HALVED_FROM = 1.6

__all__ = ["binned", "cut_squares"]


def cut_squares(
    samples: NDArray[np.uint8],
    squares: NDArray[np.int64],
    side_px: int,
    fill: NDArray[np.uint8] | int,
) -> NDArray[np.uint8]:
    """Cut squares out and scale each to `side_px`.

    Args:
        samples: uint8 [H, W] or [H, W, C].
        squares: int64 [K, 3], left, top and side in samples; they may reach beyond.
        side_px: width and height of the result.
        fill: what lies beyond the samples, [C] or one number.

    Returns:
        uint8 [K, side_px, side_px] or [K, side_px, side_px, C].
    """
    cuts = np.empty((len(squares), side_px, side_px, *samples.shape[2:]), np.uint8)
    for cut, (left, top, side) in zip(cuts, squares.tolist(), strict=True):
        every = max(1, side // (MOST_SHRUNK * side_px))
        # the first of the chosen rows and columns that lie within
        row, column = max(0, -(top // every)), max(0, -(left // every))
        part = samples[
            top + row * every : max(top + side, 0) : every,
            left + column * every : max(left + side, 0) : every,
        ]
        length = len(range(0, side, every))
        if part.shape[:2] != (length, length):
            inner, part = part, np.empty((length, length, *samples.shape[2:]), np.uint8)
            part[:] = fill
            part[row : row + inner.shape[0], column : column + inner.shape[1]] = inner
        if length == side_px:
            cut[:] = part
        elif (cv2 := opencv()) is not None:
            _shrunk(cv2, part, side_px, side_px, cut)
        else:
            cut[:] = _scaled_by_torch(part, side_px)
    return cuts


def _shrunk(
    cv2: ModuleType,
    samples: NDArray[np.uint8],
    wide: int,
    high: int,
    to: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """Halve samples [H, W] or [H, W, C] as often as that goes, then read in between them.

    The result is written into `to` where that is given.
    """
    while samples.shape[1] > HALVED_FROM * wide:
        half = samples.shape[1] // 2, samples.shape[0] // 2
        samples = cv2.resize(samples, half, interpolation=cv2.INTER_AREA)
    found: NDArray[np.uint8] = cv2.resize(samples, (wide, high), to, interpolation=cv2.INTER_LINEAR)
    return found


def _scaled_by_torch(square: NDArray[np.uint8], side_px: int) -> NDArray[np.uint8]:
    import torch
    from torch.nn.functional import interpolate

    whole = torch.from_numpy(np.ascontiguousarray(square)).view(*square.shape[:2], -1)
    whole = interpolate(
        whole.permute(2, 0, 1)[None], (side_px, side_px), mode="bilinear", antialias=True
    )
    scaled: NDArray[np.uint8] = whole[0].permute(1, 2, 0).numpy()
    return scaled.reshape(side_px, side_px, *square.shape[2:])


def binned(plane: NDArray[np.uint8], wide: int, high: int) -> NDArray[np.uint8]:
    """Shrink a plane of samples with OpenCV, which has to load.

    Args:
        plane: uint8 [H, W].
        wide, high: size of the result, not larger.

    Returns:
        uint8 [high, wide]: means of squares where whole ones fit, else halved as often as that
        goes and then read in between samples.
    """
    cv2 = opencv()
    assert cv2 is not None
    while plane.shape != (high, wide):
        px = plane.shape[1] // wide
        if plane.shape != (px * high, px * wide):
            return _shrunk(cv2, plane, wide, high)
        if px % 2:  # OpenCV is slow at other areas than 2 x 2
            plane = cv2.blur(plane, (px, px))[px // 2 :: px, px // 2 :: px]
        else:
            half = plane.shape[1] // 2, plane.shape[0] // 2
            plane = cv2.resize(plane, half, interpolation=cv2.INTER_AREA)
    return plane
