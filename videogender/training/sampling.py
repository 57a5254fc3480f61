"""Reads the pixels that crops show: by OpenCV on a CPU, where it is fastest, else by gathering."""

from __future__ import annotations

from functools import cache
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from videogender.opencv import opencv
from videogender.training.crops import Crops
from videogender.training.data import ImageStore

__all__ = ["quiet_opencv", "sample_pixels"]


@cache
def quiet_opencv() -> ModuleType | None:
    """Return OpenCV with its own threads switched off, or None where it cannot be loaded.

    The cores are taken by training, and a pool of threads does not survive a fork.
    """
    if (cv2 := opencv()) is not None:
        cv2.setNumThreads(0)
    return cv2


def sample_pixels(store: ImageStore, crops: Crops, fill_bgr: tuple[float, float, float]) -> Tensor:
    """Read the pixels that the crops show, bilinearly.

    Args:
        store: the images.
        crops: the tiles of a batch.
        fill_bgr: colour beyond an image's edge.

    Returns:
        uint8 [B, 3, S, S] BGR on the store's device, channels last in memory.
    """
    if store.pixels.device.type == "cpu" and (cv2 := quiet_opencv()) is not None:
        return _sample_opencv(cv2, store, crops, fill_bgr)
    return _sample_gather(store, crops, fill_bgr)


def _level_map(store: ImageStore, crops: Crops) -> Tensor:
    """Return float32 [T, 2, 3]: canvas pixel index to pixel index of the chosen pyramid level."""
    scale = store.size_wh[crops.image, crops.level].float() / store.size_wh[crops.image, 0].float()
    linear = crops.to_source[:, :, :2] * scale[:, :, None]
    # positions are pixel corners in boxes, pixel centres in sampling: half a pixel on both sides
    shift = crops.to_source[:, :, 2] * scale + linear.sum(2) * 0.5 - 0.5
    return torch.cat([linear, shift[:, :, None]], 2)


def _sample_opencv(
    cv2: ModuleType, store: ImageStore, crops: Crops, fill_bgr: tuple[float, float, float]
) -> Tensor:
    side, count = crops.side, len(crops.grid)
    out = np.empty((count, side, side, 3), np.uint8)
    maps = _level_map(store, crops).numpy().astype(np.float64)
    bounds = torch.cat([crops.corner, crops.corner + crops.tile[:, None]], 1).round().int().tolist()
    for index, (canvas, image, level) in enumerate(
        zip(crops.canvas.tolist(), crops.image.tolist(), crops.level.tolist(), strict=True)
    ):
        x1, y1, x2, y2 = bounds[index]
        matrix = maps[index].copy()
        matrix[:, 2] += matrix[:, :2] @ (x1, y1)
        out[canvas, y1:y2, x1:x2] = cv2.warpAffine(
            store.view(image, level),
            matrix,
            (x2 - x1, y2 - y1),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=fill_bgr,
        )
    return torch.from_numpy(out).permute(0, 3, 1, 2)


def _sample_gather(store: ImageStore, crops: Crops, fill_bgr: tuple[float, float, float]) -> Tensor:
    """The same for any device: every pixel of every canvas gathers its four neighbours."""
    device = store.pixels.device
    side = crops.side
    step = torch.arange(side, device=device)
    place = ((step + 0.5) * crops.grid[:, None] / side).long()  # [B, S], tile along an axis
    tile = (
        crops.first_tile[:, None, None]
        + place[:, :, None] * crops.grid[:, None, None]
        + place[:, None, :]
    )
    maps = _level_map(store, crops)[tile]  # [B, S, S, 2, 3]
    x = maps[..., 0, 0] * step + maps[..., 0, 1] * step[:, None] + maps[..., 0, 2]
    y = maps[..., 1, 0] * step + maps[..., 1, 1] * step[:, None] + maps[..., 1, 2]
    image, level = crops.image[tile], crops.level[tile]
    width, height = store.size_wh[image, level].unbind(-1)
    start = store.offset[image, level]
    left, top = x.floor().long(), y.floor().long()
    across, down = (x - left)[..., None], (y - top)[..., None]
    fill = torch.tensor(fill_bgr, device=device)
    channel = torch.arange(3, device=device)

    def at(column: Tensor, row: Tensor) -> Tensor:
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        index = start + (row * width + column) * 3
        values = store.pixels[torch.where(inside, index, 0)[..., None] + channel].float()
        return torch.where(inside[..., None], values, fill)

    upper = torch.lerp(at(left, top), at(left + 1, top), across)
    lower = torch.lerp(at(left, top + 1), at(left + 1, top + 1), across)
    out = torch.lerp(upper, lower, down).round().to(torch.uint8)
    return out.permute(0, 3, 1, 2)
