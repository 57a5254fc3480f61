"""Figures of evaluation, against counts by hand and slow versions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from videogender.dataset import Entry, read_rgb
from videogender.errors import TrainingError
from videogender.evaluation.detection import (
    average_precision,
    detect_all,
    evaluate_detection,
    iou,
    judge,
)
from videogender.evaluation.gender import (
    GenderAnswers,
    calibration_error,
    collect_answers,
    fit_temperature,
    gender_figures,
)
from videogender.evaluation.labelled import picture_size_wh
from videogender.frames import Faces

FAR = [500.0, 500.0, 540.0, 540.0]


def entry(*faces: dict[str, Any], size: tuple[int, int] = (640, 640)) -> Entry:
    return Entry(Path("a.png"), *size, list(faces), {})


def faces(*rows: tuple[list[float], float], female: float = math.nan) -> Faces:
    boxes = np.array([box for box, _ in rows], np.float32).reshape(-1, 4)
    scores = np.array([score for _, score in rows], np.float32)
    return Faces(boxes, scores, np.full(len(rows), female, np.float32))


def box(x: float, height: float = 40.0) -> list[float]:
    return [x, 10.0, x + height, 10.0 + height]


def test_iou_by_hand() -> None:
    a = np.array([[0, 0, 10, 10], [0, 0, 2, 2]], np.float32)
    b = np.array([[5, 0, 15, 10], [20, 20, 30, 30]], np.float32)
    assert iou(a, b).tolist() == [[pytest.approx(50 / 150), 0], [0, 0]]


def test_average_precision_by_hand() -> None:
    # precision at the three hits: 1, 2/3, 3/5; each stands for a quarter of the recall
    hit = np.array([True, False, True, False, True])
    assert average_precision(hit, 4) == pytest.approx((1 + 2 / 3 + 3 / 5) / 4)
    assert average_precision(hit, 0) == 0
    assert average_precision(np.zeros(0, bool), 3) == 0
    # the envelope: what comes later and is better counts already
    assert average_precision(np.array([False, True, True]), 2) == pytest.approx(2 / 3)


def test_average_precision_is_the_area_under_the_envelope() -> None:
    rng = np.random.default_rng(0)
    hit = rng.random(80) < 0.5
    positives = int(hit.sum()) + 7
    recall = np.cumsum(hit) / positives
    precision = np.cumsum(hit) / np.arange(1, 81)
    grid = (np.arange(200_000) + 0.5) / 200_000
    best = [precision[recall >= r].max(initial=0.0) for r in np.linspace(0, 1, positives + 1)[1:]]
    area = np.mean([best[min(int(r * positives), positives - 1)] for r in grid])
    assert average_precision(hit, positives) == pytest.approx(area, abs=1e-4)


def outcomes(found: list[list[float]], truth: list[list[float]], counts: list[bool]) -> list[int]:
    as_boxes = [np.array(b, np.float32).reshape(-1, 4) for b in (found, truth)]
    return judge(as_boxes[0], as_boxes[1], np.array(counts, bool)).tolist()


@pytest.mark.parametrize(
    ("found", "truth", "counts", "expected"),
    [
        ([box(0), box(0)], [box(0)], [True], [1, 0]),  # the second of a face is a false alarm
        ([box(0), box(0)], [box(0)], [False], [-1, -1]),  # an ignored face takes any number
        ([FAR], [box(0)], [True], [0]),
        ([FAR], [box(0)], [False], [0]),
        ([], [box(0)], [True], []),
        ([box(0)], [], [], [0]),
        ([box(0, 20)], [box(0, 40)], [True], [0]),  # IoU 1/4
        # a face that counts goes first, though the ignored one fits better
        ([box(2), box(2)], [box(0), box(2)], [True, False], [1, -1]),
        # the better of two that count
        ([box(6)], [box(0), box(6)], [True, True], [1]),
        ([box(6), box(6)], [box(0), box(6)], [True, True], [1, 1]),
    ],
)
def test_judging(
    found: list[list[float]], truth: list[list[float]], counts: list[bool], expected: list[int]
) -> None:
    assert outcomes(found, truth, counts) == expected


def test_detection_figures_by_hand() -> None:
    first = entry(
        {"box": box(0)},
        {"box": box(100)},
        {"box": box(200, 12)},  # too small to count
        {"box": box(300), "ignore": True},
    )
    second = entry({"box": box(0)}, {"box": box(100)})
    found = [
        (first, faces((box(0), 0.9), (FAR, 0.8), (box(200, 12), 0.7), (box(300), 0.6))),
        (second, faces((box(0), 0.85), (FAR, 0.3), (box(100), 0.2))),
    ]
    figures = evaluate_detection(found, 16.0, 640)
    # by score: hit 0.9, hit 0.85, miss 0.8, (two that count neither way), miss 0.3, hit 0.2
    assert (figures.faces, figures.images) == (4, 2)
    assert figures.average_precision == pytest.approx((1 + 1 + 3 / 5) / 4)
    assert figures.recall_at_tenth == pytest.approx(2 / 4)  # 0.2 false alarms allow none
    assert figures.recall_at_one == pytest.approx(3 / 4)  # two are allowed
    small = evaluate_detection(found, 8.0, 640)
    assert small.faces == 5
    assert small.average_precision == pytest.approx((1 + 1 + 3 / 4 + 4 / 6) / 5)


def test_faces_are_measured_at_the_long_side() -> None:
    wide = entry({"box": box(0, 30)}, size=(1280, 720))
    assert evaluate_detection([(wide, faces())], 16.0, 640).faces == 0
    assert evaluate_detection([(wide, faces())], 16.0, 1280).faces == 1


class NoFaces:
    batch_size = 2

    def __call__(self, images: Sequence[NDArray[np.uint8]]) -> list[Faces]:
        return [Faces.empty()] * len(images)


def test_labels_for_another_size_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(path)
    good = Entry(path, 60, 40, [], {})
    assert [each for each, _ in detect_all(NoFaces(), [good] * 3)] == [good] * 3
    for size_wh in ((30, 20), (40, 60)):
        with pytest.raises(TrainingError, match=r"a\.png: 60x40 pixels, the data file says \d+x"):
            list(detect_all(NoFaces(), [good, Entry(path, *size_wh, [], {})]))


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("ending", ["jpg", "png", "tiff"])
def test_sizes_are_known_without_decoding(tmp_path: Path, ending: str, orientation: int) -> None:
    path = tmp_path / f"a.{ending}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(path, exif=exif)
    assert picture_size_wh(path) == read_rgb(path).shape[1::-1]


def test_nothing_to_find_gives_zeros() -> None:
    figures = evaluate_detection([])
    assert (figures.average_precision, figures.recall_at_one, figures.faces) == (0, 0, 0)


def test_answers_pair_faces_with_detections() -> None:
    portrait = entry(
        {"box": [-20, 10, 20, 50], "gender": "female", "age": 30},  # half beyond the edge
        {"box": box(100), "gender": "male"},
        {"box": box(200)},  # unknown: not asked
        {"box": box(300), "gender": "male", "ignore": True},
        {"box": box(400), "gender": "male", "age": None},
        size=(1280, 1280),
    )
    found = Faces(
        np.array([[0, 10, 20, 50], box(101), box(100), box(402)], np.float32),
        np.array([0.9, 0.8, 0.7, 0.4], np.float32),
        np.array([0.9, 0.6, 0.1, 0.2], np.float32),
    )
    answers = collect_answers([(portrait, found)], at_long_side=640)
    assert answers.female == pytest.approx([0.9, 0.1, 0.2], abs=1e-6)
    assert answers.is_female.tolist() == [True, False, False]
    assert answers.height.tolist() == [20, 20, 20]
    assert answers.age[0] == 30
    assert np.isnan(answers.age[1:]).all()
    strict = collect_answers([(portrait, found)], least_score=0.5)
    assert np.isnan(strict.female).tolist() == [False, False, True]
    assert strict.height.tolist() == [40, 40, 40]
    assert len(collect_answers([]).female) == 0


def answers_of(female: NDArray[np.float64], is_female: NDArray[np.bool_]) -> GenderAnswers:
    return GenderAnswers(female, is_female, np.full(len(female), 30.0), np.full(len(female), 20.0))


def test_gender_figures_by_hand() -> None:
    female = np.array([0.9, 0.4, np.nan, 0.2, 0.5, 0.7])
    truth = np.array([True, True, True, False, True, False])
    figures = gender_figures(answers_of(female, truth))
    assert figures.faces == 6
    assert figures.found == pytest.approx(5 / 6)
    assert figures.accuracy == pytest.approx(3 / 5)  # right: 0.9, 0.2 and the even one
    assert figures.accuracy_female == pytest.approx(2 / 3)
    assert figures.accuracy_male == pytest.approx(1 / 2)


def test_interval_is_that_of_a_binomial() -> None:
    truth = np.arange(900) < 765
    figures = gender_figures(answers_of(np.ones(900), truth))
    assert figures.accuracy == pytest.approx(0.85)
    reach = 1.96 * math.sqrt(0.85 * 0.15 / 900)
    assert figures.interval == pytest.approx((0.85 - reach, 0.85 + reach), abs=0.004)


def test_no_found_face_gives_no_figures() -> None:
    figures = gender_figures(answers_of(np.array([np.nan]), np.array([True])))
    assert (figures.faces, figures.found) == (1, 0.0)
    assert math.isnan(figures.accuracy)
    assert fit_temperature(answers_of(np.array([np.nan]), np.array([True]))) == 1.0


def test_calibration_error_by_hand() -> None:
    probability = np.array([0.95, 0.91, 0.25, 1.0])
    truth = np.array([True, False, False, True])
    # the top bin says 0.953 on average and is right in 2 of 3; the other says 0.25 and is wrong
    expected = 3 / 4 * abs((0.95 + 0.91 + 1.0) / 3 - 2 / 3) + 1 / 4 * 0.25
    assert calibration_error(probability, truth) == pytest.approx(expected)


@pytest.mark.parametrize("true_temperature", [0.6, 1.0, 2.2])
def test_temperature_is_recovered(true_temperature: float) -> None:
    rng = np.random.default_rng(4)
    margin = rng.normal(0, 2.5, 20_000)
    truth = rng.random(20_000) < 1 / (1 + np.exp(-margin))
    overstated = 1 / (1 + np.exp(-margin * true_temperature))
    answers = answers_of(overstated, truth)
    found = fit_temperature(answers)
    assert found == pytest.approx(true_temperature, rel=0.05)
    tempered = answers.tempered(found)
    assert calibration_error(tempered.female, truth) < 0.012
    assert ((tempered.female >= 0.5) == (overstated >= 0.5)).all()
    if true_temperature == 2.2:
        assert calibration_error(overstated, truth) > 0.04


def test_answers_join_and_select() -> None:
    one = answers_of(np.array([0.1, 0.2]), np.array([True, False]))
    joined = GenderAnswers.joined(one, collect_answers([]), one)
    assert joined.female.tolist() == [0.1, 0.2, 0.1, 0.2]
    assert joined.select(joined.is_female).female.tolist() == [0.1, 0.1]
