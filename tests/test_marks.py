"""What other networks say of faces: marks to ignore, and chances to learn from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from drawn_faces import write_portraits, write_set

from videogender.dataset import Entry, read_entries
from videogender.errors import TrainingError
from videogender.training.data import ImageStore
from videogender.training.marks import add_chances, add_ignored


def test_marks_of_another_detector_are_ignored_once(tmp_path: Path) -> None:
    folder = write_set(
        tmp_path,
        [{"faces": [{"box": [0, 0, 10, 10]}]}, {"faces": []}],
        [np.zeros((60, 60, 3), np.uint8)] * 2,
    )
    marks = folder / "marks.jsonl"
    marks.write_text(
        '{"image": "0.png", "faces": [{"box": [1, 1, 11, 11], "score": 0.9},'
        ' {"box": [30, 30, 40, 40], "score": 0.9}, {"box": [50, 50, 60, 60], "score": 0.2}]}\n'
        '{"image": "other.png", "faces": []}\n'
    )
    entries = read_entries(folder)
    assert add_ignored(entries, marks) == 1
    assert entries[0].faces[1:] == [{"box": [30, 30, 40, 40], "ignore": True}]
    assert entries[1].faces == []
    assert add_ignored(entries, marks) == 0


def test_chances_soften_labels_and_stand_in_for_missing_ones(tmp_path: Path) -> None:
    faces = [
        {"box": [0, 0, 10, 10], "gender": "male"},
        {"box": [20, 0, 30, 10]},
        {"box": [40, 0, 50, 10], "gender": "female", "age": 1},
        {"box": [0, 30, 10, 40], "gender": "female"},
        {"box": [20, 30, 30, 40], "ignore": True},
    ]
    folder = write_set(tmp_path, [{"faces": faces}], [np.zeros((60, 60, 3), np.uint8)])
    told = [
        {"box": [1, 0, 11, 10], "female": 0.5},
        {"box": [20, 0, 30, 10], "female": 0.75},
        {"box": [40, 0, 50, 10], "female": 0.5},
        {"box": [4, 34, 14, 44], "female": 0.0},  # too far off to be that face
        {"box": [20, 30, 30, 40], "female": 1.0},
    ]
    marks = folder / "marks.jsonl"
    marks.write_text(json.dumps({"image": "0.png", "faces": told}) + "\n")
    entries = read_entries(folder)
    assert add_chances(entries, marks) == 3
    store = ImageStore(entries, [], least_age=3, label_share=0.6)
    np.testing.assert_allclose(store.male, [0.8, 0.25, np.nan, 0.0, np.nan], rtol=1e-6)
    assert store.gender.tolist() == [1, 0, -1, 0, -1], "labels stay, and what is likelier elsewhere"


@pytest.mark.parametrize(
    ("pictures", "marked", "told"),
    [
        (["a/1.png", "b/1.png"], ["a/1.png"], ["a/1.png"]),
        (["a/1.png", "b/1.png"], ["a/1.png", "b/1.png"], ["a/1.png", "b/1.png"]),
        (["a/1.png", "a/2.png"], ["a/../a/1.png", "c/2.png"], ["a/1.png", "a/2.png"]),
        (["a/1.png", "b/2.png"], ["c/1.png", "d/1.png", "c/2.png"], ["b/2.png"]),
        (["a/1.png", "b/1.png", "b/2.png"], ["c/1.png", "c/2.png"], ["b/2.png"]),
        (["a/1.png", "a/1.png"], ["c/1.png"], ["a/1.png", "a/1.png"]),
    ],
)
def test_a_bare_name_stands_for_a_picture_only_if_no_other_has_it(
    tmp_path: Path, pictures: list[str], marked: list[str], told: list[str]
) -> None:
    box = [0, 0, 10, 10]
    entries = [Entry(tmp_path / name, 60, 60, [{"box": box}], {}) for name in pictures]
    marks = tmp_path / "marks.jsonl"
    lines = [{"image": name, "faces": [{"box": box, "female": 0.5}]} for name in marked]
    marks.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert add_chances(entries, marks) == len(told)
    found = [e.path for e in entries if "female" in e.faces[0]]
    assert found == [tmp_path / name for name in told]


def test_marks_for_nobody_but_namesakes_are_an_error(tmp_path: Path) -> None:
    entries = [Entry(tmp_path / name, 60, 60, [], {}) for name in ("a/1.png", "b/1.png")]
    (tmp_path / "marks.jsonl").write_text('{"image": "1.png", "faces": []}\n')
    with pytest.raises(TrainingError, match="names none of the training pictures"):
        add_ignored(entries, tmp_path / "marks.jsonl")


@pytest.mark.parametrize(
    ("add", "line", "message"),
    [
        (add_ignored, '{"image": "x.png", "faces": []}', "names none of the training pictures"),
        (add_ignored, '{"faces": []}', ":1: expected `image`"),
        (add_ignored, '{"image": "0.png", "faces": [{"box": [0, 0, 1, 1]}]}', "needs a `score`"),
        (add_ignored, '{"image": "0.png", "faces": [{"score": 1}]}', ":1: a face needs a `box`"),
        (
            add_chances,
            '{"image": "0.png", "faces": [{"box": [0, 0, 1, 1], "score": 1}]}',
            ":1: a mark needs a `female`, got None",
        ),
        (
            add_chances,
            '{"image": "0.png", "faces": [{"box": [0, 0, 1, 1], "female": 1.5}]}',
            ":1: `female` should be from 0 to 1, got 1.5",
        ),
    ],
)
def test_bad_marks_are_explained(
    tmp_path: Path, add: Callable[..., int], line: str, message: str
) -> None:
    entries = read_entries(write_portraits(tmp_path, 1))
    (tmp_path / "marks.jsonl").write_text(line + "\n")
    with pytest.raises(TrainingError, match=message):
        add(entries, tmp_path / "marks.jsonl")
