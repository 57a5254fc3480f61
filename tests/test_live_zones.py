"""Zones and lines of live runs: squares that walk as they are told, counted to the frame."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from run_squares import Detector
from squares import SquareDetector, picture, read_frames

from videogender.cli.main import main
from videogender.config import RenderSettings, Settings, TrackSettings, ZoneSettings
from videogender.errors import ConfigError
from videogender.frames import Faces, Frame, RgbPicture
from videogender.live.areas import Areas, areas_of
from videogender.live.capture import Captured
from videogender.live.engine import Engine
from videogender.live.looking import Look
from videogender.live.meter import Meter
from videogender.sinks.livelog import LiveLog, SourceNow
from videogender.sources.playback import Playback
from videogender.zones.sources import of_source

FRAMES, FPS = 36, 25
LOW = "low:0%,50%;100%,50%;100%,100%;0%,100%"
MID = "mid:0,60;160,60"  # to the right of it is down

# On the left (female) a square comes down, on the right (male) one goes up, 2 px a frame, centres
# from 26 to 96 px and back; at half height, 60 px, they count from 8 px beyond it on.
WALKS = [((20, 10 + 2 * n, 32), (110, 80 - 2 * n, 32)) for n in range(FRAMES)]
DOWN_AT, UP_AT = 22 / FPS, 23 / FPS
END = (FRAMES - 1) / FPS

Inside = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "walks.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for squares in WALKS:
            array = picture(160, 120, *squares)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Inside:
    """Run `videogender live` in this process: exit code, standard output and error."""
    stand_in = types.ModuleType("videogender.detector")
    stand_in.Detector = Detector  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "videogender.detector", stand_in)
    monkeypatch.delenv("DISPLAY", raising=False)

    def inside(*args: str) -> tuple[int, str, str]:
        # With --blur every frame of a file is looked at before it is shown, however busy the
        # machine is, so that counts are known to the frame; and one look is enough for a label.
        code = main(["live", "--no-display", "--blur", "--unsure-below", "0.65", *args])
        said = capsys.readouterr()
        return code, said.out, said.err

    return inside


def split(everyone: float, female: float, male: float) -> Any:
    return pytest.approx(
        {"all": everyone, "female": female, "male": male, "unsure": 0}, abs=0.001 + 1.5 / FPS
    )


def is_the_truth(zone: dict[str, Any], line: dict[str, Any]) -> None:
    assert zone["appearances"] == split(2, 1, 1)
    assert zone["entries"] == split(1, 1, 0)
    assert zone["exits"] == split(1, 0, 1)
    assert zone["dwell_seconds"]["female"] == pytest.approx(END - DOWN_AT, abs=1.5 / FPS)
    assert zone["dwell_seconds"]["male"] == pytest.approx(UP_AT, abs=1.5 / FPS)
    assert (line["in"], line["out"]) == (split(1, 1, 0), split(1, 0, 1))


def test_a_line_a_frame_tells_who_is_where_and_the_end_sums_up(
    run: Inside, clip: Path, tmp_path: Path
) -> None:
    day = tmp_path / "day.mkv"
    code, out, err = run(
        "--file", str(clip), "--zone", LOW, "--line", MID, "--json", "-", "--record", str(day),
        "--preset", "ultrafast",
    )  # fmt: skip
    assert code == 0, err
    *lines, last = [json.loads(line) for line in out.splitlines()]
    assert len(lines) == FRAMES
    for line in lines:
        here = {face["label"] for face in line["faces"] if face["zones"] == ["low"]}
        assert all(face["zones"] in ([], ["low"]) for face in line["faces"])
        [zone] = line["zones"]
        assert {label for label in ("female", "male") if zone["now"][label]} == here
        assert zone["now"]["all"] == len(here)
        if abs(line["time_s"] - DOWN_AT) > 0.05:
            assert ("female" in here) == (line["time_s"] > DOWN_AT)
        if abs(line["time_s"] - UP_AT) > 0.05:
            assert ("male" in here) == (line["time_s"] < UP_AT)
    assert lines[0]["lines"] == [{"name": "mid", "in": 0, "out": 0}]
    assert lines[-1]["lines"] == [{"name": "mid", "in": 1, "out": 1}]
    [zone], [line] = last["summary"]["zones"], last["summary"]["lines"]
    is_the_truth(zone, line)
    assert zone["points"] == [[0, 60], [160, 60], [160, 120], [0, 120]]
    assert zone["peak"]["male"] == 1
    assert "zone low: 2 ever inside (1 female, 1 male, 0 unsure); 1 came in, 1 went out; " in err
    assert "line mid: 1 in (1 female, 0 male, 0 unsure); 1 out (0 female, 1 male, 0 unsure)" in err
    # The outline is on the recording: light where the clip is dark.
    there, plain = read_frames(day)[20], read_frames(clip)[20]
    edge = np.s_[58:63, 70:100, 1]  # between the squares
    assert there[edge].max() > 200
    assert plain[edge].max() < 80


def test_intervals_add_up_to_the_whole(run: Inside, clip: Path, tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    code, _, err = run(
        "--file", str(clip), "--zone", LOW, "--line", MID, "--json", str(data), "--interval",
        "0.3s",
    )  # fmt: skip
    assert code == 0, err
    *lines, last = [json.loads(line) for line in data.read_text().splitlines()]
    lines = [line for line in lines if line["frames"]]
    assert len(lines) >= 3
    zones = [line["zones"][0] for line in lines]
    whole = last["summary"]["zones"][0]
    for name in ("appearances", "entries", "exits", "dwell_seconds"):
        for group, value in whole[name].items():
            assert sum(zone[name][group] for zone in zones) == pytest.approx(value, abs=0.01)
    for way in ("in", "out"):
        assert sum(line["lines"][0][way]["all"] for line in lines) == 1
    assert zones[0]["inside_mean"] == {"all": 1, "female": 0, "male": 1, "unsure": 0}
    assert zones[0]["peak"]["male"] == 1
    assert zones[-1]["inside_mean"]["female"] == 1


def test_zones_stand_in_a_file_and_belong_to_one_source_where_they_say_so(
    run: Inside, clip: Path, tmp_path: Path
) -> None:
    settings = tmp_path / "zones.yaml"
    settings.write_text(
        "zones:\n"
        "  zone:\n"
        "    - both:0,0;100%,0;100%,100%;0,100%\n"
        "    - {name: half@1, points: [[0, 0], [50%, 0], [50%, 100%], [0, 100%]]}\n"
        "    - half@2:50%,0;100%,0;100%,100%;50%,100%\n"
        "  line: ['mid@2:0,60;160,60']\n"
    )
    code, out, err = run(
        "--file", str(clip), "--file", str(clip), "--config", str(settings), "--json", "-",
        "--interval", "1h",
    )  # fmt: skip
    assert code == 0, err
    first, second = [
        told["summary"] for told in map(json.loads, out.splitlines()) if "summary" in told
    ]
    assert [zone["name"] for zone in first["zones"]] == ["both", "half"]
    assert [zone["name"] for zone in second["zones"]] == ["both", "half"]
    assert first["zones"][1]["appearances"] == split(1, 1, 0)
    assert second["zones"][1]["appearances"] == split(1, 0, 1)
    assert (len(first["lines"]), len(second["lines"])) == (0, 1)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--zone", "a:0,0;1,1"], "'a:0,0;1,1' should have three corners or more"),
        (["--zone", LOW, "--zone", LOW], "two zones are named 'low'"),
        (["--line", "a:0,0;1,1", "--line", "a@1:0,0;2,1"], "two lines are named 'a'"),
        (["--line", "a@2:0,0;1,1"], "'a@2' is of source 2, and there is one source"),
        (["--line", MID, "--label-by", "frame"], "--line counts tracks that cross it"),
    ],
)
def test_what_cannot_be_counted_is_one_line(
    run: Inside, clip: Path, args: list[str], message: str
) -> None:
    code, _, err = run("--file", str(clip), *args)
    assert (code, len(err.splitlines())) == (2, 1)
    assert message in err


def test_names_with_other_signs_are_whole_names() -> None:
    zones = ZoneSettings(zone=("a@b:0,0;1,0;1,1", "c @2:0,0;1,0;1,1", "@1:0,0;1,0;1,1"))
    assert of_source(zones, 1, 2).zone == (zones.zone[0], zones.zone[2])
    assert of_source(zones, 2, 2).zone == (zones.zone[0], "c:0,0;1,0;1,1", zones.zone[2])
    for wrong in ("a@0", "a@3"):
        with pytest.raises(ConfigError, match="there are 2 sources"):
            of_source(ZoneSettings(zone=(f"{wrong}:0,0;1,0;1,1",)), 1, 2)


def faces_at(*places: tuple[float, int], size: float = 20, track: int = 1) -> Faces:
    """Return faces at (x, verdict) in the middle of the height."""
    boxes = [(x - size / 2, 40, x + size / 2, 60) for x, _ in places]
    return Faces(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.full(len(places), 0.9, np.float32),
        np.full(len(places), 0.5, np.float32),
        tracks=np.arange(track, track + len(places)),
        verdicts=np.array([verdict for _, verdict in places], np.int8),
    )


def frame(index: int, seconds: float, size_wh: tuple[int, int] = (200, 100)) -> Frame:
    return Frame(RgbPicture(np.zeros((size_wh[1], size_wh[0], 3), np.uint8)), index, seconds, "s")


def count(
    areas: Areas, seconds: float, faces: Faces, take: int = 0, size_wh: tuple[int, int] = (200, 100)
) -> list[int]:
    """Count a frame that was looked at itself, and return how many faces are in each zone."""
    captured = Captured(frame(0, seconds, size_wh), seconds, take)
    where = areas.at(captured, faces, Look(faces, seconds))
    assert where is not None
    return where.counts


RIGHT = Settings(
    zones=ZoneSettings(
        zone=("right:50%,0;100%,0;100%,100%;50%,100%",), line=("gate:50%,100%;50%,0",)
    )
)


def test_events_keep_the_label_of_their_moment_and_tracks_take_the_newest() -> None:
    areas = Areas(RIGHT, 1, 1)
    assert areas.told() is None
    for index, (x, verdict) in enumerate([(50, 0), (120, 0), (130, 1), (140, 1)]):
        count(areas, index / 10, faces_at((x, verdict)))
    told, happened = areas.told(), areas.happened()
    assert told is not None
    assert happened is not None
    [zone], [event] = told["zones"], happened.figures()["zones"]
    assert zone["now"] == {"all": 1, "female": 1, "male": 0, "unsure": 0}
    assert zone["entries"] == {"all": 1, "female": 1, "male": 0, "unsure": 0}
    assert event["entries"] == {"all": 1, "female": 0, "male": 0, "unsure": 1}
    assert zone["dwell_seconds"] == {"all": 0.2, "female": 0.2, "male": 0, "unsure": 0}
    assert event["dwell_seconds"] == {"all": 0.2, "female": 0.1, "male": 0, "unsure": 0.1}
    assert told["lines"][0]["in"]["female"] == happened.figures()["lines"][0]["in"]["unsure"] == 1
    told = areas.told(in_view=False)
    assert told is not None
    assert told["zones"][0]["now"]["all"] == 0


def test_intervals_count_tracks_by_the_class_of_a_fine_tuned_head(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    masks = np.array([[0.9, 0.1], [0.5, 0.5]], np.float32)
    found = replace(faces_at((50, 1), (120, -1)), attributes=masks, classes=("mask", "no mask"))
    with LiveLog(data, unsure_below=0.65, interval_seconds=60) as log:
        log.begin([SourceNow("s", "starting", Meter().read(), None)])
        for index in range(3):
            log.take(frame(index, index / 10), found, index / 10)
        log.end_interval([SourceNow("s", "running", Meter().read(), None)])
    line = json.loads(data.read_text().splitlines()[0])
    assert line["attributes"] == {"mask": 1, "no mask": 0, "unsure": 1}
    assert line["tracks"] == {"female": 1, "male": 1, "unsure": 0}


def test_percentages_follow_a_picture_that_changes_its_size() -> None:
    areas = Areas(RIGHT, 1, 1)
    count(areas, 0.0, faces_at((150, 1)))
    assert count(areas, 0.1, faces_at((150, 1))) == [1]
    assert areas.beside == []
    assert count(areas, 0.2, faces_at((150, 1), track=2), 1, (800, 400)) == [0]
    assert count(areas, 0.3, faces_at((500, 1), track=2), 1, (800, 400)) == [1]
    figures = areas.figures()
    assert figures is not None
    [zone] = figures["zones"]
    assert zone["appearances"]["female"] == 2
    assert zone["entries"]["female"] == 1
    assert zone["points"][0] == [400, 0]


def test_a_long_gap_does_not_count_in_full_and_one_without_a_source_not_at_all() -> None:
    areas = Areas(RIGHT, 1, 1)
    for seconds, take in ((0.0, 0), (1.0, 0), (500.0, 0), (501.0, 1), (502.0, 1)):
        count(areas, seconds, faces_at((150, 1), track=1 + take), take)
    figures = areas.figures()
    assert figures is not None
    assert figures["zones"][0]["dwell_seconds"]["all"] == pytest.approx(1 + 10 + 1)


def test_boxes_that_run_ahead_between_looks_count_nothing() -> None:
    """Somebody stops before the line, and the box goes on for as long as nobody has looked."""
    areas = Areas(RIGHT, 1, 1)
    for index, x in enumerate([50, 70, 90]):
        count(areas, index / 10, faces_at((x, 1)))
    look = Look(faces_at((90, 1)), 0.2)
    for index, x in enumerate([100, 110, 120]):
        seconds = 0.23 + 0.03 * index
        where = areas.at(Captured(frame(0, seconds), seconds, 0), faces_at((x, 1)), look)
        assert where is not None
        assert where.names() == [[]]
    assert count(areas, 0.4, faces_at((92, 1))) == [0]
    told = areas.told()
    assert told is not None
    assert told["zones"][0]["entries"]["all"] == told["lines"][0]["in"]["all"] == 0
    assert count(areas, 0.6, faces_at((120, 1))) == [1]
    told = areas.told()
    assert told is not None
    assert told["zones"][0]["entries"]["all"] == told["lines"][0]["in"]["all"] == 1


def test_without_tracks_time_and_peak_are_counted(clip: Path) -> None:
    settings = replace(
        Settings(zones=ZoneSettings(zone=(LOW,))),
        track=TrackSettings(label_by="frame"),
        render=RenderSettings(style="none", labels=False, blur=True),
    )
    engine = Engine([Playback(clip)], SquareDetector(), settings)
    engine.run([])
    stats = engine.stats()[0]
    assert stats.zones is not None
    [zone] = stats.zones["zones"]
    assert zone["entries"] is None
    assert zone["peak"]["all"] >= 1
    assert zone["dwell_seconds"]["male"] == pytest.approx(19 / FPS, abs=1.5 / FPS)  # no margin
    assert zone["now"]["all"] == 0  # it has ended
    assert stats.zone_events is not None


def test_zones_beside_the_picture_are_told_once(clip: Path) -> None:
    told: list[str] = []
    settings = Settings(zones=ZoneSettings(zone=("far:900,0;950,0;950,50",)))
    Engine([Playback(clip)], SquareDetector(), settings, notice=told.append).run([])
    assert [line for line in told if "far" in line] == [f"{clip}: far lies beside the picture"]


def test_without_zones_nothing_is_told(clip: Path, tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    with LiveLog(data, unsure_below=0.65) as log:
        engine = Engine([Playback(clip)], SquareDetector())
        engine.run([], log)
    assert engine.stats()[0].zones is None
    assert all(areas.is_empty for areas in areas_of(Settings(), 2))
    text = data.read_text()
    assert "zones" not in text
    assert "lines" not in text
