"""What every form is read into: rows with a label, not yet checked against the pictures."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from videogender.finetuning.datasets.sample import Problem
from videogender.sources import IMAGE_SUFFIXES

Box = tuple[float, float, float, float]

_SIDE_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
PERSON_NAMES = ("person", "personid", "identity", "subject", "subjectid", "tags", "tag")

__all__ = [
    "PERSON_NAMES",
    "Box",
    "Finder",
    "Row",
    "Table",
    "plain",
    "side_in_name",
    "side_of",
]


@dataclass(frozen=True, slots=True)
class Row:
    """One labelled face as the data states it.

    Attributes:
        where: file and row, for messages.
        path: the picture.
        label: its class in the data's own spelling.
        box: xyxy, in pixels or, if `relative`, in shares of width and height; None: no box.
        person: who it is, where known.
        side: `train`, `val` or `test`, where the data says so.
        size_wh: what the data says of the upright picture's size in pixels, if it does.
        relative: see `box`.
    """

    where: str
    path: Path
    label: str
    box: Box | None = None
    person: str | None = None
    side: str | None = None
    size_wh: tuple[int, int] | None = None
    relative: bool = False


@dataclass(slots=True)
class Table:
    """The rows of one labels file or folder.

    Attributes:
        form: `csv`, `folders`, `jsonl`, `yolo` or `coco`.
        column: where the labels came from.
        rows: labelled faces whose picture exists.
        problems: what is wrong with the others.
        unlabelled: faces that carry no label, which these forms allow.
        looked_in: folders in which pictures were looked for, for messages.
    """

    form: str
    column: str
    rows: list[Row] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    unlabelled: int = 0
    looked_in: list[Path] = field(default_factory=list)

    def problem(self, kind: str, message: str, where: str) -> None:
        """Note a problem."""
        self.problems.append(Problem(kind, message, where))


class Finder:
    """Finds pictures by the names that labels give them, each folder listed only once.

    Args:
        bases: folders in which to look, the first that has the name wins.
    """

    def __init__(self, bases: list[Path]) -> None:
        self.bases = list(dict.fromkeys(bases))
        self._listings: dict[Path, dict[str, list[str]]] = {}

    def find(self, name: str, table: Table, where: str) -> Path | None:
        """Return the picture, or note in the table why there is none.

        Args:
            name: a file name or relative path, with or without its extension.
            table: where a missing or ambiguous file is noted.
            where: file and row, for the note.
        """
        relative = PurePosixPath(name.strip().replace("\\", "/"))
        if not relative.name:
            table.problem("missing-file", "the row names no picture", where)
            return None
        for base in self.bases:
            folder = base / relative.parent
            found = self._listing(folder).get(relative.name.casefold(), [])
            found = [relative.name] if relative.name in found else found
            if len(found) > 1:
                several = " and ".join(found[:3])
                table.problem("ambiguous-file", f"{name} may be {several}; left out", where)
                return None
            if found:
                return folder / found[0]
        table.problem("missing-file", f"no picture {name}", where)
        return None

    def _listing(self, folder: Path) -> dict[str, list[str]]:
        """Return file names by name and by name without extension, letter case folded."""
        if folder not in self._listings:
            listing: dict[str, list[str]] = {}
            try:
                names = sorted(os.listdir(folder))
            except (OSError, ValueError):  # a name with a null byte is a ValueError
                names = []
            for name in names:
                stem, suffix = os.path.splitext(name)
                if suffix.lower() in IMAGE_SUFFIXES:
                    listing.setdefault(name.casefold(), []).append(name)
                    listing.setdefault(stem.casefold(), []).append(name)
            self._listings[folder] = listing
        return self._listings[folder]


def side_of(name: str) -> str | None:
    """Return the side that a folder or value names: `Valid` is `val`."""
    return _SIDE_NAMES.get(name.strip().casefold())


def side_in_name(stem: str) -> str | None:
    """Return the side that a file's name mentions, as `fairface_label_train` or `val2017`."""
    words = "".join(c if c.isalpha() else " " for c in stem).split()
    sides = {side for word in words if (side := side_of(word))}
    return sides.pop() if len(sides) == 1 else None


def plain(name: str) -> str:
    """Fold a column's name for comparison: `Image_Name` is `imagename`."""
    return "".join(c for c in name.casefold() if c.isalnum())
