"""Figures of zones and lines, and what they say of one frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from videogender.frames import Label
from videogender.zones.plan import Plan, Points

__all__ = ["GROUPS", "LABELS", "Tallies", "Whereabouts", "label_columns"]

LABELS: tuple[Label, ...] = ("female", "male", "unsure")
GROUPS = ("all", *LABELS)
# What `Tallies` add up.
_SUMS = ("appearances", "entries", "exits", "dwell", "crossed_in", "crossed_out")


@dataclass(frozen=True, slots=True, eq=False)
class Whereabouts:
    """What zones and lines say of one frame.

    Attributes:
        plan: the Z zones and L lines, in pixels of the frame.
        inside: bool [N, Z], which zones each face is in.
        crossed: int [L, 2], faces that went over each line so far, in and out; None while faces
            are not followed.
    """

    plan: Plan
    inside: NDArray[np.bool_]
    crossed: NDArray[np.int64] | None

    @property
    def counts(self) -> list[int]:
        """Faces in each zone now."""
        return [int(count) for count in self.inside.sum(0)]

    def now(self, labels: Sequence[Label]) -> list[dict[str, int]]:
        """Return how many faces are in each zone now, of all and of each label.

        Args:
            labels: of the N faces.
        """
        columns = label_columns(labels)
        by_label = [self.inside[columns == column].sum(0) for column in range(len(LABELS))]
        counts = np.stack([self.inside.sum(0), *by_label], 1)
        return [dict(zip(GROUPS, row, strict=True)) for row in counts.tolist()]

    def names(self) -> list[list[str]]:
        """Return the names of the zones that each face is in."""
        zones = self.plan.zone_names
        return [
            [name for name, is_in in zip(zones, row, strict=True) if is_in]
            for row in self.inside.tolist()
        ]


def label_columns(labels: Sequence[Label]) -> NDArray[np.int64]:
    """Return the column of each label in tallies, [N]."""
    return np.array([LABELS.index(label) for label in labels], np.int64)


@dataclass(slots=True, eq=False)
class Tallies:
    """Counts by label: [Z, 3] of zones, [L, 3] of lines; peaks [Z, 4] are of all faces first.

    Attributes:
        is_tracked: only `dwell` and `peak` count otherwise.
    """

    plan: Plan
    is_tracked: bool = True
    appearances: NDArray[np.int64] = field(init=False)
    entries: NDArray[np.int64] = field(init=False)
    exits: NDArray[np.int64] = field(init=False)
    dwell: NDArray[np.float64] = field(init=False)
    peak: NDArray[np.int64] = field(init=False)
    crossed_in: NDArray[np.int64] = field(init=False)
    crossed_out: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        zones, lines = len(self.plan.zones), len(self.plan.lines)
        for name in ("appearances", "entries", "exits"):
            setattr(self, name, np.zeros((zones, 3), np.int64))
        self.dwell = np.zeros((zones, 3))
        self.peak = np.zeros((zones, 4), np.int64)
        self.crossed_in = np.zeros((lines, 3), np.int64)
        self.crossed_out = np.zeros((lines, 3), np.int64)

    def copy(self) -> Tallies:
        """Return the same counts, which go on by themselves."""
        found = Tallies(self.plan, self.is_tracked)
        for name in (*_SUMS, "peak"):
            setattr(found, name, getattr(self, name).copy())
        return found

    def since(self, before: Tallies) -> Tallies:
        """Return what was counted since `before` was copied from these; peaks stay as they are."""
        found = self.copy()
        for name in _SUMS:
            setattr(found, name, getattr(self, name) - getattr(before, name))
        return found

    def figures(self) -> dict[str, Any]:
        """Return what the package's docstring describes, ready for JSON."""
        plan = self.plan
        return {
            "zones": [
                {"name": name, "points": _points(points), **self._zone(row)}
                for row, (name, points) in enumerate(zip(plan.zone_names, plan.zones, strict=True))
            ],
            "lines": [
                {"name": name, "points": _points(points), **self._line(row)}
                for row, (name, points) in enumerate(zip(plan.line_names, plan.lines, strict=True))
            ],
        }

    def _zone(self, row: int) -> dict[str, Any]:
        peak = [int(count) for count in self.peak[row]]
        dwell, appearances = _with_all(self.dwell[row]), _with_all(self.appearances[row])
        means = [a / b if b else None for a, b in zip(dwell, appearances, strict=True)]
        return {
            "appearances": self._by_label(appearances),
            "entries": self._by_label(_with_all(self.entries[row])),
            "exits": self._by_label(_with_all(self.exits[row])),
            "dwell_seconds": _by_label([round(seconds, 3) for seconds in dwell]),
            "mean_dwell_seconds": self._by_label([x if x is None else round(x, 3) for x in means]),
            "peak": _by_label(peak),
        }

    def _line(self, row: int) -> dict[str, Any]:
        return {
            "in": self._by_label(_with_all(self.crossed_in[row])),
            "out": self._by_label(_with_all(self.crossed_out[row])),
        }

    def _by_label(self, values: Sequence[float | None]) -> dict[str, float | None] | None:
        return _by_label(values) if self.is_tracked else None


def _with_all(values: NDArray[Any]) -> list[Any]:
    return [values.sum().item(), *values.tolist()]


def _by_label(values: Sequence[float | None]) -> dict[str, float | None]:
    return dict(zip(GROUPS, values, strict=True))


def _points(points: Points) -> list[list[float]]:
    return [[round(x, 1) + 0.0, round(y, 1) + 0.0] for x, y in points]
