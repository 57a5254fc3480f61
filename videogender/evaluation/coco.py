"""COCO's annotation files, as far as faces need them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from videogender.dataset import Entry, box_problem
from videogender.errors import TrainingError
from videogender.finetuning.datasets.labels import gender_meant

# our keys but gender, where somebody added them
KEPT = ("age", "race", "skin", "age_group", "wider")
FACES = ("face", "faces")

__all__ = ["read_coco"]


def read_coco(path: Path) -> tuple[list[Entry], tuple[str, ...]]:
    """Read a COCO file: `images`, `annotations` with xywh boxes, perhaps `categories`.

    Of several categories those called face are taken, or all if each is face, unsure or a gender,
    as in what `annotate --coco` writes; an attribute `gender` goes first. `iscrowd` and `ignore`
    mark faces that count neither way. Pictures lie beside the file, or in `images/` beside it.

    Returns:
        the pictures, and notes for the user.

    Raises:
        TrainingError: if the file is not of this form; the message names what is wrong.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise TrainingError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise TrainingError(f"{path}: not JSON ({error})") from error
    images, annotations = (_list(path, content, key) for key in ("images", "annotations"))
    chosen = _face_categories(path, content)
    faces: dict[Any, list[dict[str, Any]]] = {}
    dropped = 0
    for number, annotation in enumerate(annotations):
        category = annotation.get("category_id")
        if chosen is not None and category not in chosen:
            continue
        gender = chosen[category] if chosen is not None else None
        face = _face(f"{path}: annotation {number}", annotation, gender)
        if face is None:
            dropped += 1
        else:
            faces.setdefault(annotation.get("image_id"), []).append(face)
    entries = [_entry(path, image, faces.pop(image.get("id"), [])) for image in images]
    if faces:
        raise TrainingError(f"{path}: annotations name the image {next(iter(faces))!r}, unlisted")
    if not entries:
        raise TrainingError(f"{path}: lists no images")
    return entries, (f"{dropped} empty boxes were left out",) if dropped else ()


def _list(path: Path, content: Any, key: str) -> list[dict[str, Any]]:
    found = content.get(key) if isinstance(content, dict) else None
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise TrainingError(f"{path}: not COCO JSON (expected a list of objects as `{key}`)")
    return found


def _face_categories(path: Path, content: dict[str, Any]) -> dict[Any, str | None] | None:
    """Return the gender of each category of faces, by id; None if there is only one category."""
    categories = content.get("categories") or []
    if not isinstance(categories, list) or not all(isinstance(c, dict) for c in categories):
        raise TrainingError(f"{path}: `categories` should be a list of objects")
    if len(categories) < 2:
        return None
    names = {c.get("id"): str(c.get("name", "")) for c in categories}
    genders = {key: gender_meant(name) for key, name in names.items()}
    faces = {key for key, name in names.items() if name.lower() in FACES}
    rest = {key for key, name in names.items() if not genders[key] and name.lower() != "unsure"}
    if rest <= faces:
        return genders
    if not faces:
        listed = ", ".join(sorted(names.values()))
        raise TrainingError(
            f"{path}: none of its categories is called face ({listed}), nor are all female, "
            "male or unsure"
        )
    return dict.fromkeys(faces)


def _face(where: str, annotation: dict[str, Any], gender: str | None) -> dict[str, Any] | None:
    """Return a face as our data files hold it, of this gender; None if its box is empty."""
    box = annotation.get("bbox")
    try:
        x, y, width, height = (float(value) for value in box)  # type: ignore[union-attr]
    except (TypeError, ValueError) as error:
        raise TrainingError(
            f"{where}: needs a `bbox` of four numbers [x, y, width, height], got {box!r}"
        ) from error
    if width <= 0 or height <= 0:
        return None
    face: dict[str, Any] = {"box": [x, y, x + width, y + height]}
    if problem := box_problem(face):
        raise TrainingError(f"{where}: {problem}")
    more = annotation.get("attributes")
    known = {**more, **annotation} if isinstance(more, dict) else annotation
    face |= {key: known[key] for key in KEPT if key in known}
    if gender := gender_meant(str(known.get("gender"))) or gender:
        face["gender"] = gender
    if annotation.get("iscrowd") or annotation.get("ignore"):
        face["ignore"] = True
    return face


def _entry(path: Path, image: dict[str, Any], faces: list[dict[str, Any]]) -> Entry:
    name, width, height = (image.get(key) for key in ("file_name", "width", "height"))
    if not isinstance(name, str):
        raise TrainingError(f"{path}: an image has no `file_name`")
    place = path.parent / name
    if not place.exists() and (path.parent / "images" / name).exists():
        place = path.parent / "images" / name
    if not isinstance(width, int) or not isinstance(height, int) or min(width, height) < 1:
        from videogender.evaluation.labelled import picture_size_wh

        width, height = picture_size_wh(place)
    return Entry(place, width, height, faces, {"source": name})
