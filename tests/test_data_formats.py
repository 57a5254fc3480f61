"""MOT, COCO and WebVTT: what is written is read back by other people's readers."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import webvtt
from numpy.typing import NDArray
from pycocotools.coco import COCO
from trackers.io.mot import load_mot_file

from videogender.config import ZoneSettings
from videogender.errors import OutputError
from videogender.frames import Faces, Frame, RgbPicture
from videogender.sinks.coco import CocoSink
from videogender.sinks.mot import MotSink
from videogender.sinks.rows import RowSink, Stdout
from videogender.sinks.vtt import VttSink
from videogender.zones.figures import Whereabouts
from videogender.zones.plan import plan_of

PICTURE = RgbPicture(np.zeros((120, 160, 3), np.uint8))


def frame(index: int, seconds: float | None, source: str = "a/talk.mp4") -> Frame:
    return Frame(PICTURE, index, seconds, source)


def faces(*rows: tuple[float, ...], tracks: list[int] | None = None) -> Faces:
    """Return faces of rows x0, y0, x1, y1, score, female."""
    table = np.array(rows, np.float32).reshape(-1, 6)
    ids: NDArray[np.int64] = np.array(tracks if tracks is not None else [], np.int64)
    return Faces(table[:, :4], table[:, 4], table[:, 5], tracks=ids, predicted=table[:, 4] < 0.3)


WOMAN, MAN = (10.0, 20.0, 42.0, 60.0, 0.9, 0.93), (100.0, 20.0, 130.5, 60.0, 0.8, 0.1)
UNSURE, FAINT = (50.0, 5.0, 60.0, 15.0, 0.7, 0.5), (10.0, 20.0, 42.0, 60.0, 0.25, math.nan)


# --- MOT --------------------------------------------------------------------------------------


def test_mot_counts_frames_and_pixels_from_one(tmp_path: Path) -> None:
    path = tmp_path / "talk.txt"
    with MotSink(path, unsure_below=0.65) as sink:
        sink.write(frame(0, 0.0), faces(WOMAN, MAN, tracks=[3, 1]))
        sink.write(frame(1, 0.04), Faces.empty())
        sink.write(frame(7, 0.28), faces((-4.26, 3, 9, 21.04, 0.31234, 0.5), tracks=[12]))
    read = load_mot_file(path)
    assert sorted(read) == [1, 8]
    np.testing.assert_array_equal(read[1].ids, [3, 1])
    np.testing.assert_allclose(read[1].boxes, [[11, 21, 32, 40], [101, 21, 30.5, 40]])
    np.testing.assert_allclose(read[1].confidences, [0.9, 0.8])
    np.testing.assert_allclose(read[8].boxes, [[-3.3, 4, 13.3, 18]])
    np.testing.assert_allclose(read[8].confidences, [0.3123])
    assert path.read_text().splitlines()[0] == "1,3,11,21,32,40,0.9,-1,-1,-1"


def test_mot_of_faces_that_are_not_followed(tmp_path: Path) -> None:
    with MotSink(tmp_path / "a.txt", unsure_below=0.65) as sink:
        sink.write(frame(0, None), faces(WOMAN))
    assert load_mot_file(tmp_path / "a.txt")[1].ids.tolist() == [-1]


# --- COCO -------------------------------------------------------------------------------------


def written_coco(path: Path) -> COCO:
    with CocoSink(path, unsure_below=0.65) as sink:
        sink.write(frame(0, 0.0), faces(WOMAN, UNSURE, tracks=[1, 2]))
        sink.write(frame(5, 0.2), Faces.empty())
        mark = sink.mark()
        sink.write(frame(0, 0.0, "broken.mp4"), faces(MAN, MAN, tracks=[1, 2]))
        sink.rollback(mark)
        sink.write(frame(0, None, "b.png"), faces(FAINT, (-10, 110, 30, 140, 0.9, 0.1)))
        sink.write(frame(0, 0.0, "c.d.mov"), faces((170, 5, 180, 15, 0.9, 0.9), tracks=[1]))
    return COCO(str(path))


def test_coco_is_read_by_its_own_tools(tmp_path: Path) -> None:
    coco = written_coco(tmp_path / "faces.json")
    names = {category["id"]: category["name"] for category in coco.loadCats(coco.getCatIds())}
    assert sorted(names.values()) == ["female", "male", "unsure"]
    images = coco.loadImgs(coco.getImgIds())
    assert [image["file_name"] for image in images] == [
        *("a/talk/000000.jpg", "a/talk/000005.jpg", "b.png", "c.d/000000.jpg")
    ]
    assert {(image["width"], image["height"]) for image in images} == {(160, 120)}
    found = [
        (image["file_name"], names[a["category_id"]], a["bbox"], a.get("track_id"), a["score"])
        for image in images
        for a in coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
    ]
    assert found == [
        ("a/talk/000000.jpg", "female", [10, 20, 32, 40], 1, 0.9),
        ("a/talk/000000.jpg", "unsure", [50, 5, 10, 10], 2, 0.7),
        ("b.png", "unsure", [10, 20, 32, 40], None, 0.25),
        ("b.png", "male", [0, 110, 30, 10], None, 0.9),
    ], "boxes end at the edge, and what lies beyond it is left out"
    attributes = [a["attributes"] for a in coco.loadAnns(coco.getAnnIds())]
    assert [a["female"] for a in attributes] == [0.93, 0.5, None, 0.1]
    assert [a["predicted"] for a in attributes] == [False, False, True, False]
    for annotation in coco.loadAnns(coco.getAnnIds()):
        assert annotation["area"] == annotation["bbox"][2] * annotation["bbox"][3]
        assert annotation["iscrowd"] == 0
    videos = {video["id"]: video["name"] for video in coco.dataset["videos"]}
    assert videos == {1: "a/talk.mp4", 2: "c.d.mov"}
    assert [image.get("video_id") for image in images] == [1, 1, None, 2]
    assert [image.get("time_s") for image in images] == [0.0, 0.2, None, 0.0]


def test_coco_keeps_videos_apart_that_differ_in_their_suffix(tmp_path: Path) -> None:
    path = tmp_path / "faces.json"
    with CocoSink(path, unsure_below=0.65) as sink:
        mark = sink.mark()
        sink.write(frame(0, 0.0, "talk.avi"), Faces.empty())
        sink.rollback(mark)
        for name in ("talk.mov", "talk.mp4", "b/talk.mp4"):
            sink.write(frame(0, 0.0, name), Faces.empty())
            sink.write(frame(1, 0.1, name), Faces.empty())
    names = [image["file_name"] for image in COCO(str(path)).dataset["images"]]
    folders = ("talk", "talk.mp4", "b/talk")
    assert names == [f"{folder}/{i:06d}.jpg" for folder in folders for i in (0, 1)]


def test_coco_results_can_be_evaluated(tmp_path: Path) -> None:
    """pycocotools matches every box with itself."""
    from pycocotools.cocoeval import COCOeval

    coco = written_coco(tmp_path / "faces.json")
    results = coco.loadRes(
        [
            {key: a[key] for key in ("image_id", "category_id", "bbox", "score")}
            for a in coco.loadAnns(coco.getAnnIds())
        ]
    )
    measured = COCOeval(coco, results, "bbox")
    measured.evaluate()
    measured.accumulate()
    measured.summarize()
    assert measured.stats[0] == pytest.approx(1.0)


def test_coco_leaves_no_temporary_files_and_nothing_after_an_error(tmp_path: Path) -> None:
    written_coco(tmp_path / "faces.json")
    assert [path.name for path in tmp_path.iterdir()] == ["faces.json"]
    sink = CocoSink(tmp_path / "b.json", unsure_below=0.65)
    with pytest.raises(TypeError):
        write_all(sink, None)  # type: ignore[arg-type]
    assert (tmp_path / "b.json").read_text() == ""


def test_coco_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    with CocoSink(Stdout(), unsure_below=0.65) as sink:
        mark = sink.mark()
        sink.write(frame(0, 0.0, "broken.mp4"), faces(MAN))
        sink.rollback(mark)
        sink.write(frame(0, 0.0), faces(WOMAN))
    found = json.loads(capsys.readouterr().out)
    assert [image["video_id"] for image in found["images"]] == [1]
    assert [a["id"] for a in found["annotations"]] == [1]


# --- WebVTT -----------------------------------------------------------------------------------


def cues(path: Path) -> list[tuple[float, float, str]]:
    return [
        (cue.start_in_seconds + _part(cue.start), cue.end_in_seconds + _part(cue.end), cue.text)
        for cue in webvtt.read(str(path))
    ]


def _part(clock: str) -> float:
    """Return the milliseconds, which `start_in_seconds` leaves out."""
    return int(clock.rpartition(".")[2]) / 1000


def test_cues_last_while_the_same_labels_are_in_view(tmp_path: Path) -> None:
    path = tmp_path / "talk.vtt"
    shown = [[], [WOMAN], [WOMAN], [MAN, WOMAN, MAN], [MAN, WOMAN, MAN], [], [UNSURE], [UNSURE]]
    with VttSink(path, unsure_below=0.65) as sink:
        for i, rows in enumerate(shown):
            sink.write(frame(i, 3599.0 + i * 0.5), faces(*rows))
    assert cues(path) == [
        (pytest.approx(3599.5), pytest.approx(3600.5), "1 female"),
        (pytest.approx(3600.5), pytest.approx(3601.5), "1 female, 2 male"),
        (pytest.approx(3602.0), pytest.approx(3603.0), "1 unsure"),
    ]
    assert "01:00:00.500 --> 01:00:01.500" in path.read_text()


def test_a_lone_frame_is_shown_for_a_moment(tmp_path: Path) -> None:
    with VttSink(tmp_path / "a.vtt", unsure_below=0.65) as sink:
        sink.write(frame(0, 0.0), faces(WOMAN))
    assert cues(tmp_path / "a.vtt") == [(0.0, 0.04, "1 female")]


def test_no_faces_make_a_valid_file_without_cues(tmp_path: Path) -> None:
    with VttSink(tmp_path / "a.vtt", unsure_below=0.65) as sink:
        sink.write(frame(0, 0.0), Faces.empty())
    assert cues(tmp_path / "a.vtt") == []


def test_names_of_zones_are_escaped(tmp_path: Path) -> None:
    settings = ZoneSettings(zone=("a --> <b> & c:0,0;80,0;80,120;0,120", "x:0,0;1,0;1,1"))
    plan = plan_of(settings, (160, 120))
    assert plan is not None
    where = Whereabouts(plan, np.array([[True, False], [False, False]]), None)
    path = tmp_path / "a.vtt"
    with VttSink(path, unsure_below=0.65) as sink:
        sink.write(frame(0, 0.0), faces(WOMAN, MAN), where)
    [(_, _, text)] = cues(path)
    assert text == "1 female, 1 male\na --&gt; &lt;b&gt; &amp; c: 1 female"
    assert path.read_text().count("-->") == 1, "the arrow of the cue alone"


# --- all --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [MotSink, CocoSink, VttSink])
def test_a_full_disk_is_one_line(kind: type[RowSink]) -> None:
    """/dev/full fails on every write, as a full disk does."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    sink = kind(Path("/dev/full"), unsure_below=0.65)
    with pytest.raises(OutputError, match="cannot write: No space left on device"):
        write_all(sink, 300)


def write_all(sink: RowSink, count: int) -> None:
    with sink:
        for i in range(count):
            sink.write(frame(i, i / 25), faces(WOMAN, tracks=[i]))
