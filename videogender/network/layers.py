"""What compact networks are built of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

# By a unit's name, the least and the greatest value that came out of it.
Ranges = Mapping[str, tuple[float, float]]

__all__ = ["ConvUnit", "Ranges", "are_complete", "draw_weights", "fitted", "fold", "unit_names"]


def fitted(map_: Tensor, shape: torch.Size) -> Tensor:
    """Return a map [B, C, h, w], enlarged to the nearest cell where a shape is larger."""
    return map_ if map_.shape[2:] == shape[2:] else F.interpolate(map_, shape[2:])


def draw_weights(weight: Tensor, mode: Literal["fan_in", "fan_out"]) -> None:
    """Draw a layer's first weights by He's rule for ReLU (arXiv 1502.01852), in place.

    A tensor of the meta device has a shape alone and is left so: to draw it, PyTorch would load its
    whole compiler, which takes a second and more.
    """
    if not weight.is_meta:
        nn.init.kaiming_normal_(weight, mode=mode, nonlinearity="relu")


class ConvUnit(nn.Module):
    """Convolution, batch normalisation and (if asked for) ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, relu: bool = True):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.norm: nn.BatchNorm2d | nn.Identity = nn.BatchNorm2d(outputs)
        self.relu = relu
        draw_weights(self.conv.weight, "fan_out")

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, outputs, H / stride, W / stride]."""
        x = self.norm(self.conv(x))
        return F.relu(x, inplace=True) if self.relu else x

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """Add a map, enlarged to the nearest cell where it is coarser, to the output; then ReLU."""
        out: Tensor = self(x)
        return F.relu(out.add_(fitted(other, out.shape)), inplace=True)

    @torch.no_grad()
    def fuse(self) -> None:
        """Fold the normalisation into the convolution."""
        norm = self.norm
        if isinstance(norm, nn.Identity):
            return
        assert norm.running_mean is not None
        assert norm.running_var is not None
        self.conv.weight, self.conv.bias = fuse_conv_bn_weights(
            self.conv.weight,
            None,
            norm.running_mean,
            norm.running_var,
            norm.eps,
            norm.weight,
            norm.bias,
        )
        self.norm = nn.Identity()


def unit_names(network: nn.Module) -> set[str]:
    """Name all `ConvUnit`s of a network."""
    return {name for name, part in network.named_modules() if isinstance(part, ConvUnit)}


def are_complete(ranges: Ranges, network: nn.Module) -> bool:
    """Tell whether a network can compute in integers by these: it has units, and all are there."""
    return bool(ranges) and unit_names(network) <= set(ranges)


@torch.no_grad()
def fold(network: nn.Module, first: nn.Conv2d, pixel_scale: float) -> None:
    """Fold all normalisation, and the scale of pixels, into the weights, for inference.

    Args:
        network: whose units are folded.
        first: its convolution that reads the picture; afterwards it takes unscaled pixels.
        pixel_scale: what pixels were multiplied by before.
    """
    for module in network.modules():
        if isinstance(module, ConvUnit):
            module.fuse()
    first.weight.mul_(pixel_scale)
