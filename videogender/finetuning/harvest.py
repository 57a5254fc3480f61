"""Fills a bank with the features around the anchors that found each labelled face.

Every picture is looked at in several views: as `annotate` does, shrunk, and mirrored. An anchor
counts if its face score passes the gate and its box overlaps the face; where the data gives no box,
the face is the most prominent one that the network finds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from videogender.finetuning.bank import BankWriter
from videogender.finetuning.datasets.sample import Sample
from videogender.finetuning.settings import FeatureSettings
from videogender.finetuning.trunk import Trunk, by_picture, read_chunks
from videogender.frames import RgbPicture
from videogender.network.anchors import SIZE_IN_STRIDES, STRIDES, level_offsets
from videogender.network.boxes import area, decode, iou_matrix
from videogender.network.heads import Predictions, grids_of, patches_at

__all__ = ["View", "harvest_anchors", "most_prominent", "views_of"]


@dataclass(frozen=True, slots=True)
class View:
    """How a picture is shown: shrunk by a factor, perhaps mirrored."""

    scale: float
    mirrored: bool

    def show(self, image: NDArray[np.uint8], long_side: int) -> NDArray[np.uint8]:
        """Return a picture, HWC uint8 **RGB**, as the network sees it in this view."""
        height, width = image.shape[:2]
        # as `Detector.input_size_wh`: larger pictures shrink to the long side
        scale = self.scale * min(1.0, long_side / max(width, height))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        shown = RgbPicture(image).to_rgb(size if scale < 1 else None)
        return np.ascontiguousarray(shown[:, ::-1]) if self.mirrored else shown

    def carry(
        self, boxes: NDArray[np.float32], from_wh: tuple[int, int], to_wh: tuple[int, int]
    ) -> NDArray[np.float32]:
        """Carry boxes [N, 4], cut at the picture's edge, from source pixels into the view."""
        seen = boxes.clip(0, [*from_wh, *from_wh])
        seen = seen * np.array([to_wh[0] / from_wh[0], to_wh[1] / from_wh[1]] * 2)
        if self.mirrored:
            seen[:, [0, 2]] = to_wh[0] - seen[:, [2, 0]]
        carried: NDArray[np.float32] = seen.astype(np.float32)
        return carried


def views_of(settings: FeatureSettings) -> list[View]:
    """Return all views, the picture as it is first."""
    scales = sorted({1.0, *settings.scales}, reverse=True)
    mirrored = [False, True] if settings.mirror else [False]
    return [View(scale, flip) for scale in scales for flip in mirrored]


