"""Data files of `annotate`: what they hold together, several inputs, failures, interruptions."""

from __future__ import annotations

import csv
import gc
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webvtt
from PIL import Image
from pycocotools.coco import COCO
from squares import SquareDetector, picture, read_frames, write_video
from stopping import StopsAfter
from trackers.io.mot import load_mot_file

from videogender.annotation import AnnotationInterrupted, Progress, Summary, annotate
from videogender.config import Settings, with_overrides
from videogender.errors import ConfigError, OutputError
from videogender.sources.picture import DecodedPicture
from videogender.targets import Job
from videogender.tracking.settle import Settled

# The centre of the square moves from 26 to 74 at 50 px/s and passes 50 by a quarter of its 32 px
# after frame 16.
LEFT = "left:0,0;50,0;50,100%;0,100%"
GATE = "gate:50,120;50,0"
LEFT_UNTIL = 17


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_video(tmp_path / "clip.mp4")


@pytest.fixture
def still(tmp_path: Path) -> Path:
    path = tmp_path / "still.png"
    Image.fromarray(picture(160, 120, (20, 30, 40), (100, 30, 40))).save(path)
    return path


def settings_of(**values: object) -> Settings:
    return with_overrides(
        Settings(), {key.replace("__", "."): value for key, value in values.items()}
    )


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def summary_of(path: Path, row: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["inputs"][row]
    return found


# --- one video --------------------------------------------------------------------------------


def test_all_files_say_the_same(clip: Path) -> None:
    folder = clip.parent
    [done] = annotate(
        clip,
        detector=SquareDetector(),
        json=folder / "a.jsonl",
        csv=folder / "a.csv",
        coco=folder / "a.json",
        mot=folder / "a.txt",
        vtt=folder / "a.vtt",
        summary=folder / "s.json",
        report=folder / "r.html",
        zones=[LEFT],
        lines=[GATE],
    )
    assert done.error is None
    assert len(names(folder)) == 9, names(folder)
    records = lines(folder / "a.jsonl")
    zones = [record["faces"][0]["zones"] for record in records]
    assert zones == [["left"]] * LEFT_UNTIL + [[]] * (25 - LEFT_UNTIL)
    with (folder / "a.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [row["zones"] for row in table] == [";".join(names) for names in zones]
    coco, mot = COCO(str(folder / "a.json")), load_mot_file(folder / "a.txt")
    for i, record in enumerate(records):
        x0, y0, x1, y1 = record["faces"][0]["box"]
        [annotation] = coco.imgToAnns[i + 1]
        np.testing.assert_allclose(annotation["bbox"], [x0, y0, x1 - x0, y1 - y0], atol=0.11)
        assert annotation["attributes"]["zones"] == zones[i]
        np.testing.assert_allclose(
            mot[i + 1].boxes, [[x0 + 1, y0 + 1, x1 - x0, y1 - y0]], atol=0.11
        )
    cues = [(cue.start, cue.end, cue.text) for cue in webvtt.read(str(folder / "a.vtt"))]
    assert cues == [
        ("00:00:00.000", "00:00:00.680", "1 female\nleft: 1 female"),
        ("00:00:00.680", "00:00:01.000", "1 female"),
    ]

    summary = summary_of(folder / "s.json")
    assert (summary["source"], summary["interrupted"]) == (str(clip), False)
    assert summary["appearances"] == {"all": 1, "female": 1, "male": 0, "unsure": 0}
    [zone], [line] = summary["zones"]["zones"], summary["zones"]["lines"]
    assert zone["dwell_seconds"] == {"all": 0.68, "female": 0.68, "male": 0, "unsure": 0}
    assert (zone["entries"]["all"], zone["exits"]["all"], zone["peak"]["all"]) == (0, 1, 1)
    assert (line["in"]["female"], line["out"]["all"]) == (1, 0)
    page = (folder / "r.html").read_text(encoding="utf-8")
    assert "clip.mp4" in page
    assert "left" in page
    assert len(re.findall("data:image/jpeg", page)) == 1


def test_without_zones_there_are_no_columns_for_them(clip: Path) -> None:
    folder = clip.parent
    annotate(
        clip,
        detector=SquareDetector(),
        json=folder / "a.jsonl",
        csv=folder / "a.csv",
        summary=folder / "s.json",
        video=False,
    )
    assert "zones" not in lines(folder / "a.jsonl")[0]["faces"][0]
    assert "zones" not in (folder / "a.csv").read_text().splitlines()[0]
    assert summary_of(folder / "s.json")["zones"] is None


def test_zones_are_drawn_where_they_are(clip: Path) -> None:
    plain = settings_of(render__style="none", render__labels=False, zones__zone=[LEFT])
    [done] = annotate(clip, detector=SquareDetector(), settings=plain)
    assert done.output is not None
    before, after = read_frames(clip)[0], read_frames(done.output)[0]
    changed = np.abs(before.astype(int) - after).max(axis=2) > 40
    assert changed[60:, 48:52].any(axis=1).all(), "its right edge is drawn all along"
    assert not changed[60:118, 56:].any(), "and nothing beyond it"


@pytest.mark.parametrize(("thumbnails", "decoded"), [("blurred", 50), ("none", 25)])
def test_a_report_alone_reads_pictures_only_if_it_shows_some(
    clip: Path, monkeypatch: pytest.MonkeyPatch, thumbnails: str, decoded: int
) -> None:
    count = 0
    begin = DecodedPicture.__init__

    def counted(self: DecodedPicture, *args: Any, **options: Any) -> None:
        nonlocal count
        begin(self, *args, **options)
        count += 1

    monkeypatch.setattr(DecodedPicture, "__init__", counted)
    page = clip.parent / "r.html"
    settings = settings_of(report__thumbnails=thumbnails)
    annotate(clip, detector=SquareDetector(), settings=settings, video=False, report=page)
    assert names(clip.parent) == ["clip.mp4", "r.html"]
    assert count == decoded
    assert ("data:image/jpeg" in page.read_text(encoding="utf-8")) == (thumbnails == "blurred")


def test_frames_labelled_one_by_one_are_counted_without_tracks(clip: Path) -> None:
    folder = clip.parent
    annotate(
        clip,
        detector=SquareDetector(),
        settings=settings_of(track__label_by="frame"),
        video=False,
        zones=[LEFT],
        summary=folder / "s.json",
        report=folder / "r.html",
        mot=folder / "m.txt",
        vtt=folder / "v.vtt",
    )
    summary = summary_of(folder / "s.json")
    assert summary["faces"] == {"all": 25, "female": 25, "male": 0, "unsure": 0}
    assert summary["appearances"] is None
    [zone] = summary["zones"]["zones"]
    # The centre passes 50 after frame 12; without tracks there is no margin.
    assert zone["dwell_seconds"]["female"] == pytest.approx(0.04 * 13, abs=0.041)
    assert zone["entries"] is None
    assert {found.ids.item() for found in load_mot_file(folder / "m.txt").values()} == {-1}


def test_a_zone_beside_the_picture_is_told(clip: Path) -> None:
    [done] = annotate(
        clip, detector=SquareDetector(), zones=["far:500,0;600,0;600,9"], json=clip.parent / "a"
    )
    assert done.warnings == (f"{clip}: far lies beside the picture of 160 by 120 pixels",)


# --- several inputs ---------------------------------------------------------------------------


def test_several_inputs_have_folders_or_share_a_file(clip: Path, still: Path) -> None:
    folder = clip.parent
    other = write_video(folder / "other.mov", count=10)
    done = annotate(
        [clip, still, other],
        detector=SquareDetector(),
        video=False,
        coco=folder / "all.json",
        mot=folder / "mot",
        vtt=folder / "deep" / "vtt",
        summary=folder / "s.json",
        report=folder / "r.html",
        zones=["left:0,0;50%,0;50%,100%;0,100%"],
    )
    assert [summary.error for summary in done] == [None] * 3
    assert names(folder / "mot") == ["clip.txt", "other.txt", "still.txt"]
    assert names(folder / "deep" / "vtt") == ["clip.vtt", "other.vtt"]
    assert done[1].warnings == ("stills have no time, so --vtt leaves them out",)
    coco = COCO(str(folder / "all.json"))
    assert (len(coco.imgs), len(coco.anns)) == (36, 37)
    assert [video["name"] for video in coco.dataset["videos"]] == [str(clip), str(other)]
    first, second, third = (summary_of(folder / "s.json", row) for row in range(3))
    assert (first["frames"], second["kind"], third["frames"]) == (25, "image", 10)
    assert second["zones"]["zones"][0]["peak"] == {"all": 1, "female": 1, "male": 0, "unsure": 0}
    page = (folder / "r.html").read_text(encoding="utf-8")
    for name in ("clip.mp4", "still.png", "other.mov"):
        assert name in page
    assert len(re.findall("data:image/jpeg", page)) == 2


class FailsInTheSecond(SquareDetector):
    def detect(self, scaled, sizes_wh):  # type: ignore[no-untyped-def]
        if sizes_wh[0] == (200, 120):
            raise OutputError("no more")
        return super().detect(scaled, sizes_wh)


def test_an_input_that_fails_is_left_out_of_every_file(clip: Path) -> None:
    folder = clip.parent
    broken = write_video(folder / "broken.mp4", size_wh=(200, 120))
    for mode in ("track", "frame"):
        done = annotate(
            [broken, clip],
            detector=FailsInTheSecond(),
            settings=settings_of(track__label_by=mode),
            video=False,
            force=True,
            json=folder / "a.jsonl",
            coco=folder / "all.json",
            mot=folder / "mot/",
            summary=folder / "s.json",
            report=folder / "r.html",
        )
        assert [str(summary.error) for summary in done] == ["no more", "None"]
        assert names(folder / "mot") == ["clip.txt"]
        assert [entry["source"] for entry in lines(folder / "a.jsonl")] == [str(clip)] * 25
        coco = COCO(str(folder / "all.json"))
        assert [video["name"] for video in coco.dataset["videos"]] == [str(clip)]
        whole = json.loads((folder / "s.json").read_text())
        [only] = whole["inputs"]
        assert only["source"] == str(clip)
        assert whole["total"]["videos"] == 1
        assert whole["total"]["duration_seconds"] == only["duration_seconds"]
        assert "broken.mp4" not in (folder / "r.html").read_text()


def test_where_all_inputs_fail_nothing_appears(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    annotate(
        tmp_path / "empty.mp4",
        detector=SquareDetector(),
        coco=tmp_path / "c.json",
        summary=tmp_path / "s.json",
        report=tmp_path / "r.html",
        mot=tmp_path / "m.txt",
    )
    assert names(tmp_path) == ["empty.mp4"]


def test_what_inputs_leave_behind_does_not_pile_up(tmp_path: Path) -> None:
    """A report over many videos holds the faces of one of them in memory."""
    clips = [write_video(tmp_path / f"{i}.mp4", count=5) for i in range(3)]

    class Counts(Progress):
        alive: list[int]

        def __init__(self) -> None:
            self.alive = []

        def start(self, job: Job, frames: int | None, position: int, count: int) -> None:
            self.alive.append(self.count() - before)

        @staticmethod
        def count() -> int:
            gc.collect()
            return sum(isinstance(o, Settled) for o in gc.get_objects())

    before = Counts.count()  # other tests may keep some
    counts = Counts()
    annotate(
        clips,
        detector=SquareDetector(),
        video=False,
        summary=tmp_path / "s.json",
        report=tmp_path / "r.html",
        progress=counts,
    )
    assert max(counts.alive) <= 1, counts.alive
    assert len(json.loads((tmp_path / "s.json").read_text())["inputs"]) == 3


# --- interruptions ----------------------------------------------------------------------------


def test_ctrl_c_while_looking_leaves_whole_files_of_the_beginning(tmp_path: Path) -> None:
    long = write_video(tmp_path / "long.mp4", count=400)
    with pytest.raises(AnnotationInterrupted) as caught:
        annotate(
            long,
            detector=SquareDetector(),
            progress=StopsAfter(looks=30),
            video=False,
            coco=tmp_path / "c.json",
            vtt=tmp_path / "v.vtt",
            summary=tmp_path / "s.json",
            report=tmp_path / "r.html",
        )
    [done] = caught.value.summaries
    assert 30 <= done.frames < 400
    summary = summary_of(tmp_path / "s.json")
    assert (summary["frames"], summary["interrupted"]) == (done.frames, True)
    assert len(COCO(str(tmp_path / "c.json")).imgs) == done.frames
    assert len(webvtt.read(str(tmp_path / "v.vtt"))) >= 1
    assert "Stopped early" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_ctrl_c_without_tracks_is_told_in_the_summary(tmp_path: Path) -> None:
    long = write_video(tmp_path / "long.mp4", count=400)
    with pytest.raises(AnnotationInterrupted) as caught:
        annotate(
            long,
            detector=SquareDetector(),
            settings=settings_of(track__label_by="frame"),
            progress=StopsAfter(writes=30),
            video=False,
            summary=tmp_path / "s.json",
        )
    summary = summary_of(tmp_path / "s.json")
    assert (summary["frames"], summary["interrupted"]) == (
        caught.value.summaries[0].frames,
        True,
    )


# --- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"report": "-"}, ConfigError, "--report is a page to open in a browser"),
        ({"mot": "-", "vtt": "-"}, ConfigError, "only one of --mot and --vtt can go to standard"),
        ({"zones": ["a:1,1"]}, ConfigError, "zones.zone: 'a:1,1' should have three corners"),
        ({"zones": [LEFT, LEFT]}, ConfigError, "two zones are named 'left'"),
        ({"mot": "a", "json": "a/clip.txt"}, OutputError, "does not exist|would both be written"),
        ({"vtt": "clip.mp4"}, OutputError, "this output is the input"),
        ({"mot": "none/a.txt"}, OutputError, "the folder none does not exist"),
        ({"summary": "there"}, OutputError, "there: exists already; --force replaces it"),
    ],
)
def test_refusals(
    clip: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    monkeypatch.chdir(clip.parent)
    Path("there").touch()
    detector = SquareDetector()
    with pytest.raises(error, match=message):
        annotate("clip.mp4", detector=detector, **arguments)
    assert names(clip.parent) == ["clip.mp4", "there"]
    assert detector.batches == []


def test_one_file_for_several_inputs_is_refused(clip: Path, still: Path) -> None:
    for place in ("a.txt", "-"):
        with pytest.raises(ConfigError, match=rf"--mot {place} is one file, but there are 2"):
            annotate([clip, still], detector=SquareDetector(), mot=place)


def test_lines_need_tracks(clip: Path) -> None:
    settings = settings_of(track__label_by="frame")
    with pytest.raises(ConfigError, match="--line counts tracks that cross it"):
        annotate(clip, detector=SquareDetector(), settings=settings, lines=[GATE])


def test_a_report_shows_no_faces_that_shall_be_hidden(clip: Path) -> None:
    settings = settings_of(render__blur=True, report__thumbnails="plain")
    with pytest.raises(ConfigError, match="--thumbnails plain would show the faces that --blur"):
        annotate(clip, detector=SquareDetector(), settings=settings, report=clip.parent / "r.html")
    assert names(clip.parent) == ["clip.mp4"]
    [done] = annotate(clip, detector=SquareDetector(), settings=settings)
    assert (done.error, done.frames) == (None, 25)


def test_standard_output_takes_any_of_them(clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outputs: dict[str, str] = {}
    for name in ("summary", "coco", "mot", "vtt", "json"):
        options: dict[str, Any] = {name: "-"}
        [done] = annotate(clip, detector=SquareDetector(), video=False, **options)
        assert isinstance(done, Summary)
        outputs[name] = capsys.readouterr().out
    assert json.loads(outputs["summary"])["inputs"][0]["frames"] == 25
    assert len(json.loads(outputs["coco"])["annotations"]) == 25
    assert len(outputs["mot"].splitlines()) == len(outputs["json"].splitlines()) == 25
    assert outputs["vtt"].startswith("WEBVTT\n")
    assert names(clip.parent) == ["clip.mp4"]
