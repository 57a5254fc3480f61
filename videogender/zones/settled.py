"""Zones and lines over a whole video whose tracks are settled: all frames at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from videogender.frames import Faces, label_of
from videogender.tracking.flat import FlatFaces, flatten, frame_seconds
from videogender.tracking.settle import Settled
from videogender.zones.figures import Tallies, Whereabouts, label_columns
from videogender.zones.plan import Plan, Reach

__all__ = ["SettledZones"]

Flags = NDArray[np.bool_]
Indices = NDArray[np.int64]


class SettledZones:
    """Who was where, when: for a video that has been looked at already.

    Args:
        settled: of the first pass.
        plan: zones and lines in pixels of the video.
        unsure_below: least probability of a label.
    """

    def __init__(self, settled: Settled, plan: Plan, unsure_below: float) -> None:
        self._settled, self._plan = settled, plan
        flat = flatten(settled)
        labels = label_columns([label_of(track.female, unsure_below) for track in settled.tracks])
        order = np.lexsort((flat.row, flat.track))  # by track, then in time
        faces = _Ordered(flat, order, labels, plan.reach(flat.boxes[order]))
        self._tallies = Tallies(plan)
        inside = self._count_zones(faces, frame_seconds(settled.seconds))
        self._inside = np.empty_like(inside)
        self._inside[order] = inside
        self._starts = np.searchsorted(flat.row, np.arange(len(settled) + 1))
        self._crossed = self._count_lines(faces)

    def at(self, faces: Faces, seconds: float) -> Whereabouts:
        """Return who is where in the frame at a time.

        Args:
            faces: those of `Settled.faces` for this frame; which they are is known already.
            seconds: the frame's time.
        """
        row = self._settled.row_of(seconds)
        if row is None:
            nowhere = np.zeros((len(faces), len(self._plan.zones)), bool)
            return Whereabouts(self._plan, nowhere, self._crossed[0] * 0)
        part = slice(int(self._starts[row]), int(self._starts[row + 1]))
        return Whereabouts(self._plan, self._inside[part], self._crossed[row])

    def figures(self) -> dict[str, Any]:
        """Return the figures of the whole video, as the package's docstring describes them."""
        return self._tallies.figures()

    def _count_zones(self, faces: _Ordered, lengths: NDArray[np.float64]) -> Flags:
        """Count entries and times, and return who is inside, [N, Z] by track and time."""
        tallies, reach = self._tallies, faces.reach
        inside = faces.held(reach.depths, reach.depth_margins)
        changed = np.zeros_like(inside)
        changed[1:] = (inside[1:] != inside[:-1]) & ~faces.is_first[1:, None]
        for zone in range(inside.shape[1]):
            here = inside[:, zone]
            been = np.unique(faces.track[here])
            tallies.appearances[zone] = np.bincount(faces.track_labels[been], minlength=3)
            for counts, way in ((tallies.entries, here), (tallies.exits, ~here)):
                counts[zone] = np.bincount(faces.label[changed[:, zone] & way], minlength=3)
            tallies.dwell[zone] = np.bincount(faces.label[here], lengths[faces.row[here]], 3)
            at_once = np.zeros((len(lengths), 3), np.int64)
            np.add.at(at_once, (faces.row[here], faces.label[here]), 1)
            tallies.peak[zone, 0] = at_once.sum(1).max(initial=0)
            tallies.peak[zone, 1:] = at_once.max(0, initial=0)
        return inside

    def _count_lines(self, faces: _Ordered) -> Indices:
        """Count crossings and return how many there were up to each frame, [F, L, 2]."""
        reach = faces.reach
        right = faces.held(reach.sides, reach.side_margins)
        crossed = np.zeros((len(self._settled) + 1, right.shape[1], 2), np.int64)
        for line in range(right.shape[1]):
            beyond = right[:, line]
            flips = np.flatnonzero((beyond[1:] != beyond[:-1]) & ~faces.is_first[1:]) + 1
            met = _meeting(reach.sides[:, line], reach.shares[:, line], faces.is_first)
            flips = flips[(met[flips] >= 0) & (met[flips] <= 1)]
            inward = beyond[flips]
            labels = faces.label[flips]
            self._tallies.crossed_in[line] = np.bincount(labels[inward], minlength=3)
            self._tallies.crossed_out[line] = np.bincount(labels[~inward], minlength=3)
            np.add.at(crossed[:, line], (faces.row[flips], (~inward).astype(np.int64)), 1)
        return crossed[:-1].cumsum(0)


class _Ordered:
    """All faces by track and time."""

    def __init__(
        self, flat: FlatFaces, order: Indices, track_labels: Indices, reach: Reach
    ) -> None:
        self.row, self.track, self.reach = flat.row[order], flat.track[order], reach
        self.track_labels = track_labels
        self.label = track_labels[self.track]
        self.is_first = np.diff(self.track, prepend=-1) != 0

    def held(
        self, distances: NDArray[np.float64], margins: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        """Return which are on the positive side, [N, K]; within the margin, what held before."""
        sure = np.abs(distances) > margins
        sure[self.is_first] = True  # of what came before the first view nothing is known
        at = np.where(sure, np.arange(len(sure))[:, None], 0)
        latest = np.maximum.accumulate(at, axis=0)
        held: NDArray[np.bool_] = np.take_along_axis(distances >= 0, latest, axis=0)
        return held


def _meeting(
    sides: NDArray[np.float64], shares: NDArray[np.float64], is_first: Flags
) -> NDArray[np.float64]:
    """Return where along a line each face last went from one side to the other, [N]; or NaN."""
    met = np.full(len(sides), np.nan)
    after = np.flatnonzero(((sides[1:] >= 0) != (sides[:-1] >= 0)) & ~is_first[1:]) + 1
    part = sides[after - 1] / (sides[after - 1] - sides[after])
    met[after] = shares[after - 1] + part * (shares[after] - shares[after - 1])
    latest = np.zeros(len(sides), np.int64)
    latest[after] = after
    return met[np.maximum.accumulate(latest)]
