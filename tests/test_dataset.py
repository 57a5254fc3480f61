"""Reading labelled pictures: what is kept, and what is said of bad files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from videogender.dataset import read_entries, read_rgb
from videogender.errors import TrainingError

GOOD: dict[str, Any] = {
    "image": "a.png",
    "width": 8,
    "height": 6,
    "faces": [{"box": [1, 2, 3, 4.5], "gender": "male", "blur": 1}, {"box": [-2, 0, 4, 9]}],
    "source": "there",
}


def write(folder: Path, *lines: object) -> Path:
    path = folder / "faces.jsonl"
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts) + "\n")
    return path


def test_folder_and_file_read_alike(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD, "", GOOD | {"faces": []})
    entries = read_entries(tmp_path)
    assert entries == read_entries(path)
    assert [e.path for e in entries] == [tmp_path / "a.png"] * 2
    assert (entries[0].width, entries[0].height) == (8, 6)
    assert entries[0].faces == GOOD["faces"]
    assert entries[0].attributes["source"] == "there"
    assert entries[1].faces == []


def test_unknown_gender_may_be_null(tmp_path: Path) -> None:
    face = {"box": [0, 0, 1, 1], "gender": None}
    assert read_entries(write(tmp_path, GOOD | {"faces": [face]}))[0].faces == [face]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "expected an object"),
        ('{"image": "\\ud800', "not JSON"),
        ({k: v for k, v in GOOD.items() if k != "image"}, "`image`"),
        (GOOD | {"width": 0}, "`width` in pixels, got 0"),
        (GOOD | {"height": "6"}, "`height` in pixels, got '6'"),
        (GOOD | {"faces": {}}, "a list of `faces`"),
        (GOOD | {"faces": [[1, 2, 3, 4]]}, "a face should be an object"),
        (GOOD | {"faces": [{}]}, "four numbers, got None"),
        (GOOD | {"faces": [{"box": [1, 2, 3]}]}, "four numbers, got [1, 2, 3]"),
        (GOOD | {"faces": [{"box": [1, 2, 3, True]}]}, "four numbers"),
        ('{"image":"a","width":1,"height":1,"faces":[{"box":[0,0,NaN,1]}]}', "four numbers"),
        (GOOD | {"faces": [{"box": [5, 2, 3, 4]}]}, "box [5, 2, 3, 4] is empty"),
        (GOOD | {"faces": [{"box": [1, 2, 3, 4], "gender": "M"}]}, "gender 'M' is neither"),
    ],
)
def test_bad_line_is_named(tmp_path: Path, line: object, message: str) -> None:
    path = write(tmp_path, GOOD, line)
    with pytest.raises(TrainingError) as caught:
        read_entries(path)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    path = tmp_path / "faces.jsonl"
    path.write_bytes(b'{"image": "\xff"}\n')
    with pytest.raises(TrainingError, match=r"faces\.jsonl:1: not JSON"):
        read_entries(path)


@pytest.mark.parametrize(("name", "text"), [("missing.jsonl", None), ("empty.jsonl", "\n\n")])
def test_missing_and_empty_files_are_named(tmp_path: Path, name: str, text: str | None) -> None:
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(TrainingError, match=name):
        read_entries(path)


def test_pictures_are_read_upright_as_rgb(tmp_path: Path) -> None:
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[:, :4] = (255, 0, 0)
    turned = Image.fromarray(pixels)
    exif = turned.getexif()
    exif[0x0112] = 6  # shown turned clockwise by a quarter
    turned.save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_rgb(tmp_path / "a.png"), np.rot90(pixels, -1))
    Image.fromarray(pixels[..., 0]).save(tmp_path / "grey.png")
    assert read_rgb(tmp_path / "grey.png").shape == (4, 8, 3)


@pytest.mark.parametrize("content", [None, b"", b"no picture at all"])
def test_unreadable_pictures_are_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TrainingError, match=r"a\.png"):
        read_rgb(path)
