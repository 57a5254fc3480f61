"""Labelled data of every form is recognised by itself and says the same of the same faces."""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from finetune_data_sets import picture, write_csv, write_jsonl, write_pictures
from hypothesis import given, settings
from hypothesis import strategies as st

from videogender.errors import TrainingError
from videogender.finetuning.datasets import Labelled, read_labelled, split
from videogender.finetuning.datasets.labels import name_classes


def said(labelled: Labelled) -> list[tuple[str, str, str | None]]:
    return [(s.path.name, labelled.classes[s.label], s.person) for s in labelled.samples]


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_table_of_the_notes(tmp_path: Path, ending: str, delimiter: str, encoding: str) -> None:
    path = write_csv(tmp_path, ["a,Zoë,F", "b.x,Bo,M", "", "c.png,Zoë,F"])
    text = path.read_text().replace(",", delimiter)
    path.write_bytes(text.replace("\n", ending).encode(encoding))
    labelled = read_labelled(tmp_path)
    assert said(labelled) == [
        ("a.png", "female", "Zoë"),
        ("b.x.png", "male", "Bo"),
        ("c.png", "female", "Zoë"),
    ]
    assert labelled.samples == read_labelled(path, images=tmp_path / "images").samples
    assert [s.where for s in labelled.samples] == ["index.csv:2", "index.csv:3", "index.csv:5"]
    assert (labelled.form, labelled.column, labelled.classes) == (
        "csv",
        "Gender",
        ("female", "male"),
    )
    assert [(s.box, s.width, s.height) for s in labelled.samples] == [(None, 64, 48)] * 3


def test_any_column_may_be_the_label(tmp_path: Path) -> None:
    write_csv(tmp_path, ["a,10,F", "b,9,M", "c,10,M"])
    labelled = read_labelled(tmp_path, label_column="tags")
    assert labelled.classes == ("10", "9")  # text, and sorted as such
    assert [s.label for s in labelled.samples] == [0, 1, 0]
    assert {s.person for s in labelled.samples} == {None}  # a label is no person


def test_table_with_boxes_and_sides(tmp_path: Path) -> None:
    rows = ["a,male,1,2,11,22,train", "a,female,20,2,30.5,22,train", "b,male,0,0,5,5,valid"]
    write_csv(tmp_path, rows, "file,label,x1,y1,x2,y2,split")
    samples = read_labelled(tmp_path).samples
    assert [s.box for s in samples] == [(1, 2, 11, 22), (20, 2, 30.5, 22), (0, 0, 5, 5)]
    assert [(s.label, s.side) for s in samples] == [(1, "train"), (0, "train"), (1, "val")]
    write_csv(tmp_path, rows, "file,label,x,y,w,h,split")
    assert read_labelled(tmp_path).samples[1].box == (20, 2, 50.5, 24)


def test_table_of_celeba(tmp_path: Path) -> None:
    rows = ["000001.jpg,1,-1,1", "000002.jpg,-1,1,1"]
    write_csv(tmp_path, rows, "image_id,Attractive,Male,Young")
    labelled = read_labelled(tmp_path)
    assert said(labelled) == [("000001.jpg", "female", None), ("000002.jpg", "male", None)]
    assert labelled.column == "Male"


def test_celebas_own_files(tmp_path: Path) -> None:
    names = [f"{n:06}.jpg" for n in range(1, 7)]
    rows = [f"{name},{1 - n % 2 * 2},{n // 2}" for n, name in enumerate(names)]
    write_csv(tmp_path, rows, "image_id,Male,partition")
    samples = read_labelled(tmp_path).samples
    assert [s.side for s in samples] == ["train"] * 2 + ["val"] * 2 + ["test"] * 2
    table = tmp_path / "list_attr_celeba.txt"
    lines = [f"{name}  {1 - n % 2 * 2}  -1 " for n, name in enumerate(names)]
    table.write_text("\n".join(["6", "Male Young ", *lines]) + "\n")
    labelled = read_labelled(table)
    assert [s.label for s in labelled.samples] == [1, 0] * 3
    assert labelled.samples[0].where == "list_attr_celeba.txt:3"
    table.write_text("6\n")
    with pytest.raises(TrainingError, match=r"list_attr_celeba\.txt: holds a number and no header"):
        read_labelled(table)


