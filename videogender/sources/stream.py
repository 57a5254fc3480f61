"""StreamSource: the newest pictures of a network stream, through libav."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import av.error
from av.codec.context import Flags
from av.container import InputContainer
from av.video.stream import VideoStream

from videogender.errors import SourceError
from videogender.sources.address import options_for, redacted, scheme_of
from videogender.sources.live import Grab, Pacer, UnreachableError
from videogender.sources.picture import DecodedPicture, Scalers
from videogender.sources.signal import pixel_aspect_of

__all__ = ["Arrivals", "StreamSource"]

# A stream may be joined anywhere; until a key frame comes, its pictures are grey with trails.
_MOST_WITHOUT_KEY_SECONDS = 4.0
# When the decoder is this much behind the stream it skips what it can, and more beyond the second.
_BEHIND_SECONDS, _FAR_BEHIND_SECONDS = 0.5, 2.0
# Pictures of a server that sends ahead are never this far apart; a clock that jumps makes them so.
_MOST_APART_SECONDS = 5.0
_MICROSECONDS = Fraction(1, 1_000_000)


class Arrivals:
    """Tells when a stream's pictures were captured, as well as their arrival shows it.

    Timestamps say how far apart pictures were taken, arrivals at which time at the latest. So the
    picture that came quickest of late sets the clock by which the others are late. Timestamps that
    are missing or jump do no harm: such a picture was captured when it came.
    """

    # The clocks of sender and receiver may drift apart by this share.
    _DRIFT = 1e-3
    _MOST_JUMP_SECONDS = 5.0

    def __init__(self) -> None:
        self._zero: float | None = None  # arrival minus timestamp of the quickest
        self._last = (0.0, 0.0)  # timestamp, arrival
        self._stamp = float("-inf")
        self.late_seconds = 0.0

    def stamp(self, pts_seconds: float | None, now: float) -> float:
        """Return when a picture was captured, on the clock of `now`, never later than that.

        Args:
            pts_seconds: its timestamp on the sender's clock, or None.
            now: when it arrived, on the clock of `time.monotonic`.
        """
        captured = now
        if pts_seconds is not None:
            before, came = self._last
            step = pts_seconds - before
            if self._zero is None or not 0 < step < now - came + self._MOST_JUMP_SECONDS:
                self._zero = now - pts_seconds
            self._zero = min(self._zero + self._DRIFT * (now - came), now - pts_seconds)
            self._last = (pts_seconds, now)
            captured = pts_seconds + self._zero
        self.late_seconds = now - captured
        self._stamp = min(max(captured, self._stamp), now)
        return self._stamp


class StreamSource:
    """A stream by its address. Attributes are those of `videogender.sources.live.LiveSource`."""

    waits = False

    def __init__(self, address: str, *, timeout_seconds: float) -> None:
        """Check an address; nothing is opened yet.

        Args:
            address: RTSP, RTMP, HTTP (MJPEG, MPEG-TS, HLS and others), UDP, RTP or SRT.
            timeout_seconds: silence after which the stream counts as lost.

        Raises:
            ConfigError: the address is of no such kind.
        """
        self._scheme = scheme_of(address)
        self._address = address.strip()
        self._timeout_seconds = timeout_seconds
        self.name = redacted(address)

    def grabs(self, stop: threading.Event) -> Iterator[Grab]:
        """Open the stream and yield its pictures as they come; see `LiveSource`."""
        container = self._open()
        try:
            stream = _picture_stream(container, self.name)
            is_whole = bool(container.duration and container.duration > 0)
            in_pieces = any(kind in container.format.name for kind in ("hls", "dash"))
            # Such a server sends as fast as it can; of a live one every moment comes once.
            if in_pieces or (is_whole and self._scheme.startswith("http")):
                yield from self._paced(container, stream, stop)
            else:
                is_whole = False
                yield from self._newest(container, stream, stop)
        finally:
            container.close()
        if not is_whole and not stop.is_set():
            raise UnreachableError(f"{self.name}: the stream ended")

    def _open(self) -> InputContainer:
        try:
            return av.open(
                self._address,
                options=options_for(self._scheme, self._timeout_seconds),
                timeout=(self._timeout_seconds, self._timeout_seconds),
                metadata_errors="replace",
            )
        except (av.FFmpegError, OSError, ValueError) as error:
            failure = self._failure(error)
        # Not raised from the error of libav, whose text shows the whole address.
        raise failure

    def _failure(self, error: Exception) -> SourceError:
        """Put into words why a stream cannot be opened or read on."""
        name = self.name
        if isinstance(error, av.error.ProtocolNotFoundError):
            return SourceError(
                f"{name}: this build of libav does not speak {self._scheme}; let another program "
                "relay it, say to udp://127.0.0.1:5000"
            )
        if isinstance(error, (av.error.HTTPUnauthorizedError, av.error.HTTPForbiddenError)):
            return SourceError(f"{name}: access denied; check the user and password in the address")
        if isinstance(error, av.error.ExitError) or _number(error) == errno.ETIMEDOUT:
            return UnreachableError(f"{name}: no answer within {self._timeout_seconds:g} s")
        if isinstance(error, av.error.InvalidDataError):
            return UnreachableError(f"{name}: sends nothing that can be read as video")
        reason = getattr(error, "strerror", None) or type(error).__name__
        if _number(error) == errno.EIO:  # so libav says that a server hung up
            reason = "the stream ended"
        return UnreachableError(f"{name}: {reason}")

    def _packets(
        self, container: InputContainer, stream: VideoStream, stop: threading.Event
    ) -> Iterator[Any]:
        failure: SourceError | None = None
        try:
            for packet in container.demux(stream):
                if stop.is_set():
                    return
                yield packet
        except (av.FFmpegError, OSError) as error:
            failure = self._failure(error)
        if failure is not None and not stop.is_set():
            raise failure

    def _frames(
        self, container: InputContainer, stream: VideoStream, stop: threading.Event
    ) -> Iterator[tuple[av.VideoFrame, float]]:
        """Yield the pictures from the first key frame on, each with the time of its packet."""
        began, has_key = time.monotonic(), False
        for packet in self._packets(container, stream, stop):
            now = time.monotonic()
            has_key = has_key or packet.is_keyframe or now - began > _MOST_WITHOUT_KEY_SECONDS
            if not has_key:
                continue
            try:
                frames: list[Any] = stream.decode(packet)
            except (av.FFmpegError, OSError):
                continue  # a damaged piece
            for frame in frames:
                yield frame, now

    def _newest(
        self, container: InputContainer, stream: VideoStream, stop: threading.Event
    ) -> Iterator[Grab]:
        """Yield what comes as it comes; a decoder that falls behind the stream skips frames."""
        context: Any = stream.codec_context
        context.thread_type = "SLICE"  # threads by frame hold pictures back
        context.flags |= Flags.low_delay
        arrivals, scalers = Arrivals(), Scalers()
        for frame, now in self._frames(container, stream, stop):
            pts = None if frame.pts is None or frame.time_base is None else frame.time
            captured = arrivals.stamp(pts, now)
            behind = arrivals.late_seconds
            context.skip_frame = (
                "DEFAULT"
                if behind < _BEHIND_SECONDS
                else ("NONREF" if behind < _FAR_BEHIND_SECONDS else "NONKEY")
            )
            yield _grab(frame, captured, stream, scalers)
            del frame

    def _paced(
        self, container: InputContainer, stream: VideoStream, stop: threading.Event
    ) -> Iterator[Grab]:
        """Yield at its own speed what a server sends as fast as it can."""
        pacer, scalers = Pacer(_MOST_APART_SECONDS), Scalers()
        for frame, _ in self._frames(container, stream, stop):
            now = pacer.wait(frame.time or 0.0, stop)
            if stop.is_set():
                return
            yield _grab(frame, now, stream, scalers)
            del frame


def _grab(
    frame: av.VideoFrame, captured_seconds: float, stream: VideoStream, scalers: Scalers
) -> Grab:
    orientation = scalers.orientation(frame)
    size_wh = orientation.size_wh(frame.width, frame.height)
    pts, time_base = frame.pts or 0, frame.time_base or _MICROSECONDS
    picture = DecodedPicture(frame, size_wh=size_wh, pts=pts, time_base=time_base, scalers=scalers)
    return Grab(picture, captured_seconds, pixel_aspect=pixel_aspect_of(stream, orientation))


def _picture_stream(container: InputContainer, name: str) -> VideoStream:
    stream = container.streams.best("video")
    if not isinstance(stream, VideoStream):
        raise SourceError(f"{name}: no video in this stream")
    if getattr(stream, "codec_context", None) is None:
        raise SourceError(f"{name}: its video codec is not supported here")
    return stream


def _number(error: Exception) -> int | None:
    """Return the system's number of an error, or None."""
    number = getattr(error, "errno", None)
    return number if isinstance(number, int) else None
