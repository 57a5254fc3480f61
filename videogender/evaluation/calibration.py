"""How far the probability of female can be believed, and what `unsure` costs and buys."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from videogender.evaluation.bootstrap import Interval, interval
from videogender.evaluation.gender import GenderAnswers, calibration_error
from videogender.evaluation.proportions import proportion_interval

BINS = 10
# thresholds of --unsure-below at which coverage is given
LADDER = tuple(round(0.5 + 0.01 * step, 2) for step in range(50))

__all__ = [
    "BINS",
    "LADDER",
    "Band",
    "Bin",
    "answered",
    "calibration_interval",
    "coverage_and_accuracy",
    "reliability",
]


@dataclass(frozen=True, slots=True)
class Bin:
    """Faces whose probability of female lies between two bounds.

    Attributes:
        low, high: the bounds.
        faces: how many.
        said: their mean probability.
        true: the share of them that are labelled female.
    """

    low: float
    high: float
    faces: int
    said: float
    true: float


@dataclass(frozen=True, slots=True)
class Band:
    """What an `unsure` band lets through.

    Attributes:
        unsure_below: least probability of the likelier label.
        coverage: share of the found faces that are given a label.
        accuracy: share of those whose label is right; NaN if there is none.
        coverage_interval, accuracy_interval: their 95 % intervals.
    """

    unsure_below: float
    coverage: float
    accuracy: float
    coverage_interval: Interval
    accuracy_interval: Interval


def reliability(answers: GenderAnswers) -> list[Bin]:
    """Return what was said and what was true, in bins of one width that hold faces."""
    female, truth = answers.female[answers.found], answers.is_female[answers.found]
    which = _bin_of(female)
    return [
        Bin(
            b / BINS,
            (b + 1) / BINS,
            int((which == b).sum()),
            float(female[which == b].mean()),
            float(truth[which == b].mean()),
        )
        for b in np.unique(which).tolist()
    ]


def calibration_interval(answers: GenderAnswers) -> Interval:
    """Return the 95 % interval of `gender.calibration_error`.

    Resampling adds noise to every bin, which raises the error, as drawing the set once has done
    already. So the quantiles of the bootstrap are reflected at the error that was found (the basic
    bootstrap), which itself stays in the interval.
    """
    female, truth = answers.female[answers.found], answers.is_female[answers.found]
    if not len(female):
        return (math.nan, math.nan)
    inside = _bin_of(female)[:, None] == np.arange(BINS)  # [N, BINS]
    excess = inside * (female - truth)[:, None]

    def error(times: NDArray[np.float64]) -> NDArray[np.float64]:
        # a bin's weight cancels the count in its mean
        total: NDArray[np.float64] = np.abs(times @ excess).sum(1) / len(female)
        return total

    low, high = interval(error, len(female))
    found = calibration_error(female, truth)
    return max(0.0, 2 * found - high), max(found, 2 * found - low)


def coverage_and_accuracy(answers: GenderAnswers, unsure_below: float) -> tuple[float, float]:
    """Return what a threshold lets through, as `answered` does, without intervals."""
    sure, right = _outcomes(answers, unsure_below)
    covered = float(sure.mean()) if len(sure) else math.nan
    return covered, float(right.sum() / sure.sum()) if sure.any() else math.nan


def answered(answers: GenderAnswers, unsure_below: float) -> Band:
    """Say how many found faces get a label at a threshold, and how many of the labels are right."""
    sure, right = _outcomes(answers, unsure_below)
    return Band(
        unsure_below,
        *coverage_and_accuracy(answers, unsure_below),
        proportion_interval(int(sure.sum()), len(sure)),
        proportion_interval(int(right.sum()), int(sure.sum())),
    )


def _outcomes(
    answers: GenderAnswers, unsure_below: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Tell for each found face whether it gets a label, and whether that is right."""
    female, truth = answers.female[answers.found], answers.is_female[answers.found]
    sure = np.maximum(female, 1 - female) >= unsure_below
    return sure, sure & ((female >= 0.5) == truth)


def _bin_of(probability: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the bin of each probability, as `gender.calibration_error` sorts them."""
    which: NDArray[np.int64] = np.minimum((probability * BINS).astype(np.int64), BINS - 1)
    return which
