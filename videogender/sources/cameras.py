"""The cameras of this machine: which there are, why they may not open, and the modes they take."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videogender.errors import ConfigError, SourceError

__all__ = ["Camera", "Mode", "find_camera", "list_cameras", "open_capture", "probe_modes"]

_DEVICES = Path("/dev")
_KNOWN = Path("/sys/class/video4linux")
_SIZES_WH = ((640, 480), (1280, 720), (1920, 1080), (3840, 2160))
_ON_LINUX = sys.platform.startswith("linux")
_MOST_NUMBERS = 8  # tried where the system has no list


@dataclass(frozen=True, slots=True)
class Camera:
    """A camera of this machine.

    Attributes:
        number: N of /dev/videoN, or its place in the system's order.
        name: what the driver calls it, or empty.
        path: its device file, or None where there is none.
        problem: why it cannot be opened, or empty.
    """

    number: int
    name: str
    path: Path | None
    problem: str = ""

    def __str__(self) -> str:
        return f"{self.number} ({self.name})" if self.name else str(self.number)


@dataclass(frozen=True, slots=True)
class Mode:
    """A mode that a camera took when it was asked for it.

    Attributes:
        width: in pixels.
        height: in pixels.
        fps: frames a second that the driver promises; 0 if it does not say.
        format: its pixel format, a code of four letters such as MJPG.
    """

    width: int
    height: int
    fps: float
    format: str


def list_cameras() -> list[Camera]:
    """Return the cameras of this machine, as far as the system tells.

    On Linux every one is known without being opened; elsewhere only those numbers that open.
    """
    if _ON_LINUX:
        numbers = sorted(
            int(path.name[5:]) for path in _DEVICES.glob("video*") if path.name[5:].isdigit()
        )
        return [c for number in numbers if (c := _linux_camera(number)) is not None]
    found = []
    for number in range(_MOST_NUMBERS):
        capture = open_capture(number)
        if capture is None or not capture.isOpened():
            break
        capture.release()
        found.append(Camera(number, "", None))
    return found


def _linux_camera(number: int) -> Camera | None:
    """Describe /dev/videoN; None if it is a camera's second device, which holds no pictures."""
    path, about = _DEVICES / f"video{number}", _KNOWN / f"video{number}"
    if _line(about / "index") not in ("", "0"):
        return None
    problem = "" if os.access(path, os.R_OK | os.W_OK) else _denied(path)
    return Camera(number, _line(about / "name"), path, problem)


def _line(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _denied(path: Path) -> str:
    group = "video"
    try:
        import grp

        group = grp.getgrgid(path.stat().st_gid).gr_name
    except (ImportError, KeyError, OSError):
        pass
    how = f"sudo usermod -aG {group} $USER"
    return f"permission denied; join the group {group} ({how}) and log in anew"


def find_camera(wanted: str) -> int:
    """Return the number of a camera that is named by number, device file or a part of its name.

    Raises:
        SourceError: there is no such camera, or it may not be opened; the message lists those
            that exist.
        ConfigError: cameras have no names on this system.
    """
    number = wanted.removeprefix("/dev/video")
    if number.isdigit() and not _ON_LINUX:
        return int(number)
    cameras = list_cameras() if _ON_LINUX else []
    if not _ON_LINUX:
        raise ConfigError(f"--camera {wanted}: here cameras are named by number, such as 0")
    if number.isdigit():
        path = _DEVICES / f"video{number}"
        found = [Camera(int(number), "", path, "" if _may_open(path) else _denied(path))]
        found = found if path.exists() else []
    elif wanted.startswith("/"):
        target = Path(os.path.realpath(wanted)).name  # as of /dev/v4l/by-id/...
        found = [camera for camera in cameras if camera.path and camera.path.name == target]
    else:
        found = [camera for camera in cameras if wanted.lower() in camera.name.lower()]
    if not found:
        here = ", ".join(map(str, cameras)) or "none"
        raise SourceError(f"camera {wanted}: no such camera; found here: {here}")
    if found[0].problem:
        raise SourceError(f"camera {wanted}: {found[0].problem}")
    return found[0].number


def _may_open(path: Path) -> bool:
    return os.access(path, os.R_OK | os.W_OK)


def open_capture(number: int) -> Any:
    """Open a camera with OpenCV: a `cv2.VideoCapture`, or None where OpenCV does not load."""
    try:
        import cv2
    except ImportError:
        return None
    # It prints what is raised here in words.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    backends = {"linux": cv2.CAP_V4L2, "win32": cv2.CAP_DSHOW, "darwin": cv2.CAP_AVFOUNDATION}
    return cv2.VideoCapture(number, backends.get(sys.platform, cv2.CAP_ANY))


def probe_modes(number: int) -> list[Mode]:
    """Open a camera, ask for usual sizes, unpacked and as JPEG, and return what it gave.

    Empty where OpenCV does not load or the camera does not open. There may be more modes.
    """
    capture = open_capture(number)
    if capture is None:
        return []
    import cv2

    found: dict[Mode, None] = {}
    try:
        if capture.isOpened():
            for code in ("YUYV", "MJPG"):
                for width, height in _SIZES_WH:
                    capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*code))
                    capture.set(cv2.CAP_PROP_FRAME_WIDTH, width)
                    capture.set(cv2.CAP_PROP_FRAME_HEIGHT, height)
                    found[_mode(capture)] = None
    finally:
        capture.release()
    return list(found)


def _mode(capture: Any) -> Mode:
    import cv2

    code = int(capture.get(cv2.CAP_PROP_FOURCC))
    letters = "".join(chr((code >> shift) & 255) for shift in (0, 8, 16, 24))
    return Mode(
        int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
        int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
        float(capture.get(cv2.CAP_PROP_FPS)),
        letters if letters.isprintable() else "?",
    )
