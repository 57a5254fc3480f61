"""Canvas: fills, stamps and obscured regions, written in place into RGB or YUV 4:2:0 pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["Box", "Canvas", "Rgb", "Stencil"]

Box = tuple[float, float, float, float]
"""xyxy in pixels; a pixel belongs to the box from its left and top edge on."""

Rgb = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""

# Luma weights (Kr, Kb) of ITU-R BT.601-7 2.5.1, BT.709-6 3.2 and BT.2020-2 table 4.
_LUMA_WEIGHTS = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}

# An obscured face keeps this many cells along the longer side of its box, each an average over
# itself and half of its neighbours; small faces keep fewer.
_CELLS_ACROSS = 4
_LEAST_CELL_PX = 4
# An ellipse around a box that is this much larger on every side passes outside its corners:
# they lie at 2 / (1 + 2 * margin)^2 = 8/9 of its squared radius, where the soft rim begins.
_MARGIN = 0.25
_RIM_STARTS = 8 / 9


@dataclass(frozen=True, slots=True)
class _Plane:
    """One array of samples: `step` is 1 at full resolution, 2 for a chroma plane."""

    samples: NDArray[np.uint8]  # [H, W] or [H, W, 3]
    step: int


@dataclass(frozen=True, slots=True, eq=False)
class Stencil:
    """A mask of the size of a picture that is empty almost everywhere, such as thin lines.

    Attributes:
        size_wh: of the picture.
        fine: rows [N], columns [N] and weights [N] of its pixels that are not empty.
        coarse: the same for chroma samples.
    """

    size_wh: tuple[int, int]
    fine: tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.uint16]]
    coarse: tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.uint16]]

    @classmethod
    def of(cls, mask: NDArray[np.uint8]) -> Stencil:
        """Make one of a mask, uint8 [H, W], 0 leaves a pixel as it is, 255 replaces it."""
        height, width = mask.shape
        weights = mask.astype(np.uint16)
        halved = _halved(weights, 0, 0, width, height)
        rows, columns = np.nonzero(weights)
        half_rows, half_columns = np.nonzero(halved)
        return cls(
            (width, height),
            (rows, columns, weights[rows, columns]),
            (half_rows, half_columns, halved[half_rows, half_columns]),
        )


class Canvas:
    """Pixels to draw on; everything clips at the edges and touches only what it changes.

    Make one with `Canvas.from_rgb` or `Canvas.from_yuv420p`. Colours are always given as RGB.
    """

    def __init__(
        self,
        planes: tuple[_Plane, ...],
        size_wh: tuple[int, int],
        colour_code: tuple[str, bool] | None,
    ) -> None:
        self._planes = planes
        self._colour_code = colour_code  # matrix and full range, None for RGB
        self.width, self.height = size_wh

    @classmethod
    def from_rgb(cls, array: NDArray[np.uint8]) -> Canvas:
        """Draw on one HWC uint8 **RGB** array, in place.

        Raises:
            ValueError: the array has another shape or dtype, or is read-only.
        """
        if array.ndim != 3 or array.shape[2] != 3:
            raise ValueError(f"expected HWC RGB, got shape {array.shape}")
        _check_writable("rgb", array)
        return cls((_Plane(array, 1),), (array.shape[1], array.shape[0]), None)

    @classmethod
    def from_yuv420p(
        cls,
        y: NDArray[np.uint8],
        u: NDArray[np.uint8],
        v: NDArray[np.uint8],
        *,
        full_range: bool,
        matrix: str,
    ) -> Canvas:
        """Draw on three planes, in place.

        Args:
            y: uint8 [H, W]; a view whose rows are padded is fine.
            u: uint8 [ceil(H / 2), ceil(W / 2)], blue difference.
            v: like `u`, red difference.
            full_range: samples span 0 to 255 instead of 16 to 235 (240 for chroma).
            matrix: bt601, bt709 or bt2020.

        Raises:
            ValueError: shapes disagree, a plane is read-only or no uint8, or the matrix is unknown.
        """
        if matrix not in _LUMA_WEIGHTS:
            raise ValueError(f"unknown matrix {matrix!r}: one of {', '.join(_LUMA_WEIGHTS)}")
        if y.ndim != 2:
            raise ValueError(f"expected a luma plane [H, W], got shape {y.shape}")
        height, width = y.shape
        chroma_hw = (-(-height // 2), -(-width // 2))
        for name, plane in (("y", y), ("u", u), ("v", v)):
            _check_writable(name, plane)
            if name != "y" and plane.shape != chroma_hw:
                raise ValueError(f"expected {name} of shape {chroma_hw}, got {plane.shape}")
        planes = (_Plane(y, 1), _Plane(u, 2), _Plane(v, 2))
        return cls(planes, (width, height), (matrix, full_range))

    def fill(self, box: Box, rgb: Rgb, alpha: float = 1.0) -> None:
        """Blend a colour into a box, its edges rounded to whole pixels.

        Args:
            box: xyxy in pixels.
            rgb: the colour.
            alpha: 0 leaves the picture as it is, 1 replaces it.
        """
        x0, x1 = _clip_span(box[0], box[2], self.width)
        y0, y1 = _clip_span(box[1], box[3], self.height)
        opacity = round(255 * min(max(alpha, 0.0), 1.0))
        if x0 >= x1 or y0 >= y1 or not opacity:
            return
        whole = _covers_whole(x0, x1, self.width) and _covers_whole(y0, y1, self.height)
        chroma: int | NDArray[np.uint16] = opacity
        if self._colour_code is not None and not whole:
            columns = _chroma_coverage(x0, x1, self.width)
            rows = _chroma_coverage(y0, y1, self.height) * opacity
            chroma = (rows[:, None] * columns + 0.5).astype(np.uint16)
        for plane, value in zip(self._planes, self._values(rgb), strict=True):
            if plane.step == 1:
                _blend(plane.samples[y0:y1, x0:x1], value, opacity)
            else:
                part = plane.samples[y0 // 2 : (y1 + 1) // 2, x0 // 2 : (x1 + 1) // 2]
                _blend(part, value, chroma)

    def stamp(self, x: int, y: int, mask: NDArray[np.uint8], rgb: Rgb) -> None:
        """Blend a colour through a mask whose top left corner lies at (x, y).

        Args:
            x: column of the mask's first column; may lie outside.
            y: row of the mask's first row; may lie outside.
            mask: uint8 [H, W], 0 leaves a pixel as it is, 255 replaces it.
            rgb: the colour.
        """
        x0, x1 = max(x, 0), min(x + mask.shape[1], self.width)
        y0, y1 = max(y, 0), min(y + mask.shape[0], self.height)
        if x0 >= x1 or y0 >= y1:
            return
        weights = mask[y0 - y : y1 - y, x0 - x : x1 - x].astype(np.uint16)
        chroma: NDArray[np.uint16] | None = None
        for plane, value in zip(self._planes, self._values(rgb), strict=True):
            if plane.step == 1:
                part = plane.samples[y0:y1, x0:x1]
                _blend(part, value, weights if part.ndim == 2 else weights[..., None])
                continue
            if chroma is None:
                chroma = _halved(weights, x0, y0, self.width, self.height)
            part = plane.samples[y0 // 2 : (y1 + 1) // 2, x0 // 2 : (x1 + 1) // 2]
            _blend(part, value, chroma)

    def trace(self, stencil: Stencil, rgb: Rgb) -> None:
        """Blend a colour through a mask of the canvas's size: `stamp`, quicker for thin lines.

        Raises:
            ValueError: the stencil is of another size.
        """
        if stencil.size_wh != (self.width, self.height):
            raise ValueError(f"a stencil of {stencil.size_wh} on {(self.width, self.height)}")
        for plane, value in zip(self._planes, self._values(rgb), strict=True):
            rows, columns, weights = stencil.fine if plane.step == 1 else stencil.coarse
            part = plane.samples[rows, columns]
            _blend(part, value, weights if part.ndim == 1 else weights[:, None])
            plane.samples[rows, columns] = part

    def obscure(self, box: Box) -> None:
        """Make what lies in a box unrecognisable, for good.

        The box and an ellipse around it are replaced by a few smooth cells, about four along the
        longer side; the detail is averaged away, not hidden, so no filter brings it back.

        Args:
            box: xyxy in pixels; may reach past the edges.
        """
        box_w, box_h = box[2] - box[0], box[3] - box[1]
        if not (box_w > 0 and box_h > 0):
            return
        radius_x, radius_y = box_w * (0.5 + _MARGIN), box_h * (0.5 + _MARGIN)
        centre_x, centre_y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        x0, x1 = _clip_span(centre_x - radius_x, centre_x + radius_x, self.width, outward=True)
        y0, y1 = _clip_span(centre_y - radius_y, centre_y + radius_y, self.height, outward=True)
        if x0 >= x1 or y0 >= y1:
            return
        cell_px = max(max(box_w, box_h) / _CELLS_ACROSS, _LEAST_CELL_PX)
        cells_wh = (max(1, round((x1 - x0) / cell_px)), max(1, round((y1 - y0) / cell_px)))
        for plane in self._planes:
            step = plane.step
            left, top = x0 // step, y0 // step
            part = plane.samples[top : -(-y1 // step), left : -(-x1 // step)]
            across = (np.arange(part.shape[1], dtype=np.float32) + left + 0.5) * step - centre_x
            down = (np.arange(part.shape[0], dtype=np.float32) + top + 0.5) * step - centre_y
            steep = np.float32(255 / (1 - _RIM_STARTS))
            inside = (1 - (down / radius_y) ** 2)[:, None] - (across / radius_x) ** 2
            mask = np.clip(inside * steep, 0, 255).astype(np.uint8)
            before = Image.fromarray(np.ascontiguousarray(part))
            after = _smeared(before, cells_wh)
            part[...] = np.asarray(Image.composite(after, before, Image.fromarray(mask)))

    def _values(self, rgb: Rgb) -> tuple[NDArray[np.uint16], ...]:
        if self._colour_code is None:
            return (_rgb_value(rgb),)
        return _yuv_values(rgb, *self._colour_code)


def _check_writable(name: str, array: NDArray[np.uint8]) -> None:
    if array.dtype != np.uint8:
        raise ValueError(f"expected uint8 samples, {name} holds {array.dtype}")
    if not array.flags.writeable:
        raise ValueError(f"cannot draw: {name} is read-only")


def _clip_span(low: float, high: float, length: int, *, outward: bool = False) -> tuple[int, int]:
    """Round a span to whole pixels, to the nearest or outward, and clip it to [0, length]."""
    low, high = min(max(low, 0.0), length), min(max(high, 0.0), length)
    if outward:
        return math.floor(low), math.ceil(high)
    return math.floor(low + 0.5), math.floor(high + 0.5)


def _covers_whole(low: int, high: int, length: int) -> bool:
    """Tell whether a span of pixels covers every chroma sample that it touches."""
    return low % 2 == 0 and (high % 2 == 0 or high == length)


def _chroma_coverage(low: int, high: int, length: int) -> NDArray[np.float32]:
    """Return the covered share of each chroma sample that the pixels [low, high) touch."""
    share = np.ones((high + 1) // 2 - low // 2, np.float32)
    if low % 2:
        share[0] -= 0.5
    if high % 2 and high != length:  # the last sample of an odd length covers one pixel only
        share[-1] -= 0.5
    return share


def _halved(
    weights: NDArray[np.uint16], x0: int, y0: int, width: int, height: int
) -> NDArray[np.uint16]:
    """Average pixel weights that begin at (x0, y0) over the chroma samples they touch."""
    for axis, (low, length) in enumerate(((y0, height), (x0, width))):
        high = low + weights.shape[axis]
        pad = [(0, 0), (0, 0)]
        pad[axis] = (low % 2, high % 2)
        if pad[axis] != (0, 0):
            weights = np.pad(weights, pad)
        if high == length and high % 2:  # a lone last pixel speaks for its whole sample
            lone = weights.swapaxes(0, axis)
            lone[-1] = lone[-2]
    total = weights[0::2] + weights[1::2]
    halved: NDArray[np.uint16] = (total[:, 0::2] + total[:, 1::2] + np.uint16(2)) >> np.uint16(2)
    return halved


def _blend(
    part: NDArray[np.uint8], value: NDArray[np.uint16], weights: int | NDArray[np.uint16]
) -> None:
    """Move samples towards `value` in place; weights are 0 to 255, all arrays broadcast."""
    if isinstance(weights, int):
        if weights == 255:
            part[...] = value
            return
        weights = np.asarray(weights, np.uint16)
    wide = part.astype(np.uint16)
    mixed = wide * (255 - weights) + value * weights + np.uint16(128)
    part[...] = (mixed + (mixed >> 8)) >> 8  # exact rounded division by 255 within 16 bits


def _smeared(image: Image.Image, cells_wh: tuple[int, int]) -> Image.Image:
    """Average an image into a few cells that overlap, and spread these over its area again."""
    # Downward, Pillow's bilinear filter is a triangle over two cells: an average, no sampling.
    cells = image.resize(cells_wh, Image.Resampling.BILINEAR)
    return cells.resize(image.size, Image.Resampling.BICUBIC)


@lru_cache(maxsize=256)
def _rgb_value(rgb: Rgb) -> NDArray[np.uint16]:
    return np.array(rgb, np.uint16)


@lru_cache(maxsize=256)
def _yuv_values(rgb: Rgb, matrix: str, full_range: bool) -> tuple[NDArray[np.uint16], ...]:
    """Encode gamma-corrected RGB as 8-bit Y, Cb and Cr."""
    kr, kb = _LUMA_WEIGHTS[matrix]
    red, green, blue = (channel / 255 for channel in rgb)
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    chroma = ((blue - luma) / (2 - 2 * kb), (red - luma) / (2 - 2 * kr))
    low, luma_span, chroma_span = (0, 255, 255) if full_range else (16, 219, 224)
    codes = (low + luma_span * luma, *(128 + chroma_span * c for c in chroma))
    return tuple(np.array(min(max(round(code), 0), 255), np.uint16) for code in codes)
