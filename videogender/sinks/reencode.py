"""Encoders for sound and subtitles that MP4 cannot hold as they are: AAC and timed text."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
import av.error
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.subtitles.stream import SubtitleStream

from videogender.sources.timing import Clock

__all__ = ["SoundEncoder", "TextEncoder"]

# ISO/IEC 14496-3, table 1.18: sampling frequencies of AAC.
_AAC_RATES = frozenset(
    {7350, 8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000}
)
_AAC_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1"}
_MOST_CHANNELS = 6
_BITS_A_CHANNEL = 80_000
_MILLISECOND = Fraction(1, 1000)


class SoundEncoder:
    """Decodes one sound stream and encodes it as AAC, times counted from the output's zero."""

    def __init__(
        self, output: OutputContainer, stream: AudioStream, zero: Fraction, end: Fraction | None
    ) -> None:
        """Add an AAC stream to a container.

        Args:
            output: whose header is not written yet.
            stream: to decode.
            zero: time of the input that becomes 0, in seconds.
            end: time of the input at which the sound stops, or None.

        Raises:
            ValueError, av.FFmpegError: the stream cannot be decoded or encoded.
        """
        self._decoder = stream.codec_context
        self._rate = stream.rate if stream.rate in _AAC_RATES else 48_000
        self._layout = _AAC_LAYOUTS.get(min(stream.channels, _MOST_CHANNELS), "stereo")
        self.stream: AudioStream = output.add_stream(
            "aac",
            rate=self._rate,
            layout=self._layout,
            bit_rate=_BITS_A_CHANNEL * len(av.AudioLayout(self._layout).channels),
        )
        self._zero, self._end = zero, end
        self._clock = Clock(Fraction(1, self._rate))
        self._resampler: AudioResampler | None = None

    def take(self, packet: Any) -> list[Any]:
        """Decode a packet and return what the encoder has ready."""
        try:
            frames = self._decoder.decode(packet)
        except (av.FFmpegError, OSError):
            return []  # a damaged piece leaves a gap; later times are unaffected
        return [ready for frame in frames for ready in self._encode(frame)]

    def flush(self) -> list[Any]:
        """Return the rest."""
        try:
            frames = self._decoder.decode(None)
        except (av.FFmpegError, OSError):
            frames = []
        ready = [packet for frame in frames for packet in self._encode(frame)]
        if self._resampler is not None:
            for frame in self._resampler.resample(None):
                if frame is not None:
                    ready += self.stream.encode(frame)
        if self._clock.last is not None:
            ready += self.stream.encode(None)
        return ready

    def _encode(self, frame: av.AudioFrame) -> list[Any]:
        length = round(Fraction(frame.samples, frame.sample_rate) * self._rate)
        base = frame.time_base or Fraction(1, frame.sample_rate)
        pts = None if frame.pts is None else round((frame.pts * base - self._zero) * self._rate)
        if pts is not None:
            end = None if self._end is None else (self._end - self._zero) * self._rate
            if pts + length <= 0 or (end is not None and pts >= end):
                return []
        frame.pts = self._clock.tick(pts, length)
        frame.time_base = Fraction(1, self._rate)
        return [p for part in self._resample(frame) for p in self.stream.encode(part)]

    def _resample(self, frame: av.AudioFrame) -> list[av.AudioFrame]:
        try:
            if self._resampler is None:
                self._resampler = AudioResampler("fltp", self._layout, self._rate)
            return self._resampler.resample(frame)
        except ValueError:  # the sound changed its form within the stream
            self._resampler = AudioResampler("fltp", self._layout, self._rate)
            return self._resampler.resample(frame)


class TextEncoder:
    """Turns text subtitles of any kind into MP4's timed text."""

    def __init__(
        self, output: OutputContainer, stream: SubtitleStream, zero: Fraction, end: Fraction | None
    ) -> None:
        """Add a subtitle stream to a container; arguments and errors as for `SoundEncoder`."""
        self._decoder = stream.codec_context
        self._decoder.open(strict=False)
        out = output.add_stream("mov_text")
        self.stream: SubtitleStream = out
        self.stream.codec_context.time_base = _MILLISECOND
        # The styles to which the decoder's lines refer; without them the encoder does not open.
        self.stream.codec_context.subtitle_header = self._decoder.subtitle_header
        self._zero, self._end = zero, end

    def take(self, packet: Any) -> list[Any]:
        """Return the packet in its new form, unless it lies outside the span."""
        if packet.pts is None:
            return []
        try:
            lines = self._decoder.decode2(packet)
        except (av.FFmpegError, OSError):
            return []
        if lines is None or not len(lines):
            return []
        begin = packet.pts * packet.time_base + lines.start_display_time * _MILLISECOND
        length = (packet.duration or 0) * packet.time_base
        if not length:
            length = (lines.end_display_time - lines.start_display_time) * _MILLISECOND
        end = begin + length if self._end is None else min(begin + length, self._end)
        begin = max(begin, self._zero)
        if end <= begin:
            return []
        ready = self.stream.codec_context.encode_subtitle(lines)
        ready.time_base = _MILLISECOND
        ready.pts = ready.dts = round((begin - self._zero) / _MILLISECOND)
        ready.duration = round((end - begin) / _MILLISECOND)
        ready.is_keyframe = True
        ready.stream = self.stream
        return [ready]

    def flush(self) -> list[Any]:
        """Return nothing: subtitles do not wait."""
        return []
