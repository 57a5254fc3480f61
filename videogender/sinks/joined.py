"""Joins parts of an annotated video, encoded each by itself, without encoding them anew."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av

from videogender.errors import OutputError
from videogender.sinks.carry import Carrier, muxer_options
from videogender.sinks.video import output_errors
from videogender.sources.video import VideoSource

__all__ = ["DrawnPart", "join"]


class DrawnPart(NamedTuple):
    """A part of the picture.

    Attributes:
        path: an MP4 file whose first frame is at 0, as `VideoSink` writes it with `picture_only`.
        zero_seconds: time of that frame on the source's own clock.
    """

    path: Path
    zero_seconds: Fraction


def join(
    parts: Sequence[DrawnPart],
    target: Path,
    source: VideoSource,
    *,
    anonymous: bool = False,
    sound: bool = True,
) -> None:
    """Write all parts as one file, with what the source holds besides its picture.

    Args:
        parts: in order; encoded with the same settings.
        target: of the MP4 file, which is overwritten.
        source: the whole span; warnings are added to it.
        anonymous: leave behind what gives people away; see `Carrier`.
        sound: take it along.

    Raises:
        OutputError: the parts do not go together, or the file cannot be written.
        SourceError: the source's file has gone.
    """
    with (
        output_errors(target),
        av.open(
            f"file:{target.absolute()}", "w", format="mp4", container_options=muxer_options(source)
        ) as output,
    ):
        with av.open(f"file:{parts[0].path}") as first:
            stream: Any = output.add_stream_from_template(first.streams.video[0])
            stream.time_base = first.streams.video[0].time_base
            head = first.streams.video[0].codec_context.extradata
        carrier = Carrier(source, output, anonymous=anonymous, sound=sound)
        try:
            output.start_encoding()
            last: int | None = None
            for part in parts:
                with av.open(f"file:{part.path}") as reading:
                    picture = reading.streams.video[0]
                    if picture.codec_context.extradata != head:
                        raise OutputError(f"{target}: its parts were encoded in different ways")
                    last = _append(
                        reading, part.zero_seconds, stream, output, carrier, source, last
                    )
            carrier.finish(source.end_seconds)
        finally:
            carrier.close()


def _append(
    reading: Any,
    zero_seconds: Fraction,
    stream: Any,
    output: Any,
    carrier: Carrier,
    source: VideoSource,
    last: int | None,
) -> int | None:
    """Move the packets of a part over, and return the last one's decoding time."""
    picture = reading.streams.video[0]
    for packet in reading.demux(picture):
        if packet.pts is None or packet.dts is None:
            continue  # the empty one at the end
        base = packet.time_base
        shift = (zero_seconds - source.zero_seconds) / base
        packet.pts = round(packet.pts + shift)
        packet.dts = round(packet.dts + shift)
        if last is not None and packet.dts <= last:
            # A part begins as early as its first frames are long, the one before ends as its own.
            packet.dts = last + 1
        last = packet.dts
        now = packet.pts * base + source.zero_seconds
        packet.stream = stream
        output.mux(packet)
        carrier.advance(now)
    return last
