"""Matching of anchors and faces, against a slow version of the rule in the paper's words."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from videogender.network.anchors import anchors_for
from videogender.training.crops import Targets
from videogender.training.match import BACKGROUND, IGNORED, _match, match

GRIDS = tuple((128 // s, 128 // s) for s in (4, 8, 16, 32, 64, 128))


def targets_of(boxes: list[list[list[float]]], ignore: list[list[bool]] | None = None) -> Targets:
    most = max(len(b) for b in boxes)
    padded = torch.zeros(len(boxes), most, 4)
    ignored = torch.zeros(len(boxes), most, dtype=torch.bool)
    valid = torch.zeros(len(boxes), most, dtype=torch.bool)
    for i, faces in enumerate(boxes):
        for j, box in enumerate(faces):
            padded[i, j] = torch.tensor(box)
            ignored[i, j] = bool(ignore and ignore[i][j])
            valid[i, j] = True
    return Targets(padded, torch.full((len(boxes), most), -1), ignored, valid)


def slow_iou(box: NDArray[np.float32], anchor: NDArray[np.float32]) -> float:
    x, y, size = (float(v) for v in anchor)
    a = (x - size / 2, y - size / 2, x + size / 2, y + size / 2)
    wide = min(a[2], float(box[2])) - max(a[0], float(box[0]))
    high = min(a[3], float(box[3])) - max(a[1], float(box[1]))
    shared = max(0.0, wide) * max(0.0, high)
    area = float((box[2] - box[0]) * (box[3] - box[1]))
    return shared / (area + size * size - shared)


def slow_match(
    boxes: NDArray[np.float32], ignore: NDArray[np.bool_], anchors: NDArray[np.float32]
) -> tuple[NDArray[np.int64], bool]:
    """Return the match, and whether the rule leaves open which of two faces gets an anchor."""
    overlap = np.array([[slow_iou(b, a) for a in anchors] for b in boxes])
    wanted = [j for j in range(len(boxes)) if not ignore[j]]
    result = np.full(len(anchors), BACKGROUND)
    open_question = False
    # stage one: an anchor goes to its best face above the threshold, a face gets its best anchor
    for a in range(len(anchors)):
        best = max(wanted, key=lambda j: overlap[j, a], default=None)
        if best is not None and overlap[best, a] >= 0.35:
            result[a] = best
    owned: dict[int, int] = {}
    for j in wanted:
        if overlap[j].max() > 0:
            a = int(overlap[j].argmax())
            open_question |= a in owned
            owned[a] = result[a] = j
    # stage two: per face, the best free anchors above 0.1, up to six in all
    offers: dict[int, list[tuple[float, int]]] = {}
    for j in wanted:
        held = int((result == j).sum())
        free = [a for a in range(len(anchors)) if result[a] == BACKGROUND and overlap[j, a] > 0.1]
        free.sort(key=lambda a: -overlap[j, a])
        for a in free[: max(0, 6 - held)]:
            offers.setdefault(a, []).append((overlap[j, a], j))
    for a, faces in offers.items():
        result[a] = max(faces)[1]
    for a in range(len(anchors)):
        if result[a] == BACKGROUND and any(
            overlap[j, a] > 0.1 for j in range(len(boxes)) if ignore[j]
        ):
            result[a] = IGNORED
    return result, open_question


def random_faces(rng: np.random.Generator, count: int) -> NDArray[np.float32]:
    height = np.exp(rng.uniform(np.log(6), np.log(110), count))
    width = height * rng.uniform(0.6, 1.1, count)
    x, y = rng.uniform(0, 128 - width), rng.uniform(0, 128 - height)
    return np.stack([x, y, x + width, y + height], 1).astype(np.float32)


def test_match_follows_the_rule() -> None:
    rng = np.random.default_rng(1)
    anchors = anchors_for(GRIDS)
    faces, ignore, expected = [], [], []
    while len(faces) < 12:
        boxes = random_faces(rng, int(rng.integers(1, 6)))
        ignored = rng.random(len(boxes)) < 0.3
        result, open_question = slow_match(boxes, ignored, anchors.numpy())
        if not open_question:
            faces.append(boxes.tolist())
            ignore.append(ignored.tolist())
            expected.append(result)
    found = match(targets_of(faces, ignore), anchors).face.numpy()
    assert np.array_equal(found, np.stack(expected))
    assert (found == IGNORED).any()
    assert (found >= 0).any()


def test_batched_form_equals_the_loop_over_canvases() -> None:
    rng = np.random.default_rng(2)
    faces = [random_faces(rng, int(rng.integers(0, 9))).tolist() for _ in range(20)]
    ignore = [[bool(rng.random() < 0.3) for _ in f] for f in faces]
    targets, anchors = targets_of(faces, ignore), anchors_for(GRIDS)
    wanted = targets.valid & ~targets.ignore
    batched = _match(targets.boxes, wanted, targets.valid, anchors)
    assert torch.equal(match(targets, anchors).face, batched)


def count_of(faces: Tensor, face: int) -> int:
    return int((faces == face).sum())


def test_second_stage_is_per_face() -> None:
    # the large face has many anchors from stage one; the small one, between two sizes, has few
    large, small = [10.0, 10.0, 74.0, 74.0], [100.0, 100.0, 109.0, 109.0]
    both = match(targets_of([[large, small]]), anchors_for(GRIDS)).face[0]
    alone = match(targets_of([[small]]), anchors_for(GRIDS)).face[0]
    assert count_of(both, 0) > 6
    assert count_of(both, 1) == 6 == count_of(alone, 0)


def test_canvas_without_faces_is_background() -> None:
    found = match(targets_of([[], [[1.0, 1.0, 20.0, 20.0]]]), anchors_for(GRIDS)).face
    assert (found[0] == BACKGROUND).all()
    assert (found[1] == 0).any()


@pytest.mark.parametrize("box", [[3.0, 3.0, 5.0, 5.0], [0.0, 0.0, 128.0, 128.0]])
def test_every_face_gets_an_anchor(box: list[float]) -> None:
    assert (match(targets_of([[box]]), anchors_for(GRIDS)).face == 0).any()
