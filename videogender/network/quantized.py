"""The same network in 8-bit integers, for a CPU: two to four times as fast as in fp32.

Weights have a scale a channel, maps one each, from the ranges of values that were seen in pictures
(`observing`; they are stored with the weights). Sums are kept in 32 bits; heads answer in floating
point. As in `packed`, it is oneDNN that computes, by operations that PyTorch itself uses where it
compiles networks; where they are missing or give other answers, nothing is quantised.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple, overload

import torch
from torch import Tensor, nn

from videogender.network.heads import AnchorNetwork, Predictions
from videogender.network.layers import ConvUnit, Ranges, are_complete, fitted
from videogender.network.packed import TRIAL_HW, KeptByShape, answers
from videogender.network.second_stage import SecondOpinion, SecondStage

FULL, REDUCED = 127, 63  # levels of weights on either side of zero, with and without VNNI
PIXEL_ZERO = 115  # the level that stands for zero in pictures, about the mean pixel
NEAR = 0.25  # how far answers may be from the plain ones on average, in their standard deviations
STAGE = "second_stage."  # how names of its parts begin

__all__ = [
    "FULL",
    "Levels",
    "QuantizedNetwork",
    "QuantizedStage",
    "observing",
    "quantize",
    "replace_units",
    "steps",
    "weight_levels",
    "weight_steps",
]


class Levels(NamedTuple):
    """A map in integers.

    Attributes:
        values: uint8 [B, C, H, W], channels last in memory.
        scale: what a step stands for.
        zero: the level of zero.
    """

    values: Tensor
    scale: float
    zero: int

    @property
    def shape(self) -> torch.Size:
        """Shape of the map."""
        return self.values.shape

    def decoded(self, dtype: torch.dtype) -> Tensor:
        """Return the values that it stands for."""
        found = self.values.to(dtype)
        return (found.sub_(self.zero) if self.zero else found).mul_(self.scale)


class _Decoded(Sequence[Tensor]):
    """The values that some maps stand for, each made when it is first read."""

    def __init__(self, maps: Sequence[Levels], dtype: torch.dtype) -> None:
        self._maps, self._dtype = maps, dtype
        self._made: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self._maps)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Tensor]: ...
    def __getitem__(self, index: int | slice) -> Tensor | Sequence[Tensor]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        if index not in self._made:
            self._made[index] = self._maps[index].decoded(self._dtype)
        return self._made[index]


class QuantizedConv(nn.Module):
    """A convolution of integers.

    Args:
        weight: [O, C, k, k]; bias: [O].
        stride, padding: of the convolution.
        relu: put ReLU behind it.
        seen: range of the values that come out; None for an answer in floating point.
    """

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
        self._levels, self._scale = weight_steps(weight, weight_levels())
        self._zeros = torch.zeros(len(weight), dtype=torch.int32)
        self._bias = bias.detach().float()
        self._geometry = (list(stride), list(padding), [1, 1], 1)  # no dilation, one group
        self._after = "relu" if relu else "none"
        self._out_scale, self._out_zero = (1.0, 0) if seen is None else steps(*seen)
        self._dtype = torch.float32 if seen is None else torch.uint8
        self._packed = KeptByShape()
        operation = torch.ops.onednn.qconv2d_pointwise
        self._convolve, self._convolve_and_add = operation.default, operation.binary

    def forward(self, x: Levels) -> Levels:
        """Return [B, O, H, W]."""
        found = self._convolve(*self._given(x), self._bias, *self._wanted(), self._after, [], "")
        return Levels(found, self._out_scale, self._out_zero)

    def answer(self, x: Levels) -> Tensor:
        """Return [B, O, H, W] in floating point, of a convolution with no range."""
        return self.forward(x).values

    def plus(self, x: Levels, other: Levels) -> Levels:
        """Add a map, enlarged to this one's size, to the output, then ReLU."""
        added = fitted(other.values, x.shape)
        if added is other.values:  # the operation writes its result over what it adds
            added = added.clone()
        found = self._convolve_and_add(
            *self._given(x), added, self._bias, *self._wanted(),
            other.scale, other.zero, "sum", 1.0, "relu", [], "",
        )  # fmt: skip
        return Levels(found, self._out_scale, self._out_zero)

    def _given(self, x: Levels) -> tuple[Any, ...]:
        def make() -> Tensor:
            packed: Tensor = torch.ops.onednn.qconv_prepack(
                self._levels, self._scale, x.scale, x.zero, *self._geometry, list(x.shape)
            )
            return packed

        # how many pictures there are changes nothing about how the weights should lie
        packed = self._packed.get(x.shape[1:], make)
        return (x.values, x.scale, x.zero, packed, self._scale, self._zeros)

    def _wanted(self) -> tuple[Any, ...]:
        return (*self._geometry, self._out_scale, self._out_zero, self._dtype)


