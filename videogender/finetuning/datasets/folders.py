"""A folder for each class, with pictures of one face each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from videogender.finetuning.datasets.rows import Row, Table
from videogender.sources import IMAGE_SUFFIXES

__all__ = ["class_folders", "read_folders", "subfolders"]


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder, but hidden ones, by name."""
    return sorted(
        Path(entry.path)
        for entry in os.scandir(folder)
        if entry.is_dir() and not entry.name.startswith((".", "__"))
    )


def class_folders(folder: Path) -> list[Path]:
    """Return the subfolders that hold pictures, at any depth."""
    return [sub for sub in subfolders(folder) if next(_pictures(sub), None) is not None]


def read_folders(folder: Path, prefix: str, *, side: str | None) -> Table:
    """Read a folder of class folders.

    Folders below a class folder, if there are any, are taken for a person each; those of one name
    below several classes, for the same person.

    Args:
        folder: holds `female/`, `male/` or other classes.
        prefix: how its name begins in messages, as `train/`; empty for the data itself.
        side: of all its pictures.
    """
    table = Table("folders", "folder", looked_in=[folder])
    for class_folder in subfolders(folder):
        empty = True
        for path in _pictures(class_folder):
            empty = False
            below = path.relative_to(folder)
            person = "/".join(below.parts[1:-1]) or None
            where = f"{prefix}{below.as_posix()}"
            table.rows.append(Row(where, path, class_folder.name, None, person, side))
        if empty:
            where = f"{prefix}{class_folder.name}"
            table.problem("empty-class", "the folder holds no pictures", where)
    return table


def _pictures(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith((".", "__")))
        for name in sorted(files):
            if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not name.startswith("."):
                yield Path(place, name)
