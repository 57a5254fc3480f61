"""How well faces are found: average precision and recall at a rate of false alarms."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from videogender.dataset import Entry, read_picture
from videogender.frames import Faces

MATCH_IOU = 0.5

__all__ = [
    "MATCH_IOU",
    "DetectionFigures",
    "FaceFinder",
    "Judged",
    "Range",
    "average_precision",
    "detect_all",
    "evaluate_detection",
    "iou",
    "judge",
    "judge_all",
]


class FaceFinder(Protocol):
    """What finds faces: a `videogender.detector.Detector`, or something measured beside it."""

    @property
    def batch_size(self) -> int:
        """Pictures that it takes together, at least 1."""

    def __call__(self, images: Sequence[NDArray[np.uint8]]) -> list[Faces]:
        """Find the faces of HWC uint8 **RGB** images, boxes in their own pixels."""


@dataclass(frozen=True, slots=True)
class Range:
    """Which labelled faces count, by height; all others count neither as found nor as missed.

    As in COCO's evaluation, a false alarm whose own height lies outside does not count either.

    Attributes:
        least_px, most_px: height in pixels, the least included, the most not.
        at_long_side: heights are those after the picture has been scaled to this long side.
    """

    least_px: float = 16.0
    most_px: float = math.inf
    at_long_side: float = 640.0

    def holds(self, boxes: NDArray[np.float32], entry: Entry) -> NDArray[np.bool_]:
        """Tell which boxes [N, 4] of a picture have such a height."""
        height = (boxes[:, 3] - boxes[:, 1]) * (self.at_long_side / max(entry.width, entry.height))
        inside: NDArray[np.bool_] = (height >= self.least_px) & (height < self.most_px)
        return inside


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


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """The detections of a set that count, best score first.

    Attributes:
        hit: bool [N], whether each is right.
        image: int64 [N], the image it is in.
        faces: int64 [I], for each image how many labelled faces count.
    """

    hit: NDArray[np.bool_]
    image: NDArray[np.int64]
    faces: NDArray[np.int64]

    def figures(self) -> DetectionFigures:
        """Sum the outcomes up."""
        faces, images = int(self.faces.sum()), len(self.faces)
        found_so_far, false_so_far = self.hit.cumsum(), (~self.hit).cumsum()

        def recall_at(false_alarms: float) -> float:
            within = false_so_far <= false_alarms * images
            return float(found_so_far[within].max(initial=0) / max(faces, 1))

        precision = average_precision(self.hit, faces)
        return DetectionFigures(precision, recall_at(0.1), recall_at(1.0), faces, images)


def detect_all(finder: FaceFinder, entries: Sequence[Entry]) -> Iterator[tuple[Entry, Faces]]:
    """Yield each image of a data file with the faces found in it.

    Raises:
        TrainingError: if one cannot be read, or has another size than its labels are for.
    """
    size = finder.batch_size
    for start in range(0, len(entries), size):
        chunk = entries[start : start + size]
        yield from zip(chunk, finder([read_picture(e) for e in chunk]), strict=True)


def evaluate_detection(
    found: Iterable[tuple[Entry, Faces]], least_px: float = 16.0, at_long_side: float = 640.0
) -> DetectionFigures:
    """Score detections against labels.

    A labelled face that is marked `ignore`, or is shorter than `least_px` once its image has been
    scaled to a long side of `at_long_side`, counts neither as found nor as missed, and neither does
    a detection that fits it best, or a false alarm that is shorter itself.

    Args:
        found: images with their faces, at a low face threshold (0.02 is usual).
        least_px: height in pixels.
        at_long_side: in pixels.
    """
    return judge_all(found, Range(least_px, at_long_side=at_long_side)).figures()


def judge_all(found: Iterable[tuple[Entry, Faces]], heights: Range) -> Judged:
    """Judge the detections of a set, over the labelled faces of some heights.

    Args:
        found: images with their faces.
        heights: faces outside it, and those marked `ignore`, count neither way.
    """
    scores: list[NDArray[np.float32]] = [np.zeros(0, np.float32)]
    hits: list[NDArray[np.bool_]] = [np.zeros(0, bool)]
    images: list[NDArray[np.int64]] = [np.zeros(0, np.int64)]
    faces: list[int] = []
    for entry, detections in found:
        truth = np.array([f["box"] for f in entry.faces], np.float32).reshape(-1, 4)
        counts = heights.holds(truth, entry)
        counts &= ~np.array([bool(f.get("ignore", False)) for f in entry.faces], bool)
        outcome = judge(detections.boxes, truth, counts)
        outcome[(outcome == 0) & ~heights.holds(detections.boxes, entry)] = -1
        judged = outcome >= 0
        scores.append(detections.scores[judged])
        hits.append(outcome[judged] == 1)
        images.append(np.full(int(judged.sum()), len(faces), np.int64))
        faces.append(int(counts.sum()))
    order = np.argsort(-np.concatenate(scores), kind="stable")
    return Judged(
        np.concatenate(hits)[order], np.concatenate(images)[order], np.array(faces, np.int64)
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
    for i in np.flatnonzero(overlap.max(1) >= MATCH_IOU).tolist():
        row = overlap[i]
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
