"""Asks what was trained about faces of a bank, and puts the answers of their anchors together."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from videogender.finetuning.bank import Bank
from videogender.finetuning.figures import Answers
from videogender.finetuning.learners import Learner
from videogender.network.heads import VOTES

ROWS_AT_ONCE = 4096  # patches that are judged together
LARGEST_LOGIT = 1e6

__all__ = ["judge", "voters"]


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
    who, at = voters(bank, faces, view, level)
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
    best, seen = np.zeros(len(faces)), bank.count(faces, view) > 0
    best[seen] = bank.rows.score[bank.rows.first[faces * bank.views + view][seen]]
    return Answers(
        voted.clip(-LARGEST_LOGIT, LARGEST_LOGIT),
        labels[faces],
        best,
        bank.face_px[faces, view].astype(np.float64),
        faces,
    )


def voters(
    bank: Bank, faces: NDArray[np.int64], view: int = 0, level: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return which rows vote, those of the best anchors of each face, as the detector has it.

    Args:
        bank, faces, view, level: see `judge`.

    Returns:
        int64 [R] each: places in `faces`, whose the rows are, in order; and the rows of the bank.
    """
    count = bank.count(faces, view)
    who = np.repeat(np.arange(len(faces)), count)
    at = np.repeat(bank.rows.first[faces * bank.views + view], count) + _rank(who)
    if level is not None:
        chosen = bank.rows.level[at] == level
        who, at = who[chosen], at[chosen]
    best = _rank(who) < VOTES  # a bank holds the best ones first
    return who[best], at[best]


def _rank(who: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many earlier entries of a sorted array [N] are equal."""
    rank: NDArray[np.int64] = np.arange(len(who)) - np.searchsorted(who, who)
    return rank
