"""A network that rounds where `quantized` does, in operations that ONNX has.

Other runtimes make integers of it: of a convolution whose maps and weights come out of
DequantizeLinear and whose result goes into QuantizeLinear. Weights have 7 bits, which no processor
overflows.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from videogender.errors import ModelError
from videogender.network.heads import AnchorNetwork
from videogender.network.layers import Ranges, fitted
from videogender.network.quantized import (
    PIXEL_ZERO,
    REDUCED,
    STAGE,
    replace_units,
    steps,
    weight_steps,
)
from videogender.network.second_stage import SecondStage

__all__ = ["RoundedConv", "rounded", "rounded_copy", "rounded_pixels"]

Part = TypeVar("Part", AnchorNetwork, SecondStage)


class RoundedConv(nn.Module):
    """A convolution of rounded maps; see `quantized.QuantizedConv` for the arguments."""

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        *,
        stride: Sequence[int] = (1, 1),
        padding: Sequence[int] = (1, 1),
        relu: bool = False,
        seen: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        _register()
        levels, scale = weight_steps(weight, REDUCED)
        self.register_buffer("levels", levels)
        self.register_buffer("scale", scale)
        self.register_buffer("zeros", torch.zeros_like(scale, dtype=torch.int8))
        self.register_buffer("bias", bias.detach().float())
        self._stride, self._padding, self._relu = list(stride), list(padding), relu
        self._seen = None if seen is None else steps(*seen)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, O, H, W]."""
        found = self._convolved(x)
        return self._rounded(F.relu(found) if self._relu else found)

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """Add a map, enlarged to this one's size, to the output, then ReLU."""
        found = self._convolved(x)
        return self._rounded(F.relu(found + fitted(other, found.shape)))

    def _convolved(self, x: Tensor) -> Tensor:
        weight = torch.ops.quantized_decomposed.dequantize_per_channel(
            self.get_buffer("levels"), self.get_buffer("scale"), self.get_buffer("zeros"),
            0, -128, 127, torch.int8,
        )  # fmt: skip
        return F.conv2d(x, weight, self.get_buffer("bias"), self._stride, self._padding)

    def _rounded(self, x: Tensor) -> Tensor:
        return x if self._seen is None else rounded(x, *self._seen)


def _register() -> None:
    """Load PyTorch's operations on rounded tensors, which lie in a module of their own."""
    try:
        import torch.ao.quantization.fx._decomposed
    except ImportError as error:
        raise ModelError(
            f"PyTorch {torch.__version__} lacks what int8 exports need; leave --precision out"
        ) from error


def rounded(x: Tensor, scale: float, zero: int) -> Tensor:
    """Return the nearest values that 8 bits can stand for."""
    bounds = (scale, zero, 0, 255, torch.uint8)
    levels = torch.ops.quantized_decomposed.quantize_per_tensor(x, *bounds)
    found: Tensor = torch.ops.quantized_decomposed.dequantize_per_tensor(levels, *bounds)
    return found


def rounded_pixels(pixels: Tensor) -> Tensor:
    """Return what `rounded_copy` reads of pixels of 0 to 255."""
    return rounded(pixels - PIXEL_ZERO, 1.0, PIXEL_ZERO)


def rounded_copy(part: Part, ranges: Ranges, mean: Sequence[float]) -> Part:
    """Return a copy of a network or of a second stage with rounded convolutions.

    Args:
        part: fused, in fp32, on the CPU.
        ranges: of what its units put out.
        mean: of the pixels that it expects to be subtracted; the copy takes `rounded_pixels`.
    """
    made = copy.deepcopy(part)
    prefix = STAGE if isinstance(part, SecondStage) else ""
    if isinstance(made, AnchorNetwork):
        made.second_stage = None
    replace_units(made, ranges, prefix, mean, RoundedConv)
    return made
