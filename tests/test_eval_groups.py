"""Groups, gaps, calibration and bootstrap intervals, against counts by hand and slow versions."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from videogender.dataset import Entry
from videogender.evaluation.bootstrap import detection_intervals, draws, ends, interval
from videogender.evaluation.calibration import (
    LADDER,
    answered,
    calibration_interval,
    coverage_and_accuracy,
    reliability,
)
from videogender.evaluation.detection import Range, evaluate_detection, judge_all
from videogender.evaluation.gender import GenderAnswers, calibration_error, collect_answers
from videogender.evaluation.gender_result import gender_result
from videogender.evaluation.groups import Group, by_age, by_size, gender_gap, worst_gap
from videogender.evaluation.proportions import Share, difference_interval, proportion_interval
from videogender.frames import Faces, label_of


def answers_of(
    count: int, seed: int = 0, right: float = 0.8, groups: dict[str, list[str]] | None = None
) -> GenderAnswers:
    """Make answers of which a share is right and a tenth is missing."""
    rng = np.random.default_rng(seed)
    is_female = rng.random(count) < 0.4
    sure = rng.uniform(0.5, 1, count)
    says_female = is_female ^ (rng.random(count) > right)
    female = np.where(says_female, sure, 1 - sure)
    female[rng.random(count) < 0.1] = np.nan
    return GenderAnswers(
        female,
        is_female,
        rng.uniform(5, 120, count),
        rng.uniform(0, 80, count),
        {key: np.array(names) for key, names in (groups or {}).items()},
    )


def accuracy(answers: GenderAnswers) -> float:
    found = ~np.isnan(answers.female)
    return float(((answers.female >= 0.5) == answers.is_female)[found].mean())


def test_draws_are_resamples() -> None:
    rows = np.concatenate(list(draws(50, 400)))
    assert rows.shape == (400, 50)
    assert (rows.sum(1) == 50).all()
    assert rows.mean() == 1
    assert rows.var() == pytest.approx(1 - 1 / 50, abs=0.05)
    again = np.concatenate(list(draws(50, 400)))
    assert (rows == again).all()


def test_an_interval_is_that_of_a_binomial() -> None:
    right = np.arange(900) < 765
    low, high = interval(lambda times: times @ right / 900, 900)
    reach = 1.96 * math.sqrt(0.85 * 0.15 / 900)
    assert (low, high) == pytest.approx((0.85 - reach, 0.85 + reach), abs=0.004)
    assert np.isnan(interval(lambda times: times[:, 0], 0)).all()
    assert np.isnan(ends(np.array([np.nan]))).all()


def scenes(count: int, seed: int) -> list[tuple[Entry, Faces]]:
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        corner = np.stack([np.arange(4) * 120.0, rng.uniform(0, 300, 4)], 1)
        truth = np.hstack([corner, corner + rng.uniform(10, 60, (4, 1))])
        boxes = truth + rng.normal(0, 4, truth.shape)
        boxes[3] += 300
        scores = np.sort(rng.random(4))[::-1].astype(np.float32)
        entry = Entry(Path("a"), 640, 640, [{"box": b} for b in truth.tolist()], {})
        found.append((entry, Faces(boxes.astype(np.float32), scores, scores)))
    return found


def test_detection_intervals_are_those_of_whole_resampled_sets() -> None:
    found = scenes(9, 2)
    judged = judge_all(found, Range(16.0))
    fast = detection_intervals(judged, resamples=40)
    figures = []
    for times in np.concatenate(list(draws(9, 40))).astype(int):
        drawn = [pair for pair, often in zip(found, times, strict=True) for _ in range(often)]
        figures.append(evaluate_detection(drawn))
    names = ("average_precision", "recall_at_tenth", "recall_at_one")
    for name, own in zip(names, fast, strict=True):
        slow = [getattr(f, name) for f in figures]
        assert own == pytest.approx(np.quantile(slow, [0.025, 0.975]))
        assert own[0] < own[1]


def test_a_band_counts_its_own_faces_and_false_alarms() -> None:
    def square(x: float, side: float) -> list[float]:
        return [x, 0.0, x + side, side]

    entry = Entry(Path("a"), 640, 640, [{"box": square(0, 20)}, {"box": square(100, 50)}], {})
    rows = [square(300, 60), square(100, 50), square(0, 20), square(400, 24)]
    scores = np.array([0.9, 0.8, 0.7, 0.6], np.float32)
    found = [(entry, Faces(np.array(rows, np.float32), scores, scores))]
    band = judge_all(found, Range(16.0, 32.0))
    assert band.hit.tolist() == [True, False]  # the face of 50 px and the alarm of 60 are not asked
    assert band.figures().average_precision == 1.0
    assert judge_all(found, Range(16.0)).hit.tolist() == [False, True, True, False]
    # the end of a band belongs to the next
    assert judge_all(found, Range(10.0, 20.0)).figures().faces == 0
    assert judge_all(found, Range(20.0, 50.0)).figures().faces == 1
    # heights are those at the long side that was asked for
    assert judge_all(found, Range(10.0, 20.0, at_long_side=320)).figures().faces == 1


def test_a_group_by_hand() -> None:
    nan = np.nan
    female = np.array([0.9, 0.2, nan, 0.1, 0.3, 0.8])
    is_female = np.array([True, True, True, False, False, False])
    zeros = np.zeros(6)
    group = Group.of("x", GenderAnswers(female, is_female, zeros, zeros))
    assert group.figures.found == pytest.approx(5 / 6)
    assert group.figures.accuracy == pytest.approx(3 / 5)
    assert group.balanced == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_balanced_intervals_are_close_to_those_of_a_bootstrap() -> None:
    answers = answers_of(120)
    found = ~np.isnan(answers.female)
    right = (answers.female >= 0.5) == answers.is_female
    slow = []
    for times in np.concatenate(list(draws(120, 1000))).astype(int):
        chosen = np.repeat(np.arange(120), times)
        chosen = chosen[found[chosen]]
        women = chosen[answers.is_female[chosen]]
        men = chosen[~answers.is_female[chosen]]
        slow.append((right[women].mean() + right[men].mean()) / 2)
    own = Group.of("x", answers).balanced_interval
    assert own == pytest.approx(np.quantile(slow, [0.025, 0.975]), abs=0.02)


def test_groups_by_number_hold_every_face_once() -> None:
    answers = answers_of(500)
    ages = by_age(answers)
    assert sum(group.figures.faces for group in ages) == 500
    assert ages[0].name == "< 3 years"
    assert ages[-1].name == ">= 70 years"
    sizes = {group.name: group.figures.faces for group in by_size(answers)}
    assert sizes["< 12 px"] + sizes["12-24 px"] + sizes[">= 24 px"] == 500
    assert sizes["24-48 px"] + sizes[">= 48 px"] == sizes[">= 24 px"]


def test_the_worst_gap_is_between_large_groups() -> None:
    parts = [answers_of(n, seed, right) for n, seed, right in GROUPS.values()]
    names = np.array([name for name, (n, _, _) in GROUPS.items() for _ in range(n)])
    gap = worst_gap(GenderAnswers.joined(*parts), names)
    assert gap is not None
    by_name = dict(zip(GROUPS, map(accuracy, parts), strict=True))
    assert (gap.best, gap.worst, gap.compared) == ("good", "poor", 3)
    assert gap.width == pytest.approx(by_name["good"] - by_name["poor"])
    assert gap.interval[0] < gap.width < gap.interval[1]
    assert worst_gap(parts[0], np.full(200, "good")) is None


GROUPS = {
    "good": (200, 1, 0.95),
    "fair": (150, 2, 0.8),
    "poor": (300, 3, 0.7),
    "few": (99, 4, 0.1),
    "Not Sure": (200, 5, 0.2),
}


def test_groups_of_which_few_are_found_are_not_compared() -> None:
    answers = GenderAnswers.joined(answers_of(300, 1), answers_of(300, 2))
    names = np.array(["a", "b"] * 300)
    assert worst_gap(answers, names) is not None
    hidden = np.flatnonzero((names == "b") & ~np.isnan(answers.female))[99:]
    answers.female[hidden] = np.nan
    assert worst_gap(answers, names) is None


def test_groups_that_are_equally_good_may_lie_apart_either_way() -> None:
    nothing = np.zeros(300)
    answers = GenderAnswers(np.full(300, 0.9), np.full(300, True), nothing, nothing)
    gap = worst_gap(answers, np.array(["a"] * 150 + ["b"] * 150))
    assert gap is not None
    assert (gap.best, gap.worst, gap.width) == ("a", "b", 0)
    assert gap.interval == pytest.approx((-0.025, 0.025), abs=0.001)


def test_gaps_of_chance_are_called_so() -> None:
    """Of two groups that differ by chance alone, most intervals hold 0."""
    held = 0
    for seed in range(200):
        right = np.random.default_rng(seed).random((2, 150)) < 0.85
        female, nothing = np.where(right.ravel(), 0.9, 0.1), np.zeros(300)
        answers = GenderAnswers(female, np.full(300, True), nothing, nothing)
        gap = worst_gap(answers, np.array(["a", "b"]).repeat(150))
        assert gap is not None
        assert gap.interval[0] < gap.width < gap.interval[1]
        held += gap.interval[0] < 0
    assert held == pytest.approx(190, abs=8)


def test_a_few_faces_that_are_all_right_prove_little() -> None:
    nothing = np.zeros(34)
    is_female = np.arange(34) < 17
    answers = GenderAnswers(np.where(is_female, 0.9, 0.1), is_female, nothing, nothing)
    group = Group.of("x", answers)
    assert group.figures.interval == pytest.approx((0.8985, 1.0), abs=1e-4)
    assert group.found_interval == group.figures.interval
    assert group.balanced_interval[0] == pytest.approx(1 - 0.1843 / math.sqrt(2), abs=1e-4)
    assert answered(answers, 0.7).accuracy_interval == group.figures.interval
    assert answered(answers, 0.7).coverage_interval == group.figures.interval


def test_an_interval_of_a_share_is_wilsons() -> None:
    # 81 of 263: 0.2553 to 0.3662 (Newcombe, Statistics in Medicine 17, 1998, table I)
    assert proportion_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert proportion_interval(0, 20) == pytest.approx((0, 0.1611), abs=5e-5)
    assert np.isnan(proportion_interval(0, 0)).all()
    # 56/70 - 48/80: 0.0524 to 0.3339 (the same author, p. 873, method 10)
    ends_of_difference = difference_interval(Share(56, 70), Share(48, 80))
    assert ends_of_difference == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_women_and_men_are_compared() -> None:
    answers = answers_of(300)
    found = ~np.isnan(answers.female)
    women = accuracy(answers.select(found & answers.is_female))
    men = accuracy(answers.select(found & ~answers.is_female))
    gap = gender_gap(answers)
    assert gap is not None
    assert gap.width == pytest.approx(abs(women - men))
    assert gap.best == ("women" if women > men else "men")
    assert gender_gap(answers.select(answers.is_female)) is None


def test_reliability_adds_up_to_the_calibration_error() -> None:
    answers = answers_of(400)
    found = answers.select(~np.isnan(answers.female))
    bins = reliability(answers)
    assert sum(b.faces for b in bins) == len(found)
    error = sum(b.faces / len(found) * abs(b.said - b.true) for b in bins)
    assert error == pytest.approx(calibration_error(found.female, found.is_female))
    slow = []
    for times in np.concatenate(list(draws(len(found), 1000))).astype(int):
        chosen = np.repeat(np.arange(len(found)), times)
        slow.append(calibration_error(found.female[chosen], found.is_female[chosen]))
    low, high = np.quantile(slow, [0.025, 0.975])
    ends_of_error = (max(0, 2 * error - high), max(error, 2 * error - low))
    assert calibration_interval(answers) == pytest.approx(ends_of_error)


def test_the_interval_of_a_small_calibration_error_holds_it() -> None:
    rng = np.random.default_rng(1)
    female = rng.random(300)
    nothing = np.zeros(300)
    answers = GenderAnswers(female, rng.random(300) < female, nothing, nothing)
    low, high = calibration_interval(answers)
    assert 0 <= low <= calibration_error(female, answers.is_female) <= high


def test_the_band_is_that_of_the_labels() -> None:
    answers = answers_of(400)
    found = answers.select(~np.isnan(answers.female))
    labels = [label_of(p, 0.7) for p in found.female]
    truth = ["female" if f else "male" for f in found.is_female]
    given = [(said, true) for said, true in zip(labels, truth, strict=True) if said != "unsure"]
    band = answered(answers, 0.7)
    assert band.coverage == pytest.approx(len(given) / len(found))
    assert band.accuracy == pytest.approx(np.mean([said == true for said, true in given]))
    assert band.accuracy_interval[0] < band.accuracy < band.accuracy_interval[1]
    assert band.coverage_interval[0] < band.coverage < band.coverage_interval[1]
    coverages = [coverage_and_accuracy(answers, below)[0] for below in LADDER]
    assert coverages[0] == 1
    assert coverages == sorted(coverages, reverse=True)


def test_younger_faces_are_reported_apart() -> None:
    answers = answers_of(400, groups={"race": ["a", "b"] * 200})
    unknown = GenderAnswers(
        answers.female,
        answers.is_female,
        answers.height,
        np.where(np.arange(400) < 100, np.nan, answers.age),
        answers.groups,
    )
    result = gender_result("lite", unknown, unsure_below=0.65)
    young = int((unknown.age < 13).sum())
    assert result.younger is not None
    assert result.younger.figures.faces == young > 0
    assert result.all.figures.faces == 400 - young
    assert [group.name for group in result.labels["race"]] == ["a", "b"]
    assert sum(group.figures.faces for group in result.labels["race"]) == 400 - young
    assert result.gaps["race"].compared == 2
    assert gender_result("lite", unknown, unsure_below=0.65, least_age=0).younger is None


def test_groups_are_collected_from_labels() -> None:
    def face(x: float, **more: str) -> dict[str, object]:
        return {"box": [x, 0, x + 20, 20], "gender": "male", **more}

    first = Entry(Path("a"), 640, 640, [face(0, skin="II"), face(50)], {})
    second = Entry(Path("b"), 640, 640, [face(0, race="x", skin="VI")], {})
    answers = collect_answers([(first, Faces.empty()), (second, Faces.empty())])
    assert names_of(answers.groups["skin"]) == ["II", "", "VI"]
    assert names_of(answers.groups["race"]) == ["", "", "x"]
    plain = collect_answers([(first, Faces.empty())])
    joined = GenderAnswers.joined(plain, answers.select(np.array([False, False, True])))
    assert names_of(joined.groups["race"]) == ["", "", "x"]
    assert names_of(joined.groups["skin"]) == ["II", "", "VI"]


def names_of(values: NDArray[np.str_]) -> list[str]:
    return [str(value) for value in values.tolist()]
