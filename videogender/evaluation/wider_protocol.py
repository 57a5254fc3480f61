"""WIDER FACE's official measure: average precision over its easy, medium and hard faces.

As `wider_eval` of the WIDER FACE authors (Yang et al., "WIDER FACE: A Face Detection Benchmark",
CVPR 2016) computes it, which differs from the usual average precision:

- scores are first stretched so that the set's lowest is 0 and its highest 1;
- precision and recall are taken at 1000 thresholds, not at every score;
- a detection belongs to the face that it overlaps most, in pixels counted with both ends included;
  whatever belongs to a face that the level does not count is left out, and a second detection of
  a face is a false alarm;
- pictures without labelled faces, or without detections, are passed over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from videogender.dataset import Entry
from videogender.evaluation.bootstrap import Interval, interval
from videogender.frames import Faces

LEVELS = ("easy", "medium", "hard")  # a face of one level counts at those after it, too
THRESHOLDS = 1000
LEAST_IOU = 0.5
OFFICIAL_BOXES = "wider_boxes"  # attribute: boxes of a picture in the official files, empty or not

__all__ = ["LEVELS", "OFFICIAL_BOXES", "WiderFigures", "evaluate_wider", "has_levels"]


@dataclass(frozen=True, slots=True)
class WiderFigures:
    """What one level came to.

    Attributes:
        average_precision: by the official protocol.
        interval: its 95 % bootstrap interval, over images, scores stretched once.
        faces: how many the level counts.
    """

    average_precision: float
    interval: Interval
    faces: int


def has_levels(entries: Sequence[Entry]) -> bool:
    """Tell whether labelled faces name their easiest level as `wider`."""
    return any(face.get("wider") in LEVELS for entry in entries for face in entry.faces)


def evaluate_wider(found: Sequence[tuple[Entry, Faces]]) -> dict[str, WiderFigures]:
    """Score detections as the official protocol does.

    Args:
        found: images with their faces; a labelled face's `wider` names the easiest level that
            counts it, and faces without it count nowhere.

    Returns:
        figures by level.
    """
    scores = [faces.scores.astype(np.float64) for _, faces in found]
    everything = np.concatenate([np.zeros(0), *scores])
    low, high = everything.min(initial=np.inf), everything.max(initial=-np.inf)
    span = high - low if high > low else 1.0
    matched = [_Match.of(entry, faces) for entry, faces in found]
    result = {}
    for rank, level in enumerate(LEVELS):
        table = np.zeros((len(found), THRESHOLDS, 2))  # proposals and faces found, by threshold
        positives = np.zeros(len(found))
        for row, match in enumerate(matched):
            counts = match.rank <= rank
            positives[row] = counts.sum()
            boxes = found[row][0].attributes.get(OFFICIAL_BOXES, len(counts))
            if boxes and len(scores[row]):
                table[row] = match.table(counts, (scores[row] - low) / span)
        result[level] = WiderFigures(
            float(_precision(table.sum(0)[None], positives.sum()[None])[0]),
            interval(partial(_resampled, table=table, positives=positives), len(found)),
            int(positives.sum()),
        )
    return result


@dataclass(frozen=True, slots=True, eq=False)
class _Match:
    """Which face each detection of a picture belongs to.

    Attributes:
        face: int64 [N], the face that each detection overlaps most, best score first.
        fits: bool [N], whether by enough.
        rank: int64 [M], the easiest level of each face, by number; beyond the last for none.
    """

    face: NDArray[np.int64]
    fits: NDArray[np.bool_]
    rank: NDArray[np.int64]

    @classmethod
    def of(cls, entry: Entry, faces: Faces) -> _Match:
        """Match the detections of one picture, in pixels of the official file."""
        scale = float(entry.attributes.get("orig_width", entry.width)) / entry.width
        truth = np.array([f["box"] for f in entry.faces], np.float64).reshape(-1, 4) * scale
        rank = [
            LEVELS.index(f["wider"]) if f.get("wider") in LEVELS else len(LEVELS)
            for f in entry.faces
        ]
        if not len(truth) or not len(faces):
            nothing = np.zeros(len(faces), np.int64)
            return cls(nothing, nothing.astype(bool), np.array(rank, np.int64))
        overlap = _iou(faces.boxes.astype(np.float64) * scale, truth)
        return cls(overlap.argmax(1), overlap.max(1) >= LEAST_IOU, np.array(rank, np.int64))

    def table(self, counts: NDArray[np.bool_], scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return proposals and faces found [THRESHOLDS, 2], for scores between 0 and 1."""
        counted = counts[self.face] if len(counts) else np.ones(len(scores), bool)
        proposal = ~(self.fits & ~counted)
        right = np.flatnonzero(self.fits & counted)
        _, first = np.unique(self.face[right], return_index=True)
        new = np.zeros(len(scores), bool)
        new[right[first]] = True
        thresholds = 1 - np.arange(1, THRESHOLDS + 1) / THRESHOLDS
        above = np.searchsorted(-scores, -thresholds, side="right")
        sums = np.zeros((len(scores) + 1, 2))
        sums[1:] = np.stack([proposal, new], 1).cumsum(0)
        return sums[above]


def _iou(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the overlap [N, M], both ends of a box being part of it."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = (high - low + 1).clip(0).prod(2)
    area_a, area_b = ((v[:, 2:] - v[:, :2] + 1).prod(1) for v in (a, b))
    overlap: NDArray[np.float64] = shared / (area_a[:, None] + area_b[None] - shared)
    return overlap


def _precision(table: NDArray[np.float64], positives: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the average precision [R] of tables [R, THRESHOLDS, 2] and positives [R]."""
    proposals, hits = table[..., 0], table[..., 1]
    precision = np.divide(hits, proposals, out=np.zeros_like(hits), where=proposals > 0)
    recall = hits / np.maximum(positives, 1)[:, None]
    envelope = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
    area: NDArray[np.float64] = (np.diff(recall, axis=1, prepend=0.0) * envelope).sum(1)
    return area


def _resampled(
    times: NDArray[np.float64], table: NDArray[np.float64], positives: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the average precision [R] of sets that hold each image `times` [R, I] often."""
    summed = (times @ table.reshape(len(table), -1)).reshape(-1, THRESHOLDS, 2)
    return _precision(summed, times @ positives)
