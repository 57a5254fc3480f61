"""What compact networks are built of."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

__all__ = ["ConvUnit"]


class ConvUnit(nn.Module):
    """Convolution, batch normalisation and (if asked for) ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, relu: bool = True):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.norm: nn.BatchNorm2d | nn.Identity = nn.BatchNorm2d(outputs)
        self.relu = relu
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, outputs, H / stride, W / stride]."""
        x = self.norm(self.conv(x))
        return F.relu(x, inplace=True) if self.relu else x

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """Add a map to the output, then ReLU."""
        out: Tensor = self(x)
        return F.relu(out.add_(other), inplace=True)

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
