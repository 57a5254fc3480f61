"""A second stage: a small network that sees each found face close up and has the last word on it.

S3FD's anchors judge a small face by a few coarse cells. What they propose is cut out of the picture
and scaled so that its longer side is `FACE_PX`; this network then says again whether it is a face,
where exactly, and how its gender presents. It works on a handful of crops a frame, some 4 % of
`lite`'s forward pass each.
"""

from __future__ import annotations

import math
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from videogender.network.layers import ConvUnit, fold

SIDE_PX = 80  # of a crop
FACE_PX = 48.0  # longer side of the proposed box in it: hair, ears and neck are seen too
GRID = SIDE_PX // 16

__all__ = [
    "FACE_PX",
    "SIDE_PX",
    "SecondOpinion",
    "SecondStage",
    "proposal_in_crop",
    "refined_boxes",
]


class SecondOpinion(NamedTuple):
    """What it says of K crops.

    Attributes:
        face: [K], log-odds that the proposal is a face.
        deltas: [K, 4], for `refined_boxes`.
        gender: [K, 2], logits of female and male.
    """

    face: Tensor
    deltas: Tensor
    gender: Tensor


class Residual(nn.Module):
    """Two 3×3 convolutions around which the input is led and added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvUnit(channels, channels, 3)
        self.second = ConvUnit(channels, channels, 3, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return a map of the same shape."""
        return self.second.plus(self.first(x), x)


class SecondStage(nn.Module):
    """Crops in, `SecondOpinion` out.

    Input is float [K, 3, `SIDE_PX`, `SIDE_PX`] in **BGR**, pixel values 0 to 255 minus
    `pixel_mean_bgr`, times `pixel_scale`.
    """

    pixel_mean_bgr: ClassVar[tuple[float, float, float]] = (104.0, 117.0, 123.0)
    pixel_scale: float = 1 / 64
    face_mix: Tensor
    gender_mix: Tensor

    def __init__(self) -> None:
        super().__init__()
        # how both stages count, in log-odds: weight of the first, of the second, and what is added
        self.register_buffer("face_mix", torch.tensor([0.5, 0.5, 0.0]))
        self.register_buffer("gender_mix", torch.tensor([0.0, 1.0, 0.0]))
        self.trunk = nn.Sequential(
            ConvUnit(3, 16, 3, stride=2),
            ConvUnit(16, 32, 3, stride=2),
            ConvUnit(32, 32, 3),
            ConvUnit(32, 64, 3, stride=2),
            Residual(64),
            ConvUnit(64, 128, 3, stride=2),
            ConvUnit(128, 128, 3),
            ConvUnit(128, 32, 1),
        )
        self.shared = nn.Linear(32 * GRID * GRID, 128)
        self.dropout = nn.Dropout(0.3)
        self.face = nn.Linear(128, 1)
        self.box = nn.Linear(128, 4)
        self.gender = nn.Linear(128, 2)

    @property
    def input_convolution(self) -> nn.Conv2d:
        """The convolution that reads the picture."""
        unit = self.trunk[0]
        assert isinstance(unit, ConvUnit)
        return unit.conv

    def forward(self, crops: Tensor) -> SecondOpinion:
        """Judge crops [K, 3, S, S]."""
        seen = F.relu(self.shared(self.trunk(crops).flatten(1)))
        return SecondOpinion(
            self.face(seen).squeeze(1), self.box(seen), self.gender(self.dropout(seen))
        )

    def fuse(self) -> None:
        """Fold normalisation and the pixel scale into the weights, for inference.

        Afterwards the input is pixel values minus the mean, unscaled.
        """
        fold(self, self.input_convolution, self.pixel_scale)
        self.pixel_scale = 1.0


def proposal_in_crop(like: Tensor) -> Tensor:
    """Return where a crop's proposal lies in it, as a square [K, 4], for each row of a tensor.

    Of a proposal only its centre and longer side count.
    """
    low, high = (SIDE_PX - FACE_PX) / 2, (SIDE_PX + FACE_PX) / 2
    return torch.tensor([low, low, high, high], device=like.device).expand(len(like), 4)


def refined_boxes(deltas: Tensor, proposals: Tensor) -> Tensor:
    """Return the boxes [K, 4] that deltas [K, 4] make of proposals [K, 4], all xyxy in pixels.

    The centre moves by parts of the proposal's longer side, width and height are that side times an
    exponential.
    """
    wh = proposals[:, 2:] - proposals[:, :2]
    side = wh.amax(1, keepdim=True)
    centre = (proposals[:, :2] + proposals[:, 2:]) / 2 + deltas[:, :2] * side
    half = deltas[:, 2:].clamp(max=math.log(4)).exp() * side / 2
    return torch.cat([centre - half, centre + half], 1)
