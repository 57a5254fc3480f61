"""Square pictures in, class probabilities out: for classifiers of pictures and for second looks.

`face_crops` cuts faces out, `classify.fitted` makes whole pictures square, and `CloseUp` sends what
they made through a network and the head on one of its maps.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from videogender.devices import choose_dtype
from videogender.errors import ModelError
from videogender.frames import Picture, RgbPicture
from videogender.network.attributes import LinearClassifier, RefeedHead
from videogender.network.trained import Trained

# Pictures in a forward pass, by kind of device: a crowd must not need more memory than a frame.
_CHUNK = {"cpu": 8}
_CHUNK_ON_GPU = 64

__all__ = ["CloseUp", "face_crops", "sharpest_crops"]


class CloseUp:
    """A network with a head that looks at square pictures of one size.

    Args:
        trained: weights whose task is classifier or refeed; its network is changed for inference,
            so hand in one that nobody else uses.
        device: where to run.
        precision: `auto`, `fp32`, `bf16` or `fp16`; `int8` is `auto`.

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
    """Cut squares around faces, scaled so that each face's longer side is about `face_px`.

    What lies beyond the picture takes the networks' mean colour, which is zero to them.

    Args:
        image: HWC uint8 **RGB**.
        boxes: float32 [N, 4], xyxy in pixels of the image.
        side_px: width and height of the result; `RefeedHead.side_px` and `.face_px` fit together.
        face_px: longer side of the face in it.

    Returns:
        uint8 [N, side, side, 3] **RGB**.
    """
    return RgbPicture(image).squares_rgb(_squares(boxes, side_px / face_px, 1), side_px)


def sharpest_crops(
    scaled: Sequence[NDArray[np.uint8]],
    pictures: Sequence[Picture | None],
    image: NDArray[np.int64],
    boxes: NDArray[np.float32],
    side_px: int,
    face_px: float,
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Cut faces out of whichever picture shows more of each; see `face_crops`.

    The source is read only around faces that are smaller than wanted in a picture that was shrunk.

    Args:
        scaled: HWC uint8 **RGB** each, as the network saw them.
        pictures: what they were scaled from, where that is at hand.
        image: int64 [N], in which of them each face is.
        boxes: float32 [N, 4], xyxy in pixels of the scaled picture.
        side_px, face_px: of the crops.

    Returns:
        The crops, and float32 [N, 4], what fills their middle, `face_px` square: as squares are cut
        at whole pixels, it differs from the boxes by up to a pixel.
    """
    share = side_px / face_px
    grow = np.ones((len(scaled), 4))
    for row, shown, picture in zip(grow, scaled, pictures, strict=True):
        if picture is not None and picture.width > shown.shape[1]:
            row[:] = [picture.width / shown.shape[1], picture.height / shown.shape[0]] * 2
    grow = grow[image]
    from_source = (boxes[:, 2:] - boxes[:, :2]).max(1, initial=0.0) < face_px
    from_source &= grow[:, 0] > 1
    grow[~from_source] = 1.0
    squares = _squares(boxes * grow, share, np.where(from_source, 2, 1))
    crops = np.empty((len(boxes), side_px, side_px, 3), np.uint8)
    where = image * 2 + from_source
    for each in np.unique(where).tolist():
        rows, index = where == each, each // 2
        picture = pictures[index] if each % 2 else None
        crops[rows] = (picture or RgbPicture(scaled[index])).squares_rgb(squares[rows], side_px)
    return crops, (_middle(squares, share) / grow).astype(np.float32)


def _squares(
    boxes: NDArray[np.floating], share: float, unit: NDArray[np.int64] | int
) -> NDArray[np.int64]:
    """Return the squares [N, 3] about boxes, `share` times their longer sides, in whole units."""
    wide = boxes.astype(np.float64)
    unit = np.broadcast_to(unit, len(boxes))[:, None]
    side = np.rint((wide[:, 2:] - wide[:, :2]).max(1, initial=1.0)[:, None] * share / unit).clip(1)
    corner = np.rint((wide[:, :2] + wide[:, 2:]) / 2 / unit - side / 2)
    found: NDArray[np.int64] = np.concatenate([corner, side], 1).astype(np.int64) * unit
    return found


def _middle(squares: NDArray[np.int64], share: float) -> NDArray[np.float32]:
    """Return the boxes [N, 4] about which squares [N, 3] lie, `share` times as small."""
    half = squares[:, 2:] / 2
    centre = squares[:, :2] + half
    found = np.concatenate([centre - half / share, centre + half / share], 1)
    return found.astype(np.float32)
