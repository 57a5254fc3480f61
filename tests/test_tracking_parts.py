"""The pieces of tracking, each against a slow or independent reference."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.integrate import quad_vec
from scipy.linalg import expm
from scipy.optimize import linear_sum_assignment

from videogender.config import TrackSettings
from videogender.errors import ConfigError
from videogender.frames import Faces, RgbPicture
from videogender.passes import Schedule, check
from videogender.tracking import motion
from videogender.tracking.association import assign, overlaps
from videogender.tracking.cuts import CutDetector, Shot, thumbnail
from videogender.tracking.evidence import LabelEvidence, quality, whole_life
from videogender.tracking.tape import Tape
from videogender.tracking.tracker import is_established

Floats = NDArray[np.float64]

# assignment


def total(cost: Floats, limit: float, pairs: list[tuple[int, int]]) -> float:
    alone = len(cost) - len(pairs)
    return sum(cost[pair] for pair in pairs) + limit * alone


def cheapest(cost: Floats, limit: float) -> float:
    """Try every way to pair rows with columns or with nothing."""
    rows, columns = cost.shape
    choices = [*range(columns), *[None] * rows]
    return min(
        total(cost, limit, [(r, c) for r, c in enumerate(picked) if c is not None])
        for picked in set(itertools.permutations(choices, rows))
    )


@settings_of_hypothesis(max_examples=60, deadline=None)
@given(
    arrays(np.float64, st.tuples(st.integers(1, 3), st.integers(1, 3)), elements=st.floats(0, 1)),
    st.floats(0.1, 1.5),
)
def test_pairs_are_the_cheapest_of_all(cost: Floats, limit: float) -> None:
    rows, columns = assign(cost, limit)
    assert len(set(rows)) == len(rows)
    assert len(set(columns)) == len(columns)
    assert list(rows) == sorted(rows)
    pairs = list(zip(rows.tolist(), columns.tolist(), strict=True))
    assert all(cost[pair] < limit for pair in pairs)
    assert total(cost, limit, pairs) == pytest.approx(cheapest(cost, limit), abs=1e-9)


@pytest.mark.parametrize("shape", [(20, 20), (40, 15), (15, 40), (100, 100)])
@pytest.mark.parametrize("clash", [False, True])
def test_many_pairs_cost_what_scipy_finds(shape: tuple[int, int], clash: bool) -> None:
    rng = np.random.default_rng(sum(shape))
    for limit in (0.05, 0.4, 2.0):
        cost = rng.random(shape)
        if clash:  # all want the same few columns
            cost = 0.3 * cost + 0.7 * rng.random(shape[1])[None]
        rows, columns = assign(cost, limit)
        found = total(cost, limit, list(zip(rows.tolist(), columns.tolist(), strict=True)))
        full = np.hstack([np.minimum(cost, limit), np.full((shape[0], shape[0]), limit)])
        assert found == pytest.approx(full[linear_sum_assignment(full)].sum())


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_nothing_to_pair(shape: tuple[int, int]) -> None:
    rows, columns = assign(np.zeros(shape), 0.5)
    assert (len(rows), len(columns)) == (0, 0)


def test_overlap_without_reach_is_iou_and_reach_finds_what_is_further_off() -> None:
    box = np.array([[0.0, 0, 10, 10]])
    others = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [10, 0, 20, 10], [40, 0, 50, 10]])
    sharp = overlaps(box, np.zeros((1, 2)), others)
    np.testing.assert_allclose(sharp, [[1, 1 / 3, 0, 0]])
    # Grown by 5 on each side: widths of 20, moved by 10 of them.
    wide = overlaps(box, np.full((1, 2), 5.0), others)
    np.testing.assert_allclose(wide[0, 2], 10 * 20 / (2 * 400 - 200))


# motion


def reference_step(
    mean: Floats, spread: Floats, seconds: float, memory: float, usual: float
) -> tuple[Floats, Floats]:
    """Move one number and its speed by the textbook: dv = -v/m dt + noise, integrated."""
    drift = np.array([[0.0, 1.0], [0.0, -1 / memory]])
    noise = np.diag([0.0, 2 * usual**2 / memory])
    across = expm(drift * seconds)

    def arriving(left: float) -> Floats:
        passed = expm(drift * left)
        return np.asarray(passed @ noise @ passed.T)

    added, _ = quad_vec(arriving, 0, seconds)
    return across @ mean, across @ spread @ across.T + added


def test_prediction_and_correction_follow_the_textbook() -> None:
    boxes = np.array([[100.0, 200, 180, 300], [10, 10, 40, 50]])
    scores = np.array([0.9, 0.6])
    state = motion.predict(motion.start(boxes, scores), 0.0)
    moved = boxes + np.array([[6, 3, 6, 3], [0, 0, 0, 0]])
    state = motion.update(motion.predict(state, 0.04), moved, scores)
    before = state.copy()
    after = motion.predict(state, 0.3)
    for i in range(2):
        now = np.sqrt(before[i, 0, 2] * before[i, 0, 3])
        for k in range(4):
            mean, spread = reference_step(
                before[i, :2, k],
                np.array([[before[i, 2, k], before[i, 3, k]], [before[i, 3, k], before[i, 4, k]]]),
                0.3,
                memory=[2.0, 2.0, 0.2, 0.2][k],
                usual=[2.0, 2.0, 0.5, 0.5][k] * now,
            )
            np.testing.assert_allclose(after[i, :2, k], mean, rtol=1e-6, atol=1e-9)
            np.testing.assert_allclose(
                after[i, 2:5, k], [spread[0, 0], spread[0, 1], spread[1, 1]], rtol=1e-5
            )
    # The gain by matrices: K = P H' (H P H' + R)^-1.
    noise = (0.05 + 0.15 * (1 - scores)) * np.sqrt(after[:, 0, 2] * after[:, 0, 3])
    again = motion.update(after, boxes, scores)
    centre = (boxes[:, 0] + boxes[:, 2]) / 2
    for i in range(2):
        spread = np.array([[after[i, 2, 0], after[i, 3, 0]], [after[i, 3, 0], after[i, 4, 0]]])
        pick = np.array([[1.0, 0.0]])
        gain = spread @ pick.T / (pick @ spread @ pick.T + noise[i] ** 2)
        mean = after[i, :2, 0] + gain[:, 0] * (centre[i] - after[i, 0, 0])
        np.testing.assert_allclose(again[i, :2, 0], mean)
        left = (np.eye(2) - gain @ pick) @ spread
        np.testing.assert_allclose(again[i, 2:5, 0], [left[0, 0], left[0, 1], left[1, 1]])


def test_a_steady_walk_is_foreseen_whatever_the_times_between_looks() -> None:
    rng = np.random.default_rng(0)
    t = 0.0
    state = motion.start(np.array([[0.0, 0, 50, 60]]), np.array([0.9]))
    for _ in range(60):
        step = float(rng.choice([1 / 60, 1 / 25, 1 / 8]))
        t += step
        state = motion.update(
            motion.predict(state, step),
            np.array([[80 * t, 0, 80 * t + 50, 60]]),
            np.array([0.9]),
        )
    [box] = motion.boxes_of(motion.predict(state, 0.2)).tolist()
    assert box[0] == pytest.approx(80 * (t + 0.2), abs=2.5)
    assert box[2] - box[0] == pytest.approx(50, abs=1)


def test_a_long_gap_foresees_no_face_far_away_nor_one_of_no_size() -> None:
    state = motion.start(np.array([[0.0, 0, 50, 60]]), np.array([0.9]))
    for i in range(1, 10):  # runs and shrinks
        x, side = 20.0 * i, 50.0 - 2 * i
        state = motion.predict(state, 0.04)
        state = motion.update(state, np.array([[x, 0, x + side, side]]), np.array([0.9]))
    later = motion.predict(state, 60.0)
    [box] = motion.boxes_of(later).tolist()
    assert box[0] < 180 + 2 * 20 / 0.04 * 1.2
    assert box[2] - box[0] > 5
    assert np.isfinite(later).all()


def test_a_face_half_hidden_is_sought_as_far_as_a_whole_one() -> None:
    sure, pillar = np.array([1.0]), 100.0
    whole = hidden = motion.start(np.array([[150.0, 0, 200, 60]]), sure)
    for i in range(1, 16):  # walks behind something that ends at the pillar's edge
        x = 150.0 - 5 * i
        whole = motion.update(motion.predict(whole, 0.1), np.array([[x, 0, x + 50, 60]]), sure)
        seen = np.array([[max(x, pillar), 0, max(x + 50, pillar + 8), 60]])
        hidden = motion.update(motion.predict(hidden, 0.1), seen, sure)
    reach = motion.reach_of(motion.predict(hidden, 0.5))
    assert reach[0, 0] > 0.8 * motion.reach_of(motion.predict(whole, 0.5))[0, 0]
    # but never further than its size, and not for ever
    assert motion.reach_of(motion.predict(whole, 1e3))[0, 0] == pytest.approx(
        np.sqrt(50 * 60), rel=0.1
    )
    for _ in range(100):
        hidden = motion.update(motion.predict(hidden, 0.1), seen, sure)
    assert motion.reach_of(motion.predict(hidden, 1e3))[0, 0] == pytest.approx(
        np.sqrt((seen[0, 2] - seen[0, 0]) * 60), rel=0.1
    )


# cuts


def room(seed: int, shift: float = 0.0, light: float = 1.0) -> NDArray[np.uint8]:
    """Paint a room of soft blobs, seen with the camera moved by `shift` of its width."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:90, 0:160] / 160.0
    image = np.full((90, 160), 90.0)
    for _ in range(12):
        cx, cy, r, level = rng.uniform([-0.5, 0, 0.05, -80], [1.5, 0.6, 0.3, 80])
        image += level * np.exp(-((x + shift - cx) ** 2 + (y - cy) ** 2) / r**2)
    noise = np.random.default_rng().normal(0, 2, image.shape)
    return np.repeat(np.clip(image * light + noise, 0, 255).astype(np.uint8)[..., None], 3, 2)


