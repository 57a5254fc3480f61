"""YuNet (Wu et al., "YuNet: A Tiny Millisecond-level Face Detector", 2023), as OpenCV ships it.

For each of the strides 8, 16 and 32, and each cell: a class score, an objectness, a box and perhaps
five points. Input is BGR as it is, 0 to 255.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from videogender.evaluation.peers.forms import STRIDES, Floats, cells, levels

NAME = "YuNet"
NMS_IOU = 0.3

__all__ = ["NAME", "NMS_IOU", "decode", "prepare", "recognises"]


def recognises(outputs: Sequence[Floats], size_hw: tuple[int, int]) -> bool:
    """Tell a YuNet by its two scores and one box a cell."""
    found = levels(outputs)
    if found is None or len(found) != 3:
        return False
    return all(
        len(level.get(1, [])) == 2
        and len(level.get(4, [])) == 1
        and set(level) <= {1, 4, 10}
        and len(level[4][0]) == (size_hw[0] // stride) * (size_hw[1] // stride)
        for level, stride in zip(found, STRIDES, strict=False)
    )


def prepare(image: NDArray[np.uint8]) -> Floats:
    """Turn HWC uint8 RGB into the network's input."""
    return np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1)[None], np.float32)


def decode(outputs: Sequence[Floats], size_hw: tuple[int, int]) -> tuple[Floats, Floats]:
    """Return boxes and scores: the geometric mean of both scores, which may stand in any order."""
    boxes, scores = [], []
    for level, stride in zip(levels(outputs) or [], STRIDES, strict=False):
        (box,) = level[4]
        both = [score[:, 0].clip(0, 1) for score in level[1]]
        centre = (cells(size_hw, stride) + box[:, :2]) * stride
        half = np.exp(box[:, 2:].clip(max=20)) * (stride / 2)
        boxes.append(np.concatenate([centre - half, centre + half], 1))
        scores.append(np.sqrt(both[0] * both[1]))
    return np.concatenate(boxes), np.concatenate(scores)
