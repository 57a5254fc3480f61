"""Cuts squares out of arrays of samples and scales them, area-aware, to one size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MOST_SHRUNK = 8  # of squares that are larger than so many results, samples are left out

__all__ = ["cut_squares"]


def cut_squares(
    planes: Sequence[NDArray[np.uint8]],
    squares: NDArray[np.int64],
    side_px: int,
    fill: NDArray[np.uint8],
) -> NDArray[np.uint8]:
    """Cut squares out and scale each to `side_px`.

    Args:
        planes: uint8 [H, W, c] each, of one size; together they have C channels, which cost hardly
            more than one.
        squares: int64 [K, 3], left, top and side in samples; they may reach beyond.
        side_px: width and height of the result.
        fill: uint8 [C], what lies beyond the samples.

    Returns:
        uint8 [K, C, side_px, side_px].
    """
    import torch
    from torch.nn.functional import interpolate

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
        part = seen[0] if len(seen) == 1 else np.concatenate(seen, -1)
        length = len(range(0, side, every))
        if part.shape[:2] != (length, length):
            inner, part = part, np.empty((length, length, len(fill)), np.uint8)
            part[:] = fill
            part[row : row + inner.shape[0], column : column + inner.shape[1]] = inner
        # channels last in memory takes torch's fastest way
        whole = torch.from_numpy(np.ascontiguousarray(part)).permute(2, 0, 1)[None]
        if length != side_px:
            whole = interpolate(whole, (side_px, side_px), mode="bilinear", antialias=True)
        cut[:] = whole[0].numpy()
    return cuts
