"""The parts of a live run by themselves: hand-off, figures, clocks, outlooks, tiles, addresses."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from videogender.config import LabelSettings, TrackSettings
from videogender.errors import ConfigError
from videogender.frames import Faces
from videogender.live.handoff import Bell, Newest
from videogender.live.hud import draw_hud, draw_note, lines_of
from videogender.live.meter import Latencies, Rate
from videogender.live.stats import LiveStats
from videogender.live.tiling import Grid
from videogender.render import Canvas
from videogender.sources.address import redacted, scheme_of
from videogender.sources.live import Pacer
from videogender.sources.stream import Arrivals
from videogender.tracking.live import Follower

pytestmark = pytest.mark.timed


def test_the_slot_keeps_the_newest_and_counts_the_rest() -> None:
    slot: Newest[int] = Newest(Bell())
    assert [slot.put(n) for n in range(5)] == [False, True, True, True, True]
    assert slot.take() == 4
    assert slot.take() is None
    assert slot.put(5) is False


def test_a_waiting_slot_loses_nothing() -> None:
    slot: Newest[int] = Newest(Bell(), waits=True)
    dropped: list[bool] = []
    giver = threading.Thread(target=lambda: dropped.extend(slot.put(n) for n in range(20)))
    giver.start()
    taken: list[int] = []
    while len(taken) < 20:
        item = slot.take()
        if item is not None:
            taken.append(item)
        time.sleep(0.001)
    giver.join(5)
    assert taken == list(range(20))
    assert not any(dropped)


def test_closing_lets_a_waiting_giver_go() -> None:
    slot: Newest[int] = Newest(Bell(), waits=True)
    slot.put(1)
    giver = threading.Thread(target=slot.put, args=(2,))
    giver.start()
    slot.close()
    giver.join(2)
    assert not giver.is_alive()
    assert slot.take() is None


@given(st.lists(st.floats(1e-3, 20), min_size=1, max_size=300))
def test_percentiles_of_latencies(values: list[float]) -> None:
    latencies = Latencies()
    for value in values:
        latencies.add(value)
    recent = np.percentile(values[-120:], [50, 95]) * 1e3
    assert latencies.recent_ms(50, 95) == pytest.approx(recent.tolist())
    # Over a whole run the order statistic is known to the width of a bin.
    exact = np.percentile(values, [50, 95], method="inverted_cdf") * 1e3
    assert latencies.overall_ms(50, 95) == pytest.approx(exact.tolist(), rel=0.031)


def test_percentiles_of_nothing_are_unknown() -> None:
    assert np.isnan(Latencies().recent_ms(50, 95)).all()
    assert np.isnan(Latencies().overall_ms(50)).all()


def test_a_rate_is_that_of_the_last_seconds_and_falls_when_nothing_comes() -> None:
    rate = Rate()
    for n in range(100):
        rate.tick(n / 10)
    for n in range(100):
        rate.tick(10 + n / 25)
    assert rate.read(14) == pytest.approx(25, rel=0.03)
    assert rate.read(15) < 15
    assert rate.read(17) == 0


def stamps(pts: list[float | None], arrivals: list[float]) -> list[float]:
    clock = Arrivals()
    return [clock.stamp(*each) for each in zip(pts, arrivals, strict=True)]


def test_capture_times_do_not_shake_as_arrivals_do() -> None:
    rng = np.random.default_rng(0)
    pts = np.arange(200) / 25
    arrivals = np.maximum.accumulate(100 + pts + rng.exponential(0.03, 200))
    times = stamps(pts.tolist(), arrivals.tolist())
    assert (np.array(times) <= arrivals).all()
    steady = np.diff(times)[50:]
    assert np.abs(steady - 0.04).max() < 0.01
    assert np.abs(np.diff(arrivals)[50:] - 0.04).max() > 0.05  # what they were made from


def test_a_backlog_counts_as_latency() -> None:
    # The receiver stalls for a second; what had waited comes at once, and is that much older.
    pts = np.arange(100) / 25
    arrivals = 10 + pts
    arrivals[50:75] = arrivals[74]
    clock = Arrivals()
    late = [clock.stamp(*each) and clock.late_seconds for each in zip(pts, arrivals, strict=True)]
    assert late[50] == pytest.approx(24 / 25, abs=0.01)
    assert late[-1] == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize(
    "pts",
    [
        [None] * 20,
        [0.0] * 20,
        [1e6 - n / 25 for n in range(20)],  # backward
        [n / 25 + (95443.7 if n < 10 else 0) for n in range(20)],  # a 33-bit counter wraps
        [n / 25 + (0 if n < 10 else 5000) for n in range(20)],  # an encoder was started anew
    ],
)
def test_bad_timestamps_do_no_harm(pts: list[float | None]) -> None:
    arrivals = [50 + n / 25 for n in range(20)]
    times = stamps(pts, arrivals)
    assert times == pytest.approx(arrivals, abs=0.002)


@given(st.lists(st.tuples(st.floats(-1e5, 1e5) | st.none(), st.floats(0, 2)), max_size=50))
def test_capture_times_never_run_backward_nor_ahead(
    steps: list[tuple[float | None, float]],
) -> None:
    clock, now, before = Arrivals(), 0.0, -np.inf
    for pts, passed in steps:
        now += passed
        stamp = clock.stamp(pts, now)
        assert before <= stamp <= now
        before = stamp


def test_the_pacer_waits_for_what_is_early_and_not_for_what_is_late() -> None:
    pacer, stop = Pacer(), threading.Event()
    began = time.monotonic()
    for pts in (5.0, 5.05, 5.1):
        pacer.wait(pts, stop)
    assert 0.09 < time.monotonic() - began < 0.6
    time.sleep(0.4)  # whoever takes the frames was busy
    late = time.monotonic()
    pacer.wait(5.15, stop)
    assert time.monotonic() - late < 0.04
    pacer.wait(5.2, stop)  # and goes on at its own speed, without making up for lost time
    assert 0.03 < time.monotonic() - late < 0.4


def test_the_pacer_does_not_wait_for_a_clock_that_jumps() -> None:
    pacer, stop = Pacer(5.0), threading.Event()
    began = time.monotonic()
    for pts in (10.0, 3610.0, 3610.1, 20.0, 20.1):
        pacer.wait(pts, stop)
    assert 0.19 < time.monotonic() - began < 1


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://cam.local:554/live", "rtsp://cam.local:554/live"),
        ("rtsp://joe:s3cret@cam.local:554/live", "rtsp://cam.local:554/live"),
        ("rtsp://joe@cam.local/live", "rtsp://cam.local/live"),
        ("http://cam/video.mjpg?user=joe&pass=s3cret", "http://cam/video.mjpg?..."),
        ("http://cam/a#s3cret", "http://cam/a?..."),
        ("rtsp://joe:s3cret@joe:s3cret@cam/live", "rtsp://cam/live"),
        ("rtsp://joe:s3c/ret@cam/live", "rtsp://...cam/live"),
        ("rtsp://joe:s3c?ret@cam/live", "rtsp://...cam/live"),
        ("rtsp://joe:s3c#ret@cam:8554/live", "rtsp://...cam:8554/live"),
        ("http://cam/x?mail=joe@s3cret.org", "http://...s3cret.org"),
        ("srt://cam:9000?passphrase=s3cret", "srt://cam:9000?..."),
        (
            "rtsp://cam/user=joe_password=s3_cret_channel=1_stream=0.sdp",
            "rtsp://cam/user=..._password=..._channel=1_stream=0.sdp",
        ),
        (
            "rtsp://cam/User=joe&Pwd=s3cret&channel=2?real",
            "rtsp://cam/User=...&Pwd=...&channel=2?...",
        ),
        ("rtsp://cam/pass=s3cret/ch1", "rtsp://cam/pass=.../ch1"),
        ("rtsp://cam/user=joe_password=_channel=1", "rtsp://cam/user=..._password=..._channel=1"),
        ("rtsp://cam/user=joe_password=s3@cret_channel=1", "rtsp://..._channel=1"),
    ],
)
def test_credentials_are_taken_out_of_addresses(address: str, shown: str) -> None:
    assert redacted(address) == shown


@given(
    user=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1),
    secret=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1),
)
def test_no_password_survives_whatever_marks_it_holds(user: str, secret: str) -> None:
    # What follows the last @ is the host, whose name no password is a part of here.
    assert redacted(f"rtsp://{user}:{secret}@host/path").endswith(("//host/path", "//...host/path"))


@pytest.mark.parametrize("address", ["file:///etc/passwd", "clip.mp4", "rtsp://", "concat:a|b", ""])
def test_only_addresses_of_streams_are_taken(address: str) -> None:
    with pytest.raises(ConfigError, match="--url"):
        scheme_of(address)


def test_a_refused_address_shows_no_credentials() -> None:
    with pytest.raises(ConfigError) as caught:
        scheme_of("ftp://joe:s3cret@host/x")
    assert "s3cret" not in str(caught.value)


def one_face(x: float, score: float = 0.9) -> Faces:
    box = np.array([[x, 50, x + 60, 110]], np.float32)
    return Faces(box, np.array([score], np.float32), np.array([0.95], np.float32))


def followed(speed: float, looks: int = 20) -> tuple[Follower, NDArray[np.float32]]:
    follower = Follower(TrackSettings(), LabelSettings(), 0.5)
    for n in range(looks):
        shown = follower.look(one_face(100 + speed * n / 10), n / 10)
    return follower, shown.boxes


def test_an_outlook_moves_faces_on_as_they_moved() -> None:
    follower, _ = followed(80.0)
    outlook = follower.outlook(one_face(100 + 160), 2.0)
    at_look = outlook.at(2.0)
    assert at_look.boxes == pytest.approx(one_face(260).boxes)  # seen is shown where it was seen
    later = outlook.at(2.1).boxes
    assert later[0, 0] == pytest.approx(268, abs=1.5)
    assert outlook.at(1.9).boxes == pytest.approx(at_look.boxes)  # the past is not invented
    # The same as the follower itself says, which a test elsewhere holds to the truth.
    assert later == pytest.approx(follower.skip(2.1).boxes, abs=3)
    assert outlook.at(2.1).boxes == pytest.approx(later)  # and nothing was changed by asking


def test_an_outlook_does_not_run_away_nor_keep_what_is_lost() -> None:
    follower, _ = followed(80.0)
    outlook = follower.outlook(one_face(260), 2.0)
    assert outlook.at(60.0).boxes[0, 0] < 360
    missed = follower.outlook(Faces.empty(), 2.1)
    assert missed.at(2.15).predicted.tolist() == [True]
    assert len(missed.at(2.5)) == 0


def test_raising_the_threshold_ends_weaker_faces_only() -> None:
    follower = Follower(TrackSettings(), LabelSettings(), 0.5)
    strong, weak = one_face(100, 0.95), one_face(300, 0.6)
    both = Faces(
        np.concatenate([strong.boxes, weak.boxes]),
        np.concatenate([strong.scores, weak.scores]),
        np.concatenate([strong.female, weak.female]),
    )
    for n in range(5):
        assert len(follower.look(both, n / 10)) == (2 if n >= 2 else 0)
    before = follower.look(both, 0.5).tracks.tolist()
    follower.set_face_threshold(0.8)
    after = follower.look(both, 0.6)
    assert after.tracks.tolist() == before[:1]
    follower.set_face_threshold(0.5)
    for n in range(4):
        shown = follower.look(both, 0.7 + n / 10)
    assert sorted(shown.tracks.tolist()) == [1, 3]  # who comes back is somebody new


@pytest.mark.parametrize(
    ("count", "columns", "rows"), [(1, 1, 1), (2, 2, 1), (3, 2, 2), (4, 2, 2), (5, 3, 2)]
)
def test_tiles_hold_their_pictures_whole_and_apart(count: int, columns: int, rows: int) -> None:
    grid = Grid(count, (64, 48))
    assert (grid.columns, grid.rows) == (columns, rows)
    whole = np.full((grid.size_wh[1], grid.size_wh[0], 3), 7, np.uint8)
    for position in range(count):
        grid.put(whole, position, np.full((48, 64, 3), 50 + position, np.uint8))
    for position in range(count):
        assert (grid.tile(whole, position) == 50 + position).all()
    if count < columns * rows:
        assert (grid.tile(whole, count) == 7).all()


def test_a_picture_of_another_shape_keeps_it() -> None:
    grid = Grid(1, (100, 100))
    whole = np.full((100, 100, 3), 7, np.uint8)
    grid.put(whole, 0, np.full((50, 100, 3), 200, np.uint8))
    lit = (whole[:, :, 0] == 200).all(axis=1)
    assert np.flatnonzero(lit).tolist() == list(range(25, 75))
    assert (whole[~lit] == 0).all()


def test_many_large_tiles_fit_a_screen() -> None:
    wide, high = Grid(9, (3840, 2160)).size_wh
    assert wide <= 1920
    assert high <= 1080


FIGURES = LiveStats(
    "camera 0", "running", "", 29.97, 29.5, 41.2, 63.0, 3, 100, 4, 2, 1, 1, 0, "cpu"
)


def test_the_hud_says_all_that_it_should_and_leaves_the_rest_alone() -> None:
    text = " | ".join(lines_of(FIGURES))
    for part in ("camera 0", "30.0 fps in", "29.5 out", "3 dropped", "41 ms", "p95 63 ms", "cpu"):
        assert part in text
    assert "4 faces: 2 female, 1 male, 1 unsure" in text
    assert "came back once" in lines_of(replace(FIGURES, reconnects=1))
    assert "came back 2 times" in lines_of(replace(FIGURES, reconnects=2))
    unknown = replace(FIGURES, latency_ms_p50=float("nan"), latency_ms_p95=float("nan"))
    assert "nan" not in " ".join(lines_of(unknown))
    array = np.full((480, 640, 3), 120, np.uint8)
    draw_hud(Canvas.from_rgb(array), FIGURES)
    changed = (array != 120).any(axis=2)
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    assert rows[0] == columns[0] == 0
    assert rows[-1] < 120
    assert columns[-1] < 420


def test_a_note_darkens_the_picture_and_breaks_its_lines() -> None:
    array = np.full((120, 160, 3), 200, np.uint8)
    draw_note(Canvas.from_rgb(array), "reconnecting: rtsp://host/path: connection refused; again")
    assert array[0, 0, 0] < 110
    bright = np.flatnonzero((array > 150).any(axis=(1, 2)))
    assert bright[-1] - bright[0] > 25  # more than one line
    gaps = [b - a for a, b in pairwise(np.flatnonzero((array > 150).any(axis=(0, 2))).tolist())]
    assert max(gaps) < 20  # spread over the width, nothing cut off at an edge
