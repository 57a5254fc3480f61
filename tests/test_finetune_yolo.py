"""Lines of a YOLO export that hold more than a box: points of the face, or an outline."""

from __future__ import annotations

from pathlib import Path

import pytest
from finetune_data_sets import write_pictures

from videogender.finetuning.datasets import Labelled, read_labelled

BOX = "0.5 0.5 0.2 0.4"
EYES_NOSE_MOUTH = [(0.45, 0.45), (0.55, 0.45), (0.5, 0.5), (0.46, 0.6), (0.61, 0.6)]
PLAIN = " ".join(f"{x} {y}" for x, y in EYES_NOSE_MOUTH)
MARKED = " ".join(f"{x} {y} 2" for x, y in EYES_NOSE_MOUTH)
NONE = " ".join(["-1"] * 10)
SEVEN = "0.4 0.5 0.43 0.43 0.5 0.4 0.57 0.43 0.6 0.5 0.57 0.57 0.43 0.57"
EIGHT = SEVEN + " 0.41 0.53"
ELSEWHERE = "0.1 0.5 0.2 0.2 0.5 0.1 0.8 0.2 0.9 0.5 0.8 0.8 0.2 0.8"


def read(folder: Path, lines: list[str], shape: str = "") -> Labelled:
    """Read an export with a picture for each line, which is given without its class."""
    write_pictures(folder, [f"images/{n}.png" for n in range(len(lines))])
    (folder / "labels").mkdir()
    for n, line in enumerate(lines):
        (folder / "labels" / f"{n}.txt").write_text(f"{n % 2} {line}\n")
    (folder / "data.yaml").write_text(f"train: images\nnames: [female, male]\n{shape}\n")
    return read_labelled(folder)


def boxes(labelled: Labelled) -> list[tuple[float, ...] | None]:
    """Return boxes in shares of their pictures."""
    return [
        s.box and tuple(round(v / side, 3) for v, side in zip(s.box, (64, 48, 64, 48), strict=True))
        for s in labelled.samples
    ]


@pytest.mark.parametrize(
    ("points", "shape"),
    [
        (PLAIN, ""),
        (PLAIN, "kpt_shape: [5, 2]"),
        (MARKED, ""),
        (MARKED, "kpt_shape: [5, 3]"),
        (NONE, ""),
        ("0.9 0.9 " * 5, "kpt_shape: [5, 2]"),
        ("0.5 0.5 0.4 0.4", "kpt_shape: [2, 2]"),
    ],
)
def test_points_after_a_box_are_left_out(tmp_path: Path, points: str, shape: str) -> None:
    labelled = read(tmp_path, [f"{BOX} {points}", f"{BOX} {points}", BOX], shape)
    assert boxes(labelled) == [(0.4, 0.3, 0.6, 0.7)] * 3


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([ELSEWHERE, ELSEWHERE], (0.1, 0.1, 0.9, 0.8)),
        # by itself the first may be a box and five points
        ([SEVEN, EIGHT, EIGHT], (0.4, 0.4, 0.6, 0.57)),
    ],
)
def test_polygons_of_seven_stay_polygons(
    tmp_path: Path, lines: list[str], expected: tuple[float, ...]
) -> None:
    assert boxes(read(tmp_path, lines))[0] == expected


def test_a_line_with_other_points_than_the_export_says_is_told(tmp_path: Path) -> None:
    lines = [f"{BOX} {PLAIN}", f"{BOX} {PLAIN}", f"{BOX} 0.5 0.5"]
    labelled = read(tmp_path, lines, "kpt_shape: [5, 2]")
    assert len(labelled.samples) == 2
    assert ("labels/2.txt:1", "bad-row") in {(p.where, p.kind) for p in labelled.problems}
