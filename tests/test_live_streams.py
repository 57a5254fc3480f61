"""Streams from real servers on this machine: every kind that is taken, lost and found again."""

from __future__ import annotations

import functools
import http.server
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from media import Clip, make_video
from squares import SquareDetector, square_x, write_video
from stream_servers import SIZE_WH, HttpMjpeg, HttpTs, Rtsp, Server, Silent, Udp, Unauthorized

from videogender.config import LiveSettings, RenderSettings, Settings
from videogender.errors import SourceError
from videogender.live.engine import Engine
from videogender.sources.live import Grab, UnreachableError
from videogender.sources.stream import StreamSource

pytestmark = pytest.mark.timed

PLAIN = Settings(render=RenderSettings(style="none", labels=False))


def left_of(grab: Grab) -> float:
    """Tell where the square of a picture begins, -1 where there is none."""
    faces = SquareDetector()._find(grab.picture.to_rgb(), SIZE_WH)
    return float(faces.boxes[0, 0]) if len(faces) else -1.0


def grab(source: StreamSource, count: int, seconds: float = 20.0) -> list[tuple[Grab, float]]:
    """Take the first pictures of a source, each with the time at which it came."""
    stop, taken = threading.Event(), []
    until = time.monotonic() + seconds
    for each in source.grabs(stop):
        taken.append((each, time.monotonic()))
        if len(taken) == count or time.monotonic() > until:
            stop.set()
    return taken


# Transport streams show that a picture is complete by beginning the next one, in the packets and
# again in the parser: two pictures at 25 a second are 80 ms.
@pytest.mark.parametrize(
    ("kind", "most_age"), [(HttpMjpeg, 0.1), (HttpTs, 0.25), (Rtsp, 0.25), (Udp, 0.25)]
)
def test_pictures_come_young_and_in_order(kind: type[Server], most_age: float) -> None:
    with kind() as server:
        taken = grab(StreamSource(server.url, timeout_seconds=5), 40)
        ages = [server.age(left_of(each), came) for each, came in taken]
    assert len(taken) == 40
    assert np.nanmedian(ages[5:]) < most_age
    steps = np.diff([left_of(each) for each, _ in taken])
    forward = steps[steps > -50]  # but for its jumps back to the left
    assert (forward > 0).mean() > 0.9
    stamps = [each.captured_seconds for each, _ in taken]
    assert all(a <= b for a, b in pairwise(stamps))
    assert all(0 <= came - each.captured_seconds < 1.5 for each, came in taken)


def test_rtsp_runs_on_its_one_connection_and_with_the_password() -> None:
    with Rtsp() as server:
        source = StreamSource(server.url, timeout_seconds=5)
        assert len(grab(source, 3)) == 3
        asked = b"".join(server.asked)
    assert b"RTP/AVP/TCP" in asked
    assert source.name == f"rtsp://127.0.0.1:{server.port}/live"


@pytest.mark.slow  # real time passes
def test_a_slow_taker_gets_the_newest_picture_not_the_oldest() -> None:
    """What a decoder cannot keep up with is skipped, and nothing waits in between."""

    class Sleepy(SquareDetector):
        def detect(self, scaled, sizes_wh):  # type: ignore[no-untyped-def]
            time.sleep(0.2)  # five frames
            return super().detect(scaled, sizes_wh)

    ages: list[float] = []

    class Watcher:
        def wants(self, source: int) -> bool:
            return True

        def show(self, source, rgb, faces, captured_seconds) -> None:  # type: ignore[no-untyped-def]
            time.sleep(0.12)  # three frames
            now = time.monotonic()
            row = rgb[55, :, 1] > 150
            if row.any():
                ages.append(server.age(float(np.argmax(row)), now))

        def close(self) -> None:
            pass

    with HttpMjpeg() as server:
        source = StreamSource(server.url, timeout_seconds=5)
        engine = Engine([source], Sleepy(), PLAIN, duration_seconds=4.0)
        engine.run([Watcher()])
    assert len(ages) > 15
    assert np.nanpercentile(ages, 90) < 0.12 + 0.12  # its own time and the picture it waited for
    assert engine.stats()[0].dropped > 20


