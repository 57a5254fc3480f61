"""How well presented gender is told: found rate, accuracy with its interval, calibration."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from videogender.evaluation.detection import MATCH_IOU, iou
from videogender.frames import Faces
from videogender.network.heads import FEMALE
from videogender.training.data import GENDER_INDEX, Entry

__all__ = ["GenderAnswers", "GenderFigures", "collect_answers", "fit_temperature", "gender_figures"]


@dataclass(frozen=True, slots=True)
class GenderAnswers:
    """Labelled faces beside what was said of them.

    Attributes:
        female: float64 [N], probability of female; NaN where the face was not found.
        is_female: bool [N], the label.
        height: float64 [N], face height in pixels of the stored image.
        age: float64 [N], years, NaN where unknown.
    """

    female: NDArray[np.float64]
    is_female: NDArray[np.bool_]
    height: NDArray[np.float64]
    age: NDArray[np.float64]

    def select(self, chosen: NDArray[np.bool_]) -> GenderAnswers:
        """Return the faces where `chosen` [N] is true."""
        return GenderAnswers(
            self.female[chosen], self.is_female[chosen], self.height[chosen], self.age[chosen]
        )


@dataclass(frozen=True, slots=True)
class GenderFigures:
    """Figures over found faces; see `gender_figures`."""

    faces: int
    found: float
    accuracy: float
    interval: tuple[float, float]
    accuracy_female: float
    accuracy_male: float
    calibration_error: float


def collect_answers(found: Iterable[tuple[Entry, Faces]]) -> GenderAnswers:
    """Pair every face of known gender with the detection that overlaps it best (IoU ≥ 0.5)."""
    rows: list[tuple[float, bool, float, float]] = []
    for entry, detections in found:
        for face in entry.faces:
            if face.get("gender") not in GENDER_INDEX or face.get("ignore", False):
                continue
            box = np.array([face["box"]], np.float32)
            # labels may reach past the picture's edge, where nothing can be seen
            seen = box.clip(0, [entry.width, entry.height, entry.width, entry.height])
            female = math.nan
            if len(detections):
                overlap = iou(seen.astype(np.float32), detections.boxes)[0]
                best = int(overlap.argmax())
                if overlap[best] >= MATCH_IOU:
                    female = float(detections.female[best])
            rows.append(
                (
                    female,
                    GENDER_INDEX[face["gender"]] == FEMALE,
                    float(box[0, 3] - box[0, 1]),
                    float(face.get("age", math.nan)),
                )
            )
    female, is_female, height, age = (np.array(c) for c in zip(*rows, strict=True)) if rows else (np.zeros(0),) * 4
    return GenderAnswers(female.astype(float), is_female.astype(bool), height.astype(float), age.astype(float))


def gender_figures(answers: GenderAnswers, resamples: int = 1000, seed: int = 0) -> GenderFigures:
    """Summarise answers.

    Accuracy counts found faces only and takes the likelier gender, however unsure. The interval is
    the 95 % bootstrap interval of accuracy.
    """
    asked = ~np.isnan(answers.female)
    female, truth = answers.female[asked], answers.is_female[asked]
    right = (female >= 0.5) == truth
    n = len(right)
    if n == 0:
        nan = math.nan
        return GenderFigures(len(asked), 0.0, nan, (nan, nan), nan, nan, nan)
    draws = np.random.default_rng(seed).integers(0, n, (resamples, n))
    low, high = np.quantile(right[draws].mean(1), [0.025, 0.975])
    return GenderFigures(
        len(asked),
        float(asked.mean()),
        float(right.mean()),
        (float(low), float(high)),
        float(right[truth].mean()) if truth.any() else math.nan,
        float(right[~truth].mean()) if (~truth).any() else math.nan,
        calibration_error(female, truth),
    )


def calibration_error(
    probability: NDArray[np.float64], truth: NDArray[np.bool_], bins: int = 10
) -> float:
    """Return the expected calibration error of a probability [N] against outcomes [N].

    Equal-width bins, weighted by how many answers fall in them (Naeini et al., AAAI 2015).
    """
    which = np.minimum((probability * bins).astype(int), bins - 1)
    total = 0.0
    for b in range(bins):
        inside = which == b
        if inside.any():
            total += inside.mean() * abs(probability[inside].mean() - truth[inside].mean())
    return float(total)


def fit_temperature(answers: GenderAnswers) -> float:
    """Return the temperature that makes the found faces' answers likeliest (Guo et al., 2017)."""
    asked = ~np.isnan(answers.female)
    p = answers.female[asked].clip(1e-6, 1 - 1e-6)
    margin, truth = np.log(p / (1 - p)), answers.is_female[asked]
    temperatures = np.exp(np.linspace(np.log(0.3), np.log(4.0), 200))
    signed = np.where(truth, margin, -margin)
    loss = [np.logaddexp(0, -signed / t).mean() for t in temperatures]
    return float(temperatures[int(np.argmin(loss))])
