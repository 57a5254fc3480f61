"""Pictures of drawn faces with known boxes: bright ovals on a dark, noisy ground.

A woman is a red oval, a man a blue one, so that a few dozen steps of training tell them apart.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

COLOURS = {"female": (255, 120, 120), "male": (120, 120, 255)}


def draw(
    size_wh: tuple[int, int], boxes: list[list[float]], genders: list[str], seed: int = 0
) -> NDArray[np.uint8]:
    """Return HWC uint8 RGB with an oval in each box."""
    width, height = size_wh
    noise = np.random.default_rng(seed).integers(0, 60, (height, width, 3)).astype(np.uint8)
    image = Image.fromarray(noise)
    pen = ImageDraw.Draw(image)
    for (x1, y1, x2, y2), gender in zip(boxes, genders, strict=True):
        pen.ellipse((x1, y1, x2 - 1, y2 - 1), fill=COLOURS[gender])
    return np.array(image)


def write_set(folder: Path, entries: list[dict[str, Any]], images: list[NDArray[np.uint8]]) -> Path:
    """Write pictures and their data file; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, (entry, image) in enumerate(zip(entries, images, strict=True)):
        name = f"{number}.png"
        Image.fromarray(image).save(folder / name)
        size = {"width": image.shape[1], "height": image.shape[0]}
        lines.append(json.dumps({"image": name, **size, **entry}) + "\n")
    (folder / "faces.jsonl").write_text("".join(lines))
    return folder


def write_scenes(folder: Path, count: int, seed: int = 0) -> Path:
    """Write scenes of 192×160 with one to three faces, 20 to 60 px high."""
    rng = np.random.default_rng(seed)
    entries, images = [], []
    for number in range(count):
        boxes, genders = [], []
        for column in rng.permutation(3)[: rng.integers(1, 4)]:
            height = float(rng.integers(20, 61))
            width = round(height * 0.8)
            x = float(column * 64 + rng.integers(0, 64 - width + 1))
            y = float(rng.integers(0, 160 - height + 1))
            boxes.append([x, y, x + width, y + height])
            genders.append(str(rng.choice(["female", "male"])))
        faces = [{"box": b, "gender": g} for b, g in zip(boxes, genders, strict=True)]
        entries.append({"faces": faces})
        images.append(draw((192, 160), boxes, genders, seed * 1000 + number))
    return write_set(folder, entries, images)


def write_portraits(folder: Path, count: int, seed: int = 0) -> Path:
    """Write portraits of 96×96 with one large face each, women and men in turn."""
    rng = np.random.default_rng(seed)
    entries, images = [], []
    for number in range(count):
        gender = ("female", "male")[number % 2]
        x, y = (float(v) for v in rng.integers(8, 28, 2))
        box = [x, y, x + 48, y + 60]
        entries.append({"faces": [{"box": box, "gender": gender, "age": 20 + number % 40}]})
        images.append(draw((96, 96), [box], [gender], seed * 1000 + number))
    return write_set(folder, entries, images)
