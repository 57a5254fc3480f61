"""How good answers are: accuracy with its interval, confidence, confusion, and by size of face."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from videogender.evaluation import bootstrap
from videogender.evaluation.bootstrap import Interval
from videogender.evaluation.proportions import proportion_interval

FACE_SCORE = 0.5  # answers are judged of faces that a user would see
LEAST_ANSWERS = 20  # fewer say too little about calibration
SIZES_PX = (0, 24, 48, 96, 192)
BINS = 10
LEAST_PEOPLE = 10  # the pictures of fewer say too little about everybody else

__all__ = [
    "Answers",
    "balanced_accuracy",
    "by_size",
    "confusion",
    "figures",
    "fit_temperature",
    "log_loss",
    "reliability",
]


@dataclass(frozen=True, slots=True)
class Answers:
    """What was said of labelled faces.

    Attributes:
        logits: float64 [N, C]; NaN where the face was not found.
        label: int64 [N], the class that it should have.
        score: float64 [N], the best face score of its anchors, 0 where it was not found.
        face_px: float64 [N], longer side of the face as the network saw it, NaN where it did not.
        face: int64 [N], which face it is.
    """

    logits: NDArray[np.float64]
    label: NDArray[np.int64]
    score: NDArray[np.float64]
    face_px: NDArray[np.float64]
    face: NDArray[np.int64]

    def select(self, chosen: NDArray[np.bool_]) -> Answers:
        """Return the answers where `chosen` [N] is true."""
        return Answers(
            self.logits[chosen],
            self.label[chosen],
            self.score[chosen],
            self.face_px[chosen],
            self.face[chosen],
        )

    @property
    def given(self) -> Answers:
        """Those faces of which anything was said."""
        return self.select(~np.isnan(self.logits[:, 0]))

    @property
    def seen(self) -> Answers:
        """Those that `annotate` would show."""
        return self.given.select(self.given.score >= FACE_SCORE)

    def tempered(self, temperature: float) -> Answers:
        """Return the answers with their logits divided by a temperature."""
        return replace(self, logits=self.logits / temperature)

    @property
    def log_probabilities(self) -> NDArray[np.float64]:
        """Float64 [N, C]."""
        shifted = self.logits - self.logits.max(1, keepdims=True, initial=-math.inf)
        found: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
        return found

    @property
    def right(self) -> NDArray[np.bool_]:
        """Bool [N]: whether the likeliest class is the label."""
        found: NDArray[np.bool_] = self.logits.argmax(1) == self.label
        return found

    @classmethod
    def joined(cls, *parts: Answers) -> Answers:
        """Return several as one."""
        return cls(
            np.concatenate([p.logits for p in parts]),
            np.concatenate([p.label for p in parts]),
            np.concatenate([p.score for p in parts]),
            np.concatenate([p.face_px for p in parts]),
            np.concatenate([p.face for p in parts]),
        )


def balanced_accuracy(answers: Answers) -> float:
    """Return the mean over classes of the share of right answers; 0 without any."""
    given = answers.given
    shares = [given.right[given.label == c].mean() for c in np.unique(given.label)]
    return float(np.mean(shares)) if shares else 0.0


def log_loss(answers: Answers) -> float:
    """Return the mean negative log-probability of the labels, classes weighing the same."""
    given = answers.given
    loss = -np.take_along_axis(given.log_probabilities, given.label[:, None], 1)[:, 0]
    means = [loss[given.label == c].mean() for c in np.unique(given.label)]
    return float(np.mean(means)) if means else 0.0


def fit_temperature(answers: Answers) -> float:
    """Return the temperature that makes the labels likeliest (Guo et al., 2017); 1 for few answers.

    It lies between 0.1 and 20, in steps of 1.3 %.
    """
    given = answers.given
    if len(given.label) < LEAST_ANSWERS:
        return 1.0
    temperatures = np.exp(np.linspace(np.log(0.1), np.log(20.0), 400))
    losses = [log_loss(given.tempered(t)) for t in temperatures]
    return float(temperatures[int(np.argmin(losses))])


def figures(
    answers: Answers, classes: tuple[str, ...], person: NDArray[np.int64]
) -> dict[str, Any]:
    """Summarise answers as JSON holds it; shares that nothing is known about are left out.

    All but `faces` and `found` are over faces that were found; `interval` is the 95 % interval of
    `accuracy`, None for too few people, and `people` is how many there are where some have several
    faces.

    Args:
        answers: N of the data's faces.
        classes: names.
        person: int64 [S], see `Data.persons`.
    """
    seen = answers.seen
    n = len(seen.label)
    found: dict[str, Any] = {"faces": len(answers.label)}
    if len(answers.label):
        found["found"] = n / len(answers.label)
    if not n:
        return found
    people = len(np.unique(person[seen.face]))
    found |= {
        "accuracy": float(seen.right.mean()),
        "interval": interval(seen.right, person[seen.face]),
        **({"people": people} if people < n else {}),
        "balanced_accuracy": balanced_accuracy(seen),
        "by_label": {
            name: float(seen.right[seen.label == c].mean())
            for c, name in enumerate(classes)
            if (seen.label == c).any()
        },
        "confidence_error": _confidence_error(seen),
        "log_loss": log_loss(seen),
    }
    return found


def interval(right: NDArray[np.bool_], person: NDArray[np.int64]) -> Interval | None:
    """Return the 95 % interval of the mean of flags, as people, not pictures, are drawn anew.

    Args:
        right: bool [N], N > 0.
        person: int64 [N], whose picture it is.

    Returns:
        None if somebody has several pictures and there are fewer than `LEAST_PEOPLE`.
    """
    _, who = np.unique(person, return_inverse=True)
    faces = np.bincount(who)
    people, share = len(faces), float(right.mean())
    if people < min(len(right), LEAST_PEOPLE):
        return None
    # resampling knows no spread where all are right, or all wrong
    if people == len(right) or share in (0.0, 1.0):
        return proportion_interval(share * people, people)
    hits = np.bincount(who, right)
    return bootstrap.interval(lambda times: (times @ hits) / (times @ faces), people)


def confusion(answers: Answers, classes: tuple[str, ...]) -> dict[str, Any]:
    """Count answers by label (rows) and likeliest class (columns), over faces that were found."""
    seen, n = answers.seen, len(classes)
    counts = np.bincount(seen.label * n + seen.logits.argmax(1), minlength=n * n)
    return {"labels": list(classes), "counts": counts.reshape(n, n).tolist()}


def reliability(answers: Answers) -> list[dict[str, Any]]:
    """Compare how sure answers are with how often they are right, in bins of equal width."""
    seen = answers.seen
    if not len(seen.label):
        return []
    sure, which = _binned(seen)
    return [
        {
            "confidence": float(sure[which == b].mean()),
            "accuracy": float(seen.right[which == b].mean()),
            "count": int((which == b).sum()),
        }
        for b in np.unique(which)
    ]


def by_size(answers: Answers, person: NDArray[np.int64]) -> list[dict[str, Any]]:
    """Summarise answers by the longer side of the face, as the network saw it.

    Args:
        answers: N of the data's faces.
        person: int64 [S], see `Data.persons`.
    """
    seen, rows = answers.seen, []
    for low, high in zip(SIZES_PX, (*SIZES_PX[1:], None), strict=True):
        inside = (seen.face_px >= low) & (seen.face_px < (high or math.inf))
        if inside.any():
            rows.append(
                {
                    "low_px": low,
                    "high_px": high,
                    "faces": int(inside.sum()),
                    "accuracy": float(seen.right[inside].mean()),
                    "interval": interval(seen.right[inside], person[seen.face[inside]]),
                }
            )
    return rows


def _binned(answers: Answers) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the probability of the likeliest class [N], and its bin."""
    sure = np.exp(answers.log_probabilities.max(1))
    least = 1 / answers.logits.shape[1]
    width = (1 - least) / BINS
    which = np.minimum(((sure - least) / width).astype(np.int64), BINS - 1)
    return sure, which


def _confidence_error(answers: Answers) -> float:
    """Return the expected calibration error of the likeliest class (Naeini et al., AAAI 2015)."""
    sure, which = _binned(answers)
    return float(
        sum(
            (which == b).mean() * abs(sure[which == b].mean() - answers.right[which == b].mean())
            for b in np.unique(which)
        )
    )
