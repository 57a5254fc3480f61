"""Small real media files with known content, made with PyAV for tests.

Frame *i* of a video shows a grey of `grey_of(i)`; its upright top left quarter is `MARK` brighter,
so that order and orientation can be read off the pixels. Codecs are lossy: compare with `NEAR`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.codec.context import Flags
from numpy.typing import NDArray

MARK = 60
NEAR = 6
RATE = 48_000


def grey_of(index: int) -> int:
    """Return the luma of frame `index`'s background; neighbours differ by more than `NEAR`."""
    return 30 + 13 * (index % 11)


@dataclass(frozen=True)
class Sound:
    """A sine in one stream."""

    codec: str = "aac"
    rate: int = RATE
    layout: str = "stereo"
    start_seconds: float = 0.0
    seconds: float | None = None  # None: as long as the picture
    language: str = "eng"


@dataclass(frozen=True)
class Text:
    """Subtitles: (begin, end, text) in seconds."""

    codec: str = "mov_text"
    lines: Sequence[tuple[float, float, str]] = ((0.2, 0.6, "first line"), (0.7, 0.9, "second"))
    language: str = "deu"


@dataclass(frozen=True)
class Clip:
    """What `make_video` writes; sizes are those of the stored, not yet turned picture."""

    width: int = 64
    height: int = 48
    frames: int = 25
    time_base: Fraction = Fraction(1, 25)
    pts: Sequence[int] | None = None  # None: 0, 1, 2, ... times `step`
    step: int = 1
    rate: Fraction = Fraction(25)
    last_seconds: Fraction | None = None  # how long the last frame lasts; None: 1 / rate
    codec: str = "libx264"
    pix_fmt: str = "yuv420p"
    b_frames: int = 0
    gop: int = 12
    rotation: int = 0  # degrees counterclockwise that a player turns the picture
    hflip: bool = False
    colours: tuple[int, int, int, int] | None = None  # range, primaries, transfer, matrix
    pixel_aspect: Fraction | None = None
    sounds: Sequence[Sound] = ()
    texts: Sequence[Text] = ()
    chapters: Sequence[tuple[float, float, str]] = ()
    tags: dict[str, str] = field(default_factory=dict)
    cover: bool = False
    options: dict[str, str] = field(default_factory=dict)
    muxer: dict[str, str] = field(default_factory=dict)

    @property
    def times(self) -> list[Fraction]:
        """Presentation time of every frame in seconds."""
        pts = self.pts if self.pts is not None else [i * self.step for i in range(self.frames)]
        return [p * self.time_base for p in pts]