def harvest_anchors(
    trunk: Trunk,
    samples: Sequence[Sample],
    settings: FeatureSettings,
    radius: int,
    writer: BankWriter,
    workers: int = 0,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write the patches of all samples.

    Args:
        trunk: what looks.
        samples: the faces; several may be in one picture.
        settings: views, gate, how many anchors.
        radius: cells around an anchor's own that heads read.
        writer: where patches go; its `boxes` and `face_px` are filled in.
        workers: threads that decode.
        tell: told how many of how many pictures are done.
    """
    pictures = by_picture([sample.path for sample in samples])
    for index, sample in enumerate(samples):
        if sample.box is not None:
            writer.boxes[index] = sample.box
    views, done = views_of(settings), 0
    for chunk, images in read_chunks(pictures, workers):
        for number, view in enumerate(views):
            shown = [view.show(image, settings.long_side) for image in images]
            for members, predictions in trunk.groups(shown, settings.batch):
                for row, member in enumerate(members):
                    who = np.array(chunk[member].samples)
                    source, seen = images[member], shown[member]
                    sizes = (source.shape[1], source.shape[0]), (seen.shape[1], seen.shape[0])
                    candidates = _candidates(predictions, row, settings.gate, sizes[1])
                    if number == 0:
                        _find_missing(writer.boxes, who, candidates, sizes)
                    boxes = view.carry(writer.boxes[who], *sizes)
                    writer.face_px[who, number] = (boxes[:, 2:] - boxes[:, :2]).max(1)
                    chosen = _assign(candidates, torch.from_numpy(boxes), settings)
                    _write(predictions, row, candidates, chosen, who, number, radius, writer)
        done += len(chunk)
        tell(done, len(pictures))


@dataclass(frozen=True, slots=True)
class _Candidates:
    """Anchors of one picture that pass the gate: index, score, box cut at the picture's edge."""

    anchor: Tensor
    score: Tensor
    boxes: Tensor
    level: Tensor


@torch.inference_mode()
def _candidates(
    predictions: Predictions, row: int, gate: float, size_wh: tuple[int, int]
) -> _Candidates:
    logits = predictions.face_logits[row].float()
    anchor = (logits > _logit(gate)).nonzero().squeeze(1)
    boxes = decode(predictions.box_deltas[row, anchor].float(), predictions.anchors[anchor])
    limit = torch.tensor([*size_wh, *size_wh], dtype=torch.float32, device=boxes.device)
    offsets = torch.tensor(level_offsets(grids_of(predictions.features)), device=boxes.device)
    level = torch.bucketize(anchor, offsets, right=True) - 1
    score = logits[anchor].sigmoid()
    boxes = torch.minimum(boxes.clamp(min=0), limit)
    return _Candidates(anchor.cpu(), score.cpu(), boxes.cpu(), level.cpu())


def most_prominent(boxes: Tensor, scores: Tensor) -> int:
    """Return which box [N, 4] a portrait is of: large and surely a face."""
    # squared: anchors alone take some large things that are no faces for half a face
    return int((scores.square() * area(boxes).sqrt()).argmax())


def _find_missing(
    boxes: NDArray[np.float32],
    who: NDArray[np.int64],
    candidates: _Candidates,
    sizes: tuple[tuple[int, int], tuple[int, int]],
) -> None:
    """Give samples without a box that of the most prominent face, in source pixels."""
    lacking = who[np.isnan(boxes[who, 0])]
    if len(lacking) and len(candidates.anchor):
        (w, h), (seen_w, seen_h) = sizes
        best = most_prominent(candidates.boxes, candidates.score)
        grow = np.array([w / seen_w, h / seen_h] * 2, np.float32)
        boxes[lacking] = candidates.boxes[best].numpy() * grow


def _assign(candidates: _Candidates, boxes: Tensor, settings: FeatureSettings) -> dict[int, Tensor]:
    """Return the candidates of each face that is seen, best first, by index of the face [F, 4]."""
    sides = (boxes[:, 2:] - boxes[:, :2]).amax(1)
    shown = torch.nan_to_num(sides, 0.0) >= settings.min_face_px
    if not len(candidates.anchor) or not shown.any():
        return {}
    overlap = iou_matrix(candidates.boxes, torch.nan_to_num(boxes, 0.0))
    overlap[:, ~shown] = 0.0
    best, face = overlap.max(1)
    fits = best >= settings.match_iou
    if settings.levels == "best":
        fits &= candidates.level == fitting_level(boxes)[face]
    found = {}
    for index in shown.nonzero().squeeze(1).tolist():
        mine = (fits & (face == index)).nonzero().squeeze(1)
        order = candidates.score[mine].argsort(descending=True, stable=True)
        if len(order):
            found[index] = mine[order[: settings.anchors]]
    return found


def fitting_level(boxes: Tensor) -> Tensor:
    """Return the level [F] whose anchor is nearest in size to each box [F, 4], by ratio."""
    size = torch.nan_to_num(area(boxes), 1.0).clamp(min=1.0).sqrt()
    level = torch.log2(size / (SIZE_IN_STRIDES * STRIDES[0])).round().long()
    return level.clamp(0, len(STRIDES) - 1)


def _write(
    predictions: Predictions,
    row: int,
    candidates: _Candidates,
    chosen: dict[int, Tensor],
    who: NDArray[np.int64],
    view: int,
    radius: int,
    writer: BankWriter,
) -> None:
    """Cut the patches of a picture's faces out of its maps."""
    if not chosen:
        return
    rows = torch.cat(list(chosen.values()))
    faces = torch.cat([torch.full((len(r),), int(who[i])) for i, r in chosen.items()])
    offsets = level_offsets(grids_of(predictions.features))
    for level in sorted(set(candidates.level[rows].tolist())):
        here = candidates.level[rows] == level
        feature = predictions.features[level][row : row + 1]
        cell = (candidates.anchor[rows[here]] - offsets[level]).to(feature.device)
        columns = feature.shape[3]
        patches = patches_at(feature, cell * 0, cell // columns, cell % columns, radius)
        writer.add(level, faces[here], view, candidates.score[rows[here]], patches)


def _logit(probability: float) -> float:
    """Return the log-odds, finite also at 0 and 1."""
    p = min(max(probability, 1e-6), 1 - 1e-6)
    return math.log(p / (1 - p))
