"""Anchors: one square a cell on each of six levels, four strides wide.

Source: S3FD, arXiv 1708.05237, §3.1.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

STRIDES = (4, 8, 16, 32, 64, 128)
SIZE_IN_STRIDES = 4

__all__ = ["SIZE_IN_STRIDES", "STRIDES", "anchors_for", "level_offsets"]


@lru_cache(maxsize=64)
def anchors_for(
    grids_hw: tuple[tuple[int, int], ...],
    strides: tuple[int, ...] = STRIDES,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return the anchors of all levels, finest first, rows before columns.

    Args:
        grids_hw: cells (high, wide) of each level's feature map.
        strides: pixels from one cell to the next, a level.
        device: where the result lives; it is cached by shape and device, so do not write to it.

    Returns:
        float32 [A, 3]: centre x, centre y and side length in input pixels.
    """
    with torch.inference_mode(False):  # the cache outlives the mode it was filled in
        return _build(grids_hw, strides, device)


def _build(
    grids_hw: tuple[tuple[int, int], ...], strides: tuple[int, ...], device: torch.device | str
) -> Tensor:
    levels = []
    for (rows, columns), stride in zip(grids_hw, strides, strict=True):
        y = (torch.arange(rows, device=device) + 0.5) * stride
        x = (torch.arange(columns, device=device) + 0.5) * stride
        size = torch.full((), float(SIZE_IN_STRIDES * stride), device=device)
        grid = torch.stack(
            [x.expand(rows, -1), y[:, None].expand(-1, columns), size.expand(rows, columns)], -1
        )
        levels.append(grid.reshape(-1, 3))
    return torch.cat(levels).float()


def level_offsets(grids_hw: tuple[tuple[int, int], ...]) -> list[int]:
    """Return where each level's anchors start, and at the end how many there are."""
    offsets = [0]
    for rows, columns in grids_hw:
        offsets.append(offsets[-1] + rows * columns)
    return offsets
