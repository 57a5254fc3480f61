"""Small things to fine-tune on: a network that finds a face wherever one is said to be, and faces.

Faces are drawn ovals, red for women and blue for men (`drawn_faces`). The network has random
weights, face scores of one half everywhere and boxes that equal the anchors, so that which anchors
belong to a face follows from geometry alone.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from drawn_faces import draw
from PIL import Image

from videogender.network import checkpoints
from videogender.network.heads import AnchorNetwork
from videogender.network.lite import Lite
from videogender.network.s3fd import S3FD
from videogender.network.second_stage import SecondStage


def blind(network: AnchorNetwork) -> AnchorNetwork:
    """Make every anchor a face of score one half, with its own square as box."""
    with torch.no_grad():
        for tap in network.taps:
            for kind in ("conf", "loc"):
                head = getattr(network, f"{tap}_mbox_{kind}")
                if kind == "loc":
                    head.weight.zero_()
                else:
                    # equal channels: not zero, so that gender heads have something to start from
                    head.weight.copy_(head.weight[-1:].expand_as(head.weight))
                head.bias.zero_()
    return network.eval()


def write_lite(path: Path, *, gender: bool = True, seed: int = 0) -> Path:
    """Write a blind `lite` as half precision, as the one that ships is."""
    torch.manual_seed(seed)
    checkpoints.save(blind(Lite(gender)), path, {"temperature": "1.25"})
    return path


def write_two_stages(path: Path, seed: int = 0) -> Path:
    """Write a blind `lite` with a second stage that leaves scores and boxes as they are."""
    torch.manual_seed(seed)
    network, stage = blind(Lite()), SecondStage().eval()
    with torch.no_grad():
        stage.box.weight.zero_()
        stage.box.bias.zero_()
        stage.face_mix.copy_(torch.tensor([1.0, 0.0, 0.0]))
    network.second_stage = stage
    checkpoints.save(network, path, {"temperature": "1.25"})
    return path


def write_vgg16(path: Path, seed: int = 0) -> Path:
    """Write a blind `vgg16` as single precision, as imported ones are."""
    torch.manual_seed(seed)
    checkpoints.save(blind(S3FD("padded")), path, {}, half=False)
    return path


def write_faces(folder: Path, count: int, *, boxes: bool = True, side: int = 96) -> Path:
    """Write JSON Lines and pictures with one face each, women and men in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(5)
    lines = []
    for number in range(count):
        gender = ("female", "male")[number % 2]
        x, y = (float(v) for v in rng.integers(4, side - 68, 2))
        box = [x, y, x + 56, y + 64]
        name = f"{number}.png"
        # a few pixels of noise, so that no two pictures are alike
        Image.fromarray(draw((side, side), [box], [gender], number)).save(folder / name)
        face = {"gender": gender, **({"box": box} if boxes else {})}
        line = {"image": name, "width": side, "height": side, "faces": [face]}
        lines.append(json.dumps(line) + "\n")
    (folder / "faces.jsonl").write_text("".join(lines))
    return folder
