"""Large faces are asked anew, at sizes that suit the network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from videogender import Detector
from videogender.config import DetectSettings
from videogender.network import checkpoints
from videogender.network.boxes import decode
from videogender.network.heads import AnchorNetwork
from videogender.network.large import CUT_PX, FACE_PX, TOGETHER, large_face_logits
from videogender.weights_store import resolve

STILL = Path(__file__).parent.parent / "samples" / "stills" / "obama.jpg"


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector.load("lite", device="cpu", settings=DetectSettings(precision="fp32"))


@pytest.fixture(scope="module")
def portrait(detector: Detector) -> NDArray[np.uint8]:
    """A picture of 640 × 640 pixels with one face of 220 in its middle."""
    with Image.open(STILL) as image:
        pixels = np.asarray(image.convert("RGB"))
    (x1, y1, x2, y2) = detector([pixels])[0].boxes[0].tolist()
    reach = max(x2 - x1, y2 - y1) * 640 / 220 / 2
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    cut = Image.fromarray(pixels).crop((x - reach, y - reach, x + reach, y + reach))
    return np.asarray(cut.resize((640, 640)))


def inputs(detector: Detector, *pictures: NDArray[np.uint8]) -> torch.Tensor:
    return detector._tensor(pictures, pictures[0].shape[:2])


def answer(network: AnchorNetwork, square: NDArray[np.uint8], box: list[float]) -> float:
    """One look, by the book: the log-odds of female of the face that fills `box`."""
    pixels = torch.tensor(square.astype(np.float32) - [123, 117, 104]).permute(2, 0, 1)[None]
    with torch.no_grad():
        seen = network(pixels.float())
        every = torch.arange(len(seen.anchors))
        gender = network.gender_logits(seen.features, torch.zeros_like(every), every).numpy()
    boxes = decode(seen.box_deltas[0], seen.anchors).numpy()
    shared = np.prod(
        np.clip(np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2]), 0, None), 1
    )
    sizes = np.prod(boxes[:, 2:] - boxes[:, :2], 1) + (box[2] - box[0]) * (box[3] - box[1])
    score = 1 / (1 + np.exp(-seen.face_logits[0].numpy()))
    score[shared / (sizes - shared) <= 0.4] = 0
    best = np.argsort(-score)[:6]
    return float(np.average(gender[best, 0] - gender[best, 1], weights=score[best]))


def test_the_answer_is_the_mean_of_two_smaller_looks(
    detector: Detector, portrait: NDArray[np.uint8]
) -> None:
    box = [210.0, 210.0, 390.0, 430.0]  # 180 × 220 about (300, 320)
    side = round(220 * CUT_PX / FACE_PX)
    corner = (300 - side // 2, 320 - side // 2)
    square = Image.fromarray(portrait).crop((*corner, corner[0] + side, corner[1] + side))
    looks = []
    for px in (CUT_PX, CUT_PX // 2):
        small = np.asarray(square.resize((px, px), Image.Resampling.BILINEAR))
        k = px / side
        inside = [(v - corner[n % 2]) * k for n, v in enumerate(box)]
        looks.append(answer(detector.network, small, inside))
    with torch.inference_mode():
        found = large_face_logits(
            detector.network, inputs(detector, portrait), torch.tensor([0]), torch.tensor([box])
        )
    assert float(found[0, 0] - found[0, 1]) == pytest.approx(np.mean(looks), abs=0.25)


def test_faces_do_not_see_each_other(detector: Detector, portrait: NDArray[np.uint8]) -> None:
    count = TOGETHER + 3
    pictures = inputs(detector, portrait, np.ascontiguousarray(portrait[:, ::-1]))
    image = torch.arange(count) % 2
    shift = torch.linspace(-40, 40, count)[:, None]
    boxes = torch.tensor([[210.0, 200.0, 410.0, 430.0]]) + shift
    with torch.inference_mode():
        together = large_face_logits(detector.network, pictures, image, boxes)
        alone = [
            large_face_logits(detector.network, pictures, image[i : i + 1], boxes[i : i + 1])
            for i in range(count)
        ]
    assert together.shape == (count, 2)
    torch.testing.assert_close(together, torch.cat(alone), equal_nan=True, rtol=0, atol=1e-3)


def test_beyond_the_edge_and_where_nothing_is(
    detector: Detector, portrait: NDArray[np.uint8]
) -> None:
    corner = np.ascontiguousarray(portrait[210:402, 210:402])  # the face fills the picture
    with torch.inference_mode():
        edge = large_face_logits(
            detector.network,
            inputs(detector, corner),
            torch.tensor([0]),
            torch.tensor([[-10.0, -5.0, 195.0, 215.0]]),
        )
        none = large_face_logits(
            detector.network,
            inputs(detector, np.full((256, 256, 3), 90, np.uint8)),
            torch.tensor([0, 0]),
            torch.tensor([[300.0, 300.0, 500.0, 500.0], [20.0, 20.0, 21.0, 240.0]]),
        )
    assert edge.isfinite().all()
    assert none[0].isfinite().all()
    assert none[1].isnan().all()  # no anchor's box is so narrow


def test_only_large_faces_of_lite_are_asked_anew(
    monkeypatch: pytest.MonkeyPatch, portrait: NDArray[np.uint8]
) -> None:
    network = checkpoints.load_trained(resolve("lite")).network
    detector = Detector(network)
    small = np.asarray(Image.fromarray(portrait).resize((320, 320)))  # a face of 110 px
    both = [float(faces.female[0]) for faces in detector([portrait, small])]
    monkeypatch.setattr(type(network), "large_face_px", None)
    plain = [float(faces.female[0]) for faces in detector([portrait, small])]
    assert both[1] == pytest.approx(plain[1], abs=1e-6)
    assert abs(both[0] - plain[0]) > 1e-4
