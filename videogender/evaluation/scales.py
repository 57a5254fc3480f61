"""Looking at a picture at several sizes, and mirrored, and letting all passes vote on each face."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from videogender.frames import Faces, RgbPicture
from videogender.network.boxes import nms, vote
from videogender.pipeline import BatchDetector

# Bounds and overlap as in the test code that S3FD's authors published (Zhang et al., "S3FD: Single
# Shot Scale-invariant Face Detector", ICCV 2017): a shrunken pass is asked for large faces only, an
# enlarged one for small ones.
LEAST_PX_SHRUNKEN = 30.0
MOST_PX_ENLARGED = 100.0
VOTE_IOU = 0.3

__all__ = ["ManyScales"]


class ManyScales:
    """A detector that looks several times. Its faces have no gender.

    Args:
        detector: looks at one size.
        scales: sizes of the passes, 1 being the detector's own.
        flip: also look at each of them mirrored.
    """

    def __init__(self, detector: BatchDetector, scales: Sequence[float], *, flip: bool) -> None:
        self._detector = detector
        self._scales = scales
        self._flip = flip

    @property
    def batch_size(self) -> int:
        """Pictures that it takes together."""
        return 1

    def __call__(self, images: Sequence[NDArray[np.uint8]]) -> list[Faces]:
        """Find the faces of HWC uint8 **RGB** images."""
        return [self._look(image) for image in images]

    def _look(self, image: NDArray[np.uint8]) -> Faces:
        size_wh = (image.shape[1], image.shape[0])
        passes = []
        for scale in self._scales:
            own_wh = self._detector.input_size_wh(*size_wh)
            pixels = RgbPicture(image).to_rgb(
                (max(1, round(own_wh[0] * scale)), max(1, round(own_wh[1] * scale)))
            )
            (found,) = self._detector.detect([pixels], [size_wh])
            passes.append(_trusted(found, scale))
            if self._flip:
                (found,) = self._detector.detect([np.ascontiguousarray(pixels[:, ::-1])], [size_wh])
                passes.append(_trusted(_mirrored(found, size_wh[0]), scale))
        return _voted(passes)


def _trusted(found: Faces, scale: float) -> Faces:
    """Return the faces of the sizes that a pass is asked for."""
    sides = found.boxes[:, 2:] - found.boxes[:, :2]
    if scale == 1:
        return found
    kept = sides.max(1) > LEAST_PX_SHRUNKEN if scale < 1 else sides.min(1) < MOST_PX_ENLARGED
    return Faces(found.boxes[kept], found.scores[kept], found.female[kept])


def _mirrored(found: Faces, width: int) -> Faces:
    boxes = found.boxes.copy()
    boxes[:, [0, 2]] = width - found.boxes[:, [2, 0]]
    return Faces(boxes, found.scores, found.female)


def _voted(passes: Sequence[Faces]) -> Faces:
    """Join the passes: a face's box is the mean of all that overlap its best, by score."""
    scores = torch.from_numpy(np.concatenate([found.scores for found in passes]))
    order = scores.argsort(descending=True, stable=True)
    scores = scores[order]
    boxes = torch.from_numpy(np.concatenate([found.boxes for found in passes]))[order]
    keep, owner = nms(boxes, VOTE_IOU)
    voted = vote(boxes, scores, keep, owner, VOTE_IOU).numpy()
    return Faces(voted, scores[keep].numpy(), np.full(len(voted), np.nan, np.float32))
