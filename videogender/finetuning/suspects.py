"""Finds labels that are probably wrong: each is judged by heads that never saw its face.

The faces are dealt into parts, copies of a picture and a person's pictures into the same one; for
each, heads are trained on all others. Features are there already, so this costs a few short runs
of the loop.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from videogender.finetuning.bank import Bank
from videogender.finetuning.data import Data
from videogender.finetuning.figures import Answers, fit_temperature
from videogender.finetuning.judging import judge
from videogender.finetuning.learners import Learner
from videogender.finetuning.loop import Loop
from videogender.finetuning.settings import FinetuneSettings
from videogender.training.stopping import StopRequest

LEAST_EPOCHS, ENOUGH_FACES = 6, 20_000  # of a part's training; many faces need few epochs
LEAST_PROBABILITY = 0.7  # of another class, for a label to be suspected

__all__ = ["judge_unseen", "suspected"]


def judge_unseen(
    fresh: Callable[[NDArray[np.int64]], Learner],
    bank: Bank,
    data: Data,
    settings: FinetuneSettings,
    epochs: int,
    stop: StopRequest,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> Answers:
    """Return calibrated answers about faces by heads that were trained without them.

    Those whose label no other part has are left out: it would never be the answer.

    Args:
        fresh: makes a learner as it is at the start, for the faces it will be trained on.
        bank: features.
        data: the faces.
        settings: of the run.
        epochs: that the run itself took to its best.
        stop: ends this early; what is left has no answers then.
        tell: told how many of how many parts are done.
    """
    everyone = np.arange(len(data.samples))
    part = _deal(data, settings)
    short = replace(settings, patience=0)
    answers = []
    for number in range(settings.split.folds):
        rest = everyone[part != number]
        held = everyone[(part == number) & np.isin(data.labels, data.labels[rest])]
        if not len(held) or stop.asked:
            continue
        learner = fresh(rest)
        enough = max(LEAST_EPOCHS, min(epochs, ENOUGH_FACES // len(rest)))
        loop = Loop(
            learner,
            bank,
            data.labels,
            rest,
            held[:0],
            short,
            epochs=min(enough, settings.epochs),
        )
        try:
            loop.run(stop=stop)
        except KeyboardInterrupt:
            continue
        answers.append(judge(learner, bank, data.labels, held))
        tell(number + 1, settings.split.folds)
    if not answers:
        return judge(fresh(everyone), bank, data.labels, everyone[:0])
    together = Answers.joined(*answers)
    return together.tempered(fit_temperature(together))


def suspected(answers: Answers, most: int) -> list[tuple[int, int, float]]:
    """Return (face, likelier class, its probability) of suspicious labels, the worst first."""
    given = answers.given
    if not len(given.label):
        return []
    probability = np.exp(given.log_probabilities)
    likelier = probability.argmax(1)
    sure = probability.max(1)
    of_label = np.take_along_axis(probability, given.label[:, None], 1)[:, 0]
    wrong = np.flatnonzero((likelier != given.label) & (sure >= LEAST_PROBABILITY))
    order = wrong[np.argsort(of_label[wrong], kind="stable")][:most]
    return [(int(given.face[i]), int(likelier[i]), float(sure[i])) for i in order]


def _deal(data: Data, settings: FinetuneSettings) -> NDArray[np.int64]:
    """Return the part [S] of each face; what belongs together is in one part."""
    groups, folds = data.groups(), settings.split.folds
    sizes = np.bincount(groups)
    order = np.random.default_rng([settings.seed, folds]).permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    classes = len(data.classes)
    counts = np.zeros((len(sizes), classes))
    np.add.at(counts, (groups, data.labels), 1)
    held = np.zeros((folds, classes))
    part = np.zeros(len(sizes), np.int64)
    scale = 1 / np.maximum(counts.sum(0), 1)
    for group in order:
        # where its classes are rarest so far
        best = int(((held * scale) @ (counts[group] * scale) + 1e-9 * held.sum(1)).argmin())
        part[group] = best
        held[best] += counts[group]
    return part[groups]
