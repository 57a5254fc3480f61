"""Several pictures in one: a grid of equal tiles, each picture whole in the middle of its own."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["Grid"]

_MOST_WH = (1440, 810)


class Grid:
    """Where each of several pictures goes.

    Attributes:
        columns: tiles across.
        rows: tiles down.
        tile_wh: size of a tile, in pixels.
        size_wh: size of the whole.
    """

    def __init__(self, count: int, tile_wh: tuple[int, int]) -> None:
        """Lay out a grid.

        Args:
            count: of tiles, at least 1.
            tile_wh: (width, height) that a tile would like to have; less if the whole grew too
                large by it.
        """
        self.columns = math.ceil(math.sqrt(count))
        self.rows = math.ceil(count / self.columns)
        width, height = tile_wh
        shrink = 1.0
        if count > 1:
            most_w, most_h = _MOST_WH
            shrink = min(1.0, most_w / (width * self.columns), most_h / (height * self.rows))
        self.tile_wh = (max(1, int(width * shrink)), max(1, int(height * shrink)))
        self.size_wh = (self.columns * self.tile_wh[0], self.rows * self.tile_wh[1])

    @property
    def window_wh(self) -> tuple[int, int]:
        """Size of a window for the whole that fits a usual screen."""
        width, height = self.size_wh
        shrink = min(1.0, _MOST_WH[0] / width, _MOST_WH[1] / height)
        return max(1, int(width * shrink)), max(1, int(height * shrink))

    def tile(self, whole: NDArray[np.uint8], position: int) -> NDArray[np.uint8]:
        """Return the view of one tile in a whole picture [H, W, 3]."""
        width, height = self.tile_wh
        x, y = position % self.columns * width, position // self.columns * height
        return whole[y : y + height, x : x + width]

    def put(self, whole: NDArray[np.uint8], position: int, rgb: NDArray[np.uint8]) -> None:
        """Draw a picture into its tile, as large as it fits, its shape kept."""
        import cv2

        tile = self.tile(whole, position)
        high, wide = tile.shape[:2]
        scale = min(wide / rgb.shape[1], high / rgb.shape[0])
        width = min(wide, max(1, round(rgb.shape[1] * scale)))
        height = min(high, max(1, round(rgb.shape[0] * scale)))
        x, y = (wide - width) // 2, (high - height) // 2
        if (width, height) != (wide, high):
            tile[...] = 0
        if (width, height) != (rgb.shape[1], rgb.shape[0]):
            method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
            rgb = np.asarray(cv2.resize(rgb, (width, height), interpolation=method), np.uint8)
        tile[y : y + height, x : x + width] = rgb
