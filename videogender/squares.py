"""Cuts squares out of arrays of samples and scales them, area-aware, to one size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MOST_SHRUNK = 8  # of squares that are larger than so many results, samples are left out

__all__ = ["cut_squares"]


def cut_squares(
    samples: NDArray[np.uint8], squares: NDArray[np.int64], side_px: int, fill: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Cut squares out and scale each to `side_px`.

    Args:
        samples: uint8 [H, W, C].
        squares: int64 [K, 3], left, top and side in samples; they may reach beyond.
        side_px: width and height of the result.
        fill: uint8 [C], what lies beyond the samples.

    Returns:
        uint8 [K, side_px, side_px, C].
    """
    import torch
    from torch.nn.functional import interpolate

    high, wide, channels = samples.shape
    cuts = np.empty((len(squares), side_px, side_px, channels), np.uint8)
    for cut, (left, top, side) in zip(cuts, squares.tolist(), strict=True):
        every = max(1, side // (MOST_SHRUNK * side_px))
        shape = (len(range(0, side, every)),) * 2
        if left >= 0 and top >= 0 and left + side <= wide and top + side <= high:
            part = samples[top : top + side : every, left : left + side : every]
        else:
            part = np.empty((*shape, channels), np.uint8)
            part[:] = fill
            # the first of the chosen rows and columns within, and where they go
            row, column = max(0, -(top // every)), max(0, -(left // every))
            seen = samples[
                top + row * every : max(top + side, 0) : every,
                left + column * every : max(left + side, 0) : every,
            ]
            part[row : row + seen.shape[0], column : column + seen.shape[1]] = seen
        if shape == (side_px, side_px):
            cut[:] = part
            continue
        # channels last in memory takes torch's fastest way
        whole = torch.from_numpy(np.ascontiguousarray(part)).permute(2, 0, 1)[None]
        scaled = interpolate(whole, (side_px, side_px), mode="bilinear", antialias=True)
        cut[:] = scaled[0].permute(1, 2, 0).numpy()
    return cuts
