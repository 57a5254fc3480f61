"""Tracker: gives the detections of each look the numbers of the tracks that they continue."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from videogender.config import TrackSettings
from videogender.tracking import motion
from videogender.tracking.association import assign, overlaps

__all__ = ["Tracker", "is_established"]

# Least overlap for a pair: of sure detections with known tracks, of unsure ones, of new tracks.
_LEAST_OVERLAP, _LEAST_OVERLAP_WEAK, _LEAST_OVERLAP_NEW = 0.15, 0.4, 0.25
# Where looks are rare, few hits over a long time say as much as many within a moment.
_LONG_SECONDS = 0.5
# A new track may be overlooked this often in a row.
_NEW_MAY_MISS = 1


def is_established(
    hits: NDArray[np.int64], span_seconds: NDArray[np.float64], min_hits: int
) -> NDArray[np.bool_]:
    """Tell which tracks have been seen often enough to be faces and no passing errors.

    Args:
        hits: [T], detections of each track.
        span_seconds: [T], time from its first to its last detection.
        min_hits: detections that always suffice; two suffice if half a second lies between.
    """
    lasting = (hits >= 2) & (span_seconds >= _LONG_SECONDS)
    established: NDArray[np.bool_] = (hits >= min_hits) | lasting
    return established


class Tracker:
    """Follows boxes in the manner of ByteTrack (Zhang et al., 2022), in seconds instead of frames.

    Sure detections (score from `face_threshold`) continue tracks first; unsure ones, which are
    often faces half covered or blurred, may then continue what is left; last come tracks that are
    not established yet. Only a sure detection begins a track. A track that is not found is kept
    for `lost_seconds`.

    Attributes, an entry a living track, oldest first:
        ids: int64 [T], counted from 1 in order of birth; never used again.
        hits: int64 [T], detections so far.
        established: bool [T].
        born_seconds: float64 [T], time of the first detection.
        missing_since: float64 [T], time of the first look that has missed it; NaN if none has.
    """

    def __init__(self, settings: TrackSettings, face_threshold: float) -> None:
        """Begin without tracks.

        Args:
            settings: buffers and counts.
            face_threshold: least score of a detection that is sure.
        """
        self._settings = settings
        self._face_threshold = face_threshold
        self._last_id = 0
        self._seconds: float | None = None
        self._clear()

    def _clear(self) -> None:
        self.ids = np.zeros(0, np.int64)
        self.hits = np.zeros(0, np.int64)
        self.established = np.zeros(0, bool)
        self.born_seconds = np.zeros(0)
        self.missing_since = np.zeros(0)
        self._missed = np.zeros(0, np.int64)  # looks in a row
        self._state = np.zeros((0, 5, 4))

    @property
    def boxes(self) -> NDArray[np.float64]:
        """Where the tracks are, [T, 4], xyxy in pixels, at the time of the last call."""
        return motion.boxes_of(self._state)

    def cut(self) -> None:
        """End all tracks: what is shown next has nothing to do with what was shown before."""
        self._clear()

    def wait(self, seconds: float) -> None:
        """Move all tracks to a time at which the detector did not look.

        Args:
            seconds: on the source's clock. Time that runs backwards counts as standing still.
        """
        if self._seconds is not None and len(self.ids):
            self._state = motion.predict(self._state, max(seconds - self._seconds, 0.0))
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
            int64 [N], the track of each detection; 0 where it belongs to none.
        """
        self.wait(seconds)
        sure = np.flatnonzero(scores >= self._face_threshold)
        unsure = np.flatnonzero(scores < self._face_threshold)
        known = np.flatnonzero(self.established)
        present = known[np.isnan(self.missing_since[known])]
        owner = np.full(len(scores), -1, np.intp)  # row of the track of each detection
        free = np.ones(len(self.ids), bool)

        self._pair(owner, free, known, sure, boxes, _LEAST_OVERLAP)
        # Where a track has been lost for a while, an unsure detection is more likely an error.
        self._pair(owner, free, present, unsure, boxes, _LEAST_OVERLAP_WEAK)
        new = np.flatnonzero(~self.established)
        self._pair(owner, free, new, sure, boxes, _LEAST_OVERLAP_NEW)

        self._correct(owner, free, boxes, scores, seconds)
        result = np.where(owner >= 0, np.append(self.ids, 0)[owner], 0)
        born = sure[owner[sure] < 0]
        result[born] = self._begin(boxes[born], scores[born], seconds)
        self._forget(seconds)
        return result

    def _pair(
        self,
        owner: NDArray[np.intp],
        free: NDArray[np.bool_],
        tracks: NDArray[np.intp],
        found: NDArray[np.intp],
        boxes: NDArray[np.floating],
        least: float,
    ) -> None:
        """Give detections that are not taken to tracks that are free."""
        tracks, found = tracks[free[tracks]], found[owner[found] < 0]
        if not len(tracks) or not len(found):
            return
        state = self._state[tracks]
        shared = overlaps(motion.boxes_of(state), motion.spread_of(state), boxes[found])
        rows, columns = assign(1 - shared, 1 - least)
        owner[found[columns]] = tracks[rows]
        free[tracks[rows]] = False

    def _correct(
        self,
        owner: NDArray[np.intp],
        free: NDArray[np.bool_],
        boxes: NDArray[np.floating],
        scores: NDArray[np.floating],
        seconds: float,
    ) -> None:
        """Move the tracks that were found to their detections; count for the others."""
        found = np.flatnonzero(owner >= 0)
        rows = owner[found]
        if len(rows):
            self._state[rows] = motion.update(self._state[rows], boxes[found], scores[found])
            self.hits[rows] += 1
            self._missed[rows] = 0
            self.missing_since[rows] = np.nan
            span = seconds - self.born_seconds[rows]
            self.established[rows] |= is_established(
                self.hits[rows], span, self._settings.min_hits
            )
        self._missed[free] += 1
        self.missing_since[free & np.isnan(self.missing_since)] = seconds

    def _begin(
        self, boxes: NDArray[np.floating], scores: NDArray[np.floating], seconds: float
    ) -> NDArray[np.int64]:
        """Begin tracks and return their numbers."""
        count = len(scores)
        ids = np.arange(self._last_id + 1, self._last_id + 1 + count)
        if count:
            self._last_id += count
            self.ids = np.concatenate([self.ids, ids])
            self.hits = np.concatenate([self.hits, np.ones(count, np.int64)])
            established = np.full(count, self._settings.min_hits <= 1)
            self.established = np.concatenate([self.established, established])
            self.born_seconds = np.concatenate([self.born_seconds, np.full(count, seconds)])
            self.missing_since = np.concatenate([self.missing_since, np.full(count, np.nan)])
            self._missed = np.concatenate([self._missed, np.zeros(count, np.int64)])
            self._state = np.concatenate([self._state, motion.start(boxes, scores)])
        return ids

    def _forget(self, seconds: float) -> None:
        """Drop tracks that have been missing for too long."""
        missing = seconds - self.missing_since  # NaN compares as not missing
        gone = missing > self._settings.lost_seconds
        gone |= ~self.established & (self._missed > _NEW_MAY_MISS)
        if gone.any():
            stay = ~gone
            self.ids, self.hits = self.ids[stay], self.hits[stay]
            self.established, self._state = self.established[stay], self._state[stay]
            self.born_seconds = self.born_seconds[stay]
            self.missing_since, self._missed = self.missing_since[stay], self._missed[stay]
