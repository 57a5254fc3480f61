"""Labelled pictures in the forms in which people have them: ours, COCO's and WIDER FACE's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from videogender.dataset import FILE_NAME, Entry, read_entries
from videogender.errors import TrainingError

FORMS = "JSON Lines, a folder with faces.jsonl, COCO JSON or a WIDER FACE folder"

__all__ = ["Labelled", "evenly", "picture_size_wh", "read_labelled"]


@dataclass(frozen=True, slots=True)
class Labelled:
    """A set of labelled pictures.

    Attributes:
        form: what it was read from.
        entries: the pictures, at least one.
        notes: what the user should know about it, one line each.
    """

    form: Literal["jsonl", "coco", "wider"]
    entries: Sequence[Entry]
    notes: tuple[str, ...] = ()


def read_labelled(path: Path) -> Labelled:
    """Read labelled pictures of any known form.

    Args:
        path: a `.jsonl` file or a folder with `faces.jsonl`; a COCO `.json` file; or a folder that
            holds WIDER FACE's pictures and its `wider_face_split`, or that split's text file.

    Raises:
        TrainingError: if it is missing, of no known form, or not as it should be.
    """
    from videogender.evaluation.coco import read_coco
    from videogender.evaluation.wider_files import find_split, read_wider

    if path.is_dir():
        if (path / FILE_NAME).exists():
            return Labelled("jsonl", read_entries(path))
        if split := find_split(path):
            return Labelled("wider", *read_wider(split, path))
        raise TrainingError(f"{path}: holds no labels (expected {FORMS})")
    if not path.exists():
        raise TrainingError(f"{path}: no such data (expected {FORMS})")
    if path.suffix == ".json":
        return Labelled("coco", *read_coco(path))
    if path.suffix == ".txt":
        return Labelled("wider", *read_wider(path, path.parent.parent))
    return Labelled("jsonl", read_entries(path))


def evenly(entries: Sequence[Entry], limit: int) -> Sequence[Entry]:
    """Return at most `limit` pictures, spread over the whole set; 0 returns all."""
    count = len(entries)
    if not limit or limit >= count:
        return entries
    return [entries[i * count // limit] for i in range(limit)]


def picture_size_wh(path: Path) -> tuple[int, int]:
    """Return width and height of a picture, upright, without decoding it.

    Raises:
        TrainingError: if the file is missing or not a picture.
    """
    from PIL import Image
    from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, TiffImageFile

    try:
        with Image.open(path) as image:
            width, height = image.size
            if isinstance(image, TiffImageFile):  # newer versions of Pillow give its size upright
                width, height = image.tag_v2[IMAGEWIDTH], image.tag_v2[IMAGELENGTH]
            turned = image.getexif().get(0x0112, 1) >= 5  # the orientations that swap the sides
    except FileNotFoundError as error:
        raise TrainingError(f"{path}: no such picture, though the labels name it") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise TrainingError(f"{path}: cannot be read as a picture ({error})") from error
    return (height, width) if turned else (width, height)
