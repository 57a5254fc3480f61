"""The detector: pixels in, faces out, in the right place, for the right picture."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from videogender.config import DetectSettings
from videogender.detector import Detector
from videogender.errors import DeviceError
from videogender.frames import Frame, RgbPicture
from videogender.network.anchors import STRIDES, anchors_for
from videogender.network.boxes import encode
from videogender.network.heads import VOTES, AnchorNetwork, Predictions
from videogender.proposals import rank_within


class SpotNetwork(AnchorNetwork):
    """Answers "face" at the 32 px anchor whose centre is brightest in red, for bright cells only.

    Its first convolution is an identity, so that the detector's RGB/BGR handling is exercised:
    a picture is bright in red when channel 2 of the BGR input is.
    """

    name = "spot"
    taps = ("a", "b", "c", "d", "e", "f")
    level = 1  # stride 8, anchors of 32 px
    box_wh = (20.0, 28.0)

    def __init__(self) -> None:
        super().__init__([1] * 6)
        self.first = torch.nn.Conv2d(3, 3, 1, bias=False)
        self.first.weight.data = torch.eye(3)[:, :, None, None]

    @property
    def input_convolution(self) -> torch.nn.Conv2d:
        return self.first

    @property
    def has_gender(self) -> bool:
        return True

    def forward(self, x: torch.Tensor) -> Predictions:
        x = self.first(x)
        red = x[:, 2] + self.pixel_mean_bgr[2]
        grids = tuple((math.ceil(x.shape[2] / s), math.ceil(x.shape[3] / s)) for s in STRIDES)
        anchors = anchors_for(grids)
        logits = torch.full((len(x), len(anchors)), -20.0)
        start = grids[0][0] * grids[0][1]
        rows, columns = grids[self.level]
        cells = red[:, 4::8, 4::8][:, :rows, :columns]
        logits[:, start : start + rows * columns] = torch.where(
            cells > 200, 4.0 + (cells - 255) / 50, torch.tensor(-20.0)
        ).flatten(1)
        centre = anchors[:, :2]
        half = torch.tensor(self.box_wh) / 2
        deltas = encode(torch.cat([centre - half, centre + half], 1), anchors)
        return Predictions(logits, deltas.expand(len(x), -1, -1), (x,), anchors)

    def gender_logits(
        self,
        features: tuple[torch.Tensor, ...],
        image_index: torch.Tensor,
        anchor_index: torch.Tensor,
    ) -> torch.Tensor:
        margin = (anchor_index % 7).float() - 3 + image_index * 0.5
        return torch.stack([margin, torch.zeros_like(margin)], 1)


def spot_detector(**settings: object) -> Detector:
    return Detector(SpotNetwork(), replace(DetectSettings(), **settings))  # type: ignore[arg-type]


def picture(width: int, height: int, spots: list[tuple[int, int]], side: int = 6) -> np.ndarray:
    image = np.zeros((height, width, 3), np.uint8)
    for x, y in spots:
        image[y - side // 2 : y + side // 2, x - side // 2 : x + side // 2, 0] = 255
    return image


def test_box_is_where_the_face_is() -> None:
    faces = spot_detector()([picture(320, 240, [(100, 60)])])[0]
    assert faces.boxes.shape == (1, 4)
    np.testing.assert_allclose(faces.boxes[0], [100 - 10, 60 - 14, 100 + 10, 60 + 14], atol=0.01)


def test_colour_order_reaches_the_network() -> None:
    blue = picture(320, 240, [(100, 60)])[..., ::-1].copy()
    assert len(spot_detector()([blue])[0]) == 0


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (719, 1279), (641, 640), (2000, 300)])
def test_letterbox_round_trip(width: int, height: int) -> None:
    """A face in a shrunk picture comes back in source pixels, to within a cell of the network."""
    detector = spot_detector(long_side=320)
    inner = detector.input_size_wh(width, height)
    assert max(inner) == 320
    scale = width / inner[0]
    spot = (width // 3, height // 2)
    faces = detector([picture(width, height, [spot], side=round(9 * scale))])[0]
    assert len(faces) == 1
    x1, y1, x2, y2 = faces.boxes[0]
    assert abs((x1 + x2) / 2 - spot[0]) <= 4.5 * scale
    assert abs((y1 + y2) / 2 - spot[1]) <= 4.5 * scale
    np.testing.assert_allclose([x2 - x1, y2 - y1], [20 * scale, 28 * scale], rtol=0.02)


def test_small_pictures_are_not_enlarged() -> None:
    detector = spot_detector()
    assert detector.input_size_wh(320, 240) == (320, 240)
    assert detector.input_size_wh(3, 5000) == (1, 640)
    assert spot_detector(long_side=0).input_size_wh(4000, 3000) == (4000, 3000)


def test_batches_never_mix_pictures() -> None:
    """Each picture of a batch, of any size, gives what it gives alone; an empty one nothing."""
    images = [
        picture(320, 240, [(100, 60), (220, 180)]),
        np.zeros((240, 320, 3), np.uint8),
        picture(200, 320, [(20, 300)]),
        picture(320, 240, [(36, 36)]),
    ]
    together = spot_detector(batch_size=4)(images)
    assert [len(f) for f in together] == [2, 0, 1, 1]
    alone = [spot_detector(batch_size=1)([image])[0] for image in images]
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_array_equal(a.boxes, b.boxes)
        np.testing.assert_array_equal(a.scores, b.scores)


def test_thresholds() -> None:
    image = picture(320, 240, [(100, 60)])
    image[176:184, 196:204, 0] = 215
    scores = spot_detector(face_threshold=0.5)([image])[0].scores
    assert len(scores) == 2
    assert scores[0] > scores[1]
    between = float(scores.mean())
    assert len(spot_detector(face_threshold=between)([image])[0]) == 1
    assert len(spot_detector(min_face_px=28.5)([image])[0]) == 0
    assert len(spot_detector(min_face_px=27.5)([image])[0]) == 2


def test_suppressed_anchors_vote_on_gender() -> None:
    """The answer is the score-weighted mean of the best anchors' log-odds, by a slow count."""
    image = picture(320, 240, [(100, 60)], side=24)  # several bright cells, one face
    detector = spot_detector(nms_iou=0.2)
    faces = detector([image])[0]
    network = SpotNetwork()
    x = torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1)[None].float()
    x = torch.nn.functional.pad(x, (0, 0, 0, 16), value=0)
    predictions = network(x - torch.tensor(network.pixel_mean_bgr)[:, None, None])
    scores = predictions.face_logits[0].sigmoid()
    anchors = (scores > 0.5).nonzero().squeeze(1)
    assert len(anchors) > VOTES
    # scores are equal: the first anchor is the face, it and the first that it suppresses vote
    from videogender.network.boxes import decode, iou_matrix

    all_boxes = decode(predictions.box_deltas[0, anchors], predictions.anchors[anchors])
    kept: list[int] = []
    for i in range(len(anchors)):  # greedy suppression, one box after the other
        if all(iou_matrix(all_boxes[i : i + 1], all_boxes[j : j + 1]) <= 0.2 for j in kept):
            kept.append(i)
    owner = iou_matrix(all_boxes, all_boxes[kept]).argmax(1)
    mine = anchors[owner == 0][:VOTES]
    margins = (mine % 7).double() - 3
    expected = torch.sigmoid((margins * scores[mine]).sum() / scores[mine].sum())
    assert faces.female[0] == pytest.approx(float(expected), abs=1e-5)


def test_rank_within_counts_earlier_entries_of_the_same_owner() -> None:
    owner = torch.tensor([3, 0, 3, 3, 0, 7])
    assert rank_within(owner).tolist() == [0, 0, 1, 2, 1, 0]


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (8, 8)])
def test_small_sizes(size: tuple[int, int]) -> None:
    assert len(spot_detector()([np.zeros((*size, 3), np.uint8)])[0]) == 0


def test_takes_frames_and_pictures() -> None:
    image = picture(320, 240, [(100, 60)])
    frame = Frame(RgbPicture(image), 0, 0.0, "x")
    detector = spot_detector()
    for value in (image, frame, RgbPicture(image)):
        assert len(detector([value])[0]) == 1
    assert detector([]) == []


def test_missing_device_is_an_error() -> None:
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="cuda"):
            Detector.load("lite", device="cuda")
    with pytest.raises(DeviceError, match="unknown"):
        Detector.load("lite", device="tpu")
