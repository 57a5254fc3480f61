"""Cameras at their interface: a recorded video takes the place of the device.

Real devices take part in no test: `cv2.VideoCapture` reads a file as it reads a camera, and a
folder stands for /dev.
"""

from __future__ import annotations

import os
import threading
import time
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from squares import SquareDetector, square_x, write_video

from videogender.cli.main import main
from videogender.errors import SourceError
from videogender.live.engine import Engine
from videogender.sources import camera, cameras
from videogender.sources.camera import CameraSource, configure, prefers_jpeg, read_capture
from videogender.sources.cameras import find_camera, list_cameras
from videogender.sources.live import UnreachableError

pytestmark = pytest.mark.timed


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with two cameras, the first of which has a second device for its metadata."""
    for number, name, index in ((0, "Built-in: Cam", 0), (1, "Built-in: Cam", 1), (2, "USB", 0)):
        (tmp_path / "dev").mkdir(exist_ok=True)
        (tmp_path / "dev" / f"video{number}").touch()
        about = tmp_path / "sys" / f"video{number}"
        about.mkdir(parents=True)
        (about / "name").write_text(f"{name}\n")
        (about / "index").write_text(f"{index}\n")
    monkeypatch.setattr(cameras, "_DEVICES", tmp_path / "dev")
    monkeypatch.setattr(cameras, "_KNOWN", tmp_path / "sys")
    monkeypatch.setattr(cameras, "_ON_LINUX", True)
    return tmp_path


def test_cameras_are_listed_without_their_second_devices(machine: Path) -> None:
    assert [(each.number, each.name) for each in list_cameras()] == [
        (0, "Built-in: Cam"),
        (2, "USB"),
    ]


@pytest.mark.parametrize(
    ("wanted", "number"), [("0", 0), ("2", 2), ("/dev/video2", 2), ("usb", 2), ("built", 0)]
)
def test_cameras_go_by_number_device_or_name(machine: Path, wanted: str, number: int) -> None:
    assert find_camera(wanted) == number


def test_cameras_go_by_a_link_to_their_device(machine: Path) -> None:
    (machine / "by-id").symlink_to(machine / "dev" / "video2")
    assert find_camera(str(machine / "by-id")) == 2


@pytest.mark.parametrize("wanted", ["7", "/dev/video7", "nobody", "/dev/nothing"])
def test_no_such_camera_lists_those_that_exist(machine: Path, wanted: str) -> None:
    with pytest.raises(SourceError) as caught:
        find_camera(wanted)
    assert str(caught.value) == (
        f"camera {wanted}: no such camera; found here: 0 (Built-in: Cam), 2 (USB)"
    )


def test_permission_denied_names_the_group(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import grp

    group = grp.getgrgid((machine / "dev" / "video2").stat().st_gid).gr_name
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may open everything
    with pytest.raises(SourceError, match=f"permission denied; join the group {group} "):
        find_camera("2")


def recorded(path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Let a video take the place of the camera; the captures that were opened are returned."""
    opened: list[Any] = []

    class Recorded:
        """A file would be through at once."""

        def __init__(self) -> None:
            self._file = cv2.VideoCapture(str(path))

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

        def read(self) -> Any:
            time.sleep(0.02)
            return self._file.read()

    def open_recorded(number: int) -> cv2.VideoCapture:
        opened.append(Recorded())
        return opened[-1]

    monkeypatch.setattr(camera, "open_capture", open_recorded)
    return opened


