"""The head-up display: a few lines of figures in the corner of a picture, and notes across it."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from videogender.live.stats import LiveStats, came_back
from videogender.render import Canvas

__all__ = ["KEYS", "draw_hud", "draw_keys", "draw_note", "lines_of"]

KEYS = "q quit   space pause   s still   h figures"

_INK, _PAPER = (240, 240, 240), (16, 16, 16)
_SHADE = 0.6
_LEAST_TEXT_PX = 11


def lines_of(stats: LiveStats) -> list[str]:
    """Put the figures of a source into a few short lines."""
    latency = "-"
    if not math.isnan(stats.latency_ms_p50):
        latency = f"{stats.latency_ms_p50:.0f} ms, p95 {stats.latency_ms_p95:.0f} ms"
    lines = [
        f"{stats.source}",
        f"{stats.fps_in:.1f} fps in, {stats.fps_out:.1f} out, {stats.dropped} dropped",
        f"latency {latency}",
        f"{stats.faces} faces: {stats.female} female, {stats.male} male, {stats.unsure} unsure",
        f"{stats.device}",
    ]
    if stats.reconnects:
        lines.insert(2, came_back(stats.reconnects))
    return lines


def draw_hud(canvas: Canvas, stats: LiveStats) -> None:
    """Write a source's figures into the top left corner."""
    _write(canvas, lines_of(stats), at_bottom=False)


def draw_keys(canvas: Canvas, text: str = KEYS) -> None:
    """Write the keys into the bottom left corner."""
    _write(canvas, [text], at_bottom=True)


def draw_note(canvas: Canvas, text: str) -> None:
    """Darken the picture and write a note across its middle: why nothing moves in it."""
    canvas.fill((0, 0, canvas.width, canvas.height), _PAPER, alpha=_SHADE)
    size_px = _text_px(canvas)
    masks = [_rendered(line, size_px) for line in _broken(text, canvas.width, size_px)]
    y = (canvas.height - sum(mask.shape[0] for mask in masks)) // 2
    for mask in masks:
        canvas.stamp((canvas.width - mask.shape[1]) // 2, y, mask, _INK)
        y += mask.shape[0]


def _write(canvas: Canvas, lines: list[str], *, at_bottom: bool) -> None:
    size_px = _text_px(canvas)
    masks = [_rendered(line, size_px) for line in lines]
    height = sum(mask.shape[0] for mask in masks)
    width = min(max(mask.shape[1] for mask in masks), canvas.width)
    y = canvas.height - height if at_bottom else 0
    canvas.fill((0, y, width, y + height), _PAPER, alpha=_SHADE)
    for mask in masks:
        canvas.stamp(0, y, mask, _INK)
        y += mask.shape[0]


def _text_px(canvas: Canvas) -> int:
    return max(_LEAST_TEXT_PX, round(5 + min(canvas.width, canvas.height) / 50))


def _broken(text: str, width: int, size_px: int) -> list[str]:
    """Break a text into lines that fit."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and _rendered(longer, size_px).shape[1] <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


@lru_cache(maxsize=16)
def _font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size_px)


@lru_cache(maxsize=256)
def _rendered(text: str, size_px: int) -> NDArray[np.uint8]:
    """Render a line of text in a margin; uint8 [H, W], H depends on the size alone."""
    font = _font(size_px)
    left, _, right, _ = font.getbbox(text)
    _, top, _, bottom = font.getbbox("Mfgl")
    pad = max(2, round(0.3 * size_px))
    size = (round(right - left) + 2 * pad, round(bottom - top) + pad)
    image = Image.new("L", size)
    ImageDraw.Draw(image).text((pad - left, pad // 2 - top), text, fill=255, font=font)
    mask = np.array(image)
    mask.setflags(write=False)
    return mask
