"""Settles tracks once all of a video has been looked at: who stays, where, and with which label."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from videogender.config import TrackSettings
from videogender.frames import Faces, Track
from videogender.tracking.evidence import quality, whole_life, whole_life_of_classes
from videogender.tracking.tape import Recording
from videogender.tracking.tracker import is_established

__all__ = ["Settled", "settle"]

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Settled:
    """The faces of every frame of a video, with tracks and labels that no longer change.

    Attributes:
        tracks: in order of appearance; the track with id i is `tracks[i - 1]`.
        index: int64 [F], position of each frame in the source.
        seconds: float64 [F], its time, ascending.
        shot: int64 [F], number of its shot, from 0.
        classes: of a fine-tuned head, or empty.
    """

    tracks: list[Track]
    index: Indices
    seconds: NDArray[np.float64]
    shot: Indices
    _starts: Indices  # [F + 1], row of the first face of each frame
    _rows: _Rows
    _numbers: Indices  # [T], id of each track that the rows name
    _female: NDArray[np.float32]  # [T]
    _attributes: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.index)

    def faces(self, row: int) -> Faces:
        """Return the faces of the frame in this row of `index`, best score first."""
        part = slice(int(self._starts[row]), int(self._starts[row + 1]))
        rows, track = self._rows, self._rows.track[part]
        return Faces(
            rows.boxes[part],
            rows.scores[part],
            self._female[track],
            self._numbers[track],
            rows.predicted[part],
            attributes=self._attributes[track] if self.classes else self._attributes,
            classes=self.classes,
        )

    def between(self, first: int, last: int) -> Settled:
        """Return the frames in the rows [first, last) of `index` alone; `tracks` stay all."""
        rows, mine = self._rows, slice(int(self._starts[first]), int(self._starts[last]))
        return replace(
            self,
            index=self.index[first:last],
            seconds=self.seconds[first:last],
            shot=self.shot[first:last],
            _starts=self._starts[first : last + 1] - self._starts[first],
            _rows=_Rows(
                rows.frame[mine] - first,
                rows.track[mine],
                rows.boxes[mine],
                rows.scores[mine],
                rows.predicted[mine],
            ),
        )

    def row_of(self, seconds: float) -> int | None:
        """Return the row of the frame at a time, or None if there was none."""
        row = int(np.searchsorted(self.seconds, seconds - 1e-6))
        if row < len(self.seconds) and self.seconds[row] <= seconds + 1e-6:
            return row
        return None


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """The faces of all frames, one after another; `track` counts from 0."""

    frame: Indices
    track: Indices
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    predicted: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class _Runs:
    """Stretches of frames [first, last) that are filled on the line through two detections.

    `a` and `b` are rows of these in the recording, alike where one has to do.
    """

    a: Indices
    b: Indices
    first: Indices
    last: Indices
    predicted: NDArray[np.bool_]


def settle(
    recording: Recording,
    settings: TrackSettings,
    face_threshold: float,
    *,
    network_scale: float = 1.0,
) -> Settled:
    """Decide which tracks are faces, fill their gaps and give each its one label.

    A track that became established is kept from its first detection to its last sure one. Frames
    between two looks take boxes from both; where looks missed the face, gaps up to
    `bridge_seconds` (or one look) are filled and marked as predicted. Where a track begins or ends
    between two looks, it is shown for the nearer half of the time; nothing reaches beyond its shot.

    Args:
        recording: of the first pass.
        settings: counts and times.
        face_threshold: least score of a sure detection, as the tracker had it.
        network_scale: pixels of the network's input a pixel of the source.
    """
    order, track, count = _kept(recording, settings.min_hits, face_threshold)
    frame = recording.frame[order]
    found = _Found(recording, order, frame, track)
    seconds = recording.seconds[frame]
    weights = quality(recording.scores[order], found.heights * network_scale)
    female = whole_life(track, seconds, recording.female[order], weights, count)
    attributes = recording.attributes
    if recording.classes:
        attributes = whole_life_of_classes(
            track, seconds, attributes[order], weights, count
        ).astype(np.float32)
    rows = _filled(found, _runs(found, settings.bridge_seconds))
    numbers = _numbers(rows, count)
    return Settled(
        _tracks(found, rows, numbers, female, attributes, recording.classes),
        recording.index,
        recording.seconds,
        recording.shot,
        np.searchsorted(rows.frame, np.arange(len(recording.index) + 1)),
        rows,
        numbers,
        female.astype(np.float32),
        attributes,
        recording.classes,
    )


def _kept(
    recording: Recording, min_hits: int, face_threshold: float
) -> tuple[Indices, Indices, int]:
    """Return the detections of established tracks by track and time, and their tracks from 0.

    Unsure detections count only between sure ones: what follows the last of these is more often
    an error that took over than a face that fades. Where a single detection makes a face, as where
    faces are hidden, errors do no harm, and all of them count. In a shot of fewer looks than
    `min_hits` a face need not be found more often than that.
    """
    _, track = np.unique(recording.track, return_inverse=True)
    count = int(track.max(initial=-1)) + 1
    order = np.lexsort((recording.frame, track))
    sure = np.flatnonzero(recording.scores[order] >= face_threshold)
    hits = np.bincount(track[order[sure]], minlength=count)
    starts = np.searchsorted(track[order], np.arange(count))
    ends = starts.copy()  # places in `order` of the last detections that count
    counting = sure if min_hits > 1 else np.arange(len(order))
    np.maximum.at(ends, track[order[counting]], counting)
    first, last = recording.frame[order[starts]], recording.frame[order[ends]]
    span = recording.seconds[last] - recording.seconds[first]
    looks = np.bincount(recording.shot[recording.looked], minlength=1)
    stays = is_established(hits, span, min_hits) | (hits >= looks[recording.shot[last]])
    mine = track[order]
    kept = stays[mine] & (np.arange(len(order)) <= ends[mine])
    new = stays.cumsum() - 1
    return order[kept], new[mine[kept]], int(stays.sum())


class _Found:
    """Detections by track and time, [N], and what lies around each.

    Attributes:
        frame: row of its frame.
        track: row of its track.
        is_first, is_last: of its track.
        looks_until: number of looks up to its own.
        look_rows: the frames that were looked at, ascending.
    """

    def __init__(
        self, recording: Recording, order: Indices, frame: Indices, track: Indices
    ) -> None:
        self.frame, self.track = frame, track
        self.boxes, self.scores = recording.boxes[order], recording.scores[order]
        self.heights = self.boxes[:, 3] - self.boxes[:, 1]
        self.seconds, self.shot = recording.seconds, recording.shot
        self.is_first = np.diff(track, prepend=-1) != 0
        self.is_last = np.diff(track, append=-1) != 0
        self.look_rows = np.flatnonzero(recording.looked)
        self.looks_until = np.searchsorted(self.look_rows, frame, side="right")


def _runs(found: _Found, bridge_seconds: float) -> _Runs:
    """Return the stretches of frames without a detection that are filled."""
    a = np.flatnonzero(~found.is_last)
    b = a + 1
    missed = found.looks_until[b] - found.looks_until[a] - 1
    # The gap begins where the detector first looked in vain.
    first_miss = found.look_rows[found.looks_until[a]]
    gap = found.seconds[found.frame[b]] - found.seconds[first_miss]
    bridged = (gap <= bridge_seconds + 1e-9) | ((missed == 1) & (bridge_seconds > 0))
    filled = (missed == 0) | bridged
    between = _Runs(
        a[filled],
        b[filled],
        found.frame[a[filled]] + 1,
        found.frame[b[filled]],
        missed[filled] > 0,
    )
    parts = [between, _tails(found, found.is_first, before=True)]
    parts.append(_tails(found, found.is_last, before=False))
    return _Runs(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in _Runs.__slots__)
    )


def _tails(found: _Found, ends: NDArray[np.bool_], *, before: bool) -> _Runs:
    """Return the frames around tracks' ends that no look has contradicted."""
    a = np.flatnonzero(ends)
    frame, count = found.frame[a], len(found.seconds)
    shot_first = np.searchsorted(found.shot, found.shot[frame])
    shot_last = np.searchsorted(found.shot, found.shot[frame], side="right")
    inner = found.is_first[a] & found.is_last[a]  # a single detection tells no speed
    if before:
        look = np.append(found.look_rows, -1)[found.looks_until[a] - 2]  # -1: none before
        middle = (found.seconds[np.maximum(look, 0)] + found.seconds[frame]) / 2
        half = np.searchsorted(found.seconds, middle, side="right")
        first = np.where(look >= shot_first, half, shot_first)
        return _Runs(a, np.where(inner, a, a + 1), first, frame, np.zeros(len(a), bool))
    look = np.append(found.look_rows, count)[found.looks_until[a]]
    middle = (found.seconds[np.minimum(look, count - 1)] + found.seconds[frame]) / 2
    half = np.searchsorted(found.seconds, middle, side="right")
    last = np.where(look < shot_last, half, shot_last)
    return _Runs(np.where(inner, a, a - 1), a, frame + 1, last, np.zeros(len(a), bool))


