"""Live video: newest pictures only, encoded once, and no viewer who holds up the rest."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from squares import SquareDetector, write_video
from web_run import (
    RUNNING,
    Run,
    Watcher,
    ask,
    brightness,
    grey,
    show,
    stuck_viewer,
    until,
    watching,
)

from videogender.frames import Faces
from videogender.live.engine import Engine
from videogender.sinks.web import WebScreen, feed
from videogender.sources.playback import Playback

pytestmark = pytest.mark.timed


@pytest.fixture
def screen() -> Iterator[WebScreen]:
    with WebScreen(Run(RUNNING, RUNNING, RUNNING)) as screen:
        yield screen


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the sizes of all pictures that are encoded."""
    sizes: list[int] = []
    real = feed.encode_jpeg

    def counted(rgb: NDArray[np.uint8]) -> bytes:
        jpeg = real(rgb)
        sizes.append(len(jpeg))
        return jpeg

    monkeypatch.setattr(feed, "encode_jpeg", counted)
    return sizes


def test_pictures_arrive_as_they_are_shown(screen: WebScreen) -> None:
    with watching(screen, "/video/1") as [watcher]:
        until(lambda: screen.wants(1))
        for value in (10, 200, 90):
            show(screen, grey(value), source=0)  # of no interest to this viewer
            show(screen, grey(value), source=1)
            found = watcher.read()
            assert found
            source, jpeg = found
            assert source == 1
            assert Image.open(BytesIO(jpeg)).size == (64, 48)
            assert brightness(jpeg) == pytest.approx(value, abs=2)


def test_pictures_say_when_they_were_captured(screen: WebScreen) -> None:
    with watching(screen, "/video/0") as [watcher]:
        until(lambda: screen.wants(0))
        screen.show(0, grey(10), Faces.empty(), time.monotonic() - 7.0)
        assert watcher.read()
        assert float(watcher.headers["x-timestamp"]) == pytest.approx(time.time() - 7.0, abs=2)


def test_colours_are_those_of_the_frame(screen: WebScreen) -> None:
    frame = np.zeros((64, 64, 3), np.uint8)
    frame[:, :32] = (230, 20, 20)
    frame[:, 32:] = (20, 20, 230)
    with watching(screen, "/video/0") as [watcher]:
        until(lambda: screen.wants(0))
        show(screen, frame)
        found = watcher.read()
        assert found
        seen = np.asarray(Image.open(BytesIO(found[1]))).astype(int)
        assert np.abs(seen[:, 4:28] - frame[:, 4:28]).max() < 12
        assert np.abs(seen[:, 36:60] - frame[:, 36:60]).max() < 12


@pytest.mark.parametrize(
    ("size_wh", "shown_wh"),
    [((1280, 720), (1280, 720)), ((3840, 2160), (1280, 720)), ((900, 2560), (450, 1280))],
)
def test_large_frames_are_made_smaller(size_wh: tuple[int, int], shown_wh: tuple[int, int]) -> None:
    assert Image.open(BytesIO(feed.encode_jpeg(grey(90, size_wh)))).size == shown_wh


def test_one_stream_carries_all_sources(screen: WebScreen) -> None:
    with watching(screen, "/video") as [watcher]:
        until(lambda: screen.wants(2))
        seen: dict[int, int] = {}
        for source, value in enumerate((40, 120, 220)):
            show(screen, grey(value), source)
        while len(seen) < 3:
            found = watcher.read()
            assert found
            seen[found[0]] = brightness(found[1])
        assert [seen[i] for i in range(3)] == pytest.approx([40, 120, 220], abs=2)


