"""`videogender live` as a program: its outputs, its signals, and what it says when it cannot."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import types
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np
import pytest
from media import decoded_times
from run_squares import Detector
from squares import square_x, write_video
from stream_servers import HttpMjpeg, Silent

from videogender.cli.live_parts import LiveParts
from videogender.cli.main import main
from videogender.config import Settings
from videogender.errors import OutputError
from videogender.frames import Faces, Frame, RgbPicture
from videogender.sinks import background
from videogender.sinks.background import BackgroundStdout
from videogender.sinks.livelog import LiveLog

pytestmark = pytest.mark.timed

TESTS = Path(__file__).parent
SQUARES = str(TESTS / "run_squares.py")


@contextmanager
def running(
    *args: str, program: str = SQUARES, **environment: str
) -> Iterator[subprocess.Popen[str]]:
    """Run `videogender live` with the detector of squares."""
    paths = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    known = {key: value for key, value in os.environ.items() if key != "DISPLAY"}
    with subprocess.Popen(
        [sys.executable, program, "live", *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**known, "PYTHONPATH": paths, **environment},
    ) as child:
        try:
            yield child
        finally:
            child.kill()


class Inside(Protocol):
    def __call__(self, *args: str) -> tuple[int, str, str]: ...


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Inside:
    """Run it in this process, which is quicker: exit code, standard output and error."""
    stand_in = types.ModuleType("videogender.detector")
    stand_in.Detector = Detector  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "videogender.detector", stand_in)
    monkeypatch.delenv("DISPLAY", raising=False)

    def inside(*args: str) -> tuple[int, str, str]:
        code = main(["live", *args])
        said = capsys.readouterr()
        return code, said.out, said.err

    return inside


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", count=30)


def test_a_file_to_its_end_with_data_and_a_recording(
    run: Inside, clip: Path, tmp_path: Path
) -> None:
    day = tmp_path / "day.mp4"
    code, out, err = run(
        "--file", str(clip), "--no-display", "--json", "-", "--record", str(day),
        "--preset", "ultrafast",
    )  # fmt: skip
    assert code == 0, err
    lines = [json.loads(line) for line in out.splitlines()]
    frames, summary = lines[:-1], lines[-1]
    assert [line["frame"] for line in frames] == list(range(30))
    assert [line["time_s"] for line in frames] == pytest.approx([n / 25 for n in range(30)])
    assert {(line["source"], line["index"]) for line in lines} == {(str(clip), 0)}
    moments = [datetime.fromisoformat(line["captured"]) for line in frames]
    assert abs((datetime.now(UTC) - moments[-1]).total_seconds()) < 30
    assert 1.0 < (moments[-1] - moments[0]).total_seconds() < 10
    assert all(line["latency_ms"] >= 0 for line in frames)
    seen = [line for line in frames if line["faces"]]
    assert len(seen) > 10
    for line in seen[2:]:
        left = square_x(line["frame"])
        assert line["faces"][0]["box"][0] == pytest.approx(left, abs=12)
        assert line["faces"][0]["track"] >= 1
    figures = summary["summary"]
    assert (figures["frames"], figures["dropped"], figures["state"]) == (30, 0, "ended")
    for name in ("fps_in", "fps_out", "latency_ms_p50", "latency_ms_p95", "device", "label_ms_p50"):
        assert figures[name] is not None
    assert len(decoded_times(day)) == 30
    assert "every frame is shown" in err
    assert "30 frames shown, 0 dropped" in err
    assert f"recording -> {day}" in err


def test_what_reports_show_does_not_matter_where_none_is_written(
    run: Inside, clip: Path, tmp_path: Path
) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("report: {thumbnails: plain}\n")
    code, _, err = run("--file", str(clip), "--no-display", "--blur", "--config", str(config))
    assert code == 0, err


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
)
def test_signals_end_a_run_within_two_seconds_with_everything_closed(
    clip: Path, tmp_path: Path, number: int, code: int
) -> None:
    day, data = tmp_path / "day.mkv", tmp_path / "data.jsonl"
    # The detector is in the middle of a long look whenever the signal comes.
    with running(
        "--file", str(clip), "--loop", "--no-display", "--json", str(data), "--record", str(day),
        "--preset", "ultrafast", SQUARES_DELAY="3",
    ) as child:  # fmt: skip
        until = time.monotonic() + 60
        while not day.exists() or day.stat().st_size < 2000:
            assert time.monotonic() < until
            time.sleep(0.05)
        began = time.monotonic()
        child.send_signal(number)
        _, err = child.communicate(timeout=20)
        took = time.monotonic() - began
    assert child.returncode == code, err
    assert took < 2
    assert len(decoded_times(day)) > 5
    lines = [json.loads(line) for line in data.read_text().splitlines()]
    assert "summary" in lines[-1]
    assert "frames shown" in err
    assert "Traceback" not in err


SLOW_DISK = """
import sys, time
from run_squares import main, stand_in
from videogender.sinks.recording import Recording

