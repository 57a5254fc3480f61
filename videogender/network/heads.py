"""One head design for every trunk: a face score, a box and a gender for each anchor.

A trunk yields six feature maps (taps). Beside each stand a face head `<tap>_mbox_conf`, a box head
`<tap>_mbox_loc` and, where the model has them, a gender head `<tap>_gender`. Faces are rare among
anchors, so gender heads are evaluated only at the cells that ask for it: a patch of features around
each such cell goes through the same convolution that would else sweep the whole map.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from videogender.network.anchors import STRIDES, anchors_for, level_offsets
from videogender.network.layers import Ranges
from videogender.network.second_stage import SecondStage

FEMALE, MALE = 0, 1
VOTES = 2  # best anchors of a face that answer together
BACKGROUND_CHANNELS_FIRST_LEVEL = 3  # max-out background label, S3FD §3.3
TOWER_HIDDEN, TOWER_SHARED = 64, 128  # channels between the layers of a gender tower

# `linear` is the seed's head, one 3×3 convolution a level; `tower` has two more layers on it
GenderForm = Literal["linear", "tower"]
GENDER_FORMS: tuple[GenderForm, ...] = get_args(GenderForm)

__all__ = [
    "FEMALE",
    "GENDER_FORMS",
    "MALE",
    "AnchorNetwork",
    "GenderConv",
    "GenderForm",
    "GenderTower",
    "Predictions",
]


@dataclass(frozen=True)
class Predictions:
    """What a network says of a batch.

    Attributes:
        face_logits: [B, A], log-odds that the anchor holds a face.
        box_deltas: [B, A, 4], regression outputs for `boxes.decode`.
        features: the taps, [B, C, H, W] each, finest first; `gender_logits` reads them. What
            computes in integers makes them only when they are read.
        anchors: [A, 3], centre x, centre y and size in input pixels.
    """

    face_logits: Tensor
    box_deltas: Tensor
    features: Sequence[Tensor]
    anchors: Tensor


class GenderConv(nn.Conv2d):
    """The seed recipe's gender head: one 3×3 convolution to two channels (female, male)."""

    radius = 1

    def __init__(self, channels: int) -> None:
        super().__init__(channels, 2, kernel_size=3)

    @torch.no_grad()
    def start_from_face(self, conf: nn.Conv2d) -> None:
        """Copy the **face** channel (the last) of a face head into both gender channels.

        Both start equal, so the first answer is one half for everybody.
        """
        self.weight.copy_(conf.weight[-1:].repeat(2, 1, 1, 1))
        if self.bias is not None and conf.bias is not None:
            self.bias.copy_(conf.bias[-1:].repeat(2))


class GenderTower(nn.Conv2d):
    """First layer of a level's gender tower; what follows is shared by all levels."""

    radius = 2  # 3×3 here and 3×3 in the shared part: five cells, the face and its hair

    def __init__(self, channels: int) -> None:
        super().__init__(channels, TOWER_HIDDEN, kernel_size=3)


