"""Heads that are fine-tuned beside a trunk: any few classes of faces, or of whole pictures.

    AttributeHeads     a head a level at the anchors of faces      mask / no mask, or a gender tower
    LinearClassifier   one linear layer on the last map            the class of a whole picture
    RefeedHead         one level of a crop around a face           a second, closer look

Each lives in one safetensors file with the network that it was trained beside; see `checkpoints`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from videogender.network.anchors import SIZE_IN_STRIDES, STRIDES
from videogender.network.heads import AnchorNetwork, logits_at

__all__ = ["FORMS", "AttributeHeads", "Form", "Head", "LinearClassifier", "RefeedHead"]

Form = Literal["linear", "tower"]
FORMS: tuple[Form, ...] = get_args(Form)

TOWER_HIDDEN, TOWER_SHARED = 64, 128  # as in lite's gender tower


def _tower_end(hidden: int, classes: int) -> nn.Sequential:
    """Return what follows a tower's first 3×3 convolution: 3×3 and 1×1."""
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(hidden, TOWER_SHARED, 3),
        nn.ReLU(),
        nn.Conv2d(TOWER_SHARED, classes, 1),
    )


class AttributeHeads(nn.Module):
    """Class logits at the anchors of faces, read from the taps of an `AnchorNetwork`.

    As gender heads, they are evaluated sparsely: a patch of (2 radius + 1)² cells around an
    anchor's cell, zeros beyond the map's edge, goes through convolutions without padding.

    Args:
        tap_channels: channels of each level's map, finest first (`AnchorNetwork.tap_channels`).
        classes: C, 2 or more.
        form: `linear` is one 3×3 convolution a level, as the seed's gender head (radius 1);
            `tower` is a 3×3 a level, then 3×3 and 1×1 shared by all levels (radius 2).
        hidden: channels between a tower's first and second layer.
    """

    def __init__(
        self,
        tap_channels: Sequence[int],
        classes: int,
        form: Form = "tower",
        hidden: int = TOWER_HIDDEN,
    ) -> None:
        super().__init__()
        self.classes, self.form = classes, form
        self.radius = 1 if form == "linear" else 2
        first = classes if form == "linear" else hidden
        self.levels = nn.ModuleList(nn.Conv2d(channels, first, 3) for channels in tap_channels)
        self.shared = nn.Sequential() if form == "linear" else _tower_end(hidden, classes)

    @classmethod
    def beside(
        cls, network: AnchorNetwork, classes: int, form: Form | None = None
    ) -> AttributeHeads:
        """Return heads that fit a network, started from it; None takes its gender heads' form."""
        if form is None:
            form = "tower" if network.name == "lite" else "linear"
        heads = cls(network.tap_channels, classes, form)
        heads.start_from(network)
        return heads.to(network.input_convolution.weight.device)

    @torch.no_grad()
    def start_from(self, network: AnchorNetwork) -> None:
        """Take over what the network's own heads learned, as far as it fits.

        Linear heads start from the **face** channel in every class: all answers are 1 / C. A tower
        takes the layers below the last from a gender tower, if the network has one.
        """
        for tap, mine in zip(network.taps, self.levels, strict=True):
            assert isinstance(mine, nn.Conv2d)
            if self.form == "tower":
                _copy_if_alike(mine, getattr(network, f"{tap}_gender", None))
                continue
            face: nn.Conv2d = getattr(network, f"{tap}_mbox_conf")
            assert face.bias is not None
            assert mine.bias is not None
            mine.weight.copy_(face.weight[-1:].expand_as(mine.weight))
            mine.bias.copy_(face.bias[-1:].expand_as(mine.bias))
        if self.form == "tower":
            _copy_if_alike(self.shared[1], _second_of_tower(network))

    def at_level(self, level: int, padded: Tensor) -> Tensor:
        """Run one level without padding: [N, C_level, h, w] to [N, C, h − 2r, w − 2r].

        Training calls it with patches [N, C_level, 2r + 1, 2r + 1] (from `heads.patches_at`),
        which give [N, C, 1, 1].
        """
        out: Tensor = self.shared(self.levels[level](padded))
        return out

    def forward(
        self, features: Sequence[Tensor], image_index: Tensor, anchor_index: Tensor
    ) -> Tensor:
        """Return logits at chosen anchors only.

        Args:
            features: the taps of `Predictions`.
            image_index: int64 [K], which image of the batch.
            anchor_index: int64 [K], which anchor of that image.

        Returns:
            [K, C].
        """
        radii = [self.radius] * len(features)
        return logits_at(features, image_index, anchor_index, self.classes, radii, self.at_level)

    def maps(self, features: Sequence[Tensor]) -> Tensor:
        """Return logits [B, A, C] of every anchor, by sweeping whole maps."""
        swept = []
        for level, feature in enumerate(features):
            out = self.at_level(level, F.pad(feature, [self.radius] * 4))
            swept.append(out.flatten(2).transpose(1, 2))
        return torch.cat(swept, 1)


