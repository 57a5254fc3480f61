"""JSON Lines and CSV: shape, rounding, strictness, and what is taken back."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from videogender.errors import OutputError
from videogender.frames import Faces, Frame, RgbPicture
from videogender.sinks.jsonl import JsonlSink
from videogender.sinks.rows import Stdout
from videogender.sinks.table import CsvSink

PICTURE = RgbPicture(np.zeros((48, 64, 3), np.uint8))
FRAME = Frame(PICTURE, 7, 0.28000000000000003, "müsli, 'clip'.mp4")


def two_faces(tracks: list[int] | None = None) -> Faces:
    return Faces(
        np.array([[-0.04, 1.26, 20.55, 30.06], [30, 5, 50, 25]], np.float32),
        np.array([0.98766, 0.5], np.float32),
        np.array([0.12344, math.nan], np.float32),
        np.array(tracks or [], np.int64),
    )


def refuse(constant: str) -> float:
    raise AssertionError(f"{constant} is not JSON")


def read(path: Path) -> list[dict[str, object]]:
    lines = path.read_text(encoding="utf-8").split("\n")
    assert lines.pop() == "", "the last line is ended"
    return [json.loads(line, parse_constant=refuse) for line in lines]


def test_one_object_a_frame(tmp_path: Path) -> None:
    path = tmp_path / "faces.jsonl"
    still = Frame(PICTURE, 0, None, "still.png")
    with JsonlSink(path, unsure_below=0.65) as sink:
        sink.write(FRAME, two_faces())
        sink.write(still, Faces.empty())
    first, second = read(path)
    assert first == {
        "source": "müsli, 'clip'.mp4",
        "frame": 7,
        "time_s": 0.28,
        "width": 64,
        "height": 48,
        "faces": [
            {
                "box": [0.0, 1.3, 20.5, 30.1],
                "score": 0.9877,
                "female": 0.1234,
                "label": "male",
                "track": None,
                "predicted": False,
            },
            {
                "box": [30.0, 5.0, 50.0, 25.0],
                "score": 0.5,
                "female": None,
                "label": "unsure",
                "track": None,
                "predicted": False,
            },
        ],
    }
    assert second == {
        "source": "still.png",
        "frame": 0,
        "time_s": None,
        "width": 64,
        "height": 48,
        "faces": [],
    }
    assert "-0.0" not in path.read_text(encoding="utf-8")
    assert list(first) == ["source", "frame", "time_s", "width", "height", "faces"]


def test_tracks_are_written_where_there_are_some(tmp_path: Path) -> None:
    path = tmp_path / "faces.jsonl"
    with JsonlSink(path, unsure_below=0.65) as sink:
        sink.write(FRAME, two_faces([3, 12]))
    [record] = read(path)
    assert [face["track"] for face in record["faces"]] == [3, 12]  # type: ignore[attr-defined]


def test_what_tracks_decided_is_written(tmp_path: Path) -> None:
    found = two_faces([3, 12])
    decided = replace(found, predicted=np.array([False, True]), verdicts=np.array([0, 1], np.int8))
    with (
        JsonlSink(tmp_path / "faces.jsonl", unsure_below=0.65) as lines,
        CsvSink(tmp_path / "faces.csv", unsure_below=0.65) as table,
    ):
        lines.write(FRAME, decided)
        table.write(FRAME, decided)
    [record] = read(tmp_path / "faces.jsonl")
    faces = record["faces"]
    assert [(face["label"], face["predicted"]) for face in faces] == [  # type: ignore[attr-defined]
        ("unsure", False),
        ("female", True),
    ]
    with (tmp_path / "faces.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["label"], row["predicted"]) for row in rows] == [("unsure", "0"), ("female", "1")]


def test_the_label_follows_the_threshold(tmp_path: Path) -> None:
    path = tmp_path / "faces.jsonl"
    with JsonlSink(path, unsure_below=0.9) as sink:
        sink.write(FRAME, two_faces())
    [record] = read(path)
    assert record["faces"][0]["label"] == "unsure"  # type: ignore[index]


def test_names_that_are_no_text_stay_valid(tmp_path: Path) -> None:
    path, flat = tmp_path / "faces.jsonl", tmp_path / "faces.csv"
    odd = Frame(PICTURE, 0, 0.0, b"caf\xe9.mp4".decode("utf-8", "surrogateescape"))
    with JsonlSink(path, unsure_below=0.65) as sink, CsvSink(flat, unsure_below=0.65) as table:
        sink.write(odd, two_faces())
        table.write(odd, two_faces())
    assert read(path)[0]["source"] == odd.source
    with flat.open(newline="", encoding="utf-8") as file:
        assert {row["source"] for row in csv.DictReader(file)} == {r"caf\udce9.mp4"}


def test_csv_is_the_same_flat(tmp_path: Path) -> None:
    path = tmp_path / "faces.csv"
    with CsvSink(path, unsure_below=0.65) as sink:
        sink.write(FRAME, two_faces([3, 12]))
        sink.write(FRAME, Faces.empty())
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    start = ["müsli, 'clip'.mp4", "7", "0.28", "64", "48"]
    assert [list(row.values()) for row in rows] == [
        [*start, "0.0", "1.3", "20.5", "30.1", "0.9877", "0.1234", "male", "3", "0"],
        [*start, "30.0", "5.0", "50.0", "25.0", "0.5", "", "unsure", "12", "0"],
    ]
    assert list(rows[0]) == [
        *("source", "frame", "time_s", "width", "height"),
        *("x1", "y1", "x2", "y2", "score", "female", "label", "track", "predicted"),
    ]
    assert b"\r" not in path.read_bytes()


@pytest.mark.parametrize("kind", [JsonlSink, CsvSink])
def test_an_input_that_fails_leaves_no_rows(
    tmp_path: Path, kind: type[JsonlSink] | type[CsvSink]
) -> None:
    kept, path = tmp_path / "kept", tmp_path / "all"
    with kind(kept, unsure_below=0.65) as sink:
        sink.write(FRAME, two_faces())
        sink.write(FRAME, two_faces())
    with kind(path, unsure_below=0.65) as sink:
        sink.write(FRAME, two_faces())
        mark = sink.mark()
        for _ in range(500):  # more than any buffer holds
            sink.write(FRAME, two_faces())
        sink.rollback(mark)
        sink.write(FRAME, two_faces())
    assert path.read_bytes() == kept.read_bytes()


def test_standard_output_is_written_at_once_and_left_open(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with JsonlSink(Stdout(), unsure_below=0.65) as sink:
        sink.write(FRAME, Faces.empty())
        assert json.loads(capsys.readouterr().out)["frame"] == 7
        sink.rollback(sink.mark())  # cannot be taken back, and says nothing
    print("still open")
    assert capsys.readouterr().out == "still open\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("kind", [JsonlSink, CsvSink])
def test_a_full_disk_is_one_line(kind: type[JsonlSink] | type[CsvSink]) -> None:
    def fill() -> None:
        with kind(Path("/dev/full"), unsure_below=0.65, name="faces.jsonl") as sink:
            for _ in range(1000):
                sink.write(FRAME, two_faces())

    with pytest.raises(OutputError, match=r"^faces\.jsonl: cannot write: No space left on device"):
        fill()


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"nowhere/faces\.jsonl: cannot write: No such file"):
        JsonlSink(tmp_path / "nowhere" / "faces.jsonl", unsure_below=0.65)
