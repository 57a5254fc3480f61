"""Carrier: takes sound, subtitles, chapters and tags of a video along into its new copy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from typing import Any, Protocol

import av
import av.error
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.stream import Discard, Disposition, Stream
from av.subtitles.stream import SubtitleStream
from av.video.stream import VideoStream

from videogender.sinks.reencode import SoundEncoder, TextEncoder
from videogender.sources.timing import Clock
from videogender.sources.video import VideoSource, open_input

__all__ = ["Carrier", "muxer_options"]

# What players read from MP4. PCM and Vorbis may be stored in it too, but hardly anything plays
# them there.
_COPIED_SOUND = frozenset({"aac", "ac3", "alac", "dca", "eac3", "flac", "mp2", "mp3", "opus"})
# Bytes of set-up data without which these cannot be stored (RFC 7845, RFC 9639, Apple's ALAC).
_LEAST_EXTRADATA = {"opus": 19, "flac": 34, "alac": 36}
_COPIED_TEXT = frozenset({"mov_text", "dvdsub"})
_STREAM_TAGS = ("language", "title", "handler_name")
# The muxer writes these itself.
_OWN_TAGS = frozenset({"major_brand", "minor_version", "compatible_brands", "encoder", "duration"})
# Tags for which MP4's iTunes list has a place; libav drops others unless told to write keys.
_LISTED_TAGS = frozenset(
    {"title", "artist", "album_artist", "composer", "album", "date", "comment", "genre"}
    | {"copyright", "grouping", "lyrics", "description", "synopsis", "show", "episode_id"}
    | {"network", "keywords", "track", "disc", "creation_time", "language", "timecode"}
    | {"location"}
)
# Tags that tell where something was recorded: `location`, Apple's and Android's names for it.
_PLACE_TAG = "location"
_COVERS = frozenset({"mjpeg", "png", "bmp"})
# Where a span cuts into sound, its decoder needs what comes shortly before (80 ms for Opus by
# RFC 7845, a frame for AAC). It is stored at negative times, which players decode in silence.
_LEAD_SECONDS = Fraction(1, 10)
# Files are entered at a key frame of the picture, and this much earlier to meet the lead.
_SEEK_BACK_SECONDS = 1


_COARSEST_CLOCK, _USUAL_CLOCK, _FINEST_CLOCK = 10_000, 90_000, 1_000_000
# Timed text fills the time between subtitles with empty ones; the muxer makes its own.
_NO_TEXT = b"\0\0"


class _Route(Protocol):
    """Takes the packets of one input stream and gives those of its output stream."""

    def take(self, packet: Any) -> list[Any]:
        """Return what one packet becomes: none, one or several."""

    def flush(self) -> list[Any]:
        """Return what is left in the end."""


def muxer_options(source: VideoSource) -> dict[str, str]:
    """Return the options of an MP4 that can hold a source's tags and starts to play at once."""
    flags = "+faststart"
    with open_input(source.path, source.name) as container:
        if set(_tags_of(container)) - _LISTED_TAGS:
            flags += "+use_metadata_tags"
    # Streams that begin late are delayed in units of this clock, by default milliseconds.
    ticks = source.signal.time_base.denominator
    if not _COARSEST_CLOCK <= ticks <= _FINEST_CLOCK:
        ticks = _USUAL_CLOCK
    return {"movflags": flags, "movie_timescale": str(ticks)}


