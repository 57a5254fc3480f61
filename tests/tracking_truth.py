"""Moving faces whose truth is known, and the usual measures of a tracker's answer.

The measures follow their definitions step by step: MOTA by Bernardin and Stiefelhagen, "Evaluating
Multiple Object Tracking Performance: The CLEAR MOT Metrics", 2008; IDF1 by Ristani et al.,
"Performance Measures and a Data Set for Multi-Target, Multi-Camera Tracking", 2016.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from videogender.frames import Faces

Box = tuple[float, float, float, float]
Answer = dict[int, Box]  # boxes by id, of one frame


@dataclass
class Face:
    """A face that is in the scene from `begin` to `end` seconds."""

    box: Callable[[float], Box]
    begin: float = 0.0
    end: float = 1e9
    hidden: tuple[float, float] = (1e9, 1e9)  # in the scene, but behind something
    faint: tuple[float, float] = (1e9, 1e9)  # found with a low score only
    female: float = 0.8


def straight(
    x: float, y: float, size: float, vx: float = 0.0, vy: float = 0.0
) -> Callable[[float], Box]:
    """Return a box with its centre at (x, y) at time 0, moving at a steady speed in px/s."""

    def box(t: float) -> Box:
        cx, cy = x + vx * t, y + vy * t
        return cx - size / 2, cy - size / 2, cx + size / 2, cy + size / 2

    return box


@dataclass
class Scene:
    """Faces over time and a detector that is not perfect."""

    faces: list[Face]
    times: NDArray[np.float64]
    missing: float = 0.0  # share of detections that fail, by chance
    jitter: float = 0.03  # standard deviation of the edges, in face sizes
    false_alarms: float = 0.0  # a frame, each in a place of its own
    seed: int = 0
    truth: list[Answer] = field(init=False)
    found: list[Faces] = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        self.truth, self.found = [], []
        for t in self.times.tolist():
            here = {i: f for i, f in enumerate(self.faces) if f.begin <= t < f.end}
            seen = {i: f for i, f in here.items() if not f.hidden[0] <= t < f.hidden[1]}
            self.truth.append({i: f.box(t) for i, f in seen.items()})
            self.found.append(self._detect(rng, t, seen))

    def _detect(self, rng: np.random.Generator, t: float, seen: dict[int, Face]) -> Faces:
        rows: list[tuple[Box, float, float]] = []
        for face in seen.values():
            exact = face.box(t)
            if rng.random() < self.missing:
                continue
            # What stands behind another face is suppressed, as the detector does it.
            if any(iou(exact, other) > 0.4 for other, _, _ in rows):
                continue
            edges = np.array(exact) + rng.normal(0, self.jitter * (exact[2] - exact[0]), 4)
            faint = face.faint[0] <= t < face.faint[1]
            score = rng.uniform(0.25, 0.4) if faint else rng.uniform(0.75, 0.98)
            x0, y0, x1, y1 = edges.tolist()
            rows.append(((x0, y0, x1, y1), score, face.female))
        for _ in range(rng.poisson(self.false_alarms)):
            x, y, size = rng.uniform(0, 1200), rng.uniform(0, 700), rng.uniform(20, 80)
            rows.append(((x, y, x + size, y + size), rng.uniform(0.5, 0.7), 0.5))
        rows.sort(key=lambda row: -row[1])
        return Faces(
            np.array([row[0] for row in rows], np.float32).reshape(-1, 4),
            np.array([row[1] for row in rows], np.float32),
            np.array([row[2] for row in rows], np.float32),
        )


def iou(a: Box, b: Box) -> float:
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    if wide <= 0 or high <= 0:
        return 0.0
    both = wide * high
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return both / (area - both)


@dataclass
class Measures:
    mota: float
    idf1: float
    switches: int
    missed: int
    false: int


def measure(truth: list[Answer], answers: list[Answer], least_iou: float = 0.5) -> Measures:
    """Compare answers with the truth, frame by frame and over the whole."""
    missed = false = switches = total = 0
    partner: dict[int, int] = {}  # the last id that each true face was matched with
    together: dict[tuple[int, int], int] = {}
    for true, answer in zip(truth, answers, strict=True):
        total += len(true)
        near = {
            (t, a) for t, box in true.items() for a, other in answer.items()
            if iou(box, other) >= least_iou
        }  # fmt: skip
        for pair in near:
            together[pair] = together.get(pair, 0) + 1
        pairs = {t: a for t, a in partner.items() if (t, a) in near}  # what was right goes on
        rest_true = [t for t in true if t not in pairs]
        rest = [a for a in answer if a not in pairs.values()]
        if rest_true and rest:
            cost = np.array(
                [
                    [1 - iou(true[t], answer[a]) if (t, a) in near else 9 for a in rest]
                    for t in rest_true
                ]
            )
            for row, column in zip(*linear_sum_assignment(cost), strict=True):
                if cost[row, column] < 9:
                    pairs[rest_true[row]] = rest[column]
        switches += sum(t in partner and partner[t] != a for t, a in pairs.items())
        partner.update(pairs)
        missed += len(true) - len(pairs)
        false += len(answer) - len(pairs)
    return Measures(
        1 - (missed + false + switches) / total,
        _idf1(truth, answers, together),
        switches,
        missed,
        false,
    )


def _idf1(
    truth: list[Answer], answers: list[Answer], together: dict[tuple[int, int], int]
) -> float:
    ours = sorted({a for answer in answers for a in answer})
    theirs = sorted({t for true in truth for t in true})
    shared = np.array([[together.get((t, a), 0) for a in ours] for t in theirs]).reshape(
        len(theirs), -1
    )
    rows, columns = linear_sum_assignment(-shared)
    right = int(shared[rows, columns].sum())
    return 2 * right / (sum(map(len, truth)) + sum(map(len, answers)))


def answers_of(frames: Iterable[Faces]) -> list[Answer]:
    """Turn tracked faces into boxes by id."""
    return [
        {
            i: (b[0], b[1], b[2], b[3])
            for i, b in zip(f.tracks.tolist(), f.boxes.tolist(), strict=True)
        }
        for f in frames
    ]
