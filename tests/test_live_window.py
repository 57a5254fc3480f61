"""The window, for real, on a virtual display: what it shows, its keys, its closing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ImageGrab
from squares import write_video
from web_run import RUNNING, Run

from videogender.frames import Faces
from videogender.sinks import window
from videogender.sinks.window import why_no_display

pytestmark = pytest.mark.timed

TESTS = Path(__file__).parent

needs_display = pytest.mark.skipif(
    shutil.which("Xvfb") is None or shutil.which("xdotool") is None,
    reason="needs the programs Xvfb and xdotool",
)


@pytest.fixture
def display() -> Iterator[str]:
    """A display of its own, such as `:99`."""
    reading, writing = os.pipe()
    command = ["Xvfb", "-displayfd", str(writing), "-screen", "0", "800x600x24"]
    with subprocess.Popen(command, pass_fds=[writing], stderr=subprocess.DEVNULL) as server:
        os.close(writing)
        try:
            with os.fdopen(reading) as answer:
                yield f":{answer.readline().strip()}"
        finally:
            server.terminate()


@contextmanager
def watching(display: str, folder: Path, *args: str) -> Iterator[subprocess.Popen[str]]:
    environment = {
        **os.environ,
        "DISPLAY": display,
        "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]),
    }
    # The stand-in for the network loads libav, before which OpenCV's windows have to be there.
    code = (
        f"import cv2, runpy; runpy.run_path({str(TESTS / 'run_squares.py')!r}, run_name='__main__')"
    )
    command = [sys.executable, "-c", code, "live", *args]
    with subprocess.Popen(
        command, env=environment, cwd=folder, stderr=subprocess.PIPE, text=True
    ) as child:
        try:
            yield child
        finally:
            child.kill()


def looks_like(display: str, what: Callable[[NDArray[np.uint8]], bool]) -> NDArray[np.uint8]:
    """Wait until the display looks as it should, and return it."""
    until = time.monotonic() + 40
    while True:
        screen = np.asarray(ImageGrab.grab(xdisplay=display).convert("RGB"))
        if what(screen):
            return screen
        assert time.monotonic() < until, "the display never looked so"
        time.sleep(0.1)


def stands_still(display: str) -> None:
    """Wait until the display, below the bar, is the same for half a second."""
    before = None
    until = time.monotonic() + 40
    while True:
        screen = np.asarray(ImageGrab.grab(xdisplay=display))[150:]
        if before is not None and (screen == before).all():
            return
        assert time.monotonic() < until, "the display never stood still"
        before = screen
        time.sleep(0.5)


def press(display: str, key: str) -> None:
    subprocess.run(["xdotool", "key", key], env={**os.environ, "DISPLAY": display}, check=True)


def orange(screen: NDArray[np.uint8]) -> bool:
    """Tell whether something is labelled female: the square is in the left half of the clip."""
    return bool((np.abs(screen.astype(int) - [230, 159, 0]).max(axis=2) < 12).sum() > 50)


@pytest.mark.slow  # a program and a display have to start
@needs_display
def test_the_window_shows_labelled_faces_and_obeys_its_keys(display: str, tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", count=25, size_wh=(480, 320))
    with watching(display, tmp_path, "--file", str(clip), "--loop", "--no-hud") as child:
        looks_like(display, orange)
        press(display, "h")
        looks_like(display, lambda screen: bool((screen[:90, :200].min(axis=2) > 200).sum() > 100))
        press(display, "space")
        stands_still(display)
        press(display, "space")
        looks_like(display, orange)
        press(display, "s")
        until = time.monotonic() + 10
        while not (stills := [*tmp_path.glob("videogender-*.png")]):
            assert time.monotonic() < until
            time.sleep(0.1)
        assert len(stills) == 1
        press(display, "q")
        _, err = child.communicate(timeout=10)
    assert child.returncode == 0
    assert "Font" not in err  # Qt's complaint about its fonts


@pytest.mark.slow  # a program and a display have to start
@needs_display
def test_a_lost_stream_says_so_in_the_window(display: str, tmp_path: Path) -> None:
    from stream_servers import HttpMjpeg

    with HttpMjpeg(size_wh=(480, 320)) as server:
        args = ("--url", server.url, "--timeout-seconds", "2", "--no-hud")
        with watching(display, tmp_path, *args) as child:
            looks_like(display, orange)
            below = np.s_[300:400, 100:400]  # the note
            bright = np.asarray(ImageGrab.grab(xdisplay=display))[below].mean()
            server.stop()
            looks_like(display, lambda screen: bool(screen[below].mean() < 0.8 * bright))
            press(display, "Escape")
            _, err = child.communicate(timeout=10)
        assert child.returncode == 0
        assert "trying again" in err


class StandIn:
    """OpenCV whose windows are only talked about."""

    error = RuntimeError

    def __init__(self) -> None:
        self.windows_wh: list[tuple[int, int]] = []
        self.painted: NDArray[np.uint8] = np.zeros((0, 0, 3), np.uint8)

    def __getattr__(self, name: str) -> Any:
        return 1 if name.isupper() else lambda *args: 1

    def resizeWindow(  # noqa: N802
        self, title: str, width: int, height: int
    ) -> None:
        self.windows_wh.append((width, height))

    def cvtColor(self, rgb: NDArray[np.uint8], how: int) -> NDArray[np.uint8]:  # noqa: N802
        return rgb

    def imshow(self, title: str, bgr: NDArray[np.uint8]) -> None:
        self.painted = bgr


@pytest.mark.parametrize(
    ("sizes_wh", "painted_wh", "windows_wh"),
    [
        # A window is there before the first picture, and changes only where tiles do.
        ([(640, 480)], (640, 480), [(640, 480)]),
        ([(2, 2)], (480, 480), [(640, 480), (480, 480)]),
        ([(3840, 2160)], (3840, 2160), [(640, 480), (1440, 810)]),
        ([(64, 48), (720, 540)], (1440, 540), [(1280, 480), (1440, 540)]),
        ([(720, 540), (64, 48)], (1440, 540), [(1280, 480), (1440, 540)]),
    ],
)
def test_the_window_fits_the_largest_picture_and_the_screen(
    monkeypatch: pytest.MonkeyPatch,
    sizes_wh: list[tuple[int, int]],
    painted_wh: tuple[int, int],
    windows_wh: list[tuple[int, int]],
) -> None:
    class Control(Run):
        paused = False

        def set_paused(self, value: bool) -> None:
            raise AssertionError("nobody presses a key")

        def request_stop(self) -> None:
            return None

    cv2 = StandIn()
    monkeypatch.setattr(window, "why_no_display", lambda: None)
    monkeypatch.setattr(window, "load_opencv", lambda: cv2)
    shown = window.Window(Control(*[RUNNING] * len(sizes_wh)))
    shown.poll()
    for source, (width, height) in enumerate(sizes_wh):
        shown.show(source, np.zeros((height, width, 3), np.uint8), Faces.empty(), 0.0)
        shown.poll()
    assert cv2.painted.shape[1::-1] == painted_wh
    assert cv2.windows_wh == windows_wh


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only X has displays by name")
@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("", "DISPLAY is not set"),
        (":987", "nothing answers at DISPLAY=:987"),
        ("127.0.0.1:987", "nothing answers"),
        ("nonsense", "names no display"),
    ],
)
def test_why_there_is_no_display(monkeypatch: pytest.MonkeyPatch, value: str, why: str) -> None:
    monkeypatch.setenv("DISPLAY", value)
    assert why in (why_no_display() or "")


@needs_display
def test_a_display_that_answers(monkeypatch: pytest.MonkeyPatch, display: str) -> None:
    monkeypatch.setenv("DISPLAY", display)
    assert why_no_display() is None
