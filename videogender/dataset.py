"""Labelled pictures on disk, for training and for evaluation.

The format is JSON Lines, one line a picture, paths relative to the file:

    {"image": "images/a.webp", "width": 640, "height": 480,
     "faces": [{"box": [x1, y1, x2, y2], "gender": "female", "ignore": false}, …]}

Boxes are xyxy in pixels of the stored picture and may reach past its edge. `gender` is `female`,
`male`, or absent where unknown. `ignore` marks a face that counts neither as found nor as missed.
Further keys are kept, for evaluation by group.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from videogender.errors import TrainingError

FILE_NAME = "faces.jsonl"  # what a folder's data file is called
GENDERS = ("female", "male")

__all__ = [
    "FILE_NAME",
    "GENDERS",
    "Entry",
    "box_problem",
    "read_entries",
    "read_lines",
    "read_picture",
    "read_rgb",
]


@dataclass(frozen=True, slots=True)
class Entry:
    """One labelled picture.

    Attributes:
        path: the picture's file.
        width, height: its size in pixels, as the data file gives it.
        faces: the objects of its `faces`, checked.
        attributes: every other key of its line.
    """

    path: Path
    width: int
    height: int
    faces: list[dict[str, Any]]
    attributes: dict[str, Any]


def read_entries(path: str | Path) -> list[Entry]:
    """Read a data file, or the `faces.jsonl` of a folder.

    Raises:
        TrainingError: if the file is missing, holds nothing, or a line is not as it should be; the
            message names file and line.
    """
    path = Path(path)
    if path.is_dir():
        path = path / FILE_NAME
    entries = []
    for where, item in read_lines(path):
        if problem := _problem(item):
            raise TrainingError(f"{where}: {problem}")
        rest = {key: value for key, value in item.items() if key not in ("image", "faces")}
        image = path.parent / item["image"]
        entries.append(Entry(image, item["width"], item["height"], item["faces"], rest))
    if not entries:
        raise TrainingError(f"{path}: holds no pictures (expected JSON Lines, one line a picture)")
    return entries


def read_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (`file:line`, object) for each line of a JSON Lines file that is not blank.

    Raises:
        TrainingError: if the file cannot be read, or a line is no JSON object.
    """
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                where = f"{path}:{number}"
                try:
                    item = json.loads(line)
                except ValueError as error:
                    raise TrainingError(f"{where}: not JSON ({error})") from error
                if not isinstance(item, dict):
                    raise TrainingError(f"{where}: expected an object, got {line[:40]!r}")
                yield where, item
    except FileNotFoundError as error:
        raise TrainingError(
            f"{path}: no such data file (expected JSON Lines, one line a picture)"
        ) from error
    except OSError as error:
        raise TrainingError(f"{path}: cannot be read: {error.strerror or error}") from error


def box_problem(face: Any) -> str:
    """Say what is wrong with the box of a face; nothing if all is well."""
    if not isinstance(face, dict):
        return f"a face should be an object, got {face!r}"
    box = face.get("box")
    if not isinstance(box, list) or len(box) != 4 or not all(_is_number(v) for v in box):
        return f"a face needs a `box` of four numbers, got {box!r}"
    if box[2] <= box[0] or box[3] <= box[1]:
        return f"box {box} is empty; boxes are [x1, y1, x2, y2]"
    return ""


def _problem(item: dict[str, Any]) -> str:
    """Say what is wrong with a line; nothing if all is well."""
    if not isinstance(item.get("image"), str):
        return "needs the picture's path as `image`"
    for key in ("width", "height"):
        value = item.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            return f"needs the picture's `{key}` in pixels, got {value!r}"
    faces = item.get("faces")
    if not isinstance(faces, list):
        return f"needs a list of `faces`, got {faces!r}"
    for face in faces:
        if problem := box_problem(face):
            return problem
        if face.get("gender") not in (None, *GENDERS):
            return f"gender {face['gender']!r} is neither female nor male; leave it out if unknown"
    return ""


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """Decode a still as HWC uint8 **RGB**, upright.

    Raises:
        TrainingError: if the file is missing or not a picture.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except FileNotFoundError as error:
        raise TrainingError(f"{path}: no such picture, though the data file names it") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise TrainingError(f"{path}: cannot be read as a picture ({error})") from error


def read_picture(entry: Entry) -> NDArray[np.uint8]:
    """Decode a labelled picture as HWC uint8 **RGB**, upright.

    Raises:
        TrainingError: if that fails, or it has another size than the one that its labels are for.
    """
    rgb = read_rgb(entry.path)
    height, width = rgb.shape[:2]
    if (width, height) != (entry.width, entry.height):
        raise TrainingError(
            f"{entry.path}: {width}x{height} pixels, "
            f"the data file says {entry.width}x{entry.height}"
        )
    return rgb
