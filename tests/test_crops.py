"""What a training canvas shows, measured in its pixels, against the boxes that come with it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawn_faces import write_portraits, write_scenes, write_set
from numpy.typing import NDArray
from torch import Tensor

from videogender.dataset import read_entries
from videogender.errors import TrainingError
from videogender.opencv import opencv
from videogender.training.crops import Crops, Targets, plan_crops
from videogender.training.data import ImageStore
from videogender.training.sampling import (
    _sample_gather,
    _sample_opencv,
    quiet_opencv,
    sample_pixels,
)
from videogender.training.settings import CropSettings

BLACK = (0.0, 0.0, 0.0)
STILL = CropSettings(rotation_degrees=0.0, least_face_px=0.0, least_visible=0.0)


@pytest.fixture(scope="module")
def rectangles(tmp_path_factory: pytest.TempPathFactory) -> ImageStore:
    """Black pictures with one white face each, off the middle and not square."""
    places = [
        ((160, 120), [100, 20, 128, 58]),
        ((150, 200), [10, 130, 42, 180]),
        ((300, 240), [200, 40, 232, 90]),
    ]
    folder = tmp_path_factory.mktemp("rectangles")
    for name, gender in (("scenes", "female"), ("portraits", "male")):
        images = []
        for (width, height), (x1, y1, x2, y2) in places:
            image = np.zeros((height, width, 3), np.uint8)
            image[y1:y2, x1:x2] = 255
            images.append(image)
        entries = [{"faces": [{"box": box, "gender": gender}]} for _, box in places]
        write_set(folder / name, entries, images)
    return ImageStore(read_entries(folder / "scenes"), read_entries(folder / "portraits"))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def render(
    store: ImageStore, settings: CropSettings, seed: int = 0, canvases: int = 24, side: int = 256
) -> tuple[Crops, Targets, NDArray[np.uint8]]:
    crops, targets = plan_crops(store, canvases, side, settings, seeded(seed))
    return crops, targets, sample_pixels(store, crops, BLACK)[:, 0].numpy()


def tiles_with_boxes(
    crops: Crops, targets: Targets, pixels: NDArray[np.uint8]
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float64], int]]:
    """Yield each tile's pixels, its one box relative to it, and the gender; no box is all NaN."""
    used = targets.valid.sum(1).tolist()
    taken = [0] * len(pixels)
    for t, canvas in enumerate(crops.canvas.tolist()):
        x1, y1 = (round(v) for v in crops.corner[t].tolist())
        x2, y2 = (round(v + float(crops.tile[t])) for v in crops.corner[t].tolist())
        shown = pixels[canvas, y1:y2, x1:x2]
        box, gender = np.full(4, np.nan), -1
        if taken[canvas] < used[canvas]:
            candidate = targets.boxes[canvas, taken[canvas]].numpy().astype(float)
            centre = (candidate[:2] + candidate[2:]) / 2
            if x1 <= centre[0] <= x2 and y1 <= centre[1] <= y2:
                box = candidate - [x1, y1, x1, y1]
                gender = int(targets.gender[canvas, taken[canvas]])
                taken[canvas] += 1
        yield shown, box, gender
    assert taken == used, "every face lies in a tile of its own picture, in order"


def bright_bounds(shown: NDArray[np.uint8]) -> NDArray[np.float64] | None:
    ys, xs = np.nonzero(shown > 127)
    if len(xs) == 0:
        return None
    return np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], float)


@pytest.mark.parametrize("mosaics", [0.0, 1.0])
def test_boxes_lie_on_the_pixels_of_their_faces(rectangles: ImageStore, mosaics: float) -> None:
    settings = CropSettings(**vars_of(STILL) | {"mosaic_share": mosaics})
    errors, mirrored = [], set()
    for seed in range(4):
        crops, targets, pixels = render(rectangles, settings, seed)
        assert (crops.grid.max() > 1) == (mosaics > 0)
        mirrored |= set(crops.to_source[:, 0, 0].sign().tolist())
        for shown, box, _ in tiles_with_boxes(crops, targets, pixels):
            bounds = bright_bounds(shown)
            if bounds is None or np.isnan(box).any():
                # no face is left, or a sliver that is too thin to reach half of full brightness
                assert bounds is None or (bounds[2:] - bounds[:2]).min() <= 2
                continue
            errors.append(bounds - box)
    assert mirrored == {1.0, -1.0}
    assert len(errors) > 60
    assert np.abs(errors).max() < 1.6  # half a pixel of the canvas, and one of the pyramid's
    assert np.abs(np.mean(errors, 0)).max() < 0.12  # no shift: half a pixel would show


def vars_of(settings: CropSettings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in settings.__dataclass_fields__}


