"""Make samples/clip.mp4: four portraits that drift, grow, shrink and get covered.

    python samples/make_clip.py [OUTPUT]

The stills lie beside this script (README.md tells where they come from), so nothing is fetched.
Every frame is a function of its number alone, and the encoder runs in one thread: the same
versions of PyAV, Pillow and NumPy give the same file.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

HERE = Path(__file__).resolve().parent
WIDTH, HEIGHT = 1280, 720
FPS = 25
FRAME_COUNT = 250
SAMPLE_RATE = 48000
AUDIO_BLOCK = 1024  # samples an AAC frame

_BT709 = 1  # code point of primaries, transfer and matrix in ITU-T H.273
_LIMITED_RANGE = 1
_SHADOW_PX = 24


@dataclass(frozen=True)
class Portrait:
    """A still and its way: centre in pixels and height in pixels, at the start and at the end."""

    name: str
    start_xyh: tuple[float, float, float]
    end_xyh: tuple[float, float, float]
    sway_px: float
    sway_seconds: float


# Back to front. Faces take about a quarter to a third of these heights.
PORTRAITS = (
    Portrait("obama", (690, 290, 500), (662, 150, 150), 8, 3.1),
    Portrait("biden", (1118, 175, 250), (1040, 322, 540), 6, 3.7),
    Portrait("collins", (1090, 540, 340), (640, 520, 330), 10, 2.6),
    Portrait("hopper", (232, 380, 520), (282, 366, 640), 6, 4.3),
)
BAR_X, BAR_WIDTH = 842, 44  # a pillar in front of everybody; Collins passes behind it
BALL_SECONDS = (2.6, 6.2)  # a ball rolls through the picture, across Hopper's face
BALL_RADIUS = 62


def main() -> None:
    """Write the clip to the path given, or beside this script."""
    output = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "clip.mp4"
    write_clip(output)
    print(f"{output}: {FRAME_COUNT} frames, {output.stat().st_size / 1e6:.2f} MB")


def write_clip(output: Path, frame_count: int = FRAME_COUNT) -> None:
    """Render and encode the first frames of the clip: H.264 and AAC in MP4."""
    with av.open(str(output), "w", options={"movflags": "faststart"}) as container:
        container.metadata["title"] = "Four portraits in motion"
        container.metadata["comment"] = "Photographs: NASA, US Navy, Pete Souza / The White House"
        video = container.add_stream("libx264", rate=FPS, options={"crf": "25", "preset": "slow"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        video.codec_context.thread_count = 1
        video.codec_context.color_primaries = _BT709
        video.codec_context.color_trc = _BT709
        video.codec_context.colorspace = _BT709
        video.codec_context.color_range = _LIMITED_RANGE
        audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="stereo", bit_rate=96_000)
        sound = soft_chords()
        position = 0
        for index in range(frame_count):
            picture = av.VideoFrame.from_ndarray(render_frame(index), format="rgb24")
            picture = picture.reformat(
                format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG"
            )
            picture.pts, picture.time_base = index, Fraction(1, FPS)
            container.mux(video.encode(picture))
            until = (index + 1) * SAMPLE_RATE // FPS
            while position < until:
                block = sound[:, position : position + AUDIO_BLOCK]
                samples = av.AudioFrame.from_ndarray(
                    np.ascontiguousarray(block), format="fltp", layout="stereo"
                )
                samples.sample_rate = SAMPLE_RATE
                samples.pts, samples.time_base = position, Fraction(1, SAMPLE_RATE)
                container.mux(audio.encode(samples))
                position += block.shape[1]
        container.mux(video.encode(None))
        container.mux(audio.encode(None))


def render_frame(index: int) -> NDArray[np.uint8]:
    """Return frame `index`, HWC uint8 RGB."""
    seconds = index / FPS
    scene = _backdrop().copy()
    for portrait in PORTRAITS:
        _paste_portrait(scene, portrait, seconds)
    scene.alpha_composite(_bar(), (BAR_X, 0))
    begin, end = BALL_SECONDS
    if begin < seconds < end:
        way = (seconds - begin) / (end - begin)
        x = -1.5 * BALL_RADIUS + way * (WIDTH + 3 * BALL_RADIUS)
        y = 325 + 60 * math.sin(3 * math.pi * way)
        _paste_ball(scene, x, y)
    return np.asarray(scene.convert("RGB"))


def _ease(way: float) -> float:
    """Run from 0 to 1 with a soft start and a soft end."""
    return way * way * (3 - 2 * way)


def _paste_portrait(scene: Image.Image, portrait: Portrait, seconds: float) -> None:
    way = _ease(seconds * FPS / (FRAME_COUNT - 1))
    x, y, height = (
        a + way * (b - a) for a, b in zip(portrait.start_xyh, portrait.end_xyh, strict=True)
    )
    turn = 2 * math.pi * seconds / portrait.sway_seconds
    x += portrait.sway_px * math.sin(turn)
    y += 0.6 * portrait.sway_px * math.sin(0.7 * turn + 1)
    levels = _levels(portrait.name)
    whole = levels[0].height - 2 * _SHADOW_PX
    scale = height / whole
    # Smaller copies are made once; the bicubic transform then shrinks by less than sqrt(2), which
    # moves by fractions of a pixel without shimmer.
    level = min(int(max(0.0, -2 * math.log2(scale))), len(levels) - 1)
    print_ = levels[level]
    scale *= levels[0].height / print_.height
    half_w, half_h = print_.width * scale / 2, print_.height * scale / 2
    left, top = math.floor(x - half_w), math.floor(y - half_h)
    size = (math.ceil(2 * half_w) + 2, math.ceil(2 * half_h) + 2)
    offset = ((left - x + half_w) / scale, (top - y + half_h) / scale)
    matrix = (1 / scale, 0, offset[0], 0, 1 / scale, offset[1])
    moved = print_.transform(
        size, Image.Transform.AFFINE, matrix, resample=Image.Resampling.BICUBIC
    )
    _composite(scene, moved.convert("RGBA"), left, top)


def _composite(scene: Image.Image, layer: Image.Image, left: int, top: int) -> None:
    """Lay an RGBA layer over the scene, cut to the scene's edges."""
    cut = (max(0, -left), max(0, -top))
    right = min(layer.width, scene.width - left)
    bottom = min(layer.height, scene.height - top)
    if cut[0] < right and cut[1] < bottom:
        layer = layer.crop((*cut, right, bottom))
        scene.alpha_composite(layer, (left + cut[0], top + cut[1]))


