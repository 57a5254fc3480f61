"""A network's forward pass as an ONNX graph, for runtimes that compute it in PyTorch's place."""

from __future__ import annotations

import io
import warnings

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from videogender.errors import ModelError
from videogender.network.heads import AnchorNetwork, split_head

OPSET = 18

__all__ = ["Graph", "network_graph"]


class Graph(nn.Module):
    """A network's forward pass as another runtime takes it, without the gender heads.

    Args:
        network: made ready for inference, on the CPU, in fp32.
    """

    def __init__(self, network: AnchorNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Return face logits [B, A], box deltas [B, A, 4] and the taps of [B, H, W, 3]."""
        network = self.network
        features = network.features(pixels.permute(0, 3, 1, 2))
        logits, deltas = [], []
        for level, feature in enumerate(features):
            weight, bias = network.head_weights(level)
            background, face, boxes = split_head(F.conv2d(feature, weight, bias, padding=1), level)
            logits.append((face - background).flatten(1))
            deltas.append(boxes.flatten(2).transpose(1, 2))
        return torch.cat(logits, 1), torch.cat(deltas, 1), *features


def network_graph(network: AnchorNetwork) -> bytes:
    """Return a network's forward pass as an ONNX file; batch, height and width stay free.

    Args:
        network: made ready for inference, on the CPU, in fp32.

    Raises:
        ImportError: onnx is not installed.
        ModelError: the network cannot be expressed.
    """
    import onnx  # noqa: F401  # PyTorch's exporter asks for it at the end, in words of its own

    names = ["logits", "deltas", *(f"tap{level}" for level in range(len(network.taps)))]
    free = {"pixels": {0: "batch", 1: "height", 2: "width"}}
    free |= {name: {0: "batch", 1: "anchors"} for name in names[:2]}
    free |= {tap: {0: "batch", 2: f"{tap}_high", 3: f"{tap}_wide"} for tap in names[2:]}
    into = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # the older exporter takes half a second for what takes the newer one half a minute
            torch.onnx.export(
                Graph(network).eval(),
                (torch.zeros(2, 256, 320, 3),),
                into,  # type: ignore[arg-type]  # the older exporter takes it
                input_names=["pixels"],
                output_names=names,
                dynamic_axes=free,
                opset_version=OPSET,
                dynamo=False,
            )
    except Exception as error:  # the exporter's own errors are many
        raise ModelError(f"this network cannot be exported: {error}".splitlines()[0]) from error
    return into.getvalue()
