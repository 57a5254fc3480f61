"""What labelled data becomes: faces with a class, the problems met, and the sides of a split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from videogender.errors import TrainingError

SIDES = ("train", "val", "test")

__all__ = ["SIDES", "Labelled", "Picture", "Problem", "Sample", "Split", "raise_if"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled face.

    Attributes:
        path: the picture's file.
        box: xyxy in pixels of the upright picture, may reach past its edge; None: the whole
            picture shows one face, which is still to be found.
        label: index into the classes.
        person: who it is, for splitting only; never stored in weights or reports.
        where: the row it comes from, as `labels.csv:12`, for messages.
        width, height: the upright picture's size in pixels.
        side: `train`, `val` or `test` where the data says so.
    """

    path: Path
    box: tuple[float, float, float, float] | None
    label: int
    person: str | None
    where: str
    width: int
    height: int
    side: str | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with the data.

    Attributes:
        kind: a short slug, as `missing-file`.
        message: what is wrong and what became of it, without the place.
        where: file and row, as `labels.csv:12`; the data's name if it is about all of it.
    """

    kind: str
    message: str
    where: str


@dataclass(frozen=True, slots=True)
class Picture:
    """What was seen of a picture when it was decoded once.

    Attributes:
        width, height: upright, in pixels.
        digest: of the file's bytes; equal digests mean equal files.
        print: what pictures are compared by, see `likeness`; empty if nothing is to be seen on it.
    """

    width: int
    height: int
    digest: bytes
    print: bytes


@dataclass(frozen=True, slots=True)
class Labelled:
    """A data set as read.

    Attributes:
        samples: the usable faces, in the order of the data.
        classes: their names; (`female`, `male`) for gender, however the data spells it.
        form: `csv`, `folders`, `jsonl`, `yolo` or `coco`.
        problems: everything wrong with the rest, and suspicious in these.
        column: where the labels came from: a column, field or attribute; `folder` or `category`.
        name: what the data is called: its file's or folder's name.
        unlabelled: faces and pictures without a label, left out.
        pictures: what was seen of each file.
    """

    samples: list[Sample]
    classes: tuple[str, ...]
    form: str
    problems: list[Problem]
    column: str
    name: str = "data"
    unlabelled: int = 0
    pictures: Mapping[Path, Picture] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Split:
    """The sides of a data set; no picture, near-duplicate or known person is on two of them.

    Attributes:
        train, val, test: the samples of each side, in the order of the data.
        by: what was kept together: `person`, `file`, or `given` where the data has its own sides.
        alike: groups of near-duplicate pictures, each kept on one side.
        groups: a number for each picture; those that show the same, or the same known person, have
            the same one, whatever `by` is.
    """

    train: list[Sample]
    val: list[Sample]
    test: list[Sample]
    by: str
    alike: int = 0
    groups: Mapping[Path, int] = field(default_factory=dict, repr=False)


def raise_if(problems: list[Problem]) -> None:
    """Refuse data with problems, for `--strict`.

    Raises:
        TrainingError: if there is any problem; names the first one's place, and counts the rest.
    """
    if not problems:
        return
    first = problems[0]
    more = f" (and {len(problems) - 1} more problems)" if len(problems) > 1 else ""
    raise TrainingError(
        f"{first.where}: {first.message}{more}; correct them, or leave out --strict"
    )