def test_folders_are_classes_and_folders_below_are_persons(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["Men/a.png", "women/b.png", "women/ann/c.png", ".git/d.png"])
    (tmp_path / "women" / "notes.txt").write_text("no picture")
    labelled = read_labelled(tmp_path)
    assert said(labelled) == [
        ("a.png", "male", None),
        ("b.png", "female", None),
        ("c.png", "female", "ann"),
    ]
    assert labelled.form == "folders"
    assert [s.where for s in labelled.samples][2] == "women/ann/c.png"


def test_a_person_below_several_classes_is_one(tmp_path: Path) -> None:
    who = [f"anna{n}" for n in range(12)]
    names = [f"{c}/{p}/{c[:2]}{p}.png" for p in who for c in ("mask", "no mask")]
    write_pictures(tmp_path, names)
    labelled = read_labelled(tmp_path)
    assert {s.person for s in labelled.samples} == set(who)
    sides = split(labelled, val_share=0.25, test_share=0.25, seed=0, problems=labelled.problems)
    parts = [{s.person for s in part} for part in (sides.train, sides.val, sides.test)]
    assert sum(map(len, parts)) == len(who)


def test_folders_of_one_name_are_no_person_under_two_genders(tmp_path: Path) -> None:
    write_pictures(tmp_path, [f"{c}/{n:03}/{n}.png" for c in ("female", "male") for n in range(10)])
    labelled = read_labelled(tmp_path)
    assert {p.kind for p in labelled.problems} == set()


def test_folders_with_sides(tmp_path: Path) -> None:
    names = [f"{s}/{c}/{s}{c}.png" for s in ("train", "valid", "Test") for c in ("no mask", "mask")]
    write_pictures(tmp_path, names)
    labelled = read_labelled(tmp_path)
    assert labelled.classes == ("mask", "no mask")
    sides = {(s.side, labelled.classes[s.label]) for s in labelled.samples}
    assert sides == {(s, c) for s in ("train", "val", "test") for c in labelled.classes}


FACES: list[list[dict[str, Any]]] = [
    [
        {"box": [1, 2, 11, 22], "gender": "male", "person": "x", "age": 30},
        {"box": [20, 2, 30, 22], "gender": "female", "age": 40},
        {"box": [40, 2, 50, 22], "gender": "female", "age": 40, "ignore": True},
        {"box": [52, 2, 62, 22]},
    ],
    [{"box": [-5, -5, 20, 20], "gender": "female", "age": 30}],
    [],
]


def test_json_lines(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path, FACES)
    labelled = read_labelled(tmp_path)
    assert said(labelled) == [
        ("0.png", "male", "x"),
        ("0.png", "female", None),
        ("1.png", "female", None),
    ]
    assert [s.box for s in labelled.samples] == [(1, 2, 11, 22), (20, 2, 30, 22), (-5, -5, 20, 20)]
    assert labelled.unlabelled == 1
    assert [s.where for s in labelled.samples] == [
        "faces.jsonl:1",
        "faces.jsonl:1",
        "faces.jsonl:2",
    ]
    ages = read_labelled(path, label_column="age")
    assert ages.classes == ("30", "40")
    assert [s.label for s in ages.samples] == [0, 1, 0]