class AnchorNetwork(nn.Module):
    """Base of the trunks: taps in, predictions a anchor out.

    A subclass implements `features` and names its taps. Input is float [B, 3, H, W] in **BGR**,
    pixel values 0 to 255 minus `pixel_mean_bgr`, times `pixel_scale`.
    """

    name: ClassVar[str]
    taps: ClassVar[tuple[str, ...]]
    strides: ClassVar[tuple[int, ...]] = STRIDES
    own_gender_form: ClassVar[GenderForm] = "linear"
    gender_shared: nn.Sequential  # of a gender tower only
    second_stage: SecondStage | None  # judges again what the anchors propose
    ranges: Ranges | None  # of what its units put out in pictures, to compute in integers by
    pixel_mean_bgr: ClassVar[tuple[float, float, float]] = (104.0, 117.0, 123.0)
    pixel_scale: ClassVar[float] = 1.0

    def __init__(self, tap_channels: Sequence[int]) -> None:
        super().__init__()
        self.tap_channels = tuple(tap_channels)
        self.second_stage, self.ranges = None, None
        for level, (tap, channels) in enumerate(zip(self.taps, tap_channels, strict=True)):
            classes = 2 if level else BACKGROUND_CHANNELS_FIRST_LEVEL + 1
            setattr(self, f"{tap}_mbox_conf", nn.Conv2d(channels, classes, 3, padding=1))
            setattr(self, f"{tap}_mbox_loc", nn.Conv2d(channels, 4, 3, padding=1))

    @property
    def has_gender(self) -> bool:
        """Whether gender heads are present."""
        return hasattr(self, f"{self.taps[0]}_gender")

    @property
    def gender_form(self) -> GenderForm | None:
        """What its gender heads are, or None if it has none."""
        if not self.has_gender:
            return None
        return "tower" if hasattr(self, "gender_shared") else "linear"

    def add_gender_heads(self, form: GenderForm | None = None) -> None:
        """Add a gender head beside each face head, in place of those that are there.

        Linear heads start from the face heads' weights. A tower starts at random: 3×3 a level, then
        3×3 and 1×1 shared by all levels.

        Args:
            form: None takes the model's own.
        """
        form = form or self.own_gender_form
        if hasattr(self, "gender_shared"):
            del self.gender_shared
        for tap, channels in zip(self.taps, self.tap_channels, strict=True):
            conf: nn.Conv2d = getattr(self, f"{tap}_mbox_conf")
            head: nn.Conv2d = GenderTower(channels) if form == "tower" else GenderConv(channels)
            if isinstance(head, GenderConv):
                head.start_from_face(conf)
            setattr(self, f"{tap}_gender", head.to(conf.weight.device, conf.weight.dtype))
        if form == "tower":
            self.gender_shared = nn.Sequential(
                nn.ReLU(),
                nn.Conv2d(TOWER_HIDDEN, TOWER_SHARED, 3),
                nn.ReLU(),
                nn.Conv2d(TOWER_SHARED, 2, 1),
            ).to(conf.weight.device, conf.weight.dtype)

    def features(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the six taps [B, C, H, W] of an input [B, 3, H, W], finest first."""
        raise NotImplementedError

    @property
    def input_convolution(self) -> nn.Conv2d:
        """The convolution that reads the picture."""
        raise NotImplementedError

    def fuse(self) -> None:
        """Fold what training needs and inference does not; afterwards `pixel_scale` is 1."""

    def forward(self, x: Tensor) -> Predictions:
        """Return face logits and box deltas of every anchor of a batch [B, 3, H, W]."""
        features = self.features(x)
        outs = []
        for level, feature in enumerate(features):
            weight, bias = self.head_weights(level)
            outs.append(F.conv2d(feature, weight, bias, padding=1))
        return self.predictions(features, outs)

    def head_weights(self, level: int) -> tuple[Tensor, Tensor]:
        """Return weight and bias of a level's face and box heads as one convolution.

        One pass over the map then serves both: class scores first, four box deltas after them.
        """
        conf: nn.Conv2d = getattr(self, f"{self.taps[level]}_mbox_conf")
        loc: nn.Conv2d = getattr(self, f"{self.taps[level]}_mbox_loc")
        bias = torch.cat([conf.bias, loc.bias])  # type: ignore[list-item]
        return torch.cat([conf.weight, loc.weight]), bias

    def predictions(self, features: Sequence[Tensor], outs: Sequence[Tensor]) -> Predictions:
        """Read the outputs [B, classes + 4, H, W] of the levels' face and box heads."""
        logits, deltas = [], []
        for level, out in enumerate(outs):
            background, face, boxes = split_head(out, level)
            logits.append((face - background).flatten(1))
            deltas.append(boxes.flatten(2).transpose(1, 2))
        return Predictions(
            torch.cat(logits, 1),
            torch.cat(deltas, 1),
            features,
            anchors_for(grids_of(outs), self.strides, outs[0].device),
        )

    def gender_at_level(self, level: int, padded: Tensor) -> Tensor:
        """Run one level's gender head without padding: [N, C, h, w] to [N, 2, h − 2r, w − 2r]."""
        out: Tensor = getattr(self, f"{self.taps[level]}_gender")(padded)
        return self.gender_shared(out) if self.gender_form == "tower" else out

    def gender_radius(self, level: int) -> int:
        """Return how many cells around its own the gender head of a level reads."""
        return int(getattr(self, f"{self.taps[level]}_gender").radius)

    def gender_logits(
        self, features: Sequence[Tensor], image_index: Tensor, anchor_index: Tensor
    ) -> Tensor:
        """Return gender logits at chosen anchors only.

        Args:
            features: the taps of `Predictions`.
            image_index: int64 [K], which image of the batch.
            anchor_index: int64 [K], which anchor of that image.

        Returns:
            [K, 2], logits of female and male.
        """
        radii = [self.gender_radius(level) for level in range(len(features))]
        return logits_at(features, image_index, anchor_index, 2, radii, self.gender_at_level)

    def gender_maps(self, features: Sequence[Tensor]) -> Tensor:
        """Return gender logits [B, A, 2] of every anchor, by sweeping whole maps."""
        maps = []
        for level, feature in enumerate(features):
            radius = self.gender_radius(level)
            out = self.gender_at_level(level, F.pad(feature, [radius] * 4))
            maps.append(out.flatten(2).transpose(1, 2))
        return torch.cat(maps, 1)


def split_head(out: Tensor, level: int) -> tuple[Tensor, Tensor, Tensor]:
    """Split a level's output [B, classes + 4, H, W].

    Returns:
        The background's score [B, H, W], of which the finest level has several and the largest
        counts; the face's; and the box deltas [B, 4, H, W].
    """
    face = 1 if level else BACKGROUND_CHANNELS_FIRST_LEVEL
    background = out[:, 0]
    for channel in range(1, face):  # two steps, quicker than `amax` over three
        background = torch.maximum(background, out[:, channel])
    return background, out[:, face], out[:, face + 1 :]


def grids_of(features: Sequence[Tensor]) -> tuple[tuple[int, int], ...]:
    """Return the cells (high, wide) of each feature map."""
    return tuple((int(f.shape[2]), int(f.shape[3])) for f in features)


def logits_at(
    features: Sequence[Tensor],
    image_index: Tensor,
    anchor_index: Tensor,
    classes: int,
    radii: Sequence[int],
    at_level: Callable[[int, Tensor], Tensor],
) -> Tensor:
    """Ask the heads beside a network at chosen anchors only.

    Args:
        features: the taps of `Predictions`.
        image_index: int64 [K], which image of the batch.
        anchor_index: int64 [K], which anchor of that image.
        classes: C, of the heads.
        radii: cells around its own that the head of each level reads.
        at_level: a level and patches [N, C_level, 2r + 1, 2r + 1] to logits [N, C, 1, 1].

    Returns:
        [K, C].
    """
    offsets = level_offsets(grids_of(features))
    out = features[0].new_zeros(len(anchor_index), classes)
    for level, (feature, radius) in enumerate(zip(features, radii, strict=True)):
        here = (anchor_index >= offsets[level]) & (anchor_index < offsets[level + 1])
        where = here.nonzero().squeeze(1)
        if len(where) == 0:
            continue
        cell = anchor_index[where] - offsets[level]
        row, column = cell // feature.shape[3], cell % feature.shape[3]
        patches = patches_at(feature, image_index[where], row, column, radius)
        logits = at_level(level, patches).flatten(1)
        out = out.index_put((where,), logits.to(out.dtype))
    return out


def patches_at(feature: Tensor, image: Tensor, row: Tensor, column: Tensor, radius: int) -> Tensor:
    """Cut square patches out of feature maps, zeros beyond the edge.

    Args:
        feature: [B, C, H, W].
        image, row, column: int64 [K], the centre cells.
        radius: cells on each side of the centre.

    Returns:
        [K, C, 2r + 1, 2r + 1].
    """
    cells = feature.permute(0, 2, 3, 1)  # [B, H, W, C]
    reach = torch.arange(-radius, radius + 1, device=feature.device)
    rows, columns = row[:, None] + reach, column[:, None] + reach  # [K, 2r + 1]
    high, wide = feature.shape[2:]
    # only what is read is touched: to pad the whole map would cost more than all the rest
    patches = cells[
        image[:, None, None],
        rows.clamp(0, high - 1)[:, :, None],
        columns.clamp(0, wide - 1)[:, None, :],
    ]
    inside = ((rows >= 0) & (rows < high))[:, :, None] & ((columns >= 0) & (columns < wide))[
        :, None, :
    ]
    return (patches * inside[..., None]).permute(0, 3, 1, 2)
