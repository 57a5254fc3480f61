"""A run to put a web page on, with numbers that a test chooses, and ways to ask the page."""

from __future__ import annotations

import http.client
import math
import socket
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from videogender.errors import ConfigError, VideogenderError
from videogender.frames import Faces
from videogender.live.stats import LiveStats
from videogender.sinks.web import WebScreen

RUNNING = LiveStats(
    *("camera 0", "running", ""),
    *(29.97, 14.5, 46.25, 71.5),
    *(12, 3456, 6, 3, 2, 1, 4),
    "cpu",
)
UNKNOWN = LiveStats(
    *("rtsp://door.example/a", "starting", "waiting for a picture"),
    *(0.0, 0.0, math.nan, math.nan),
    *(0, 0, 0, 0, 0, 0, 0),
    "cpu",
)


class Run:
    """A `LiveControl` that remembers what was asked of it."""

    def __init__(self, *stats: LiveStats) -> None:
        self.now = list(stats or (RUNNING,))
        self.face_threshold = 0.5
        self.most_threshold = 1.0
        self.recording = False
        self.recording_trouble = ""
        self.can_record = True
        self.trouble: VideogenderError | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(one.source for one in self.now)

    def stats(self) -> list[LiveStats]:
        return list(self.now)

    def set_face_threshold(self, value: float) -> None:
        if value > self.most_threshold:
            raise ConfigError("faces would be seen")
        self.face_threshold = value

    def start_recording(self) -> None:
        if self.trouble is not None:
            raise self.trouble
        self.recording = True

    def stop_recording(self) -> None:
        self.recording = False

    def request_stop(self) -> None:
        raise AssertionError("no page asks for that")


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes


def ask(
    screen: WebScreen,
    path: str,
    method: str = "GET",
    body: bytes | None = None,
    **headers: str,
) -> Answer:
    """Ask without touching the path; `content_type=` becomes the header Content-Type.

    A Host that is not given is the real one; an empty one is left out.
    """
    parts = urllib.parse.urlsplit(screen.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.putrequest(method, path, skip_host="host" in given, skip_accept_encoding=True)
        for name, value in given.items():
            if value:
                connection.putheader(name, value)
        if body is not None:
            connection.putheader("content-length", str(len(body)))
        connection.endheaders(body)
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())
    finally:
        connection.close()


def post(screen: WebScreen, path: str, body: bytes, **headers: str) -> Answer:
    """Change something as the page itself does."""
    origin = screen.url.partition("/?")[0].rstrip("/")
    return ask(
        screen,
        path,
        "POST",
        body,
        **{"origin": origin, "content_type": "application/json"} | headers,
    )


class Watcher:
    """Reads a stream of pictures as a program would: head, length, picture."""

    def __init__(self, screen: WebScreen, path: str) -> None:
        parts = urllib.parse.urlsplit(screen.url)
        self.connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
        self.connection.request("GET", path)
        self.response = self.connection.getresponse()
        assert self.response.status == 200
        kind = self.response.headers.get_content_type()
        assert kind == "multipart/x-mixed-replace"
        assert self.response.readline() == b"--frame\r\n"

    def read(self) -> tuple[int, bytes] | None:
        """Return the source and the JPEG of the next picture, or None at the stream's end."""
        self.headers = headers = http.client.parse_headers(self.response)
        if "content-length" not in headers:
            return None
        assert headers["content-type"] == "image/jpeg"
        jpeg = self.response.read(int(headers["content-length"]))
        assert self.response.readline() == b"\r\n"
        assert self.response.readline() == b"--frame\r\n"
        return int(headers["x-source"]), jpeg

    def close(self) -> None:
        self.connection.close()


def stuck_viewer(screen: WebScreen, path: str = "/video/0") -> socket.socket:
    """Ask for video and never read it; what the kernel keeps for us is small."""
    parts = urllib.parse.urlsplit(screen.url)
    viewer = socket.socket()
    viewer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
    viewer.connect((parts.hostname, parts.port))
    viewer.sendall(f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode())
    return viewer


@contextmanager
def watching(screen: WebScreen, *paths: str) -> Iterator[list[Watcher]]:
    """Open streams, wait until they are looked at, and close them in the end."""
    watchers = [Watcher(screen, path) for path in paths]
    try:
        yield watchers
    finally:
        for watcher in watchers:
            watcher.close()


def grey(value: int, size_wh: tuple[int, int] = (64, 48)) -> NDArray[np.uint8]:
    """Return a frame of one brightness, by which it is known again."""
    return np.full((size_wh[1], size_wh[0], 3), value, np.uint8)


def brightness(jpeg: bytes) -> int:
    return round(float(np.asarray(Image.open(BytesIO(jpeg)).convert("L")).mean()))


def show(screen: WebScreen, rgb: NDArray[np.uint8], source: int = 0) -> None:
    screen.show(source, rgb, Faces.empty(), time.monotonic())


def until(condition: Callable[[], Any], seconds: float = 5.0) -> None:
    """Wait for something that happens in another thread."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)
