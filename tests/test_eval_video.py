"""Labels over time: against the usual measures computed step by step, and by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tracking_truth import Answer, Face, Scene, measure, straight

from videogender.errors import TrainingError
from videogender.evaluation.video import Way, evaluate_video
from videogender.evaluation.video_truth import parse_truth
from videogender.sinks.jsonl import FrameRecord

RATE = 25.0


def shown(
    box: list[float], label: str, track: int | None = None, predicted: bool = False
) -> dict[str, Any]:
    return {"box": box, "label": label, "track": track, "predicted": predicted, "score": 0.9}


def record(frame: int, *faces: dict[str, Any]) -> FrameRecord:
    where = {"source": "a.mp4", "width": 640, "height": 480}
    return {"frame": frame, "time_s": frame / RATE, "faces": list(faces), **where}  # type: ignore[typeddict-item]


def box(x: float, side: float = 40.0) -> list[float]:
    return [x, 10.0, x + side, 10.0 + side]


def write(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def truth_of(path: Path, lines: list[dict[str, Any]], frames: int = 1000) -> Any:
    return parse_truth(write(path, lines)).of_video({i: i / RATE for i in range(frames)})


def test_figures_by_hand(tmp_path: Path) -> None:
    """A woman whose label wavers, a man found as unsure and once as another track."""
    truth = truth_of(
        tmp_path / "t.jsonl",
        [
            {
                "frame": i,
                "faces": [
                    {"box": box(0), "label": "female", "track": 7},
                    {"box": box(100), "label": "male", "track": 9},
                    {"box": box(200), "ignore": True, "track": 11},
                ],
            }
            for i in range(10)
        ],
    )
    wavering = ["female"] * 5 + ["male", "unsure"] + ["female"] * 3
    records = [
        record(
            i,
            shown(box(1), wavering[i], 1),
            *([shown(box(101), "unsure", 2 if i < 6 else 3)] if i != 4 else []),
            shown(box(202), "male", 4),
            *([shown(box(400), "male", 5)] if i < 3 else []),
        )
        for i in range(10)
    ]
    figures = evaluate_video(records, truth, Way("track"))
    assert figures.faces == 20
    assert figures.found == pytest.approx(19 / 20)
    assert figures.false_alarms == pytest.approx(3 / 10)
    # of 19 found faces, 9 are labelled, 8 of them as they should be
    assert figures.face_coverage == pytest.approx(9 / 19)
    assert figures.face_accuracy == pytest.approx(8 / 9)
    assert [(t.track, t.label, t.answer) for t in figures.tracks] == [
        (7, "female", "female"),
        (9, "male", "unsure"),
    ]
    assert figures.track_accuracy == 1.0
    assert figures.track_coverage == 0.5
    assert figures.label_changes == 3
    assert figures.track_minutes == pytest.approx(2 * (9 / RATE) / 60)
    assert figures.flicker == pytest.approx(3 / (18 / RATE / 60))
    assert figures.id_switches == 1
    assert evaluate_video(records, truth, Way("frame")).id_switches is None


def crowd(seed: int) -> tuple[Scene, list[Answer]]:
    """Faces that cross, and answers that swap, lose and invent numbers."""
    faces = [
        Face(straight(100 + 90 * i, 100 + 40 * i, 60, vx=60 - 30 * i), begin=0.2 * i)
        for i in range(4)
    ]
    scene = Scene(faces, np.arange(0, 5, 1 / RATE), missing=0.15, false_alarms=0.2, seed=seed)
    rng = np.random.default_rng(seed)
    answers = []
    for i, found in enumerate(scene.found):
        truth = scene.truth[i]
        answer: Answer = {}
        for row, b in enumerate(found.boxes.tolist()):
            near = [t for t, other in truth.items() if abs(other[0] - b[0]) < 15]
            number = near[0] + 1 if near else 1000 + 10 * i + row
            if rng.random() < 0.03:
                number += 100
            if number not in answer:
                answer[number] = (b[0], b[1], b[2], b[3])
        answers.append(answer)
    return scene, answers


@pytest.mark.parametrize("seed", range(4))
def test_switches_misses_and_alarms_are_those_of_clear_mot(tmp_path: Path, seed: int) -> None:
    scene, answers = crowd(seed)
    truth = truth_of(
        tmp_path / "t.jsonl",
        [
            {
                "frame": i,
                "faces": [{"box": list(b), "label": "male", "track": t} for t, b in there.items()],
            }
            for i, there in enumerate(scene.truth)
        ],
    )
    records = [
        record(i, *(shown(list(b), "male", number) for number, b in answer.items()))
        for i, answer in enumerate(answers)
    ]
    figures = evaluate_video(records, truth, Way("track"))
    expected = measure(scene.truth, answers)
    assert expected.switches > 5
    assert figures.id_switches == expected.switches
    assert figures.faces - round(figures.found * figures.faces) == expected.missed
    assert figures.false_alarms == pytest.approx(expected.false / len(answers))


def test_changes_between_labelled_frames_are_seen(tmp_path: Path) -> None:
    """Every tenth frame is labelled; the face moves, and its label changes in between."""
    lines = [
        {"frame": i, "faces": [{"box": box(10.0 * i), "label": "female", "track": 1}]}
        for i in range(0, 101, 10)
    ]
    records = [
        record(i, shown(box(10.0 * i), "male" if i in (33, 34, 58) else "female"))
        for i in range(101)
    ]
    figures = evaluate_video(records, truth_of(tmp_path / "t.jsonl", lines), Way("frame"))
    assert (figures.faces, figures.found, figures.face_accuracy) == (11, 1.0, 1.0)
    assert figures.label_changes == 4
    assert figures.track_minutes == pytest.approx(100 / RATE / 60)
    # labels further apart than a second say nothing of what lies between
    far = [lines[0], lines[-1]]
    figures = evaluate_video(records, truth_of(tmp_path / "f.jsonl", far), Way("frame"))
    assert (figures.label_changes, figures.track_minutes) == (0, 0)
    assert math.isnan(figures.flicker)


def test_what_is_shown_across_a_gap_is_no_change(tmp_path: Path) -> None:
    """Between frames that lie more than a second apart a face counts as out of view."""
    lines = [{"frame": i, "faces": [{"box": box(0), "track": 1}]} for i in (0, 1, 2, 100)]
    truth = truth_of(tmp_path / "t.jsonl", lines)
    labels = {0: "female", 1: "male", 2: "male", 100: "female"}
    records = [record(i, shown(box(0), label)) for i, label in labels.items()]
    figures = evaluate_video(records, truth, Way("frame"))
    assert (figures.label_changes, figures.track_minutes) == (1, pytest.approx(2 / RATE / 60))


def test_boxes_without_tracks_are_linked_by_overlap(tmp_path: Path) -> None:
    lines = [
        {
            "frame": i,
            "faces": [
                {"box": box(2.0 * i), "label": "female"},
                {"box": box(300.0 - 2 * i), "label": "male"},
            ],
        }
        for i in (0, 5, 10, 60)
    ]
    truth = truth_of(tmp_path / "t.jsonl", lines)
    assert truth.linked
    tracks = {i: [face.track for face in faces] for i, faces in truth.frames.items()}
    assert tracks == {0: [1, 2], 5: [1, 2], 10: [1, 2], 60: [3, 4]}  # two seconds later: anew


def test_a_tie_between_labels_is_unsure(tmp_path: Path) -> None:
    lines = [{"frame": i, "faces": [{"box": box(0), "label": "male"}]} for i in range(2)]
    records = [record(i, shown(box(0), ("male", "female")[i])) for i in range(2)]
    figures = evaluate_video(records, truth_of(tmp_path / "t.jsonl", lines), Way("frame"))
    assert figures.tracks[0].answer == "unsure"
    assert math.isnan(figures.track_accuracy)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"frame": "x", "faces": []}, ":1: needs the frame's number"),
        ({"frame": 2000, "faces": []}, ":1: the video has no frame 2000"),
        ({"frame": 1}, ":1: needs a list of `faces`"),
        ({"frame": 1, "faces": [{"box": [1, 2, 3]}]}, ":1: a face needs a `box`"),
        ({"frame": 1, "faces": [{"box": box(0), "label": "woman"}]}, "label 'woman' is none of"),
        ({"frame": 1, "faces": [{"box": box(0), "track": "a"}]}, "track 'a' is no number"),
        (
            {"frame": 1, "faces": [{"box": box(0), "track": 1}, {"box": box(90)}]},
            "some faces have a `track` and some have none",
        ),
        (
            {"frame": 1, "faces": [{"box": box(0), "track": 1}, {"box": box(90), "track": 1}]},
            "frame 1 has two faces of one track",
        ),
    ],
)
def test_faulty_labels_are_refused(tmp_path: Path, line: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        truth_of(tmp_path / "t.jsonl", [line])


def test_what_annotate_writes_can_be_read_back_as_truth(tmp_path: Path) -> None:
    lines = [
        record(0, shown(box(0), "unsure", 1), shown(box(90), "male", 2)),
        record(1, shown(box(0), "female", 1)),
    ]
    truth = truth_of(tmp_path / "t.jsonl", [dict(line) for line in lines])
    assert [face.label for face in truth.frames[0]] == [None, "male"]
    assert not truth.linked
    figures = evaluate_video(lines, truth, Way("track"))
    assert (figures.found, figures.track_accuracy, figures.id_switches) == (1.0, 1.0, 0)