@cache
def _levels(name: str) -> tuple[Image.Image, ...]:
    """Return the print of a still with white border and shadow, each sqrt(2) times smaller.

    The mode is RGBa (premultiplied), which may be interpolated.
    """
    with Image.open(HERE / "stills" / f"{name}.jpg") as still:
        photo = still.convert("RGB")
    border = round(0.018 * photo.height)
    sheet_wh = (photo.width + 2 * border, photo.height + 2 * border)
    size = (sheet_wh[0] + 2 * _SHADOW_PX, sheet_wh[1] + 2 * _SHADOW_PX)
    shade = Image.new("L", size)
    sheet_box = (_SHADOW_PX, _SHADOW_PX, _SHADOW_PX + sheet_wh[0] - 1, _SHADOW_PX + sheet_wh[1] - 1)
    ImageDraw.Draw(shade).rectangle(sheet_box, fill=120)
    print_ = Image.new("RGBA", size, (20, 22, 30, 0))
    print_.putalpha(shade.filter(ImageFilter.GaussianBlur(_SHADOW_PX / 3)))
    ImageDraw.Draw(print_).rectangle(sheet_box, fill=(244, 243, 240, 255))
    print_.paste(photo, (_SHADOW_PX + border, _SHADOW_PX + border))
    first = print_.convert("RGBa")
    levels = [first]
    while levels[-1].height > 150:
        shrink = math.sqrt(2) ** len(levels)
        wh = (round(first.width / shrink), round(first.height / shrink))
        levels.append(first.resize(wh, Image.Resampling.BOX))
    return tuple(levels)


