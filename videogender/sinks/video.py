"""VideoSink: encodes drawn frames into an MP4 that plays in browsers, each at its own time."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

import av
import av.error
from av.codec.context import Flags
from av.video.stream import VideoStream

from videogender.config import VideoSettings
from videogender.errors import OutputError
from videogender.frames import Frame
from videogender.sinks import mp4
from videogender.sinks.carry import Carrier, muxer_options
from videogender.sinks.encoder import config_errors, find_encoder, set_quality
from videogender.sources.picture import DecodedPicture, samples_of
from videogender.sources.timing import Clock
from videogender.sources.video import VideoSource

if TYPE_CHECKING:
    from videogender.render import Canvas
    from videogender.sources import Source

__all__ = ["VideoSink", "output_errors"]

# Damaged files may claim more than the muxer can count.
_LONGEST_FRAME_SECONDS = 3600
_USUAL_RATE = Fraction(30)
_LEAST_RATE, _MOST_RATE = Fraction(1, 60), 240


class VideoSink:
    """Writes the frames of a video source, with all that the source holds besides its picture.

    Sound and subtitles are read from the source's file in step with the frames. Closing after any
    number of frames gives a file that plays: what the sound holds beyond them is left out.
    """

    def __init__(
        self,
        path: str | Path,
        source: Source,
        settings: VideoSettings,
        *,
        anonymous: bool = False,
        picture_only: bool = False,
        threads: int = 0,
    ) -> None:
        """Open an output and write its header.

        Args:
            path: of an MP4 file, which is overwritten.
            source: a video whose frames will come. Warnings are added to `source.warnings`.
            settings: encoder, quality and speed.
            anonymous: leave behind what gives people away; see `Carrier`.
            picture_only: leave all else behind; for parts that `videogender.sinks.joined` joins.
            threads: of the encoder; 0 lets it decide.

        Raises:
            ConfigError: the encoder is unknown, or refuses the settings.
            OutputError: the path cannot be written, or does not name an MP4 file.
            SourceError: the source's file has gone.
        """
        self.path = Path(path)
        mp4.check_name(self.path)
        if not isinstance(source, VideoSource):
            raise OutputError(f"{path}: {source.name} is no video; name an image to write it")
        self._source = source
        self._frames_written = 0
        self._closed = False
        self._clock = Clock(source.signal.time_base)
        self._zero_ticks = round(source.zero_seconds / source.signal.time_base)
        longest = round(_LONGEST_FRAME_SECONDS / source.signal.time_base)
        self._longest_ticks = min(longest, 2**30)
        codec = find_encoder(settings.codec)
        self._output = av.open(
            f"file:{self.path.absolute()}",
            "w",
            format="mp4",
            container_options=muxer_options(source),
        )
        self._stream = self._add_picture(codec, settings)
        self._stream.codec_context.thread_count = threads
        self._carrier: Carrier | None = None
        if not picture_only:
            self._carrier = Carrier(source, self._output, anonymous=anonymous, sound=settings.sound)
        try:
            with config_errors(settings):
                self._stream.codec_context.open()
            with self._output_errors():
                self._output.start_encoding()
        except BaseException:
            if self._carrier is not None:
                self._carrier.close()
            raise

    def _add_picture(self, codec: av.Codec, settings: VideoSettings) -> VideoStream:
        source, signal = self._source, self._source.signal
        rate = signal.frame_rate
        with config_errors(settings):
            stream: Any = self._output.add_stream(
                codec.name,
                rate=rate if rate and _LEAST_RATE <= rate <= _MOST_RATE else _USUAL_RATE,
                width=source.width + source.width % 2,
                height=source.height + source.height % 2,
                time_base=signal.time_base,
            )
        context = stream.codec_context
        context.pix_fmt = "yuv420p"
        context.thread_type = "AUTO"
        context.flags |= Flags.frame_duration  # or each frame would last as long as the average
        if signal.pixel_aspect is not None:
            context.sample_aspect_ratio = signal.pixel_aspect
        context.color_range = signal.color_range
        context.color_primaries = signal.color_primaries
        context.color_trc = signal.color_trc
        context.colorspace = signal.colorspace
        if codec.canonical_name == "hevc":
            context.codec_tag = "hvc1"  # Apple's players want it
        set_quality(context, codec, settings)
        return cast(VideoStream, stream)

    def write(self, frame: Frame, draw: Callable[[Canvas], None] | None = None) -> None:
        """Encode one frame.

        Args:
            frame: of the source, in its order.
            draw: called with a `Canvas` over the frame's upright pixels; None draws nothing.

        Raises:
            OutputError: the file cannot be written any further.
        """
        picture = frame.picture
        if not isinstance(picture, DecodedPicture):
            raise TypeError(f"expected a frame of {self._source.name}, got {picture!r}")
        image = picture.to_yuv420p()
        y, u, v = (samples_of(plane) for plane in image.planes)
        width, height = picture.width, picture.height
        if draw is not None:
            from videogender.render import Canvas

            draw(
                Canvas.from_yuv420p(
                    y[:height, :width],
                    u,
                    v,
                    full_range=picture.full_range,
                    matrix=picture.matrix,
                )
            )
        # 4:2:0 needs an even size; the last column and row are repeated where the source's is odd.
        y[:, width:] = y[:, width - 1 : width]
        y[height:] = y[height - 1 : height]
        pts = self._clock.tick(picture.pts, picture.duration)
        image.pts = pts - self._zero_ticks
        image.duration = min(picture.duration, self._longest_ticks)
        image.time_base = picture.time_base
        with self._output_errors():
            self._output.mux(self._stream.encode(image))
            if self._carrier is not None:
                self._carrier.advance(pts * picture.time_base)
        self._frames_written += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        else:
            with suppress(Exception):  # the first error is the one to tell
                self.close()

    def close(self) -> None:
        """Finish the file. May be called twice.

        Raises:
            OutputError: the rest cannot be written.
        """
        if self._closed:
            return
        self._closed = True
        source = self._source
        complete = source.finished and self._frames_written == source.frames_read
        until = source.end_seconds
        if not complete:
            until = self._clock.end * source.signal.time_base
        try:
            with self._output_errors():
                self._output.mux(self._stream.encode(None))
                if self._carrier is not None:
                    self._carrier.finish(until)
                self._output.close()
        finally:
            with suppress(Exception):
                self._output.close()  # what is open after an error; otherwise does nothing
            if self._carrier is not None:
                self._carrier.close()

    def _output_errors(self) -> AbstractContextManager[None]:
        return output_errors(self.path)


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Say in one line why a file cannot be written.

    Raises:
        OutputError: in place of what libav or the system raise.
    """
    try:
        yield
    except (av.FFmpegError, OSError) as error:
        if error.errno == errno.ENOSPC:
            raise OutputError(
                f"{path}: the disk is full; make room or name another place"
            ) from error
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
