"""CameraSource: the pictures of a camera, through OpenCV or, where that does not load, libav."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from videogender.errors import SourceError
from videogender.frames import RgbPicture
from videogender.sources.cameras import find_camera, open_capture
from videogender.sources.live import Grab, UnreachableError

__all__ = ["CameraSource", "configure", "prefers_jpeg", "read_capture"]

# What a USB 2 cable carries of unpacked pictures (2 bytes a pixel); beyond that JPEG is faster.
_USB2_BYTES_PER_SECOND = 24e6
_USUAL_WH, _USUAL_FPS = (640, 480), 30.0
# A driver's own time of capture is taken if it lies so close before the time of reading.
_MOST_AGE_SECONDS = 1.0
# A driver may spoil a picture now and then; this many in a row mean that the camera is gone.
_MOST_MISSES = 5


class CameraSource:
    """A camera. Attributes are those of `videogender.sources.live.LiveSource`."""

    waits = False

    def __init__(
        self, wanted: str, *, size_wh: tuple[int, int] | None = None, fps: float = 0.0
    ) -> None:
        """Look for the camera; it is not opened yet.

        Args:
            wanted: its number, device file or a part of its name.
            size_wh: (width, height) to ask for; the nearest that it has is taken. None leaves the
                choice to the driver.
            fps: frames a second to ask for; 0 leaves the choice to the driver.

        Raises:
            SourceError: there is no such camera, or it may not be opened.
        """
        self._number = find_camera(wanted)
        self._size_wh, self._fps = size_wh, fps
        self.name = f"camera {wanted}"

    def grabs(self, stop: threading.Event) -> Iterator[Grab]:
        """Open the camera and yield its pictures as they come; see `LiveSource`."""
        capture = open_capture(self._number)
        if capture is None:
            yield from self._through_libav(stop)
            return
        try:
            if not capture.isOpened():
                raise UnreachableError(
                    f"{self.name}: cannot be opened; is it unplugged, or in use by another program?"
                )
            configure(capture, self._size_wh, self._fps)
            yield from read_capture(capture, self.name, stop)
        finally:
            capture.release()

    def _through_libav(self, stop: threading.Event) -> Iterator[Grab]:
        if not sys.platform.startswith("linux"):
            raise SourceError(
                f"{self.name}: OpenCV does not load here; pip install opencv-python-headless"
            )
        import av
        import av.error

        from videogender.sources.picture import DecodedPicture, Scalers

        width, height = self._size_wh or _USUAL_WH
        options = {"video_size": f"{width}x{height}", "timestamps": "mono2abs"}
        if self._fps:
            options["framerate"] = f"{self._fps:g}"
        if prefers_jpeg(self._size_wh, self._fps):
            options["input_format"] = "mjpeg"
        scalers = Scalers()
        try:
            with av.open(f"/dev/video{self._number}", format="v4l2", options=options) as container:
                for frame in container.decode(video=0):
                    if stop.is_set():
                        return
                    picture = DecodedPicture(
                        frame,
                        size_wh=(frame.width, frame.height),
                        pts=frame.pts or 0,
                        time_base=frame.time_base or Fraction(1, 1_000_000),
                        scalers=scalers,
                    )
                    yield Grab(picture, time.monotonic())
        except (av.FFmpegError, OSError) as error:
            reason = error.strerror or type(error).__name__
            raise UnreachableError(f"{self.name}: {reason}") from error


def prefers_jpeg(size_wh: tuple[int, int] | None, fps: float) -> bool:
    """Tell whether a camera gives more frames a second as JPEG than unpacked."""
    width, height = size_wh or _USUAL_WH
    return 2 * width * height * (fps or _USUAL_FPS) > _USB2_BYTES_PER_SECOND


def configure(capture: Any, size_wh: tuple[int, int] | None, fps: float) -> None:
    """Ask an opened `cv2.VideoCapture` for a mode and for as small a queue as it has."""
    import cv2

    if prefers_jpeg(size_wh, fps):
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))  # first: it resets sizes
    if size_wh is not None:
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, size_wh[0])
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, size_wh[1])
    if fps:
        capture.set(cv2.CAP_PROP_FPS, fps)
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)


def read_capture(capture: Any, name: str, stop: threading.Event) -> Iterator[Grab]:
    """Yield the pictures of an opened `cv2.VideoCapture`, or of anything that behaves like one.

    Raises:
        UnreachableError: it yields no more.
    """
    misses = 0
    while not stop.is_set():
        ok, bgr = capture.read()
        now = time.monotonic()
        if not ok or bgr is None:
            misses += 1
            if misses >= _MOST_MISSES:
                raise UnreachableError(f"{name}: no more pictures; was it unplugged?")
            continue
        misses = 0
        yield Grab(RgbPicture(_to_rgb(bgr)), _captured(capture, now))
        del bgr


def _to_rgb(bgr: NDArray[np.uint8]) -> NDArray[np.uint8]:
    import cv2

    is_grey = bgr.ndim == 2 or bgr.shape[2] == 1
    return np.asarray(
        cv2.cvtColor(bgr, cv2.COLOR_GRAY2RGB if is_grey else cv2.COLOR_BGR2RGB), np.uint8
    )


def _captured(capture: Any, now: float) -> float:
    """Return when the driver filled the picture, if it says so on this clock, else `now`."""
    if not sys.platform.startswith("linux"):
        return now
    import cv2

    driver = float(capture.get(cv2.CAP_PROP_POS_MSEC)) / 1e3
    return driver if 0 <= now - driver <= _MOST_AGE_SECONDS else now