class QuantizedNetwork(nn.Module):
    """A network whose `ConvUnit`s and heads compute in integers.

    It takes uint8 pixels [B, 3, H, W] as they are, in the order of channels that the network takes;
    what pads a picture has its mean.

    Args:
        network: fused, in fp32, on the CPU; it is left as it is.
        ranges: of what its units put out.
        mean: of the pixels that the network expects to be subtracted.
        dtype: of the taps, which other heads read.
    """

    def __init__(
        self, network: AnchorNetwork, ranges: Ranges, mean: Sequence[float], dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.inner = copy.deepcopy(network)
        self.inner.second_stage = None
        self._dtype = dtype
        replace_units(self.inner, ranges, "", mean)
        # kept apart from the modules, whose type does not know `answer`
        self._heads = [QuantizedConv(*network.head_weights(k)) for k in range(len(network.taps))]

    def forward(self, pixels: Tensor) -> Predictions:
        """Return what `AnchorNetwork.forward` returns."""
        taps: Any = self.inner.features(Levels(pixels, 1.0, PIXEL_ZERO))  # type: ignore[arg-type]
        outs = [head.answer(tap) for head, tap in zip(self._heads, taps, strict=True)]
        return self.inner.predictions(_Decoded(taps, self._dtype), outs)


class QuantizedStage(nn.Module):
    """A second stage whose convolutions compute in integers; see `QuantizedNetwork`."""

    def __init__(self, stage: SecondStage, ranges: Ranges, mean: Sequence[float]) -> None:
        super().__init__()
        self.inner = copy.deepcopy(stage)
        replace_units(self.inner, ranges, STAGE, mean)
        self.trunk, self.inner.trunk = self.inner.trunk, nn.Sequential()

    def forward(self, pixels: Tensor) -> SecondOpinion:
        """Judge crops, uint8 [K, S, S, 3]."""
        seen: Levels = self.trunk(Levels(pixels.permute(0, 3, 1, 2), 1.0, PIXEL_ZERO))
        found: SecondOpinion = self.inner(seen.decoded(torch.float32))
        return found


def quantize(
    network: AnchorNetwork, ranges: Ranges | None, mean: Sequence[float], dtype: torch.dtype
) -> tuple[QuantizedNetwork, QuantizedStage | None] | None:
    """Quantise a fused network for inference on the CPU.

    Args:
        network: in fp32.
        ranges: of what its units put out; None where they are not known.
        mean: of the pixels that the network expects to be subtracted.
        dtype: of the taps.

    Returns:
        The network and its second stage, if it has one. None where that is not to be had: ranges
        that are not all known, another device, a build of PyTorch without oneDNN's operations, or
        in which they give other answers.
    """
    if ranges is None or not are_complete(ranges, network):
        return None
    if network.input_convolution.weight.device.type != "cpu":
        return None
    try:
        first = QuantizedNetwork(network, ranges, mean, dtype)
        stage = network.second_stage
        second = None if stage is None else QuantizedStage(stage, ranges, mean)
        alike = _nearly_alike(network, first, mean)
    except (AttributeError, NotImplementedError, RuntimeError):
        # these operations are PyTorch's own affair: another version may lack or change them
        return None
    return (first, second) if alike else None


@torch.inference_mode()
def _nearly_alike(network: AnchorNetwork, made: QuantizedNetwork, mean: Sequence[float]) -> bool:
    """Tell whether a quantised network's answers to a small noisy picture are near the plain ones.

    Rounding moves them by up to a tenth of their spread, sums that are wrong by all of it.
    """
    noise = torch.randint(
        0, 256, (1, *TRIAL_HW, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    pixels = noise.permute(0, 3, 1, 2)
    wanted, found = network(pixels - torch.tensor(mean)[:, None, None]), made(pixels)
    return all(
        bool((theirs.float() - ours).abs().mean() < NEAR * ours.std())
        for ours, theirs in zip(answers(wanted), answers(found), strict=True)
    )


@contextmanager
def observing(network: nn.Module) -> Iterator[dict[str, tuple[float, float]]]:
    """Note the ranges of what a network's `ConvUnit`s put out, while they are at work.

    Args:
        network: its units are replaced for that time.
    """
    seen: dict[str, tuple[float, float]] = {}
    units = [(n, m) for n, m in network.named_modules() if isinstance(m, ConvUnit)]
    for name, unit in units:
        network.set_submodule(name, _Observed(unit, name, seen))
    try:
        yield seen
    finally:
        for name, unit in units:
            network.set_submodule(name, unit)


class _Observed(ConvUnit):
    """A unit that notes what comes out of it."""

    def __init__(self, unit: ConvUnit, name: str, seen: dict[str, tuple[float, float]]) -> None:
        nn.Module.__init__(self)
        self.conv, self._unit, self._name, self._seen = unit.conv, unit, name, seen

    def forward(self, x: Tensor) -> Tensor:
        return self._noted(self._unit(x))

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        return self._noted(self._unit.plus(x, other))

    def _noted(self, out: Tensor) -> Tensor:
        low, high = self._seen.get(self._name, (0.0, 0.0))
        self._seen[self._name] = (min(low, float(out.min())), max(high, float(out.max())))
        return out


@cache
def weight_levels() -> int:
    """Return how many levels weights may have on either side of zero.

    Processors without VNNI add two products in 16 bits, which weights of 8 bits overflow.
    """
    ones = torch.full((1, 64, 1, 1), FULL, dtype=torch.int8)
    light = torch.full((1, 64, 4, 4), 255, dtype=torch.uint8)
    light = light.contiguous(memory_format=torch.channels_last)
    scale, zero = torch.ones(1), torch.zeros(1, dtype=torch.int32)
    shape = ([1, 1], [0, 0], [1, 1], 1)
    packed = torch.ops.onednn.qconv_prepack(ones, scale, 1.0, 0, *shape, [1, 64, 4, 4])
    found = torch.ops.onednn.qconv2d_pointwise(
        light, 1.0, 0, packed, scale, zero, None, *shape, 1.0, 0, torch.float32, "none", [], ""
    )
    return FULL if bool((found == 64 * FULL * 255).all()) else REDUCED


def steps(low: float, high: float) -> tuple[float, int]:
    """Return scale and zero of the levels that span a range."""
    scale = max(high - min(low, 0.0), 1e-6) / 255
    return scale, round(-min(low, 0.0) / scale)


def weight_steps(weight: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Return weights [O, C, k, k] as int8 of up to so many levels a side, and the scales [O]."""
    plain = weight.detach().float()
    scale = (plain.abs().amax((1, 2, 3)) / most).clamp(min=1e-12)
    levels = (plain / scale[:, None, None, None]).round()
    return levels.clamp(-most, most).to(torch.int8), scale


def replace_units(
    network: AnchorNetwork | SecondStage,
    ranges: Ranges,
    prefix: str,
    mean: Sequence[float],
    kind: Callable[..., nn.Module] = QuantizedConv,
) -> None:
    """Put another kind of convolution, called like `QuantizedConv`, in the place of all units.

    The one that reads the picture takes its pixels less `PIXEL_ZERO` instead of the mean.
    """
    first = network.input_convolution
    for name, unit in list(network.named_modules()):
        if not isinstance(unit, ConvUnit):
            continue
        conv = unit.conv
        bias = conv.bias
        assert bias is not None
        assert not isinstance(conv.padding, str)
        if conv is first:
            less = PIXEL_ZERO - torch.tensor(mean)
            bias = bias + torch.einsum("ocij,c->o", conv.weight, less)
        made = kind(
            conv.weight,
            bias,
            stride=conv.stride,
            padding=conv.padding,
            relu=unit.relu,
            seen=ranges[prefix + name],
        )
        network.set_submodule(name, made)
