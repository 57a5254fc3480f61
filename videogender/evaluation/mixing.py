"""How the answers of two stages are added: fitted on labelled faces."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LEAST_ANSWERS = 50  # fewer say too little
NEWTON_STEPS = 25

__all__ = ["LEAST_ANSWERS", "fit_gender_mix", "fit_logistic"]


def fit_logistic(inputs: Tensor, truth: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the weights [C + 1] that tell truth [N] from inputs [N, C]; the last is a constant.

    Newton's method on the log-likelihood, in float64; a trace of a ridge keeps it finite.

    Args:
        inputs: float [N, C].
        truth: bool [N].
        weight: float [N], how much each row counts; None counts all alike.
    """
    x = torch.cat([inputs, torch.ones_like(inputs[:, :1])], 1).double()
    y, found = truth.double(), x.new_zeros(x.shape[1])
    counts = torch.ones_like(y) if weight is None else weight.double()
    ridge = 1e-3 * torch.eye(len(found), dtype=x.dtype, device=x.device)
    for _ in range(NEWTON_STEPS):
        p = (x @ found).sigmoid()
        slope = x.T @ (counts * (p - y)) + ridge @ found
        curve = (x * (counts * p * (1 - p))[:, None]).T @ x + ridge
        found = found - torch.linalg.solve(curve, slope)
    return found.to(inputs.dtype)


def fit_gender_mix(
    first: NDArray[np.floating],
    second: NDArray[np.floating],
    is_female: NDArray[np.bool_],
    least: int = LEAST_ANSWERS,
) -> tuple[float, float, float] | None:
    """Fit `SecondStage.gender_mix`: weights of both stages' log-odds, and what is added.

    Women and men count alike, however many there are of either, so that neither is favoured.

    Args:
        first, second: float [N], log-odds of female; NaN where there is no answer.
        is_female: bool [N], the truth.
        least: how many answers it takes.

    Returns:
        None where there are too few answers of both.
    """
    inputs = np.stack([first, second], 1).astype(np.float64)
    known = ~np.isnan(inputs).any(1)
    women = is_female[known]
    if known.sum() < least or women.all() or not women.any():
        return None
    share = women.mean()
    weight = np.where(women, 0.5 / share, 0.5 / (1 - share))
    found = fit_logistic(
        torch.from_numpy(inputs[known]), torch.from_numpy(women), torch.from_numpy(weight)
    )
    old, new, shift = found.tolist()
    return old, new, shift
