"""All faces of a settled video as flat arrays: what figures and pictures are chosen from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from videogender.tracking.settle import Settled

__all__ = ["FlatFaces", "flatten", "frame_seconds", "stretches"]


@dataclass(frozen=True, slots=True, eq=False)
class FlatFaces:
    """The N faces of all frames, in order of time.

    Attributes:
        row: int64 [N], row of the frame.
        track: int64 [N], row of the track in `Settled.tracks`.
        boxes: float32 [N, 4], xyxy in pixels.
        scores: float32 [N].
        predicted: bool [N], the detector did not find it.
    """

    row: NDArray[np.int64]
    track: NDArray[np.int64]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    predicted: NDArray[np.bool_]


def flatten(settled: Settled) -> FlatFaces:
    """Return the faces of all frames, one after the other."""
    frames = [settled.faces(row) for row in range(len(settled))]
    counts = [len(faces) for faces in frames]
    if not sum(counts):
        nothing = np.zeros(0, np.int64)
        none = np.zeros((0, 4), np.float32)
        return FlatFaces(nothing, nothing, none, none[:, 0], np.zeros(0, bool))
    return FlatFaces(
        np.repeat(np.arange(len(frames)), counts),
        np.concatenate([faces.tracks for faces in frames]) - 1,
        np.concatenate([faces.boxes for faces in frames]),
        np.concatenate([faces.scores for faces in frames]),
        np.concatenate([faces.predicted for faces in frames]),
    )


def frame_seconds(seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how long each frame [F] is shown: until the next, the last as long as most are."""
    if len(seconds) < 2:
        return np.zeros(len(seconds))
    lengths = np.diff(seconds)
    return np.append(lengths, np.median(lengths))


def stretches(settled: Settled) -> dict[int, list[tuple[float, float]]]:
    """Return when each track is in view without a break, by id: (begin, end) in seconds."""
    flat, lengths = flatten(settled), frame_seconds(settled.seconds)
    order = np.lexsort((flat.row, flat.track))
    track, row = flat.track[order], flat.row[order]
    is_first = (np.diff(track, prepend=-1) != 0) | (np.diff(row, prepend=-2) != 1)
    first = np.flatnonzero(is_first)
    last = np.append(first[1:], len(row))[: len(first)] - 1
    begin, end = settled.seconds[row[first]], settled.seconds[row[last]] + lengths[row[last]]
    found: dict[int, list[tuple[float, float]]] = {}
    ids = (track[first] + 1).tolist()
    for id_, low, high in zip(ids, begin.tolist(), end.tolist(), strict=True):
        found.setdefault(id_, []).append((low, high))
    return found