def upright_luma(clip: Clip, index: int) -> NDArray[np.uint8]:
    """Return the luma that a viewer sees in frame `index`."""
    wide, high = clip.width, clip.height
    if clip.rotation % 180:
        wide, high = high, wide
    luma = np.full((high, wide), grey_of(index), np.uint8)
    luma[: high // 2, : wide // 2] += MARK
    return luma


def stored_luma(clip: Clip, index: int) -> NDArray[np.uint8]:
    """Return the luma that is encoded, which a player turns by `rotation` and then mirrors."""
    luma = upright_luma(clip, index)
    if clip.hflip:
        luma = luma[:, ::-1]
    return np.rot90(luma, -(clip.rotation // 90))


IRREGULAR = (0, 40, 90, 100, 250, 251, 600, 1000, 1010, 1500)

CLIPS = {
    "constant": ("a.mp4", Clip()),
    "b-frames": ("a.mp4", Clip(b_frames=3)),
    "variable": ("a.mp4", Clip(time_base=Fraction(1, 1000), pts=IRREGULAR, b_frames=2)),
    "variable-mkv": ("a.mkv", Clip(time_base=Fraction(1, 1000), pts=IRREGULAR)),
    "ntsc": ("a.mp4", Clip(time_base=Fraction(1001, 30000), rate=Fraction(30000, 1001))),
    "odd": ("a.mkv", Clip(width=61, height=47, codec="ffv1")),
    "odd-444": ("a.mkv", Clip(width=61, height=47, codec="ffv1", pix_fmt="yuv444p")),
    "10-bit": ("a.mp4", Clip(pix_fmt="yuv420p10le")),
    "10-bit-422": ("a.mp4", Clip(pix_fmt="yuv422p10le")),
    "422": ("a.mp4", Clip(pix_fmt="yuv422p")),
    "444": ("a.mp4", Clip(pix_fmt="yuv444p")),
    "full-range": ("a.mp4", Clip(pix_fmt="yuvj420p", colours=(2, 1, 1, 1))),
    "grey": ("a.mkv", Clip(codec="ffv1", pix_fmt="gray")),
    "rgb-tagged": ("a.mkv", Clip(codec="ffv1", pix_fmt="bgr0", colours=(2, 1, 13, 0))),
    "rgb": ("a.mkv", Clip(codec="ffv1", pix_fmt="bgr0")),
    "turned-90": ("a.mp4", Clip(rotation=90)),
    "turned-180": ("a.mp4", Clip(rotation=180)),
    "turned-270": ("a.mp4", Clip(rotation=270)),
    "mirrored": ("a.mp4", Clip(hflip=True)),
    "turned-mirrored": ("a.mp4", Clip(rotation=90, hflip=True)),
    "turned-422": (
        "a.mov",
        Clip(width=62, codec="prores_ks", pix_fmt="yuv422p10le", rotation=90),
    ),
    "transport": ("a.ts", Clip(sounds=[Sound()], b_frames=2)),
    "late": ("a.mp4", Clip(time_base=Fraction(1, 1000), pts=range(500, 1500, 40))),
    "avi": ("a.avi", Clip(codec="mpeg4", options={"qscale": "2"})),
    "webm": ("a.webm", Clip(frames=10, codec="libvpx-vp9", options={"cpu-used": "8", "crf": "5"})),
}  # fmt: skip


def shown(clip: Clip, index: int) -> np.ndarray:
    """Return the full-range grey that a viewer sees in frame `index`."""
    luma = upright_luma(clip, index).astype(float)
    if clip.pix_fmt in ("yuvj420p", "gray", "bgr0"):
        return luma
    return np.clip((luma - 16) * 255 / 219, 0, 255)


def make_video(path: Path, clip: Clip | None = None) -> Path:
    """Write a clip; the container follows from the suffix."""
    clip = clip or Clip()
    with av.open(str(path), "w", container_options=clip.muxer) as container:
        container.metadata.update(clip.tags)
        picture = _add_picture(container, clip)
        sounds = [_add_sound(container, sound) for sound in clip.sounds]
        texts = [_add_text(container, text) for text in clip.texts]
        cover = _add_cover(container) if clip.cover else None
        container.set_chapters(
            [
                {
                    "id": number,
                    "start": round(begin * 1000),
                    "end": round(end * 1000),
                    "time_base": Fraction(1, 1000),
                    "metadata": {"title": title},
                }
                for number, (begin, end, title) in enumerate(clip.chapters)
            ]
        )
        container.start_encoding()
        if cover is not None:
            container.mux(cover)
        packets = []
        times = clip.times
        for index, time in enumerate(times):
            frame = _frame(clip, index)
            frame.pts, frame.time_base = round(time / clip.time_base), clip.time_base
            last = clip.last_seconds or 1 / clip.rate
            following = times[index + 1] if index + 1 < len(times) else time + last
            frame.duration = round((following - time) / clip.time_base)
            packets += picture.encode(frame)
        packets += picture.encode(None)
        length = float(times[-1] + 1 / clip.rate)
        for sound, stream in zip(clip.sounds, sounds, strict=True):
            packets += _sound_packets(stream, sound, length)
        for text, stream in zip(clip.texts, texts, strict=True):
            packets += _text_packets(stream, text)
        for packet in sorted(packets, key=lambda p: float((p.dts or 0) * p.time_base)):
            container.mux(packet)
    return path


def _add_picture(container, clip: Clip):
    stream = container.add_stream(
        clip.codec, rate=clip.rate, width=clip.width, height=clip.height, time_base=clip.time_base
    )
    context = stream.codec_context
    context.pix_fmt = clip.pix_fmt
    context.gop_size = clip.gop
    context.max_b_frames = clip.b_frames
    context.thread_count = 1
    context.flags |= Flags.frame_duration
    if clip.codec == "libx264":
        context.options = {"preset": "veryfast", "crf": "10", **clip.options}
        if clip.b_frames:
            context.options |= {"bf": str(clip.b_frames), "b-adapt": "0"}
    else:
        context.options = dict(clip.options)
    if clip.rotation or clip.hflip:
        stream.set_display_rotation(clip.rotation, hflip=clip.hflip)
    if clip.colours is not None:
        context.color_range, context.color_primaries, context.color_trc, context.colorspace = (
            clip.colours
        )
    if clip.pixel_aspect is not None:
        context.sample_aspect_ratio = clip.pixel_aspect
    return stream


def _frame(clip: Clip, index: int) -> av.VideoFrame:
    luma = stored_luma(clip, index)
    if clip.pix_fmt in ("gbrp", "bgr0", "rgb24"):
        rgb = np.ascontiguousarray(np.repeat(luma[:, :, None], 3, axis=2))
        return av.VideoFrame.from_ndarray(rgb, "rgb24").reformat(format=clip.pix_fmt)
    frame = av.VideoFrame(clip.width, clip.height, clip.pix_fmt)
    deep = frame.format.components[0].bits - 8
    kind = np.uint16 if deep else np.uint8
    for number, plane in enumerate(frame.planes):
        memory = np.frombuffer(memoryview(plane), kind)
        samples = memory.reshape(plane.height, -1)[:, : plane.width]
        samples[...] = 128 << deep if number else luma.astype(kind) << deep
    return frame


def _add_cover(container) -> av.Packet:
    maker = av.CodecContext.create("mjpeg", "w")
    maker.width, maker.height, maker.pix_fmt = 32, 32, "yuvj420p"
    maker.time_base = Fraction(1, 25)
    frame = av.VideoFrame(32, 32, "yuvj420p")
    for plane in frame.planes:
        np.frombuffer(memoryview(plane), np.uint8)[:] = 128
    packet = maker.encode(frame)[0]
    stream = container.add_mux_stream("mjpeg", width=32, height=32)
    stream.disposition = av.stream.Disposition.attached_pic
    packet.stream = stream
    packet.pts = packet.dts = 0
    return packet


def _add_sound(container, sound: Sound):
    stream = container.add_stream(sound.codec, rate=sound.rate, layout=sound.layout)
    stream.metadata["language"] = sound.language
    return stream


def _sound_packets(stream, sound: Sound, length: float) -> list[av.Packet]:
    seconds = sound.seconds if sound.seconds is not None else length - sound.start_seconds
    time = np.arange(round(seconds * sound.rate)) / sound.rate
    wave = (0.3 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)
    channels = len(av.AudioLayout(sound.layout).channels)
    packets = []
    for begin in range(0, len(wave), 1024):
        part = np.ascontiguousarray(np.tile(wave[begin : begin + 1024], (channels, 1)))
        frame = av.AudioFrame.from_ndarray(part, "fltp", sound.layout)
        frame.sample_rate, frame.time_base = sound.rate, Fraction(1, sound.rate)
        frame.pts = begin + round(sound.start_seconds * sound.rate)
        packets += stream.encode(frame)
    return packets + stream.encode(None)


def _add_text(container, text: Text):
    stream = container.add_stream(text.codec)
    stream.metadata["language"] = text.language
    stream.codec_context.time_base = Fraction(1, 1000)
    stream.codec_context.subtitle_header = _ASS_HEADER
    return stream


_ASS_HEADER = b"""[Script Info]
ScriptType: v4.00+

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, \
Italic, Underline, StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, \
Alignment, MarginL, MarginR, MarginV, Encoding
Style: Default,Arial,16,&Hffffff,&Hffffff,&H0,&H0,0,0,0,0,100,100,0,0,1,1,0,2,10,10,10,0

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""


def _text_packets(stream, text: Text) -> list[av.Packet]:
    from av.subtitles.subtitle import SubtitleSet

    packets = []
    for number, (begin, end, words) in enumerate(text.lines):
        line = f"{number},0,Default,,0,0,0,,{words}".encode()
        lines = SubtitleSet.create(line, 0, round((end - begin) * 1000))
        packet = stream.codec_context.encode_subtitle(lines)
        packet.time_base = Fraction(1, 1000)
        packet.pts = packet.dts = round(begin * 1000)
        packet.duration = round((end - begin) * 1000)
        packet.stream = stream
        packets.append(packet)
    return packets


def cut_short(path: Path, share: float = 0.5) -> Path:
    """Truncate a file in place to a share of its bytes."""
    whole = path.read_bytes()
    path.write_bytes(whole[: round(len(whole) * share)])
    return path


def make_song(path: Path, *, cover: bool = False) -> Path:
    """Write a second of sound without a picture, or with one on its cover alone."""
    with av.open(str(path), "w") as container:
        sound = Sound()
        stream = _add_sound(container, sound)
        front = _add_cover(container) if cover else None
        container.start_encoding()
        if front is not None:
            container.mux(front)
        for packet in _sound_packets(stream, sound, 1.0):
            container.mux(packet)
    return path


def packets_of(path: Path, kind: str) -> list[list[tuple[Fraction, bytes]]]:
    """Return (time, bytes) of every packet, a list a stream of a kind, in file order."""
    with av.open(str(path)) as container:
        streams = [s for s in container.streams if s.type == kind]
        found: dict[int, list[tuple[Fraction, bytes]]] = {s.index: [] for s in streams}
        if streams:
            for packet in container.demux(*streams):
                if packet.size:
                    time = (packet.pts or 0) * packet.time_base
                    found[packet.stream_index].append((time, bytes(packet)))
        return list(found.values())


def decoded_times(path: Path) -> list[Fraction]:
    """Return the presentation time of every frame of the first video stream."""
    with av.open(str(path)) as container:
        return [f.pts * f.time_base for f in container.decode(video=0)]


def decoded_luma(path: Path) -> list[NDArray[np.uint8]]:
    """Return the luma of every frame of a planar 8-bit video, as stored."""
    found = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            plane = frame.planes[0]
            rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
            found.append(rows[:, : plane.width].copy())
    return found
