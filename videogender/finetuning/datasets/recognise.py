"""Tells what form labelled data has, and reads it into one table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from videogender.dataset import FILE_NAME
from videogender.errors import TrainingError
from videogender.finetuning.datasets import coco, csv_table, jsonl_table, yolo
from videogender.finetuning.datasets.folders import class_folders, read_folders, subfolders
from videogender.finetuning.datasets.rows import Table, side_in_name, side_of

_EXPECTED = (
    "a CSV file (Image_Name,Gender), a folder for each class, faces.jsonl, a YOLO export with "
    "data.yaml or a COCO JSON file"
)

__all__ = ["read_table"]


@dataclass(frozen=True, slots=True)
class _Source:
    """A labels file or a folder of class folders, with the side that its name gives it."""

    form: str
    path: Path
    side: str | None = None


def read_table(data: Path, images: Path | None, label_column: str | None) -> Table:
    """Read labels of any form.

    Args:
        data: a labels file, or a folder.
        images: where the pictures are; None looks beside the labels and in `images/`.
        label_column: see the forms.

    Raises:
        TrainingError: if there is nothing, nothing that is known, or a file cannot be read.
    """
    if not data.exists():
        raise TrainingError(f"{data}: no such file or folder; expected {_EXPECTED}")
    if images is not None and not images.is_dir():
        raise TrainingError(f"{images}: no such folder of images (--images)")
    root = data if data.is_dir() else data.parent
    sources = _in_folder(data) if data.is_dir() else [_Source(_form_of_file(data), data)]
    tables = [_read(source, root, images, label_column) for source in sources]
    whole = tables[0]
    for table in tables[1:]:
        if table.column != whole.column:
            raise TrainingError(
                f"{data}: labels are in {whole.column} and in {table.column}; choose one with "
                "--label-column"
            )
        whole.rows += table.rows
        whole.problems += table.problems
        whole.unlabelled += table.unlabelled
        whole.looked_in += table.looked_in
    return whole


def _read(source: _Source, root: Path, images: Path | None, label_column: str | None) -> Table:
    path, side = source.path, source.side
    name = path.relative_to(root).as_posix()
    if images is not None and source.form in ("folders", "yolo"):
        raise TrainingError(f"{path}: says itself where its pictures are, leave out --images")
    if source.form == "folders":
        if label_column is not None:
            raise TrainingError(
                f"{path}: labels are the folders' names, there is no column {label_column!r}"
            )
        return read_folders(path, "" if path == root else f"{name}/", side=side)
    if source.form == "yolo":
        if label_column is not None:
            raise TrainingError(f"{path}: labels are YOLO's classes, leave out --label-column")
        return yolo.read_yolo(path, name, root)
    # CVAT puts the JSON in `annotations/`, COCO its pictures in a folder that is called as the side
    here = [path.parent, path.parent / "images"]
    if path.parent.name == "annotations":
        above = path.parent.parent
        here += [above / "images", above]
        here += [sub for sub in subfolders(above) if source.side and side_in_name(sub.name) == side]
    places = here if images is None else [images, *([images / side] if side else [])]
    readers: dict[str, Callable[..., Table]] = {
        "csv": csv_table.read_csv,
        "jsonl": jsonl_table.read_jsonl,
        "coco": coco.read_coco,
    }
    return readers[source.form](path, name, images=places, label_column=label_column, side=side)


def _form_of_file(path: Path) -> str:
    suffix = path.suffix.lower()
    forms = {"csv": csv_table.SUFFIXES, "jsonl": jsonl_table.SUFFIXES}
    forms |= {"yolo": yolo.SUFFIXES, "coco": coco.SUFFIXES}
    for form, suffixes in forms.items():
        if suffix in suffixes:
            return form
    raise TrainingError(f"{path}: not known as labelled data; expected {_EXPECTED}")


def _in_folder(folder: Path) -> list[_Source]:
    """Find the labels of a folder: its own files first, then `train/`, `val/`, then classes."""
    found = _files(folder)
    if found:
        return found
    sides = {sub: side for sub in subfolders(folder) if (side := side_of(sub.name))}
    if "train" in sides.values() and len(set(sides.values())) > 1:
        for sub, side in sides.items():
            inner = _files(sub) or ([_Source("folders", sub)] if class_folders(sub) else [])
            found += [_Source(source.form, source.path, side) for source in inner]
        if len({source.form for source in found}) > 1:
            raise TrainingError(f"{folder}: its parts are labelled in different ways; name one")
        if found:
            return found
    classes = class_folders(folder)
    if {"images", "labels"} <= {sub.name for sub in subfolders(folder)}:
        raise TrainingError(f"{folder}: looks like a YOLO export, but its data.yaml is missing")
    if not classes:
        raise TrainingError(f"{folder}: holds no labelled pictures; expected {_EXPECTED}")
    return [_Source("folders", folder)]


def _files(folder: Path) -> list[_Source]:
    """Find the labels files of a folder; several of a form must be called by their sides."""
    files = sorted(path for path in folder.iterdir() if path.is_file())

    def ending(suffixes: tuple[str, ...], among: list[Path] | None = None) -> list[Path]:
        return [p for p in (files if among is None else among) if p.suffix.lower() in suffixes]

    if (folder / FILE_NAME).is_file():
        return [_Source("jsonl", folder / FILE_NAME)]
    if lines := ending(jsonl_table.SUFFIXES):
        return _by_side("jsonl", lines)
    if exports := [path for path in ending(yolo.SUFFIXES) if yolo.is_yolo(path)]:
        return [_Source("yolo", next((p for p in exports if p.stem == "data"), exports[0]))]
    annotations = folder / "annotations"
    inner = sorted(annotations.iterdir()) if annotations.is_dir() else []
    jsons = [path for path in ending(coco.SUFFIXES, files + inner) if coco.is_coco(path)]
    if jsons:
        return _by_side("coco", jsons)
    tables = [p for p in ending((".csv", ".tsv")) if csv_table.has_images(p)]
    return _by_side("csv", tables) if tables else []


def _by_side(form: str, paths: list[Path]) -> list[_Source]:
    if len(paths) == 1:
        return [_Source(form, paths[0])]
    sides = {path: side_in_name(path.stem) for path in paths}
    if None in sides.values() or len(set(sides.values())) < len(paths):
        names = ", ".join(path.name for path in paths[:5])
        raise TrainingError(f"{paths[0].parent}: holds several labels files ({names}); name one")
    return [_Source(form, path, side) for path, side in sides.items()]
