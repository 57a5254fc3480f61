"""Recording: one live video file under way, which plays at any moment, even after a kill."""

from __future__ import annotations

import errno
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from av.codec.context import Flags
from av.container import OutputContainer
from av.video.frame import PictureType
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from numpy.typing import NDArray

from videogender.config import VideoSettings
from videogender.errors import OutputError
from videogender.sinks.encoder import config_errors, find_encoder, set_quality

__all__ = ["SUFFIXES", "Recording"]

# Fragments and clusters are complete by themselves; a kill costs what is younger than one.
_OPTIONS = {
    ".mp4": {
        "movflags": "frag_keyframe+empty_moov+default_base_moof",
        "frag_duration": "1000000",
        "flush_packets": "1",
    },
    ".mkv": {"cluster_time_limit": "1000", "flush_packets": "1"},
}
_OPTIONS[".m4v"] = _OPTIONS[".mp4"]
_FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mkv": "matroska"}
_KEY_SECONDS = 1.0
# What falls back by more is a clock that began anew, not a slip of single pictures.
_MOST_BACK_SECONDS = 1.0
_TIME_BASE = Fraction(1, 90_000)
# What the encoder plans its bits by; times of frames are their own.
_USUAL_RATE = 30
_HD_HEIGHT = 720
_BT601, _BT709 = 6, 1  # ITU-T H.273 table 4
_LIMITED = 1  # AVCOL_RANGE_MPEG

SUFFIXES = frozenset(_FORMATS)


class Recording:
    """One video file under way: fragmented MP4 or MKV, each picture at its own time."""

    def __init__(
        self,
        path: Path,
        size_wh: tuple[int, int],
        settings: VideoSettings,
        pixel_aspect: Fraction | None = None,
    ) -> None:
        """Open a file that must not exist, or may be overwritten by now.

        Args:
            path: ends in .mp4, .m4v or .mkv.
            size_wh: (width, height) of every picture to come.
            settings: encoder, quality and speed.
            pixel_aspect: width of a pixel by its height, or None if unknown.

        Raises:
            ConfigError: the encoder is unknown, or refuses the settings.
            OutputError: the file cannot be written.
        """
        self.path = path
        self.size_wh = size_wh
        self.frames = 0
        self._zero: float | None = None
        self._since = 0.0  # of the last picture
        self._last = -1
        self._next_key = 0.0
        self._reformatter = VideoReformatter()
        self._closed = False
        codec = find_encoder(settings.codec)
        suffix = path.suffix.lower()
        try:
            self._output: OutputContainer = av.open(
                f"file:{path.absolute()}", "w", format=_FORMATS[suffix], options=_OPTIONS[suffix]
            )
        except (av.FFmpegError, OSError) as error:
            raise self._failure(error) from error
        width, height = size_wh
        self._matrix = Colorspace.ITU709 if height >= _HD_HEIGHT else Colorspace.ITU601
        with config_errors(settings):
            stream: Any = self._output.add_stream(
                codec.name,
                rate=_USUAL_RATE,
                width=width - width % 2,
                height=height - height % 2,
                time_base=_TIME_BASE,
            )
            self._stream = stream
            context = stream.codec_context
            context.pix_fmt = "yuv420p"
            context.thread_type = "AUTO"
            context.max_b_frames = 0  # or pictures would wait in the encoder
            context.flags |= Flags.frame_duration
            if pixel_aspect is not None:
                context.sample_aspect_ratio = pixel_aspect
            context.color_range = _LIMITED
            context.colorspace = _BT709 if height >= _HD_HEIGHT else _BT601
            set_quality(context, codec, settings)
            if codec.name in ("libx264", "libx265"):
                context.options = {**context.options, "tune": "zerolatency"}
            context.open()
        try:
            self._output.start_encoding()
        except (av.FFmpegError, OSError) as error:
            raise self._failure(error) from error

    def write(self, rgb: NDArray[np.uint8], seconds: float) -> None:
        """Encode a picture.

        Args:
            rgb: HWC uint8 **RGB** of the size given; of an odd one the last row or column goes.
            seconds: when it was captured; the first one counts as 0. Of a clock that was set back
                the rest goes on from here.

        Raises:
            OutputError: the file cannot be written any further.
        """
        self._zero = seconds if self._zero is None else self._zero
        if seconds - self._zero < self._since - _MOST_BACK_SECONDS:
            self._zero = seconds - self._since
        self._since = since = seconds - self._zero
        ticks = max(round(since / _TIME_BASE), self._last + 1)
        self._last = ticks
        height, width = rgb.shape[0] // 2 * 2, rgb.shape[1] // 2 * 2
        image = av.VideoFrame.from_ndarray(
            np.ascontiguousarray(rgb[:height, :width]), format="rgb24"
        )
        image = self._reformatter.reformat(
            image, format="yuv420p", dst_colorspace=self._matrix, dst_color_range=ColorRange.MPEG
        )
        image.pts, image.time_base = ticks, _TIME_BASE
        image.pict_type = PictureType.NONE
        if since >= self._next_key:
            image.pict_type = PictureType.I
            self._next_key = since + _KEY_SECONDS
        try:
            self._output.mux(self._stream.encode(image))
        except (av.FFmpegError, OSError) as error:
            raise self._failure(error) from error
        self.frames += 1

    def close(self) -> None:
        """Finish the file. May be called twice.

        Raises:
            OutputError: the rest cannot be written; what was written before still plays.
        """
        if self._closed:
            return
        self._closed = True
        try:
            self._output.mux(self._stream.encode(None))
            self._output.close()
        except (av.FFmpegError, OSError) as error:
            raise self._failure(error) from error
        finally:
            with suppress(Exception):
                self._output.close()

    def _failure(self, error: Exception) -> OutputError:
        if getattr(error, "errno", None) == errno.ENOSPC:
            return OutputError(f"{self.path}: the disk is full; make room or name another place")
        reason = getattr(error, "strerror", None) or error
        return OutputError(f"{self.path}: cannot be written: {reason}")
