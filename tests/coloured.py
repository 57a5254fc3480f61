"""A `lite` whose weights are set by hand: its features are the picture's colours.

Channels 0, 1 and 2 of every level are red, green and blue of one pixel a cell (its top left one),
as (value − mean) / 64 where that is positive. A cell of one level that is bright is a face, exactly
where the level's anchor is. What a head should answer can then be read off the picture.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from videogender.network.anchors import STRIDES
from videogender.network.lite import ConvUnit, Lite

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "black": (0, 0, 0)}


def coloured_lite(gender: bool = False, face_level: int = 3) -> Lite:
    """Return the network; with gender heads, red is female and blue is male."""
    network = Lite(gender)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        for name, unit in network.named_modules():
            if isinstance(unit, ConvUnit):
                assert isinstance(unit.norm, torch.nn.BatchNorm2d)
                unit.norm.weight.fill_(1)
                if not name.startswith("down"):
                    pass_colours(unit.conv)
        first = network.input_convolution.weight
        first.copy_(first.flip(1))  # it reads BGR, and channel 0 is to be red
        for level, tap in enumerate(network.taps):
            conf = network.get_submodule(f"{tap}_mbox_conf")
            assert isinstance(conf, torch.nn.Conv2d)
            assert conf.bias is not None
            conf.bias[:-1] = 8.0
            if level == face_level:
                conf.weight[-1, :3, 1, 1] = 8.0  # a bright cell: 8 * 132 / 64 - 8 = 8.5
            if gender:
                pass_colours(network.get_submodule(f"{tap}_gender"))
        if gender:
            pass_colours(network.gender_shared[1])
            last = network.gender_shared[3]
            last.weight[0, 0], last.weight[1, 2] = 1.0, 1.0
    return network.eval()


def pass_colours(layer: torch.nn.Module) -> None:
    """Let a convolution hand on its first three channels."""
    assert isinstance(layer, torch.nn.Conv2d)
    middle = layer.kernel_size[0] // 2
    for channel in range(3):
        layer.weight.data[channel, channel, middle, middle] = 1.0


def scene(
    width: int, height: int, *marks: tuple[int, int, str], cell: int = 32
) -> NDArray[np.uint8]:
    """Paint cells (column, row, colour) on black; HWC uint8 RGB. Each is a face of 4 × 4 cells."""
    image = np.zeros((height, width, 3), np.uint8)
    for column, row, colour in marks:
        image[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell] = COLOURS[colour]
    return image


def solid(colour: str, width: int = 256, height: int = 256) -> NDArray[np.uint8]:
    """Paint a picture in one colour; HWC uint8 RGB."""
    return np.full((height, width, 3), COLOURS[colour], np.uint8)


def box_of(column: int, row: int, level: int = 3) -> list[float]:
    """Return where the face of a marked cell is, xyxy."""
    stride = STRIDES[level]
    x, y = (column + 0.5) * stride, (row + 0.5) * stride
    return [x - 2 * stride, y - 2 * stride, x + 2 * stride, y + 2 * stride]