def test_sources_share_an_encoder_that_cannot_keep_up(
    screen: WebScreen, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow_encode(rgb: NDArray[np.uint8], real: Callable[..., bytes] = feed.encode_jpeg) -> bytes:
        time.sleep(0.02)
        return real(rgb)

    monkeypatch.setattr(feed, "encode_jpeg", slow_encode)
    counts = [0, 0, 0]

    def read_on(watcher: Watcher) -> None:
        while found := watcher.read():
            counts[found[0]] += 1

    with watching(screen, "/video/0", "/video/1", "/video/2") as watchers:
        until(lambda: all(map(screen.wants, range(3))))
        readers = [threading.Thread(target=read_on, args=(watcher,)) for watcher in watchers]
        for reader in readers:
            reader.start()
        while sum(counts) < 45:
            for source in range(3):
                show(screen, grey(90), source)
            time.sleep(0.001)
        screen.close()
        for reader in readers:
            reader.join()
    assert min(counts) >= 10


def test_a_slow_viewer_sees_every_source_in_turn() -> None:
    """Others who are quicker renew one source again and again, which must not be all it gets."""

    async def scenario() -> list[int]:
        pictures = feed.Feed(2)
        pictures.start(asyncio.get_running_loop())
        got = []
        try:
            with feed.Viewer(pictures, (0, 1)) as slow, feed.Viewer(pictures, (0,)) as quick:
                for _ in range(12):
                    pictures.offer(1, grey(0), 0.0)
                    for _ in range(4):
                        pictures.offer(0, grey(0), 0.0)
                        await quick.next()
                    await asyncio.sleep(0.02)  # for the encoder
                    found = await slow.next()
                    assert found
                    got.append(found.source)
        finally:
            pictures.close()
        return got

    got = asyncio.run(asyncio.wait_for(scenario(), 10))
    assert min(got.count(0), got.count(1)) >= 4


def test_nothing_is_drawn_while_nobody_looks(screen: WebScreen, encoded: list[int]) -> None:
    assert not screen.wants(0)
    for value in range(20):
        show(screen, grey(value))
    with watching(screen, "/video/0") as [watcher]:
        until(lambda: screen.wants(0))
        assert [screen.wants(i) for i in range(3)] == [True, False, False]
        show(screen, grey(77))
        found = watcher.read()
        assert found
        assert brightness(found[1]) == 77  # not one from before anybody looked
    until(lambda: not screen.wants(0))
    show(screen, grey(10))
    time.sleep(0.1)
    assert len(encoded) == 1
    with watching(screen, "/video/0") as [watcher]:
        until(lambda: screen.wants(0))
        time.sleep(0.1)
        show(screen, grey(33))
        found = watcher.read()
        assert found
        assert brightness(found[1]) == 33  # neither the last one that was seen, nor the one after


def test_whoever_comes_later_sees_what_is_on_now(screen: WebScreen, encoded: list[int]) -> None:
    with watching(screen, "/video/0") as [first]:
        until(lambda: screen.wants(0))
        show(screen, grey(150))
        seen = first.read()
        with watching(screen, "/video/0") as [second]:
            assert second.read() == seen
    assert len(encoded) == 1


def test_a_source_that_stands_still_is_shown_again_to_whoever_comes_later(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", count=50)
    engine = Engine([Playback(clip, loop=True)], SquareDetector())
    with WebScreen(engine) as screen:
        runner = threading.Thread(target=engine.run, args=([screen],))
        runner.start()
        until(lambda: engine.stats()[0].frames > 3, 30)
        engine.set_paused(True)
        for _ in range(3):  # each comes after the one before has gone
            with watching(screen, "/video/0") as [watcher]:
                found = watcher.read()
                assert found
                picture = np.asarray(Image.open(BytesIO(found[1])).convert("L"))
                assert picture.shape == (120, 160)
                assert picture[45:65].max() > 200  # the square
            until(lambda: not screen.wants(0))
        assert engine.stats()[0].state == "paused"
        engine.request_stop()
        runner.join(10)
    assert not runner.is_alive()


def test_two_viewers_share_each_picture(screen: WebScreen, encoded: list[int]) -> None:
    with watching(screen, "/video/0", "/video/0") as [one, other]:
        until(lambda: b"web_viewers 2" in ask(screen, "/metrics").body)
        for value in range(20, 220, 20):
            show(screen, grey(value))
            found = one.read()
            assert found
            assert brightness(found[1]) == value
            assert other.read() == found
    assert len(encoded) == 10


def test_a_viewer_who_pauses_goes_on_with_the_newest(screen: WebScreen) -> None:
    rng = np.random.default_rng(0)
    with watching(screen, "/video/0") as [watcher]:
        until(lambda: screen.wants(0))
        for value in range(200):
            noise = rng.integers(0, 256, (240, 320, 3), dtype=np.uint8)
            show(screen, np.where(noise > 250, noise, np.uint8(value)))
            time.sleep(0.002)
        values: list[int] = []
        while not values or values[-1] < 195:
            found = watcher.read()
            assert found
            values.append(brightness(found[1]))
        assert values == sorted(values)


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's own figures")
def test_a_viewer_who_never_reads_costs_nothing(screen: WebScreen, encoded: list[int]) -> None:
    """Frames worth 150 MB of JPEG go by while one viewer reads and three do not."""
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (480, 640, 3), dtype=np.uint8) for _ in range(4)]
    stuck = [stuck_viewer(screen, path) for path in ("/video/0", "/video/0", "/video")]
    try:
        until(lambda: b"web_viewers 3" in ask(screen, "/metrics").body)

        def go_by(count: int) -> list[float]:
            taken = []
            for i in range(count):
                before = time.perf_counter()
                show(screen, noise[i % 4])
                taken.append(time.perf_counter() - before)
                time.sleep(0.002)
            return taken

        go_by(100)
        settled, size, count = _resident_bytes(), encoded[0], len(encoded)
        assert size > 200_000
        assert count < 20  # as many as the kernel's buffers hold, then no more
        taken = go_by(600)
        assert len(encoded) == count
        assert _resident_bytes() - settled < 16 * 2**20
        assert np.median(taken) < 0.001
        # A viewer who does read is served meanwhile.
        with watching(screen, "/video/0") as [watcher]:
            show(screen, grey(30))
            for _ in range(3):  # the picture that was on before, the frame that was, and this
                found = watcher.read()
                assert found
                if (value := brightness(found[1])) == 30:
                    break
            assert value == 30
        go_by(20)
    finally:
        for viewer in stuck:
            viewer.close()
    until(lambda: not screen.wants(0))
    with watching(screen, "/video/0") as [watcher]:  # what waited for them is not shown to others
        until(lambda: screen.wants(0))
        time.sleep(0.1)
        show(screen, grey(222))
        found = watcher.read()
        assert found
        assert brightness(found[1]) == 222