def test_mosaics_hold_portraits_among_some_scenes(rectangles: ImageStore) -> None:
    settings = CropSettings(**vars_of(STILL) | {"mosaic_share": 1.0})
    crops, _, _ = render(rectangles, settings, canvases=100)
    from_scenes = (crops.image < len(rectangles.scene_ids)).float().mean()
    assert 0.08 < from_scenes < 0.24
    none = CropSettings(**vars_of(STILL) | {"mosaic_share": 0.0})
    crops, _, _ = render(rectangles, none, canvases=100)
    assert (crops.image < len(rectangles.scene_ids)).all()


def test_turned_faces_keep_their_middle(tmp_path: Path) -> None:
    image = np.zeros((200, 200, 3), np.uint8)
    image[150:166, 40:56] = 255
    write_set(tmp_path, [{"faces": [{"box": [40, 150, 56, 166]}]}], [image])
    store = ImageStore(read_entries(tmp_path), [])
    settings = CropSettings(rotation_degrees=30.0, aspect=0.0, native_zoom=(0.9, 1.6))
    angles, errors = [], []
    for seed in range(3):
        crops, targets, pixels = render(store, settings, seed)
        linear = crops.to_source[:, :, :2]
        angles += torch.atan2(linear[:, 1, 0].abs(), linear[:, 0, 0].abs()).tolist()
        for t, canvas in enumerate(crops.canvas.tolist()):
            whole = targets.boxes[canvas, 0]
            size = float((whole[2:] - whole[:2]).prod().sqrt())
            inside = whole.min() > size and whole.max() < crops.side - size
            if not targets.valid[canvas, 0] or not inside or size > 40:
                continue
            weights = pixels[canvas].astype(float)
            ys, xs = np.mgrid[: crops.side, : crops.side] + 0.5
            middle = [(xs * weights).sum() / weights.sum(), (ys * weights).sum() / weights.sum()]
            errors.append(np.array(middle) - ((whole[:2] + whole[2:]) / 2).numpy())
            assert crops.image[t] == 0
    assert max(angles) > 0.5
    assert len(errors) > 15
    assert np.abs(errors).max() < 0.3


def test_genders_stay_with_their_faces(rectangles: ImageStore) -> None:
    settings = CropSettings(**vars_of(STILL) | {"mosaic_share": 0.5})
    crops, targets, pixels = render(rectangles, settings, canvases=40)
    seen = set()
    for (_, box, gender), image in zip(
        tiles_with_boxes(crops, targets, pixels), crops.image.tolist(), strict=True
    ):
        if not np.isnan(box).any():
            assert gender == (0 if image < len(rectangles.scene_ids) else 1)
            seen.add(gender)
    assert seen == {0, 1}


def test_faces_cut_or_small_count_neither_way(tmp_path: Path) -> None:
    # a red and a blue face, each of which is cut when the crop is about the other
    image = np.zeros((240, 400, 3), np.uint8)
    boxes = {"female": [100, 100, 132, 140], "male": [220, 60, 260, 108]}
    for channel, (x1, y1, x2, y2) in zip((0, 2), boxes.values(), strict=True):
        image[y1:y2, x1:x2, channel] = 255
    write_set(tmp_path, [{"faces": [{"box": b, "gender": g} for g, b in boxes.items()]}], [image])
    store = ImageStore(read_entries(tmp_path), [])
    settings = CropSettings(
        least_face_px=6.0,
        rotation_degrees=0.0,
        aspect=0.0,
        native_share=0.0,
        aimed_face_px=(4.0, 120.0),
        zoom_limits=(0.1, 3.0),
    )
    reasons = {"cut": 0, "small": 0, "fine": 0}
    crops, targets = plan_crops(store, 200, 128, settings, seeded(0))
    pixels = sample_pixels(store, crops, BLACK).numpy() / 255.0
    for canvas, slot in targets.valid.nonzero().tolist():
        gender = int(targets.gender[canvas, slot])
        x1, y1, x2, y2 = list(boxes.values())[gender]
        zoom = 1 / float(crops.to_source[canvas, 1, 1])
        left = pixels[canvas, 2 - 2 * gender].sum() / ((x2 - x1) * (y2 - y1) * zoom**2)
        height = float(targets.boxes[canvas, slot, 3] - targets.boxes[canvas, slot, 1])
        if abs(left - 0.4) < 0.06 or abs(height - 6) < 0.3:
            continue  # too near to the limit for a measurement in pixels
        reason = "cut" if left < 0.4 else "small" if height < 6 else "fine"
        reasons[reason] += 1
        assert bool(targets.ignore[canvas, slot]) == (reason != "fine"), (left, height)
    assert min(reasons.values()) >= 5, reasons