class Carrier:
    """Reads everything but the picture from a source, in step with the picture.

    It warns of what the copy cannot have, the picture's own losses among it. Only one packet waits
    at any time, whatever the length of the video.
    """

    def __init__(
        self,
        source: VideoSource,
        output: OutputContainer,
        *,
        anonymous: bool = False,
        sound: bool = True,
    ) -> None:
        """Declare the streams that go along; `output` must not have its header yet.

        Args:
            source: what is read.
            output: where it goes.
            anonymous: leave behind what gives people away who shall be hidden: cover pictures, and
                tags that tell the place.
            sound: False leaves that behind, too.

        Raises:
            SourceError: the source has gone in the meantime.
        """
        self._source = source
        self._output = output
        self._anonymous, self._sound = anonymous, sound
        self._zero, self._end = source.zero_seconds, source.end_seconds
        source.warnings += [f"{source.name}: {lost}" for lost in source.signal.losses]
        self._input = open_input(source.path, source.name)
        self._routes: dict[int, _Route] = {}
        left: list[str] = []
        for stream in self._input.streams:
            needless = stream.index == source.stream_index or self._is_unwanted(stream)
            route = None if needless else self._route(stream)
            if route is not None:
                self._routes[stream.index] = route
            else:
                stream.discard = Discard.all
                if not needless and anonymous and _is_cover(stream):
                    source.warnings.append(
                        f"{source.name}: its cover picture was left out, as it may show faces"
                    )
                elif not needless:
                    left.append(_describe(stream))
        if left:
            what = ", ".join(dict.fromkeys(left))
            source.warnings.append(f"{source.name}: not carried over, as MP4 has no place: {what}")
        tags = _tags_of(self._input)
        if anonymous:
            tags = {k: v for k, v in tags.items() if _PLACE_TAG not in k.lower()}
        output.metadata.update(tags)
        output.set_chapters(self._chapters())
        self._damaged = 0
        self._packets = self._read()
        self._next: Any = next(self._packets, None)

    def advance(self, until_seconds: Fraction) -> None:
        """Write what begins up to a time.

        Args:
            until_seconds: on the file's own clock.
        """
        while self._next is not None:
            packet = self._next
            stamp = packet.pts if packet.dts is None else packet.dts
            if stamp is not None and stamp * packet.time_base > until_seconds:
                return
            self._mux(self._routes[packet.stream_index].take(packet))
            self._next = next(self._packets, None)

    def finish(self, until_seconds: Fraction | None) -> None:
        """Write the rest: up to a time, or all of it if `until_seconds` is None."""
        self.advance(Fraction(2**62) if until_seconds is None else until_seconds)
        for route in self._routes.values():
            self._mux(route.flush())
        if self._damaged:
            name = self._source.name
            self._source.warnings.append(
                f"{name}: {self._damaged} damaged pieces of sound or subtitles were left out"
            )

    def close(self) -> None:
        """Close the input."""
        self._next = None
        self._input.close()

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            try:
                self._output.mux(packet)
            except av.FFmpegError as error:
                if isinstance(error, OSError):
                    raise  # the disk, not the packet
                self._damaged += 1

    def _read(self) -> Iterator[Any]:
        if not self._routes:
            return
        if self._zero > self._source.origin_seconds:
            target = (self._zero - _SEEK_BACK_SECONDS) * av.time_base
            with suppress(av.FFmpegError, OSError):  # then all is read from the beginning
                self._input.seek(int(target))
        streams = [self._input.streams[index] for index in self._routes]
        try:
            for packet in self._input.demux(*streams):
                if packet.size or packet.pts is not None:  # the last ones, empty, only flush
                    yield packet
        except (av.FFmpegError, OSError):
            return  # cut short, which the source has told already

    def _route(self, stream: Stream) -> _Route | None:
        """Choose how a stream goes along, and declare it in the output; None if it cannot."""
        if getattr(stream, "codec_context", None) is None:
            return None
        codec = stream.codec_context.codec.canonical_name
        try:
            if isinstance(stream, VideoStream) and codec in _COVERS and _is_cover(stream):
                if self._anonymous:
                    return None
                context = stream.codec_context
                out = self._output.add_mux_stream(codec, width=context.width, height=context.height)
                out.disposition = stream.disposition
                return _Cover(out)
            if isinstance(stream, AudioStream):
                if stream.rate <= 0 or stream.channels <= 0:
                    return None  # announced, but nothing of it came
                if stream.codec_context.extradata_size < _LEAST_EXTRADATA.get(codec, 0):
                    return None  # the muxer would notice only in the end
                if codec in _COPIED_SOUND:
                    return _SoundCopy(self._copied(stream), self._source)
                encoder = SoundEncoder(self._output, stream, self._zero, self._end)
                self._label(stream, encoder.stream)
                if encoder.stream.channels < stream.channels:
                    self._source.warnings.append(
                        f"{self._source.name}: its sound of {stream.channels} channels is mixed "
                        f"to {encoder.stream.channels}"
                    )
                return encoder
            if isinstance(stream, SubtitleStream):
                if codec in _COPIED_TEXT:
                    return _TextCopy(self._copied(stream), self._source)
                if stream.codec_context.codec.text_sub:
                    writer = TextEncoder(self._output, stream, self._zero, self._end)
                    self._label(stream, writer.stream)
                    return writer
        except (av.FFmpegError, OSError, ValueError):
            return None
        return None

    def _copied(self, stream: Any) -> Stream:
        out: Stream = self._output.add_stream_from_template(stream)
        self._label(stream, out)
        return out

    def _label(self, stream: Stream, out: Stream) -> None:
        out.disposition = stream.disposition
        out.metadata.update({k: v for k, v in stream.metadata.items() if k in _STREAM_TAGS})
        if "name" in stream.metadata:  # what MP4 calls a title, as libav reads it
            out.metadata.setdefault("title", stream.metadata["name"])

    def _is_unwanted(self, stream: Stream) -> bool:
        """Tell whether nobody will miss a stream.

        Such are sound that shall stay behind, and text that repeats an MP4 file's chapters.
        """
        if isinstance(stream, AudioStream):
            return not self._sound
        is_text = stream.type == "data" and getattr(stream, "name", None) == "bin_data"
        return is_text and bool(self._input.chapters())

    def _chapters(self) -> list[Any]:
        kept = []
        for chapter in self._input.chapters():
            base = chapter["time_base"] or Fraction(1, av.time_base)
            zero = round(self._zero / base)
            end = chapter["end"]
            if self._end is not None:
                end = min(end, round(self._end / base))
            start = max(chapter["start"] - zero, 0)
            if end - zero > start:
                kept.append({**chapter, "start": start, "end": end - zero})
        return kept


