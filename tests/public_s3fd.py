"""S3FD as the two public families build it, written apart from the package, with random weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

State = dict[str, Tensor]

VGG_CHANNELS = [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 256)]
VGG_CHANNELS += [(256, 512)] + [(512, 512)] * 5
CONVOLUTIONS = [(o, i, 3) for i, o in VGG_CHANNELS] + [(1024, 512, 3), (1024, 1024, 1)]
EXTRAS = [(256, 1024, 1), (512, 256, 3), (128, 512, 1), (256, 128, 3)]
TAP_CHANNELS = [256, 512, 512, 1024, 512, 256]


def fill(state: State, name: str, outputs: int, inputs: int, kernel: int, gain: float = 1) -> None:
    scale = gain * math.sqrt(2 / (inputs * kernel**2))
    state[f"{name}.weight"] = torch.randn(outputs, inputs, kernel, kernel) * scale
    state[f"{name}.bias"] = torch.randn(outputs) * 0.1


def yxlijun_state() -> State:
    """Names and shapes of yxlijun's lists."""
    torch.manual_seed(11)
    state: State = {}
    positions = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28, 31, 33]
    for position, shape in zip(positions, CONVOLUTIONS, strict=True):
        fill(state, f"vgg.{position}", *shape, gain=1 / 64 if position == 0 else 1)
    for block, channels, scale in (("3_3", 256, 10.0), ("4_3", 512, 8.0), ("5_3", 512, 5.0)):
        state[f"L2Norm{block}.weight"] = scale * (1 + 0.1 * torch.randn(channels))
    for position, shape in enumerate(EXTRAS):
        fill(state, f"extras.{position}", *shape)
    for level, channels in enumerate(TAP_CHANNELS):
        fill(state, f"loc.{level}", 4, channels, 3)
        fill(state, f"conf.{level}", 2 if level else 4, channels, 3)
    return state


def clcarwin_state() -> State:
    """Names and shapes of clcarwin's port, which face-alignment shares."""
    torch.manual_seed(12)
    state: State = {}
    names = "conv1_1 conv1_2 conv2_1 conv2_2 conv3_1 conv3_2 conv3_3 conv4_1 conv4_2 conv4_3"
    names += " conv5_1 conv5_2 conv5_3 fc6 fc7"
    for name, shape in zip(names.split(), CONVOLUTIONS, strict=True):
        fill(state, name, *shape, gain=1 / 64 if name == "conv1_1" else 1)
    for name, shape in zip(("conv6_1", "conv6_2", "conv7_1", "conv7_2"), EXTRAS, strict=True):
        fill(state, name, *shape)
    for block, channels, scale in (("3_3", 256, 10.0), ("4_3", 512, 8.0), ("5_3", 512, 5.0)):
        state[f"conv{block}_norm.weight"] = scale * (1 + 0.1 * torch.randn(channels))
    taps = ("conv3_3_norm", "conv4_3_norm", "conv5_3_norm", "fc7", "conv6_2", "conv7_2")
    for level, (tap, channels) in enumerate(zip(taps, TAP_CHANNELS, strict=True)):
        fill(state, f"{tap}_mbox_loc", 4, channels, 3)
        fill(state, f"{tap}_mbox_conf", 2 if level else 4, channels, 3)
    return state


