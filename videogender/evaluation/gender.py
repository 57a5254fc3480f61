"""How well presented gender is told: found rate, accuracy with its interval, calibration."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from videogender.dataset import GENDERS, Entry
from videogender.evaluation.bootstrap import Interval
from videogender.evaluation.detection import MATCH_IOU, iou
from videogender.evaluation.proportions import proportion_interval
from videogender.frames import Faces

SMALLEST = 1e-6  # probabilities stay this far from 0 and 1 where their logarithm is taken
GROUPINGS = ("race", "skin", "age_group")  # keys of a labelled face that name a group of people
UNNAMED = ""

__all__ = [
    "GROUPINGS",
    "UNNAMED",
    "GenderAnswers",
    "GenderFigures",
    "calibration_error",
    "collect_answers",
    "fit_temperature",
    "gender_figures",
]


@dataclass(frozen=True, slots=True)
class GenderAnswers:
    """Labelled faces beside what was said of them.

    Attributes:
        female: float64 [N], probability of female; NaN where the face was not found.
        is_female: bool [N], the label.
        height: float64 [N], face height in pixels; see `collect_answers`.
        age: float64 [N], years, NaN where unknown.
        groups: for each key of `GROUPINGS` that the labels hold, str [N], the group that a face is
            in; `UNNAMED` where the label does not say.
    """

    female: NDArray[np.float64]
    is_female: NDArray[np.bool_]
    height: NDArray[np.float64]
    age: NDArray[np.float64]
    groups: Mapping[str, NDArray[np.str_]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.female)

    @property
    def found(self) -> NDArray[np.bool_]:
        """Which faces were found, bool [N]."""
        known: NDArray[np.bool_] = ~np.isnan(self.female)
        return known

    def select(self, chosen: NDArray[np.bool_]) -> GenderAnswers:
        """Return the faces where `chosen` [N] is true."""
        return GenderAnswers(
            self.female[chosen],
            self.is_female[chosen],
            self.height[chosen],
            self.age[chosen],
            {key: names[chosen] for key, names in self.groups.items()},
        )

    def tempered(self, temperature: float) -> GenderAnswers:
        """Return the answers with their log-odds divided by a temperature."""
        p = self.female.clip(SMALLEST, 1 - SMALLEST)
        return replace(self, female=1 / (1 + np.exp(-np.log(p / (1 - p)) / temperature)))

    @classmethod
    def joined(cls, *parts: GenderAnswers) -> GenderAnswers:
        """Return the answers of several sets as one."""
        return cls(
            np.concatenate([p.female for p in parts]),
            np.concatenate([p.is_female for p in parts]),
            np.concatenate([p.height for p in parts]),
            np.concatenate([p.age for p in parts]),
            {
                key: np.concatenate([p.groups.get(key, _unnamed(len(p))) for p in parts])
                for key in dict.fromkeys(key for p in parts for key in p.groups)
            },
        )


@dataclass(frozen=True, slots=True)
class GenderFigures:
    """What `gender_figures` found.

    Attributes:
        faces: labelled faces, found or not.
        found: share of them that were found, NaN of none; all figures below are over those that
            were found, NaN for none.
        accuracy: share whose likelier gender is the labelled one.
        interval: its 95 % interval.
        accuracy_female, accuracy_male: the same, a label.
        calibration_error: see `calibration_error`.
    """

    faces: int
    found: float
    accuracy: float
    interval: Interval
    accuracy_female: float
    accuracy_male: float
    calibration_error: float


def collect_answers(
    found: Iterable[tuple[Entry, Faces]],
    *,
    least_score: float = 0.0,
    at_long_side: float | None = None,
) -> GenderAnswers:
    """Pair every face of known gender with the detection that overlaps it best (IoU ≥ 0.5).

    Args:
        found: images with their faces.
        least_score: detections with a lower face score are not looked at.
        at_long_side: give heights as if each image had this long side; None, as it is stored.
    """
    rows: list[tuple[float, bool, float, float]] = []
    labels: list[dict[str, Any]] = []
    for entry, detections in found:
        chosen = detections.scores >= least_score
        boxes, answers = detections.boxes[chosen], detections.female[chosen]
        scale = at_long_side / max(entry.width, entry.height) if at_long_side else 1.0
        for face in entry.faces:
            if face.get("gender") not in GENDERS or face.get("ignore", False):
                continue
            box = np.array([face["box"]], np.float32)
            # labels may reach past the picture's edge, where nothing can be seen
            seen = box.clip(0, [entry.width, entry.height, entry.width, entry.height])
            female = math.nan
            if len(boxes):
                overlap = iou(seen.astype(np.float32), boxes)[0]
                best = int(overlap.argmax())
                if overlap[best] >= MATCH_IOU:
                    female = float(answers[best])
            height = float(box[0, 3] - box[0, 1]) * scale
            age = face.get("age")
            age = float(age) if isinstance(age, (int, float)) else math.nan
            rows.append((female, face["gender"] == "female", height, age))
            labels.append(face)
    table = np.array(rows, np.float64).reshape(-1, 4)
    groups = {
        key: np.array([str(face.get(key) or UNNAMED) for face in labels], np.str_)
        for key in GROUPINGS
        if any(face.get(key) for face in labels)
    }
    return GenderAnswers(table[:, 0], table[:, 1].astype(bool), table[:, 2], table[:, 3], groups)


def _unnamed(count: int) -> NDArray[np.str_]:
    return np.full(count, UNNAMED, np.str_)


def gender_figures(answers: GenderAnswers) -> GenderFigures:
    """Summarise answers.

    Accuracy counts found faces only and takes the likelier gender, however unsure.
    """
    asked = ~np.isnan(answers.female)
    female, truth = answers.female[asked], answers.is_female[asked]
    right = (female >= 0.5) == truth
    n = len(right)
    if n == 0:
        nan = math.nan
        share = 0.0 if len(asked) else nan
        return GenderFigures(len(asked), share, nan, (nan, nan), nan, nan, nan)
    return GenderFigures(
        len(asked),
        float(asked.mean()),
        float(right.mean()),
        proportion_interval(int(right.sum()), n),
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
    """Return the temperature that makes the found faces' answers likeliest (Guo et al., 2017).

    It lies between 0.3 and 4, in steps of 1.3 %; it is 1 if no face was found.
    """
    asked = ~np.isnan(answers.female)
    if not asked.any():
        return 1.0
    p = answers.female[asked].clip(SMALLEST, 1 - SMALLEST)
    margin, truth = np.log(p / (1 - p)), answers.is_female[asked]
    temperatures = np.exp(np.linspace(np.log(0.3), np.log(4.0), 200))
    signed = np.where(truth, margin, -margin)
    loss = [np.logaddexp(0, -signed / t).mean() for t in temperatures]
    return float(temperatures[int(np.argmin(loss))])