class _Cover:
    """Moves the one packet of a cover picture over."""

    def __init__(self, out: Stream) -> None:
        self._out = out

    def take(self, packet: Any) -> list[Any]:
        packet.pts = packet.dts = 0
        packet.stream = self._out
        return [packet]

    def flush(self) -> list[Any]:
        return []


class _SoundCopy:
    """Moves packets of sound over as they are, at times counted from the output's beginning."""

    def __init__(self, out: Stream, source: VideoSource) -> None:
        self._out, self._zero, self._end = out, source.zero_seconds, source.end_seconds
        self._begin = self._zero - _LEAD_SECONDS
        self._clock: Clock | None = None

    def take(self, packet: Any) -> list[Any]:
        # By now the muxer has chosen its own unit of time, in which no two packets may coincide.
        unit = self._out.time_base or packet.time_base
        if self._clock is None:
            self._clock = Clock(unit)
        begin, length = _times_of(packet)
        pts = None
        if begin is not None:
            early = begin + max(length, packet.time_base) <= self._begin
            if early or (self._end is not None and begin >= self._end):
                return []
            pts = round((begin - self._zero) / unit)
        before, duration = self._clock.last, round(length / unit)
        pts = self._clock.tick(pts, duration)
        if not duration and before is not None:
            duration = pts - before  # a last packet that took no time would never be played
        return [_moved(packet, self._out, unit, pts, duration)]

    def flush(self) -> list[Any]:
        return []


class _TextCopy:
    """Moves subtitles over as they are, cut to the span."""

    def __init__(self, out: Stream, source: VideoSource) -> None:
        self._out, self._zero, self._end = out, source.zero_seconds, source.end_seconds

    def take(self, packet: Any) -> list[Any]:
        begin, length = _times_of(packet)
        if begin is None or bytes(packet) == _NO_TEXT:
            return []
        end = begin + length if self._end is None else min(begin + length, self._end)
        begin = max(begin, self._zero)
        if end <= begin:
            return []
        unit = self._out.time_base or packet.time_base
        pts = round((begin - self._zero) / unit)
        return [_moved(packet, self._out, unit, pts, round((end - begin) / unit))]

    def flush(self) -> list[Any]:
        return []


def _times_of(packet: Any) -> tuple[Fraction | None, Fraction]:
    """Return when a packet begins, if that is known, and how long it lasts (0 if unknown)."""
    stamp = packet.pts if packet.pts is not None else packet.dts
    length = (packet.duration or 0) * packet.time_base
    return None if stamp is None else stamp * packet.time_base, length


def _moved(packet: Any, out: Stream, unit: Fraction, pts: int, duration: int) -> Any:
    packet.time_base = unit
    packet.pts = packet.dts = pts
    packet.duration = duration
    packet.stream = out
    return packet


def _tags_of(container: InputContainer) -> dict[str, str]:
    """Return a file's tags under the names that MP4 has for them; Matroska shouts some."""
    tags: dict[str, str] = {}
    for name, value in container.metadata.items():
        if (known := name.lower()) not in _OWN_TAGS:
            tags[known if known in _LISTED_TAGS else name] = value
    if _PLACE_TAG in tags:  # and often once more, with a language
        tags = {name: v for name, v in tags.items() if not name.startswith(f"{_PLACE_TAG}-")}
    return tags


def _is_cover(stream: Stream) -> bool:
    return bool(stream.disposition & Disposition.attached_pic)


def _describe(stream: Stream) -> str:
    if _is_cover(stream):
        return "a cover picture"
    context = getattr(stream, "codec_context", None)
    codec = context.name if context is not None else getattr(stream, "name", None)
    kind = {"audio": "sound", "subtitle": "subtitles", "video": "a further video"}
    return f"{kind.get(stream.type, stream.type)} ({codec or 'unknown codec'})"