class LinearClassifier(nn.Module):
    """Class logits of a whole picture: one linear layer on the flattened last map.

    The seed's first experiment. The picture is 256×256 (`videogender.classify.fitted` makes it so);
    the last map then has 256·3·3 = 2304 values in a padded vgg16, 256·2·2 = 1024 in a dilated one
    and 128·2·2 = 512 in lite. Features are taken as they are: whoever standardises them for
    training folds mean and deviation into `linear` afterwards.

    Args:
        inputs: values in the last map, C · h · w.
        classes: 2 or more.
    """

    side_px = 256
    level = -1  # of the taps

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, classes)

    @classmethod
    def beside(cls, network: AnchorNetwork, classes: int) -> LinearClassifier:
        """Return a classifier that fits a network's last map at 256×256."""
        classifier = cls(cls.inputs_of(network), classes)
        return classifier.to(network.input_convolution.weight.device)

    @classmethod
    def inputs_of(cls, network: AnchorNetwork) -> int:
        """Return how many values the last map has at 256×256; only shapes are computed."""
        shapes = {
            name: torch.empty_like(tensor, device="meta")
            for name, tensor in network.state_dict().items()
        }
        picture = torch.empty(1, 3, cls.side_px, cls.side_px, device="meta")
        picture = picture.to(network.input_convolution.weight.dtype)
        predictions = functional_call(network, shapes, (picture,))
        return int(predictions.features[cls.level][0].numel())

    @property
    def classes(self) -> int:
        """How many classes it tells apart."""
        return self.linear.out_features

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return logits [B, C] from the taps of 256×256 pictures; only the last tap is read."""
        out: Tensor = self.linear(features[self.level].flatten(1))
        return out


class RefeedHead(nn.Module):
    """Class logits of a face from one level of a crop around it, fed through the network again.

    The crop is a square of 7 × stride pixels around the face, scaled so that the face's longer
    side is the level's anchor size, 4 strides (`videogender.closeup.face_crops` cuts it). Its map
    has an odd number of cells, so that one cell lies in the middle of the face, also where a padded
    vgg16 adds two cells on each side; the head is a tower over the 5×5 cells around it.

    Args:
        channels: of the level's map.
        classes: C, 2 or more.
        level: index of the tap that is read, 0 to 5; 3 shows the face at 128 px, in a crop of 224.
        hidden: channels between the first and the second layer.
    """

    radius = 2
    crop_in_strides = 7

    def __init__(
        self, channels: int, classes: int, level: int = 3, hidden: int = TOWER_HIDDEN
    ) -> None:
        super().__init__()
        self.classes, self.level = classes, level
        self.first = nn.Conv2d(channels, hidden, 3)
        self.rest = _tower_end(hidden, classes)

    @classmethod
    def beside(cls, network: AnchorNetwork, classes: int, level: int = 3) -> RefeedHead:
        """Return a head that fits a network; started from its gender tower, if it has one."""
        head = cls(network.tap_channels[level], classes, level)
        with torch.no_grad():
            _copy_if_alike(head.first, getattr(network, f"{network.taps[level]}_gender", None))
            _copy_if_alike(head.rest[1], _second_of_tower(network))
        return head.to(network.input_convolution.weight.device)

    @property
    def face_px(self) -> int:
        """Longer side of the face in the crop."""
        return SIZE_IN_STRIDES * STRIDES[self.level]

    @property
    def side_px(self) -> int:
        """Side of the crop that is fed to the network."""
        return self.crop_in_strides * STRIDES[self.level]

    def centre(self, features: Sequence[Tensor]) -> Tensor:
        """Cut what the head reads, [B, C_level, 5, 5], out of the taps of crops."""
        feature = features[self.level]
        side = 2 * self.radius + 1
        top, left = ((cells - side) // 2 for cells in feature.shape[2:])
        return feature[:, :, top : top + side, left : left + side]

    def at_centre(self, patches: Tensor) -> Tensor:
        """Return logits [B, C] of patches [B, C_level, 5, 5] from `centre`."""
        out: Tensor = self.rest(self.first(patches)).flatten(1)
        return out

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return logits [B, C] from the taps of crops of `side_px`."""
        return self.at_centre(self.centre(features))


Head = AttributeHeads | LinearClassifier | RefeedHead


def _second_of_tower(network: AnchorNetwork) -> nn.Module | None:
    """Return the 3×3 convolution that the levels of a gender tower share, if there is one."""
    shared = getattr(network, "gender_shared", None)
    return shared[1] if isinstance(shared, nn.Sequential) else None


def _copy_if_alike(to: nn.Module, source: nn.Module | None) -> None:
    """Copy a convolution's weights if both have one shape."""
    if not (isinstance(to, nn.Conv2d) and isinstance(source, nn.Conv2d)):
        return
    if to.weight.shape == source.weight.shape:
        to.load_state_dict(source.state_dict())
