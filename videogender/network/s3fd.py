"""`vgg16`: S3FD as published (arXiv 1708.05237), in the layer names that public checkpoints use.

Two geometries are in circulation under equal shapes, so that a wrong choice would load without a
word. Both are built here; `checkpoints` finds out which one a file needs.
"""

from __future__ import annotations

from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from videogender.network.heads import AnchorNetwork, GenderForm
from videogender.network.layers import draw_weights

__all__ = ["MODES", "S3FD", "L2Norm", "Mode"]

Mode = Literal["padded", "dilated"]
MODES: tuple[Mode, ...] = get_args(Mode)

# name: outputs, inputs, kernel, stride, padding
TRUNK: dict[str, tuple[int, int, int, int, int]] = {
    "conv1_1": (64, 3, 3, 1, 1),
    "conv1_2": (64, 64, 3, 1, 1),
    "conv2_1": (128, 64, 3, 1, 1),
    "conv2_2": (128, 128, 3, 1, 1),
    "conv3_1": (256, 128, 3, 1, 1),
    "conv3_2": (256, 256, 3, 1, 1),
    "conv3_3": (256, 256, 3, 1, 1),
    "conv4_1": (512, 256, 3, 1, 1),
    "conv4_2": (512, 512, 3, 1, 1),
    "conv4_3": (512, 512, 3, 1, 1),
    "conv5_1": (512, 512, 3, 1, 1),
    "conv5_2": (512, 512, 3, 1, 1),
    "conv5_3": (512, 512, 3, 1, 1),
    "fc6": (1024, 512, 3, 1, 3),
    "fc7": (1024, 1024, 1, 1, 0),
    "conv6_1": (256, 1024, 1, 1, 0),
    "conv6_2": (512, 256, 3, 2, 1),
    "conv7_1": (128, 512, 1, 1, 0),
    "conv7_2": (256, 128, 3, 2, 1),
}
FC6_DILATION = 6  # and padding, in the dilated mode


class L2Norm(nn.Module):
    """Scales each cell's feature vector to the length of a learned weight (ParseNet)."""

    epsilon = 1e-10

    def __init__(self, channels: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), scale))

    def forward(self, x: Tensor) -> Tensor:
        """Return `x / (|x| + 1e-10) * weight` over the channels of [B, C, H, W]."""
        # squares of raw VGG features leave the range of fp16: the length is taken in fp32
        length = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=torch.float32)
        scaled: Tensor = x / (length + self.epsilon) * self.weight[:, None, None]
        return scaled.to(x.dtype)


class S3FD(AnchorNetwork):
    """VGG-16 with the six taps of S3FD; input as `AnchorNetwork` says.

    Args:
        mode: `padded` is the authors' released model and its direct ports: fc6 has a padding of 3,
            which makes its grid four cells wider and higher, and pool3 rounds down. `dilated` is
            yxlijun's: fc6 has a padding and a dilation of 6 (the grid stays), pool3 rounds up.
        gender: add gender heads: the model's own, started from the face heads, or another form.
    """

    name: ClassVar[str] = "vgg16"
    taps: ClassVar[tuple[str, ...]] = (
        "conv3_3_norm",
        "conv4_3_norm",
        "conv5_3_norm",
        "fc7",
        "conv6_2",
        "conv7_2",
    )

    def __init__(self, mode: Mode = "padded", gender: bool | GenderForm = False) -> None:
        if mode not in MODES:
            raise ValueError(f"mode {mode!r} is none of {', '.join(MODES)}")
        super().__init__((256, 512, 512, 1024, 512, 256))
        self.mode = mode
        for name, (outputs, inputs, kernel, stride, padding) in TRUNK.items():
            dilation = 1
            if name == "fc6" and mode == "dilated":
                padding = dilation = FC6_DILATION
            setattr(self, name, nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation))
        self.conv3_3_norm = L2Norm(256, 10.0)
        self.conv4_3_norm = L2Norm(512, 8.0)
        self.conv5_3_norm = L2Norm(512, 5.0)
        self._start()
        if gender:
            self.add_gender_heads(None if gender is True else gender)

    @torch.no_grad()
    def _start(self) -> None:
        """Give the trunk weights that keep activations near one through all its layers."""
        for name in TRUNK:
            layer: nn.Conv2d = getattr(self, name)
            draw_weights(layer.weight, "fan_in")
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        self.conv1_1.weight.div_(64)  # type: ignore[union-attr,operator]  # pixels are not scaled

    def _run(self, x: Tensor, *names: str) -> Tensor:
        """Apply convolutions, each followed by a ReLU."""
        for name in names:
            x = F.relu(getattr(self, name)(x), inplace=True)
        return x

    @property
    def input_convolution(self) -> nn.Conv2d:
        """`conv1_1`."""
        convolution = self.get_submodule("conv1_1")
        assert isinstance(convolution, nn.Conv2d)
        return convolution

    def features(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the six taps; see `AnchorNetwork.features`."""
        x = F.max_pool2d(self._run(x, "conv1_1", "conv1_2"), 2)
        x = F.max_pool2d(self._run(x, "conv2_1", "conv2_2"), 2)
        conv3 = self._run(x, "conv3_1", "conv3_2", "conv3_3")
        x = F.max_pool2d(conv3, 2, ceil_mode=self.mode == "dilated")
        conv4 = self._run(x, "conv4_1", "conv4_2", "conv4_3")
        conv5 = self._run(F.max_pool2d(conv4, 2), "conv5_1", "conv5_2", "conv5_3")
        fc7 = self._run(F.max_pool2d(conv5, 2), "fc6", "fc7")
        conv6 = self._run(fc7, "conv6_1", "conv6_2")
        conv7 = self._run(conv6, "conv7_1", "conv7_2")
        return (
            self.conv3_3_norm(conv3),
            self.conv4_3_norm(conv4),
            self.conv5_3_norm(conv5),
            fc7,
            conv6,
            conv7,
        )
