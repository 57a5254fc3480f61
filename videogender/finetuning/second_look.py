"""Two looks at a face taken together, as `annotate --refine` does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from videogender.finetuning.figures import Answers

__all__ = ["together"]


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
