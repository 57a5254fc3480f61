"""Everything that `videogender eval gender` says of a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from videogender.evaluation.bootstrap import Interval
from videogender.evaluation.calibration import (
    LADDER,
    Band,
    Bin,
    answered,
    calibration_interval,
    coverage_and_accuracy,
    reliability,
)
from videogender.evaluation.gender import GenderAnswers
from videogender.evaluation.groups import (
    AGES,
    Gap,
    Group,
    by_age,
    by_label,
    by_size,
    gender_gap,
    span_name,
    worst_gap,
)
from videogender.evaluation.plain import plain

LEAST_AGE = 13.0

__all__ = ["LEAST_AGE", "GenderResult", "gender_result"]


@dataclass(frozen=True, slots=True)
class GenderResult:
    """How well a model tells presented gender.

    Attributes:
        name: of the model.
        least_age: faces of this age or more, or of unknown age, are what all figures are over,
            those of `younger` and `ages` apart.
        all: over these faces.
        younger: over the others, or None.
        sizes, ages: groups by height at a long side of 640, and by age.
        labels: groups by what the labels call race, skin and age_group, by key.
        gaps: between the groups of a key, where at least two are large enough.
        gender_gap: between women and men.
        calibration_interval: 95 % interval of the expected calibration error.
        bins: what was said and what was true.
        band: what the `unsure` band in force lets through.
        ladder: threshold, coverage and accuracy as the band moves.
    """

    name: str
    least_age: float
    all: Group
    younger: Group | None
    sizes: list[Group]
    ages: list[Group]
    labels: dict[str, list[Group]]
    gaps: dict[str, Gap]
    gender_gap: Gap | None
    calibration_interval: Interval
    bins: list[Bin]
    band: Band
    ladder: list[tuple[float, float, float]]

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON holds it."""
        found = {
            "name": self.name,
            "least_age": self.least_age,
            "all": _group(self.all),
            "younger": _group(self.younger) if self.younger else None,
            "by_size": [_group(group) for group in self.sizes],
            "by_age": [_group(group) for group in self.ages],
            **{f"by_{key}": [_group(g) for g in groups] for key, groups in self.labels.items()},
            "gaps": {key: _gap(gap) for key, gap in self.gaps.items()},
            "gap_women_men": _gap(self.gender_gap) if self.gender_gap else None,
            "calibration_error": self.all.figures.calibration_error,
            "calibration_error_interval": self.calibration_interval,
            "reliability": [
                {"from": b.low, "to": b.high, "faces": b.faces, "said": b.said, "true": b.true}
                for b in self.bins
            ],
            "band": {
                "unsure_below": self.band.unsure_below,
                "coverage": self.band.coverage,
                "coverage_interval": self.band.coverage_interval,
                "accuracy": self.band.accuracy,
                "accuracy_interval": self.band.accuracy_interval,
            },
            "coverage": [
                {"unsure_below": below, "coverage": covered, "accuracy": accuracy}
                for below, covered, accuracy in self.ladder
            ],
        }
        return plain(found)  # type: ignore[no-any-return]


def gender_result(
    name: str, answers: GenderAnswers, *, unsure_below: float, least_age: float = LEAST_AGE
) -> GenderResult:
    """Measure answers.

    Args:
        name: of the model.
        answers: heights as at a long side of 640.
        unsure_below: the band in force.
        least_age: younger faces are reported apart.
    """
    grown = np.isnan(answers.age) | (answers.age >= least_age)
    main, young = answers.select(grown), answers.select(~grown)
    gaps = {
        **{key: worst_gap(main, names) for key, names in main.groups.items()},
        "age": worst_gap(main, _age_names(main)),
    }
    return GenderResult(
        name,
        least_age,
        Group.of("all", main),
        Group.of(f"< {least_age:g} years", young) if len(young) else None,
        by_size(main),
        by_age(answers),
        {key: by_label(main, key) for key in main.groups},
        {key: gap for key, gap in gaps.items() if gap is not None},
        gender_gap(main),
        calibration_interval(main),
        reliability(main),
        answered(main, unsure_below),
        [(below, *coverage_and_accuracy(main, below)) for below in LADDER],
    )


def _age_names(answers: GenderAnswers) -> NDArray[np.str_]:
    """Return the group of each face by age, unnamed where it is unknown."""
    names = np.full(len(answers), "", "<U16")
    for low, high in AGES:
        names[(answers.age >= low) & (answers.age < high)] = span_name(low, high, "years")
    return names


def _group(group: Group) -> dict[str, Any]:
    figures = group.figures
    return {
        "name": group.name,
        "faces": figures.faces,
        "found": figures.found,
        "found_interval": group.found_interval,
        "accuracy": figures.accuracy,
        "accuracy_interval": figures.interval,
        "balanced_accuracy": group.balanced,
        "balanced_accuracy_interval": group.balanced_interval,
        "accuracy_female": figures.accuracy_female,
        "accuracy_male": figures.accuracy_male,
    }


def _gap(gap: Gap) -> dict[str, Any]:
    return {
        "width": gap.width,
        "interval": gap.interval,
        "best": gap.best,
        "worst": gap.worst,
        "groups_compared": gap.compared,
    }