def test_json_lines_in_two_sides(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train", FACES)
    write_jsonl(tmp_path / "val", FACES, seed=1)
    labelled = read_labelled(tmp_path)
    assert Counter(s.side for s in labelled.samples) == {"train": 3, "val": 3}
    assert labelled.samples[-1].where == "val/faces.jsonl:2"


@pytest.mark.parametrize("layout", ["images/{}", "{}/images"])
@pytest.mark.parametrize("names", ["[woman, man]", "{0: woman, 1: man}"])
def test_yolo(tmp_path: Path, layout: str, names: str) -> None:
    for number, side in enumerate(("train", "valid")):
        folder = layout.format(side)
        write_pictures(tmp_path, [f"{folder}/{side}.png", f"{folder}/{side}_empty.png"], number)
        labels = tmp_path / folder.replace("images", "labels")
        labels.mkdir(parents=True)
        # a box by centre and size, and a polygon
        (labels / f"{side}.txt").write_text("1 0.5 0.5 0.25 0.5\n0 0.1 0.1 0.3 0.1 0.2 0.5\n")
    # exporters write paths of their own machines
    entries = f"train: ../{layout.format('train')}\nval: ../{layout.format('valid')}\n"
    (tmp_path / "data.yaml").write_text(f"path: /nowhere\n{entries}names: {names}\n")
    labelled = read_labelled(tmp_path)
    assert (labelled.form, labelled.classes) == ("yolo", ("female", "male"))
    assert [(s.path.name, s.label, s.side) for s in labelled.samples] == [
        ("train.png", 1, "train"),
        ("train.png", 0, "train"),
        ("valid.png", 1, "val"),
        ("valid.png", 0, "val"),
    ]
    assert labelled.samples[0].box == pytest.approx((24, 12, 40, 36))
    assert labelled.samples[1].box == pytest.approx((6.4, 4.8, 19.2, 24))
    where = layout.format("valid").replace("images", "labels")
    assert labelled.samples[3].where == f"{where}/valid.txt:2"
    assert read_labelled(tmp_path / "data.yaml").samples == labelled.samples


def test_yolo_class_names_stay_text(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["images/a.png"])
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("0 .5 .5 .2 .2\n1 .3 .3 .2 .2\n")
    (tmp_path / "data.yaml").write_text("names: [no, 1]\n")
    labelled = read_labelled(tmp_path)
    assert labelled.classes == ("1", "no")
    assert {s.side for s in labelled.samples} == {None}


def coco(boxes: list[dict[str, Any]], categories: dict[int, str]) -> str:
    return json.dumps(
        {
            "images": [{"id": 7, "file_name": "a.png", "width": 64, "height": 48}],
            "annotations": [{"id": i, "image_id": 7, **box} for i, box in enumerate(boxes)],
            "categories": [{"id": i, "name": name} for i, name in categories.items()],
        }
    )


def test_coco_categories_and_attributes(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["images/a.png"])
    (tmp_path / "annotations").mkdir()
    path = tmp_path / "annotations" / "instances_default.json"
    boxes: list[dict[str, Any]] = [
        {"category_id": 2, "bbox": [1, 2, 10, 20]},
        {"category_id": 5, "bbox": [30, 2, 10, 20]},
        {"category_id": 5, "bbox": [30, 2, 30, 20], "iscrowd": 1},
    ]
    path.write_text(coco(boxes, {1: "people", 2: "male", 5: "female"}))
    labelled = read_labelled(tmp_path)
    assert (labelled.form, labelled.column) == ("coco", "category")
    assert [s.box for s in labelled.samples] == [s.box for s in read_labelled(path).samples]
    assert [(s.box, s.label) for s in labelled.samples] == [
        ((1, 2, 11, 22), 1),
        ((30, 2, 40, 22), 0),
    ]
    assert [s.where for s in labelled.samples] == [f"annotations/{path.name}#{i}" for i in (0, 1)]
    for box, gender, mask in zip(boxes, "mf", (True, False), strict=False):
        box |= {"category_id": 2, "attributes": {"Gender": gender, "mask": mask, "person": "p"}}
    boxes[2] = {"category_id": 2, "bbox": [30, 2, 30, 20], "attributes": {}}
    path.write_text(coco(boxes, {2: "face"}))
    labelled = read_labelled(tmp_path)
    assert (labelled.column, labelled.classes) == ("Gender", ("female", "male"))
    assert [(s.label, s.person) for s in labelled.samples] == [(1, "p"), (0, "p")]
    assert labelled.unlabelled == 1
    assert read_labelled(tmp_path, label_column="mask").classes == ("false", "true")


@pytest.mark.parametrize(
    ("column", "labels", "classes", "first"),
    [
        ("Gender", "F M", "female male", 0),
        ("Gender", "Male Female", "female male", 1),
        ("folder", "woman man", "female male", 0),
        ("folder", "men women unsure", "female male", 1),
        ("sex", "w m x", "female male", 0),
        ("category", "face man woman", "female male", None),
        ("Male", "1 -1", "female male", 1),
        ("is_female", "true false", "female male", 0),
        ("Gender", "0 1", "0 1", 0),  # nobody can say which is which
        ("folder", "s m l", "l m s", 2),
        ("folder", "girl cat", "cat girl", 1),
        ("label", "2 10", "10 2", 1),
        ("label", "mask Mask no", "mask no", 0),
    ],
)
def test_spellings(column: str, labels: str, classes: str, first: int | None) -> None:
    counts = Counter([*labels.split(), labels.split()[0]])
    naming = name_classes(column, counts)
    assert " ".join(naming.classes) == classes
    assert naming.index.get(labels.split()[0]) == first
    assert ("ambiguous-gender" in dict(naming.notes)) == (classes == "0 1")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no labelled pictures; expected a CSV file"),
        ({"a.csv": "x,Gender\n"}, "holds no labelled pictures"),
        ({"a.csv": "image,Age,Race\n"}, "a.csv: no column is called Gender.*: Age, Race"),
        ({"a.csv": "image,Gender\n"}, "no labelled pictures$"),
        ({"a.csv": "image,Gender\nb,F\n"}, "1 missing-file, as a.csv:2: no picture b in.*--images"),
        ({"a.csv": "image,Gender\n", "b.csv": "image,Gender\n"}, "several labels files .a.csv, b"),
        ({"faces.jsonl": "{"}, "faces.jsonl:1: not JSON"),
        ({"faces.jsonl": '{"image": "a", "faces": [{"age": 3}]}'}, "no face has `gender`.* age"),
        ({"a.json": '{"annotations": 1}'}, "a.json: not a COCO file"),
        ({"data.yaml": "names: [a, b]"}, "data.yaml: names no pictures"),
        ({"images/a.png": "", "labels/a.txt": ""}, "data.yaml is missing"),
    ],
)
def test_unusable_data_is_named(tmp_path: Path, files: dict[str, str], message: str) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(TrainingError) as caught:
        read_labelled(tmp_path)
    assert re.search(message, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)