class VggList(nn.Module):
    """The other family in its own form: lists of layers, RGB, a dilated fc6, pool3 rounded up."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for number, (inputs, outputs) in enumerate(VGG_CHANNELS):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
            if number in (1, 3, 6, 9, 12):
                layers.append(nn.MaxPool2d(2, 2, ceil_mode=number == 6))
        layers += [nn.Conv2d(512, 1024, 3, padding=6, dilation=6), nn.ReLU()]
        layers += [nn.Conv2d(1024, 1024, 1), nn.ReLU()]
        self.vgg = nn.ModuleList(layers)
        self.extras = nn.ModuleList(
            nn.Conv2d(i, o, k, stride=2 if k == 3 else 1, padding=k // 2) for o, i, k in EXTRAS
        )
        self.loc = nn.ModuleList(nn.Conv2d(c, 4, 3, padding=1) for c in TAP_CHANNELS)
        classes = [4, 2, 2, 2, 2, 2]
        pairs = zip(TAP_CHANNELS, classes, strict=True)
        self.conf = nn.ModuleList(nn.Conv2d(c, n, 3, padding=1) for c, n in pairs)
        for block, channels in (("3_3", 256), ("4_3", 512), ("5_3", 512)):
            holder = nn.Module()
            holder.weight = nn.Parameter(torch.zeros(channels))
            self.add_module(f"L2Norm{block}", holder)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return class scores [A, 2] and box deltas [A, 4]."""
        sources = []
        for position, layer in enumerate(self.vgg):
            x = layer(x)
            if position in (15, 22, 29):
                weight = self.get_parameter(f"L2Norm{'345'[len(sources)]}_3.weight")
                length = x.pow(2).sum(1, keepdim=True).sqrt() + 1e-10
                sources.append(x / length * weight[None, :, None, None])
        sources.append(x)
        for position, layer in enumerate(self.extras):
            x = layer(x).relu()
            if position % 2:
                sources.append(x)
        scores, deltas = [], []
        for level, source in enumerate(sources):
            conf = self.conf[level](source)
            if level == 0:
                conf = torch.cat([conf[:, :3].max(1, keepdim=True)[0], conf[:, 3:]], 1)
            scores.append(conf.permute(0, 2, 3, 1).reshape(-1, 2))
            deltas.append(self.loc[level](source).permute(0, 2, 3, 1).reshape(-1, 4))
        return torch.cat(scores), torch.cat(deltas)


def run_clcarwin(state: State, x: Tensor) -> tuple[Tensor, Tensor]:
    """The first family as plain calls: BGR, fc6 padded by 3, every pool rounded down."""

    def conv(name: str, x: Tensor, stride: int = 1, padding: int = 1) -> Tensor:
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], stride, padding)

    taps = {}
    for block, layers in ((1, 2), (2, 2), (3, 3), (4, 3), (5, 3)):
        for layer in range(1, layers + 1):
            x = F.relu(conv(f"conv{block}_{layer}", x))
        if block >= 3:
            weight = state[f"conv{block}_3_norm.weight"].view(1, -1, 1, 1)
            length = torch.sqrt((x * x).sum(1, keepdim=True)) + 1e-10
            taps[f"conv{block}_3_norm"] = x / length * weight
        x = F.max_pool2d(x, 2, 2)
    x = F.relu(conv("fc6", x, padding=3))
    taps["fc7"] = x = F.relu(conv("fc7", x, padding=0))
    x = F.relu(conv("conv6_1", x, padding=0))
    taps["conv6_2"] = x = F.relu(conv("conv6_2", x, stride=2))
    x = F.relu(conv("conv7_1", x, padding=0))
    taps["conv7_2"] = F.relu(conv("conv7_2", x, stride=2))
    scores, deltas = [], []
    for tap, feature in taps.items():
        conf = conv(f"{tap}_mbox_conf", feature)[0]
        if tap == "conv3_3_norm":
            conf = torch.stack([torch.maximum(torch.maximum(conf[0], conf[1]), conf[2]), conf[3]])
        scores.append(conf.flatten(1).T)
        deltas.append(conv(f"{tap}_mbox_loc", feature)[0].flatten(1).T)
    return torch.cat(scores), torch.cat(deltas)


def small(state: State) -> State:
    """Tensors of the same names and shapes that take no room in a file: one number, repeated."""
    return {key: torch.full((1,), 0.01).expand(value.shape) for key, value in state.items()}


def changed(state: Mapping[str, Tensor], **changes: Tensor | None) -> State:
    """Replace tensors, `__` standing for a dot; None leaves one out."""
    changes = {key.replace("__", "."): value for key, value in changes.items()}
    merged = {**state, **changes}
    return {key: value for key, value in merged.items() if value is not None}


def check_one_line(error: Exception, path: Path) -> None:
    message = str(error)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    assert len(message) < len(str(path)) + 260
