"""COCO JSON: boxes whose categories are the classes, or faces with attributes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from videogender.errors import TrainingError
from videogender.finetuning.datasets.jsonl_table import text_of
from videogender.finetuning.datasets.labels import is_gender_column
from videogender.finetuning.datasets.rows import Box, Finder, Row, Table

SUFFIXES = (".json",)
_MARK = b'"annotations"'

__all__ = ["SUFFIXES", "is_coco", "read_coco"]


def is_coco(path: Path) -> bool:
    """Tell from its text whether a JSON file has annotations, without parsing it."""
    try:
        return _MARK in path.read_bytes()
    except OSError:
        return False


def read_coco(
    path: Path, name: str, *, images: list[Path], label_column: str | None, side: str | None
) -> Table:
    """Read an export.

    Args:
        path: the file.
        name: what it is called in messages; places are `name#id` of the annotation.
        images: folders where its pictures may be.
        label_column: an attribute of annotations; None takes the category, or, where all have the
            same, an attribute about gender.
        side: of all its faces.

    Raises:
        TrainingError: if it cannot be read, is no COCO file, or nothing carries the label.
    """
    content = _load(path, name)
    boxes = [a for a in content["annotations"] if isinstance(a, dict) and not a.get("iscrowd")]
    categories = {text_of(c.get("id")): text_of(c.get("name")) for c in content["categories"]}
    pictures = {text_of(i.get("id")): i for i in content["images"]}
    column = label_column or _column(boxes, name)
    table = Table("coco", column, looked_in=images)
    finder = Finder(images)
    found: dict[str | None, Path | None] = {}
    for item in boxes:
        where = f"{name}#{item.get('id', '?')}"
        if item.get("ignore"):
            continue
        label = categories.get(text_of(item.get("category_id"))) if column == "category" else None
        label = label or text_of(_attributes(item).get(column))
        if label is None:
            table.unlabelled += 1
            continue
        image_id = text_of(item.get("image_id"))
        picture = pictures.get(image_id)
        if picture is None or not isinstance(picture.get("file_name"), str):
            table.problem("missing-file", f"no image with id {image_id}", where)
            continue
        box = _box(item.get("bbox"))
        if box is None:
            text = f"`bbox` should be [x, y, width, height], got {item.get('bbox')!r}"
            table.problem("bad-row", text[:100], where)
            continue
        if image_id not in found:
            found[image_id] = finder.find(picture["file_name"], table, where)
        place = found[image_id]
        if place is not None:
            person = text_of(_attributes(item).get("person"))
            size_wh = _size(picture)
            table.rows.append(Row(where, place, label, box, person, side, size_wh))
    return table


def _load(path: Path, name: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise TrainingError(f"{name}: cannot be read as JSON ({error})") from error
    keys = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(k), list) for k in keys):
        raise TrainingError(f"{name}: not a COCO file (images, annotations, categories)")
    if not all(isinstance(item, dict) for key in keys for item in content[key]):
        raise TrainingError(f"{name}: images, annotations and categories should be objects")
    return content


def _attributes(item: dict[str, Any]) -> dict[str, Any]:
    """Return what an annotation says beyond COCO's own keys; annotators nest it."""
    nested = item.get("attributes")
    return {**item, **nested} if isinstance(nested, dict) else item


def _column(boxes: list[dict[str, Any]], name: str) -> str:
    if len({text_of(item.get("category_id")) for item in boxes}) > 1:
        return "category"
    own = {"id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation", "ignore"}
    own |= {"attributes"}
    counts = Counter(key for item in boxes for key in _attributes(item) if key not in own)
    for key in counts:
        if is_gender_column(key):
            return key
    raise TrainingError(
        f"{name}: all boxes have one category; choose an attribute with --label-column: "
        f"{', '.join(sorted(counts)) or 'there is none'}"
    )


def _box(value: Any) -> Box | None:
    numbers = isinstance(value, list) and len(value) == 4
    if not numbers or not all(isinstance(v, (int, float)) for v in value):
        return None
    x, y, width, height = map(float, value)
    return x, y, x + width, y + height


def _size(picture: dict[str, Any]) -> tuple[int, int] | None:
    width, height = picture.get("width"), picture.get("height")
    return (width, height) if isinstance(width, int) and isinstance(height, int) else None
