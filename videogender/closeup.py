"""Square pictures in, class probabilities out: for classifiers of pictures and for second looks.

`face_crops` cuts faces out, `classify.fitted` makes whole pictures square, and `CloseUp` sends what
they made through a network and the head on one of its maps.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from videogender.devices import choose_dtype
from videogender.errors import ModelError
from videogender.frames import Picture
from videogender.network.attributes import LinearClassifier, RefeedHead
from videogender.network.trained import Trained

# Pictures in a forward pass, by kind of device: a crowd must not need more memory than a frame.
_CHUNK = {"cpu": 8}
_CHUNK_ON_GPU = 64
MEAN_RGB = (123, 117, 104)  # of the networks' input; a picture's rim in this colour becomes zeros

__all__ = ["MEAN_RGB", "CloseUp", "face_crops", "sharpest_crops"]


class CloseUp:
    """A network with a head that looks at square pictures of one size.

    Args:
        trained: weights whose task is classifier or refeed; its network is changed for inference,
            so hand in one that nobody else uses.
        device: where to run.
        precision: `auto`, `fp32`, `bf16` or `fp16`.

    Raises:
        ModelError: the weights are for another task.
    """

    def __init__(
        self, trained: Trained, device: torch.device | None = None, precision: str = "auto"
    ) -> None:
        if not isinstance(trained.head, LinearClassifier | RefeedHead):
            raise ModelError(
                f"{trained.path}: its task is {trained.facts.task}, expected classifier or refeed"
            )
        self.device = device or torch.device("cpu")
        self.dtype = choose_dtype(precision, self.device)
        self.facts = trained.facts
        trained.network.fuse()
        self.network = trained.network.to(self.device, self.dtype)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        # classes may hang on little: the head is small and keeps its precision
        self.head = trained.head.to(self.device)
        self._mean_bgr = torch.tensor(self.network.pixel_mean_bgr, device=self.device)

    @property
    def side_px(self) -> int:
        """Width and height of the pictures."""
        return self.head.side_px

    @torch.inference_mode()
    def __call__(self, squares: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the calibrated log-probabilities [N, C] of the classes.

        Args:
            squares: [N, side, side, 3] **RGB**.
        """
        side = self.side_px
        if squares.shape[1:] != (side, side, 3) or squares.dtype != np.uint8:
            raise ValueError(f"expected uint8 [N, {side}, {side}, 3], got {squares.shape}")
        chunk = _CHUNK.get(self.device.type, _CHUNK_ON_GPU)
        parts = [
            self._logits(squares[start : start + chunk]) for start in range(0, len(squares), chunk)
        ]
        if not parts:
            return np.zeros((0, len(self.facts.labels)), np.float32)
        logits = torch.cat(parts) / self.facts.temperature
        found: NDArray[np.float32] = logits.log_softmax(1).cpu().numpy()
        return found

    def _logits(self, squares: NDArray[np.uint8]) -> Tensor:
        pixels = torch.from_numpy(np.ascontiguousarray(squares)).to(self.device)
        bgr = (pixels.flip(3) - self._mean_bgr) * self.network.pixel_scale
        features = self.network.features(bgr.to(self.dtype).permute(0, 3, 1, 2))
        logits: Tensor = self.head(tuple(feature.float() for feature in features))
        return logits


def face_crops(
    image: NDArray[np.uint8], boxes: NDArray[np.float32], side_px: int, face_px: float
) -> NDArray[np.uint8]:
    """Cut squares around faces, scaled so that each face's longer side is `face_px`.

    What lies beyond the picture takes the networks' mean colour, which is zero to them.

    Args:
        image: HWC uint8 **RGB**.
        boxes: float32 [N, 4], xyxy in pixels of the image.
        side_px: width and height of the result; `RefeedHead.side_px` and `.face_px` fit together.
        face_px: longer side of the face in it.

    Returns:
        uint8 [N, side, side, 3] **RGB**.
    """
    crops = np.empty((len(boxes), side_px, side_px, 3), np.uint8)
    crops[:] = MEAN_RGB
    for crop, (x0, y0, x1, y1) in zip(crops, boxes.tolist(), strict=True):
        step = max(x1 - x0, y1 - y0, 1.0) / face_px  # source pixels a pixel of the crop
        left, top = (x0 + x1 - side_px * step) / 2, (y0 + y1 - side_px * step) / 2
        columns, rows = (
            _inside(start, step, side_px, length)
            for start, length in ((left, image.shape[1]), (top, image.shape[0]))
        )
        if columns[0] < columns[1] and rows[0] < rows[1]:
            crop[rows[0] : rows[1], columns[0] : columns[1]] = _resized(
                image,
                (left + step * columns[0], top + step * rows[0]),
                (columns[1] - columns[0], rows[1] - rows[0]),
                step,
            )
    return crops