@cache
def _backdrop() -> Image.Image:
    """Return a plain wall, lighter at the top left, and a darker floor."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH].astype(np.float64)
    light = 1.06 - 0.3 * np.hypot(columns / WIDTH - 0.3, rows / HEIGHT - 0.2)
    floor = 1 / (1 + np.exp(-(rows - 600) / 5))
    wall = np.array([166.0, 176, 178]) * (1 - floor[..., None])
    wall += np.array([118.0, 112, 106]) * floor[..., None]
    # A grain that does not move breaks up the bands of so smooth a gradient.
    grain = np.random.default_rng(7).normal(0, 1.2, (HEIGHT, WIDTH, 1))
    colours = (wall * light[..., None] + grain).clip(0, 255).astype(np.uint8)
    return Image.fromarray(colours).convert("RGBA")


@cache
def _bar() -> Image.Image:
    """Return a round pillar, shaded from side to side."""
    across = np.linspace(-1, 1, BAR_WIDTH)
    shade = 0.55 + 0.45 * np.sqrt(1 - 0.9 * (across - 0.2).clip(-1, 1) ** 2)
    row = (shade[:, None] * np.array([146, 120, 92])).astype(np.uint8)
    return Image.fromarray(np.repeat(row[None], HEIGHT, 0)).convert("RGBA")


def _paste_ball(scene: Image.Image, x: float, y: float) -> None:
    left, top = math.floor(x) - BALL_RADIUS - 2, math.floor(y) - BALL_RADIUS - 2
    side = 2 * BALL_RADIUS + 5
    rows, columns = np.mgrid[:side, :side].astype(np.float64)
    across, down = columns + 0.5 + left - x, rows + 0.5 + top - y
    radius = np.hypot(across, down)
    shade = 1 - 0.45 * np.hypot(across + 22, down + 26) / BALL_RADIUS
    colours = shade[..., None] * np.array([64, 152, 134])
    alpha = 255 * (BALL_RADIUS + 0.5 - radius).clip(0, 1)
    layer = np.dstack([colours.clip(0, 255), alpha]).round().astype(np.uint8)
    _composite(scene, Image.fromarray(layer), left, top)


def soft_chords() -> NDArray[np.float32]:
    """Return four quiet chords that fade into each other: float32 [2, samples], -1 to 1."""
    count = SAMPLE_RATE * FRAME_COUNT // FPS
    seconds = np.arange(count) / SAMPLE_RATE
    chords = ((220.0, 277.18, 329.63), (185.0, 220.0, 277.18), (146.83, 220.0, 293.66),
              (164.81, 207.65, 246.94))  # fmt: skip
    length = seconds[-1] / len(chords)
    sound = np.zeros((2, count))
    for number, chord in enumerate(chords):
        nearness = 1 - np.abs(seconds - (number + 0.5) * length) / length
        swell = np.sin(0.5 * np.pi * nearness.clip(0, 1)) ** 2
        for voice, hertz in enumerate(chord):
            tone = np.sin(2 * np.pi * hertz * seconds) + 0.2 * np.sin(4 * np.pi * hertz * seconds)
            pan = 0.3 + 0.2 * voice
            sound += np.array([[1 - pan], [pan]]) * swell * tone
    edges = np.minimum(seconds, seconds[-1] - seconds).clip(0, 0.5) / 0.5
    quiet: NDArray[np.float32] = (0.08 * sound * edges).astype(np.float32)
    return quiet


if __name__ == "__main__":
    main()