stand_in()
write = Recording.write

def late(*args):
    time.sleep(3)
    write(*args)

Recording.write = late
sys.exit(main())
"""


@contextmanager
def recording_slowly(clip: Path, day: Path) -> Iterator[subprocess.Popen[str]]:
    """Run with a disk that takes seconds a picture, until three frames were told."""
    program = day.with_name("slow.py")
    program.write_text(SLOW_DISK)
    with running(
        "--file", str(clip), "--loop", "--no-display", "--record", str(day), "--json", "-",
        program=str(program),
    ) as child:  # fmt: skip
        assert child.stdout is not None
        for _ in range(3):
            assert child.stdout.readline()
        yield child


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_recording_that_is_late_hides_no_signal(clip: Path, tmp_path: Path, number: int) -> None:
    day = tmp_path / "day.mkv"
    with recording_slowly(clip, day) as child:
        child.send_signal(number)
        _, err = child.communicate(timeout=20)
    assert child.returncode == 128 + number, err
    assert err.splitlines()[-1].startswith(f"error: {day}: its end is missing")


def test_a_recording_goes_on_though_nobody_reads_the_data(clip: Path, tmp_path: Path) -> None:
    day = tmp_path / "day.mkv"
    with running(
        "--file", str(clip), "--no-display", "--json", "-", "--record", str(day),
        "--preset", "ultrafast",
    ) as child:  # fmt: skip
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.readline()
        child.stdout.close()
        err = child.stderr.read()
        assert child.wait(timeout=60) == 4, err
    line = "error: standard output: its reader left before the end; all else is written"
    assert err.splitlines()[-1] == line
    assert len(decoded_times(day)) == 30


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_it_at_once_with_its_own_code(
    clip: Path, tmp_path: Path, number: int
) -> None:
    with recording_slowly(clip, tmp_path / "day.mkv") as child:
        child.send_signal(signal.SIGINT)
        time.sleep(0.3)  # it waits for the recording
        began = time.monotonic()
        child.send_signal(number)
        _, err = child.communicate(timeout=20)
        assert time.monotonic() - began < 2
    assert child.returncode == 128 + number, err
    assert "Traceback" not in err


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has small pipes")
def test_a_reader_that_stands_still_holds_nothing_up(clip: Path, tmp_path: Path) -> None:
    import fcntl

    day = tmp_path / "day.mkv"
    with running(
        "--file", str(clip), "--loop", "--no-display", "--json", "-", "--record", str(day),
        "--preset", "ultrafast", "-q",
    ) as child:  # fmt: skip
        assert child.stdout is not None
        assert child.stderr is not None
        fcntl.fcntl(child.stdout, 1031, 4096)  # F_SETPIPE_SZ: full after a dozen frames
        until = time.monotonic() + 60

        def recorded() -> int:
            return len(decoded_times(day)) if day.exists() and day.stat().st_size > 2000 else 0

        while recorded() < 75:  # it goes on all the same
            assert time.monotonic() < until
            time.sleep(0.2)
        began = time.monotonic()
        child.send_signal(signal.SIGTERM)
        assert child.wait(timeout=20) == 143
        assert time.monotonic() - began < 3
        assert "standard output: its reader was too slow; " in child.stderr.read()


def test_what_a_slow_reader_leaves_no_room_for_is_lost_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, go = threading.Event(), threading.Event()
    written: list[str] = []

    def late(text: str) -> None:
        begun.set()
        assert go.wait(20)
        written.append(text)

    monkeypatch.setattr(background, "_write", late)
    with BackgroundStdout() as stdout:
        stdout.write("first")
        assert begun.wait(20)
        for n in range(1005):
            stdout.write(str(n))
        assert stdout.lost == 5
        go.set()
    stdout.check_read()
    assert written == ["first", *map(str, range(1000))]
    assert stdout.lost == 5


def test_a_full_disk_behind_standard_output_is_one_line() -> None:
    with BackgroundStdout() as stdout:
        stdout._error = OSError(28, "No space left on device")  # what the thread would note
    with pytest.raises(OutputError, match="standard output: cannot write: No space left"):
        stdout.check_read()


def test_with_a_page_a_reader_that_leaves_ends_nothing(clip: Path) -> None:
    pytest.importorskip("uvicorn")
    with running("--file", str(clip), "--no-display", "--serve", "0", "--json", "-") as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.readline()
        child.stdout.close()
        assert child.wait(timeout=60) == 4
        assert "30 frames shown" in child.stderr.read()


def test_without_a_recording_a_reader_that_leaves_ends_it(clip: Path) -> None:
    with running("--file", str(clip), "--loop", "--no-display", "--json", "-", "-q") as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.readline()
        child.stdout.close()
        assert child.wait(timeout=60) == 141
        assert child.stderr.read() == ""


def test_ctrl_c_while_a_stream_says_nothing(tmp_path: Path) -> None:
    with Silent() as server, running(
        "--url", f"http://joe:s3cret@127.0.0.1:{server.port}/x", "--no-display",
        "--timeout-seconds", "60",
    ) as child:  # fmt: skip
        until = time.monotonic() + 60
        while not server.asked:
            assert time.monotonic() < until
            time.sleep(0.05)
        began = time.monotonic()
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=20)
        assert time.monotonic() - began < 2
    assert child.returncode == 130
    assert "s3cret" not in out + err


def test_intervals_sum_up(run: Inside, clip: Path, tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    code, _, err = run(
        "--file", str(clip), "--loop", "--duration", "2.6s", "--no-display",
        "--json", str(data), "--interval", "1s",
    )  # fmt: skip
    assert code == 0, err
    lines = [json.loads(line) for line in data.read_text().splitlines()]
    assert "summary" in lines[-1]
    whole = lines[:-2]
    assert len(whole) >= 1  # a busy machine is late
    for line in whole:
        assert 0.7 < line["seconds"] < 2.5
        assert line["frames"] > 10
        assert line["faces_max"] >= 1
        assert set(line["in_view_mean"]) == set(line["tracks"]) == {"female", "male", "unsure"}
        assert line["fps_in"] > 10
        assert line["state"] == "running"
    assert len({tuple(line) for line in lines[:-1]}) == 1  # one schema, the last one's, too


def test_intervals_of_faces_that_are_not_followed_count_no_tracks(
    run: Inside, clip: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data.jsonl"
    code, _, err = run(
        "--file", str(clip), "--no-display", "--label-by", "frame", "--json", str(data),
        "--interval", "1s",
    )  # fmt: skip
    assert code == 0, err
    lines = [json.loads(line) for line in data.read_text().splitlines()]
    assert all(line["tracks"] is None for line in lines[:-1])


def test_two_sources_are_recorded_apart_and_a_stream_shows_no_secret(
    run: Inside, clip: Path, tmp_path: Path
) -> None:
    day = tmp_path / "day.mp4"
    with HttpMjpeg() as server:
        address = server.url.replace("://", "://joe:s3cret@") + "?key=s3cret"
        code, out, err = run(
            "--url", address, "--file", str(clip), "--loop", "--duration", "2s", "--no-display",
            "--record", str(day), "--record-raw", "--preset", "ultrafast", "--json", "-",
        )  # fmt: skip
    assert code == 0, err
    assert {path.name for path in tmp_path.iterdir()} == {"day-1.mp4", "day-2.mp4"}
    times = decoded_times(tmp_path / "day-1.mp4")
    assert 1 < times[-1] < 2.5
    assert "newest frame only" in err
    assert f"http://127.0.0.1:{server.port}/video.mjpg?..." in err
    assert "s3cret" not in out + err
    assert all(b"s3cret" not in path.read_bytes() for path in tmp_path.iterdir())


def test_no_display_is_said_and_not_fatal(run: Inside, clip: Path) -> None:
    code, _, err = run("--file", str(clip), "--duration", "1s")
    assert code == 0
    assert "no window: there is no display (DISPLAY is not set); --serve PORT" in err


@pytest.mark.parametrize("display", ["", ":987", "nonsense"])
def test_a_window_that_was_asked_for_and_cannot_be(
    run: Inside, clip: Path, display: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISPLAY", display)
    code, _, err = run("--file", str(clip), "--display")
    assert code == 2
    assert err.startswith("error: --display: ")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["--url", "clip.mp4"], 2, "--url should be an address"),
        (["--url", "file:///etc/passwd"], 2, "--url does not take file"),
        (["--file", "missing.mp4"], 3, "missing.mp4: no such file"),
        (["--camera", "/dev/nothing"], 3, "camera /dev/nothing: no such camera; found here: "),
        (["--duration", "soon"], 2, "--duration should be a time such as 12.5"),
        (["--loop"], 2, "--loop and --drop go with --file"),
        (["--segment", "5s"], 2, "--record-raw and --segment go with --record"),
        (["--interval", "5s"], 2, "--interval goes with --json"),
        (["--token", "x"], 2, "--token goes with --serve"),
        (["--json", "nowhere/x.jsonl"], 4, "the folder does not exist"),
        (["--size", "large"], 2, "--size should be auto or WIDTHxHEIGHT, got 'large'"),
        (["--record", "x.mp4", "--record-raw", "--blur"], 2, "--record-raw would keep the faces"),
        (["--give-up-after", "1x"], 2, "--give-up-after should be a time"),
    ],
)
def test_what_cannot_be_is_one_line(
    args: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["live", "--no-display", *args]) == code
    err = capsys.readouterr().err
    assert message in err
    assert len(err.splitlines()) == 1


def test_outputs_do_not_replace_inputs_or_each_others_past(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = tmp_path / "there.mp4"
    there.write_bytes(b"mine")
    base = ["live", "--no-display", "--file", str(clip)]
    assert main([*base, "--record", str(clip), "--force"]) == 4
    assert main([*base, "--record", str(there)]) == 4
    assert main([*base, "--json", str(there)]) == 4
    assert there.read_bytes() == b"mine"
    assert clip.stat().st_size > 1000
    assert "is an input" in capsys.readouterr().err


def test_numbered_recordings_replace_no_input(run: Inside, clip: Path, tmp_path: Path) -> None:
    played = [tmp_path / "day-1.mp4", tmp_path / "day-0001.mp4"]
    for path in played:
        shutil.copy(clip, path)
    day = ("--record", str(tmp_path / "day.mp4"), "--force", "--no-display")
    code, _, err = run("--file", str(played[0]), "--file", str(clip), *day)
    assert code == 4
    assert "day-1.mp4: is an input or another output; name another file" in err
    code, _, err = run("--file", str(played[1]), "--segment", "1h", *day)
    assert code == 4
    assert "day-0001.mp4: is an input or another output" in err
    assert all(path.read_bytes() == clip.read_bytes() for path in played)


def test_two_outputs_are_two_files(run: Inside, clip: Path, tmp_path: Path) -> None:
    both = str(tmp_path / "b.mkv")
    code, _, err = run("--file", str(clip), "--json", both, "--record", both, "--force")
    assert code == 4
    assert "b.mkv: is the file of --json; name another file" in err


def test_the_log_is_left_alone_until_all_else_is_right(
    run: Inside, clip: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data.jsonl"
    wrong = ("--file", str(clip), "--json", str(data), "--record", str(tmp_path / "day.avi"))
    assert run(*wrong)[0] == 4
    assert not data.exists()
    data.write_text("mine")
    assert run(*wrong, "--force")[0] == 4
    assert data.read_text() == "mine"


def test_a_token_from_a_file_may_end_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDEOGENDER_TOKEN", "s3cret\n")
    assert LiveParts(Settings(), force=False).place("0", None) == ("127.0.0.1", 0, "s3cret")


def test_a_log_can_be_followed_while_it_grows(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with LiveLog(path, unsure_below=0.65) as log:
        picture = RgbPicture(np.zeros((4, 4, 3), np.uint8))
        for index in range(3):
            frame = Frame(picture, index, index / 10, "s")
            log.take(frame, Faces.empty(), time.monotonic())
            time.sleep(0.3)
        lines: list[Any] = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) >= 2


def is_healthy(url: str) -> bool:
    try:
        with urlopen(url, timeout=10) as answer:
            return bool(answer.status == 200)
    except HTTPError:  # 503 so far
        return False


@pytest.mark.slow  # starts as a program of its own
def test_the_page_is_served(clip: Path) -> None:
    pytest.importorskip("uvicorn")
    with running("--file", str(clip), "--loop", "--serve", "0", "--duration", "60s") as child:
        assert child.stderr is not None
        line = next(line for line in child.stderr if line.startswith("page: "))
        url = line.split()[1]
        until = time.monotonic() + 60
        while not is_healthy(url + "healthz"):  # until the source runs
            assert time.monotonic() < until
            time.sleep(0.1)
        began = time.monotonic()
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=60)
        took = time.monotonic() - began
    assert child.returncode == 130
    assert took < 15, took  # a second where nothing else runs; Python unloads libraries, too
