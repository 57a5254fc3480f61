"""What a run came to: the figures of `results.json`, which the report is drawn from."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from videogender.finetuning.bank import Bank
from videogender.finetuning.data import Data
from videogender.finetuning.figures import Answers, confusion, figures, reliability
from videogender.finetuning.judging import judge, voters
from videogender.finetuning.learners import Learner

MOST_MISTAKES = 60

__all__ = ["as_json", "compare", "face_row", "levels", "mistakes"]


def compare(
    data: Data, before: Answers | None, after: Answers, before_calibrated: bool = True
) -> dict[str, Any]:
    """Return what the judged faces say of a run: before, after, confusion, reliability, mistakes.

    Args:
        data: the faces.
        before: calibrated answers of the weights that the run began from, if there are any.
        after: calibrated answers of those that it kept, about the same faces.
        before_calibrated: whether `before` has probabilities worth a table.
    """
    classes, (side, faces), persons = data.classes, data.judged, data.persons()
    people = {data.samples[i].person for i in faces} - {None}
    who = f"{len(faces)} faces" + (f" of {len(people)} people" if people else "")
    chosen = ", by which the best epoch was chosen" if side == "val" else ""
    found: dict[str, Any] = {
        "judged_on": f"{side}: {who} not trained on{chosen}",
        "after": figures(after, classes, persons),
        "confusion": confusion(after, classes),
        "reliability": reliability(after),
        "mistakes": mistakes(data, after),
    }
    if before is not None:
        found["before"] = figures(before, classes, persons)
        if before_calibrated:
            found["reliability_before"] = reliability(before)
    return found


def mistakes(data: Data, answers: Answers) -> list[dict[str, Any]]:
    """Return the judged faces whose likeliest class is not the label, the surest first."""
    seen = answers.seen
    if not len(seen.label):
        return []
    probability = np.exp(seen.log_probabilities)
    wrong = np.flatnonzero(~seen.right)
    order = wrong[np.argsort(-probability[wrong].max(1), kind="stable")][:MOST_MISTAKES]
    return [
        face_row(data, int(seen.face[i]), int(probability[i].argmax()), float(probability[i].max()))
        for i in order
    ]


def face_row(data: Data, face: int, answer: int, probability: float) -> dict[str, Any]:
    """Describe one face and what was said of it."""
    sample = data.samples[face]
    return {
        "image": str(sample.path),
        "box": list(sample.box) if sample.box else None,
        "label": data.classes[sample.label],
        "answer": data.classes[answer],
        "probability": probability,
        "where": sample.where,
    }


def levels(
    learner: Learner, bank: Bank, data: Data, faces: NDArray[np.int64]
) -> list[dict[str, Any]]:
    """Return what each level contributes: faces whose best anchor lies there, and its accuracy.

    `accuracy` is that of the level alone, over all faces that it has an anchor for; `share` is the
    part of all votes, by face score, that it casts.
    """
    if learner.radius is None:
        return []
    rows, network = bank.rows, learner.network
    key = faces * bank.views
    best = key[rows.first[key + 1] > rows.first[key]]
    winner = rows.level[rows.first[best]]
    _, at = voters(bank, faces)
    found = []
    for level, (tap, stride) in enumerate(zip(network.taps, network.strides, strict=True)):
        alone = judge(learner, bank, data.labels, faces, level=level).seen
        if not len(alone.label):
            continue
        votes = rows.score[at]
        found.append(
            {
                "level": tap,
                "stride": stride,
                "faces": int((winner == level).sum()),
                "asked": len(alone.label),
                "accuracy": float(alone.right.mean()),
                "share": float(votes[rows.level[at] == level].sum() / max(votes.sum(), 1e-9)),
            }
        )
    return found


def as_json(results: Any) -> str:
    """Write results as JSON: six digits are enough, and what is not finite is null."""
    return json.dumps(_plain(results), indent=1, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if np.isfinite(value) else None
    return value
