"""Box arithmetic against slow NumPy loops written from the definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from videogender.network.boxes import area, decode, encode, iou_matrix, nms, vote


def random_boxes(seed: int, count: int, spread: float = 200.0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(-20, spread, (count, 2))
    return np.concatenate([corner, corner + rng.uniform(1, 80, (count, 2))], 1).astype(np.float32)


def random_anchors(seed: int, count: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    centre = rng.uniform(0, 640, (count, 2))
    size = rng.choice([16, 32, 64, 128, 256, 512], (count, 1))
    return np.concatenate([centre, size], 1).astype(np.float32)


def slow_iou(a: NDArray[np.float32], b: NDArray[np.float32]) -> np.float32:
    # float32 throughout: a threshold must not be met here and missed there
    zero = np.float32(0)
    wide = max(min(a[2], b[2]) - max(a[0], b[0]), zero)
    high = max(min(a[3], b[3]) - max(a[1], b[1]), zero)
    areas = [max(c[2] - c[0], zero) * max(c[3] - c[1], zero) for c in (a, b)]
    union = areas[0] + areas[1] - wide * high
    return np.float32(wide * high / union) if union > 0 else zero


def slow_nms(boxes: NDArray[np.float32], iou_above: float) -> list[int]:
    kept: list[int] = []
    for i in range(len(boxes)):
        if all(slow_iou(boxes[k], boxes[i]) <= np.float32(iou_above) for k in kept):
            kept.append(i)
    return kept


def check_nms(boxes: NDArray[np.float32], iou_above: float) -> list[int]:
    keep, owner = nms(torch.from_numpy(boxes), iou_above)
    expected = slow_nms(boxes, iou_above)
    assert keep.nonzero().squeeze(1).tolist() == expected
    for i in range(len(boxes)):
        if i in expected:
            assert owner[i] == i
        else:
            overlaps = [slow_iou(boxes[k], boxes[i]) for k in expected]
            assert int(owner[i]) in expected
            assert overlaps[expected.index(int(owner[i]))] == max(overlaps) > iou_above
    return expected


def test_decode_follows_the_formula() -> None:
    anchors = random_anchors(1, 200)
    deltas = np.random.default_rng(2).normal(0, 2, (200, 4)).astype(np.float32)
    got = decode(torch.from_numpy(deltas), torch.from_numpy(anchors)).numpy()
    for (cx, cy, size), (dx, dy, dw, dh), box in zip(anchors, deltas, got, strict=True):
        x, y = cx + dx * 0.1 * size, cy + dy * 0.1 * size
        w, h = size * math.exp(dw * 0.2), size * math.exp(dh * 0.2)
        assert box == pytest.approx([x - w / 2, y - h / 2, x + w / 2, y + h / 2], abs=2e-3)


def test_decode_of_zero_is_the_anchor() -> None:
    box = decode(torch.zeros(1, 4), torch.tensor([[100.0, 60.0, 32.0]]))
    assert box.tolist() == [[84.0, 44.0, 116.0, 76.0]]


def test_decode_stays_finite_for_absurd_sizes() -> None:
    box = decode(torch.tensor([[0.0, 0.0, 1e4, 1e4]]), torch.tensor([[100.0, 60.0, 512.0]]))
    assert box.isfinite().all()


def test_encode_is_the_inverse_of_decode() -> None:
    boxes, anchors = (
        torch.from_numpy(random_boxes(3, 500)),
        torch.from_numpy(random_anchors(4, 500)),
    )
    torch.testing.assert_close(decode(encode(boxes, anchors), anchors), boxes, atol=2e-3, rtol=0)


def test_encode_broadcasts_over_leading_dimensions() -> None:
    boxes, anchors = torch.from_numpy(random_boxes(5, 6)), torch.from_numpy(random_anchors(6, 4))
    every = encode(boxes[:, None], anchors[None])
    assert every.shape == (6, 4, 4)
    torch.testing.assert_close(every[2, 3], encode(boxes[2], anchors[3]))


def test_iou_matches_the_reference() -> None:
    a, b = random_boxes(7, 40), random_boxes(8, 30)
    got = iou_matrix(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    expected = np.array([[slow_iou(x, y) for y in b] for x in a])
    assert expected.max() > 0.3
    np.testing.assert_allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((0, 0, 10, 10), (0, 0, 10, 10), 1.0),
        ((0, 0, 10, 10), (5, 0, 15, 10), 1 / 3),
        ((0, 0, 10, 10), (10, 0, 20, 10), 0.0),  # they touch
        ((0, 0, 10, 10), (2, 2, 4, 4), 0.04),
        ((0, 0, 10, 10), (3, 3, 3, 8), 0.0),  # no width
        ((4, 4, 4, 4), (4, 4, 4, 4), 0.0),  # nothing at all, not 0 / 0
    ],
)
def test_iou_of_known_pairs(a: tuple[int, ...], b: tuple[int, ...], expected: float) -> None:
    got = iou_matrix(torch.tensor([a], dtype=torch.float32), torch.tensor([b], dtype=torch.float32))
    assert got.item() == pytest.approx(expected)


def test_area_of_an_inverted_box_is_zero() -> None:
    boxes = torch.tensor([[0.0, 0.0, 3.0, 4.0], [3.0, 0.0, 0.0, 4.0], [3.0, 4.0, 0.0, 0.0]])
    assert area(boxes).tolist() == [12.0, 0.0, 0.0]


@pytest.mark.parametrize("block", [512, 16])
@pytest.mark.parametrize("iou_above", [0.1, 0.3, 0.4, 0.7])
def test_nms_matches_the_greedy_loop(
    iou_above: float, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("videogender.network.boxes._BLOCK", block)
    rng = np.random.default_rng(9)
    faces = random_boxes(9, 25)
    boxes = (faces.repeat(6, 0) + rng.normal(0, 3, (150, 4))).astype(np.float32)
    boxes = boxes[rng.permutation(150)]  # best score first, wherever that is
    assert 5 < len(check_nms(boxes, iou_above)) < 145


@pytest.mark.parametrize("block", [512, 16])
def test_nms_follows_long_chains(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("videogender.network.boxes._BLOCK", block)
    # each box suppresses only its neighbour, so every second one stays
    boxes = np.array([[6 * i, 0, 6 * i + 10, 10] for i in range(41)], np.float32)
    assert check_nms(boxes, 0.2) == list(range(0, 41, 2))


def test_nms_of_groups_is_that_of_each_alone() -> None:
    boxes = torch.from_numpy(random_boxes(5, 120))
    group = torch.from_numpy(np.random.default_rng(5).integers(0, 3, 120))
    keep, owner = nms(boxes, 0.3, group)
    for one in range(3):
        mine = (group == one).nonzero().squeeze(1)
        alone, its_owner = nms(boxes[mine], 0.3)
        assert torch.equal(keep[mine], alone)
        assert torch.equal(owner[mine], mine[its_owner])


def test_nms_owner_is_the_kept_box_of_greatest_overlap() -> None:
    # the third overlaps both kept boxes, the second of them more
    boxes = np.array([[0, 0, 10, 10], [8, 0, 18, 10], [5, 0, 15, 10]], np.float32)
    keep, owner = nms(torch.from_numpy(boxes), 0.3)
    assert keep.tolist() == [True, True, False]
    assert owner.tolist() == [0, 1, 1]


def test_nms_of_nothing_and_of_one() -> None:
    keep, owner = nms(torch.zeros(0, 4), 0.4)
    assert (keep.shape, keep.dtype, owner.shape, owner.dtype) == (
        (0,),
        torch.bool,
        (0,),
        torch.long,
    )
    keep, owner = nms(torch.tensor([[1.0, 1.0, 5.0, 5.0]]), 0.4)
    assert (keep.tolist(), owner.tolist()) == ([True], [0])


def test_nms_keeps_boxes_without_area_to_themselves() -> None:
    boxes = np.array([[4, 4, 4, 4], [0, 0, 10, 10], [4, 4, 4, 4]], np.float32)
    keep, owner = nms(torch.from_numpy(boxes), 0.4)
    assert keep.tolist() == [True, True, True]
    assert owner.tolist() == [0, 1, 2]


corners = st.integers(0, 12)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(corners, corners, st.integers(1, 8), st.integers(1, 8)), max_size=14),
    st.sampled_from([0.25, 0.3, 0.5]),
)
def test_nms_on_coarse_boxes_with_ties(rows: list[tuple[int, ...]], iou_above: float) -> None:
    boxes = np.array([(x, y, x + w, y + h) for x, y, w, h in rows], np.float32).reshape(-1, 4)
    check_nms(boxes, iou_above)


def test_vote_is_the_score_weighted_mean_of_a_face_s_boxes() -> None:
    generator = np.random.default_rng(5)
    corner = generator.uniform(0, 60, (40, 2))
    boxes = np.hstack([corner, corner + generator.uniform(15, 40, (40, 2))]).astype(np.float32)
    scores = np.sort(generator.uniform(0.1, 1, 40).astype(np.float32))[::-1].copy()
    keep, owner = nms(torch.from_numpy(boxes), 0.3)
    voted = vote(torch.from_numpy(boxes), torch.from_numpy(scores), keep, owner, least_iou=0.4)
    overlap = iou_matrix(torch.from_numpy(boxes), torch.from_numpy(boxes)).numpy()
    kept = keep.nonzero().squeeze(1).tolist()
    assert len(kept) < 40
    for row, face in zip(voted.numpy(), kept, strict=True):
        voters = [i for i in range(40) if owner[i] == face and overlap[i, face] >= 0.4]
        expected = np.average(boxes[voters], axis=0, weights=scores[voters])
        np.testing.assert_allclose(row, expected, rtol=1e-5)
