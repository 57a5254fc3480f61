"""VideoSource: the frames of a video file, upright, each at its own time."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from fractions import Fraction
from math import ceil
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import av
import av.error
from av.stream import Disposition
from av.video.stream import VideoStream

from videogender.cores import cores
from videogender.errors import SourceError
from videogender.frames import Frame
from videogender.sources.picture import DecodedPicture, Scalers
from videogender.sources.seeking import Key, frames_before, go_to
from videogender.sources.signal import MOST_FRAMES_PER_SECOND, signal_of
from videogender.sources.timing import Clock

__all__ = ["VideoSource", "open_input"]

# A file that ends this much before the time that it promises has been cut short.
_CUT_SHORT_SECONDS = 0.5
# A picture of a slow video that is still to be seen this long into a span belongs to it.
_STANDS_SECONDS = Fraction(1, 10)
MOST_DECODER_THREADS = 4  # each holds a frame; four decode faster than anything here takes frames
# Formats that libav guesses from a name or from single pictures; none of them is a video.
_NO_VIDEO_FORMATS = ("tty", "image2", "_pipe")


def open_input(path: Path, name: str) -> av.container.InputContainer:
    """Open a media file with libav.

    Raises:
        SourceError: libav does not recognise it.
    """
    try:
        # The prefix keeps libav from reading `a:b.mp4` as an address.
        return av.open(f"file:{path}", metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SourceError(f"{name}: not a video, or damaged at its beginning ({reason})") from error


class VideoSource:
    """The frames of a video file. Attributes beyond those of `videogender.sources.Source`:

    Attributes:
        signal: what a re-encoded copy repeats.
        stream_index: which of the file's streams is read.
        origin_seconds: time of the file's own clock that counts as 0: where picture and sound
            begin.
        zero_seconds: time of the file's own clock at which an output of the span begins.
        end_seconds: time of the file's own clock at which the span ends, or None.
        frames_read: frames handed out so far.
        finished: no frame is left.
    """

    kind: Literal["video"] = "video"

    def __init__(
        self,
        path: Path,
        *,
        name: str | None = None,
        start_seconds: float | None = None,
        end_seconds: float | None = None,
    ) -> None:
        """Open a video and decode its first frame.

        Args:
            path: a file.
            name: what to call it; the path if None.
            start_seconds: leave out frames shown before this time, counted from the beginning; one
                that still stands then for a while is the first.
            end_seconds: leave out frames shown from this time on.

        Raises:
            SourceError: the file is no video, has only sound, uses a codec that this libav does
                not decode, is damaged from its first frame on, or shows nothing in the span.
        """
        self.path = path
        self.name = name or str(path)
        self.warnings: list[str] = []
        self.frames_read = 0
        self.finished = False
        self._start = _exact(start_seconds) if start_seconds else None
        self._end = None if end_seconds is None else _exact(end_seconds)
        if self._end is not None and self._end <= (self._start or 0):
            begin = float(self._start or 0)
            raise SourceError(f"{self.name}: the end should be later than {begin:g} s")
        self._lock = threading.Lock()
        self._container = open_input(path, self.name)
        try:
            self._open()
        except BaseException:
            self._container.close()
            raise

    def _open(self) -> None:
        self._stream = stream = _picture_stream(self._container, self.name)
        if (threads := decoder_threads()) > 1:
            stream.thread_type = "AUTO"
            stream.codec_context.thread_count = threads
        self.stream_index = stream.index
        self._time_base = stream.time_base or Fraction(1, 90_000)
        rate = stream.average_rate or stream.guessed_rate
        if rate is not None and not 0 < rate <= MOST_FRAMES_PER_SECOND:
            rate = None
        usual_ticks = round(1 / (rate or 25) / self._time_base)
        self._clock = Clock(self._time_base, usual_ticks=usual_ticks)
        self._scalers = Scalers()
        self._decoded = 0
        self._damaged = 0
        self._reached = Fraction(0)  # time up to which any stream's packets were seen
        self._size_wh = (0, 0)  # of the first frame, which all others follow
        self.origin_seconds = self._first_time()
        self._begin = None if self._start is None else self.origin_seconds + self._start
        self.end_seconds = None if self._end is None else self.origin_seconds + self._end

        self._frames = self._selected()
        self._ahead = next(self._frames, None)
        if self._ahead is None:
            raise SourceError(self._why_nothing())
        first = self._ahead.picture
        assert isinstance(first, DecodedPicture)
        self.zero_seconds: Fraction = self.origin_seconds
        if self._begin is not None:
            self.zero_seconds = first.pts * self._time_base
        self.width, self.height = self._size_wh
        self._measure(rate)

    def _measure(self, rate: Fraction | None) -> None:
        """Fill in the estimates of the span's length."""
        whole = self._promised_end()
        self.duration_seconds: float | None = None
        self.frame_count: int | None = None
        if whole is not None:
            end = whole if self.end_seconds is None else min(whole, self.end_seconds)
            length = max(end - self.zero_seconds, Fraction(0))
            self.duration_seconds = float(length)
            share = length / (whole - self.origin_seconds) if whole > self.origin_seconds else 1
            if self._stream.frames:
                self.frame_count = max(1, ceil(self._stream.frames * share))
            elif rate is not None:
                self.frame_count = max(1, ceil(length * rate))

    def __iter__(self) -> Iterator[Frame]:
        while True:
            with self._lock:  # closing waits for the frame in hand
                frame, self._ahead = self._ahead, None
                if frame is None:
                    frame = next(self._frames, None)
                if frame is None:
                    self.finished = True
                    return
                self.frames_read += 1
            yield frame

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; reading ends. Frames handed out stay valid."""
        with self._lock:
            self._ahead = None
            self._frames.close()
            self._container.close()

    def _selected(self) -> Generator[Frame]:
        """Yield the frames of the span, timed, numbered and wrapped."""
        index = -1
        key: Key | None = None
        waiting: list[int] | None = None  # pts of the packets from the key frame on
        if self._begin is not None:
            try:
                key = go_to(self._container, self._stream, int(self._begin / self._time_base))
            except (av.FFmpegError, OSError):
                self._container.close()
                self._container = open_input(self.path, self.name)
                self._stream = _picture_stream(self._container, self.name)
            if key is not None:
                index += frames_before(self.path, self._container, self._stream, key)
                waiting = []
        shown: av.VideoFrame | None = None  # the last one before the span
        for frame in self._decode_all(key, waiting):
            raw = frame.pts
            pts = self._clock.tick(raw, frame.duration)
            time = pts * self._time_base
            if self._begin is not None and time < self._begin:
                index += 0 if waiting is not None else 1
                shown = frame
                continue
            if waiting is not None and raw is not None:
                index += sum(1 for sent in waiting if sent < raw)
                waiting.clear()
                waiting = None
            if shown is not None:
                yield from self._standing(shown, time, index)
                shown = None
            if self.end_seconds is not None and time >= self.end_seconds:
                return
            index += 1
            yield self._wrap(frame, pts, index)
        if shown is not None:
            if waiting is not None and shown.pts is not None:
                index += sum(1 for sent in waiting if sent <= shown.pts)
            yield from self._standing(shown, self._clock.end * self._time_base, index)
        self._report()

    def _standing(self, frame: av.VideoFrame, until: Fraction, index: int) -> Iterator[Frame]:
        """Yield the last frame before the span, as its first, if it stands there for a while."""
        if self._begin is not None and until - self._begin > _STANDS_SECONDS:
            yield self._wrap(frame, ceil(self._begin / self._time_base), index)

    def _wrap(self, frame: av.VideoFrame, pts: int, index: int) -> Frame:
        if self._size_wh == (0, 0):
            orientation = self._scalers.orientation(frame)
            self._size_wh = orientation.size_wh(frame.width, frame.height)
            self.signal = signal_of(self._stream, frame, orientation, self._time_base)
        picture = DecodedPicture(
            frame,
            size_wh=self._size_wh,
            pts=pts,
            time_base=self._time_base,
            scalers=self._scalers,
        )
        seconds = float(pts * self._time_base - self.origin_seconds)
        return Frame(picture, index=index, pts_seconds=seconds, source=self.name)

    def _decode_all(self, key: Key | None, waiting: list[int] | None) -> Iterator[av.VideoFrame]:
        """Yield what decodes, to the end of the file or to where it breaks off.

        Args:
            key: packets before this one are skipped, if it is not None.
            waiting: is filled with the pts of the packets that were decoded, unless None.
        """
        flushed = False
        # Where only the whole file has a length, all streams tell how far it reaches.
        everything = self._stream.duration is None
        streams = [] if everything else [self._stream]
        try:
            for packet in self._container.demux(*streams):
                if packet.pts is not None:
                    end = (packet.pts + (packet.duration or 0)) * packet.time_base
                    self._reached = max(self._reached, end)
                if packet.stream.index != self.stream_index:
                    continue
                if key is not None and packet.pts != key[0]:
                    continue
                key = None
                # An empty packet ends the file. What was in the decoder comes out.
                flushed = packet.size == 0 and packet.pts is None and packet.dts is None
                if waiting is not None and packet.pts is not None and not packet.is_discard:
                    waiting.append(packet.pts)
                yield from self._decode(packet)
        except (av.FFmpegError, OSError):
            pass  # the missing rest is reported in the end
        if not flushed:
            yield from self._decode(None)

    def _decode(self, packet: Any) -> list[av.VideoFrame]:
        try:
            frames = self._stream.decode(packet)
        except (av.FFmpegError, OSError):
            self._damaged += 1
            return []
        self._decoded += len(frames)
        return frames

    def _first_time(self) -> Fraction:
        """Return when picture or sound begins, but never later than the picture."""
        starts = [
            s.start_time * s.time_base
            for s in self._container.streams
            if s.start_time is not None and s.time_base and s.type in ("audio", "video")
            and not s.disposition & Disposition.attached_pic
        ]  # fmt: skip
        stream = self._stream
        own = stream.start_time * self._time_base if stream.start_time is not None else None
        if not starts:
            return Fraction(0)
        # Sound may begin before 0 (its encoder's lead-in); that does not move the picture.
        return min(own if own is not None else Fraction(0), max(min(starts), Fraction(0)))

    def _promised_end(self) -> Fraction | None:
        """Return when the picture ends by what the file says of itself, on the file's clock."""
        stream = self._stream
        if stream.duration:
            return (stream.duration + (stream.start_time or 0)) * self._time_base
        if self._container.duration:
            return self.origin_seconds + Fraction(self._container.duration, av.time_base)
        return None

    def _report(self) -> None:
        """Put into words what was wrong with a file that has been read to its end."""
        name, clock = self.name, self._clock
        if self._damaged:
            self.warnings.append(f"{name}: {self._damaged} damaged pieces were left out")
        if clock.repairs:
            self.warnings.append(f"{name}: {clock.repairs} frames had no usable time; repaired")
        promised = self._promised_end()
        reached = clock.end * self._time_base
        if self._stream.duration is None:
            reached = max(reached, self._reached)
        if promised is not None and promised - reached > _CUT_SHORT_SECONDS:
            whole = float(promised - self.origin_seconds)
            kept = float(clock.end * self._time_base - self.origin_seconds)
            self.warnings.append(
                f"{name}: the file is cut short: {kept:.1f} s of {whole:.1f} s could be read"
            )

    def _why_nothing(self) -> str:
        if self._decoded:
            end = self._promised_end() or self._clock.end * self._time_base
            shown = float(end - self.origin_seconds)
            return f"{self.name}: shows nothing in that span; it lasts about {shown:.1f} s"
        return f"{self.name}: damaged from its first frame on; nothing in it decodes"


