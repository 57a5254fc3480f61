"""CenterFace (Xu et al., "CenterFace: Joint Face Detection and Alignment Using Face as Point").

At stride 4: a map of face centres, of log sizes (height, width), of offsets (down, right) and of
five points. Input is RGB as it is, 0 to 255.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from videogender.evaluation.peers.forms import Floats, cells

NAME = "CenterFace"
NMS_IOU = 0.3
STRIDE = 4

__all__ = ["NAME", "NMS_IOU", "decode", "prepare", "recognises"]


def recognises(outputs: Sequence[Floats], size_hw: tuple[int, int]) -> bool:
    """Tell a CenterFace by its maps at a quarter of the size."""
    maps_hw = (size_hw[0] // STRIDE, size_hw[1] // STRIDE)
    if any(output.ndim != 4 or output.shape[2:] != maps_hw for output in outputs):
        return False
    return [output.shape[1] for output in outputs] in ([1, 2, 2], [1, 2, 2, 10])


def prepare(image: NDArray[np.uint8]) -> Floats:
    """Turn HWC uint8 RGB into the network's input."""
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None], np.float32)


def decode(outputs: Sequence[Floats], size_hw: tuple[int, int]) -> tuple[Floats, Floats]:
    """Return boxes and scores, of sizes and offsets in the order of the published file."""
    scores = outputs[0][0, 0].ravel()
    log_hw, offset_yx = (output[0].reshape(2, -1).T for output in outputs[1:3])
    centre = (cells(size_hw, STRIDE) + offset_yx[:, ::-1] + 0.5) * STRIDE
    half = np.exp(log_hw[:, ::-1].clip(max=20)) * (STRIDE / 2)
    return np.concatenate([centre - half, centre + half], 1), scores