def test_ignored_labels_stay_ignored_and_edges_clip(tmp_path: Path) -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    faces = [{"box": [4, 4, 24, 24], "ignore": True}, {"box": [40, 40, 80, 80], "gender": "male"}]
    write_set(tmp_path, [{"faces": faces}], [image])
    store = ImageStore(read_entries(tmp_path), [])
    # nothing is scaled, and the crop is four times as wide as the picture
    settings = CropSettings(rotation_degrees=0.0, aspect=0.0, zoom_limits=(1.0, 1.0))
    crops, targets = plan_crops(store, 40, 256, settings, seeded(0))
    assert torch.equal(targets.ignore, targets.valid)  # 36 % of the second can be seen
    low, high = (at_source(crops, targets.boxes[:, 1, i : i + 2]) for i in (0, 2))
    seen = torch.cat([torch.minimum(low, high), torch.maximum(low, high)], 1)
    seen = seen[targets.valid.all(1) & (targets.boxes[:, 1].amax(1) < 255.5)]
    assert len(seen) > 10
    assert (seen[:, 2:] - seen.new_tensor([64.0, 64.0])).abs().max() < 1e-3
    assert (seen[:, :2] >= 40 - 1e-3).all()


def at_source(crops: Crops, points: Tensor) -> Tensor:
    linear, shift = crops.to_source[:, :, :2], crops.to_source[:, :, 2]
    return (linear @ points[:, :, None]).squeeze(2) + shift


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> ImageStore:
    folder = tmp_path_factory.mktemp("drawn")
    scenes = read_entries(write_scenes(folder / "scenes", 6))
    return ImageStore(scenes, read_entries(write_portraits(folder / "portraits", 6)))


@pytest.mark.parametrize("side", [64, 96, 256])
def test_both_samplers_agree(drawn: ImageStore, side: int) -> None:
    cv2 = opencv()
    assert cv2 is not None
    crops, _ = plan_crops(drawn, 8, side, CropSettings(mosaic_share=0.5), seeded(side))
    fill = (10.0, 120.0, 230.0)
    one = _sample_opencv(cv2, drawn, crops, fill).int()
    other = _sample_gather(drawn, crops, fill).int()
    assert one.shape == other.shape == (8, 3, side, side)
    assert other.permute(0, 2, 3, 1).is_contiguous()
    difference = (one - other).abs().float()
    # OpenCV's positions have five bits after the point; on noise of 60 levels that is little
    assert difference.mean() < 0.5
    assert (difference > 8).float().mean() < 1e-3


def test_without_opencv_pixels_are_gathered(
    drawn: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    crops, _ = plan_crops(drawn, 4, 64, CropSettings(), seeded(3))
    monkeypatch.setitem(sys.modules, "cv2", None)
    opencv.cache_clear()
    quiet_opencv.cache_clear()
    try:
        assert opencv() is None
        found = sample_pixels(drawn, crops, BLACK)
    finally:
        opencv.cache_clear()
        quiet_opencv.cache_clear()
    assert torch.equal(found, _sample_gather(drawn, crops, BLACK))


def test_same_seed_draws_the_same_crops(drawn: ImageStore) -> None:
    one, other, third = (render(drawn, CropSettings(), seed)[2] for seed in (1, 1, 2))
    assert np.array_equal(one, other)
    assert not np.array_equal(one, third)


@pytest.mark.parametrize("kind", ["scenes", "portraits"])
def test_one_kind_of_picture_is_enough(tmp_path: Path, kind: str) -> None:
    write = {"scenes": write_scenes, "portraits": write_portraits}[kind]
    entries = read_entries(write(tmp_path, 3))
    store = ImageStore(entries, []) if kind == "scenes" else ImageStore([], entries)
    _, targets, _ = render(store, CropSettings(), canvases=8, side=64)
    assert targets.valid.any()


def test_store_refuses_what_it_cannot_use(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no faces to learn from"):
        ImageStore([], [])
    entries = read_entries(write_set(tmp_path / "a", [{"faces": []}], [np.zeros((9, 9, 3), "u1")]))
    with pytest.raises(TrainingError, match="no faces to learn from"):
        ImageStore(entries, [])
    folder = write_portraits(tmp_path / "b", 1)
    lines = (folder / "faces.jsonl").read_text().replace('"width": 96', '"width": 95')
    (folder / "faces.jsonl").write_text(lines)
    with pytest.raises(TrainingError, match=r"0\.png: 96x96 pixels, the data file says 95x96"):
        ImageStore([], read_entries(folder))


def test_store_keeps_pictures_faces_and_pyramid(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (48, 80, 3)).astype(np.uint8)
    faces = [{"box": [1, 2, 3, 4], "gender": "male"}, {"box": [5, 6, 7, 8], "ignore": True}]
    write_set(tmp_path, [{"faces": []}, {"faces": faces}], [image, image])
    store = ImageStore(read_entries(tmp_path), [])
    assert np.array_equal(store.view(1, 0), image[..., ::-1])
    halves = image.reshape(24, 2, 40, 2, 3).mean((1, 3))
    assert np.abs(store.view(0, 1)[..., ::-1] - halves).max() <= 1
    assert store.view(0, 3).shape == (6, 10, 3)
    assert store.first_face.tolist() == [0, 0, 2]
    assert store.gender.tolist() == [1, -1]
    assert store.ignore.tolist() == [False, True]
