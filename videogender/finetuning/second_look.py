"""Two looks at a face taken together: a second stage's, or that of `annotate --refine`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from videogender.evaluation.mixing import Mix, fit_gender_mix
from videogender.finetuning.figures import Answers
from videogender.network.heads import FEMALE, MALE

__all__ = ["fitted_mix", "mixed", "together"]


def together(first: Answers | None, second: Answers, share: float) -> Answers:
    """Return the weighted mean of two looks' log-probabilities; see `refine`.

    Args:
        first: of the same faces; NaN where it has no answer, or None for none at all.
        second: calibrated.
        share: weight of the second look, 0 to 1.
    """
    if first is None:
        return second
    before, after = first.log_probabilities, second.log_probabilities
    both = np.where(np.isnan(before), after, (1 - share) * before + share * after)
    return replace(second, logits=both)


def mixed(heads: Answers, close_up: NDArray[np.float32], mix: Mix) -> Answers:
    """Return gender answers as the detector mixes them of both stages.

    Args:
        heads: of the first stage.
        close_up: float32 [S], log-odds of female that the second stage gives all faces.
        mix: weights of the first stage, of the second, and what is added; `SecondStage.gender_mix`.
    """
    old, new, shift = mix
    margin = old * _margin(heads) + new * close_up[heads.face] + shift
    return replace(heads, logits=np.stack([margin, np.zeros_like(margin)], 1))


def fitted_mix(heads: Answers, close_up: NDArray[np.float32], given: Mix) -> Mix:
    """Return the mix that fits the labels; the fewer they are, the nearer to the one given."""
    margin = close_up[heads.face]
    truth = heads.label == FEMALE
    return fit_gender_mix(_margin(heads), margin, truth, given) or given


def _margin(answers: Answers) -> NDArray[np.float64]:
    return answers.logits[:, FEMALE] - answers.logits[:, MALE]
