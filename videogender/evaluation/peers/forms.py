"""What all peers have in common: a form says how pixels go in and how boxes come out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

STRIDES = (8, 16, 32, 64, 128)

__all__ = ["Floats", "Form", "cells", "levels"]


class Form(Protocol):
    """How a family of networks reads pixels and writes boxes; a module of this package."""

    NAME: str
    NMS_IOU: float  # what its authors use

    def recognises(self, outputs: Sequence[Floats], size_hw: tuple[int, int]) -> bool:
        """Tell from the outputs for a blank image of this size whether a file is of this form."""

    def prepare(self, image: NDArray[np.uint8]) -> Floats:
        """Turn HWC uint8 **RGB** into the network's input [1, 3, H, W]."""

    def decode(self, outputs: Sequence[Floats], size_hw: tuple[int, int]) -> tuple[Floats, Floats]:
        """Return boxes [N, 4], xyxy in pixels of the input, and scores [N]; before suppression."""


def levels(outputs: Sequence[Floats]) -> list[dict[int, list[Floats]]] | None:
    """Sort outputs of shape [N, C] or [1, N, C] by level, finest first, and by channels.

    Returns:
        for each level its arrays [N, C] by C; None if an output has another shape.
    """
    by_cells: dict[int, dict[int, list[Floats]]] = {}
    for output in outputs:
        if output.ndim not in (2, 3) or (output.ndim == 3 and output.shape[0] != 1):
            return None
        flat = output.reshape(output.shape[-2], output.shape[-1])
        by_cells.setdefault(len(flat), {}).setdefault(flat.shape[1], []).append(flat)
    return [by_cells[count] for count in sorted(by_cells, reverse=True)]


def cells(size_hw: tuple[int, int], stride: int, anchors: int = 1) -> Floats:
    """Return column and row of each cell [N, 2], row by row, `anchors` times each."""
    high, wide = size_hw[0] // stride, size_hw[1] // stride
    rows, columns = np.mgrid[:high, :wide]
    grid = np.stack([columns.ravel(), rows.ravel()], 1).astype(np.float32)
    return grid.repeat(anchors, 0)