def shots(pictures: list[NDArray[np.uint8]], fps: float = 25) -> list[Shot]:
    detector = CutDetector()
    small = [thumbnail(RgbPicture(image)) for image in pictures]
    return [detector.step(one, i / fps) for i, one in enumerate(small)]


@pytest.mark.parametrize("seed", range(8))
def test_a_cut_between_rooms_is_seen_and_a_pan_is_not(seed: int) -> None:
    first = [room(seed, shift=0.01 * i) for i in range(10)]
    second = [room(seed + 100, shift=-0.01 * i) for i in range(10)]
    assert shots(first + second) == [Shot.SAME] * 10 + [Shot.NEW] + [Shot.SAME] * 9


def test_light_that_changes_is_no_cut_and_a_flash_is_taken_back() -> None:
    dimmed = [room(1, light=1 - 0.05 * i) for i in range(10)]
    assert shots(dimmed) == [Shot.SAME] * 10
    white = np.full((90, 160, 3), 255, np.uint8)
    assert shots([room(1)] * 5 + [white] * 2 + [room(1)] * 3) == [
        *([Shot.SAME] * 5 + [Shot.NEW, Shot.SAME]),
        *([Shot.BACK] + [Shot.SAME] * 2),
    ]
    # A picture that returns after seconds is a shot of its own.
    away = [room(1)] * 5 + [room(2)] * 50 + [room(1)] * 3
    assert [i for i, shot in enumerate(shots(away)) if shot is Shot.NEW] == [5, 55]


