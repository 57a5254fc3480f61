"""Signal: how a video's pixels are meant, which a re-encoded copy of them has to repeat."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import av
from av.video.stream import VideoStream

from videogender.sources.picture import Orientation

__all__ = ["MOST_FRAMES_PER_SECOND", "Signal", "pixel_aspect_of", "signal_of"]

# Higher rates come from files whose clock was mistaken for their frame rate.
MOST_FRAMES_PER_SECOND = 1000
_HDR = (16, 18)  # PQ and HLG


@dataclass(frozen=True, slots=True)
class Signal:
    """What a re-encoded copy repeats of a video, apart from its pixels.

    Attributes:
        time_base: seconds a tick of the frames' `pts`.
        frame_rate: frames a second on average, or None if unknown.
        pixel_aspect: width of an upright pixel by its height, or None if unknown.
        color_range: number of libav's AVColorRange: 0 unknown, 1 limited, 2 full.
        color_primaries: number of ITU-T H.273 table 2.
        color_trc: transfer characteristic, number of ITU-T H.273 table 3.
        colorspace: matrix, number of ITU-T H.273 table 4.
        interlaced: each frame holds two fields, shown one after the other.
    """

    time_base: Fraction
    frame_rate: Fraction | None
    pixel_aspect: Fraction | None
    color_range: int
    color_primaries: int
    color_trc: int
    colorspace: int
    interlaced: bool

    @property
    def losses(self) -> list[str]:
        """What an 8-bit, progressive copy loses, each put into words."""
        lost = []
        if self.interlaced:
            lost.append(
                "interlaced: both fields lie in one picture of the copy, where no player parts "
                "them; deinterlace it first (ffmpeg -vf bwdif)"
            )
        if self.color_trc in _HDR:
            lost.append("HDR: the copy has 8 bits a colour, so smooth shades may show bands")
        return lost


def pixel_aspect_of(stream: VideoStream, orientation: Orientation) -> Fraction | None:
    """Return the width of a stream's upright pixels by their height, or None if unknown."""
    aspect = stream.sample_aspect_ratio
    if not aspect or aspect <= 0:
        return None
    return 1 / aspect if orientation.transpose else aspect


def signal_of(
    stream: VideoStream, frame: av.VideoFrame, orientation: Orientation, time_base: Fraction
) -> Signal:
    """Read a stream's properties and those of its first frame.

    Args:
        stream: the video stream.
        frame: its first frame, as decoded.
        orientation: of that frame.
        time_base: of the frames' `pts`.
    """
    rate = stream.average_rate or stream.guessed_rate
    is_rgb, is_full = frame.format.is_rgb, frame.format.name.startswith("yuvj")
    return Signal(
        time_base=time_base,
        frame_rate=rate if rate and rate <= MOST_FRAMES_PER_SECOND else None,
        pixel_aspect=pixel_aspect_of(stream, orientation),
        color_range=1 if is_rgb else 2 if is_full else frame.color_range,
        color_primaries=frame.color_primaries,
        color_trc=frame.color_trc,
        colorspace=1 if is_rgb else frame.colorspace,
        interlaced=bool(frame.interlaced_frame),
    )
