"""What a second stage learns from: boxes that a first stage proposes, and what they really hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from videogender.network.boxes import iou_matrix
from videogender.training.data import ImageStore

HOLDS_FACE_IOU = 0.4  # a proposal that overlaps a face this much holds it
HOLDS_NONE_IOU = 0.25  # one that overlaps all faces less holds none; between, it teaches nothing
LEAST_FACE_PX = 6.0

# A picture, HWC uint8 **RGB**, to float32 boxes [N, 4] and face scores [N].
Propose = Callable[[NDArray[np.uint8]], tuple[NDArray[np.float32], NDArray[np.float32]]]

__all__ = ["Candidates", "faces_of", "proposals_of", "seen_faces"]


@dataclass(frozen=True, slots=True)
class Candidates:
    """Boxes in the pictures of a store, and what they hold.

    Attributes:
        image: int64 [N], of the store.
        box: float32 [N, 4], as proposed, xyxy in pixels of the stored image.
        face: float32 [N, 4], the face that it holds; NaN for none.
        gender: int64 [N], of that face; -1 unknown.
        male: float32 [N], the chance of a male face that is to be taught; NaN unknown.
        group: int64 [N], of that face, as the store has it; 0 for none.
        level: int64 [N], the pyramid level at which it was seen when it was proposed.
        logit: float32 [N], log-odds of a face that the first stage gave it; NaN if it gave none.
    """

    image: Tensor
    box: Tensor
    face: Tensor
    gender: Tensor
    male: Tensor
    group: Tensor
    level: Tensor
    logit: Tensor

    def __len__(self) -> int:
        return len(self.image)

    def select(self, chosen: Tensor | slice) -> Candidates:
        """Return the rows that an index, mask or slice chooses."""
        return Candidates(*(getattr(self, f.name)[chosen] for f in fields(self)))

    def to(self, device: torch.device) -> Candidates:
        """Return the table on a device."""
        return Candidates(*(getattr(self, f.name).to(device) for f in fields(self)))

    @classmethod
    def joined(cls, parts: Sequence[Candidates]) -> Candidates:
        """Return several tables as one."""
        return cls(*(torch.cat([getattr(p, f.name) for p in parts]) for f in fields(cls)))

    @property
    def kind(self) -> Tensor:
        """Group and gender as one number, int64 [N]: 2 × group, and 1 more for men."""
        return self.group * 2 + self.gender.clamp(min=0)

    @property
    def holds_face(self) -> Tensor:
        """Whether there is a face, bool [N]."""
        return ~self.face[:, 0].isnan()


def seen_faces(store: ImageStore) -> Tensor:
    """Return which labelled faces of a store can be seen and are not ignored, int64 [N]."""
    shown = _shown(store)
    wh = shown[:, 2:] - shown[:, :2]
    kept = ~store.ignore & (wh[:, 1] >= LEAST_FACE_PX) & (wh[:, 0] > 2)
    return kept.nonzero().squeeze(1)


def faces_of(store: ImageStore) -> Candidates:
    """Return the `seen_faces` of a store as proposals of themselves, as far as they are shown."""
    faces = seen_faces(store)
    shown = _shown(store)[faces]
    image = _image_of_faces(store)[faces]
    level = torch.zeros_like(image)
    unseen = torch.full((len(image),), math.nan, device=shown.device)
    return Candidates(
        image,
        shown,
        shown.clone(),
        store.gender[faces],
        store.male[faces],
        store.group[faces],
        level,
        unseen,
    )


def _image_of_faces(store: ImageStore) -> Tensor:
    counts = store.first_face[1:] - store.first_face[:-1]
    return torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)


def _shown(store: ImageStore) -> Tensor:
    """Return what of the faces lies within their pictures, [F, 4]."""
    size = store.size_wh[_image_of_faces(store), 0].float().repeat(1, 2)
    return torch.minimum(store.boxes.clamp(min=0), size)


def proposals_of(
    store: ImageStore,
    propose: Propose,
    *,
    level: int,
    random_boxes: int,
    generator: torch.Generator,
    told: Callable[[int, int], None] = lambda done, count: None,
) -> Candidates:
    """Let a first stage propose boxes in all scenes, and sort them by what they hold.

    Args:
        store: the pictures, on the CPU.
        propose: the first stage, at a low threshold.
        level: pyramid level that is shown to it; each halves the picture.
        random_boxes: drawn in each picture besides.
        generator: for those.
        told: how many of how many pictures are done.
    """
    parts = []
    ids = store.scene_ids.tolist()
    for done, index in enumerate(ids):
        pixels = store.view(index, level)
        found, scores = propose(np.ascontiguousarray(pixels[:, :, ::-1]))
        scale = float(store.size_wh[index, 0, 0]) / pixels.shape[1]
        drawn = _random_boxes(store, index, random_boxes, generator)
        boxes = torch.cat([torch.from_numpy(found) * scale, drawn])
        logits = torch.full((len(boxes),), math.nan)
        logits[: len(scores)] = torch.logit(torch.from_numpy(scores), 1e-6)
        parts.append(_sorted_out(store, index, boxes, logits, level))
        told(done + 1, len(ids))
    return Candidates.joined(parts)


def _random_boxes(store: ImageStore, index: int, count: int, generator: torch.Generator) -> Tensor:
    """Draw boxes of 8 px up to the picture's shorter side, anywhere in it."""
    wide, high = store.size_wh[index, 0].tolist()
    draw = torch.rand(count, 4, generator=generator)
    size = 8 * (max(min(wide, high), 9) / 8) ** draw[:, 0]
    size = torch.stack([size * 0.8 * (0.8 + 0.4 * draw[:, 1]), size], 1)
    corner = draw[:, 2:] * (torch.tensor([wide, high]) - size).clamp(min=0)
    return torch.cat([corner, corner + size], 1)


def _sorted_out(
    store: ImageStore, index: int, boxes: Tensor, logits: Tensor, level: int
) -> Candidates:
    """Tell of the boxes of one picture which face they hold; leave out those in doubt."""
    mine = slice(int(store.first_face[index]), int(store.first_face[index + 1]))
    size = store.size_wh[index, 0].float().repeat(2)
    labelled = torch.minimum(store.boxes[mine].clamp(min=0), size)
    counts = ~store.ignore[mine] & (labelled[:, 3] - labelled[:, 1] >= LEAST_FACE_PX)
    face = torch.full((len(boxes), 4), math.nan)
    gender = torch.full((len(boxes),), -1, dtype=torch.long)
    male = torch.full((len(boxes),), math.nan)
    group = torch.zeros_like(gender)
    best = torch.zeros(len(boxes))
    if len(labelled):
        overlap = iou_matrix(boxes, labelled)
        best, which = overlap.max(1)
        holds = (best >= HOLDS_FACE_IOU) & counts[which]
        face[holds] = labelled[which[holds]]
        gender[holds] = store.gender[mine][which[holds]]
        male[holds] = store.male[mine][which[holds]]
        group[holds] = store.group[mine][which[holds]]
    kept = ~face[:, 0].isnan() | (best < HOLDS_NONE_IOU)
    image = torch.full((len(boxes),), index)
    levels = torch.full_like(image, level)
    return Candidates(image, boxes, face, gender, male, group, levels, logits).select(kept)