def test_flat_pictures_are_no_cuts_by_their_noise() -> None:
    rng = np.random.default_rng(0)
    dark = [rng.integers(14, 19, (90, 160, 3), np.uint8) for _ in range(20)]
    assert shots(dark) == [Shot.SAME] * 20


@pytest.mark.parametrize("size_hw", [(1, 1), (7, 300), (360, 640), (1081, 33)])
def test_thumbnails_of_any_size(size_hw: tuple[int, int]) -> None:
    ramp = np.linspace(0, 255, size_hw[1]).astype(np.uint8)
    small = thumbnail(RgbPicture(np.repeat(np.tile(ramp, (size_hw[0], 1))[..., None], 3, 2)))
    assert small.shape == (18, 32)
    if size_hw[1] > 32:
        np.testing.assert_allclose(small[0], np.linspace(4, 251, 32), atol=6)


# evidence


def lived(female: list[float], fps: float = 25, weight: float = 1.0) -> float:
    n = len(female)
    [p] = whole_life(
        np.zeros(n, np.intp), np.arange(n) / fps, np.array(female), np.full(n, weight), 1
    )
    return float(p)


def test_many_alike_frames_do_not_make_certain() -> None:
    once, second, minute = lived([0.8]), lived([0.8] * 25), lived([0.8] * 1500)
    assert 0.5 < once < 0.8 < second < minute
    # 1 / 0.7 of the log-odds is the end of it, however long a face is seen.
    end = 1 / (1 + math.exp(-math.log(4) / 0.7))
    assert minute == pytest.approx(end, abs=0.003)
    assert lived([0.8] * 100, fps=100) == pytest.approx(second, abs=0.015), "time, not frames"


