"""Which values come out of a network's units in pictures: what it takes to compute in integers."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch

from videogender.config import DetectSettings
from videogender.dataset import Entry, read_rgb
from videogender.detector import Detector
from videogender.network.heads import AnchorNetwork
from videogender.network.layers import Ranges
from videogender.network.quantized import observing

PICTURES = 60  # of scenes, and of portraits; more change nothing

__all__ = ["ranges_in"]


def ranges_in(network: AnchorNetwork, *sets: Sequence[Entry]) -> Ranges:
    """Note the ranges while a network, left as it was, looks at some pictures of each set."""
    detector = Detector(
        copy.deepcopy(network).cpu(), DetectSettings(precision="fp32"), torch.device("cpu")
    )
    detector.forward = detector.network  # not its packed form, whose units cannot be watched
    with observing(detector.network) as seen:
        for entries in sets:
            for entry in entries[:: max(1, len(entries) // PICTURES)][:PICTURES]:
                detector([read_rgb(entry.path)])
    return {name: (round(low, 4), round(high, 4)) for name, (low, high) in seen.items()}