def sharpest_crops(
    scaled: NDArray[np.uint8],
    boxes: NDArray[np.float32],
    picture: Picture | None,
    side_px: int,
    face_px: float,
) -> NDArray[np.uint8]:
    """Cut faces out of whichever picture shows more of each; see `face_crops`.

    The source is read only around faces that are smaller than wanted in a picture that was shrunk,
    and of what is larger there than twice that, pixels are left out.

    Args:
        scaled: HWC uint8 **RGB**, as the network saw it.
        boxes: float32 [N, 4], xyxy in its pixels.
        picture: what it was scaled from, if that is at hand.
        side_px, face_px: of the crops.
    """
    from_source = (boxes[:, 2:] - boxes[:, :2]).max(1, initial=0.0) < face_px
    is_shrunk = picture is not None and picture.width > scaled.shape[1]
    if picture is None or not is_shrunk or not from_source.any():
        return face_crops(scaled, boxes, side_px, face_px)
    crops = np.empty((len(boxes), side_px, side_px, 3), np.uint8)
    crops[~from_source] = face_crops(scaled, boxes[~from_source], side_px, face_px)
    grow = np.array([picture.width / scaled.shape[1], picture.height / scaled.shape[0]] * 2)
    large = boxes[from_source] * grow
    sides = (large[:, 2:] - large[:, :2]).max(1, initial=0.0).clip(1)
    every = np.maximum(sides // (2 * face_px), 1).astype(int)
    # room for the filter, and for the part to begin and end anywhere
    reach = (sides * side_px / face_px / 2 + 2 * every)[:, None]
    middle = (large[:, :2] + large[:, 2:]) / 2
    limit = np.array([picture.width, picture.height])
    low = np.floor(middle - reach).clip(0, limit).astype(int)
    high = np.ceil(middle + reach).clip(0, limit).astype(int)
    rows = np.flatnonzero(from_source)
    kept = (high > low).all(1)
    crops[rows[~kept]] = MEAN_RGB
    parts = np.c_[low, high][kept]
    seen = picture.parts_rgb([tuple(part) for part in parts.tolist()], every[kept].tolist())
    for row, part, corner, step, box in zip(
        rows[kept], seen, low[kept], every[kept], large[kept], strict=True
    ):
        inside = ((box - np.tile(corner, 2)) / step).astype(np.float32)
        crops[row] = face_crops(part, inside[None], side_px, face_px)[0]
    return crops


def _inside(start: float, step: float, count: int, length: int) -> tuple[int, int]:
    """Return which of `count` pixels, `step` wide from `start` on, lie fully in [0, length]."""
    first = math.ceil(-start / step - 1e-9)
    last = math.floor((length - start) / step + 1e-9)
    return min(max(first, 0), count), min(max(last, 0), count)


def _resized(
    image: NDArray[np.uint8], corner: tuple[float, float], size_wh: tuple[int, int], step: float
) -> NDArray[np.uint8]:
    """Scale the part of an image that begins at a corner (x, y) to a size, area-aware."""
    from PIL import Image

    height, width = image.shape[:2]
    x0, y0 = max(corner[0], 0.0), max(corner[1], 0.0)
    x1 = min(corner[0] + step * size_wh[0], float(width))
    y1 = min(corner[1] + step * size_wh[1], float(height))
    # Pillow copies what it is given: hand it the part alone, with room for the filter
    room = math.ceil(step) + 1
    left, top = max(math.floor(x0) - room, 0), max(math.floor(y0) - room, 0)
    part = image[top : math.ceil(y1) + room, left : math.ceil(x1) + room]
    box = (x0 - left, y0 - top, x1 - left, y1 - top)
    scaled = Image.fromarray(np.ascontiguousarray(part)).resize(
        size_wh, Image.Resampling.BILINEAR, box=box
    )
    return np.asarray(scaled)