def _filled(found: _Found, runs: _Runs) -> _Rows:
    """Return the detections and the boxes in between, by frame, best score first."""
    lengths = np.maximum(runs.last - runs.first, 0)
    run = np.repeat(np.arange(len(lengths)), lengths)
    offset = np.arange(len(run)) - np.repeat(lengths.cumsum() - lengths, lengths)
    frame = runs.first[run] + offset
    a, b = runs.a[run], runs.b[run]
    start, end = found.seconds[found.frame[a]], found.seconds[found.frame[b]]
    share = (found.seconds[frame] - start) / np.where(end > start, end - start, 1.0)
    # Beyond the last detection a face goes on as it went, but not for longer than was seen.
    share = np.where(end > start, np.clip(share, -1.0, 2.0), 0.0)[:, None]
    boxes = (1 - share) * found.boxes[a] + share * found.boxes[b]
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    inside = np.clip(share[:, 0], 0.0, 1.0)
    scores = (1 - inside) * found.scores[a] + inside * found.scores[b]
    frames = np.concatenate([found.frame, frame])
    all_scores = np.concatenate([found.scores, scores.astype(np.float32)])
    order = np.lexsort((-all_scores, frames))
    return _Rows(
        frames[order],
        np.concatenate([found.track, found.track[a]])[order],
        np.concatenate([found.boxes, boxes.astype(np.float32)])[order],
        all_scores[order],
        np.concatenate([np.zeros(len(found.frame), bool), runs.predicted[run]])[order],
    )


