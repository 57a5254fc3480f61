"""Rows become samples: labels, boxes and pictures are checked, and every fault is named."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

from videogender.dataset import GENDERS
from videogender.errors import TrainingError
from videogender.finetuning.datasets.labels import Naming, name_classes
from videogender.finetuning.datasets.pictures import look_at_all
from videogender.finetuning.datasets.recognise import read_table
from videogender.finetuning.datasets.rows import Row, Table
from videogender.finetuning.datasets.sample import Labelled, Picture, Problem, Sample

TINY_CLASS = 10  # faces; fewer cannot be learned from and judged by
_LEAST_PX = 1.0  # sides of a box
_LEAST_INSIDE = 0.2  # share of a box; tight crops show less than half of some

__all__ = ["TINY_CLASS", "read_labelled", "tally"]


def read_labelled(
    data: Path, *, images: Path | None = None, label_column: str | None = None, workers: int = 0
) -> Labelled:
    """Read labelled faces of any form, and decode every picture once to check it.

    Args:
        data: a CSV file, a folder of class folders, JSON Lines, a YOLO or COCO export, or a folder
            that holds one of them, or `train/` and `val/` that do.
        images: where the pictures are, if not beside the labels or in `images/` there.
        label_column: column, field or attribute of the labels, if not the gender.
        workers: threads that decode; 0 for one a core, at most 8.

    Raises:
        TrainingError: if nothing can be learned from it: no labels, no pictures, one class.
    """
    data = Path(data)
    table = read_table(data, images, label_column)
    name = data.resolve().name
    if not table.rows:
        raise TrainingError(f"{data}: no labelled pictures{_why(table)}")
    naming = name_classes(table.column, Counter(row.label for row in table.rows))
    for kind, text in naming.notes:
        table.problem(kind, text, table.column)
    rows = [row for row in table.rows if _known(row, naming, table) and _has_area(row, table)]
    seen = look_at_all((row.path for row in rows), workers)
    samples = [s for row in rows if (s := _sample(row, naming, seen[row.path], table))]
    samples = _without_repeats(samples, naming.classes, table)
    _judge_classes(samples, naming.classes, data, table)
    if naming.classes == GENDERS and table.form != "folders":  # those may count persons anew
        _note_persons(samples, table)
    problems = _one_a_picture(table.problems)
    pictures = {path: p for path, p in seen.items() if isinstance(p, Picture)}
    return Labelled(
        samples,
        naming.classes,
        table.form,
        problems,
        table.column,
        name,
        table.unlabelled,
        pictures,
    )


def tally(problems: list[Problem]) -> str:
    """Count problems by kind, as `3 missing-file, 1 empty-box`."""
    counts = Counter(problem.kind for problem in problems)
    return ", ".join(f"{count} {kind}" for kind, count in counts.most_common())


def _known(row: Row, naming: Naming, table: Table) -> bool:
    if row.label in naming.index:
        return True
    expected = " or ".join(naming.classes) if len(naming.classes) < 4 else "a class"
    table.problem("unknown-label", f"{row.label!r} is not {expected}; left out", row.where)
    return False


def _has_area(row: Row, table: Table) -> bool:
    if row.box is None:
        return True
    x1, y1, x2, y2 = row.box
    if all(map(math.isfinite, row.box)) and x2 > x1 and y2 > y1:
        return True
    table.problem("empty-box", f"box {_text(row)} is empty; left out", row.where)
    return False


def _sample(row: Row, naming: Naming, seen: Picture | str, table: Table) -> Sample | None:
    """Fit the row to its picture, or note why that is impossible."""
    if isinstance(seen, str):
        text = f"{row.path.name} cannot be read as a picture ({seen})"
        table.problem("unreadable-image", text, row.where)
        return None
    width, height, box = seen.width, seen.height, row.box
    if row.size_wh not in (None, (width, height)):
        text = f"{row.path.name} has {width}x{height} pixels, the data says {row.size_wh}"
        table.problem("size-mismatch", text, row.where)
        return None
    if box is not None:
        if row.relative:
            box = (box[0] * width, box[1] * height, box[2] * width, box[3] * height)
        x1, y1, x2, y2 = box
        if min(x2 - x1, y2 - y1) < _LEAST_PX:
            text = f"box {_text(row)} is less than a pixel; left out"
            table.problem("empty-box", text, row.where)
            return None
        inside = max(0.0, min(x2, width) - max(x1, 0)) * max(0.0, min(y2, height) - max(y1, 0))
        if inside < _LEAST_INSIDE * (x2 - x1) * (y2 - y1):
            text = f"box {_text(row)} is outside of {row.path.name}, {width}x{height}; left out"
            table.problem("box-outside", text, row.where)
            return None
    label = naming.index[row.label]
    return Sample(row.path, box, label, row.person, row.where, width, height, row.side)


def _text(row: Row) -> str:
    return "(" + ", ".join(f"{value:g}" for value in row.box or ()) + ")"


def _without_repeats(samples: list[Sample], classes: tuple[str, ...], table: Table) -> list[Sample]:
    """Keep one of rows that say the same of a face, and none of rows that contradict each other."""
    faces: dict[object, list[Sample]] = {}
    for sample in samples:
        faces.setdefault((sample.path, sample.box), []).append(sample)
    kept: list[Sample] = []
    for same in faces.values():
        labels = {sample.label for sample in same}
        if len(labels) > 1:
            names = " and ".join(classes[label] for label in sorted(labels))
            others = ", ".join(s.where for s in same[1:4])
            text = f"{same[0].path.name} is called {names} (also {others}); left out"
            table.problem("two-labels", text, same[0].where)
            continue
        by_side: dict[str | None, Sample] = {}
        for sample in same:  # the same face on two sides is for the split to judge
            if (first := by_side.setdefault(sample.side, sample)) is not sample:
                text = f"says the same of {sample.path.name} as {first.where}; left out"
                table.problem("duplicate-row", text, sample.where)
        kept += by_side.values()
    return kept


def _judge_classes(
    samples: list[Sample], classes: tuple[str, ...], data: Path, table: Table
) -> None:
    counts = Counter(sample.label for sample in samples)
    if not samples:
        raise TrainingError(f"{data}: no usable faces{_why(table)}")
    if len(counts) == 1:
        (label,) = counts
        raise TrainingError(
            f"{data}: all {len(samples)} faces are {classes[label]} ({table.column}); telling "
            f"apart needs two classes{_why(table)}"
        )
    for label, name in enumerate(classes):
        if counts[label] == 0:
            table.problem("empty-class", f"no usable face is {name}", data.name)
        elif counts[label] < TINY_CLASS:
            text = f"only {counts[label]} faces are {name}; {TINY_CLASS} is the least that helps"
            table.problem("tiny-class", text, data.name)


def _note_persons(samples: list[Sample], table: Table) -> None:
    """Note persons under two genders; who they are stays in the data."""
    persons: dict[str, list[Sample]] = {}
    for sample in samples:
        if sample.person is not None:
            persons.setdefault(sample.person, []).append(sample)
    for same in persons.values():
        counts = Counter(sample.label for sample in same)
        if len(counts) > 1:
            rarer = min(counts, key=lambda label: (counts[label], label))
            odd = next(s for s in same if s.label == rarer)
            other = next(s for s in same if s.label != rarer)
            text = (
                f"the person is {GENDERS[rarer]} here and {GENDERS[1 - rarer]} in {other.where} "
                f"({counts[rarer]} against {counts[1 - rarer]} pictures)"
            )
            table.problem("person-two-genders", text, odd.where)


def _one_a_picture(problems: list[Problem]) -> list[Problem]:
    """Keep one problem of a picture with several faces, in place of one a face."""
    kept = {(p.kind, p.message) if p.kind == "unreadable-image" else id(p): p for p in problems}
    return list(kept.values())


def _why(table: Table) -> str:
    """Say what became of the rows, where there are none."""
    if not table.problems:
        return ""
    first = table.problems[0]
    text = f": {tally(table.problems)}, as {first.where}: {first.message}"
    if any(p.kind == "missing-file" for p in table.problems):
        folders = ", ".join(map(str, dict.fromkeys(table.looked_in)))
        text += f" in {folders}; say where the pictures are with --images"
    return text
