"""DecodedPicture: the pixels of a decoded frame, converted only when and as far as asked for."""

from __future__ import annotations

import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import av
import numpy as np
from av.video.plane import VideoPlane
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from numpy.typing import NDArray

from videogender.frames import MEAN_RGB, RgbPicture
from videogender.opencv import opencv
from videogender.squares import binned, cut_squares

__all__ = [
    "DecodedPicture",
    "Orientation",
    "Scalers",
    "matrix_of",
    "rgb_of_yuv",
    "samples_of",
]

# Numbers of ITU-T H.273 table 4 (matrix coefficients), as libav uses them in AVColorSpace; 4 and 7
# (FCC, SMPTE 240M) stand with what they resemble.
_MATRICES = {1: "bt709", 4: "bt601", 5: "bt601", 6: "bt601", 7: "bt709", 9: "bt2020", 10: "bt2020"}
_SWSCALE_MATRICES = {
    "bt601": Colorspace.ITU601,
    "bt709": Colorspace.ITU709,
    "bt2020": Colorspace.BT2020,
}
_LUMA_SHARES = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}
_PLANAR = ("yuv420p", "yuvj420p")
_LIMITED_RANGE, _FULL_RANGE = 1, 2  # AVCOL_RANGE_MPEG, AVCOL_RANGE_JPEG
# Players take untagged video of this height and above for BT.709, smaller for BT.601.
_HD_HEIGHT = 720
_TINY_PX = 16


def matrix_of(colorspace: int, height: int) -> str:
    """Name the YUV matrix of a frame: bt601, bt709 or bt2020.

    Args:
        colorspace: the number of ITU-T H.273 table 4; 2 means unspecified.
        height: of the frame in pixels, which decides where the file does not say.
    """
    return _MATRICES.get(colorspace, "bt709" if height >= _HD_HEIGHT else "bt601")


@lru_cache(maxsize=8)
def rgb_of_yuv(matrix: str, *, full_range: bool) -> NDArray[np.float32]:
    """Return the affine map [3, 4] from 8-bit Y, Cb, Cr to R, G, B of 0 to 255.

    ITU-R BT.601, 709 and 2020: R = Y + 2 (1 - Kr) Cr, B = Y + 2 (1 - Kb) Cb, and G such that
    Y = Kr R + Kg G + Kb B.

    Args:
        matrix: bt601, bt709 or bt2020.
        full_range: whether samples span 0 to 255; else luma spans 16 to 235, chroma 16 to 240.
    """
    red, blue = _LUMA_SHARES[matrix]
    green = 1 - red - blue
    luma, chroma, black = (1.0, 1.0, 0.0) if full_range else (255 / 219, 255 / 224, 16.0)
    from_cr, from_cb = 2 * (1 - red) * chroma, 2 * (1 - blue) * chroma
    weights = np.array(
        [
            [luma, 0, from_cr],
            [luma, -from_cb * blue / green, -from_cr * red / green],
            [luma, from_cb, 0],
        ]
    )
    offset = -weights @ np.array([black, 128, 128])
    found: NDArray[np.float32] = np.c_[weights, offset].astype(np.float32)
    return found


def _converted(
    planes: Sequence[NDArray[np.uint8]], matrix: str, full_range: bool
) -> NDArray[np.uint8]:
    """Return Y, Cb and Cr, uint8 [H, W] each, as RGB [H, W, 3]."""
    to_rgb = rgb_of_yuv(matrix, full_range=full_range)
    if planes[0].size and (cv2 := opencv()) is not None:
        rgb: NDArray[np.uint8] = cv2.transform(cv2.merge(planes), to_rgb)
        return rgb
    exact = np.stack(planes, -1).astype(np.float32) @ to_rgb[:, :3].T
    exact += to_rgb[:, 3] + 0.5
    return exact.clip(0, 255, out=exact).astype(np.uint8)


@lru_cache(maxsize=8)
def _mean_yuv(matrix: str, full_range: bool) -> NDArray[np.uint8]:
    """Return `MEAN_RGB` as 8-bit Y, Cb, Cr."""
    to_rgb = rgb_of_yuv(matrix, full_range=full_range)
    exact = np.linalg.solve(to_rgb[:, :3], np.array(MEAN_RGB) - to_rgb[:, 3])
    found: NDArray[np.uint8] = np.rint(exact).clip(0, 255).astype(np.uint8)
    return found


