"""95 % bootstrap intervals: how far a figure moves when the set is drawn anew, with replacement."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from videogender.evaluation.detection import DetectionFigures, Judged

SEED = 0
RESAMPLES = 1000
IMAGE_RESAMPLES = 300  # of detections, which are many; the ends then waver by a tenth of the width

Interval = tuple[float, float]

__all__ = [
    "IMAGE_RESAMPLES",
    "RESAMPLES",
    "Interval",
    "detection_intervals",
    "draws",
    "ends",
    "interval",
]


def draws(count: int, resamples: int, seed: int = SEED) -> Iterator[NDArray[np.float64]]:
    """Yield blocks of rows [B, count]: how often each of `count` things is in a resample."""
    rng = np.random.default_rng(seed)
    block = max(1, 4_000_000 // max(count, 1))
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        picked = rng.integers(0, count, (rows, count)) + np.arange(rows)[:, None] * count
        times = np.bincount(picked.ravel(), minlength=rows * count)
        yield times.reshape(rows, count).astype(np.float64)


def interval(
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    count: int,
    resamples: int = RESAMPLES,
) -> Interval:
    """Return the interval of a figure.

    Args:
        statistic: takes rows of `draws` and returns a figure a row; NaN where there is none.
        count: of the things that are drawn.
        resamples: how often.
    """
    if count == 0:
        return (np.nan, np.nan)
    return ends(np.concatenate([statistic(block) for block in draws(count, resamples)]))


def ends(values: NDArray[np.float64]) -> Interval:
    """Return the 2.5 % and 97.5 % quantiles of those that are not NaN."""
    known = values[~np.isnan(values)]
    if not len(known):
        return (np.nan, np.nan)
    low, high = np.quantile(known, [0.025, 0.975])
    return float(low), float(high)


def detection_intervals(judged: Judged, resamples: int = IMAGE_RESAMPLES) -> list[Interval]:
    """Return the intervals of average precision and of both recalls, over images."""
    figures: list[DetectionFigures] = []
    if not len(judged.faces):
        return [(np.nan, np.nan)] * 3
    for block in draws(len(judged.faces), resamples):
        figures += [_resampled(judged, times.astype(np.int64)) for times in block]
    kept = [each for each in figures if each.faces]
    return [
        ends(np.array([getattr(each, name) for each in kept], np.float64))
        for name in ("average_precision", "recall_at_tenth", "recall_at_one")
    ]


def _resampled(judged: Judged, times: NDArray[np.int64]) -> DetectionFigures:
    """Return the figures of a set that holds each image so many times."""
    # an image that is drawn twice has each of its detections twice, side by side
    again = times[judged.image]
    faces = np.zeros(int(times.sum()), np.int64)
    faces[0] = int((times * judged.faces).sum())  # only the sum and the length are looked at
    nowhere = np.zeros(0, np.int64)  # the figures do not ask which image a detection is in
    return Judged(judged.hit.repeat(again), nowhere, faces).figures()
