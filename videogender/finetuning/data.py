"""Labelled faces as arrays: the class of each, and on which side of the split it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from videogender.finetuning.datasets import (
    Labelled,
    Sample,
    Split,
    raise_if,
    read_labelled,
    split,
    summary,
)
from videogender.finetuning.settings import FinetuneSettings

EXAMPLES = 5  # of each kind of problem

__all__ = ["Data", "read_data"]


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """A data set that can be learned from.

    Attributes:
        labelled, split: as `datasets` gives them.
        samples: those of all sides, in the order of the data.
        labels: int64 [S], the class of each.
        train, val, test: int64, indices into the samples.
    """

    labelled: Labelled
    split: Split
    samples: list[Sample]
    labels: NDArray[np.int64]
    train: NDArray[np.int64]
    val: NDArray[np.int64]
    test: NDArray[np.int64]

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self.labelled.classes

    @property
    def judged(self) -> tuple[str, NDArray[np.int64]]:
        """The side that final figures are told of: its name, and its faces."""
        return ("test", self.test) if len(self.test) else ("val", self.val)

    def groups(self) -> NDArray[np.int64]:
        """Return a number [S] for each sample; equal ones belong together, see `Split.groups`."""
        numbers: dict[int, int] = {}
        keys = [self.split.groups[sample.path] for sample in self.samples]
        return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)

    def persons(self) -> NDArray[np.int64]:
        """Return a number [S] for each sample's person; the unknown have one of their own each."""
        numbers: dict[str | int, int] = {}
        keys = [s.person if s.person is not None else i for i, s in enumerate(self.samples)]
        return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)

    def facts(self) -> dict[str, Any]:
        """Return what weights may record: counts and class names, no paths, no persons."""
        return summary(self.labelled, self.split)

    def described(self) -> dict[str, Any]:
        """Return what the report tells of the data."""
        labelled = self.labelled
        sides = {}
        for name in ("train", "val", "test"):
            side: list[Sample] = getattr(self.split, name)
            counts = np.bincount([s.label for s in side], minlength=len(self.classes))
            people = {s.person for s in side if s.person is not None}
            sides[name] = {
                "images": len({s.path for s in side}),
                "faces": len(side),
                "people": len(people) or None,
                "labels": dict(zip(self.classes, counts.tolist(), strict=True)),
            }
        problems: dict[str, list[str]] = {}
        for problem in labelled.problems:
            problems.setdefault(problem.kind, []).append(f"{problem.where}: {problem.message}")
        return {
            "sources": [f"{labelled.name} ({labelled.form}, {labelled.column})"],
            "splits": sides,
            "split_by": self.split.by,
            "problems": [
                {"what": kind, "count": len(texts), "examples": texts[:EXAMPLES]}
                for kind, texts in sorted(problems.items(), key=lambda item: -len(item[1]))
            ],
        }


def read_data(
    path: Path,
    images: Path | None,
    label_column: str | None,
    settings: FinetuneSettings,
    *,
    strict: bool = False,
) -> Data:
    """Read and split a data set.

    Args:
        path, images, label_column: see `datasets.read_labelled`.
        settings: shares of the split, seed, workers.
        strict: whether anything wrong with the data is an error.

    Raises:
        TrainingError: nothing can be learned from it, or it is not flawless and should be.
    """
    labelled = read_labelled(
        path, images=images, label_column=label_column, workers=settings.workers
    )
    want = settings.split
    sides = split(
        labelled,
        val_share=want.val,
        test_share=want.test,
        seed=settings.seed,
        by=want.by,
        problems=labelled.problems,
    )
    if strict:
        raise_if(labelled.problems)
    of_side = {
        id(s): n for n, name in enumerate(("train", "val", "test")) for s in _of(sides, name)
    }
    samples = [sample for sample in labelled.samples if id(sample) in of_side]
    side = np.array([of_side[id(sample)] for sample in samples])
    labels = np.array([sample.label for sample in samples], np.int64)
    parts = (np.flatnonzero(side == n) for n in range(3))
    return Data(labelled, sides, samples, labels, *parts)


def _of(sides: Split, name: str) -> list[Sample]:
    found: list[Sample] = getattr(sides, name)
    return found
