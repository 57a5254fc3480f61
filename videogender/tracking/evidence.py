"""What many looks at one face say together about its label.

The frames of a track are no independent witnesses: they show the same face to the same network,
and what misleads it once misleads it again. So their log-odds are averaged, not added up, and the
mean is then raised only as far as n views that err together can: by n / (1 + (n - 1) * r), where r
is the share of a view's error that the face's other views repeat (the design effect of Kish,
"Survey Sampling", 1965). With r = 0.7 the odds' exponent grows by 1.43 at the most, however long a
track is, and probabilities do not creep towards 1. The 0.7 was measured: on held-out faces, each
shown in twelve sizes, blurs, compressions and coverings, r = 0.61 fitted best (95 % interval 0.47
to 0.77, so 0.7 lies within it and errs towards doubt); the views' log-odds had an intraclass
correlation of 0.67, and the exponent that fitted n views best was 1.24 for 2, 1.37 for 4 and 1.54
for 12.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["ClassEvidence", "LabelEvidence", "quality", "whole_life", "whole_life_of_classes"]

Floats = NDArray[np.float64]

# Share of a view's error that other views of the face repeat.
_SHARED_ERROR = 0.7
# Time in which a face turns or moves enough to count as seen anew.
_VIEW_SECONDS = 0.5
# One look at a face, however sure, is worth little: the weight of "nothing known" in the mean.
_DOUBT = 0.5
# At this height in pixels of the network's input a face counts half.
_HALF_HEIGHT_PX = 24.0
# A probability beyond 1 in 100 says more of the network's confidence than of the face.
_MOST_LOG_ODDS = 4.6
# Log-odds that a label must gain beyond the threshold to appear, and may lose before it goes.
_HYSTERESIS = 0.3


def quality(scores: NDArray[np.floating], heights_px: NDArray[np.floating]) -> Floats:
    """Return how much looks count, 0 to 1, [N]: clear and large faces more than others.

    Args:
        scores: [N], probability of being a face; covered and blurred ones have lower scores.
        heights_px: [N], in pixels of what the network saw.
    """
    area = np.asarray(heights_px, np.float64) ** 2
    weights: Floats = scores * area / (area + _HALF_HEIGHT_PX**2)
    return weights


def whole_life(
    tracks: NDArray[np.intp],
    seconds: Floats,
    female: NDArray[np.floating],
    weights: Floats,
    count: int,
) -> Floats:
    """Return the probability of female [T] of each track, from all that was seen of it.

    Args:
        tracks: [N], row of each look's track, 0 to `count` - 1; looks in order of time.
        seconds: [N], time of each look.
        female: [N], calibrated probabilities; a track with NaN gets NaN.
        weights: [N], of `quality`.
        count: number of tracks, T.
    """
    votes = _sum_by(tracks, weights * _log_odds(female), count)
    return _probability(
        _together(votes, _sum_by(tracks, weights, count), _views(tracks, seconds, count))
    )


def whole_life_of_classes(
    tracks: NDArray[np.intp],
    seconds: Floats,
    probabilities: NDArray[np.floating],
    weights: Floats,
    count: int,
) -> Floats:
    """Return the probabilities [T, C] of each track's classes; for two it is `whole_life`.

    Args:
        tracks: [N], as in `whole_life`.
        seconds: [N].
        probabilities: [N, C], calibrated; rows of NaN are left out, and where a track has no
            others its row is NaN.
        weights: [N].
        count: number of tracks, T.
    """
    asked = np.flatnonzero(~np.isnan(probabilities).any(1))
    tracks, seconds, weights = tracks[asked], seconds[asked], weights[asked]
    odds = _class_odds(probabilities[asked])
    votes = np.zeros((count, probabilities.shape[1]))
    np.add.at(votes, tracks, weights[:, None] * odds)
    known = _sum_by(tracks, weights, count)[:, None]
    together = _softmax(_together(votes, known, _views(tracks, seconds, count)[:, None]))
    together[np.bincount(tracks, minlength=count) == 0] = np.nan
    return together


class LabelEvidence:
    """The same as far as it is known, for live video: what was seen long ago counts less.

    Args:
        half_life_seconds: time after which a look counts half.
        unsure_below: least probability of a label, 0.5 to 1.
    """

    def __init__(self, half_life_seconds: float, unsure_below: float) -> None:
        self._half_life = half_life_seconds
        self._threshold = float(_log_odds(np.array([unsure_below]), most=np.inf)[0])
        self._ids = np.zeros(0, np.int64)  # ascending
        self._sums = np.zeros((0, 3))  # votes, weights, views
        self._seen = np.zeros(0)  # time of the last look
        self._verdicts = np.zeros(0, np.int8)

    def add(
        self,
        ids: NDArray[np.int64],
        female: NDArray[np.floating],
        weights: Floats,
        seconds: float,
    ) -> None:
        """Count what a look showed.

        Args:
            ids: [N], different tracks.
            female: [N], calibrated probabilities, or NaN.
            weights: [N], of `quality`.
            seconds: time of the look.
        """
        self._make_room(ids)
        rows = np.searchsorted(self._ids, ids)
        passed = np.maximum(seconds - self._seen[rows], 0.0)  # infinite for new tracks
        kept = self._sums[rows] * 0.5 ** (passed / self._half_life)[:, None]
        fresh = np.minimum(passed / _VIEW_SECONDS, 1.0)
        self._sums[rows] = kept + np.stack([weights * _log_odds(female), weights, fresh], 1)
        self._seen[rows] = seconds
        self._decide(rows)

    def probabilities(self, ids: NDArray[np.int64]) -> Floats:
        """Return the probability of female [N] of tracks that were added."""
        return _probability(_together(*self._sums[np.searchsorted(self._ids, ids)].T))

    def verdicts(self, ids: NDArray[np.int64]) -> NDArray[np.int8]:
        """Return the labels [N] of tracks that were added: 1 female, -1 male, 0 unsure."""
        return self._verdicts[np.searchsorted(self._ids, ids)]

    def keep(self, ids: NDArray[np.int64]) -> None:
        """Forget all other tracks."""
        stay = np.isin(self._ids, ids)
        if not stay.all():
            self._ids, self._sums = self._ids[stay], self._sums[stay]
            self._seen, self._verdicts = self._seen[stay], self._verdicts[stay]

    def _make_room(self, ids: NDArray[np.int64]) -> None:
        new = np.setdiff1d(ids, self._ids)
        if len(new):
            at = np.searchsorted(self._ids, new)
            self._ids = np.insert(self._ids, at, new)
            self._sums = np.insert(self._sums, at, 0.0, axis=0)
            self._seen = np.insert(self._seen, at, -np.inf)
            self._verdicts = np.insert(self._verdicts, at, 0)

    def _decide(self, rows: NDArray[np.intp]) -> None:
        """Change labels, but only where the evidence is clear of the threshold."""
        odds = _together(*self._sums[rows].T)
        now = self._verdicts[rows]
        side = np.where(odds > 0, 1, -1)
        strength = np.abs(odds)
        appears = strength >= self._threshold + _HYSTERESIS
        stays = (side == now) & (strength >= max(self._threshold - _HYSTERESIS, 0.0))
        self._verdicts[rows] = np.where(appears | stays, side, 0)


class ClassEvidence:
    """`LabelEvidence` for the classes of a fine-tuned head, without verdicts.

    Args:
        half_life_seconds: time after which a look counts half.
    """

    def __init__(self, half_life_seconds: float) -> None:
        self._half_life = half_life_seconds
        self._known: dict[
            int, tuple[Floats, float, float, float]
        ] = {}  # votes, weight, views, time

    def add(
        self,
        ids: NDArray[np.int64],
        probabilities: NDArray[np.floating],
        weights: Floats,
        seconds: float,
    ) -> None:
        """Count what a look showed; rows of NaN say nothing.

        Args:
            ids: [N], different tracks.
            probabilities: [N, C], calibrated.
            weights: [N], of `quality`.
            seconds: time of the look.
        """
        asked = np.flatnonzero(~np.isnan(probabilities).any(1))
        odds = weights[asked, None] * _class_odds(probabilities[asked])
        rows = zip(ids[asked].tolist(), odds, weights[asked].tolist(), strict=True)
        for track, votes, weight in rows:
            views = 1.0
            if track in self._known:
                old_votes, old_weight, old_views, seen = self._known[track]
                passed = max(seconds - seen, 0.0)
                kept = 0.5 ** (passed / self._half_life)
                votes, weight = votes + kept * old_votes, weight + kept * old_weight
                views = kept * old_views + min(passed / _VIEW_SECONDS, 1.0)
            self._known[track] = (votes, weight, views, seconds)

    def probabilities(self, ids: NDArray[np.int64], classes: int) -> Floats:
        """Return the probabilities [N, C] of tracks; NaN where nothing is known."""
        found = np.full((len(ids), classes), np.nan)
        for row, track in enumerate(ids.tolist()):
            if track in self._known:
                votes, weight, views, _ = self._known[track]
                gain = _together(votes, np.array(weight), np.array(views))
                found[row] = _softmax(gain[None])[0]
        return found

    def keep(self, ids: NDArray[np.int64]) -> None:
        """Forget all other tracks."""
        self._known = {track: self._known[track] for track in ids.tolist() if track in self._known}


def _views(tracks: NDArray[np.intp], seconds: Floats, count: int) -> Floats:
    """Return how many times each track was seen anew, [T]; looks in order of time."""
    order = np.argsort(tracks, kind="stable")
    mine = tracks[order]
    first = np.diff(mine, prepend=-1) != 0
    fresh = np.minimum(np.diff(seconds[order], prepend=0.0) / _VIEW_SECONDS, 1.0)
    return _sum_by(mine, np.where(first, 1.0, fresh), count)


def _sum_by(rows: NDArray[np.intp], values: Floats, count: int) -> Floats:
    """Return the sums [T] of values [N] by the rows that they belong to."""
    return np.bincount(rows, values, count).astype(np.float64)


def _together(votes: Floats, weights: Floats, views: Floats) -> Floats:
    """Return the log-odds of tracks: the weighted mean, raised by what several views add."""
    gain = views / (1 + (views - 1) * _SHARED_ERROR)
    odds: Floats = gain * votes / (weights + _DOUBT)
    return odds


def _log_odds(female: NDArray[np.floating], most: float = _MOST_LOG_ODDS) -> Floats:
    p = female.astype(np.float64)
    with np.errstate(divide="ignore"):
        odds: Floats = np.clip(np.log(p) - np.log1p(-p), -most, most)
    return odds


def _class_odds(probabilities: NDArray[np.floating]) -> Floats:
    """Return log-odds [N, C] against each row's likeliest class, which has 0."""
    with np.errstate(divide="ignore"):
        logs = np.log(probabilities.astype(np.float64))
    odds: Floats = np.maximum(logs - logs.max(1, keepdims=True), -_MOST_LOG_ODDS)
    return odds


def _softmax(odds: Floats) -> Floats:
    powers = np.exp(odds - odds.max(1, keepdims=True))
    shares: Floats = powers / powers.sum(1, keepdims=True)
    return shares


def _probability(odds: Floats) -> Floats:
    p: Floats = 1 / (1 + np.exp(-odds))
    return p
