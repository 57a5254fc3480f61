"""Tracks of scenes whose truth is known, and of the same detections by another tracker."""

from __future__ import annotations

import time

import numpy as np
import pytest
from numpy.typing import NDArray
from tracking_truth import Face, Scene, answers_of, iou, measure, straight

from videogender.config import LabelSettings, TrackSettings
from videogender.frames import Faces
from videogender.tracking.cuts import Shot
from videogender.tracking.live import Follower
from videogender.tracking.settle import Settled, settle
from videogender.tracking.tape import Tape
from videogender.tracking.tracker import Tracker

SETTINGS = TrackSettings()


def steady(fps: float, seconds: float) -> NDArray[np.float64]:
    return np.arange(round(fps * seconds)) / fps


def uneven(count: int, seed: int) -> NDArray[np.float64]:
    """Return times between 60 and 5 frames a second, in no order."""
    return np.cumsum(np.random.default_rng(seed).choice([1 / 60, 1 / 25, 1 / 10, 1 / 5], count))


def crowd() -> Scene:
    rng = np.random.default_rng(1)
    faces = [
        Face(
            straight(
                60 + 120 * (i % 10),
                150 + 300 * (i // 10),
                50,
                rng.uniform(-60, 60),
                rng.uniform(-40, 40),
            ),
            begin=rng.uniform(0, 1),
            end=rng.uniform(3, 6),
        )
        for i in range(20)
    ]
    return Scene(faces, steady(25, 6), missing=0.1, false_alarms=0.5)


SCENES = {
    "alone": Scene([Face(straight(200, 300, 80, 50))], steady(25, 3)),
    "crossing": Scene(
        [Face(straight(100, 300, 80, 150)), Face(straight(700, 310, 80, -150))], steady(25, 4)
    ),
    "crossing slowly": Scene(
        [Face(straight(250, 300, 80, 40)), Face(straight(550, 320, 80, -40))], steady(25, 8)
    ),
    "occluded": Scene(
        [
            Face(straight(100, 300, 80, 120), hidden=(1.5, 2.2)),
            Face(straight(900, 200, 60, -50), hidden=(2, 2.7)),
        ],
        steady(25, 4),
    ),
    "missed": Scene(
        [
            Face(straight(100, 300, 80, 80)),
            Face(straight(600, 200, 60, -50)),
            Face(straight(900, 500, 40, 0, -30)),
        ],
        steady(25, 6),
        missing=0.2,
        false_alarms=0.3,
    ),
    "faint": Scene(
        [
            Face(straight(100, 300, 80, 80), faint=(1, 2)),
            Face(straight(600, 200, 60, -50), faint=(2, 3.5)),
        ],
        steady(25, 5),
    ),
    "uneven times": Scene(
        [
            Face(straight(100, 300, 80, 100)),
            Face(straight(700, 310, 80, -100)),
            Face(straight(400, 600, 50, 40)),
        ],
        uneven(120, 1),
        missing=0.05,
    ),
    "fast": Scene(
        [Face(straight(-500, 300, 60, 400)), Face(straight(1500, 400, 80, -350))], steady(25, 5)
    ),
    "crowd": crowd(),
}


def in_a_file(scene: Scene, every: int = 1, settings: TrackSettings = SETTINGS) -> Settled:
    tracker, tape = Tracker(settings, 0.5), Tape()
    for i, (t, faces) in enumerate(zip(scene.times.tolist(), scene.found, strict=True)):
        looked = i % every == 0
        tape.frame(i, t, looked=looked)
        if looked:
            tape.faces(faces, tracker.look(faces.boxes, faces.scores, t))
    return settle(tape.read(), settings, 0.5)


def test_a_face_that_a_pillar_covers_bit_by_bit_keeps_its_id() -> None:
    """The boxes of a detector that sees what sticks out on either side, and no thin slice."""
    tracker, low, high = Tracker(SETTINGS, 0.5), 845.0, 883.0
    ids, unseen = set(), 0
    for i in range(90):
        seconds = i / 12
        left = 1000 - 75 * seconds
        parts = [(max(left, high), left + 58), (left, min(left + 58, low))]
        seen = [(a, 415, b, 487) for a, b in parts if b - a >= 19]
        unseen += not seen
        boxes = np.array(seen[:1], np.float64).reshape(-1, 4)
        ids |= set(tracker.look(boxes, np.ones(len(boxes)), seconds).tolist())
    assert unseen >= 3
    assert ids == {1}


def frames_of(settled: Settled) -> list[Faces]:
    return [settled.faces(row) for row in range(len(settled))]


def live(scene: Scene, every: int = 1) -> list[Faces]:
    follower = Follower(SETTINGS, LabelSettings(), 0.5)
    return [
        follower.look(faces, t) if i % every == 0 else follower.skip(t)
        for i, (t, faces) in enumerate(zip(scene.times.tolist(), scene.found, strict=True))
    ]


@pytest.mark.parametrize("name", SCENES)
def test_ids_and_boxes_in_a_file(name: str) -> None:
    scene = SCENES[name]
    settled = in_a_file(scene)
    got = measure(scene.truth, answers_of(frames_of(settled)))
    assert got.switches == 0
    assert got.mota >= 0.95
    assert got.idf1 >= 0.97
    assert [track.id for track in settled.tracks] == list(range(1, len(scene.faces) + 1))


@pytest.mark.parametrize("name", SCENES)
def test_ids_and_boxes_live(name: str) -> None:
    """What is not known yet costs: births wait for hits, and boxes linger after a face left."""
    scene = SCENES[name]
    got = measure(scene.truth, answers_of(live(scene)))
    assert got.switches == 0
    assert got.mota >= 0.88
    assert got.idf1 >= 0.94


@pytest.mark.parametrize(("every", "mota"), [(3, 0.95), (5, 0.94), (8, 0.85)])
@pytest.mark.parametrize("name", ["alone", "crossing", "faint", "uneven times", "missed"])
def test_looks_may_be_rare(name: str, every: int, mota: float) -> None:
    scene = SCENES[name]
    got = measure(scene.truth, answers_of(frames_of(in_a_file(scene, every))))
    assert got.switches == 0
    assert got.mota >= mota


@pytest.mark.parametrize("name", ["alone", "crossing", "occluded", "faint", "missed", "crowd"])
def test_another_tracker_gives_the_same_ids(name: str) -> None:
    """ByteTrack of the `trackers` package, on the same detections: ids agree but for names."""
    supervision = pytest.importorskip("supervision")
    trackers = pytest.importorskip("trackers")
    scene = SCENES[name]
    other = trackers.ByteTrackTracker(
        frame_rate=25,
        track_activation_threshold=0.5,
        high_conf_det_threshold=0.5,
        minimum_consecutive_frames=1,
    )
    ours, together = Tracker(SETTINGS, 0.5), dict[tuple[int, int], int]()
    count = 0
    for t, faces in zip(scene.times.tolist(), scene.found, strict=True):
        ids = ours.look(faces.boxes, faces.scores, t)
        given = supervision.Detections(
            xyxy=faces.boxes.astype(float).reshape(-1, 4),
            confidence=faces.scores.astype(float),
            data={"row": np.arange(len(faces))},
        )
        result = other.update(given, timestamp=t)
        if result.tracker_id is None or not len(result):
            continue
        rows = result.data["row"]
        for row, theirs in zip(rows.tolist(), result.tracker_id.tolist(), strict=True):
            if ids[row] > 0 and theirs >= 0:
                pair = (int(ids[row]), int(theirs))
                together[pair] = together.get(pair, 0) + 1
                count += 1
    # Each id of theirs goes with the id of ours that it meets most; all else is disagreement.
    best: dict[int, int] = {}
    for (mine, theirs), times in together.items():
        if times > together.get((best.get(theirs, -1), theirs), 0):
            best[theirs] = mine
    agreed = sum(together[mine, theirs] for theirs, mine in best.items())
    assert count > 0.75 * sum(map(len, scene.found))
    assert agreed >= 0.99 * count
    if name != "crowd":
        assert len(set(best.values())) == len(best), "no two of theirs are one of ours"


def test_a_short_error_is_no_face() -> None:
    flicker = Face(straight(500, 500, 40), begin=1.0, end=1.07)
    settled = in_a_file(Scene([Face(straight(100, 300, 80, 80)), flicker], steady(25, 3)))
    assert len(settled.tracks) == 1


def test_a_face_is_shown_from_its_first_detection_in_a_file_and_from_the_third_live() -> None:
    scene = Scene([Face(straight(100, 300, 80, 20), begin=0.39)], steady(25, 2))
    first = next(i for i, faces in enumerate(frames_of(in_a_file(scene))) if len(faces))
    assert first == 10
    assert next(i for i, faces in enumerate(live(scene)) if len(faces)) == 12


def test_a_shot_of_two_frames_still_has_faces() -> None:
    scene = Scene([Face(straight(100, 300, 80))], steady(25, 0.08))
    assert [len(faces) for faces in frames_of(in_a_file(scene))] == [1, 1]


@pytest.mark.parametrize(("hidden", "filled"), [(0.3, True), (0.8, False)])
def test_short_gaps_are_filled_and_marked_and_long_ones_stay_empty(
    hidden: float, filled: bool
) -> None:
    face = Face(straight(100, 300, 80, 60), hidden=(1.0, 1.0 + hidden))
    scene = Scene([face], steady(25, 3))
    settled = in_a_file(scene)
    assert len(settled.tracks) == 1, "the id outlives the gap"
    for t, faces in zip(scene.times.tolist(), frames_of(settled), strict=True):
        is_gap = 1.0 <= t < 1.0 + hidden
        assert len(faces) == (1 if not is_gap or filled else 0)
        if len(faces):
            assert bool(faces.predicted[0]) == is_gap
            x0, y0, x1, y1 = faces.boxes[0].tolist()
            assert iou((x0, y0, x1, y1), face.box(t)) > 0.75


def test_a_face_that_stays_away_too_long_is_another() -> None:
    face = Face(straight(300, 300, 80), hidden=(1.0, 2.5))
    settled = in_a_file(Scene([face], steady(25, 4)))
    assert [round(track.first_seconds, 2) for track in settled.tracks] == [0.0, 2.52]
    longer = TrackSettings(lost_seconds=2.0)
    assert len(in_a_file(Scene([face], steady(25, 4)), settings=longer).tracks) == 1


def test_boxes_between_looks_are_on_the_way_and_not_marked() -> None:
    face = Face(straight(100, 300, 80, 200))
    scene = Scene([face], steady(30, 2), jitter=0.0)
    for t, faces in zip(scene.times.tolist(), frames_of(in_a_file(scene, every=6)), strict=True):
        np.testing.assert_allclose(faces.boxes, [face.box(t)], atol=0.01)
        assert not faces.predicted.any()


def test_a_track_ends_halfway_to_the_look_that_missed_it() -> None:
    face = Face(straight(100, 300, 80, 50), begin=0.9, end=2.1)
    scene = Scene([face], steady(10, 4), jitter=0.0)
    frames = frames_of(in_a_file(scene, every=10))  # looks at 0, 1, 2 and 3 s
    shown = [i for i, faces in enumerate(frames) if len(faces)]
    assert shown == list(range(6, 26))


def test_unsure_detections_continue_a_track_but_neither_begin_nor_end_one() -> None:
    t = steady(25, 3)
    faint_end = Scene([Face(straight(100, 300, 80, 20), faint=(2, 9))], t)
    [track] = in_a_file(faint_end).tracks
    assert track.last_seconds == pytest.approx(49 / 25)
    assert in_a_file(Scene([Face(straight(100, 300, 80), faint=(0, 9))], t)).tracks == []
    [track] = in_a_file(SCENES["alone"]).tracks
    assert (track.frames, track.detections) == (75, 75)


def two_shots(*, at: int, back: int | None = None) -> tuple[Scene, list[Shot]]:
    """Return a face that stands still while the camera cuts to another in the same place."""
    scene = Scene([Face(straight(300, 300, 80))], steady(25, 3))
    shots = [Shot.SAME] * len(scene.times)
    shots[at] = Shot.NEW
    if back is not None:
        shots[back] = Shot.BACK
    return scene, shots


def test_ids_end_at_a_cut_and_never_come_again() -> None:
    scene, shots = two_shots(at=30)
    tracker, tape = Tracker(SETTINGS, 0.5), Tape()
    follower = Follower(SETTINGS, LabelSettings(), 0.5)
    ids = []
    for i, (t, faces) in enumerate(zip(scene.times.tolist(), scene.found, strict=True)):
        if shots[i] is Shot.NEW:
            tracker.cut()
            tape.cut()
        tape.frame(i, t, looked=True)
        tape.faces(faces, tracker.look(faces.boxes, faces.scores, t))
        ids.append(follower.look(faces, t, shots[i]).tracks.tolist())
    settled = settle(tape.read(), SETTINGS, 0.5)
    in_file = [faces.tracks.tolist() for faces in frames_of(settled)]
    assert in_file == [[1]] * 30 + [[2]] * 45
    assert ids == [[]] * 2 + [[1]] * 28 + [[]] * 2 + [[2]] * 43
    assert [track.shot for track in settled.tracks] == [0, 1]
    assert settled.shot.tolist() == [0] * 30 + [1] * 45


def test_a_flash_is_no_cut() -> None:
    scene, shots = two_shots(at=30, back=32)
    tracker, tape = Tracker(SETTINGS, 0.5), Tape()
    follower = Follower(SETTINGS, LabelSettings(), 0.5)
    live_ids = []
    for i, (t, faces) in enumerate(zip(scene.times.tolist(), scene.found, strict=True)):
        seen = faces if not 30 <= i < 32 else Faces.empty()
        if shots[i] is Shot.NEW:
            tracker.cut()
            tape.cut()
        elif shots[i] is Shot.BACK:
            tracker.no_cut()
            tape.no_cut()
        tape.frame(i, t, looked=True)
        tape.faces(seen, tracker.look(seen.boxes, seen.scores, t))
        live_ids.append(follower.look(seen, t, shots[i]).tracks.tolist())
    settled = settle(tape.read(), SETTINGS, 0.5)
    assert [faces.tracks.tolist() for faces in frames_of(settled)] == [[1]] * 75
    assert [bool(faces.predicted[0]) for faces in frames_of(settled)][29:33] == [0, 1, 1, 0]
    assert live_ids[32:] == [[1]] * 43


def test_the_label_is_the_track_s_from_the_first_frame_on() -> None:
    scene = SCENES["alone"]
    rng = np.random.default_rng(0)
    for faces in scene.found:
        faces.female[:] = rng.uniform(0.3, 0.95)  # in a frame, anything
    settled = in_a_file(scene)
    seen = {float(p) for faces in frames_of(settled) for p in faces.female}
    assert len(seen) == 1
    assert seen.pop() == pytest.approx(settled.tracks[0].female, abs=1e-6)


def test_nothing_found_is_nothing_shown() -> None:
    settled = in_a_file(Scene([], steady(25, 1)))
    assert settled.tracks == []
    assert [len(faces) for faces in frames_of(settled)] == [0] * 25
    assert len(settle(Tape().read(), SETTINGS, 0.5)) == 0


@pytest.mark.timed
def test_twenty_faces_cost_a_few_milliseconds_at_most() -> None:
    """About one, on a machine that has nothing else to do; a loop over pairs would take many."""
    faces = [Face(straight(60 + 120 * (i % 10), 150 + 300 * (i // 10), 50, 20)) for i in range(20)]
    scene = Scene(faces, steady(25, 4), missing=0.05)
    for follow in (Tracker(SETTINGS, 0.5), Follower(SETTINGS, LabelSettings(), 0.5)):
        taken = []
        for t, found in zip(scene.times.tolist(), scene.found, strict=True):
            began = time.perf_counter()
            if isinstance(follow, Tracker):
                follow.look(found.boxes, found.scores, t)
            else:
                follow.look(found, t)
            taken.append(time.perf_counter() - began)
        assert np.quantile(taken, 0.25) < 4e-3
