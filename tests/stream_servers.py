"""Servers of a live stream on this machine, whose pictures tell when they were made.

Each shows the white square of `squares.py`, at `square_x(n)` in its n-th picture, so whoever
receives a picture can tell its number up to a multiple of 50 and, by `made`, its age.
"""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from fractions import Fraction
from typing import Self

import av
import numpy as np
from PIL import Image
from squares import picture, square_x

SIZE_WH = (160, 120)
FPS = 25
TURN = 50  # pictures after which squares are where they were


class Server:
    """Serves at a port of 127.0.0.1, at the same one after `stop` and `start`; a `with` stops it.

    Attributes:
        made: when each picture was made, on the clock of `time.monotonic`.
        asked: the first bytes of every request.
    """

    def __init__(self, *, fps: float = FPS, size_wh: tuple[int, int] = SIZE_WH) -> None:
        self.fps, self.size_wh = fps, size_wh
        self.made: list[float] = []
        self.asked: list[bytes] = []
        self.port = 0
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen, at the port of before if there was one."""
        self._stop = threading.Event()
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", self.port))
        self._listener.listen()
        self.port = self._listener.getsockname()[1]
        self._spawn(self._accept, self._listener, self._stop)

    def stop(self) -> None:
        """Hang up at once, in mid-stream, and listen no more."""
        self._stop.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def age(self, square_left: float, now: float) -> float:
        """Return how old a picture is, in seconds, by where its square was seen."""
        fits = [
            made
            for number, made in enumerate(self.made[-TURN:], max(0, len(self.made) - TURN))
            if abs(square_x(number) - square_left) <= 1
        ]
        return now - fits[-1] if fits else float("nan")

    def serve(self, connection: socket.socket, stop: threading.Event) -> None:
        """Answer one request."""
        raise NotImplementedError

    def pictures(self, stop: threading.Event) -> Iterator[np.ndarray]:
        """Make pictures in time, for one client at a time."""
        began, first = time.monotonic(), len(self.made)
        while not stop.is_set():
            due = began + (len(self.made) - first) / self.fps
            if stop.wait(max(0.0, due - time.monotonic())):
                return
            self.made.append(time.monotonic())
            number = len(self.made) - 1
            yield picture(*self.size_wh, (square_x(number), 40, 32))

    def _accept(self, listener: socket.socket, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self._spawn(self._answer, connection, stop)

    def _answer(self, connection: socket.socket, stop: threading.Event) -> None:
        connection.settimeout(1.0)
        with connection, suppress(OSError, av.FFmpegError):
            self.serve(connection, stop)

    def _spawn(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()


def transport_stream(pictures: Iterator[np.ndarray], write: Callable[[bytes], object]) -> None:
    """Encode pictures as H.264 in an MPEG transport stream, and write it as it comes."""

    class Pipe(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data) -> int:  # type: ignore[no-untyped-def]
            write(bytes(data))
            return len(data)

    container = av.open(Pipe(), "w", format="mpegts", options={"flush_packets": "1"})
    stream = None
    began = time.monotonic()
    try:
        for array in pictures:
            if stream is None:
                options = {"preset": "ultrafast", "tune": "zerolatency", "g": "10"}
                stream = container.add_stream("libx264", rate=FPS, options=options)
                stream.width, stream.height = array.shape[1], array.shape[0]
                stream.pix_fmt = "yuv420p"
                stream.codec_context.time_base = Fraction(1, 1000)
            frame = av.VideoFrame.from_ndarray(array, "rgb24")
            frame.pts = round((time.monotonic() - began) * 1000)
            frame.time_base = Fraction(1, 1000)
            container.mux(stream.encode(frame))
    finally:
        with suppress(OSError, av.FFmpegError):
            container.close()


class HttpTs(Server):
    """An MPEG transport stream over HTTP, without an end."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/live.ts"

    def serve(self, connection: socket.socket, stop: threading.Event) -> None:
        self.asked.append(connection.recv(4096))
        connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: video/mp2t\r\n\r\n")
        transport_stream(self.pictures(stop), connection.sendall)


