"""95 % intervals of shares, and of means and differences of two shares."""

from __future__ import annotations

import math
from dataclasses import dataclass

from videogender.evaluation.bootstrap import Interval

Z = 1.959964  # standard deviations to the 97.5 % quantile of the normal distribution

__all__ = ["Share", "difference_interval", "mean_interval", "proportion_interval"]


def proportion_interval(hits: float, count: float) -> Interval:
    """Return the Wilson score interval of a share; it has a width also where all are hits.

    Args:
        hits: how many of the things are such; a fraction if they depend on one another.
        count: of all things; NaN comes back for 0.
    """
    if not count:
        return (math.nan, math.nan)
    share, spread = hits / count, Z * Z / count
    centre = (share + spread / 2) / (1 + spread)
    reach = math.sqrt(share * (1 - share) * spread + spread * spread / 4) / (1 + spread)
    return max(0.0, centre - reach), min(1.0, centre + reach)


@dataclass(frozen=True, slots=True)
class Share:
    """So many hits among so many things."""

    hits: int
    count: int

    @property
    def value(self) -> float:
        """Hits by count; NaN of nothing."""
        return self.hits / self.count if self.count else math.nan

    @property
    def reach(self) -> tuple[float, float]:
        """How far the ends of the interval lie below and above the value."""
        low, high = proportion_interval(self.hits, self.count)
        return self.value - low, high - self.value


def mean_interval(a: Share, b: Share) -> Interval:
    """Return the interval of the mean of two independent shares (Newcombe, 1998)."""
    mean = (a.value + b.value) / 2
    below, above = (math.hypot(*ends) / 2 for ends in zip(a.reach, b.reach, strict=True))
    return mean - below, mean + above


def difference_interval(a: Share, b: Share) -> Interval:
    """Return the interval of a - b, of two independent shares (Newcombe, 1998)."""
    difference = a.value - b.value
    below, above = (math.hypot(*ends) for ends in zip(a.reach, b.reach[::-1], strict=True))
    return difference - below, difference + above
