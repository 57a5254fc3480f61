"""JSON Lines with faces, as `videogender.dataset` describes them, labelled by any field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from videogender.dataset import box_problem, read_lines
from videogender.errors import TrainingError
from videogender.finetuning.datasets.rows import Finder, Row, Table

SUFFIXES = (".jsonl", ".ndjson")

__all__ = ["SUFFIXES", "read_jsonl", "text_of"]


def read_jsonl(
    path: Path, name: str, *, images: list[Path], label_column: str | None, side: str | None
) -> Table:
    """Read a data file; faces to ignore are left out, those without the label are counted.

    Args:
        path: the file.
        name: what it is called in messages.
        images: folders where its pictures may be.
        label_column: a field of faces, or else of lines; None for `gender`.
        side: of all its faces.

    Raises:
        TrainingError: if the file cannot be read, is not JSON Lines, or no face has the label.
    """
    column = label_column or "gender"
    table = Table("jsonl", column, looked_in=images)
    finder = Finder(images)
    fields: set[str] = set()
    labelled = 0
    for full_where, item in read_lines(path):
        where = f"{name}:{full_where.rpartition(':')[2]}"
        image, faces = item.get("image"), item.get("faces")
        if not isinstance(image, str) or not isinstance(faces, list):
            table.problem("bad-row", "needs the picture's path as `image` and `faces`", where)
            continue
        new = []
        for face in faces:
            row = _row(face, item, column, side, where, table)
            fields.update(face if isinstance(face, dict) else ())
            new += [row] if row else []
        labelled += len(new)
        if new and (found := finder.find(image, table, where)):
            table.rows += [_at(row, found, item) for row in new]
    if not labelled:
        choices = ", ".join(sorted(fields - {"box", "ignore"})) or "nothing but boxes"
        raise TrainingError(f"{name}: no face has `{column}`; they have {choices} (--label-column)")
    return table


def _row(
    face: Any, item: dict[str, Any], column: str, side: str | None, where: str, table: Table
) -> Row | None:
    """Read one face; the picture is filled in by `_at`."""
    if not isinstance(face, dict):
        table.problem("bad-row", f"a face should be an object, got {face!r}", where)
        return None
    if face.get("ignore"):
        return None
    label = text_of(face.get(column, item.get(column)))
    if label is None:
        table.unlabelled += 1
        return None
    if problem := box_problem(face):
        table.problem("empty-box" if "is empty" in problem else "bad-row", problem, where)
        return None
    x1, y1, x2, y2 = map(float, face["box"])
    person = text_of(face.get("person", item.get("person")))
    return Row(where, Path(), label, (x1, y1, x2, y2), person, side)


def _at(row: Row, path: Path, item: dict[str, Any]) -> Row:
    size = (item.get("width"), item.get("height"))
    known = isinstance(size[0], int) and isinstance(size[1], int)
    size_wh = (int(size[0]), int(size[1])) if known else None  # type: ignore[arg-type]
    return Row(row.where, path, row.label, row.box, row.person, row.side, size_wh)


def text_of(value: object) -> str | None:
    """Return a JSON value as a label: text as it is, 1 as `1`, true as `true`; None for none."""
    if value is None or isinstance(value, (list, dict)):
        return None
    return value if isinstance(value, str) else json.dumps(value)