class HttpMjpeg(Server):
    """JPEG pictures over HTTP, as network cameras send them: without timestamps."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/video.mjpg"

    def serve(self, connection: socket.socket, stop: threading.Event) -> None:
        self.asked.append(connection.recv(4096))
        head = "HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n"
        connection.sendall(head.encode())
        for array in self.pictures(stop):
            data = io.BytesIO()
            Image.fromarray(array).save(data, "JPEG", quality=90)
            part = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {data.tell()}\r\n\r\n"
            connection.sendall(part.encode() + data.getvalue() + b"\r\n")


class Unauthorized(Server):
    """Knows nobody's password."""

    def serve(self, connection: socket.socket, stop: threading.Event) -> None:
        self.asked.append(connection.recv(4096))
        connection.sendall(b"HTTP/1.0 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")


class Silent(Server):
    """Takes a connection and says nothing, ever."""

    def serve(self, connection: socket.socket, stop: threading.Event) -> None:
        self.asked.append(connection.recv(4096))
        stop.wait()


class Rtsp(Server):
    """RTSP (RFC 2326) whose RTP packets, of a transport stream, come on the same connection."""

    @property
    def url(self) -> str:
        return f"rtsp://user:pass%20word@127.0.0.1:{self.port}/live"

    def serve(self, connection: socket.socket, stop: threading.Event) -> None:
        while not stop.is_set():
            request = connection.recv(4096)
            self.asked.append(request)
            lines = request.decode(errors="replace").split("\r\n")
            method = lines[0].split(" ")[0]
            sequence = next(line[5:] for line in lines if line.lower().startswith("cseq:"))
            answer = {"CSeq": sequence.strip(), "Session": "1"}
            body = ""
            if method == "OPTIONS":
                answer["Public"] = "OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN"
            elif method == "DESCRIBE":
                body = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=video 0 RTP/AVP 33\r\n"
                answer |= {"Content-Type": "application/sdp", "Content-Length": str(len(body))}
            elif method == "SETUP":
                answer["Transport"] = "RTP/AVP/TCP;unicast;interleaved=0-1"
            head = "".join(f"{key}: {value}\r\n" for key, value in answer.items())
            connection.sendall(f"RTSP/1.0 200 OK\r\n{head}\r\n{body}".encode())
            if method == "PLAY":
                sender = RtpOnTcp(connection)
                transport_stream(self.pictures(stop), sender.write)
                return


class RtpOnTcp:
    """Packs a transport stream into RTP (RFC 3550, payload type 33) between RTSP's messages."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._number = 0
        self._rest = b""

    def write(self, data: bytes) -> None:
        self._rest += data
        while len(self._rest) >= 188:
            size = min(7, len(self._rest) // 188) * 188
            part, self._rest = self._rest[:size], self._rest[size:]
            ticks = round(time.monotonic() * 90_000) & 0xFFFFFFFF
            head = bytes([0x80, 33]) + (self._number & 0xFFFF).to_bytes(2, "big")
            packet = head + ticks.to_bytes(4, "big") + b"vide" + part
            self._connection.sendall(b"$\x00" + len(packet).to_bytes(2, "big") + packet)
            self._number += 1


class Udp:
    """Sends a transport stream to a port of this machine, whether anybody listens or not."""

    def __init__(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"udp://127.0.0.1:{self.port}"
        self._inner = Server()
        self._stop = threading.Event()

    @property
    def made(self) -> list[float]:
        return self._inner.made

    def age(self, square_left: float, now: float) -> float:
        return self._inner.age(square_left, now)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _send(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.connect(("127.0.0.1", self.port))

            def write(data: bytes) -> None:
                for start in range(0, len(data), 1316):
                    with suppress(OSError):  # nobody listens yet
                        sender.send(data[start : start + 1316])

            transport_stream(self._inner.pictures(self._stop), write)
