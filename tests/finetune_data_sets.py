"""Small labelled data sets of every form, with pictures that no two look alike."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def picture(seed: int, size_wh: tuple[int, int] = (64, 48)) -> Image.Image:
    """Return a picture of smooth random blotches."""
    blotches = np.random.default_rng(seed).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    return Image.fromarray(blotches).resize(size_wh, Image.Resampling.BICUBIC)


def write_pictures(folder: Path, names: Sequence[str], seed: int = 0) -> None:
    """Write a picture under each name, each unlike the others."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(seed * 1000 + number).save(path)


def write_csv(folder: Path, rows: Sequence[str], header: str = "Image_Name,Tags,Gender") -> Path:
    """Write a table and the pictures that its first column names, as PNG in `images/`."""
    names = [row.split(",")[0] for row in rows if row]
    known = (".png", ".jpg", ".tif")
    write_pictures(
        folder / "images", [name + ".png" * (not name.endswith(known)) for name in names]
    )
    path = folder / "index.csv"
    path.write_text("\n".join([header, *rows]) + "\n", newline="")
    return path


def write_jsonl(folder: Path, faces: Sequence[list[dict[str, Any]]], seed: int = 0) -> Path:
    """Write `faces.jsonl` with one picture (64×48) for each list of faces."""
    names = [f"images/{number}.png" for number in range(len(faces))]
    write_pictures(folder, names, seed)
    lines = [
        json.dumps({"image": name, "width": 64, "height": 48, "faces": those})
        for name, those in zip(names, faces, strict=True)
    ]
    path = folder / "faces.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path
