"""What other networks say of the faces: which the labels miss, and how sure one is of a gender."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from videogender.dataset import Entry, box_problem, read_lines
from videogender.errors import TrainingError
from videogender.network.boxes import iou_matrix

SAME_FACE_IOU = 0.5

__all__ = ["add_chances", "add_ignored"]

Mark = dict[str, Any]


def add_ignored(
    entries: Sequence[Entry], path: str | Path, least_score: float = 0.6, most_iou: float = 0.2
) -> int:
    """Mark faces that another detector sees and the labels miss as `ignore`.

    Args:
        entries: the data, changed in place.
        path: JSON Lines of `{"image", "faces": [{"box", "score"}]}`; images by their paths from
            this file, or else by their names, where no other image has that name.
        least_score: weaker marks are not used.
        most_iou: a mark that overlaps a labelled face more than this is that face.

    Returns:
        How many faces were marked.

    Raises:
        TrainingError: if the file cannot be read, a line is not as it should be, or it is about
            none of these images.
    """

    def add(entry: Entry, marks: Sequence[Mark]) -> int:
        seen = [m for m in marks if m["score"] >= least_score]
        is_new = (iou_matrix(_boxes(seen), _boxes(entry.faces)) <= most_iou).all(1).tolist()
        new = [m for m, is_one in zip(seen, is_new, strict=True) if is_one]
        entry.faces.extend({"box": m["box"], "ignore": True} for m in new)
        return len(new)

    return _apply(entries, path, "score", add)


def add_chances(entries: Sequence[Entry], path: str | Path) -> int:
    """Give faces the chance, by another network's word, that they present as female.

    Args:
        entries: the data, changed in place: faces get a key `female`.
        path: JSON Lines of `{"image", "faces": [{"box", "female"}]}`, from 0 to 1; see
            `add_ignored`.

    Returns:
        How many faces have one.

    Raises:
        TrainingError: as `add_ignored`, and if a chance is not one.
    """

    def add(entry: Entry, marks: Sequence[Mark]) -> int:
        if not marks or not entry.faces:
            return 0
        overlap, which = iou_matrix(_boxes(entry.faces), _boxes(marks)).max(1)
        count = 0
        for face, iou, mark in zip(entry.faces, overlap.tolist(), which.tolist(), strict=True):
            if iou >= SAME_FACE_IOU and not face.get("ignore", False):
                face["female"] = float(marks[mark]["female"])
                count += 1
        return count

    return _apply(entries, path, "female", add)


def _apply(
    entries: Sequence[Entry],
    path: str | Path,
    key: str,
    add: Callable[[Entry, Sequence[Mark]], int],
) -> int:
    """Read marks, bring them to the pictures they are about, and return how many counted."""
    path = Path(path)
    marks: dict[Path, list[Mark]] = {}
    for where, item in read_lines(path):
        image, faces = item.get("image"), item.get("faces")
        if not isinstance(image, str) or not isinstance(faces, list):
            raise TrainingError(f"{where}: expected `image` and a list of `faces`")
        for face in faces:
            if problem := box_problem(face) or _problem(face, key):
                raise TrainingError(f"{where}: {problem}")
        marks[_plain(path.parent / image)] = faces
    pictures = [_plain(entry.path) for entry in entries]
    by_name = {place.name: marks[place] for place in _alone(marks)}
    may_go_by_name = _alone(pictures)
    added = matched = 0
    for entry, place in zip(entries, pictures, strict=True):
        found = marks.get(place)
        if found is None and place in may_go_by_name:
            found = by_name.get(place.name)
        if found is not None:
            matched += 1
            added += add(entry, found)
    if not matched:
        raise TrainingError(f"{path}: names none of the training pictures, so it marks nothing")
    return added


def _plain(path: Path) -> Path:
    """Return an absolute path without `..`, by which one picture is known."""
    return Path(os.path.abspath(path))


def _alone(paths: Iterable[Path]) -> set[Path]:
    """Return the paths whose names no other one has."""
    all_paths = set(paths)
    names = Counter(path.name for path in all_paths)
    return {path for path in all_paths if names[path.name] == 1}


def _problem(mark: Mark, key: str) -> str | None:
    value = mark.get(key)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return f"a mark needs a `{key}`, got {value!r}"
    if not 0 <= value <= 1:
        return f"`{key}` should be from 0 to 1, got {value!r}"
    return None


def _boxes(faces: Sequence[Mark]) -> Tensor:
    return torch.tensor([f["box"] for f in faces], dtype=torch.float32).reshape(-1, 4)
