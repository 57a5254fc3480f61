"""SCRFD (Guo et al., "Sample and Computation Redistribution for Efficient Face Detection", 2021).

For each stride and each anchor of a cell (two as published): a score, the distances from the
cell's corner to the four sides in strides, and perhaps five points. Input is RGB minus 127.5,
divided by 128.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from videogender.evaluation.peers.forms import STRIDES, Floats, cells, levels

NAME = "SCRFD"
NMS_IOU = 0.4

__all__ = ["NAME", "NMS_IOU", "decode", "prepare", "recognises"]


def recognises(outputs: Sequence[Floats], size_hw: tuple[int, int]) -> bool:
    """Tell an SCRFD by its one score and one box an anchor."""
    found = levels(outputs)
    if found is None or len(found) not in (3, 5):
        return False
    return all(
        len(level.get(1, [])) == 1
        and len(level.get(4, [])) == 1
        and set(level) <= {1, 4, 10}
        and _anchors(level[4][0], size_hw, stride) in (1, 2)
        for level, stride in zip(found, STRIDES, strict=False)
    )


def prepare(image: NDArray[np.uint8]) -> Floats:
    """Turn HWC uint8 RGB into the network's input."""
    pixels = image.transpose(2, 0, 1)[None].astype(np.float32)
    return np.ascontiguousarray((pixels - 127.5) / 128)


def decode(outputs: Sequence[Floats], size_hw: tuple[int, int]) -> tuple[Floats, Floats]:
    """Return boxes and scores."""
    boxes, scores = [], []
    for level, stride in zip(levels(outputs) or [], STRIDES, strict=False):
        (distance,), (score,) = level[4], level[1]
        anchors = int(_anchors(distance, size_hw, stride))
        corner = cells(size_hw, stride, anchors) * stride
        low, high = corner - distance[:, :2] * stride, corner + distance[:, 2:] * stride
        boxes.append(np.concatenate([low, high], 1))
        scores.append(score[:, 0])
    return np.concatenate(boxes), np.concatenate(scores)


def _anchors(boxes: Floats, size_hw: tuple[int, int], stride: int) -> float:
    """Return how many anchors a cell has; no whole number if the stride is another."""
    return len(boxes) / ((size_hw[0] // stride) * (size_hw[1] // stride))