def test_pictures_of_a_camera_are_rgb_in_order_and_stamped(
    machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = recorded(write_video(tmp_path / "clip.mp4", count=20), monkeypatch)
    source = CameraSource("0")
    began, lefts = time.monotonic(), []
    grabs = source.grabs(threading.Event())
    for grab in islice(grabs, 20):
        assert began <= grab.captured_seconds <= time.monotonic()
        faces = SquareDetector()._find(grab.picture.to_rgb(), (160, 120))
        lefts.append(faces.boxes[0, 0])
    with pytest.raises(UnreachableError, match="camera 0: no more pictures; was it unplugged"):
        next(grabs)
    assert lefts == pytest.approx([square_x(n) for n in range(20)], abs=1)
    assert not opened[0].isOpened()  # released, so that it can be opened anew


def test_an_unplugged_camera_comes_back(
    machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = recorded(write_video(tmp_path / "clip.mp4", count=20), monkeypatch)
    told: list[str] = []
    source = CameraSource("0")
    engine = Engine([source], SquareDetector(), notice=told.append, duration_seconds=2.5)
    engine.run()
    assert len(opened) >= 2
    assert engine.stats()[0].reconnects >= 1
    assert told[:2] == [
        "camera 0: no more pictures; was it unplugged?; trying again",
        "camera 0: is there",
    ]


def test_a_camera_that_does_not_open_may_be_in_use(
    machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded(tmp_path / "missing.mp4", monkeypatch)
    with pytest.raises(UnreachableError, match="in use by another program"):
        next(iter(CameraSource("0").grabs(threading.Event())))


class Driver:
    """A capture that takes what it is asked for, and spoils a picture now and then."""

    def __init__(self, spoilt: set[int] = frozenset(), stamp: float = 0.0) -> None:  # type: ignore[assignment]
        self.asked: list[tuple[int, float]] = []
        self.reads = 0
        self._spoilt, self._stamp = spoilt, stamp

    def set(self, what: int, value: float) -> bool:
        self.asked.append((what, value))
        return True

    def get(self, what: int) -> float:
        return self._stamp * 1e3 if what == cv2.CAP_PROP_POS_MSEC else 0.0

    def read(self) -> tuple[bool, NDArray[np.uint8] | None]:
        self.reads += 1
        if self.reads in self._spoilt:
            return False, None
        return True, np.full((48, 64, 3), (10, 20, 30), np.uint8)


def test_a_spoilt_picture_is_no_loss() -> None:
    driver = Driver(spoilt={2, 3, 7, 20, 21, 22, 23, 24})
    grabs = read_capture(driver, "camera", threading.Event())
    for _ in range(16):
        assert next(grabs).picture.to_rgb()[0, 0].tolist() == [30, 20, 10]
    with pytest.raises(UnreachableError):
        next(grabs)
    assert driver.reads == 24


def test_the_drivers_own_time_is_taken_if_it_makes_sense() -> None:
    stop, now = threading.Event(), time.monotonic()
    for stamp, believed in ((now - 0.05, True), (now - 60, False), (now + 60, False), (0.0, False)):
        grab = next(iter(read_capture(Driver(stamp=stamp), "camera", stop)))
        assert (abs(grab.captured_seconds - stamp) < 1e-3) == believed


@pytest.mark.parametrize(
    ("size_wh", "fps", "jpeg"),
    [(None, 0, False), ((640, 480), 30, False), ((640, 480), 60, True), ((1280, 720), 30, True)],
)
def test_jpeg_is_asked_for_where_a_cable_is_too_slow_without(
    size_wh: tuple[int, int] | None, fps: float, jpeg: bool
) -> None:
    assert prefers_jpeg(size_wh, fps) == jpeg
    driver = Driver()
    configure(driver, size_wh, fps)
    asked = dict(driver.asked)
    assert (asked.get(cv2.CAP_PROP_FOURCC) == cv2.VideoWriter.fourcc(*"MJPG")) == jpeg
    assert asked[cv2.CAP_PROP_BUFFERSIZE] == 1
    assert (cv2.CAP_PROP_FRAME_WIDTH in asked) == (size_wh is not None)
    if jpeg:  # drivers choose sizes by format
        assert driver.asked[0][0] == cv2.CAP_PROP_FOURCC


def test_the_list_says_what_is_not_known(
    machine: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["cameras"]) == 0
    out = capsys.readouterr().out
    assert "0: Built-in: Cam" in out
    assert "modes not known: it does not open" in out
    monkeypatch.setattr(cameras, "_DEVICES", machine / "nowhere")
    assert main(["cameras"]) == 0
    assert capsys.readouterr().out == "no cameras found (no /dev/video*)\n"
