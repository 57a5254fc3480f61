"""Which faces a step looks at, in which view and by which anchors: drawn from seed and epoch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from videogender.errors import TrainingError
from videogender.finetuning.bank import Bank
from videogender.finetuning.settings import FinetuneSettings

__all__ = ["Epoch", "Plan", "Step"]


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """The rows of one global batch.

    Attributes:
        face: int64 [N], whose each is; level, place: int64 [N], where its patch stands in the bank.
        weight: float32 [N]; the rows of a face share its weight.
        faces: how many different ones there are.
    """

    face: NDArray[np.int64]
    level: NDArray[np.int64]
    place: NDArray[np.int64]
    weight: NDArray[np.float32]
    faces: int


class Plan:
    """How the training faces of a bank are gone through.

    Args:
        bank: features.
        labels: int64 [S], the class of each face of the bank.
        train: indices of the faces to learn from.
        classes: C.
        settings: batch, anchors a face, balance, seed.

    Attributes:
        train: those of them that have features.
        class_weight: float64 [C], of a face by its class; over all training faces it averages 1.

    Raises:
        TrainingError: none of the faces has features.
    """

    def __init__(
        self,
        bank: Bank,
        labels: NDArray[np.int64],
        train: NDArray[np.int64],
        classes: int,
        settings: FinetuneSettings,
    ) -> None:
        self.bank, self.labels, self.settings = bank, labels, settings
        views = bank.count(train[:, None], np.arange(bank.views)[None]) > 0  # [F, V]
        self.train, self.views = train[views.any(1)], views[views.any(1)]
        if not len(self.train):
            raise TrainingError("no training face was found in its picture: nothing to learn from")
        counts = np.bincount(labels[self.train], minlength=classes)
        self.class_weight = np.ones(len(counts))
        if settings.loss.balance:
            self.class_weight = len(self.train) / np.maximum(counts, 1) / (counts > 0).sum()

    @property
    def steps(self) -> int:
        """Steps that one pass over the training faces takes."""
        return math.ceil(len(self.train) / self.settings.batch)

    def epoch(self, number: int) -> Epoch:
        """Draw an epoch."""
        return Epoch(self, np.random.default_rng([self.settings.seed, number]))

    def unseen_levels(self) -> set[int]:
        """Return the levels on which no training face has an anchor."""
        rows = self.bank.rows
        owner = np.repeat(np.arange(len(rows.first) - 1), np.diff(rows.first)) // self.bank.views
        trained = np.isin(owner, self.train)
        return set(range(len(self.bank.shapes))) - set(rows.level[trained].tolist())


class Epoch:
    """One pass over the training faces; each is shown once, in one of the views that it has.

    Args:
        plan: what is gone through.
        draw: random numbers.
    """

    def __init__(self, plan: Plan, draw: np.random.Generator) -> None:
        self._plan = plan
        rows, most = plan.bank.rows, plan.settings.anchors
        order = draw.permutation(len(plan.train))
        self._face = plan.train[order]
        allowed = plan.views[order]
        view = (draw.random(allowed.shape) * allowed).argmax(1)
        key = self._face * plan.bank.views + view
        self._first, count = rows.first[key], rows.first[key + 1] - rows.first[key]
        # so many different anchors of each face, or all that it has
        chance = draw.random((len(order), int(count.max())))
        chance[np.arange(chance.shape[1])[None] >= count[:, None]] = 2.0
        self._picked = np.argsort(chance, 1, kind="stable")[:, :most]
        self._taken = np.minimum(count, most)

    def step(self, number: int) -> Step:
        """Return what a step looks at."""
        plan, rows = self._plan, self._plan.bank.rows
        part = slice(number * plan.settings.batch, (number + 1) * plan.settings.batch)
        picked, taken = self._picked[part], self._taken[part]
        used = np.arange(picked.shape[1])[None] < taken[:, None]
        at = (self._first[part][:, None] + picked)[used]
        face = np.repeat(self._face[part], taken)
        weight = plan.class_weight[plan.labels[face]] / np.repeat(taken, taken)
        return Step(face, rows.level[at], rows.place[at], weight.astype(np.float32), len(taken))