def test_it_ends_within_two_seconds_whoever_looks() -> None:
    screen = WebScreen(Run())
    stuck = stuck_viewer(screen)
    with stuck, watching(screen, "/video/0", "/video") as watchers:
        until(lambda: b"web_viewers 3" in ask(screen, "/metrics").body)
        noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
        ends: list[bool] = []

        def read_on(watcher: Watcher) -> None:
            while watcher.read():
                pass
            ends.append(True)

        readers = [threading.Thread(target=read_on, args=(watcher,)) for watcher in watchers]
        for reader in readers:
            reader.start()
        for _ in range(40):  # fills what lies between us and the one who does not read
            show(screen, noise)
            time.sleep(0.01)
        before = time.monotonic()
        screen.close()
        assert time.monotonic() - before < 2
        for reader in readers:
            reader.join(5)
        assert ends == [True, True]  # told that it is over, not cut off
    with pytest.raises(OSError, match="refused"):
        ask(screen, "/healthz")
    assert not screen.wants(0)
    show(screen, noise)
    screen.close()
    left = {thread.name for thread in threading.enumerate()}
    assert not any(name.startswith("videogender-web") for name in left)


def test_too_many_visitors_are_turned_away_and_come_back(screen: WebScreen) -> None:
    crowd = [stuck_viewer(screen) for _ in range(63)]
    try:
        until(lambda: screen.wants(0))
        until(lambda: ask(screen, "/healthz").status == 503)
        assert b"camera" not in ask(screen, "/healthz").body
    finally:
        for viewer in crowd:
            viewer.close()
    until(lambda: ask(screen, "/healthz").status == 200)


def test_whoever_asks_for_nothing_does_not_keep_others_out(screen: WebScreen) -> None:
    parts = urllib.parse.urlsplit(screen.url)
    address = (parts.hostname, parts.port)
    with ExitStack() as stack, watching(screen, "/video/0"):
        for said in [b""] * 35 + [b"GET / HT"] * 35:
            stack.enter_context(socket.create_connection(address)).sendall(said)
        until(lambda: ask(screen, "/healthz").status == 503)
        until(lambda: ask(screen, "/healthz").status == 200, 10)
        assert screen.wants(0), "whoever watches stays"
