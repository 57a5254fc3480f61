"""`lite`: a compact S3FD with the same strides, anchors and heads, made for two CPU cores.

Full 3×3 convolutions of few channels (they run nearest to a CPU's peak), a stem that goes to stride
4 at once, and a light top-down path that tells the fine levels what the coarse ones saw.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from videogender.network.heads import AnchorNetwork, GenderForm
from videogender.network.layers import ConvUnit, fold

__all__ = ["Lite"]


class Lite(AnchorNetwork):
    """The compact trunk. See the module docstring; input as `AnchorNetwork` says.

    Args:
        gender: add gender heads: the model's own tower, or heads of another form.
    """

    name: ClassVar[str] = "lite"
    taps: ClassVar[tuple[str, ...]] = ("s4", "s8", "s16", "s32", "s64", "s128")
    pixel_scale: ClassVar[float] = 1 / 64
    own_gender_form: ClassVar[GenderForm] = "tower"

    def __init__(self, gender: bool | GenderForm = True) -> None:
        super().__init__((16, 32, 64, 128, 128, 128))
        self.stem = nn.Sequential(ConvUnit(3, 16, 7, stride=4), ConvUnit(16, 16, 3))
        self.stage8 = nn.Sequential(ConvUnit(16, 32, 3, stride=2), ConvUnit(32, 32, 3))
        self.stage16 = nn.Sequential(ConvUnit(32, 96, 3, stride=2), ConvUnit(96, 96, 3))
        self.stage32 = nn.Sequential(ConvUnit(96, 128, 3, stride=2), ConvUnit(128, 128, 3))
        self.stage64 = nn.Sequential(ConvUnit(128, 64, 1), ConvUnit(64, 128, 3, stride=2))
        self.stage128 = nn.Sequential(ConvUnit(128, 64, 1), ConvUnit(64, 128, 3, stride=2))
        # top-down: lateral 1×1 of the fine map plus the coarse map brought up, then one 3×3
        self.side4, self.side8 = ConvUnit(16, 16, 1, relu=False), ConvUnit(32, 32, 1, relu=False)
        self.side16 = ConvUnit(96, 64, 1, relu=False)
        self.down8, self.down16 = ConvUnit(32, 16, 1, relu=False), ConvUnit(64, 32, 1, relu=False)
        self.down32 = ConvUnit(128, 64, 1, relu=False)
        self.out4, self.out8, self.out16 = (ConvUnit(c, c, 3) for c in (16, 32, 64))
        if gender:
            self.add_gender_heads(None if gender is True else gender)

    @property
    def input_convolution(self) -> nn.Conv2d:
        """The stem's first convolution."""
        unit = self.stem[0]
        assert isinstance(unit, ConvUnit)
        return unit.conv

    def features(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the six taps; see `AnchorNetwork.features`."""
        x4 = self.stem(x)
        x8 = self.stage8(x4)
        x16 = self.stage16(x8)
        x32 = self.stage32(x16)
        x64 = self.stage64(x32)
        x128 = self.stage128(x64)
        s16 = self.out16(self.side16.plus(x16, self.down32(x32)))
        s8 = self.out8(self.side8.plus(x8, self.down16(s16)))
        s4 = self.out4(self.side4.plus(x4, self.down8(s8)))
        return s4, s8, s16, x32, x64, x128

    def fuse(self) -> None:
        """Fold batch normalisation and the pixel scale into the weights, for inference.

        Afterwards the input is pixel values minus the mean, unscaled.
        """
        fold(self, self.input_convolution, self.pixel_scale)
        self.pixel_scale = 1.0  # type: ignore[misc]
