"""Long videos whose parts several workers do: as one process, to the frame and the byte."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from media import CLIPS, Clip, Sound, Text, make_video
from squares import SquareDetector, write_video
from test_jobs import DATA, data_flags, end, names, pending, run, start, timeless, wait_for

from videogender.config import Settings, VideoSettings, with_overrides
from videogender.errors import OutputError
from videogender.jobs import parts
from videogender.jobs.parts import can_be_divided, plan_parts
from videogender.outputs import DataOutputs
from videogender.passes import FirstPass
from videogender.pipeline import Pipeline
from videogender.sinks.joined import DrawnPart, join
from videogender.sinks.video import VideoSink
from videogender.sources import open_source
from videogender.sources.video import VideoSource
from videogender.targets import Job

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")

SHORT = {"SQUARES_PART_SECONDS": "1"}


def pictures(path: Path) -> list[tuple[int | None, bytes]]:
    """Return time and luma of every frame."""
    with av.open(str(path)) as container:
        return [
            (frame.pts, frame.to_ndarray(format="gray").tobytes())
            for frame in container.decode(video=0)
        ]


def packets(path: Path) -> list[tuple[int, int | None, int | None, bytes]]:
    """Return every packet but those of the picture."""
    with av.open(str(path)) as container:
        picture = container.streams.video[0].index
        return [
            (p.stream_index, p.pts, p.duration, bytes(p))
            for p in container.demux()
            if p.size and p.stream_index != picture
        ]


def show_the_same(one: Path, other: Path) -> None:
    """Check that two copies show the same at the same times.

    Not exactly: key frames may lie elsewhere, and x264 depends a little on its threads.
    """
    a, b = pictures(one), pictures(other)
    assert [pts for pts, _ in a] == [pts for pts, _ in b]
    off = [
        np.abs(np.frombuffer(x, np.uint8).astype(int) - np.frombuffer(y, np.uint8)).mean()
        for (_, x), (_, y) in zip(a, b, strict=True)
    ]
    assert max(off) < 3


# --- where a video is divided -----------------------------------------------------------------


def test_parts_begin_at_key_frames_and_leave_nothing_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "LEAST_SECONDS", 1.0)
    path = write_video(tmp_path / "a.mp4", count=250, keys_every=20)
    found = plan_parts(path, (None, None), 4)
    assert len(found) == 4
    assert (found[0].start_seconds, found[-1].end_seconds) == (None, None)
    for before, after in pairwise(found):
        assert before.end_seconds == after.start_seconds
        frame = after.start_seconds * 25
        assert frame % 20 == 0, "a key frame"
        assert frame == pytest.approx(round(frame), abs=1e-9)
    within = plan_parts(path, (2.0, 8.0), 3)
    assert (within[0].start_seconds, within[-1].end_seconds) == (2.0, 8.0)
    assert all(2 < part.start_seconds < 8 for part in within[1:])


def test_what_is_short_or_no_video_stays_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "a.mp4", count=100, keys_every=10)
    assert plan_parts(path, (None, None), 8) == [], "shorter than two parts"
    monkeypatch.setattr(parts, "LEAST_SECONDS", 1.0)
    assert len(plan_parts(path, (None, None), 8)) == 4
    one_key = write_video(tmp_path / "b.mp4", count=100, keys_every=1000)
    assert plan_parts(one_key, (None, None), 8) == []
    (tmp_path / "broken.mp4").write_bytes(b"this is no video")
    assert plan_parts(tmp_path / "broken.mp4", (None, None), 8) == []
    assert plan_parts(tmp_path / "gone.mp4", (None, None), 8) == []


def test_parts_are_drawn_apart_only_where_nothing_needs_the_whole() -> None:
    copy, data = Job(Path("a.mp4"), Path("b.mp4")), Job(Path("a.mp4"), None)
    zone = with_overrides(Settings(), {"zones.zone": ["z:0,0;9,0;9,9"]})
    loose = with_overrides(Settings(), {"track.label_by": "frame"})
    assert can_be_divided(Settings(), DataOutputs(), copy)
    assert not can_be_divided(zone, DataOutputs(), copy)
    assert can_be_divided(zone, DataOutputs(), data)
    assert not can_be_divided(loose, DataOutputs(), copy)
    page = DataOutputs(report="a.html")
    assert not can_be_divided(Settings(), page, data)
    plain = with_overrides(Settings(), {"report.thumbnails": "none"})
    assert can_be_divided(plain, page, data)


def test_some_rows_of_what_was_settled_are_those_of_the_whole(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", count=60)
    with open_source(path) as source, Pipeline() as pipeline:
        first = FirstPass(source, SquareDetector(), Settings().track, 0.5)
        for _ in first.start(pipeline):
            pass
    whole = first.settle()
    some = whole.between(13, 40)
    assert len(some) == 27
    for row in range(27):
        mine, theirs = some.faces(row), whole.faces(13 + row)
        np.testing.assert_array_equal(mine.boxes, theirs.boxes)
        np.testing.assert_array_equal(mine.tracks, theirs.tracks)
        np.testing.assert_array_equal(mine.female, theirs.female)
    assert some.row_of(20 / 25) == 7
    assert some.row_of(5 / 25) is None


# --- joining ----------------------------------------------------------------------------------

RICH = Clip(
    frames=60,
    b_frames=2,
    sounds=[Sound(language="fra"), Sound("pcm_s16le")],
    texts=[Text()],
    chapters=[(0.0, 1.0, "one"), (1.0, 2.4, "two")],
    tags={"title": "joined"},
)
JOINED = {
    "rich": ("a.mkv", replace(RICH, texts=[Text("subrip")]), (0.48, 1.44)),
    "late": ("a.mp4", replace(CLIPS["late"][1], sounds=[Sound()]), (0.74, 1.1)),
    "variable": ("a.mp4", CLIPS["variable"][1], (0.1, 0.6)),
    "transport": ("a.ts", replace(CLIPS["transport"][1], frames=50), (0.4, 1.0)),
    "turned": ("a.mp4", CLIPS["turned-90"][1], (0.48,)),
    "odd": ("a.mkv", CLIPS["odd"][1], (0.2, 0.24)),
}


def drawn(path: Path, cuts: tuple[float, ...], settings: VideoSettings) -> list[DrawnPart]:
    edges = [None, *cuts, None]
    found = []
    for number, (begin, finish) in enumerate(pairwise(edges)):
        place = path.with_name(f"part{number}.mp4")
        with (
            VideoSource(path, start_seconds=begin, end_seconds=finish) as source,
            VideoSink(place, source, settings, picture_only=True) as sink,
        ):
            for frame in source:
                sink.write(frame)
            found.append(DrawnPart(place, source.zero_seconds))
    return found


@pytest.mark.parametrize("name", JOINED)
def test_joined_parts_are_what_one_encoder_writes(tmp_path: Path, name: str) -> None:
    file, clip, cuts = JOINED[name]
    path = make_video(tmp_path / file, clip)
    settings = VideoSettings(crf=12)
    whole, joined = tmp_path / "whole.mp4", tmp_path / "joined.mp4"
    with VideoSource(path) as source, VideoSink(whole, source, settings) as sink:
        for frame in source:
            sink.write(frame)
    pieces = drawn(path, cuts, settings)
    with VideoSource(path) as source:
        join(pieces, joined, source)
        told = source.warnings
    with VideoSource(path) as source, VideoSink(tmp_path / "w.mp4", source, settings):
        assert told == source.warnings
    show_the_same(whole, joined)
    assert packets(whole) == packets(joined)
    with av.open(str(whole)) as a, av.open(str(joined)) as b:
        assert a.metadata == b.metadata
        assert a.chapters() == b.chapters()
        assert a.duration == pytest.approx(b.duration, abs=100_000)
        for one, other in zip(a.streams, b.streams, strict=True):
            assert (one.type, one.metadata.get("language")) == (
                other.type,
                other.metadata.get("language"),
            )
        one, other = a.streams.video[0].codec_context, b.streams.video[0].codec_context
        assert one.sample_aspect_ratio == other.sample_aspect_ratio
        assert one.colorspace == other.colorspace
    dts = [p.dts for p in av.open(str(joined)).demux(video=0) if p.dts is not None]
    assert dts == sorted(set(dts))


def test_parts_of_different_encoders_are_not_joined(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", Clip(frames=24))
    first, _ = drawn(path, (0.48,), VideoSettings())
    kept = first.path.rename(tmp_path / "first.mp4")
    _, second = drawn(path, (0.48,), VideoSettings(codec="mpeg4"))
    with VideoSource(path) as source, pytest.raises(OutputError, match="in different ways"):
        join([DrawnPart(kept, Fraction(0)), second], tmp_path / "out.mp4", source)


# --- a run ------------------------------------------------------------------------------------


def test_a_divided_video_is_that_of_one_process(tmp_path: Path) -> None:
    """Between two short inputs, whose data come in their order."""
    write_video(tmp_path / "a.mp4", count=20)
    write_video(tmp_path / "long.mp4", count=240, size_wh=(176, 144), keys_every=10)
    flags = ("--thumbnails", "none")
    said = {}
    for name, jobs in (("one", "1"), ("many", "3")):
        code, out, said[name] = run(
            *("a.mp4", "long.mp4", "-o", name, *data_flags(name), *flags, "--jobs", jobs),
            cwd=tmp_path,
            env=SHORT,
        )
        assert (code, out) == (0, ""), said[name]
    assert "in 3 processes" in said["many"]
    for flag in DATA:
        one, many = tmp_path / f"one{flag}{end(flag)}", tmp_path / f"many{flag}{end(flag)}"
        if one.is_dir():
            assert names(one) == names(many)
            for name in names(one):
                assert (one / name).read_bytes() == (many / name).read_bytes(), name
        else:
            assert timeless(one) == timeless(many), flag
    show_the_same(tmp_path / "one" / "long.annotated.mp4", tmp_path / "many" / "long.annotated.mp4")
    assert re.search(r"long\.mp4 -> .*240 frames, 240 faces", said["many"])
    assert names(tmp_path / "many") == names(tmp_path / "one")
    assert not [name for name in names(tmp_path) if name.startswith(".")]


def test_a_cut_where_parts_meet_is_seen(tmp_path: Path) -> None:
    """The second half of the file shows another room, from a key frame on."""
    path = tmp_path / "a.mp4"
    y, x = np.mgrid[:120, :160]
    rooms = [(60 + 60 * np.sin(x / 9)).astype(np.uint8), (90 + 60 * np.sin(y / 7)).astype(np.uint8)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"g": "25", "crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for i in range(100):
            array = np.repeat(rooms[i >= 50][..., None], 3, 2)
            array[40:72, 50:82] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
        container.mux(stream.encode(None))
    found = {}
    for jobs in ("1", "2"):
        code, out, err = run(
            *("a.mp4", "--no-video", "--json", "-", "-q", "--jobs", jobs), cwd=tmp_path, env=SHORT
        )
        assert code == 0, err
        rows = [json.loads(row) for row in out.splitlines()]
        found[jobs] = [[face["track"] for face in row["faces"]] for row in rows]
    assert found["1"] == found["2"] == [[1]] * 50 + [[2]] * 50


def test_a_part_whose_worker_dies_is_done_again(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", count=200, size_wh=(200, 120), keys_every=10)
    deadly = {
        "SQUARES_FATAL_WIDTH": "200",
        "SQUARES_FATAL_AFTER": "3",
        "SQUARES_FATAL_ONCE": str(tmp_path / "died"),
    }
    whole = run("a.mp4", "-o", "1.mp4", "--json", "1.jsonl", cwd=tmp_path)
    parts_ = run(
        *("a.mp4", "-o", "2.mp4", "--json", "2.jsonl", "-j", "2"),
        cwd=tmp_path,
        env=SHORT | deadly,
    )
    assert (whole[0], parts_[0]) == (0, 0), parts_[2]
    assert (tmp_path / "died").exists()
    assert "warning: a.mp4: its process was killed; a second try went well" in parts_[2]
    assert (tmp_path / "1.jsonl").read_bytes() == (tmp_path / "2.jsonl").read_bytes()
    show_the_same(tmp_path / "1.mp4", tmp_path / "2.mp4")


def test_a_part_that_kills_every_worker_fails_the_video_and_no_other(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", count=100, size_wh=(200, 120), keys_every=10)
    write_video(tmp_path / "b.mp4", count=10)
    code, _, err = run(
        *("a.mp4", "b.mp4", "-o", "out/", "--json", "x.jsonl", "-j", "3"),
        cwd=tmp_path,
        env=SHORT | {"SQUARES_FATAL_WIDTH": "200"},
    )
    assert code == 1
    assert len(re.findall("^error: a.mp4: its process was killed", err, re.M)) == 1
    assert names(tmp_path / "out") == ["b.annotated.mp4"]
    rows = [json.loads(row)["source"] for row in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert rows == ["b.mp4"] * 10


@pytest.mark.parametrize("defect", ["200", "join"], ids=["in a worker", "where parts are joined"])
def test_a_defect_in_a_divided_video_fails_that_alone(tmp_path: Path, defect: str) -> None:
    write_video(tmp_path / "a.mp4", count=100, size_wh=(200, 120), keys_every=10)
    write_video(tmp_path / "b.mp4", count=10)
    code, _, err = run(
        *("a.mp4", "b.mp4", "-o", "out/", "--json", "x.jsonl", "-j", "3"),
        cwd=tmp_path,
        env=SHORT | {"SQUARES_DEFECT": defect},
    )
    assert code == 1
    assert re.findall("^error: .*", err, re.M) == ["error: a.mp4: unexpected KeyError: 'defect'"]
    assert "Traceback" not in err
    assert names(tmp_path / "out") == ["b.annotated.mp4"]
    rows = [json.loads(row)["source"] for row in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert rows == ["b.mp4"] * 10


def test_a_video_that_breaks_off_is_done_whole(tmp_path: Path) -> None:
    """Its header promises more than there is, so its last part shows nothing."""
    whole = write_video(tmp_path / "whole.mp4", count=240, keys_every=10)
    fast = tmp_path / "fast.mp4"
    with av.open(str(whole)) as a, av.open(str(fast), "w", options={"movflags": "faststart"}) as b:
        stream = b.add_stream_from_template(a.streams.video[0])
        for packet in a.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                b.mux(packet)
    (tmp_path / "a.mp4").write_bytes(fast.read_bytes()[: fast.stat().st_size * 55 // 100])
    found = {}
    for jobs in ("1", "3"):
        code, _, err = run(
            *("a.mp4", "-o", f"{jobs}.mp4", "--json", f"{jobs}.jsonl", "--jobs", jobs),
            cwd=tmp_path,
            env=SHORT,
        )
        assert code == 0, err
        assert "cut short" in err
        found[jobs] = (tmp_path / f"{jobs}.jsonl").read_text()
    assert found["1"] == found["3"]
    assert found["1"].count("\n") > 50
    show_the_same(tmp_path / "1.mp4", tmp_path / "3.mp4")


@pytest.mark.parametrize("when", ["looking", "drawing"])
def test_ctrl_c_leaves_nothing_of_a_divided_video(tmp_path: Path, when: str) -> None:
    write_video(tmp_path / "a.mp4", count=400, keys_every=10)
    slow = {"SQUARES_DELAY": "0.3" if when == "looking" else "0"}
    process = start(
        *("a.mp4", "--json", "x.jsonl", "-j", "2", "--preset", "veryslow", "--every", "1"),
        cwd=tmp_path,
        env=SHORT | slow,
    )
    count = 1 if when == "looking" else 3  # the copy, and its parts
    try:
        wait_for(lambda: pending(tmp_path) >= count)
        if when == "looking":
            time.sleep(1.0)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert names(tmp_path) == ["a.mp4"]