def test_a_server_that_is_killed_and_started_again() -> None:
    states: list[tuple[str, str]] = []
    told: list[str] = []
    frames_before = 0

    with HttpTs() as server:
        source = StreamSource(server.url.replace("://", "://joe:s3cret@"), timeout_seconds=2)
        engine = Engine([source], SquareDetector(), PLAIN, notice=told.append)
        runner = threading.Thread(target=engine.run)
        runner.start()
        wait_for(lambda: engine.stats()[0].frames > 20)
        server.stop()
        wait_for(lambda: engine.stats()[0].state == "reconnecting")
        states.append((engine.stats()[0].state, engine.stats()[0].message))
        time.sleep(0.7)
        frames_before = engine.stats()[0].frames
        server.start()
        wait_for(lambda: engine.stats()[0].frames > frames_before + 10)
        after = engine.stats()[0]
        engine.request_stop()
        runner.join(5)
    assert after.state == "running"
    assert after.reconnects == 1
    assert states[0][1].endswith("the stream ended; trying again")
    assert any("is there" in line for line in told)
    assert "s3cret" not in repr((states, told, engine.names, engine.stats()))
    assert not runner.is_alive()


def wait_for(what: object, seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not what():  # type: ignore[operator]
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.01)


def test_a_format_change_in_mid_stream() -> None:
    with HttpMjpeg() as server:
        stop, sizes = threading.Event(), []
        source = StreamSource(server.url, timeout_seconds=5)
        for each in source.grabs(stop):
            sizes.append((each.picture.width, each.picture.height))
            assert each.picture.to_rgb().shape[:2] == sizes[-1][::-1]
            server.size_wh = (128, 96) if len(sizes) > 5 else SIZE_WH
            if len(sizes) == 20:
                stop.set()
    assert sizes[0] == SIZE_WH
    assert sizes[-1] == (128, 96)


def test_access_denied_is_final_and_keeps_the_secret() -> None:
    with Unauthorized() as server:
        source = StreamSource(f"http://joe:s3cret@127.0.0.1:{server.port}/x", timeout_seconds=3)
        with pytest.raises(SourceError, match="access denied") as caught:
            grab(source, 1)
    assert not isinstance(caught.value, UnreachableError)
    chain = [caught.value, caught.value.__cause__, caught.value.__context__]
    assert "s3cret" not in "".join(map(repr, chain))  # nor would `--debug` show it


@pytest.mark.parametrize("scheme", ["http", "rtsp", "rtmp", "tcp"])
def test_nobody_there_may_come_yet_and_keeps_the_secret(scheme: str) -> None:
    with Server() as server:
        port = server.port  # free again in a moment
    source = StreamSource(f"{scheme}://joe:s3cret@127.0.0.1:{port}/x", timeout_seconds=3)
    with pytest.raises(UnreachableError) as caught:
        grab(source, 1)
    chain = [caught.value, caught.value.__cause__, caught.value.__context__]
    assert "s3cret" not in "".join(map(repr, chain))


@pytest.mark.parametrize("scheme", ["http", "rtsp"])
def test_silence_is_noticed(scheme: str) -> None:
    with Silent() as server:
        source = StreamSource(f"{scheme}://127.0.0.1:{server.port}/x", timeout_seconds=0.7)
        began = time.monotonic()
        with pytest.raises(UnreachableError, match=r"no answer within 0.7 s|sends nothing"):
            grab(source, 1)
        assert time.monotonic() - began < 4


def test_a_stream_that_falls_silent_is_lost() -> None:
    class Stalls(HttpMjpeg):
        def pictures(self, stop: threading.Event) -> Iterator[np.ndarray]:
            for number, array in enumerate(super().pictures(stop)):
                if number == 20:
                    stop.wait()
                yield array

    with Stalls() as server, pytest.raises(UnreachableError, match="no answer within 1 s"):
        grab(StreamSource(server.url, timeout_seconds=1), 100)


def test_libav_that_lacks_a_protocol_says_what_to_do() -> None:
    with pytest.raises(SourceError) as caught:
        grab(StreamSource("srt://127.0.0.1:9?passphrase=s3cret123456", timeout_seconds=1), 1)
    if not isinstance(caught.value, UnreachableError):  # else this libav speaks SRT
        assert "let another program relay it" in str(caught.value)
    assert "s3cret" not in str(caught.value)