def test_the_formula_for_a_few_views() -> None:
    """Three looks a second apart: three views; the mean of two yes and one no."""
    p = lived([0.9, 0.9, 0.1], fps=1, weight=0.8)
    mean = 0.8 * math.log(9) / (3 * 0.8 + 0.5)
    assert p == pytest.approx(1 / (1 + math.exp(-mean * 3 / (1 + 2 * 0.7))))


def test_better_looks_count_more() -> None:
    scores, heights = np.array([0.9, 0.9, 0.3]), np.array([100.0, 12, 100])
    clear, small, faint = quality(scores, heights)
    assert clear > 2 * small
    assert clear == pytest.approx(3 * faint)
    rows, t = np.zeros(2, np.intp), np.array([0.0, 1.0])
    [p] = whole_life(rows, t, np.array([0.9, 0.1]), np.array([clear, small]), 1)
    assert p > 0.5


def test_tracks_do_not_share_evidence_and_unknown_stays_unknown() -> None:
    tracks = np.array([0, 1, 2, 0, 1, 2])
    t = np.array([0, 0, 0, 1.0, 1, 1])
    female = np.array([0.9, 0.1, np.nan, 0.9, 0.1, np.nan])
    p = whole_life(tracks, t, female, np.ones(6), 4)
    assert p[0] == pytest.approx(lived([0.9, 0.9], fps=1))
    assert p[1] == pytest.approx(1 - p[0])
    assert np.isnan(p[2])
    assert p[3] == 0.5


def flow(female: list[float], half_life: float = 4.0, fps: float = 25) -> tuple[list[int], Floats]:
    evidence = LabelEvidence(half_life, 0.65)
    one = np.array([7])
    verdicts, p = [], []
    for i, probability in enumerate(female):
        evidence.add(one, np.array([probability]), np.ones(1), i / fps)
        verdicts.append(int(evidence.verdicts(one)[0]))
        p.append(float(evidence.probabilities(one)[0]))
    return verdicts, np.array(p)


def test_live_labels_wait_for_evidence_and_change_only_on_it() -> None:
    rng = np.random.default_rng(3)
    noisy = [0.7, *np.clip(rng.normal(0.72, 0.2, 500), 0.02, 0.98).tolist()]
    verdicts, p = flow(noisy)
    frame_by_frame = [1 if x >= 0.65 else -1 if x <= 0.35 else 0 for x in noisy]

    def changes(labels: list[int]) -> int:
        return sum(a != b for a, b in itertools.pairwise(labels))

    assert changes(frame_by_frame) > 100
    assert changes(verdicts) == 1
    assert verdicts[0] == 0
    assert p.max() < 0.9
    # A face that proves to be another is relabelled, by way of unsure, within seconds.
    verdicts, _ = flow([0.9] * 200 + [0.1] * 400)
    assert [key for key, _ in itertools.groupby(verdicts)] == [1, 0, -1]
    assert 200 + 25 < verdicts.index(-1) < 200 + 10 * 25


def test_live_evidence_without_decay_ends_where_the_whole_life_does() -> None:
    female = np.random.default_rng(0).uniform(0.3, 0.9, 100).tolist()
    _, p = flow(female, half_life=1e9)
    assert p[-1] == pytest.approx(lived(female))


