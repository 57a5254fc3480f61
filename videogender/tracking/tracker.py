"""Tracker: gives the detections of each look the numbers of the tracks that they continue."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from videogender.config import TrackSettings
from videogender.tracking import motion
from videogender.tracking.association import assign, overlaps

__all__ = ["Tracker", "Tracks", "is_established"]

# Least overlap for a pair: of sure detections with known tracks, of unsure ones, of new tracks.
_LEAST_OVERLAP, _LEAST_OVERLAP_UNSURE, _LEAST_OVERLAP_NEW = 0.15, 0.4, 0.25
# Where looks are rare, few hits over a long time say as much as many within a moment.
_LONG_SECONDS = 0.5
_USUAL_HITS = TrackSettings().min_hits
# Looks in a row that may miss a track which is not established yet.
_NEW_MAY_MISS = 1


def is_established(
    hits: NDArray[np.int64], span_seconds: NDArray[np.float64], min_hits: int
) -> NDArray[np.bool_]:
    """Tell which tracks have been seen often enough to be faces and no passing errors.

    Args:
        hits: [T], detections of each track.
        span_seconds: [T], time from its first to its last detection.
        min_hits: detections that always suffice. Where looks are rare, two suffice if half a second
            lies between, unless more than usual are asked for.
    """
    established: NDArray[np.bool_] = hits >= min_hits
    if min_hits <= _USUAL_HITS:
        established |= (hits >= 2) & (span_seconds >= _LONG_SECONDS)
    return established


@dataclass(slots=True, eq=False)
class Tracks:
    """The living tracks, oldest first.

    Attributes:
        ids: int64 [T], from 1 in the order of birth; never used again.
        numbers: int64 [T], from 1 in the order of becoming established; 0 before that.
        hits: int64 [T], detections so far.
        missed: int64 [T], looks in a row that did not find it.
        missing_since: float64 [T], time of the first of these; NaN if there is none.
        born_seconds: float64 [T], time of the first detection.
        scores: float32 [T], of the last detection.
        state: float64 [T, 6, 4], of `videogender.tracking.motion`.
    """

    ids: NDArray[np.int64]
    numbers: NDArray[np.int64]
    hits: NDArray[np.int64]
    missed: NDArray[np.int64]
    missing_since: NDArray[np.float64]
    born_seconds: NDArray[np.float64]
    scores: NDArray[np.float32]
    state: NDArray[np.float64]

    @classmethod
    def born(
        cls,
        ids: NDArray[np.int64],
        boxes: NDArray[np.floating],
        scores: NDArray[np.floating],
        seconds: float,
    ) -> Tracks:
        """Return tracks that begin with these detections."""
        count = len(ids)
        return cls(
            ids=ids,
            numbers=np.zeros(count, np.int64),
            hits=np.ones(count, np.int64),
            missed=np.zeros(count, np.int64),
            missing_since=np.full(count, np.nan),
            born_seconds=np.full(count, seconds),
            scores=scores.astype(np.float32),
            state=motion.start(boxes, scores),
        )

    @classmethod
    def none(cls) -> Tracks:
        """Return no tracks."""
        return cls.born(np.zeros(0, np.int64), np.zeros((0, 4)), np.zeros(0), 0.0)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def boxes(self) -> NDArray[np.float64]:
        """Where they are, [T, 4], xyxy in pixels."""
        return motion.boxes_of(self.state)

    def only(self, stay: NDArray[np.bool_]) -> Tracks:
        """Return the tracks that are marked, [T]."""
        return Tracks(*(getattr(self, entry.name)[stay] for entry in fields(self)))

    def and_then(self, others: Tracks) -> Tracks:
        """Return these tracks and others after them."""
        names = [entry.name for entry in fields(self)]
        return Tracks(*(np.concatenate([getattr(self, n), getattr(others, n)]) for n in names))


class Tracker:
    """Follows boxes in the manner of ByteTrack (Zhang et al., 2022), in seconds instead of frames.

    Sure detections (score from `face_threshold`) continue established tracks first; unsure ones,
    which are often faces half covered or blurred, may continue what is left; last come tracks that
    are not established yet. Only a sure detection begins a track. A track that is not found is
    kept for `lost_seconds`.

    Attributes:
        tracks: those that live, at the time of the last call.
    """

    def __init__(self, settings: TrackSettings, face_threshold: float) -> None:
        """Begin without tracks.

        Args:
            settings: buffers and counts.
            face_threshold: least score of a detection that is sure.
        """
        self.tracks = Tracks.none()
        self._settings = settings
        self._face_threshold = face_threshold
        self._births = 0
        self._established = 0
        self._seconds: float | None = None
        # Tracks of the shot before the last cut, and their time: a flash is no cut after all.
        self._parked = (Tracks.none(), 0.0)

    def cut(self) -> None:
        """End all tracks: what is shown next has nothing to do with what was shown before."""
        self._parked = (self.tracks, self._seconds or 0.0)
        self.tracks = Tracks.none()

    def no_cut(self) -> None:
        """Go on with the tracks that the last cut ended; those begun since are dropped."""
        self.tracks, seconds = self._parked
        if self._seconds is not None:
            self.tracks.state = motion.predict(self.tracks.state, max(self._seconds - seconds, 0))

    def set_face_threshold(self, face_threshold: float) -> None:
        """Change the least score of a sure detection; tracks last found with less end."""
        self._face_threshold = face_threshold
        self.tracks = self.tracks.only(self.tracks.scores >= face_threshold)

    @property
    def remembered(self) -> NDArray[np.int64]:
        """The ids of all tracks that live or may come back, ascending."""
        return np.union1d(self.tracks.ids, self._parked[0].ids)

    def wait(self, seconds: float) -> None:
        """Move all tracks to a time at which the detector did not look.

        Args:
            seconds: on the source's clock. Time that runs backwards counts as standing still.
        """
        if self._seconds is not None and len(self.tracks):
            passed = max(seconds - self._seconds, 0.0)
            self.tracks.state = motion.predict(self.tracks.state, passed)
        self._seconds = seconds

    def look(
        self, boxes: NDArray[np.floating], scores: NDArray[np.floating], seconds: float
    ) -> NDArray[np.int64]:
        """Continue tracks with what the detector found in a frame.

        Args:
            boxes: [N, 4], xyxy in pixels.
            scores: [N]; also those below the face threshold.
            seconds: the frame's time on the source's clock.

        Returns:
            int64 [N], the id of each detection's track; 0 where it belongs to none.
        """
        self.wait(seconds)
        tracks = self.tracks
        is_sure = scores >= self._face_threshold
        sure, unsure = np.flatnonzero(is_sure), np.flatnonzero(~is_sure)
        known, new = np.flatnonzero(tracks.numbers), np.flatnonzero(tracks.numbers == 0)
        # Where a face has been lost for a while, an unsure detection is more likely an error.
        present = known[tracks.missed[known] == 0]
        owner = np.full(len(scores), -1, np.intp)  # row of the track of each detection
        free = np.ones(len(tracks), bool)
        self._pair(owner, free, known, sure, boxes, _LEAST_OVERLAP)
        self._pair(owner, free, present, unsure, boxes, _LEAST_OVERLAP_UNSURE)
        self._pair(owner, free, new, sure, boxes, _LEAST_OVERLAP_NEW)

        self._correct(owner, boxes, scores)
        tracks.missing_since[free & (tracks.missed == 0)] = seconds
        tracks.missed[free] += 1
        ids = np.where(owner >= 0, np.append(tracks.ids, 0)[owner], 0)
        orphans = sure[owner[sure] < 0]
        if len(orphans):
            ids[orphans] = self._births + 1 + np.arange(len(orphans))
            self._births += len(orphans)
            born = Tracks.born(ids[orphans], boxes[orphans], scores[orphans], seconds)
            self.tracks = tracks.and_then(born)
        self._forget(seconds)
        self._establish(seconds)
        return ids

    def _pair(
        self,
        owner: NDArray[np.intp],
        free: NDArray[np.bool_],
        rows: NDArray[np.intp],
        found: NDArray[np.intp],
        boxes: NDArray[np.floating],
        least: float,
    ) -> None:
        """Give detections that are not taken to tracks that are free."""
        rows, found = rows[free[rows]], found[owner[found] < 0]
        if not len(rows) or not len(found):
            return
        state = self.tracks.state[rows]
        shared = overlaps(motion.boxes_of(state), motion.reach_of(state), boxes[found])
        paired, columns = assign(1 - shared, 1 - least)
        owner[found[columns]] = rows[paired]
        free[rows[paired]] = False

    def _correct(
        self,
        owner: NDArray[np.intp],
        boxes: NDArray[np.floating],
        scores: NDArray[np.floating],
    ) -> None:
        """Move the tracks that were found to their detections."""
        found = np.flatnonzero(owner >= 0)
        rows, tracks = owner[found], self.tracks
        if len(rows):
            tracks.state[rows] = motion.update(tracks.state[rows], boxes[found], scores[found])
            tracks.scores[rows] = scores[found]
            tracks.hits[rows] += 1
            tracks.missed[rows] = 0
            tracks.missing_since[rows] = np.nan

    def _forget(self, seconds: float) -> None:
        """Drop tracks that have been missing for too long."""
        tracks = self.tracks
        gone = seconds - tracks.missing_since > self._settings.lost_seconds  # False for NaN
        gone |= (tracks.numbers == 0) & (tracks.missed > _NEW_MAY_MISS)
        if gone.any():
            self.tracks = tracks.only(~gone)

    def _establish(self, seconds: float) -> None:
        """Number the tracks that have been found often enough by now."""
        tracks = self.tracks
        span = seconds - tracks.born_seconds
        reached = is_established(tracks.hits, span, self._settings.min_hits)
        rows = np.flatnonzero(reached & (tracks.numbers == 0) & (tracks.missed == 0))
        if len(rows):
            tracks.numbers[rows] = self._established + 1 + np.arange(len(rows))
            self._established += len(rows)
