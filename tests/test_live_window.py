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

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ImageGrab
from squares import write_video

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
        with watching(display, tmp_path, "--url", server.url, "--timeout-seconds", "2") as child:
            looks_like(display, orange)
            bright = np.asarray(ImageGrab.grab(xdisplay=display))[200:300, 100:400].mean()
            server.stop()
            looks_like(display, lambda screen: bool(screen[200:300, 100:400].mean() < 0.8 * bright))
            press(display, "Escape")
            _, err = child.communicate(timeout=10)
        assert child.returncode == 0
        assert "trying again" in err


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
