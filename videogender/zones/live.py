"""Zones and lines frame by frame: for live video, and where faces are not followed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from videogender.frames import Faces, Label
from videogender.zones.figures import LABELS, Tallies, Whereabouts, label_columns
from videogender.zones.plan import Plan, Reach

__all__ = ["LiveZones", "LooseZones"]


class LiveZones:
    """Counts as the frames come, with the tracks' labels as they are then.

    Tracks whose labels stay come to the same figures as in `SettledZones`. Where a label changes,
    what its track has done counts under the new one; `happened` keeps it under the old one, so
    that no count there ever falls. Memory holds the tracks of the last seconds.

    Args:
        plan: zones and lines in pixels.
        unsure_below: least probability of a label, where no verdicts were reached.
        forget_seconds: a track that was not shown for so long does not come back.
        longest_seconds: a frame counts for no longer than this; a stream may stand still.
    """

    def __init__(
        self,
        plan: Plan,
        unsure_below: float,
        *,
        forget_seconds: float = 60.0,
        longest_seconds: float = float("inf"),
    ) -> None:
        self._plan, self._unsure_below = plan, unsure_below
        self._forget, self._longest = forget_seconds, longest_seconds
        self._gone = Tallies(plan)  # of tracks that will not come back, and all peaks
        self._happened = Tallies(plan)
        self._lives: dict[int, _Life] = {}
        self._shown: list[_Life] = []  # in the last frame
        self._seconds: float | None = None
        self._crossed = np.zeros((len(plan.lines), 2), np.int64)

    def at(self, faces: Faces, seconds: float) -> Whereabouts:
        """Count the next frame and return who is where in it.

        Args:
            faces: with their tracks.
            seconds: the frame's time, on a clock that does not run backwards.
        """
        self._pass_time(seconds)
        reach = self._plan.reach(faces.boxes)
        labels = faces.labels(self._unsure_below)
        self._shown = []
        for row, (track, label) in enumerate(zip(faces.tracks.tolist(), labels, strict=True)):
            life = self._lives.get(track)
            if life is None:
                life = self._lives[track] = _Life.begun(label, reach, row)
                self._happened.appearances[:, LABELS.index(label)] += life.been
            else:
                self._crossed += life.step(label, reach, row, self._happened)
            life.last_seconds = seconds
            self._shown.append(life)
        inside = _rows([life.inside for life in self._shown], len(self._plan.zones))
        _raise_peak(self._gone, inside, labels)
        for track in [t for t, x in self._lives.items() if seconds - x.last_seconds > self._forget]:
            self._lives.pop(track).add_to(self._gone)
        return Whereabouts(self._plan, inside, self._crossed.copy())

    def where(self, faces: Faces) -> Whereabouts:
        """Return who is where as it was last counted, wherever the boxes are by now.

        Args:
            faces: with their tracks; those that were not counted yet are where their boxes are.
        """
        inside = self._plan.reach(faces.boxes).depths >= 0
        for row, track in enumerate(faces.tracks.tolist()):
            if track in self._lives:
                inside[row] = self._lives[track].inside
        return Whereabouts(self._plan, inside, self._crossed.copy())

    def figures(self, now_seconds: float | None = None) -> dict[str, Any]:
        """Return the figures so far, as the package's docstring describes them.

        Args:
            now_seconds: counts the last frame until this time; None leaves its own time out.
        """
        if now_seconds is not None:
            self._pass_time(now_seconds)
        total = self._gone.copy()
        for life in self._lives.values():
            life.add_to(total)
        return total.figures()

    def happened(self) -> Tallies:
        """Return the counts so far, each under the label that its face had at that moment."""
        found = self._happened.copy()
        found.peak = self._gone.peak.copy()
        return found

    def place(self, plan: Plan) -> None:
        """Go on with pictures of another size, whose tracks are others too.

        Args:
            plan: the same zones and lines in pixels of theirs.
        """
        for life in self._lives.values():
            life.add_to(self._gone)
        self._lives.clear()
        self._shown = []
        self._plan = self._gone.plan = self._happened.plan = plan

    def _pass_time(self, seconds: float) -> None:
        """Count the time for which the last frame was shown."""
        if self._seconds is not None:
            passed = min(max(seconds - self._seconds, 0.0), self._longest)
            for life in self._shown:
                life.dwell += passed * life.inside
                self._happened.dwell[:, LABELS.index(life.label)] += passed * life.inside
        self._seconds = seconds


class LooseZones:
    """Counts faces that are not followed: of images, or of frames that are labelled one by one.

    Args:
        plan: zones and lines in pixels; at lines nothing can be counted.
        unsure_below: least probability of a label.
        longest_seconds: a frame counts for no longer than this; a stream may stand still.
    """

    def __init__(
        self, plan: Plan, unsure_below: float, *, longest_seconds: float = float("inf")
    ) -> None:
        self._plan, self._unsure_below = plan, unsure_below
        self._longest = longest_seconds
        self._tallies = Tallies(plan, is_tracked=False)
        self._inside = np.zeros((0, len(plan.zones)), bool)
        self._columns = np.zeros(0, np.int64)
        self._seconds: float | None = None
        self._passed = 0.0

    def at(self, faces: Faces, seconds: float) -> Whereabouts:
        """Count the next frame and return who is where in it."""
        self._pass_time(seconds)
        labels = faces.labels(self._unsure_below)
        self._inside = self._plan.reach(faces.boxes).depths >= 0
        self._columns = label_columns(labels)
        _raise_peak(self._tallies, self._inside, labels)
        return Whereabouts(self._plan, self._inside, None)

    def figures(self) -> dict[str, Any]:
        """Return the figures so far; the last frame counts as long as the one before it."""
        if self._seconds is not None:
            self._pass_time(self._seconds + self._passed)
            self._inside = self._inside[:0]
            self._columns = self._columns[:0]
        return self._tallies.figures()

    def happened(self) -> Tallies:
        """Return the counts so far, without the time of the last frame."""
        return self._tallies.copy()

    def place(self, plan: Plan) -> None:
        """Go on with pictures of another size; see `LiveZones.place`."""
        self._inside, self._columns = self._inside[:0], self._columns[:0]
        self._plan = self._tallies.plan = plan

    def _pass_time(self, seconds: float) -> None:
        if self._seconds is not None:
            self._passed = min(max(seconds - self._seconds, 0.0), self._longest)
            np.add.at(self._tallies.dwell.T, self._columns, self._passed * self._inside)
        self._seconds = seconds


@dataclass(slots=True, eq=False)
class _Life:
    """One track: where it is, and what it has done; [Z] of zones, [L] of lines."""

    label: Label
    inside: NDArray[np.bool_]
    right: NDArray[np.bool_]  # which side of each line it counts for
    sides: NDArray[np.float64]
    shares: NDArray[np.float64]
    met: NDArray[np.float64]  # where along each line it last went from side to side, or NaN
    been: NDArray[np.bool_]
    entries: NDArray[np.int64]
    exits: NDArray[np.int64]
    dwell: NDArray[np.float64]
    crossed: NDArray[np.int64]  # [L, 2]
    last_seconds: float = 0.0

    @classmethod
    def begun(cls, label: Label, reach: Reach, row: int) -> _Life:
        """Return a track that is seen for the first time."""
        inside, right = reach.depths[row] >= 0, reach.sides[row] >= 0
        zones, lines = len(inside), len(right)
        return cls(
            label,
            inside,
            right,
            reach.sides[row],
            reach.shares[row],
            np.full(lines, np.nan),
            inside.copy(),
            np.zeros(zones, np.int64),
            np.zeros(zones, np.int64),
            np.zeros(zones),
            np.zeros((lines, 2), np.int64),
        )

    def step(self, label: Label, reach: Reach, row: int, happened: Tallies) -> NDArray[np.int64]:
        """Move on, and return which lines were crossed, [L, 2], in and out.

        What happens on the way is added to `happened`, too.
        """
        self.label, column = label, LABELS.index(label)
        depths, sides, shares = reach.depths[row], reach.sides[row], reach.shares[row]
        inside = np.where(np.abs(depths) > reach.depth_margins[row], depths >= 0, self.inside)
        for counts, all_counts, new in (
            (self.entries, happened.entries, inside & ~self.inside),
            (self.exits, happened.exits, ~inside & self.inside),
        ):
            counts += new
            all_counts[:, column] += new
        happened.appearances[:, column] += inside & ~self.been
        self.inside = inside
        self.been |= inside

        turned = (sides >= 0) != (self.sides >= 0)
        part = self.sides / np.where(turned, self.sides - sides, 1.0)
        self.met = np.where(turned, self.shares + part * (shares - self.shares), self.met)
        self.sides, self.shares = sides, shares
        right = np.where(np.abs(sides) > reach.side_margins[row], sides >= 0, self.right)
        counts = (right != self.right) & (self.met >= 0) & (self.met <= 1)
        crossed = np.stack([counts & right, counts & ~right], 1).astype(np.int64)
        self.right = right
        self.crossed += crossed
        happened.crossed_in[:, column] += crossed[:, 0]
        happened.crossed_out[:, column] += crossed[:, 1]
        return crossed

    def add_to(self, tallies: Tallies) -> None:
        """Add what the track has done to the counts of its label."""
        column = LABELS.index(self.label)
        tallies.appearances[:, column] += self.been
        tallies.entries[:, column] += self.entries
        tallies.exits[:, column] += self.exits
        tallies.dwell[:, column] += self.dwell
        tallies.crossed_in[:, column] += self.crossed[:, 0]
        tallies.crossed_out[:, column] += self.crossed[:, 1]


def _rows(rows: list[NDArray[np.bool_]], width: int) -> NDArray[np.bool_]:
    return np.stack(rows) if rows else np.zeros((0, width), bool)


def _raise_peak(tallies: Tallies, inside: NDArray[np.bool_], labels: list[Label]) -> None:
    """Note how many faces are in each zone at once, of all and of each label."""
    columns = label_columns(labels)
    by_label = [inside[columns == column].sum(0) for column in range(len(LABELS))]
    np.maximum(tallies.peak, np.stack([inside.sum(0), *by_label], 1), out=tallies.peak)
