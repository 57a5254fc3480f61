"""The losses, against versions that loop over single anchors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from videogender.network.lite import Lite
from videogender.opencv import opencv
from videogender.training.augment import apply_colour, augment, jpeg_noise
from videogender.training.crops import Targets
from videogender.training.loss import ciou_loss, detection_losses
from videogender.training.match import BACKGROUND, Matches, match
from videogender.training.sampling import quiet_opencv
from videogender.training.settings import LossSettings


def slow_ciou(a: list[float], b: list[float]) -> float:
    """1 − CIoU as arXiv 1911.08287 writes it: IoU, distance of centres, shape."""
    wide = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    high = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(v[2] - v[0]) * (v[3] - v[1]) for v in (a, b)]
    iou = wide * high / (sum(areas) - wide * high)
    hull = (max(a[2], b[2]) - min(a[0], b[0]), max(a[3], b[3]) - min(a[1], b[1]))
    gap = ((a[0] + a[2] - b[0] - b[2]) / 2, (a[1] + a[3] - b[1] - b[3]) / 2)
    angles = [math.atan((v[2] - v[0]) / (v[3] - v[1])) for v in (a, b)]
    shape = 4 / math.pi**2 * (angles[0] - angles[1]) ** 2
    alpha = shape / (1 - iou + shape) if shape else 0.0
    return 1 - iou + (gap[0] ** 2 + gap[1] ** 2) / (hull[0] ** 2 + hull[1] ** 2) + alpha * shape


def test_ciou_follows_the_formula() -> None:
    corner = torch.rand(50, 2, generator=torch.Generator().manual_seed(0)) * 40
    size = torch.rand(50, 2, generator=torch.Generator().manual_seed(1)) * 40 + 2
    boxes = torch.cat([corner, corner + size], 1)
    wanted = boxes.roll(1, 0)
    expected = [slow_ciou(a, b) for a, b in zip(boxes.tolist(), wanted.tolist(), strict=True)]
    assert ciou_loss(boxes, wanted).numpy() == pytest.approx(expected, abs=1e-4)
    assert ciou_loss(boxes, boxes).abs().max() < 1e-5
    assert max(expected) > 1.2, "some do not overlap"


def face_targets() -> Targets:
    boxes = torch.tensor(
        [
            [[8.0, 8.0, 40.0, 50.0], [70.0, 60.0, 90.0, 84.0], [100.0, 5.0, 112.0, 20.0]],
            [[20.0, 30.0, 100.0, 120.0], [2.0, 2.0, 14.0, 16.0], [0.0, 0.0, 0.0, 0.0]],
        ]
    )
    gender = torch.tensor([[0, 1, -1], [1, 0, -1]])
    ignore = torch.tensor([[False, False, False], [False, True, False]])
    valid = torch.tensor([[True, True, True], [True, True, False]])
    return Targets(boxes, gender, ignore, valid)


def softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def test_parts_follow_their_definitions() -> None:
    torch.manual_seed(0)
    network = Lite().eval()
    with torch.no_grad():
        predictions = network(torch.randn(2, 3, 128, 128))
        maps = network.gender_maps(predictions.features)
        targets = face_targets()
        matches = match(targets, predictions.anchors)
        settings = LossSettings(negatives=3, gender_smoothing=0.1, box=3.0, gender=5.0)
        found = detection_losses(network, predictions, matches, targets, settings)
    positive, negative, box, gender = [], [], 0.0, []
    for canvas in range(2):
        for anchor, face in enumerate(matches.face[canvas].tolist()):
            logit = float(predictions.face_logits[canvas, anchor])
            if face == BACKGROUND:
                negative.append(softplus(logit))
            if face < 0:
                continue
            positive.append(softplus(-logit))
            x, y, size = predictions.anchors[anchor].tolist()
            dx, dy, dw, dh = predictions.box_deltas[canvas, anchor].tolist()
            cx, cy = x + dx * 0.1 * size, y + dy * 0.1 * size
            w, h = size * math.exp(dw * 0.2), size * math.exp(dh * 0.2)
            own = [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]
            box += slow_ciou(own, targets.boxes[canvas, face].tolist())
            label = int(targets.gender[canvas, face])
            if label >= 0:
                logs = torch.log_softmax(maps[canvas, anchor], 0).tolist()
                gender.append((label, -0.95 * logs[label] - 0.05 * logs[1 - label]))
    count = len(positive)
    hard = sorted(negative, reverse=True)[: 3 * count]
    assert count >= 24
    assert float(found.face) == pytest.approx((sum(positive) + sum(hard)) / count, rel=1e-4)
    assert float(found.box) == pytest.approx(box / count, rel=1e-4)
    # women and men weigh the same in sum
    by_gender = [np.mean([loss for label, loss in gender if label == g]) for g in (0, 1)]
    assert float(found.gender) == pytest.approx(np.mean(by_gender), rel=1e-4)
    total = float(found.face) + 3 * float(found.box) + 5 * float(found.gender)
    assert float(found.total) == pytest.approx(total, rel=1e-5)


def test_ignored_anchors_cost_nothing() -> None:
    torch.manual_seed(0)
    network = Lite().eval()
    predictions = network(torch.randn(1, 3, 128, 128))
    targets = face_targets()
    one = Targets(*(getattr(targets, n)[1:] for n in ("boxes", "gender", "ignore", "valid")))
    matches = match(one, predictions.anchors)
    predictions.face_logits.retain_grad()
    settings = LossSettings(negatives=10_000)  # every background anchor is asked
    detection_losses(network, predictions, matches, one, settings).total.backward()
    assert predictions.face_logits.grad is not None
    untouched = predictions.face_logits.grad[0] == 0
    assert torch.equal(untouched, matches.face[0] == -2)
    assert untouched.any()


def test_canvases_without_faces_still_teach_background() -> None:
    torch.manual_seed(0)
    network = Lite().eval()
    predictions = network(torch.randn(1, 3, 64, 64))
    nothing = Targets(
        torch.zeros(1, 1, 4),
        torch.full((1, 1), -1),
        torch.zeros(1, 1, dtype=torch.bool),
        torch.zeros(1, 1, dtype=torch.bool),
    )
    matches = Matches(torch.full(predictions.face_logits.shape, BACKGROUND))
    losses = detection_losses(network, predictions, matches, nothing, LossSettings())
    losses.total.backward()  # type: ignore[no-untyped-call]
    assert float(losses.face.detach()) > 0
    assert float(losses.box.detach()) == float(losses.gender.detach()) == 0


def test_few_genders_are_drawn_from_all_of_the_batch() -> None:
    torch.manual_seed(0)
    network = Lite().eval()
    with torch.no_grad():
        predictions = network(torch.randn(2, 3, 128, 128))
        targets = face_targets()
        matches = match(targets, predictions.anchors)
        whole, some, two = (
            float(
                detection_losses(
                    network, predictions, matches, targets, LossSettings(gender_anchors=n)
                ).gender
            )
            for n in (512, 12, 2)
        )
    assert some == pytest.approx(whole, rel=0.3)
    assert len({whole, some, two}) == 3


def no_faces(count: int) -> Targets:
    return Targets(
        torch.zeros(count, 1, 4),
        torch.full((count, 1), -1),
        torch.zeros(count, 1, dtype=torch.bool),
        torch.zeros(count, 1, dtype=torch.bool),
    )


def test_augmented_pixels_stay_pixels_and_depend_on_the_seed_alone() -> None:
    images = torch.randint(0, 256, (64, 32, 32, 3), dtype=torch.uint8).permute(0, 3, 1, 2)

    def distorted(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return augment(images.clone(), no_faces(64), generator)

    one = distorted(1)
    assert one.dtype == torch.float32
    assert one.shape == images.shape
    assert float(one.min()) >= 0
    assert float(one.max()) <= 255
    assert torch.equal(one, distorted(1))
    assert not torch.equal(one, distorted(2))


def test_covered_faces_are_covered_inside_their_boxes_only() -> None:
    images = torch.full((200, 64, 64, 3), 100, dtype=torch.uint8).permute(0, 3, 1, 2)
    boxes = torch.tensor([[[10.0, 20.0, 40.0, 60.0]]]).expand(200, 1, 4)
    ones = torch.ones(200, 1, dtype=torch.bool)
    targets = Targets(boxes, torch.zeros(200, 1, dtype=torch.long), ~ones, ones)
    out = augment(images.clone(), targets, torch.Generator().manual_seed(0))
    outside = out.clone()
    outside[:, :, 20:60, 10:40] = out[:, :, :1, :1]
    rest = (outside - out[:, :, :1, :1]).abs().amax((1, 2, 3))
    inside = (out[:, :, 20:60, 10:40] - out[:, :, :1, :1]).abs().amax((1, 2, 3))
    covered = (rest < 1e-3) & (inside > 20)  # where nothing else disturbed the picture
    assert 15 < int(covered.sum()) < 60


def test_colour_maps_are_the_same_with_and_without_opencv(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4, 16, 16, 3), dtype=torch.uint8, generator=generator)
    matrix = torch.eye(3) + torch.rand(4, 3, 3, generator=generator) * 0.4 - 0.2
    offset = torch.rand(4, 3, generator=generator) * 40 - 20
    by_opencv = apply_colour(images.permute(0, 3, 1, 2), matrix, offset)
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    opencv.cache_clear()
    quiet_opencv.cache_clear()
    try:
        plain = apply_colour(images.permute(0, 3, 1, 2), matrix, offset)
    finally:
        opencv.cache_clear()
        quiet_opencv.cache_clear()
    assert (by_opencv - plain).abs().max() <= 1.01
    pixel = matrix[2] @ images[2, 5, 7].float() + offset[2]
    assert plain[2, :, 5, 7].numpy() == pytest.approx(pixel.clamp(0, 255).numpy(), abs=1e-3)


def test_jpeg_noise_quantises_frequencies() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(1, 3, 32, 32, generator=generator) * 255
    errors = [
        float((jpeg_noise(noise, torch.tensor([q])) - noise).abs().mean())
        for q in (20.0, 60.0, 95.0)
    ]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 6
    once = jpeg_noise(noise, torch.tensor([30.0]))
    assert (jpeg_noise(once, torch.tensor([30.0])) - once).abs().max() < 0.01  # nothing more goes
    flat = torch.full((1, 3, 16, 16), 130.0)
    assert (jpeg_noise(flat, torch.tensor([90.0])) - flat).abs().max() <= 0.5
