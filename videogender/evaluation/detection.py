"""How well faces are found: average precision and recall at a rate of false alarms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from videogender.dataset import Entry, read_rgb
from videogender.frames import Faces

if TYPE_CHECKING:
    from videogender.detector import Detector

MATCH_IOU = 0.5

__all__ = [
    "MATCH_IOU",
    "DetectionFigures",
    "average_precision",
    "detect_all",
    "evaluate_detection",
    "iou",
    "judge",
]


@dataclass(frozen=True, slots=True)
class DetectionFigures:
    """What `evaluate_detection` found.

    Attributes:
        average_precision: area under precision over recall, at IoU 0.5, all points.
        recall_at_tenth, recall_at_one: recall at 0.1 and at 1 false alarm an image.
        faces: how many labelled faces counted; with none, the figures are 0.
        images: how many images were looked at.
    """

    average_precision: float
    recall_at_tenth: float
    recall_at_one: float
    faces: int
    images: int


def detect_all(detector: Detector, entries: Sequence[Entry]) -> Iterator[tuple[Entry, Faces]]:
    """Yield each image of a data file with the faces found in it."""
    size = detector.batch_size
    for start in range(0, len(entries), size):
        chunk = entries[start : start + size]
        yield from zip(chunk, detector([read_rgb(e.path) for e in chunk]), strict=True)


def evaluate_detection(
    found: Iterable[tuple[Entry, Faces]], least_px: float = 16.0, at_long_side: float = 640.0
) -> DetectionFigures:
    """Score detections against labels.

    A labelled face that is marked `ignore`, or is shorter than `least_px` once its image has been
    scaled to a long side of `at_long_side`, counts neither as found nor as missed, and neither does
    a detection that fits it best.

    Args:
        found: images with their faces, at a low face threshold (0.02 is usual).
        least_px: height in pixels.
        at_long_side: in pixels.
    """
    scores: list[NDArray[np.float32]] = []
    hits: list[NDArray[np.bool_]] = []
    faces = images = 0
    for entry, detections in found:
        images += 1
        truth = np.array([f["box"] for f in entry.faces], np.float32).reshape(-1, 4)
        scale = at_long_side / max(entry.width, entry.height)
        counts = (truth[:, 3] - truth[:, 1]) * scale >= least_px
        counts &= ~np.array([bool(f.get("ignore", False)) for f in entry.faces], bool)
        faces += int(counts.sum())
        outcome = judge(detections.boxes, truth, counts)
        judged = outcome >= 0
        scores.append(detections.scores[judged])
        hits.append(outcome[judged] == 1)
    score = np.concatenate(scores) if scores else np.zeros(0, np.float32)
    hit = np.concatenate(hits) if hits else np.zeros(0, bool)
    order = np.argsort(-score, kind="stable")
    hit = hit[order]
    found_so_far, false_so_far = hit.cumsum(), (~hit).cumsum()

    def recall_at(false_alarms: float) -> float:
        within = false_so_far <= false_alarms * images
        return float(found_so_far[within].max(initial=0) / max(faces, 1))

    return DetectionFigures(
        average_precision(hit, faces), recall_at(0.1), recall_at(1.0), faces, images
    )


def judge(
    boxes: NDArray[np.float32], truth: NDArray[np.float32], counts: NDArray[np.bool_]
) -> NDArray[np.int8]:
    """Say whether each detection is a hit (1), a false alarm (0) or neither (-1).

    Args:
        boxes: float32 [N, 4], best score first.
        truth: float32 [M, 4].
        counts: bool [M], False for faces that count neither way.
    """
    outcome = np.zeros(len(boxes), np.int8)
    if len(truth) == 0 or len(boxes) == 0:
        return outcome
    overlap = iou(boxes, truth)
    taken = np.zeros(len(truth), bool)
    for i, row in enumerate(overlap):
        # a face that counts and is still free goes before one that does not count
        free = np.where(counts & ~taken, row, 0.0)
        best = int(free.argmax())
        if free[best] >= MATCH_IOU:
            outcome[i], taken[best] = 1, True
        elif (row[~counts] >= MATCH_IOU).any():
            outcome[i] = -1
    return outcome


def average_precision(hit: NDArray[np.bool_], positives: int) -> float:
    """Return the area under the precision envelope.

    Args:
        hit: bool [N], whether each detection is right, best score first.
        positives: how many there were to find.
    """
    if positives == 0 or len(hit) == 0:
        return 0.0
    recall = hit.cumsum() / positives
    precision = hit.cumsum() / np.arange(1, len(hit) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall, prepend=0.0) * envelope).sum())


def iou(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the intersection over union [N, M] of boxes [N, 4] and [M, 4]."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = (high - low).clip(0).prod(2)
    area_a, area_b = ((v[:, 2:] - v[:, :2]).clip(0).prod(1) for v in (a, b))
    union = area_a[:, None] + area_b[None] - shared
    return np.asarray(shared / np.maximum(union, 1e-9), np.float32)
