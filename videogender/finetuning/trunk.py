"""The frozen trunk at work: pictures in, predictions out, exactly as inference computes them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from videogender.cores import cores
from videogender.dataset import read_rgb
from videogender.detector import padded_hw
from videogender.devices import choose_dtype
from videogender.network.heads import AnchorNetwork, Predictions

CHUNK = 32  # pictures in memory at once, and as many again that are being decoded

__all__ = ["Pictures", "Trunk", "by_picture", "read_chunks"]


class Trunk:
    """A network that only looks.

    Args:
        network: copied, and folded for inference; it is left as it was.
        device: where to run.
        precision: `auto`, `fp32`, `bf16` or `fp16`.
    """

    def __init__(self, network: AnchorNetwork, device: torch.device, precision: str) -> None:
        self.device, self.dtype = device, choose_dtype(precision, device)
        own = copy.deepcopy(network).eval().requires_grad_(False)
        own.fuse()
        self.network = own.to(device, self.dtype)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._mean = torch.tensor(own.pixel_mean_bgr, device=device)
        self._scale = own.pixel_scale

    @torch.inference_mode()
    def __call__(self, images: Sequence[NDArray[np.uint8]]) -> Predictions:
        """Look at pictures of one padded shape, HWC uint8 **RGB** each."""
        found: Predictions = self.network(self.tensor(images))
        return found

    def tensor(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Return network input [B, 3, H, W]: BGR minus the mean, zeros where padded."""
        height, width = padded_hw(images[0])
        out = torch.zeros(len(images), height, width, 3, device=self.device, dtype=self.dtype)
        for row, image in zip(out, images, strict=True):
            pixels = torch.from_numpy(np.ascontiguousarray(image[:, :, ::-1])).to(self.device)
            row[: len(image), : image.shape[1]] = (
                pixels.to(self.dtype).sub_(self._mean).mul_(self._scale)
            )
        return out.permute(0, 3, 1, 2)

    def groups(
        self, images: Sequence[NDArray[np.uint8]], batch: int
    ) -> Iterator[tuple[list[int], Predictions]]:
        """Look at pictures of any sizes; yield (their indices, predictions) a forward pass."""
        shapes = [padded_hw(image) for image in images]
        for shape in dict.fromkeys(shapes):
            members = [i for i, s in enumerate(shapes) if s == shape]
            for start in range(0, len(members), batch):
                part = members[start : start + batch]
                yield part, self([images[i] for i in part])


@dataclass(frozen=True, slots=True)
class Pictures:
    """A picture file, and which of the samples it shows."""

    path: Path
    samples: list[int]


def by_picture(paths: Sequence[Path]) -> list[Pictures]:
    """Gather the samples [S] of each file, in the order in which files first appear."""
    found: dict[Path, list[int]] = {}
    for index, path in enumerate(paths):
        found.setdefault(path, []).append(index)
    return [Pictures(path, samples) for path, samples in found.items()]


def read_chunks(
    pictures: Sequence[Pictures], workers: int
) -> Iterator[tuple[Sequence[Pictures], list[NDArray[np.uint8]]]]:
    """Decode pictures ahead, in threads; yield some with their pixels, HWC uint8 **RGB**."""
    chunks = [pictures[i : i + CHUNK] for i in range(0, len(pictures), CHUNK)]
    with ThreadPoolExecutor(workers or min(8, cores())) as pool:
        ahead = [pool.submit(read_rgb, p.path) for p in chunks[0]] if chunks else []
        for number, chunk in enumerate(chunks):
            ready = ahead
            after = chunks[number + 1] if number + 1 < len(chunks) else []
            ahead = [pool.submit(read_rgb, p.path) for p in after]
            yield chunk, [future.result() for future in ready]
