"""Asks what was trained about faces of a bank, and puts the answers of their anchors together."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from videogender.finetuning.bank import Bank
from videogender.finetuning.figures import Answers
from videogender.finetuning.learners import Learner

ROWS_AT_ONCE = 4096  # patches that are judged together
LARGEST_LOGIT = 1e6

__all__ = ["judge"]


@torch.inference_mode()
def judge(
    learner: Learner,
    bank: Bank,
    labels: NDArray[np.int64],
    faces: NDArray[np.int64],
    view: int = 0,
    level: int | None = None,
) -> Answers:
    """Ask a learner about faces, as inference does: their best anchors, weighted by face score.

    Args:
        learner: on the bank's device.
        bank: features of the faces.
        labels: int64 [S].
        faces: indices [N].
        view: which view of their pictures.
        level: anchors of this level only; None for all.
    """
    key = faces * bank.views + view
    first, count = bank.rows.first[key], bank.rows.first[key + 1] - bank.rows.first[key]
    who = np.repeat(np.arange(len(faces)), count)
    within = np.arange(count.sum()) - np.repeat(count.cumsum() - count, count)
    at = np.repeat(first, count) + within
    if level is not None:
        chosen = bank.rows.level[at] == level
        who, at = who[chosen], at[chosen]
    voted = np.zeros((len(faces), learner.classes))
    total = np.zeros(len(faces))
    for one in np.unique(bank.rows.level[at]):
        here = np.flatnonzero(bank.rows.level[at] == one)
        for start in range(0, len(here), ROWS_AT_ONCE):
            part = here[start : start + ROWS_AT_ONCE]
            patches = bank.patches(int(one), bank.rows.place[at[part]])
            logits = learner.logits(int(one), patches).float().cpu().numpy().astype(np.float64)
            score = bank.rows.score[at[part]].astype(np.float64)
            np.add.at(voted, who[part], logits * score[:, None])
            np.add.at(total, who[part], score)
    with np.errstate(invalid="ignore"):
        voted /= total[:, None]
    best = np.zeros(len(faces))
    best[count > 0] = bank.rows.score[first[count > 0]]
    return Answers(
        voted.clip(-LARGEST_LOGIT, LARGEST_LOGIT),
        labels[faces],
        best,
        bank.face_px[faces, view].astype(np.float64),
        faces,
    )