def test_tables_that_are_called_by_their_sides(tmp_path: Path) -> None:
    write_csv(tmp_path, ["a,x,F", "b,y,M"]).rename(tmp_path / "labels_train.csv")
    write_csv(tmp_path, ["c,x,F", "d,y,M"]).rename(tmp_path / "labels_val.csv")
    labelled = read_labelled(tmp_path)
    assert [(s.where, s.side) for s in labelled.samples] == [
        ("labels_train.csv:2", "train"),
        ("labels_train.csv:3", "train"),
        ("labels_val.csv:2", "val"),
        ("labels_val.csv:3", "val"),
    ]


def test_faults_of_a_yolo_export(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["images/a.png"])
    (tmp_path / "labels").mkdir()
    rows = ["0 .5 .5 .2 .2", "1 .3 .3 .2 .2", "2 .5 .5 .2 .2", "x .5 .5 .2 .2", "0 .5 .5 .2", "0"]
    (tmp_path / "labels" / "a.txt").write_text("\n".join([*rows, "0 2.5 .5 .2 .2", "0 .5 .5 0 .2"]))
    (tmp_path / "data.yaml").write_text("train: images\nnames: [female, male]\n")
    labelled = read_labelled(tmp_path)
    assert [s.where for s in labelled.samples] == ["labels/a.txt:1", "labels/a.txt:2"]
    kinds = {p.where: p.kind for p in labelled.problems if p.kind != "tiny-class"}
    assert kinds == {
        "labels/a.txt:3": "unknown-label",
        "labels/a.txt:4": "bad-row",
        "labels/a.txt:5": "bad-row",
        "labels/a.txt:6": "bad-row",
        "labels/a.txt:7": "box-outside",
        "labels/a.txt:8": "empty-box",
    }


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["a.png", "f", "\0"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["box", "gender", "bbox", "id", "ignore"]), inner)
    ),
    max_leaves=8,
)
COCO_KEYS = ["id", "image_id", "category_id", "bbox", "attributes", "file_name", "name", "width"]
OBJECTS = st.lists(st.dictionaries(st.sampled_from(COCO_KEYS), VALUES) | VALUES, max_size=4)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_stands_in_the_file_the_error_is_ours(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["a.json", "faces.jsonl", "index.csv", "data.yaml"]))
    if name == "a.json":
        keys = ("images", "annotations", "categories")
        text = json.dumps({key: data.draw(OBJECTS) for key in keys})
    elif name == "faces.jsonl":
        text = json.dumps({"image": data.draw(VALUES), "faces": data.draw(OBJECTS | VALUES)})
    elif name == "index.csv":
        text = "image,gender,x,y,w,h\n" + data.draw(st.text(max_size=60))
    else:
        text = json.dumps({"names": data.draw(VALUES), "train": data.draw(VALUES), "path": "\0"})
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).write_text(text, "utf-8")
        picture(0).save(Path(folder) / "a.png")
        with contextlib.suppress(TrainingError):
            read_labelled(Path(folder) / name)


def test_turned_pictures_have_their_upright_size(tmp_path: Path) -> None:
    write_csv(tmp_path, ["a.jpg,x,F", "b.tif,y,M"])
    for name in ("a.jpg", "b.tif"):
        turned = picture(1)
        exif = turned.getexif()
        exif[0x0112] = 6
        turned.save(tmp_path / "images" / name, exif=exif)
    assert [(s.width, s.height) for s in read_labelled(tmp_path).samples] == [(48, 64)] * 2