@dataclass(frozen=True, slots=True)
class Orientation:
    """How stored pixels become upright: transposed first, then mirrored.

    Attributes:
        transpose: rows become columns.
        mirror_x: left and right are exchanged, after transposing.
        mirror_y: top and bottom are exchanged, after transposing.
    """

    transpose: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    @classmethod
    def of(cls, frame: av.VideoFrame) -> Orientation:
        """Read a frame's display matrix, snapped to quarter turns.

        The matrix (ISO/IEC 14496-12, 6.2.2) holds a, b, u, c, d, v, x, y, w and moves a pixel to
        x' = a x + c y, y' = b x + d y.
        """
        side_data: Any = frame.side_data  # a mapping by name, which the type stubs do not know
        matrix = side_data.get("DISPLAYMATRIX")
        if matrix is None:
            return cls()
        a, b, _, c, d = struct.unpack("=5i", bytes(matrix)[:20])
        if abs(b) + abs(c) > abs(a) + abs(d):
            return cls(True, mirror_x=c < 0, mirror_y=b < 0)
        return cls(False, mirror_x=a < 0, mirror_y=d < 0)

    def size_wh(self, width: int, height: int) -> tuple[int, int]:
        """Return the size of a picture after turning (or, as it is its own inverse, before)."""
        return (height, width) if self.transpose else (width, height)

    def turn(self, array: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return a view of [H, W] or [H, W, C] stored samples that reads upright."""
        if self.transpose:
            array = array.swapaxes(0, 1)
        return array[:: -1 if self.mirror_y else 1, :: -1 if self.mirror_x else 1]


class Scalers(threading.local):
    """What is kept from frame to frame, swscale contexts above all; each thread has its own."""

    def __init__(self) -> None:
        self.rgb = VideoReformatter()
        self.yuv = VideoReformatter()
        self._asked: tuple[int, int, int] | None = None
        self._orientation = Orientation()

    def orientation(self, frame: av.VideoFrame) -> Orientation:
        """Return a frame's orientation, which is that of the frame before where nothing changed.

        A frame that was asked for its side data refers to itself from then on, and keeps its
        pixels until Python looks for circles. So a tiny copy is asked, and only where something
        may be different.
        """
        looks = (frame.rotation, frame.width, frame.height)
        if looks != self._asked:
            tiny = VideoReformatter().reformat(frame, _TINY_PX, _TINY_PX, "gray")
            self._asked, self._orientation = looks, Orientation.of(tiny)
        return self._orientation


def samples_of(plane: VideoPlane, channels: int = 1) -> NDArray[np.uint8]:
    """Return the uint8 samples of a plane, [H, W] or [H, W, C], as a view without row padding."""
    stride = abs(plane.line_size)
    memory: NDArray[np.uint8] = np.frombuffer(memoryview(plane), np.uint8)
    rows = memory[: plane.height * stride].reshape(plane.height, stride)
    rows = rows[:, : plane.width * channels]
    if plane.line_size < 0:
        rows = rows[::-1]
    return rows if channels == 1 else rows.reshape(plane.height, plane.width, channels)


def _with_chroma(frame: av.VideoFrame, scalers: Scalers) -> av.VideoFrame:
    """Return limited-range grey as 8-bit 4:2:0, for swscale takes all grey for full-range."""
    coloured = av.VideoFrame(frame.width, frame.height, "yuv420p")
    luma, *chroma = map(samples_of, coloured.planes)
    luma[:] = samples_of(scalers.yuv.reformat(frame, format="gray").planes[0])
    for samples in chroma:
        samples[:] = 128
    coloured.color_range, coloured.colorspace = frame.color_range, frame.colorspace
    return coloured


class DecodedPicture:
    """A `Picture` around a frame of libav's; the frame itself is never written to.

    Attributes:
        width: upright, in pixels.
        height: upright, in pixels.
        pts: presentation time in ticks of `time_base`, repaired: every frame is later than the
            one before.
        duration: in ticks of `time_base`, 0 if unknown.
        time_base: seconds a tick.
    """

    def __init__(
        self,
        frame: av.VideoFrame,
        *,
        size_wh: tuple[int, int],
        pts: int,
        time_base: Fraction,
        scalers: Scalers,
    ) -> None:
        """Wrap a frame.

        Args:
            frame: as decoded.
            size_wh: upright (width, height) of the video; a frame of another size is scaled.
            pts: see the attribute.
            time_base: see the attribute.
            scalers: of the source, shared by its frames.
        """
        self._orientation = scalers.orientation(frame)
        self._stored_wh = self._orientation.size_wh(*size_wh)
        self._scalers = scalers
        # Converting changes the frame's colour tags for a moment.
        self._converting = threading.Lock()
        self.width, self.height = size_wh
        self.pts = pts
        self.duration = frame.duration
        self.time_base = time_base
        if frame.format.name.startswith("yuvj"):
            frame.color_range = _FULL_RANGE  # what these formats mean, tagged or not
        if frame.format.name.startswith("gray") and frame.color_range == _LIMITED_RANGE:
            frame = _with_chroma(frame, scalers)
        self._frame = frame

    def __repr__(self) -> str:
        return f"DecodedPicture({self.width}x{self.height} {self._frame.format.name})"

    @property
    def matrix(self) -> str:
        """The YUV matrix of `to_yuv420p`: bt601, bt709 or bt2020."""
        if self._frame.format.is_rgb:
            return "bt709"
        return matrix_of(self._frame.colorspace, self.height)

    @property
    def full_range(self) -> bool:
        """Whether the samples of `to_yuv420p` span 0 to 255."""
        return self._frame.color_range == _FULL_RANGE and not self._frame.format.is_rgb

    @property
    def _is_planar(self) -> bool:
        """Whether the decoder's own frame is 8-bit 4:2:0 of the video's size."""
        frame = self._frame
        return frame.format.name in _PLANAR and (frame.width, frame.height) == self._stored_wh

    def _colours(self) -> tuple[str, bool]:
        """Return matrix and range while nothing converts the frame, which changes its tags."""
        with self._converting:
            return self.matrix, self.full_range

    def to_rgb(self, size_wh: tuple[int, int] | None = None) -> NDArray[np.uint8]:
        """Return HWC uint8 **RGB**, contiguous, straight from the decoded samples.

        Args:
            size_wh: (width, height) to scale to, upright; None keeps the size.
        """
        stored_w, stored_h = self._orientation.size_wh(*(size_wh or (self.width, self.height)))
        quick = self._binned_rgb(stored_w, stored_h)
        if quick is not None:
            return np.ascontiguousarray(self._orientation.turn(quick))
        matrix = None if self._frame.format.is_rgb else _SWSCALE_MATRICES[self.matrix]
        with self._converting:
            rgb = self._scalers.rgb.reformat(
                self._frame,
                width=stored_w,
                height=stored_h,
                format="rgb24",
                src_colorspace=matrix,
                dst_colorspace=matrix,
            )
        return np.ascontiguousarray(self._orientation.turn(samples_of(rgb.planes[0], 3)))

    def _binned_rgb(self, wide: int, high: int) -> NDArray[np.uint8] | None:
        """Return stored pixels as RGB, each the mean of a square of the decoded ones.

        None where squares of whole pixels do not fit, or OpenCV does not load: swscale does all
        that, in seven times the time for half the size.
        """
        bin_px = self._stored_wh[0] // max(1, wide)
        fits = bin_px >= 2 and (wide * bin_px, high * bin_px) == self._stored_wh
        if not fits or not self._is_planar or opencv() is None:
            return None
        matrix, full_range = self._colours()
        planes = [binned(samples_of(plane), wide, high) for plane in self._frame.planes]
        return _converted(planes, matrix, full_range)

    def brightness(self, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.uint8]:
        """Return the luma of some pixels; see `videogender.frames.Picture.brightness`."""
        if not self._is_planar:
            return RgbPicture(self.to_rgb()).brightness(rows, columns)
        luma = self._orientation.turn(samples_of(self._frame.planes[0]))
        seen: NDArray[np.uint8] = luma[rows[:, 0]].take(columns[0], 1)  # quicker than both at once
        return seen

    def squares_rgb(self, squares: NDArray[np.int64], side_px: int) -> NDArray[np.uint8]:
        """Return squares as HWC uint8 **RGB**; see `videogender.frames.Picture.squares_rgb`.

        Of 8-bit 4:2:0, as nearly all video is, only the pixels of the result are converted.
        """
        frame, turned = self._frame, self._orientation
        # on a mirrored side the chroma of an odd picture begins with half a sample
        half = (turned.mirror_x and self.width % 2) or (turned.mirror_y and self.height % 2)
        if half or not self._is_planar:
            return RgbPicture(self.to_rgb()).squares_rgb(squares, side_px)
        matrix, full_range = self._colours()
        mean = _mean_yuv(matrix, full_range).tolist()
        cuts = [
            cut_squares(turned.turn(samples_of(plane)), squares // step, side_px, fill)
            for plane, step, fill in zip(frame.planes, (1, 2, 2), mean, strict=True)
        ]
        rows = [cut.reshape(-1, side_px) for cut in cuts]
        return _converted(rows, matrix, full_range).reshape(-1, side_px, side_px, 3)

    def to_yuv420p(self) -> av.VideoFrame:
        """Return an upright 8-bit 4:2:0 frame of its own, free to be drawn on.

        Its size is the next even one: an odd picture lies at the top left, and the last column or
        row of luma is not yet filled. Matrix and range stay those of the source; RGB becomes
        limited-range BT.709.
        """
        frame = self._planar()
        even_wh = (self.width + self.width % 2, self.height + self.height % 2)
        if frame is not self._frame and even_wh == (frame.width, frame.height):
            upright = self._orientation == Orientation()
            if upright:
                return frame
        target = av.VideoFrame(*even_wh, "yuv420p")
        for plane, to in zip(frame.planes, target.planes, strict=True):
            turned = self._orientation.turn(samples_of(plane))
            samples_of(to)[: turned.shape[0], : turned.shape[1]] = turned
        return target

    def _planar(self) -> av.VideoFrame:
        """Return 8-bit 4:2:0 in stored orientation: the decoder's own frame if it is that."""
        frame, stored_wh = self._frame, self._stored_wh
        if self._is_planar:
            return frame
        is_rgb = frame.format.is_rgb
        matrix = _SWSCALE_MATRICES[self.matrix]
        with self._converting:
            converted = self._scalers.yuv.reformat(
                frame,
                width=stored_wh[0],
                height=stored_wh[1],
                format="yuv420p",
                src_colorspace=None if is_rgb else matrix,
                dst_colorspace=matrix,
                dst_color_range=ColorRange.MPEG if is_rgb else None,
            )
        # The conversion copies the picture type, which would dictate the encoder's.
        converted.pict_type = 0
        return converted
