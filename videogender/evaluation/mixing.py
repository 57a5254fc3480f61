"""How the answers of two stages are added: fitted on labelled faces."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LEAST_ANSWERS = 50  # fewer say too little
NEWTON_STEPS = 25
FINITE = 1e-3  # a trace of a ridge: weights stay finite where inputs never err
# How much of a ridge keeps the weights of a fit near those that were there. With it, a hundred
# faces or less change next to nothing unless the labels are at odds with those; without, they cost
# up to several points of accuracy (resampled from 911 portraits).
STEADY = 25.0

Mix = tuple[float, float, float]

__all__ = ["LEAST_ANSWERS", "Mix", "fit_gender_mix", "fit_logistic"]


def fit_logistic(
    inputs: Tensor,
    truth: Tensor,
    weight: Tensor | None = None,
    near: Tensor | None = None,
    strength: float = FINITE,
) -> Tensor:
    """Return the weights [C + 1] that tell truth [N] from inputs [N, C]; the last is a constant.

    Newton's method on the log-likelihood with a ridge, in float64.

    Args:
        inputs: float [N, C].
        truth: bool [N].
        weight: float [N], how much each row counts; None counts all alike.
        near: float [C + 1], weights towards which the ridge pulls; None is zero.
        strength: of the ridge.
    """
    x = torch.cat([inputs, torch.ones_like(inputs[:, :1])], 1).double()
    y, counts = truth.double(), torch.ones_like(truth) if weight is None else weight.double()
    pull = x.new_zeros(x.shape[1]) if near is None else near.to(x)
    found, ridge = pull, strength * torch.eye(len(pull), dtype=x.dtype, device=x.device)
    for _ in range(NEWTON_STEPS):
        p = (x @ found).sigmoid()
        slope = x.T @ (counts * (p - y)) + ridge @ (found - pull)
        curve = (x * (counts * p * (1 - p))[:, None]).T @ x + ridge
        found = found - torch.linalg.solve(curve, slope)
    return found.to(inputs.dtype)


def fit_gender_mix(
    first: NDArray[np.floating],
    second: NDArray[np.floating],
    is_female: NDArray[np.bool_],
    near: Mix | None = None,
) -> Mix | None:
    """Fit `SecondStage.gender_mix`: weights of both stages' log-odds, and what is added.

    Women and men count alike, however many there are of either, so that neither is favoured.

    Args:
        first, second: float [N], log-odds of female; NaN where there is no answer.
        is_female: bool [N], the truth.
        near: the mix that was there, of which few answers change little; None is free of it, and
            takes `LEAST_ANSWERS`.

    Returns:
        None where there are too few answers of both.
    """
    inputs = np.stack([first, second], 1).astype(np.float64)
    known = ~np.isnan(inputs).any(1)
    women = is_female[known]
    if women.all() or not women.any() or (near is None and len(women) < LEAST_ANSWERS):
        return None
    share = women.mean()
    weight = np.where(women, 0.5 / share, 0.5 / (1 - share))
    x, truth, counts = map(torch.from_numpy, (inputs[known], women, weight))
    pull, strength = (None, FINITE) if near is None else (torch.tensor(near), STEADY)
    old, new, shift = fit_logistic(x, truth, counts, pull, strength).tolist()
    return old, new, shift
