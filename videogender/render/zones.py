"""Zones and lines on a canvas: thin outlines, names and counts."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from videogender.render.canvas import Canvas, Rgb, Stencil
from videogender.zones.figures import Whereabouts
from videogender.zones.plan import Plan, Points

__all__ = ["draw_zones"]

# White on black stands apart from the colours of the labels.
_LIGHT: Rgb = (255, 255, 255)
_DARK: Rgb = (16, 16, 16)
_SHADE = 0.65
_LEAST_TEXT_PX = 10
# Outlines are drawn this much larger and shrunk, which smooths slanted ones.
_SMOOTH = 2
# Points beyond the picture by more than this many times its sides are pulled nearer.
_FAR = 50


def draw_zones(canvas: Canvas, where: Whereabouts) -> None:
    """Draw the outline of each zone with its name and the faces in it now, and of each line.

    Lines have an arrow in the direction that counts as `in`, and say how many faces went over them
    so far, unless faces are not followed.

    Args:
        canvas: the pixels of the frame.
        where: what is to be written.
    """
    rims, lines = _outlines(where.plan, canvas.width, canvas.height)
    canvas.trace(rims, _DARK)
    canvas.trace(lines, _LIGHT)
    size_px = max(_LEAST_TEXT_PX, round(6 + min(canvas.width, canvas.height) / 55))
    taken: list[tuple[int, int, int, int]] = []
    for text, points in zip(_texts(where), where.plan.zones + where.plan.lines, strict=True):
        mask = _rendered(text, size_px)
        x, y = _place(points, mask, canvas, taken)
        canvas.fill((x, y, x + mask.shape[1], y + mask.shape[0]), _DARK, _SHADE)
        canvas.stamp(x, y, mask, _LIGHT)
        taken.append((x, y, x + mask.shape[1], y + mask.shape[0]))


def _texts(where: Whereabouts) -> list[str]:
    """Return what is written beside each zone and each line."""
    plan = where.plan
    texts = [f"{name} {count}" for name, count in zip(plan.zone_names, where.counts, strict=True)]
    if where.crossed is None:
        return [*texts, *plan.line_names]
    for name, (inward, outward) in zip(plan.line_names, where.crossed.tolist(), strict=True):
        texts.append(f"{name} in {inward} out {outward}")
    return texts


def _place(
    points: Points,
    mask: NDArray[np.uint8],
    canvas: Canvas,
    taken: list[tuple[int, int, int, int]],
) -> tuple[int, int]:
    """Choose where a text goes: by the highest point, in the picture, below what is there."""
    height, width = mask.shape
    left, top = min(points, key=lambda point: (point[1], point[0]))
    limits = canvas.width - width, canvas.height - height
    x, y = (
        max(0, min(round(value) + 4, limit)) // 2 * 2
        for value, limit in zip((left, top), limits, strict=True)
    )
    for a, b, c, d in sorted(taken, key=lambda box: box[1]):
        if x < c and a < x + width and y < d and b < y + height and d <= limits[1]:
            y = d
    return x, y


@lru_cache(maxsize=32)  # a live view may have many sources
def _outlines(plan: Plan, width: int, height: int) -> tuple[Stencil, Stencil]:
    """Return the dark rims and the light lines over them."""
    thick = max(2.0, min(width, height) / 400)
    masks = []
    for extra in (2.0, 0.0):
        image = Image.new("L", (width * _SMOOTH, height * _SMOOTH))
        draw = ImageDraw.Draw(image)
        stroke = round((thick + extra) * _SMOOTH)
        for points in plan.zones:
            near = _near(points, width, height)
            draw.line([*near, near[0], near[1]], fill=255, width=stroke, joint="curve")
        for points in plan.lines:
            near = _near(points, width, height)
            draw.line(near, fill=255, width=stroke)
            draw.line(_arrow(near, 5 * thick * _SMOOTH), fill=255, width=stroke, joint="curve")
        masks.append(Stencil.of(np.asarray(image.reduce(_SMOOTH))))
    return masks[0], masks[1]


def _near(points: Points, width: int, height: int) -> list[tuple[float, float]]:
    limit_x, limit_y = _FAR * width, _FAR * height
    return [
        (
            max(-limit_x, min(x, limit_x)) * _SMOOTH,
            max(-limit_y, min(y, limit_y)) * _SMOOTH,
        )
        for x, y in points
    ]


def _arrow(ends: list[tuple[float, float]], size: float) -> list[tuple[float, float]]:
    """Return a shaft from the middle of a line to its right, and the head at its end."""
    (ax, ay), (bx, by) = ends
    along = np.array([bx - ax, by - ay])
    along /= max(float(np.hypot(*along)), 1e-9)
    right = np.array([-along[1], along[0]])  # y points downward
    middle = np.array([ax + bx, ay + by]) / 2
    tip = middle + 2 * size * right
    path = [middle, tip, tip - size * (right + along), tip, tip - size * (right - along)]
    return [(float(x), float(y)) for x, y in path]


@lru_cache(maxsize=64)
def _font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size_px)


@lru_cache(maxsize=256)
def _rendered(text: str, size_px: int) -> NDArray[np.uint8]:
    """Render text with a margin: uint8 [H, W], both even; H depends on the size alone."""
    font = _font(size_px)
    left, _, right, _ = font.getbbox(text)
    _, top, _, bottom = font.getbbox("Mfgl")
    pad = max(2, round(0.3 * size_px))
    width, height = round(right - left) + 2 * pad, round(bottom - top) + pad
    image = Image.new("L", (width + width % 2, height + height % 2))
    ImageDraw.Draw(image).text((pad - left, pad / 2 - top), text, fill=255, font=font)
    return np.array(image)
