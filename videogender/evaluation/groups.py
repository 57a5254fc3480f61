"""Accuracy by group: by size, race, skin, age; and the gap between the best and the worst."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from videogender.evaluation.bootstrap import Interval
from videogender.evaluation.gender import (
    UNNAMED,
    GenderAnswers,
    GenderFigures,
    gender_figures,
)
from videogender.evaluation.proportions import (
    Share,
    difference_interval,
    mean_interval,
    proportion_interval,
)

LEAST_FACES = 100  # a smaller group says little, and is not compared
UNCLEAR = ("", "not sure", "unknown", "unsure", "other")  # no groups of people

# heights in pixels once the picture has a long side of 640; the last two lie over one another
SIZES = ((0, 12), (12, 24), (24, 48), (48, math.inf), (24, math.inf))
AGES = ((0, 3), (3, 13), (13, 20), (20, 30), (30, 40), (40, 50), (50, 60), (60, 70), (70, math.inf))

__all__ = [
    "LEAST_FACES",
    "Gap",
    "Group",
    "by_age",
    "by_label",
    "by_size",
    "gender_gap",
    "span_name",
    "worst_gap",
]


@dataclass(frozen=True, slots=True)
class Group:
    """Some of the faces, and how well their gender is told.

    Attributes:
        name: of the group.
        figures: over its faces.
        balanced_interval: 95 % interval of the mean of both labels' accuracies.
        found_interval: of the share that is found.
    """

    name: str
    figures: GenderFigures
    balanced_interval: Interval
    found_interval: Interval

    @property
    def balanced(self) -> float:
        """Mean of the accuracies of women and men; NaN if one of them is missing."""
        return (self.figures.accuracy_female + self.figures.accuracy_male) / 2

    @classmethod
    def of(cls, name: str, answers: GenderAnswers) -> Group:
        """Measure some faces."""
        return cls(
            name,
            gender_figures(answers),
            mean_interval(*_by_gender(answers).values()),
            proportion_interval(int(answers.found.sum()), len(answers)),
        )


@dataclass(frozen=True, slots=True)
class Gap:
    """How far apart the accuracies of the best and the worst group are.

    Attributes:
        width: the difference.
        interval: the 95 % interval of the difference of these two groups; its lower end is
            negative where the worst may well be the better one.
        best, worst: names of the two groups.
        compared: how many groups were large enough.
    """

    width: float
    interval: Interval
    best: str
    worst: str
    compared: int


def by_label(answers: GenderAnswers, key: str) -> list[Group]:
    """Return the groups of a key of the labels, by name."""
    names = answers.groups[key]
    return [
        Group.of(name, answers.select(names == name))
        for name in np.unique(names).tolist()
        if name != UNNAMED
    ]


def by_size(answers: GenderAnswers) -> list[Group]:
    """Return the groups by height, which the answers should hold at a long side of 640."""
    return list(_by_number(answers, answers.height, SIZES, "px"))


def by_age(answers: GenderAnswers) -> list[Group]:
    """Return the groups by age in years."""
    return list(_by_number(answers, answers.age, AGES, "years"))


def worst_gap(answers: GenderAnswers, names: NDArray[np.str_]) -> Gap | None:
    """Compare the accuracies of groups, over the found faces of each.

    Args:
        answers: N faces.
        names: [N], the group of each.

    Returns:
        None if fewer than two groups hold `LEAST_FACES` found faces.
    """
    all_names, counts = np.unique(names[answers.found], return_counts=True)
    large = [
        str(name)
        for name, count in zip(all_names, counts, strict=True)
        if count >= LEAST_FACES and str(name).lower() not in UNCLEAR
    ]
    if len(large) < 2:
        return None
    return _gap({name: _accuracy(answers, names == name) for name in large})


def gender_gap(answers: GenderAnswers) -> Gap | None:
    """Compare women and men, however few."""
    shares = _by_gender(answers)
    return _gap(shares) if all(share.count for share in shares.values()) else None


def span_name(low: float, high: float, unit: str) -> str:
    """Write a range of numbers: `24-48 px`, `>= 48 px`, `< 12 px`."""
    if math.isinf(high):
        return f">= {low:g} {unit}"
    return f"< {high:g} {unit}" if low == 0 else f"{low:g}-{high:g} {unit}"


def _by_number(
    answers: GenderAnswers,
    values: NDArray[np.float64],
    spans: tuple[tuple[float, float], ...],
    unit: str,
) -> Iterator[Group]:
    for low, high in spans:
        inside = (values >= low) & (values < high)
        if inside.any():
            yield Group.of(span_name(low, high, unit), answers.select(inside))


def _gap(shares: dict[str, Share]) -> Gap:
    """Return the gap between the best and the worst of groups, none of them empty."""
    best = max(shares, key=lambda name: shares[name].value)
    worst = min(reversed(shares), key=lambda name: shares[name].value)  # another one if all tie
    a, b = shares[best], shares[worst]
    return Gap(a.value - b.value, difference_interval(a, b), best, worst, len(shares))


def _by_gender(answers: GenderAnswers) -> dict[str, Share]:
    """Return the accuracies of women and men."""
    return {
        "women": _accuracy(answers, answers.is_female),
        "men": _accuracy(answers, ~answers.is_female),
    }


def _accuracy(answers: GenderAnswers, chosen: NDArray[np.bool_]) -> Share:
    """Return the share of some faces [N], as far as found, whose label is the likelier one."""
    found = answers.found & chosen
    right = found & ((answers.female >= 0.5) == answers.is_female)
    return Share(int(right.sum()), int(found.sum()))
