"""The same network, packed for a CPU: sums and ReLU inside the convolutions, weights laid out.

PyTorch's plain convolution reorders its weights at every call, and a sum or ReLU goes over each map
once more. Its CPU library, oneDNN, can do all at once; PyTorch calls that way "pointwise" and takes
it itself where it compiles networks. What is not there, or gives other answers, is not used.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from videogender.network.heads import AnchorNetwork, Predictions
from videogender.network.layers import ConvUnit, fitted

MOST_SHAPES = 8  # whose weights are kept; a video has one or two
TRIAL_HW = (96, 128)
# Of logits, deltas and taps, against the plain network; bf16 keeps three digits of a sum.
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 0.1}

__all__ = ["KeptByShape", "PackedConv", "PackedNetwork", "answer_alike", "answers", "pack"]


class KeptByShape:
    """Weights as they should lie for an input, of which each shape has its own; a few are kept."""

    def __init__(self) -> None:
        self._kept: dict[torch.Size, Tensor] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, shape: torch.Size, make: Callable[[], Tensor]) -> Tensor:
        """Return those for a shape; they are made if they are not there."""
        weight = self._kept.get(shape)
        if weight is None:
            weight = make()
            if len(self._kept) >= MOST_SHAPES:
                self._kept = {}  # anew, as another thread may be reading the old one
            self._kept[shape] = weight
        return weight


class PackedConv(nn.Module):
    """A convolution with packed weights and, if asked for, ReLU.

    How the weights should lie depends on the shape of the input. Weights that lie otherwise are
    put right at every call, which takes longer than the convolution: so each shape has its own.

    Args:
        weight: [O, C, k, k]; bias: [O].
        stride, padding: of the convolution.
        relu: put ReLU behind it.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        *,
        stride: Sequence[int] = (1, 1),
        padding: Sequence[int] = (1, 1),
        relu: bool = False,
    ) -> None:
        super().__init__()
        self._geometry = (list(padding), list(stride), [1, 1], 1)  # no dilation, one group
        self._after = "relu" if relu else "none"
        self._bias = bias
        self._plain = weight.detach().to_mkldnn()
        self._packed = KeptByShape()
        operation = torch.ops.mkldnn._convolution_pointwise
        self._convolve, self._convolve_and_add = operation.default, operation.binary

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, O, H, W] of a batch in channels_last."""
        out: Tensor = self._convolve(
            x, self._weight_for(x.shape), self._bias, *self._geometry, self._after, [], ""
        )
        return out

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """Add a map, enlarged to this one's size, to the output; then ReLU."""
        weight, other = self._weight_for(x.shape), fitted(other, x.shape)
        out: Tensor = self._convolve_and_add(
            x, other, weight, self._bias, *self._geometry, "add", None, "relu", [], None
        )
        return out

    def _weight_for(self, shape: torch.Size) -> Tensor:
        def make() -> Tensor:
            reorder: Any = torch._C._nn.mkldnn_reorder_conv2d_weight
            weight = reorder(self._plain, *self._geometry, list(shape))
            assert isinstance(weight, Tensor)
            return weight

        return self._packed.get(shape, make)


class PackedNetwork(nn.Module):
    """A network whose `ConvUnit`s and heads are packed; it answers as the network does.

    Args:
        network: fused, on the CPU; it is left as it is.
    """

    def __init__(self, network: AnchorNetwork) -> None:
        super().__init__()
        self.inner = copy.deepcopy(network)
        self.inner.second_stage = None  # that is asked of the network itself
        for name, unit in list(self.inner.named_modules()):
            if not isinstance(unit, ConvUnit):
                continue
            conv = unit.conv
            assert conv.bias is not None
            assert not isinstance(conv.padding, str)
            packed = PackedConv(
                conv.weight, conv.bias, stride=conv.stride, padding=conv.padding, relu=unit.relu
            )
            self.inner.set_submodule(name, packed)
        levels = range(len(network.taps))
        self.heads = nn.ModuleList(PackedConv(*network.head_weights(level)) for level in levels)

    def forward(self, x: Tensor) -> Predictions:
        """Return what `AnchorNetwork.forward` returns."""
        features = self.inner.features(x)
        outs = [head(feature) for head, feature in zip(self.heads, features, strict=True)]
        return self.inner.predictions(features, outs)


def pack(network: AnchorNetwork) -> PackedNetwork | None:
    """Pack a fused network for inference on the CPU.

    Returns:
        None where that is not to be had: another device, fp16, a trunk of other parts,
        a build of PyTorch without oneDNN, or one in which it gives other answers.
    """
    weight = network.input_convolution.weight
    if weight.device.type != "cpu" or weight.dtype not in TOLERANCES:
        return None
    if not any(isinstance(module, ConvUnit) for module in network.modules()):
        return None
    try:
        packed = PackedNetwork(network)
        return packed if answer_alike(network, packed) else None
    except (AttributeError, NotImplementedError, RuntimeError):
        # these operations are PyTorch's own affair: another version may lack or change them
        return None


@torch.inference_mode()
def answer_alike(network: AnchorNetwork, other: Callable[[Tensor], Predictions]) -> bool:
    """Tell whether something else gives a network's answers and taps, on a small noisy picture."""
    dtype = network.input_convolution.weight.dtype
    noise = torch.rand(1, *TRIAL_HW, 3, generator=torch.Generator().manual_seed(0))
    picture = (noise * 255 - 128).to(dtype).permute(0, 3, 1, 2)
    wanted, found = network(picture), other(picture)
    tolerance = TOLERANCES[dtype]
    return all(
        theirs.shape == ours.shape and torch.allclose(theirs, ours, rtol=tolerance, atol=tolerance)
        for ours, theirs in zip(answers(wanted), answers(found), strict=True)
    )


def answers(predictions: Predictions) -> tuple[Tensor, ...]:
    """Return what two forms of a network are compared by: logits, deltas and taps."""
    return (predictions.face_logits, predictions.box_deltas, *predictions.features)
