"""Summaries against known truth, and against a slow count over frames."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from settled_videos import Actor, settled_video, ticks

from videogender.frames import Faces, Frame, RgbPicture
from videogender.reports.summary import LABELS, FaceCounts, Total, summarize
from videogender.tracking.flat import frame_seconds, stretches
from videogender.tracking.settle import Settled


def summary_of(settled: Settled, **more: Any) -> dict[str, Any]:
    options = {"source": "a.mp4", "size_wh": (640, 360), "unsure_below": 0.65} | more
    found = summarize(settled, **options)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    return found


def test_a_scene_that_can_be_counted_by_hand() -> None:
    """Ten seconds at 10 fps with a cut after six: a woman, a man who is lost, one of neither."""
    settled = settled_video(
        [
            Actor([(0.0, 6.0)], female=0.97, size=100),
            Actor([(1.0, 3.0), (4.0, 6.0)], female=0.03, x=300),
            Actor([(6.0, 9.0)], female=0.5, x=200),
        ],
        ticks(10),
        cuts=[6.0],
    )
    found = summary_of(settled, interrupted=True, zones={"zones": []})
    assert found["duration_seconds"] == pytest.approx(10)
    assert (found["frames"], found["shots"], found["interrupted"]) == (100, 2, True)
    assert found["appearances"] == {"all": 3, "female": 1, "male": 1, "unsure": 1}
    assert found["zones"] == {"zones": []}
    screen = found["on_screen"]
    assert screen["all"]["seconds"] == pytest.approx(9)
    assert screen["all"]["face_seconds"] == pytest.approx(6 + 4 + 3)
    assert screen["all"]["mean"] == pytest.approx(1.3)
    assert (screen["all"]["peak"], screen["all"]["peak_at_seconds"]) == (2, 1.0)
    assert (screen["male"]["first_seconds"], screen["male"]["last_seconds"]) == (1.0, 5.9)
    assert screen["male"]["seconds"] == pytest.approx(4)
    assert (screen["unsure"]["peak"], screen["unsure"]["peak_at_seconds"]) == (1, 6.0)
    woman, man, other = found["tracks"]
    assert (woman["label"], man["label"], other["label"]) == LABELS
    assert (woman["shot"], other["shot"]) == (0, 1)
    assert woman["mean_height_px"] == pytest.approx(100, abs=0.1)
    assert man["seconds"] == pytest.approx(4)
    assert stretches(settled)[man["id"]] == [
        (pytest.approx(1.0), pytest.approx(3.0)),
        (pytest.approx(4.0), pytest.approx(6.0)),
    ]


def test_frames_count_as_long_as_they_are_shown() -> None:
    """Of the uneven times, the frames with the face last 0.1, 0.4 and 1.0 s."""
    times = [0.0, 0.1, 0.5, 1.5, 1.6]
    settled = settled_video([Actor([(0.0, 1.5)])], times)
    found = summary_of(settled)
    assert found["on_screen"]["female"]["seconds"] == pytest.approx(1.5)
    # The last frame has no successor and counts as long as the median one.
    assert found["duration_seconds"] == pytest.approx(1.6 + 0.25)


@pytest.mark.parametrize("seed", range(3))
def test_any_video_against_a_slow_count(seed: int) -> None:
    rng = np.random.default_rng(seed)
    times = 47 + rng.uniform(0.02, 0.2, 900).cumsum()
    actors = []
    for _ in range(25):
        begin = rng.uniform(times[0], times[-1])
        end = begin + rng.exponential(12)
        actors.append(Actor([(begin, end)], female=rng.choice([0.02, 0.5, 0.98]), x=rng.random()))
    settled = settled_video(actors, times)
    found = summary_of(settled)
    lengths = [*np.diff(times), np.median(np.diff(times))]
    labels = {t["id"]: t["label"] for t in found["tracks"]}
    assert {t.id for t in settled.tracks} == set(labels)
    seen: list[dict[str, int]] = []
    in_view = dict.fromkeys(labels, 0.0)
    for row, length in enumerate(lengths):
        here = {"all": 0} | dict.fromkeys(LABELS, 0)
        for track in settled.faces(row).tracks.tolist():
            here["all"] += 1
            here[labels[track]] += 1
            in_view[track] += length
        seen.append(here)

    def check(told: dict[str, Any], rows: list[int], group: str) -> None:
        watched = sum(lengths[r] for r in rows)
        seconds = sum(lengths[r] for r in rows if seen[r][group])
        faces = sum(lengths[r] * seen[r][group] for r in rows)
        peak = max(seen[r][group] for r in rows)
        assert told["seconds"] == pytest.approx(seconds, abs=2e-3)
        assert told["face_seconds"] == pytest.approx(faces, abs=2e-3)
        assert told["mean"] == pytest.approx(faces / watched, abs=1e-3)
        assert told["peak"] == peak
        if peak:
            at = next(times[r] for r in rows if seen[r][group] == peak)
            assert told["peak_at_seconds"] == pytest.approx(at, abs=1e-3)

    for group in ("all", *LABELS):
        check(found["on_screen"][group], list(range(len(times))), group)
        for minute in found["per_minute"]:
            low, high = minute["begin_seconds"], minute["end_seconds"]
            rows = [r for r, t in enumerate(times) if low <= t < high]
            check(minute[group], rows, group)
            assert minute["watched_seconds"] == pytest.approx(
                sum(lengths[r] for r in rows), abs=1e-3
            )
    minutes = [minute["begin_seconds"] for minute in found["per_minute"]]
    assert minutes == list(range(0, 60 * len(minutes), 60))
    for track in found["tracks"]:
        assert track["seconds"] == pytest.approx(in_view[track["id"]], abs=2e-3)
    # What is told in three ways is the same.
    total = found["on_screen"]["all"]["face_seconds"]
    assert sum(t["seconds"] for t in found["tracks"]) == pytest.approx(total, abs=0.05)
    lengths_of = sum(b - a for parts in stretches(settled).values() for a, b in parts)
    assert lengths_of == pytest.approx(total, abs=0.05)


def test_the_threshold_decides_the_label() -> None:
    settled = settled_video([Actor([(0, 5)], female=0.9)], ticks(5))
    (track,) = settled.tracks
    for threshold, label in ((track.female - 0.01, "female"), (track.female + 0.01, "unsure")):
        found = summary_of(settled, unsure_below=threshold)
        assert found["tracks"][0]["label"] == label
        assert found["on_screen"][label]["seconds"] == pytest.approx(5)


def test_a_model_without_gender_and_a_video_without_faces() -> None:
    found = summary_of(settled_video([Actor([(0, 5)], female=math.nan)], ticks(5)))
    assert found["tracks"][0]["female"] is None
    assert found["appearances"]["unsure"] == 1
    empty = summary_of(settled_video([], ticks(5)))
    assert empty["tracks"] == []
    assert empty["on_screen"]["all"]["first_seconds"] is None
    assert empty["duration_seconds"] == pytest.approx(5)
    assert summary_of(settled_video([], []))["frames"] == 0
    assert summary_of(settled_video([], [3.0]))["per_minute"][0]["all"]["peak"] == 0


def picture() -> RgbPicture:
    return RgbPicture(np.zeros((36, 64, 3), np.uint8))


def faces(*female: float) -> Faces:
    n = len(female)
    return Faces(np.zeros((n, 4), np.float32), np.ones(n, np.float32), np.array(female, np.float32))


def test_faces_that_are_not_followed_are_counted_frame_by_frame() -> None:
    counts = FaceCounts("a.mp4", 0.65)
    for i in range(20):
        found = faces(0.9, 0.1, 0.5) if i < 5 else faces(0.9)
        counts.add(Frame(picture(), i, i / 10, "a.mp4"), found)
    told = counts.summary()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told["faces"] == {"all": 30, "female": 20, "male": 5, "unsure": 5}
    assert told["appearances"] is told["tracks"] is told["shots"] is None
    assert (told["kind"], told["width"], told["frames"]) == ("video", 64, 20)
    assert told["on_screen"]["male"]["seconds"] == pytest.approx(0.5)
    assert told["on_screen"]["all"]["peak"] == 3


def test_a_still_has_no_times() -> None:
    counts = FaceCounts("a.jpg", 0.65)
    counts.add(Frame(picture(), 0, None, "a.jpg"), faces(0.9, 0.2))
    told = counts.summary()
    assert told["kind"] == "image"
    assert told["faces"] == {"all": 2, "female": 1, "male": 1, "unsure": 0}
    assert told["duration_seconds"] is told["on_screen"] is told["per_minute"] is None


def test_a_total_over_videos_and_images() -> None:
    woman, man = Actor([(0.0, 6.0)], female=0.97), Actor([(1.0, 3.0)], female=0.03, x=300)
    first = summary_of(settled_video([woman, man], ticks(10)))
    second = summary_of(settled_video([woman], ticks(8)), interrupted=True)
    still = FaceCounts("a.jpg", 0.65)
    picture = RgbPicture(np.zeros((9, 16, 3), np.uint8))
    box, one = np.zeros((1, 4), np.float32), np.ones(1, np.float32)
    still.add(Frame(picture, 0, None, "a.jpg"), Faces(box, one, one))
    total = Total.of([first, second, still.summary()])
    assert (total.videos, total.images, total.interrupted) == (2, 1, True)
    assert total.duration_seconds == pytest.approx(18)
    assert total.appearances == {"all": 3, "female": 2, "male": 1, "unsure": 0}
    assert total.faces == {"all": 1, "female": 1, "male": 0, "unsure": 0}
    assert total.on_screen is not None
    assert total.on_screen["female"] == {"seconds": 12.0, "face_seconds": 12.0, "peak": 1}
    assert total.on_screen["all"] == {"seconds": 12.0, "face_seconds": 14.0, "peak": 2}
    assert Total.of([still.summary()]).on_screen is None
    assert Total.of([still.summary()]).appearances is None


def test_lengths_of_frames() -> None:
    assert frame_seconds(np.array([0.0, 1.0, 3.0, 4.0])).tolist() == [1, 2, 1, 1]
    assert frame_seconds(np.array([5.0])).tolist() == [0]
    assert frame_seconds(np.zeros(0)).tolist() == []


def test_attributes_are_settled_with_their_tracks() -> None:
    """A fine-tuned head's answer belongs to the whole appearance, as the label does."""
    actors = [
        Actor([(0, 4)], female=0.95, mask=0.9),
        Actor([(1, 3)], female=0.05, mask=0.95),
        Actor([(5, 6)], female=0.95, mask=0.1),
        Actor([(6, 7)], female=0.5, mask=0.5),
        Actor([(8, 9)], female=0.5, mask=math.nan),
    ]
    settled = settled_video(actors, ticks(10))
    told = summary_of(settled)
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    names = ["mask", "mask", "no mask", "unsure", "unsure"]
    assert [track["attribute"] for track in told["tracks"]] == names
    assert told["tracks"][1]["attribute_probability"] > 0.85
    assert told["tracks"][4]["attribute_probability"] is None
    assert told["attributes"] == [
        {"name": "mask", "all": 2, "female": 1, "male": 1, "unsure": 0, "face_seconds": 6.0},
        {"name": "no mask", "all": 1, "female": 1, "male": 0, "unsure": 0, "face_seconds": 1.0},
        {"name": "unsure", "all": 2, "female": 0, "male": 0, "unsure": 2, "face_seconds": 2.0},
    ]
    assert set(settled.tracks[0].attributes) == {"mask", "no mask"}
    assert settled.tracks[0].attribute(0.9999) == ("unsure", settled.tracks[0].attributes["mask"])
    # The frames say the same.
    assert settled.faces(12).attribute_labels(0.65)[0][0] == "mask"
    plain = summary_of(settled_video([Actor([(0, 4)])], ticks(10)))
    assert plain["attributes"] is None
    assert "attribute" not in plain["tracks"][0]


def test_attributes_of_single_frames_are_counted_face_by_face() -> None:
    counts = FaceCounts("a.jpg", 0.65)
    both = np.array([[0.9, 0.1], [0.2, 0.8], [np.nan, np.nan]], np.float32)
    found = replace(faces(0.9, 0.9, 0.1), attributes=both, classes=("mask", "no mask"))
    for i in range(2):
        counts.add(Frame(picture(), i, None, "a.jpg"), found)
    assert counts.summary()["attributes"] == [
        {"name": "mask", "all": 2, "female": 2, "male": 0, "unsure": 0},
        {"name": "no mask", "all": 2, "female": 2, "male": 0, "unsure": 0},
        {"name": "unsure", "all": 2, "female": 0, "male": 2, "unsure": 0},
    ]