def decoder_threads() -> int:
    """Return how many frames to decode side by side.

    Where cores are few, they have enough to do, and threads that wait for each other cost a fifth
    more of their time.
    """
    return max(1, min(MOST_DECODER_THREADS, cores() // 2))


def _exact(seconds: float) -> Fraction:
    """Return what a decimal number of seconds means, without its binary error."""
    return Fraction(seconds).limit_denominator(1_000_000)


def _picture_stream(container: av.container.InputContainer, name: str) -> VideoStream:
    if any(part in container.format.name for part in _NO_VIDEO_FORMATS):
        raise SourceError(f"{name}: not a video, nor an image of a kind that is read here")
    covers = Disposition.attached_pic | Disposition.timed_thumbnails
    pictures = [s for s in container.streams.video if not s.disposition & covers]
    if not pictures:
        what = "only sound" if container.streams.audio else "nothing to see"
        raise SourceError(f"{name}: no video stream: it holds {what}")
    best = container.streams.best("video")
    stream = next((s for s in pictures if best is not None and s.index == best.index), pictures[0])
    # Without a decoder there is no context, whatever the stubs say.
    if getattr(stream, "codec_context", None) is None:
        raise SourceError(
            f"{name}: its video codec is not supported here; convert it, say to H.264"
        )
    return stream
