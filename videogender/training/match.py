"""Which anchor answers for which face: S3FD's two-stage matching (arXiv 1708.05237, §3.2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from videogender.training.crops import Targets

MATCH_IOU = 0.35
SECOND_STAGE_IOU = 0.1
MATCHES_PER_FACE = 6  # about the average of stage one
IGNORE_IOU = 0.1  # an anchor touching an ignored face this much is no background

BACKGROUND, IGNORED = -1, -2

__all__ = ["BACKGROUND", "IGNORED", "Matches", "match"]


@dataclass(frozen=True, slots=True)
class Matches:
    """What each anchor has to say.

    Attributes:
        face: int64 [B, A], index of the matched face within its canvas, BACKGROUND or IGNORED.
    """

    face: Tensor


def match(targets: Targets, anchors: Tensor) -> Matches:
    """Match the anchors of a batch to its faces.

    Stage one: an anchor with IoU ≥ 0.35 takes its best face, and each face takes its best anchor.
    Stage two: a face with fewer than six takes its best free anchors above IoU 0.1, up to six.

    Args:
        targets: the faces of B canvases.
        anchors: float32 [A, 3], centre x, centre y and size in pixels.
    """
    if targets.boxes.device.type != "cpu":
        wanted = targets.valid & ~targets.ignore
        return Matches(_match(targets.boxes, wanted, targets.valid, anchors))
    # on a CPU the padding costs more than a loop over canvases
    rows = []
    for boxes, ignore, valid in zip(targets.boxes, targets.ignore, targets.valid, strict=True):
        n = max(1, int(valid.sum()))  # faces stand before the padding
        free = (valid & ~ignore)[None, :n]
        rows.append(_match(boxes[None, :n], free, valid[None, :n], anchors))
    return Matches(torch.cat(rows))


def _match(boxes: Tensor, wanted: Tensor, valid: Tensor, anchors: Tensor) -> Tensor:
    """Match padded faces [B, M, 4] to anchors; return the face index [B, A]."""
    overlap = square_iou(boxes, anchors)  # [B, M, A]
    touched = (overlap.masked_fill((wanted | ~valid)[..., None], 0.0) > IGNORE_IOU).any(1)
    overlap = overlap.masked_fill(~wanted[..., None], 0.0)

    best, face = overlap.max(1)
    assigned = best >= MATCH_IOU
    result = torch.where(assigned, face, BACKGROUND)

    own_iou, own_anchor = overlap.max(2)  # [B, M]
    index = torch.arange(boxes.shape[1], device=boxes.device).expand_as(own_anchor)
    has_own = own_iou > 0
    # padding and faces without any overlap write to a spare column
    spare = torch.where(has_own, own_anchor, result.shape[1])
    widened = torch.cat([result, result.new_full((len(result), 1), BACKGROUND)], 1)
    result = widened.scatter(1, spare, index)[:, :-1]

    held = torch.zeros_like(own_anchor).scatter_add(
        1, result.clamp(min=0), (result >= 0).to(own_anchor.dtype)
    )
    free = overlap.masked_fill((result >= 0)[:, None, :], 0.0)
    count = min(MATCHES_PER_FACE, free.shape[2])
    value, anchor = free.topk(count, 2)  # [B, M, 6], best first
    lacking = (MATCHES_PER_FACE - held)[..., None]
    taken = (torch.arange(count, device=boxes.device) < lacking) & (value > SECOND_STAGE_IOU)
    # an anchor wanted by several faces goes to the one it overlaps most
    offer = torch.zeros_like(overlap).scatter(2, anchor, torch.where(taken, value, 0.0))
    best, face = offer.max(1)
    result = torch.where(best > 0, face, result)
    return torch.where((result < 0) & touched, IGNORED, result)


def square_iou(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Return the IoU [B, M, A] of boxes [B, M, 4] with square anchors [A, 3]."""
    half = anchors[:, 2] / 2
    x, y = anchors[:, 0], anchors[:, 1]
    x1, y1, x2, y2 = (v[..., None] for v in boxes.unbind(-1))
    wide = (torch.minimum(x2, x + half) - torch.maximum(x1, x - half)).clamp_(min=0)
    shared = wide.mul_((torch.minimum(y2, y + half) - torch.maximum(y1, y - half)).clamp_(min=0))
    union = (x2 - x1) * (y2 - y1) + anchors[:, 2] ** 2 - shared
    return shared / union
