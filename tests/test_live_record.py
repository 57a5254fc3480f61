"""Recordings: times of the capture clock, parts, and files that play after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from media import decoded_times
from numpy.typing import NDArray
from squares import picture, read_frames, square_x

from videogender.config import VideoSettings
from videogender.errors import ConfigError, OutputError
from videogender.frames import RgbPicture
from videogender.sinks.record import Recorder, stop_all
from videogender.sinks.recording import Recording

pytestmark = pytest.mark.timed

QUICK = VideoSettings(preset="ultrafast")
TESTS = Path(__file__).parent


def squares(count: int, width: int = 160, height: int = 120) -> list[NDArray[np.uint8]]:
    return [picture(width, height, (square_x(n), 40, 32)) for n in range(count)]


def fill(recorder: Recorder, pictures: list[NDArray[np.uint8]], times: list[float]) -> None:
    """Record pictures one after the other, as slowly as the encoder takes them."""
    recorder.start()
    for rgb, seconds in zip(pictures, times, strict=True):
        recorder.write(rgb, seconds)
    assert recorder.stop(20)
    assert recorder.error is None


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_pictures_keep_the_times_at_which_they_were_captured(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(1)
    times = (1000 + np.cumsum(rng.uniform(0.02, 0.4, 25))).tolist()  # nothing like a steady rate
    recorder = Recorder(tmp_path / f"day{suffix}", QUICK, waits=True)
    fill(recorder, squares(25), times)
    found = [float(time) for time in decoded_times(recorder.path)]
    tick = 1e-3 if suffix == ".mkv" else 1e-4
    assert found == pytest.approx([t - times[0] for t in times], abs=tick)
    lit = [np.flatnonzero(rgb[55, :, 1] > 150)[0] for rgb in read_frames(recorder.path)]
    assert lit == pytest.approx([square_x(n) for n in range(25)], abs=2)


def test_times_that_stand_still_or_run_back_do_not_break_a_file(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "day.mp4", QUICK, waits=True)
    fill(recorder, squares(6), [5.0, 5.0, 4.0, 5.04, 5.04, 5.08])
    found = decoded_times(recorder.path)
    assert len(found) == 6
    assert all(a < b for a, b in pairwise(found))
    assert found[-1] - found[0] == pytest.approx(0.08, abs=0.001)


def test_a_clock_that_begins_anew_goes_on_where_it_was(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "day.mp4", QUICK, waits=True)
    fill(recorder, squares(6), [50.0, 50.1, 50.2, 0.0, 0.1, 0.2])
    found = [float(time) for time in decoded_times(recorder.path)]
    assert found == pytest.approx([0, 0.1, 0.2, 0.2, 0.3, 0.4], abs=0.001)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_pixels_that_are_no_squares_stay_so(tmp_path: Path, suffix: str) -> None:
    recorder = Recorder(tmp_path / f"day{suffix}", QUICK, waits=True)
    recorder.start()
    for n, rgb in enumerate(squares(3)):
        recorder.write(rgb, n / 25, Fraction(4, 3))
    assert recorder.stop(20)
    with av.open(str(recorder.path)) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(4, 3)


def test_colours_survive(tmp_path: Path) -> None:
    flat = np.empty((720, 1280, 3), np.uint8)
    flat[:, :, 0], flat[:, :, 1], flat[:, :, 2] = 200, 60, 90
    recorder = Recorder(tmp_path / "red.mp4", QUICK, waits=True)
    fill(recorder, [flat] * 2, [0.0, 0.04])
    with av.open(str(recorder.path)) as container:
        frame = next(container.decode(video=0))
        assert (frame.colorspace, frame.color_range) == (1, 1)  # BT.709, limited
        rgb = frame.to_ndarray(format="rgb24", src_colorspace="ITU709", dst_colorspace="ITU709")
    assert np.abs(rgb[300, 600].astype(int) - [200, 60, 90]).max() <= 4


def test_odd_sizes_and_pictures_that_were_not_yet_converted(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "odd.mp4", QUICK, waits=True)
    recorder.start()
    for n, rgb in enumerate(squares(3, 161, 121)):
        recorder.write(RgbPicture(rgb), n / 25)
    assert recorder.stop(20)
    frames = read_frames(recorder.path)
    assert [frame.shape for frame in frames] == [(120, 160, 3)] * 3


def test_segments(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "day.mp4", QUICK, segment_seconds=1.0, waits=True)
    fill(recorder, squares(70), [n / 25 for n in range(70)])
    assert [path.name for path in recorder.paths] == [f"day-{n:04d}.mp4" for n in (1, 2, 3)]
    assert [len(read_frames(path)) for path in recorder.paths] == [25, 25, 20]
    assert [decoded_times(path)[0] for path in recorder.paths] == [0, 0, 0]


def test_pictures_of_another_size_begin_another_part(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "day.mkv", QUICK, waits=True)
    pictures = squares(4) + squares(3, 96, 128)
    fill(recorder, pictures, [n / 25 for n in range(7)])
    assert [path.name for path in recorder.paths] == ["day.mkv", "day-0002.mkv"]
    assert [len(read_frames(path)) for path in recorder.paths] == [4, 3]


def test_stopping_and_starting_begins_another_part(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "day.mp4", QUICK, source=2, waits=True)
    assert not recorder.running
    recorder.write(squares(1)[0], 0.0)  # goes nowhere
    fill(recorder, squares(3), [0.0, 0.1, 0.2])
    fill(recorder, squares(5), [9.0, 9.1, 9.2, 9.3, 9.4])
    assert [path.name for path in recorder.paths] == ["day-2.mp4", "day-2-0002.mp4"]
    assert [len(read_frames(path)) for path in recorder.paths] == [3, 5]


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    taken = tmp_path / "day.mp4"
    taken.write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists already; --force"):
        Recorder(taken, QUICK)
    later = tmp_path / "day-0002.mp4"
    later.write_bytes(b"mine too")
    (tmp_path / "x").mkdir()
    recorder = Recorder(taken, QUICK, segment_seconds=1.0, waits=True)
    fill(recorder, squares(30), [n / 25 for n in range(30)])
    assert [path.name for path in recorder.paths] == ["day-0001.mp4", "day-0003.mp4"]
    assert later.read_bytes() == b"mine too"
    forced = Recorder(taken, QUICK, waits=True, force=True)
    fill(forced, squares(3), [0.0, 0.1, 0.2])
    assert len(read_frames(taken)) == 3


@pytest.mark.parametrize("name", ["day.avi", "day", "nowhere/day.mp4"])
def test_names_that_cannot_be(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError):
        Recorder(tmp_path / name, QUICK)


def test_an_unknown_encoder_is_told_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown video encoder"):
        Recorder(tmp_path / "day.mp4", VideoSettings(codec="libx265000"))


def test_whoever_hands_pictures_over_never_waits_for_the_encoder(tmp_path: Path) -> None:
    large = np.random.default_rng(0).integers(0, 255, (1080, 1920, 3), np.uint8)
    recorder = Recorder(tmp_path / "day.mp4", QUICK)
    recorder.start()
    slowest = 0.0
    for n in range(24):
        began = time.perf_counter()
        recorder.write(large, n / 60)
        slowest = max(slowest, time.perf_counter() - began)
    assert recorder.dropped >= 12
    assert slowest < 0.5  # an encoder takes far longer for what is left, on any machine of today
    assert recorder.stop(60)
    times = decoded_times(recorder.path)
    assert len(times) == 24 - recorder.dropped


def test_an_error_of_the_encoder_is_kept_and_nobody_hangs(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "day.mp4", VideoSettings(preset="nonsense"), waits=True)
    recorder.start()
    for n in range(20):
        recorder.write(squares(1)[0], n / 25)
    assert recorder.stop(5)
    assert isinstance(recorder.error, ConfigError)


@pytest.mark.parametrize(
    ("size_wh", "preset", "said"),
    [
        ((20_000, 64), "ultrafast", "'libx264' takes no pictures of this size"),
        ((20_000, 64), "nonsense", "does not open with crf 20 and preset 'nonsense'"),
        ((64, 64), "nonsense", "does not open with crf 20 and preset 'nonsense'"),
    ],
)
def test_why_an_encoder_does_not_open(
    tmp_path: Path, size_wh: tuple[int, int], preset: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        Recording(tmp_path / "day.mp4", size_wh, VideoSettings(preset=preset))


def test_an_encoder_that_refuses_leaves_no_empty_file(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "day.mp4", QUICK, waits=True)
    recorder.start()
    recorder.write(squares(1, 1, 1)[0], 0.0)
    assert recorder.stop(5)
    assert isinstance(recorder.error, ConfigError)
    assert list(tmp_path.iterdir()) == []


def test_files_to_be_kept_are_passed_over(tmp_path: Path) -> None:
    kept = tmp_path / "day-0002.mp4"
    kept.write_bytes(b"mine")
    recorder = Recorder(
        *(tmp_path / "day.mp4", QUICK),
        segment_seconds=1.0,
        waits=True,
        force=True,
        keep={os.path.realpath(kept)},
    )
    fill(recorder, squares(30), [n / 25 for n in range(30)])
    assert [path.name for path in recorder.paths] == ["day-0001.mp4", "day-0003.mp4"]
    assert kept.read_bytes() == b"mine"


def test_a_recording_goes_on_after_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(recording: Recording, rgb: NDArray[np.uint8], seconds: float) -> None:
        raise OutputError("the disk is full")

    recorder = Recorder(tmp_path / "day.mp4", QUICK, waits=True)
    with monkeypatch.context() as patch:
        patch.setattr(Recording, "write", full)
        recorder.start()
        recorder.write(squares(1)[0], 0.0)
        until = time.monotonic() + 10
        while recorder.running:
            assert time.monotonic() < until
            time.sleep(0.01)
    assert isinstance(recorder.error, OutputError)
    fill(recorder, squares(3), [1.0, 1.1, 1.2])
    assert recorder.error is None
    assert len(read_frames(recorder.paths[-1])) == 3


def test_nothing_is_taken_once_it_stops_and_another_part_can_begin_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_close, close = threading.Event(), Recording.close

    def late(recording: Recording) -> None:
        may_close.wait(10)
        close(recording)

    monkeypatch.setattr(Recording, "close", late)  # as on a slow disk
    recorder = Recorder(tmp_path / "day.mp4", QUICK, waits=True)
    recorder.start()
    recorder.write(squares(1)[0], 0.0)
    assert not recorder.stop(0.1)
    assert not recorder.running
    for n, rgb in enumerate(squares(20), 1):  # more than may wait
        recorder.write(rgb, n / 25)
    recorder.start()
    assert not recorder.running, "the part before is not finished"
    may_close.set()
    until = time.monotonic() + 10
    while not recorder.running:
        recorder.start()
        assert time.monotonic() < until
    fill(recorder, squares(2), [9.0, 9.1])
    assert [len(read_frames(path)) for path in recorder.paths] == [1, 2]


def test_recorders_end_together(tmp_path: Path) -> None:
    recorders = [Recorder(tmp_path / "day.mp4", QUICK, source=n, waits=True) for n in (1, 2)]
    for recorder in recorders:
        recorder.start()
        recorder.write(squares(1)[0], 0.0)
    assert stop_all(recorders, 10)
    assert [len(read_frames(recorder.paths[0])) for recorder in recorders] == [1, 1]


CHILD = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from squares import picture, square_x
from videogender.config import VideoSettings
from videogender.sinks.record import Recorder

recorder = Recorder(sys.argv[1], VideoSettings(preset="ultrafast"), waits=True)
recorder.start()
for n in range(100_000):  # 25 frames a second of video time, as fast as they are encoded
    recorder.write(picture(160, 120, (square_x(n), 40, 32)), n / 25)
    print(n, flush=True)
"""


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_recording_plays_after_its_program_was_killed(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"day{suffix}"
    command = [sys.executable, "-c", CHILD, str(path), str(TESTS)]
    environment = {**os.environ, "PYTHONPATH": str(TESTS.parent)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as child:
        assert child.stdout is not None
        written = 0
        while written < 200:
            written = int(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    times = decoded_times(path)
    # What is younger than a fragment, and what waited for the encoder, may be lost.
    assert len(times) > 200 - 25 - 8 - 25
    steps = {b - a for a, b in pairwise(times)}
    assert steps == {Fraction(1, 25)}


def test_a_file_plays_while_it_is_being_written(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "day.mp4", (160, 120), QUICK)
    for n, rgb in enumerate(squares(60)):
        recording.write(rgb, n / 25)
    assert len(decoded_times(recording.path)) >= 25
    recording.close()
    recording.close()
    assert len(decoded_times(recording.path)) == 60