def _numbers(rows: _Rows, count: int) -> Indices:
    """Return the ids of tracks [T]: from 1, in the order in which they are first shown."""
    first = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(first, rows.track, rows.frame)
    number = np.empty(count, np.int64)
    number[np.argsort(first, kind="stable")] = np.arange(1, count + 1)
    return number


def _tracks(
    found: _Found,
    rows: _Rows,
    numbers: Indices,
    female: NDArray[np.float64],
    attributes: NDArray[np.float32],
    classes: tuple[str, ...],
) -> list[Track]:
    """Describe the tracks, in the order of their ids."""
    count = len(numbers)
    frames = rows.frame[np.argsort(rows.track, kind="stable")]  # by track, then in time
    shown = np.bincount(rows.track, minlength=count)
    starts = shown.cumsum() - shown
    hits = np.bincount(found.track, minlength=count)
    scores = np.bincount(found.track, found.scores, count)
    tracks = []
    for row in np.argsort(numbers).tolist():
        first, last = frames[starts[row]], frames[starts[row] + shown[row] - 1]
        tracks.append(
            Track(
                id=int(numbers[row]),
                shot=int(found.shot[first]),
                first_seconds=float(found.seconds[first]),
                last_seconds=float(found.seconds[last]),
                frames=int(shown[row]),
                detections=int(hits[row]),
                score=float(scores[row] / hits[row]),
                female=float(female[row]),
                attributes=dict(zip(classes, attributes[row].tolist(), strict=True))
                if classes
                else {},
            )
        )
    return tracks
