"""Follower: tracks and labels as far as they are known now, for video without an end."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from videogender.config import LabelSettings, TrackSettings
from videogender.frames import Faces
from videogender.tracking import motion
from videogender.tracking.cuts import Shot
from videogender.tracking.evidence import ClassEvidence, LabelEvidence, quality
from videogender.tracking.tracker import Tracker

__all__ = ["Follower", "Outlook"]

# A face that is missed may have gone: where nobody knows yet, its box is not shown for long.
_COAST_SECONDS = 0.2
# Boxes move on by themselves for this long; after that, standing still is the better guess.
_MOST_AHEAD_SECONDS = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Outlook:
    """Faces as one look left them, and how they move on; never changes, so threads may share it.

    Attributes:
        faces: what is to be shown in the frame that was looked at.
        seconds: the time of that frame.
        state: float64 [N, 5, 4], of `videogender.tracking.motion`, or None: they stand still.
        until: float64 [N], the time after which each is no longer shown.
    """

    faces: Faces
    seconds: float
    state: NDArray[np.float64] | None
    until: NDArray[np.float64]

    @classmethod
    def still(cls, faces: Faces, seconds: float) -> Outlook:
        """Return an outlook on faces that are not followed."""
        return cls(faces, seconds, None, np.full(len(faces), np.inf))

    def at(self, seconds: float) -> Faces:
        """Return what is to be shown at a time after the look; an earlier one counts as its own."""
        stay = np.flatnonzero(self.until >= seconds)
        faces = self.faces if len(stay) == len(self.faces) else self.faces.only(stay)
        ahead = min(seconds - self.seconds, _MOST_AHEAD_SECONDS)
        if self.state is None or ahead <= 0 or not len(stay):
            return faces
        now = self.state[stay]
        moved = motion.boxes_of(motion.predict(now, ahead)) - motion.boxes_of(now)
        return replace(faces, boxes=(faces.boxes + moved).astype(np.float32))


class Follower:
    """Turns what a detector finds, look by look, into faces that keep an id and a steady label.

    It knows nothing of what comes: a face is shown from its `min_hits`-th detection on, boxes
    between looks and in gaps follow the track's speed, and a label may still change, but only on
    evidence. Files are better served by `videogender.tracking.settle`, which knows both ends.
    """

    def __init__(
        self,
        track: TrackSettings,
        label: LabelSettings,
        face_threshold: float,
        *,
        network_scale: float = 1.0,
    ) -> None:
        """Begin without tracks.

        Args:
            track: how faces are followed.
            label: when they are labelled.
            face_threshold: least score of a face that begins a track.
            network_scale: pixels of the network's input a pixel of the source.
        """
        self._tracker = Tracker(track, face_threshold)
        self._evidence = LabelEvidence(track.half_life_seconds, label.unsure_below)
        self._of_classes = ClassEvidence(track.half_life_seconds)
        self._classes: tuple[str, ...] = ()  # of a fine-tuned head
        self._coast_seconds = min(track.bridge_seconds, _COAST_SECONDS)
        self._scale = network_scale

    def look(self, faces: Faces, seconds: float, shot: Shot = Shot.SAME) -> Faces:
        """Take what the detector found in a frame, and return what is to be shown there.

        Args:
            faces: also those below the face threshold.
            seconds: the frame's time on the source's clock.
            shot: how the frame follows the one before.

        Returns:
            the faces of established tracks, with `tracks`, `predicted` and `verdicts`.
        """
        self._turn(shot)
        ids = self._tracker.look(faces.boxes, faces.scores, seconds)
        mine = np.flatnonzero(ids)
        heights = (faces.boxes[:, 3] - faces.boxes[:, 1])[mine] * self._scale
        weights = quality(faces.scores[mine], heights)
        self._evidence.keep(self._tracker.remembered)
        self._evidence.add(ids[mine], faces.female[mine], weights, seconds)
        if faces.classes:
            self._classes = faces.classes
            self._of_classes.keep(self._tracker.remembered)
            self._of_classes.add(ids[mine], faces.attributes[mine], weights, seconds)
        boxes = self._tracker.tracks.boxes
        # What was seen is shown where it was seen, not where the filter has it.
        boxes[np.searchsorted(self._tracker.tracks.ids, ids[mine])] = faces.boxes[mine]
        return self._faces(boxes, seconds)

    def outlook(self, faces: Faces, seconds: float, shot: Shot = Shot.SAME) -> Outlook:
        """Take a look as `look` does, and return what is to be shown from then on as well."""
        shown = self.look(faces, seconds, shot)
        tracks = self._tracker.tracks
        order = np.argsort(tracks.numbers)
        rows = order[np.searchsorted(tracks.numbers, shown.tracks, sorter=order)]
        until = tracks.missing_since[rows] + self._coast_seconds
        until[np.isnan(until)] = np.inf
        return Outlook(shown, seconds, tracks.state[rows], until)

    def set_face_threshold(self, face_threshold: float) -> None:
        """Change the least score of a face that begins a track; weaker tracks end."""
        self._tracker.set_face_threshold(face_threshold)

    def skip(self, seconds: float, shot: Shot = Shot.SAME) -> Faces:
        """Return what is to be shown in a frame at which the detector does not look."""
        self._turn(shot)
        self._tracker.wait(seconds)
        return self._faces(self._tracker.tracks.boxes, seconds)

    def _turn(self, shot: Shot) -> None:
        if shot is Shot.NEW:
            self._tracker.cut()
        elif shot is Shot.BACK:
            self._tracker.no_cut()

    def _faces(self, boxes: NDArray[np.float64], seconds: float) -> Faces:
        """Return the established tracks that are in view or missing only just now."""
        tracks = self._tracker.tracks
        lost = seconds - tracks.missing_since > self._coast_seconds  # False for NaN
        shown = np.flatnonzero((tracks.numbers > 0) & ~lost)
        shown = shown[np.argsort(-tracks.scores[shown], kind="stable")]
        ids = tracks.ids[shown]
        attributes = np.zeros((0, 0), np.float32)
        if self._classes:
            known = self._of_classes.probabilities(ids, len(self._classes))
            attributes = known.astype(np.float32)
        return Faces(
            boxes[shown].astype(np.float32),
            tracks.scores[shown],
            self._evidence.probabilities(ids).astype(np.float32),
            tracks.numbers[shown],
            tracks.missed[shown] > 0,
            self._evidence.verdicts(ids),
            attributes,
            self._classes,
        )
