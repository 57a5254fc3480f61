"""What is said of a data set: to whoever runs the training, and in the metadata of weights."""

from __future__ import annotations

import hashlib
import struct
from collections import Counter
from collections.abc import Iterable
from typing import Any

from videogender.errors import TrainingError
from videogender.finetuning.datasets.pictures import digest_all
from videogender.finetuning.datasets.sample import SIDES, Labelled, Problem, Sample, Split

_EXAMPLES = 3  # of each kind of problem
_LABELLED_IN = {"folders": "classes by folder", "yolo": "classes of a YOLO export"}

__all__ = ["content_key", "problem_lines", "summary", "summary_lines"]


def summary_lines(labelled: Labelled, split: Split, *, all_problems: bool = False) -> list[str]:
    """Describe data and split in plain text; see `problem_lines` for its problems."""
    pictures = len({sample.path for sample in labelled.samples})
    how = _LABELLED_IN.get(labelled.form, f"{labelled.form}, labels in {labelled.column}")
    lines = [f"{labelled.name}: {len(labelled.samples)} faces in {pictures} pictures ({how})"]
    if labelled.unlabelled:
        lines.append(f"{labelled.unlabelled} faces without a label are left out")
    lines += _table(labelled, split)
    lines.append(_split_line(split))
    return lines + problem_lines(labelled.problems, None if all_problems else _EXAMPLES)


def problem_lines(problems: list[Problem], most: int | None = _EXAMPLES) -> list[str]:
    """Count problems by kind, most frequent first, and name at most so many of each."""
    if not problems:
        return ["no problems found"]
    kinds: dict[str, list[Problem]] = {}
    for problem in problems:
        kinds.setdefault(problem.kind, []).append(problem)
    lines = [f"problems: {len(problems)}"]
    for kind, those in sorted(kinds.items(), key=lambda item: -len(item[1])):
        lines.append(f"  {kind}: {len(those)}")
        lines += [f"    {problem.where}: {problem.message}" for problem in those[:most]]
        if left := len(those[most:]) if most is not None else 0:
            lines.append(f"    and {left} more, which --dry-run names")
    return lines


def summary(labelled: Labelled, split: Split) -> dict[str, Any]:
    """Return what weights and reports may keep: counts and class names, no paths, no persons."""
    return {
        "name": labelled.name,
        "form": labelled.form,
        "label_column": labelled.column,
        "faces": len(labelled.samples),
        "pictures": len({sample.path for sample in labelled.samples}),
        "unlabelled": labelled.unlabelled,
        "classes": {
            name: {side: _counts(split, side)[label] for side in SIDES}
            for label, name in enumerate(labelled.classes)
        },
        "split_by": split.by,
        "persons": _persons(split),
        "look_alike_groups": split.alike,
        "problems": dict(Counter(problem.kind for problem in labelled.problems)),
    }


def content_key(samples: Iterable[Sample]) -> str:
    """Return a hash of what the samples show, for caches: pictures' bytes, boxes and labels.

    It depends on the samples' order, but not on where the files lie.

    Raises:
        TrainingError: if a picture cannot be read any more.
    """
    samples = list(samples)
    try:
        digests = digest_all(sample.path for sample in samples)
    except OSError as error:
        raise TrainingError(f"{error.filename}: cannot be read: {error.strerror}") from error
    key = hashlib.blake2b(digest_size=16)
    for sample in samples:
        key.update(digests[sample.path])
        key.update(struct.pack("<q?4d", sample.label, sample.box is None, *(sample.box or [0] * 4)))
    return key.hexdigest()


def _persons(split: Split) -> int:
    every = [*split.train, *split.val, *split.test]
    return len({sample.person for sample in every if sample.person is not None})


def _of(split: Split, side: str) -> list[Sample]:
    return {"train": split.train, "val": split.val, "test": split.test}[side]


def _counts(split: Split, side: str) -> Counter[int]:
    return Counter(sample.label for sample in _of(split, side))


def _table(labelled: Labelled, split: Split) -> list[str]:
    """Return a line a class, with its faces on each side."""
    counts = [_counts(split, side) for side in SIDES]
    rows: list[tuple[str, ...]] = [("", *SIDES)]
    rows += [
        (name, *(str(side[label]) for side in counts))
        for label, name in enumerate(labelled.classes)
    ]
    rows.append(("all", *(str(side.total()) for side in counts)))
    wide = max(len(row[0]) for row in rows)
    return [f"  {row[0]:<{wide}}" + "".join(f"{cell:>8}" for cell in row[1:]) for row in rows]


def _split_line(split: Split) -> str:
    persons = _persons(split)
    line = {
        "given": "sides as the data gives them",
        "person": f"split by person ({persons} known)",
        "file": "split by file",
    }[split.by]
    cut = [s for s in ("val", "test") if any(sample.side == "train" for sample in _of(split, s))]
    if split.by == "given" and cut:
        line += f"; {' and '.join(cut)} cut from training"
    if split.alike:
        line += f"; {split.alike} groups of look-alike pictures, each kept on one side"
    return line
