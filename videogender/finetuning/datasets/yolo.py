"""YOLO exports: a YAML file with the class names, and a text file of boxes for each picture."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from videogender.errors import TrainingError
from videogender.finetuning.datasets.rows import Box, Row, Table
from videogender.sources import IMAGE_SUFFIXES

SUFFIXES = (".yaml", ".yml")
_FIVE_POINTS = 5 * 2  # values of a face's points
_FIVE_POINTS_MARKED = 5 * 3  # the same, where each says whether it is visible
_SLACK = 0.1  # of a box's size, by which its points may be outside
_KEYS = (("train", "train"), ("val", "val"), ("valid", "val"), ("test", "test"))

__all__ = ["SUFFIXES", "is_yolo", "read_yolo"]


def is_yolo(path: Path) -> bool:
    """Whether a YAML file lists class names."""
    try:
        return _class_names(_load(path)) is not None
    except TrainingError:
        return False


def _class_names(content: Any) -> list[str] | None:
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, dict) and all(str(key).isdecimal() for key in names):
        last = max(map(int, names), default=-1)
        return [str(names.get(str(i), "")) for i in range(last + 1)]
    return [str(name) for name in names] if isinstance(names, list) else None


def read_yolo(path: Path, name: str, root: Path) -> Table:
    """Read an export.

    Args:
        path: its YAML file. Pictures lie where its `train`, `val` and `test` say, or else in
            `images/` or `<side>/images/`; labels in `labels` beside `images`.
        name: what it is called in messages.
        root: the folder from which places in messages are counted.

    Raises:
        TrainingError: if it cannot be read, or has no pictures.
    """
    content = _load(path)
    names = _class_names(content)
    if names is None:
        raise TrainingError(f"{name}: has no list of class `names`; not a YOLO export")
    table = Table("yolo", "class")
    sides = _sides(path.parent, content)
    given = len(set(sides.values())) > 1
    table.looked_in += sides
    if not table.looked_in:
        raise TrainingError(f"{name}: names no pictures that are there (train, val, test)")
    lines = [
        (picture, side if given else None, where, line)
        for source, side in sides.items()
        for picture in _pictures(source)
        for where, line in _lines(picture, root, table)
    ]
    points = _point_values(content, [line for *_, line in lines])
    for picture, side, where, line in lines:
        number, *cells = line.split()
        box = _box(cells, points)
        if box is None or not number.isdecimal():
            text = f"expected a class and a box or polygon in numbers, got {line[:40]!r}"
            table.problem("bad-row", text, where)
        elif int(number) >= len(names) or not names[int(number)]:
            text = f"class {number} has no name (there are {len(names)})"
            table.problem("unknown-label", text, where)
        else:
            label = names[int(number)]
            table.rows.append(Row(where, picture, label, box, None, side, relative=True))
    return table


def _load(path: Path) -> Any:
    try:
        # BaseLoader keeps text as it is written: a class called `no` or `1` is no truth value
        return yaml.load(path.read_text("utf-8-sig"), yaml.BaseLoader)
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:120]
        raise TrainingError(f"{path}: cannot be read as YAML ({reason})") from error


def _sides(here: Path, content: dict[str, Any]) -> dict[Path, str | None]:
    """Return folders of pictures (or lists of them) with their sides; the first side counts."""
    base = here / str(content.get("path") or "")
    found: list[tuple[Path, str | None]] = []
    for key, side in _KEYS:
        entries = content.get(key) or []
        for entry in [entries] if isinstance(entries, str) else map(str, entries):
            # exports are moved about: `../train/images` may well mean `train/images`
            stripped = here / entry.lstrip("./")
            places = [p for p in (base / entry, here / entry, stripped) if p.exists()]
            found += [(place, side) for place in places[:1]]
    if not found:
        for key, side in _KEYS:
            places = [here / "images" / key, here / key / "images"]
            found += [(place, side) for place in places if place.is_dir()]
    if not found and (here / "images").is_dir():
        found = [(here / "images", None)]
    sides: dict[Path, str | None] = {}
    for folder, of in found:
        sides.setdefault(Path(os.path.normpath(folder)), of)
    return sides


def _pictures(source: Path) -> list[Path]:
    if source.is_file():  # a list, one path a line
        lines = source.read_text("utf-8", "replace").splitlines()
        return [source.parent / line.strip() for line in lines if line.strip()]
    return sorted(p for p in source.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)


def _labels_of(picture: Path) -> Path:
    """Return the label file: the last folder `images` of the path becomes `labels`."""
    parts = list(picture.with_suffix(".txt").parts)
    for at in range(len(parts) - 2, -1, -1):
        if parts[at] == "images":
            parts[at] = "labels"
            break
    return Path(*parts)


def _lines(picture: Path, root: Path, table: Table) -> Iterator[tuple[str, str]]:
    """Yield the lines of a picture's label file that are not blank, with their places."""
    path = _labels_of(picture)
    name = Path(os.path.relpath(path, root)).as_posix()
    try:
        lines = path.read_text("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return  # a picture without faces
    except (OSError, ValueError) as error:  # a name with a null byte is a ValueError
        reason = error.strerror if isinstance(error, OSError) else error
        table.problem("bad-row", f"cannot be read: {reason}", name)
        return
    if not picture.is_file():
        table.problem("missing-file", f"no picture {picture.name}", name)
        return
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield f"{name}:{number}", line.strip()


def _point_values(content: dict[str, Any], lines: Sequence[str]) -> int:
    """Return how many values of points follow the four of a box; 0 where lines may be polygons.

    `kpt_shape` says it. Without it 14 values are a box and five points, or a polygon of seven that
    happens to look so; but polygons are of many lengths, so where most lines look so they are none.
    """
    shape = content.get("kpt_shape")
    if isinstance(shape, list) and shape and all(str(n).isdecimal() for n in shape):
        return math.prod(map(int, shape))
    longer = [cells for line in lines if len(cells := line.split()[1:]) > 5]
    fitting = sum(
        len(cells) == 4 + _FIVE_POINTS and _holds_its_points(_numbers(cells)) for cells in longer
    )
    return _FIVE_POINTS if 2 * fitting > len(longer) else 0


def _holds_its_points(values: list[float] | None) -> bool:
    """Whether points lie in the box before them, or are none, as 0 and -1 say."""
    if values is None:
        return False
    x, y, width, height = values[:4]
    return all(
        (across <= 0 and down <= 0)
        or (abs(across - x) <= (0.5 + _SLACK) * width and abs(down - y) <= (0.5 + _SLACK) * height)
        for across, down in zip(values[4::2], values[5::2], strict=True)
    )


def _numbers(cells: Sequence[str]) -> list[float] | None:
    try:
        values = [float(cell) for cell in cells]
    except ValueError:
        return None
    return values if all(map(math.isfinite, values)) else None


def _box(cells: Sequence[str], points: int) -> Box | None:
    """Return xyxy in shares of the picture, from centre and size or from a polygon.

    `points` values follow a box, see `_point_values`.
    """
    values = _numbers(cells)
    if values is None:
        return None
    # a fifth is a detector's confidence; no polygon has 19
    if len(values) - 4 in (0, 1, points or _FIVE_POINTS_MARKED):
        x, y, width, height = values[:4]
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2
    if len(values) >= 6 and len(values) % 2 == 0 and not points:
        return min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])
    return None
