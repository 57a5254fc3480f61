"""Sides of a split: nothing in common, classes in their shares, the same for the same seed."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videogender.errors import ConfigError, TrainingError
from videogender.finetuning.datasets import (
    Labelled,
    Picture,
    Problem,
    Sample,
    Split,
    read_labelled,
    split,
    summary_lines,
)

CLASSES = ("a", "b", "c")


def print_like(look: int, noise: int) -> bytes:
    """A print of one of many unlike pictures, a little different each time."""
    base = np.random.default_rng(look).integers(8, 248, (16, 17, 3))
    jitter = np.random.default_rng(1000 + noise).integers(-4, 5, base.shape)
    return (base + jitter).astype(np.uint8).tobytes()


def make(faces: list[tuple[int, int, int | None, int]], sides: list[str] | None = None) -> Labelled:
    """Return data of (label, picture, person, look); a picture has the look of its first face."""
    looks: dict[int, int] = {}
    for _, at, _, look in faces:
        looks.setdefault(at, look)
    pictures = {
        Path(f"{at}.png"): Picture(9, 9, str(at).encode(), print_like(look, at))
        for at, look in looks.items()
    }
    samples = [
        Sample(
            Path(f"{at}.png"),
            (float(n), 0.0, n + 1.0, 1.0),
            label,
            None if person is None else f"p{person}",
            f"x.csv:{n}",
            9,
            9,
            sides[n] if sides else None,
        )
        for n, (label, at, person, _) in enumerate(faces)
    ]
    return Labelled(samples, CLASSES, "csv", [], "label", pictures=pictures)


def looks_of(labelled: Labelled, faces: list[tuple[int, int, int | None, int]]) -> dict[Path, int]:
    looks: dict[Path, int] = {}
    for _, at, _, look in faces:
        looks.setdefault(Path(f"{at}.png"), look)
    return looks


def assert_apart(sides: Split, looks: dict[Path, int], persons: bool = True) -> None:
    parts = (sides.train, sides.val, sides.test)
    for key in (
        lambda s: s.path,
        lambda s: looks[s.path],
        lambda s: s.person if persons else None,
    ):
        seen = [{key(s) for s in part} - {None} for part in parts]
        assert not (seen[0] & seen[1] | seen[0] & seen[2] | seen[1] & seen[2])


FACES = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.integers(0, 60),
        st.none() | st.integers(0, 30),
        st.integers(0, 90),
    ),
    min_size=12,
    max_size=60,
)


@settings(deadline=None, max_examples=80)
@given(FACES, st.integers(0, 5), st.sampled_from(["auto", "file"]), st.data())
def test_nothing_is_on_two_sides(
    faces: list[tuple[int, int, int | None, int]], seed: int, by: str, data: st.DataObject
) -> None:
    own = data.draw(
        st.none()
        | st.lists(
            st.sampled_from(["train", "val", "test"]), min_size=len(faces), max_size=len(faces)
        )
    )
    labelled = make(faces, own)
    problems: list[Problem] = []
    arguments = {"val_share": 0.2, "test_share": 0.2, "seed": seed, "by": by}
    try:
        sides = split(labelled, **arguments, problems=problems)  # type: ignore[arg-type]
    except TrainingError:
        return  # too little of it; the next tests hold that it splits when it can
    assert_apart(sides, looks_of(labelled, faces), persons=by != "file")
    kept = [*sides.train, *sides.val, *sides.test]
    left_out = sum(p.kind == "across-split" for p in problems)
    assert len(kept) + left_out == len(set(kept)) + left_out == len(faces)
    assert sides == split(labelled, **arguments, problems=[])  # type: ignore[arg-type]
    assert {s.label for s in sides.train} == {label for label, *_ in faces} or sides.by == "given"


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(20, 90), min_size=2, max_size=3), st.integers(0, 9))
def test_single_pictures_keep_the_shares(sizes: list[int], seed: int) -> None:
    faces: list[tuple[int, int, int | None, int]] = []
    for label, size in enumerate(sizes):
        faces += [(label, len(faces) + i, None, len(faces) + i) for i in range(size)]
    sides = split(make(faces), val_share=0.15, test_share=0.1, seed=seed, problems=[])
    for label, size in enumerate(sizes):
        for part, share in ((sides.train, 0.75), (sides.val, 0.15), (sides.test, 0.1)):
            count = sum(s.label == label for s in part)
            assert count == pytest.approx(size * share, abs=1.01)
    assert sides.by == "file"


def people(persons: list[int], each: int = 5) -> list[tuple[int, int, int | None, int]]:
    """Pictures of persons; `persons` gives the label of each."""
    return [
        (label, who * each + i, who, who * each + i)
        for who, label in enumerate(persons)
        for i in range(each)
    ]


def test_every_side_gets_every_class_where_persons_allow_it() -> None:
    faces = people([0] * 3 + [1] * 7, each=20)  # as many women and men as in the notes' set
    for seed in range(10):
        problems: list[Problem] = []
        sides = split(make(faces), val_share=0.15, test_share=0.15, seed=seed, problems=problems)
        assert problems == []
        assert [len(p) for p in (sides.train, sides.val, sides.test)] == [120, 40, 40]
        assert sides.by == "person"


def test_seeds_differ() -> None:
    labelled = make(people([0, 1] * 20))
    parts = {
        tuple(
            s.where
            for s in split(labelled, val_share=0.2, test_share=0.0, seed=seed, problems=[]).val
        )
        for seed in range(5)
    }
    assert len(parts) > 1


def test_too_few_persons_are_said() -> None:
    problems: list[Problem] = []
    labelled = make(people([0, 0, 0, 1, 1]))
    split(labelled, val_share=0.2, test_share=0.2, seed=0, problems=problems)
    assert [(p.kind, p.message[:21]) for p in problems] == [("thin-side", "no face in test is b;")]
    with pytest.raises(TrainingError, match="too few persons; split by file"):
        split(make([(0, 1, 1, 1), (1, 2, 1, 2)]), val_share=0.2, test_share=0, seed=0, problems=[])


def test_sides_of_the_data_are_kept_without_leaks() -> None:
    faces = people([0, 1] * 10, each=2)
    own = ["train"] * 24 + ["test"] * 16
    own[1] = "test"  # of person 0, who is in training too
    faces[30] = (faces[30][0], 30, 15, 9)  # looks like picture 9 of training
    problems: list[Problem] = []
    sides = split(make(faces, own), val_share=0.2, test_share=0.5, seed=0, problems=problems)
    assert sides.by == "given"
    assert [s.where for s in sides.test] == ["x.csv:1"] + [f"x.csv:{n}" for n in range(24, 40)]
    assert len(sides.train) + len(sides.val) == 20  # validation is cut from training
    assert Counter(s.label for s in sides.val) == {0: 2, 1: 2}
    assert {p.where: p.message for p in problems if p.kind == "across-split"} == {
        "x.csv:0": "shows the same person as x.csv:1 in test; left out of train",
        "x.csv:8": "belongs with x.csv:30 in test; left out of train",
        "x.csv:9": "belongs with x.csv:30 in test; left out of train",
    }
    again = split(make(faces, own), val_share=0.2, test_share=0.2, seed=0, by="file", problems=[])
    assert len(again.train) + len(again.val) + len(again.test) == 40


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"val_share": 0.6, "test_share": 0.4}, "leave nothing to train on"),
        ({"val_share": -0.1}, "leave nothing"),
        ({"by": "name"}, "auto, person, file, given"),
    ],
)
def test_impossible_settings(arguments: dict[str, object], message: str) -> None:
    settings: dict[str, object] = {"val_share": 0.2, "test_share": 0.2, "seed": 0, **arguments}
    with pytest.raises(ConfigError, match=message):
        split(make(people([0, 1])), **settings, problems=[])  # type: ignore[arg-type]


@pytest.mark.parametrize("by", ["person", "given"])
def test_what_the_data_does_not_know(by: str) -> None:
    labelled = make([(n % 2, n, None, n) for n in range(10)])
    with pytest.raises(TrainingError, match="split it by file"):
        split(labelled, val_share=0.2, test_share=0.2, seed=0, by=by, problems=[])


@pytest.mark.data
@pytest.mark.skipif("VIDEOGENDER_DATA" not in os.environ, reason="no VIDEOGENDER_DATA")
def test_toy_set_of_the_notes() -> None:
    folder = Path(os.environ["VIDEOGENDER_DATA"]) / "celeb-small"
    labelled = read_labelled(folder)
    assert Counter(labelled.classes[s.label] for s in labelled.samples) == {
        "female": 60,
        "male": 139,
    }
    sides = split(labelled, val_share=0.15, test_share=0.15, seed=0, problems=labelled.problems)
    assert "split by person (10 known)" in summary_lines(labelled, sides)
    assert labelled.problems == []
    names = read_labelled(folder, label_column="Tags")
    assert len(names.classes) == 10
    unseen = read_labelled(folder / "test")
    assert len(unseen.samples) == 50
    odd = [p.message for p in unseen.problems if p.kind == "label-spelling"]
    assert odd == ["TestCeleb-2 is spelt unlike TestCeleb_1"]