@contextmanager
def folder_served(folder: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_hls_plays_at_its_own_speed_to_its_end(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", count=50)
    with av.open(str(clip)) as read:
        options = {"hls_time": "1", "hls_list_size": "0"}
        with av.open(str(tmp_path / "live.m3u8"), "w", format="hls", options=options) as write:
            stream = write.add_stream_from_template(read.streams.video[0])
            for packet in read.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    write.mux(packet)
    with folder_served(tmp_path) as url:
        began = time.monotonic()
        taken = grab(StreamSource(f"{url}/live.m3u8", timeout_seconds=5), 1000)
        assert time.monotonic() - began > 1.9  # 50 frames at 25 a second
    assert [left_of(each) for each, _ in taken] == pytest.approx(
        [square_x(n) for n in range(50)], abs=2
    )


def test_a_file_on_a_server_plays_at_its_own_speed_and_ends(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", count=25)
    with folder_served(tmp_path) as url:
        source = StreamSource(f"{url}/clip.mp4", timeout_seconds=5)
        engine = Engine([source], SquareDetector(), PLAIN)
        began = time.monotonic()
        engine.run()
    assert time.monotonic() - began > 0.9
    assert engine.stats()[0].state == "ended"
    assert engine.stats()[0].frames + engine.stats()[0].dropped == 25
    assert engine.stats()[0].frames > 15


def test_pixels_that_are_no_squares_are_told(tmp_path: Path) -> None:
    make_video(tmp_path / "clip.mp4", Clip(frames=3, pixel_aspect=Fraction(4, 3)))
    with folder_served(tmp_path) as url:
        taken = grab(StreamSource(f"{url}/clip.mp4", timeout_seconds=5), 3)
    assert {each.pixel_aspect for each, _ in taken} == {Fraction(4, 3)}


def test_a_playlist_cannot_lead_to_files_of_this_machine(tmp_path: Path) -> None:
    secret = write_video(tmp_path / "secret.mp4", count=25)
    (tmp_path / "www").mkdir()
    text = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{secret}\n#EXT-X-ENDLIST\n"
    (tmp_path / "www" / "live.m3u8").write_text(text)
    with folder_served(tmp_path / "www") as url, pytest.raises(SourceError):
        assert not grab(StreamSource(f"{url}/live.m3u8", timeout_seconds=2), 1)


def test_giving_up(tmp_path: Path) -> None:
    with Server() as server:
        port = server.port
    settings = Settings(live=LiveSettings(give_up_after_seconds=1.0))
    source = StreamSource(f"http://127.0.0.1:{port}/x", timeout_seconds=1)
    with pytest.raises(SourceError, match=r"given up after 1 s"):
        Engine([source], SquareDetector(), settings).run()


@pytest.mark.slow  # another program has to start and to encode
@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs the program ffmpeg")
@pytest.mark.parametrize(
    ("scheme", "options"), [("rtmp", ["-f", "flv", "-listen", "1"]), ("rtp", ["-f", "rtp_mpegts"])]
)
def test_streams_of_ffmpeg(tmp_path: Path, scheme: str, options: list[str]) -> None:
    clip = write_video(tmp_path / "clip.mp4", count=50)
    with Server() as server:
        url = f"{scheme}://127.0.0.1:{server.port}" + ("/live/x" if scheme == "rtmp" else "")
    encode = ["-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "10"]
    command = ["ffmpeg", "-loglevel", "error", "-re", "-stream_loop", "9", "-i", str(clip)]
    settings = Settings(live=LiveSettings(give_up_after_seconds=15))
    with subprocess.Popen([*command, *encode, *options, url]) as program:
        try:
            source = StreamSource(url, timeout_seconds=5)
            engine = Engine([source], SquareDetector(), settings, duration_seconds=12)
            runner = threading.Thread(target=engine.run)
            runner.start()
            wait_for(lambda: engine.stats()[0].frames >= 30)  # until it listens, it is tried again
            engine.request_stop()
            runner.join(5)
        finally:
            program.kill()
    assert engine.stats()[0].latency_ms_p50 < 500
