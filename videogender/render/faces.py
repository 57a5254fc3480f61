"""Faces on a canvas: boxes or corners coloured by label, chips that name it, obscured faces."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from videogender.config import LabelSettings, RenderSettings
from videogender.errors import ConfigError
from videogender.frames import Faces, Label
from videogender.render.canvas import Canvas, Rgb

__all__ = ["COLOURS", "STYLES", "draw_faces"]

STYLES = ("box", "corners", "none")

# From the palette of Okabe and Ito ("Color Universal Design", 2008), which stays apart in the
# common colour vision deficiencies; all three are light enough for near-black text.
COLOURS: dict[Label, Rgb] = {
    "female": (230, 159, 0),
    "male": (86, 180, 233),
    "unsure": (190, 190, 190),
}
# For classes of a fine-tuned head where no gender is known, by their order; of the same palette.
CLASS_COLOURS: tuple[Rgb, ...] = (
    (0, 158, 115),
    (240, 228, 66),
    (204, 121, 167),
    (213, 94, 0),
    (86, 180, 233),
    (230, 159, 0),
)
_INK: Rgb = (16, 16, 16)

_LEAST_TEXT_PX = 10

_Span = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class _Scale:
    """Sizes in pixels that follow the picture's shorter side; even, as chroma samples are."""

    line: int
    halo: int
    text: int

    @classmethod
    def of(cls, canvas: Canvas) -> _Scale:
        short = min(canvas.width, canvas.height)
        line = 2 * max(1, round(short / 400))
        return cls(line, line // 2, max(_LEAST_TEXT_PX, round(6 + short / 45)))


def draw_faces(canvas: Canvas, faces: Faces, label: LabelSettings, render: RenderSettings) -> None:
    """Draw the faces of one frame.

    Faces are obscured first (`render.blur`), then outlined in the colour of their label
    (`render.style`), then named (`render.labels`): `female 0.93` and `male 0.88` with the
    probability of that label, `unsure` without. Where a fine-tuned head answered, its class stands
    behind (`female 0.93 / mask 0.88`), or alone with colours of its own where no gender is known.
    The outlines of predicted faces are dashed.

    Args:
        canvas: the pixels of the frame that `faces` was found in.
        faces: boxes in the canvas's pixels; they may reach past its edges.
        label: the threshold below which a label is `unsure`.
        render: what to draw.

    Raises:
        ConfigError: the style is unknown.
    """
    if render.style not in STYLES:
        raise ConfigError(f"unknown style {render.style!r}: choose one of {', '.join(STYLES)}")
    if not len(faces):
        return
    if render.blur:
        for x0, y0, x1, y1 in faces.boxes.tolist():
            canvas.obscure((x0, y0, x1, y1))
    if render.style == "none" and not render.labels:
        return
    scale = _Scale.of(canvas)
    outlines = _outlines(faces.boxes, canvas, scale.line)
    seen = np.flatnonzero((outlines[:, 2:] > outlines[:, :2]).all(axis=1))
    if not len(seen):
        return
    outlines = outlines[seen]
    tags = _tags(faces, label.unsure_below)
    texts, colours = [tags[i].text for i in seen], [tags[i].colour for i in seen]
    if render.style != "none":
        dashed = faces.predicted[seen].tolist() if len(faces.predicted) else [False] * len(seen)
        lines = list(zip(outlines.tolist(), colours, dashed, strict=True))
        for outline, colour, is_dashed in reversed(lines):
            spans = _spans(outline, scale.line, render.style)
            if is_dashed:
                spans = [dash for span in spans for dash in _dashes(span, scale.line)]
            _draw_spans(canvas, spans, colour, scale.halo)
    if render.labels:
        boxes = faces.boxes[seen]
        masks = [
            _chip_mask(text, _text_px(scale, height), canvas.width)
            for text, height in zip(texts, (boxes[:, 3] - boxes[:, 1]).tolist(), strict=True)
        ]
        places = _place(masks, outlines, canvas)
        for (x, y), mask, colour in zip(places, masks, colours, strict=True):
            canvas.fill((x, y, x + mask.shape[1], y + mask.shape[0]), colour)
            canvas.stamp(x, y, mask, _INK)


def _outlines(boxes: NDArray[np.float32], canvas: Canvas, line: int) -> NDArray[np.int64]:
    """Return the outer edges of the lines around boxes: even numbers, inside the canvas."""
    grown = boxes.astype(np.float64) + np.array([-line, -line, line, line])
    limit = np.array([canvas.width, canvas.height] * 2)
    edges: NDArray[np.int64] = np.clip(2 * np.round(grown / 2), 0, limit).astype(np.int64)
    return edges


def _spans(outline: list[int], line: int, style: str) -> list[_Span]:
    """Return the lines of one face: xyxy rectangles, `line` px thick."""
    x0, y0, x1, y1 = outline
    reach = max(3 * line, min(x1 - x0, y1 - y0) // 4)
    if style == "box" or 2 * reach >= min(x1 - x0, y1 - y0):
        return [
            (x0, y0, x1, y0 + line),
            (x0, y1 - line, x1, y1),
            (x0, y0 + line, x0 + line, y1 - line),
            (x1 - line, y0 + line, x1, y1 - line),
        ]
    spans = []
    for left, right in ((x0, x0 + reach), (x1 - reach, x1)):
        spans += [(left, y0, right, y0 + line), (left, y1 - line, right, y1)]
    for top, bottom in ((y0, y0 + reach), (y1 - reach, y1)):
        spans += [(x0, top, x0 + line, bottom), (x1 - line, top, x1, bottom)]
    return spans


def _dashes(span: _Span, line: int) -> list[_Span]:
    """Cut a line into dashes of twice its thickness with gaps as long, from its middle outward."""
    x0, y0, x1, y1 = span
    along_x = x1 - x0 >= y1 - y0
    start, end = (x0, x1) if along_x else (y0, y1)
    dash = 2 * line
    first = start + (end - start - dash) // 2 % (2 * dash) - 2 * dash
    first -= first % 2
    pieces = []
    for low in range(first, end, 2 * dash):
        a, b = max(low, start), min(low + dash, end)
        if a < b:
            pieces.append((a, y0, b, y1) if along_x else (x0, a, x1, b))
    return pieces


def _draw_spans(canvas: Canvas, spans: list[_Span], rgb: Rgb, halo: int) -> None:
    """Draw the lines of one face over a dark rim that keeps them visible on any background."""
    for a, b, c, d in spans:
        canvas.fill((a - halo, b - halo, c + halo, d + halo), _INK)
    for span in spans:
        canvas.fill(span, rgb)


@dataclass(frozen=True, slots=True)
class _Tag:
    """What a face is called, and in which colour."""

    text: str
    colour: Rgb


def _tags(faces: Faces, unsure_below: float) -> list[_Tag]:
    """Name each face by its gender, by a fine-tuned head's class, or by both."""
    female = faces.female.tolist()
    genders = [
        _Tag(_text(label, p if label == "female" else 1 - p), COLOURS[label])
        for label, p in zip(faces.labels(unsure_below), female, strict=True)
    ]
    if not faces.classes:
        return genders
    tags = []
    answers = faces.attribute_labels(unsure_below)
    for gender, p_female, (name, p) in zip(genders, female, answers, strict=True):
        if math.isnan(p_female):
            tags.append(_Tag(_text(name, p), _class_colour(faces.classes, name)))
        elif math.isnan(p):  # the head was not asked
            tags.append(gender)
        else:
            tags.append(_Tag(f"{gender.text} / {_text(name, p)}", gender.colour))
    return tags


def _text(name: str, probability: float) -> str:
    return name if name == "unsure" else f"{name} {probability:.2f}"


def _class_colour(classes: tuple[str, ...], name: str) -> Rgb:
    if name not in classes:
        return COLOURS["unsure"]
    return CLASS_COLOURS[classes.index(name) % len(CLASS_COLOURS)]


def _text_px(scale: _Scale, face_height: float) -> int:
    """Return a text size: smaller beside small faces, so that a crowd keeps its own pixels."""
    return round(min(scale.text, max(_LEAST_TEXT_PX, 0.65 * scale.text, 0.3 * face_height)))


def _chip_mask(text: str, size_px: int, width_limit: int) -> NDArray[np.uint8]:
    """Return the text in a margin, smaller where the picture is too narrow for it."""
    mask = _rendered(text, size_px)
    while mask.shape[1] > width_limit and size_px > 5:
        size_px -= 1
        mask = _rendered(text, size_px)
    return mask


@lru_cache(maxsize=64)
def _font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size_px)


@lru_cache(maxsize=1024)
def _rendered(text: str, size_px: int) -> NDArray[np.uint8]:
    """Render text centred between its margins.

    Returns:
        uint8 [H, W], read-only, both even; H depends on the size alone.
    """
    font = _font(size_px)
    left, _, right, _ = font.getbbox(text)
    _, top, _, bottom = font.getbbox("Mfl")
    pad_x, pad_y = max(2, round(0.3 * size_px)), max(2, round(0.22 * size_px))
    width, height = round(right - left) + 2 * pad_x, round(bottom - top) + 2 * pad_y
    image = Image.new("L", (width + width % 2, height + height % 2))
    ImageDraw.Draw(image).text((pad_x - left, pad_y - top), text, fill=255, font=font)
    mask = np.array(image)
    mask.setflags(write=False)
    return mask


def _place(
    masks: list[NDArray[np.uint8]], outlines: NDArray[np.int64], canvas: Canvas
) -> list[tuple[int, int]]:
    """Choose a place for each chip: in the picture, off other chips, and off faces if it can.

    The order of preference is above the box, below it, inside it at the top and at the bottom,
    aligned to its left edge before its right; then rows further up and down, then beside it.

    Returns:
        The top left corner of each chip, in the order of `masks`.
    """
    size = np.array([mask.shape[::-1] for mask in masks])[:, None]  # [N, 1, 2] width, height
    width, height = size[..., 0], size[..., 1]
    x0, y0, x1, y1 = (outlines[:, i, None] for i in range(4))
    left, right = x0, x1 - width
    x = np.hstack([left, right] * 4 + [left] * 4 + [x0 - width, x1] * 2)
    y = np.hstack(
        [y0 - height] * 2 + [y1] * 2 + [y0] * 2 + [y1 - height] * 2
        + [y0 - 2 * height, y1 + height, y0 - 3 * height, y1 + 2 * height]
        + [y0] * 2 + [y1 - height] * 2
    )  # fmt: skip
    # Even corners keep chroma samples whole; a chip never leaves the picture for it.
    x = np.clip(x, 0, np.maximum(canvas.width - width, 0)) // 2 * 2
    y = np.clip(y, 0, np.maximum(canvas.height - height, 0)) // 2 * 2
    chips = np.stack([x, y, x + width, y + height], -1)  # [N, 16, 4]
    over_faces = _overlaps(chips, outlines)  # [N, 16, N]
    itself = np.arange(len(masks))
    over_faces[itself, :, itself] *= 0.25  # covering one's own face is a lesser evil
    cost = over_faces.sum(-1) / (width * height) + np.linspace(0, 0.5, x.shape[1])
    taken = np.zeros((0, 4), np.int64)
    places = []
    for candidates, extra in zip(chips, cost, strict=True):
        clash = _overlaps(candidates, taken).sum(-1)
        best = int(np.argmin(extra + 100.0 * (clash > 0) + clash))
        taken = np.vstack([taken, candidates[best]])
        places.append((int(candidates[best, 0]), int(candidates[best, 1])))
    return places


def _overlaps(boxes: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the shared areas in pixels of boxes [..., 4] and others [M, 4], as [..., M]."""
    boxes = boxes[..., None, :]
    sides = np.minimum(boxes[..., 2:], others[:, 2:]) - np.maximum(boxes[..., :2], others[:, :2])
    areas: NDArray[np.float64] = np.maximum(sides, 0).prod(-1).astype(np.float64)
    return areas
