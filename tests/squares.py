"""A detector whose truth is known: every bright square of a picture is a face.

It keeps the contract of `videogender.detector.Detector` as far as the pipeline needs it, and is
exact to about a pixel of the scaled picture. Squares in the left half are female, others male.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from videogender.frames import Faces, Frame, RgbPicture

BRIGHT = 180


@dataclass
class SquareDetector:
    """Finds bright squares in pictures shrunk to `long_side`."""

    batch_size: int = 4
    long_side: int = 160
    has_gender: bool = True
    batches: list[int] = field(default_factory=list)  # sizes of those that were asked for
    threads: set[int] = field(default_factory=set)

    def input_size_wh(self, width: int, height: int) -> tuple[int, int]:
        scale = min(1.0, self.long_side / max(width, height))
        return max(1, round(width * scale)), max(1, round(height * scale))

    def detect(
        self, scaled: Sequence[NDArray[np.uint8]], sizes_wh: Sequence[tuple[int, int]]
    ) -> list[Faces]:
        assert len({image.shape for image in scaled}) == 1, "a batch has one size"
        self.batches.append(len(scaled))
        self.threads.add(threading.get_ident())
        return [self._find(image, size) for image, size in zip(scaled, sizes_wh, strict=True)]

    def describe(self) -> str:
        return "squares, cpu"

    def _find(self, image: NDArray[np.uint8], size_wh: tuple[int, int]) -> Faces:
        bright = image.min(axis=2) > BRIGHT
        boxes = [
            (x0, y0, x1, y1)
            for x0, x1 in spans(bright.any(axis=0))
            for y0, y1 in spans(bright[:, x0:x1].any(axis=1))
        ]
        grow = np.array([size_wh[0] / image.shape[1], size_wh[1] / image.shape[0]] * 2)
        found = (np.array(boxes).reshape(-1, 4) * grow).astype(np.float32)
        n = len(found)
        left = found[:, [0, 2]].mean(axis=1) < size_wh[0] / 2
        female = np.where(left, 0.93, 0.12) if self.has_gender else np.full(n, np.nan)
        return Faces(found, np.full(n, 0.9, np.float32), female.astype(np.float32))


def spans(flags: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of every run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]])))
    return zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


def picture(width: int, height: int, *squares: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Paint white squares (x, y, side) on dark grey; HWC uint8 RGB."""
    array = np.full((height, width, 3), 40, np.uint8)
    for x, y, side in squares:
        array[y : y + side, x : x + side] = 255
    return array


def frames(count: int, width: int = 64, height: int = 48) -> Iterator[Frame]:
    """Yield frames with one square each, that moves a pixel to the right a frame."""
    for i in range(count):
        array = picture(width, height, (4 + i % 40, 8, 16))
        yield Frame(RgbPicture(array), i, i / 25, "frames")


def write_video(
    path: Path,
    count: int = 25,
    size_wh: tuple[int, int] = (160, 120),
    fps: int = 25,
    keys_every: int = 250,
) -> Path:
    """Write an H.264 video of a white square that moves 2 px a frame, in a grey room."""
    width, height = size_wh
    options = {"preset": "ultrafast", "g": str(keys_every)}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i in range(count):
            array = picture(width, height, (square_x(i), 40, 32))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def square_x(index: int) -> int:
    """Tell where the left edge of the square of `write_video` is in a frame."""
    return 10 + 2 * (index % 50)


def read_frames(path: Path) -> list[NDArray[np.uint8]]:
    """Decode a video without any part of videogender; HWC uint8 RGB each."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
