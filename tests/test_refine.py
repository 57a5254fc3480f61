"""The second look: what it is shown, whom it is asked about, and what both looks say together."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from coloured import box_of, coloured_lite, pass_colours, scene, solid
from numpy.typing import NDArray

from videogender.closeup import CloseUp, face_crops, sharpest_crops
from videogender.config import DetectSettings
from videogender.detector import Detector
from videogender.errors import ModelError
from videogender.frames import MEAN_RGB, Faces, Frame, RgbPicture
from videogender.network import checkpoints
from videogender.network.attributes import RefeedHead
from videogender.refine import RefinedDetector, Refiner

GENDERS = ("female", "male")


def refeed_file(
    path: Path, labels: tuple[str, ...] = GENDERS, level: int = 3, **facts: str
) -> Path:
    """Write a second look for which red is the first class and blue the second."""
    network = coloured_lite()
    head = RefeedHead.beside(network, 2, level)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.zero_()
    pass_colours(head.first)
    pass_colours(head.rest[1])
    head.rest[3].weight.data[0, 0] = head.rest[3].weight.data[1, 2] = 1.0
    metadata = {"task": "refeed", "labels": json.dumps(labels), **facts}
    checkpoints.save(network, path, metadata, half=False, head=head)
    return path


def colour_odds(value: float = 255.0) -> float:
    """Return the logit that the head gives a colour of this strength (the mean is red's)."""
    return max(0.0, (value - MEAN_RGB[0]) / 64)


@pytest.fixture
def refiner(tmp_path: Path) -> Refiner:
    return Refiner.load(refeed_file(tmp_path / "refeed.safetensors"))


def found(*boxes: list[float], female: float = math.nan) -> Faces:
    n = len(boxes)
    return Faces(
        np.array(boxes, np.float32).reshape(n, 4),
        np.linspace(0.9, 0.5, n, dtype=np.float32),
        np.full(n, female, np.float32),
    )


class Counted(RgbPicture):
    """A picture that counts how often its own pixels are asked for."""

    __slots__ = ("asked",)

    def __init__(self, array: NDArray[np.uint8]) -> None:
        super().__init__(array)
        object.__setattr__(self, "asked", [])

    def to_rgb(self, size_wh: tuple[int, int] | None = None) -> NDArray[np.uint8]:
        self.asked.append(size_wh)
        return super().to_rgb(size_wh)

    def squares_rgb(self, squares: NDArray[np.int64], side_px: int) -> NDArray[np.uint8]:
        self.asked.append(len(squares))
        return super().squares_rgb(squares, side_px)


def slow_crop(
    image: NDArray[np.uint8], box: list[float], side: int, face: float
) -> NDArray[np.float64]:
    """Average, pixel by pixel, what lies under each pixel of the crop; mean colour outside."""
    x0, y0, x1, y1 = box
    step = max(x1 - x0, y1 - y0) / face
    left, top = (x0 + x1) / 2 - side * step / 2, (y0 + y1) / 2 - side * step / 2
    padded = np.full((*image.shape[:2], 3), 0.0) + image
    out = np.empty((side, side, 3))
    for row in range(side):
        for column in range(side):
            xs = range(math.floor(left + column * step), math.ceil(left + (column + 1) * step))
            ys = range(math.floor(top + row * step), math.ceil(top + (row + 1) * step))
            inside = min(xs) >= 0 and min(ys) >= 0
            inside &= max(xs) < image.shape[1] and max(ys) < image.shape[0]
            block = padded[ys.start : ys.stop, xs.start : xs.stop] if inside else [[MEAN_RGB]]
            out[row, column] = np.mean(block, axis=(0, 1))
    return out


@pytest.mark.parametrize(
    "box",
    [
        [64.0, 32.0, 192.0, 160.0],  # two source pixels a pixel
        [100.0, 40.0, 132.0, 72.0],  # enlarged twice
        [-64.0, 100.0, 64.0, 228.0],  # partly beyond the left edge
        [200.0, 150.0, 264.0, 214.0],  # beyond the lower right corner
    ],
)
def test_crops_show_what_lies_there(box: list[float]) -> None:
    y, x = np.mgrid[:200, :240]
    smooth = np.stack([x, y, (x + y) / 2], -1).astype(np.uint8)
    crop = face_crops(smooth, np.array([box], np.float32), 112, 64)[0].astype(float)
    expected = slow_crop(smooth, box, 112, 64)
    # slopes of one step a pixel: what differs is the filter's width and rounding, not the place
    rim = (np.abs(expected - MEAN_RGB) < 1e-6).all(2)
    away = np.pad(rim, 2, mode="edge")
    near = sum(away[y : y + 112, x : x + 112] for y in range(5) for x in range(5))
    # picture and rim melt into each other where they meet
    assert np.abs(crop - expected)[near == 25].max(initial=0) <= 0.5
    assert np.abs(crop - expected)[near == 0].max() <= 1.5
    assert np.abs((crop - expected)[near == 0].mean(0)).max() < 0.8


def test_a_face_is_as_long_as_asked_for_and_in_the_middle() -> None:
    image = np.zeros((400, 400, 3), np.uint8)
    image[100:300, 150:250] = 255  # 100 × 200
    crop = face_crops(image, np.array([[150, 100, 250, 300]], np.float32), 224, 128)[0]
    bright = crop[..., 0] > 127
    rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
    assert (rows[0], rows[-1]) == (48, 175)
    assert (columns[0], columns[-1]) == (80, 143)


@pytest.mark.parametrize("box", [[500, 500, 600, 600], [-400, 10, -300, 60], [5, 5, 5, 5]])
def test_boxes_without_pixels_are_no_error(box: list[int]) -> None:
    crop = face_crops(solid("red", 64, 48), np.array([box], np.float32), 112, 64)
    assert crop.shape == (1, 112, 112, 3)
    if box[0] != 5:
        assert (crop == MEAN_RGB).all()


def test_a_sliver_of_memory_for_a_huge_face() -> None:
    image = np.zeros((512, 4000, 3), np.uint8)
    crop = face_crops(image, np.array([[-3000, -3000, 9000, 9000]], np.float32), 224, 128)[0]
    assert (crop == 0).any()
    assert (crop[0] == MEAN_RGB).all()


def test_the_answer_is_the_mean_of_both_looks_in_log_odds(refiner: Refiner) -> None:
    image = solid("red", 320, 240)
    faces = found([96, 56, 224, 184], female=0.2)
    refined = refiner([faces], [image], [(320, 240)])[0]
    expected = (math.log(0.2 / 0.8) + colour_odds()) / 2
    assert refined.female[0] == pytest.approx(1 / (1 + math.exp(-expected)), abs=1e-3)
    np.testing.assert_array_equal(refined.boxes, faces.boxes)
    assert faces.female[0] == np.float32(0.2)  # what was handed in stays


def test_share_and_temperature_of_the_file_count(tmp_path: Path) -> None:
    path = refeed_file(tmp_path / "w.safetensors", share="0.8", temperature="2")
    image = solid("blue", 320, 240)
    refined = Refiner.load(path)([found([96, 56, 224, 184], female=0.9)], [image], [(320, 240)])
    second = -max(0.0, (255 - MEAN_RGB[2]) / 64) / 2
    expected = 0.2 * math.log(9) + 0.8 * second
    assert refined[0].female[0] == pytest.approx(1 / (1 + math.exp(-expected)), abs=1e-3)


def test_without_a_first_answer_the_second_stands_alone(refiner: Refiner) -> None:
    refined = refiner([found([96, 56, 224, 184])], [solid("red", 320, 240)], [(320, 240)])[0]
    assert refined.female[0] == pytest.approx(1 / (1 + math.exp(-colour_odds())), abs=1e-3)


def test_only_the_largest_and_only_large_enough_faces_are_asked(tmp_path: Path) -> None:
    path = refeed_file(tmp_path / "w.safetensors", level=2)
    refiner = Refiner.load(path, min_face_px=30, most=2)
    sizes = [40, 20, 64, 35, 29]
    boxes = [[60.0 * i, 20.0, 60.0 * i + side / 2, 20.0 + side] for i, side in enumerate(sizes)]
    refined = refiner([found(*boxes, female=0.5)], [solid("red", 320, 240)], [(320, 240)])[0]
    assert (refined.female > 0.5).tolist() == [True, False, True, False, False]


def test_batches_give_what_single_pictures_give(refiner: Refiner) -> None:
    images = [solid("red", 320, 240), solid("blue", 320, 240), solid("green", 320, 240)]
    faces = [
        found([96, 56, 224, 184], [0, 0, 64, 64], female=0.4),
        found(),
        found([10, 10, 100, 100], female=0.6),
    ]
    sizes = [(320, 240)] * 3
    together = refiner(faces, images, sizes)
    for i in range(3):
        alone = refiner(faces[i : i + 1], images[i : i + 1], sizes[:1])[0]
        np.testing.assert_allclose(together[i].female, alone.female, atol=1e-5)
    assert len(together[1]) == 0
    assert refiner([], [], []) == []


def test_the_source_is_read_only_where_it_shows_more(refiner: Refiner) -> None:
    """Faces of 128 px fill the crop; smaller ones in a shrunk picture gain from the source."""
    source = np.zeros((480, 640, 3), np.uint8)
    source[::2], source[1::2] = (255, 0, 0), (0, 0, 255)  # stripes that shrinking averages away
    picture = Counted(source)
    scaled = picture.to_rgb((320, 240))
    large, small = [120.0, 40.0, 400.0, 320.0], [200.0, 100.0, 328.0, 228.0]
    picture.asked.clear()
    refiner([found(large)], [scaled], [(640, 480)], [picture])
    assert picture.asked == []
    refiner([found(small, small)], [scaled], [(640, 480)], [picture])
    assert picture.asked == [2]  # once for both, and only there
    same = Counted(scaled)  # nothing was shrunk
    refiner([found([20, 20, 60, 60])], [scaled], [(320, 240)], [same])
    assert same.asked == []


@pytest.mark.parametrize("shrink", [1.5, 2, 6])
def test_crops_from_the_source_show_the_same_place(shrink: float) -> None:
    """Whole, at an edge and beyond it; of large pictures some pixels are left out."""
    y, x = np.mgrid[:720, :960]
    smooth = np.stack([x / 4, y / 3, (x + y) / 7], -1).astype(np.uint8)
    picture = RgbPicture(smooth)
    scaled = picture.to_rgb((round(960 / shrink), round(720 / shrink)))
    wide = scaled.shape[1]
    boxes = np.array(
        [[40, 40, 64, 72], [wide - 20, 10, wide + 5, 40], [-10, 3, 15, 30], [1e4, 0, 1e4 + 9, 9]],
        np.float32,
    )
    sharp, middle = sharpest_crops([scaled], [picture], np.zeros(len(boxes), int), boxes, 80, 48)
    assert np.abs(middle.mean(1) - boxes.mean(1)).max() <= 1
    grow = 960 / wide
    for index, (crop, box) in enumerate(zip(sharp.astype(float), middle, strict=True)):
        # where the middles of the crop's pixels lie in the source
        left, top, right, _ = box * grow
        step = (right - left) / 48
        x, y = (start + (np.arange(80) - 16 + 0.5) * step for start in (left, top))
        x, y = np.meshgrid(x, y)
        deep = np.minimum(np.minimum(x, 960 - x), np.minimum(y, 720 - y)) / step
        inside = deep > 2
        assert inside.all() == (index == 0)
        assert inside.any() == (index != 3)
        wanted = np.stack([x / 4, y / 3, (x + y) / 7], -1)
        assert np.abs(crop - wanted)[inside].max(initial=0) <= 2.5
        assert (crop[deep < -2] == MEAN_RGB).all()


def test_both_kinds_of_crop_agree_on_the_place(tmp_path: Path) -> None:
    """A mark of one cell, at a face that is large in one picture and small in another."""
    refiner = Refiner.load(refeed_file(tmp_path / "w.safetensors"))
    source = np.zeros((960, 1280, 3), np.uint8)
    source[400:480, 600:680] = (255, 0, 0)
    picture = RgbPicture(source)
    box = [512.0, 312.0, 768.0, 568.0]  # the mark is in its middle
    for long_side in (320, 1280):  # of 64 px: from the source; of 256 px: from this
        size = (long_side, long_side * 3 // 4)
        scaled = picture.to_rgb(size)
        refined = refiner([found(box, female=0.5)], [scaled], [(1280, 960)], [picture])[0]
        off = refiner(
            [found([b + 300 for b in box], female=0.5)], [scaled], [(1280, 960)], [picture]
        )[0]
        assert refined.female[0] > 0.7
        assert off.female[0] == pytest.approx(0.5, abs=1e-3)


def test_other_classes_fill_the_attributes(tmp_path: Path) -> None:
    labels = ("mask", "no mask")
    refiner = Refiner.load(refeed_file(tmp_path / "w.safetensors", labels), min_face_px=50)
    faces = found([96, 56, 224, 184], [0, 0, 20, 20], female=0.3)
    refined = refiner([faces], [solid("blue", 320, 240)], [(320, 240)])[0]
    assert refined.classes == labels
    assert refined.attributes[0].sum() == pytest.approx(1, abs=1e-5)
    assert refined.attributes[0, 1] > 0.8
    assert np.isnan(refined.attributes[1]).all()  # it was too small to be asked
    np.testing.assert_array_equal(refined.female, faces.female)
    assert [name for name, _ in refined.attribute_labels(0.65)] == ["no mask", "unsure"]
    # a first look at the same classes is averaged with it
    first = np.array([[0.9, 0.1], [0.6, 0.4]], np.float32)
    both = refiner(
        [replace(faces, attributes=first, classes=labels)],
        [solid("blue", 320, 240)],
        [(320, 240)],
    )[0]
    odds = (math.log(9) - math.log(refined.attributes[0, 1] / refined.attributes[0, 0])) / 2
    assert both.attributes[0, 0] == pytest.approx(1 / (1 + math.exp(-odds)), abs=1e-3)
    np.testing.assert_allclose(both.attributes[1], first[1])


def test_files_of_other_tasks_are_refused(tmp_path: Path) -> None:
    network = coloured_lite()
    path = tmp_path / "w.safetensors"
    checkpoints.save(network, path, {})
    with pytest.raises(ModelError, match="its task is gender, but a second look needs") as caught:
        Refiner.load(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="expected classifier or refeed"):
        CloseUp(checkpoints.load_trained(path))


def refined_detector(path: Path, **settings: object) -> RefinedDetector:
    detector = Detector(
        coloured_lite(gender=True),
        replace(DetectSettings(), **settings),  # type: ignore[arg-type]
    )
    return RefinedDetector(detector, Refiner.load(path))


def test_it_stands_where_a_detector_does(tmp_path: Path) -> None:
    """The first look sees a red cell; around it the face is blue, which is for the second look."""
    image = scene(320, 320, (4, 4, "red"))
    refined = refined_detector(refeed_file(tmp_path / "w.safetensors"))
    plain = refined.detector([image])[0]
    np.testing.assert_allclose(plain.boxes, [box_of(4, 4)], atol=0.01)
    assert plain.female[0] > 0.8
    for value in (image, RgbPicture(image), Frame(RgbPicture(image), 0, None, "x")):
        faces = refined([value])[0]
        np.testing.assert_array_equal(faces.boxes, plain.boxes)
        assert faces.female[0] > 0.8
    np.testing.assert_allclose(
        refined.detect([image], [(320, 320)])[0].female, refined([image])[0].female, atol=1e-5
    )
    assert refined([]) == []
    assert refined.has_gender
    assert len(refined.at_threshold(0.9999)([image])[0]) == 0
    assert "second look" in refined.describe()


def test_two_looks_at_different_classes_are_refused(tmp_path: Path) -> None:
    refiner = Refiner.load(refeed_file(tmp_path / "w.safetensors", ("hat", "no hat")))
    detector = Detector(coloured_lite())
    RefinedDetector(detector, refiner)
    detector.classes = ("mask", "no mask")
    with pytest.raises(ModelError, match="hat, no hat apart, the first mask, no mask"):
        RefinedDetector(detector, refiner)