def test_an_infinite_threshold_labels_nothing() -> None:
    evidence = LabelEvidence(4.0, 1.0)
    ids = np.array([1])
    for i in range(100):
        evidence.add(ids, np.array([1.0]), np.ones(1), i / 25)
    assert evidence.verdicts(ids).tolist() == [0]


def test_tracks_come_and_go() -> None:
    evidence = LabelEvidence(4.0, 0.65)
    evidence.add(np.array([5, 2]), np.array([0.9, 0.1]), np.ones(2), 0.0)
    evidence.add(np.array([9, 5]), np.array([0.2, 0.9]), np.ones(2), 0.5)
    five, two, nine = evidence.probabilities(np.array([5, 2, 9])).tolist()
    assert five > 0.6 > 0.5 > nine > two
    evidence.keep(np.array([5]))
    assert evidence.probabilities(np.array([5])).tolist() == [five]


# tape and schedule


def test_a_tape_keeps_what_it_is_given() -> None:
    tape = Tape()
    boxes = np.arange(12, dtype=np.float32).reshape(3, 4)
    faces = Faces(boxes, np.array([0.9, 0.8, 0.3], np.float32), np.full(3, np.nan, np.float32))
    tape.frame(10, 0.4, looked=True)
    tape.faces(faces, np.array([2, 0, 1]))
    tape.cut()
    tape.frame(11, 0.44, looked=False)
    tape.cut()
    tape.no_cut()
    tape.frame(12, 0.48, looked=True)
    tape.faces(faces, np.array([0, 0, 0]))
    tape.cut()  # and the video ends
    recording = tape.read()
    assert recording.index.tolist() == [10, 11, 12]
    assert recording.seconds.tolist() == [0.4, 0.44, 0.48]
    assert recording.looked.tolist() == [True, False, True]
    assert recording.shot.tolist() == [0, 1, 1]
    assert recording.frame.tolist() == [0, 0]
    assert recording.track.tolist() == [2, 1]
    np.testing.assert_array_equal(recording.boxes, boxes[[0, 2]])
    np.testing.assert_array_equal(recording.scores, np.array([0.9, 0.3], np.float32))
    assert np.isnan(recording.female).all()


def due(settings: TrackSettings, times: list[float], new: tuple[int, ...] = ()) -> list[int]:
    schedule = Schedule(settings)
    return [
        i for i, t in enumerate(times) if schedule.is_due(i, t, Shot.NEW if i in new else Shot.SAME)
    ]


def test_when_the_detector_looks() -> None:
    steady = [i / 25 for i in range(26)]
    assert due(TrackSettings(), steady) == list(range(26))
    assert due(TrackSettings(every=5), steady) == [0, 5, 10, 15, 20, 25]
    assert due(TrackSettings(every=5), steady, new=(7, 8)) == [0, 5, 7, 8, 10, 15, 20, 25]
    assert due(TrackSettings(detect_fps=5.0), steady) == [0, 5, 10, 15, 20, 25]
    assert len(due(TrackSettings(detect_fps=8.0), [i / 25 for i in range(250)])) == 80
    assert due(TrackSettings(detect_fps=100.0), steady) == list(range(26))
    # Ten looks a second are asked for; the times do not come evenly.
    assert due(TrackSettings(detect_fps=10.0), [0, 0.01, 0.09, 0.11, 0.19, 0.2, 1.5, 1.55]) == [
        *(0, 3, 5, 6),
    ]


def test_more_hits_than_usual_are_meant_as_they_are_asked_for() -> None:
    hits, span = np.array([2, 2, 3, 9, 10]), np.array([0.4, 0.6, 0.2, 5.0, 5.0])
    assert is_established(hits, span, 3).tolist() == [False, True, True, True, True]
    assert is_established(hits, span, 10).tolist() == [False, False, False, False, True]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (TrackSettings(every=2, detect_fps=5.0), "give one of them"),
        (TrackSettings(every=2, label_by="frame"), "--label-by frame keeps no tracks"),
        (TrackSettings(detect_fps=2.0, label_by="frame"), "--label-by frame keeps no tracks"),
    ],
)
def test_settings_that_contradict_each_other(settings: TrackSettings, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(settings)
    check(TrackSettings(every=2))
    check(TrackSettings(label_by="frame"))
