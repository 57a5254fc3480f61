"""Shrinks arrays of samples, and cuts squares out of them, always area-aware."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from videogender.opencv import opencv

MOST_SHRUNK = 8  # of squares that are larger than so many results, samples are left out
# Larger ones are halved first, as the pictures were whose close-ups the networks learned from.
HALVED_FROM = 1.6

__all__ = ["binned", "cut_squares"]


def cut_squares(
    planes: Sequence[NDArray[np.uint8]],
    squares: NDArray[np.int64],
    side_px: int,
    fill: NDArray[np.uint8],
) -> NDArray[np.uint8]:
    """Cut squares out and scale each to `side_px`.

    Args:
        planes: uint8 [H, W, c] each, of one size; together they have C channels.
        squares: int64 [K, 3], left, top and side in samples; they may reach beyond.
        side_px: width and height of the result.
        fill: uint8 [C], what lies beyond the samples.

    Returns:
        uint8 [K, C, side_px, side_px].
    """
    cuts = np.empty((len(squares), len(fill), side_px, side_px), np.uint8)
    for cut, (left, top, side) in zip(cuts, squares.tolist(), strict=True):
        every = max(1, side // (MOST_SHRUNK * side_px))
        # the first of the chosen rows and columns that lie within
        row, column = max(0, -(top // every)), max(0, -(left // every))
        seen = [
            plane[
                top + row * every : max(top + side, 0) : every,
                left + column * every : max(left + side, 0) : every,
            ]
            for plane in planes
        ]
        length = len(range(0, side, every))
        channel = 0
        for part in seen:
            if part.shape[:2] != (length, length):
                here = slice(row, row + part.shape[0]), slice(column, column + part.shape[1])
                inner, part = part, np.empty((length, length, part.shape[2]), np.uint8)
                part[:] = fill[channel : channel + part.shape[2]]
                part[here] = inner
            channels = slice(channel, channel + part.shape[2])
            cut[channels] = _scaled(np.ascontiguousarray(part), side_px).transpose(2, 0, 1)
            channel += part.shape[2]
    return cuts


def _scaled(square: NDArray[np.uint8], side_px: int) -> NDArray[np.uint8]:
    """Scale samples [S, S, C] to [side_px, side_px, C]."""
    if len(square) == side_px:
        return square
    if (cv2 := opencv()) is None:
        return _scaled_by_torch(square, side_px)
    return _shrunk(cv2, square, side_px, side_px).reshape(side_px, side_px, square.shape[2])


def _shrunk(cv2: ModuleType, samples: NDArray[np.uint8], wide: int, high: int) -> NDArray[np.uint8]:
    """Halve samples [H, W] or [H, W, C] as often as that goes, then read in between them."""
    while samples.shape[1] > HALVED_FROM * wide:
        half = samples.shape[1] // 2, samples.shape[0] // 2
        samples = cv2.resize(samples, half, interpolation=cv2.INTER_AREA)
    shrunk: NDArray[np.uint8] = cv2.resize(samples, (wide, high), interpolation=cv2.INTER_LINEAR)
    return shrunk


def _scaled_by_torch(square: NDArray[np.uint8], side_px: int) -> NDArray[np.uint8]:
    import torch
    from torch.nn.functional import interpolate

    whole = torch.from_numpy(square).permute(2, 0, 1)[None]
    whole = interpolate(whole, (side_px, side_px), mode="bilinear", antialias=True)
    scaled: NDArray[np.uint8] = whole[0].permute(1, 2, 0).numpy()
    return scaled


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
