"""Faults of labelled data are found, counted, and named by file and row."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from finetune_data_sets import picture, write_csv, write_jsonl, write_pictures
from PIL import Image, ImageEnhance, ImageOps

from videogender.errors import TrainingError
from videogender.finetuning.datasets import (
    Labelled,
    Problem,
    content_key,
    raise_if,
    read_labelled,
    read_rgb,
    split,
    summary,
    summary_lines,
)
from videogender.finetuning.datasets.likeness import alike_pairs, print_of


def faults(problems: list[Problem]) -> list[tuple[str, str]]:
    return [(p.kind, p.where) for p in problems]


def read(folder: Path, rows: list[str]) -> Labelled:
    write_csv(folder, rows)
    return read_labelled(folder)


def test_clean_data_has_no_problems(tmp_path: Path) -> None:
    labelled = read(tmp_path, [f"{i},{i % 20},{'FM'[i % 2]}" for i in range(40)])
    split(labelled, val_share=0.2, test_share=0.2, seed=0, problems=labelled.problems)
    assert labelled.problems == []
    raise_if(labelled.problems)


def test_every_fault_of_a_table(tmp_path: Path) -> None:
    good = [f"g{i},p{i},{'FM'[i % 2]}" for i in range(20)]
    rows = [*good, "gone,x,F", "broken,x,F", "cut.jpg,x,F", "two,x,M", "q,x,Q", "blank,x,", "many"]
    rows += ["g0,p0,F", "both,y,F", "both,y,M", "text,z,M", "other,p2,M", "again,p2,F"]
    path = write_csv(tmp_path, rows)
    images = tmp_path / "images"
    (images / "gone.png").unlink()
    (images / "broken.png").write_bytes(b"")
    picture(3, (640, 480)).save(images / "cut.jpg")
    os.truncate(images / "cut.jpg", 4000)
    picture(3).save(images / "two.jpg")
    (images / "text.png").write_text("no picture")
    labelled = read_labelled(tmp_path)
    row = {kind: f"{path.name}:{line}" for line, kind in enumerate(rows, 2)}
    assert sorted(faults(labelled.problems)) == sorted(
        [
            ("missing-file", row["gone,x,F"]),
            ("unreadable-image", row["broken,x,F"]),
            ("unreadable-image", row["cut.jpg,x,F"]),
            ("unreadable-image", row["text,z,M"]),
            ("ambiguous-file", row["two,x,M"]),
            ("unknown-label", row["q,x,Q"]),
            ("no-label", row["blank,x,"]),
            ("bad-row", row["many"]),
            ("duplicate-row", "index.csv:29"),
            ("two-labels", row["both,y,F"]),
            ("person-two-genders", row["other,p2,M"]),
        ]
    )
    assert len(labelled.samples) == 22
    messages = {p.where: p.message for p in labelled.problems}
    assert "truncated" in messages[row["cut.jpg,x,F"]]
    assert "empty" in messages[row["broken,x,F"]]
    assert "0x" not in messages[row["text,z,M"]]
    for sample in labelled.samples:  # whatever passed can be read in full
        assert read_rgb(sample.path).shape == (sample.height, sample.width, 3)
    with pytest.raises(TrainingError, match=r"index.csv:22: no picture gone \(and 10 more"):
        raise_if(labelled.problems)


def test_faults_of_boxes(tmp_path: Path) -> None:
    boxes: list[Any] = [
        [1, 1, 30, 30],
        [5, 5, 5, 20],
        [5, 5, 5.5, 20],
        [60, 44, 90, 80],  # a ninth of it is inside
        [-30, -30, 60, 60],  # tight crops are like this
        [100, 1, 130, 30],
        [1, 2, 3],
    ]
    faces = [{"box": b, "gender": "female"} for b in boxes] + [{"box": [1, 1, 9, 9], "gender": "M"}]
    write_jsonl(tmp_path, [[face] for face in faces])
    labelled = read_labelled(tmp_path)
    assert [s.where for s in labelled.samples] == [f"faces.jsonl:{n}" for n in (1, 5, 8)]
    assert faults(labelled.problems) == [
        ("empty-box", "faces.jsonl:2"),
        ("bad-row", "faces.jsonl:7"),
        ("empty-box", "faces.jsonl:3"),
        ("box-outside", "faces.jsonl:4"),
        ("box-outside", "faces.jsonl:6"),
        ("tiny-class", tmp_path.name),
        ("tiny-class", tmp_path.name),
    ]


def test_size_that_is_not_the_pictures(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path, [[{"box": [1, 1, 9, 9], "gender": g}] for g in "fmf"])
    path.write_text(path.read_text().replace('"width": 64', '"width": 128', 1))
    labelled = read_labelled(tmp_path)
    assert faults(labelled.problems)[0] == ("size-mismatch", "faces.jsonl:1")
    assert len(labelled.samples) == 2


def test_one_class_cannot_be_learned(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"all 2 faces are female \(Gender\).*1 unknown-label"):
        read(tmp_path, ["a,x,F", "b,x,F", "c,x,?"])


def test_too_many_classes(tmp_path: Path) -> None:
    write_csv(tmp_path, [f"{i},t{i},F" for i in range(101)])
    with pytest.raises(TrainingError, match="Tags holds 101 different labels, at most 100"):
        read_labelled(tmp_path, label_column="Tags")


def test_odd_spelling_in_a_series(tmp_path: Path) -> None:
    write_pictures(tmp_path, [f"{name}/a{name}.png" for name in ("C_1", "C-2", "C_3", "C_10")])
    notes = [p.message for p in read_labelled(tmp_path).problems if p.kind == "label-spelling"]
    assert notes == ["C-2 is spelt unlike C_1"]


def altered(image: Image.Image, how: str) -> Image.Image:
    width, height = image.size
    if how == "jpeg":
        file = io.BytesIO()
        image.save(file, "JPEG", quality=40)
        return Image.open(file).convert("RGB")
    return {
        "half": lambda: image.resize((width // 2, height // 2)),
        "squashed": lambda: image.resize((256, 256)),
        "crop": lambda: image.crop((1, 1, width - 1, height - 1)),
        "bright": lambda: ImageEnhance.Brightness(image).enhance(1.2),
        "grey": lambda: image.convert("L").convert("RGB"),
        "mirrored": lambda: ImageOps.mirror(image),
    }[how]()


@pytest.mark.parametrize("how", ["jpeg", "half", "squashed", "crop", "bright", "grey", "mirrored"])
def test_altered_copies_look_alike(how: str) -> None:
    images = [picture(seed, (200, 160)) for seed in range(12)]
    prints = [print_of(image) for image in [*images, *(altered(i, how) for i in images)]]
    assert alike_pairs(prints).tolist() == [[i, i + 12] for i in range(12)]


def test_other_pictures_do_not_look_alike() -> None:
    oval = np.zeros((64, 64, 3), np.uint8)
    oval[20:50, 15:45] = 255
    red, blue = oval.copy(), oval.copy()
    red[..., 1:] //= 2
    blue[..., :2] //= 2
    plain = [Image.new("RGB", (64, 64), colour) for colour in ("red", "red", "white")]
    shapes = [Image.fromarray(a) for a in (red, blue, 255 - oval)]
    assert alike_pairs([print_of(image) for image in [*plain, *shapes]]).tolist() == []
    # more than a block of them
    assert len(alike_pairs([print_of(picture(seed)) for seed in range(1100)])) == 0


def test_copies_and_their_contradictions(tmp_path: Path) -> None:
    rows = [f"{i},p{i},{'FM'[i % 2]}" for i in range(24)]
    write_csv(tmp_path, rows)
    images = tmp_path / "images"
    (images / "2.png").write_bytes((images / "0.png").read_bytes())
    ImageOps.mirror(Image.open(images / "1.png")).resize((90, 70)).save(images / "6.png")
    labelled = read_labelled(tmp_path)
    sides = split(labelled, val_share=0.3, test_share=0.3, seed=1, problems=labelled.problems)
    assert faults(labelled.problems) == [
        ("duplicate-picture", "index.csv:4"),
        ("alike-two-labels", "index.csv:8"),
    ]
    assert "female, but looks like index.csv:3, which is male" in labelled.problems[1].message
    assert sides.alike == 2


def test_summaries_name_no_place_and_no_person(tmp_path: Path) -> None:
    rows = [f"{i},person{i % 10},{'FM'[i % 2]}" for i in range(30)] + ["30,person0,M", "31,x,Q"]
    labelled = read(tmp_path, rows)
    sides = split(labelled, val_share=0.2, test_share=0.2, seed=0, problems=labelled.problems)
    lines = summary_lines(labelled, sides)
    stored = summary(labelled, sides)
    for text in ("\n".join(lines), json.dumps(stored)):
        assert str(tmp_path.parent) not in text
        assert "person0" not in text
    assert stored["problems"] == {"unknown-label": 1, "person-two-genders": 1}
    assert sum(stored["classes"]["male"].values()) == 16
    assert stored["persons"] == 10
    assert lines[0] == f"{tmp_path.name}: 31 faces in 31 pictures (csv, labels in Gender)"
    assert "    index.csv:33: 'Q' is not female or male; left out" in lines


def test_content_key_follows_what_is_shown(tmp_path: Path) -> None:
    for name in ("one", "two"):
        read(tmp_path / name, ["a,x,F", "b,y,M"])
    one, two = (read_labelled(tmp_path / name).samples for name in ("one", "two"))
    key = content_key(one)
    assert key == content_key(two)  # wherever it lies
    assert key != content_key(one[::-1])
    before = one[0].path.stat()
    data = bytearray(one[0].path.read_bytes())
    data[-20] ^= 1
    one[0].path.write_bytes(data)
    os.utime(one[0].path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert content_key(one) != key  # though neither its size nor its time tells
    path = tmp_path / "two" / "index.csv"
    path.write_text(path.read_text().replace("b,y,M", "b,y,F").replace("a,x,F", "a,x,M"))
    assert content_key(read_labelled(tmp_path / "two").samples) != key
    one[0].path.unlink()
    with pytest.raises(TrainingError, match=r"a\.png"):
        content_key(one)
