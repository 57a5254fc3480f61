"""CSV and TSV: one row a picture, as `Image_Name,Tags,Gender`, or one row a face with its box."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

from videogender.errors import TrainingError
from videogender.finetuning.datasets.labels import is_gender_column
from videogender.finetuning.datasets.rows import (
    PERSON_NAMES,
    Box,
    Finder,
    Row,
    Table,
    plain,
    side_of,
)

SUFFIXES = (".csv", ".tsv", ".txt")
_IMAGE_NAMES = (
    *("imagename", "image", "imagepath", "file", "filename", "filepath", "path", "img"),
    "imageid",  # of CelebA
)
_SIDE_COLUMNS = ("split", "subset", "partition")
_PARTITIONS = {"0": "train", "1": "val", "2": "test"}  # of CelebA
_LABEL_NAMES = ("label", "class", "category")  # where no column is about gender
_CORNERS = (
    ("x1", "y1", "x2", "y2"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("left", "top", "right", "bottom"),
)
_WITH_SIZE = (
    ("x", "y", "w", "h"),
    ("x", "y", "width", "height"),
    ("left", "top", "width", "height"),
)

__all__ = ["SUFFIXES", "has_images", "read_csv"]


def has_images(path: Path) -> bool:
    """Whether a CSV file has a column that names pictures."""
    try:
        _, header, _ = _open(path, path.name)
    except TrainingError:
        return False
    return _first(header, _IMAGE_NAMES) is not None


def read_csv(
    path: Path, name: str, *, images: list[Path], label_column: str | None, side: str | None
) -> Table:
    """Read a table with a header.

    Args:
        path: the file; UTF-8 with or without byte order mark, UTF-16 with one, or Windows-1252;
            separated by commas, semicolons, tabs or bars; or CelebA's own text: a count, a header
            of attributes, and rows of a picture's name and its attributes, separated by blanks.
        name: what it is called in messages.
        images: folders where its pictures may be.
        label_column: the column of labels; None takes the one about gender.
        side: of all its rows; None leaves it to a column `split`.

    Raises:
        TrainingError: if the file cannot be read or lacks a column.
    """
    rows, header, lines = _open(path, name)
    image_at = _first(header, _IMAGE_NAMES)
    if image_at is None:
        raise TrainingError(
            f"{name}: no column names the pictures (Image_Name, image or file); its first line, "
            f"which should be a header, is {', '.join(header)[:80]!r}"
        )
    label_at = _label_column(header, image_at, label_column, name)
    person_at = _first(header, PERSON_NAMES, but=label_at)
    side_at = _first(header, _SIDE_COLUMNS, but=label_at) if side is None else None
    corners = _box_columns(header)
    table = Table("csv", header[label_at], looked_in=images)
    finder = Finder(images)
    for cells, line in zip(rows, lines, strict=True):
        where = f"{name}:{line}"
        if len(cells) != len(header):
            table.problem("bad-row", f"{len(cells)} cells, the header has {len(header)}", where)
            continue
        if not cells[label_at]:
            table.problem("no-label", f"{header[label_at]} is empty", where)
            continue
        row_side = side if side_at is None else _side(header[side_at], cells[side_at])
        if side_at is not None and row_side is None:
            text = f"{header[side_at]} is {cells[side_at]!r}, expected train, val or test"
            table.problem("unknown-side", text, where)
            continue
        box = None
        if corners is not None and (box := _box(cells, *corners)) is None:
            table.problem("bad-row", "the box is not four numbers", where)
            continue
        if found := finder.find(cells[image_at], table, where):
            person = (cells[person_at] or None) if person_at is not None else None
            table.rows.append(Row(where, found, cells[label_at], box, person, row_side))
    return table


def _open(path: Path, name: str) -> tuple[list[list[str]], list[str], list[int]]:
    """Return rows, header and the line each row ends on; blank rows are skipped."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TrainingError(f"{path}: cannot be read: {error.strerror or error}") from error
    text = _decode(data)
    first = next((line for line in text.splitlines() if line.strip()), "")
    if first.strip().isdecimal():
        return _counted(text, name)
    delimiter = max(",;\t|", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    rows, lines = [], []
    try:
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            if any(stripped):
                rows.append(stripped)
                lines.append(reader.line_num)
    except csv.Error as error:
        raise TrainingError(f"{name}:{reader.line_num}: not a CSV file ({error})") from error
    if not rows:
        raise TrainingError(f"{name}: the file is empty")
    return rows[1:], rows[0], lines[1:]


def _counted(text: str, name: str) -> tuple[list[list[str]], list[str], list[int]]:
    """Return what `_open` does, of CelebA's own text, whose header does not name the pictures."""
    known = [(cells, i) for i, line in enumerate(text.splitlines(), 1) if (cells := line.split())]
    if len(known) < 2:
        raise TrainingError(f"{name}: holds a number and no header")
    _, (attributes, _), *rows = known
    return [row for row, _ in rows], ["image_id", *attributes], [line for _, line in rows]


def _side(column: str, value: str) -> str | None:
    return (_PARTITIONS.get(value) if plain(column) == "partition" else None) or side_of(value)


def _decode(data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")  # what spreadsheets write on Windows


def _first(header: list[str], names: tuple[str, ...], but: int | None = None) -> int | None:
    """Return the column with the first of these names that the header has."""
    folded = [plain(cell) for cell in header]
    return next((folded.index(n) for n in names if n in folded and folded.index(n) != but), None)


def _label_column(header: list[str], image_at: int, wanted: str | None, name: str) -> int:
    others = [cell for i, cell in enumerate(header) if i != image_at]
    if wanted is not None:
        if wanted in header:
            return header.index(wanted)
        folded = [cell.casefold() for cell in header]
        if wanted.casefold() in folded:
            return folded.index(wanted.casefold())
        raise TrainingError(f"{name}: no column {wanted!r}; it has {', '.join(others)}")
    for at, cell in enumerate(header):
        if is_gender_column(cell):
            return at
    found = _first(header, _LABEL_NAMES)
    if found is None:
        raise TrainingError(
            f"{name}: no column is called Gender; choose one with --label-column: "
            f"{', '.join(others)}"
        )
    return found


def _box_columns(header: list[str]) -> tuple[list[int], bool] | None:
    """Return the four columns of a box, and whether the last two are its size."""
    folded = [plain(cell) for cell in header]
    for names in (*_CORNERS, *_WITH_SIZE):
        if all(name in folded for name in names):
            return [folded.index(name) for name in names], names in _WITH_SIZE
    return None


def _box(cells: list[str], at: list[int], sized: bool) -> Box | None:
    try:
        x1, y1, x2, y2 = (float(cells[i]) for i in at)
    except ValueError:
        return None
    if not all(math.isfinite(v) for v in (x1, y1, x2, y2)):
        return None
    return (x1, y1, x1 + x2, y1 + y2) if sized else (x1, y1, x2, y2)
