"""Boxes: encode, decode, overlap and suppression as small pure functions on xyxy pixels."""

from __future__ import annotations

import torch
from torch import Tensor

CENTRE_VARIANCE = 0.1  # SSD's scaling of the regression targets, kept by S3FD
SIZE_VARIANCE = 0.2
_BLOCK = 512  # boxes that suppression measures against each other at a time

__all__ = ["area", "decode", "encode", "iou_matrix", "nms", "resized", "vote"]


def encode(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Express boxes as regression targets of their anchors.

    Args:
        boxes: float [..., 4], xyxy in pixels.
        anchors: float [..., 3], centre x, centre y, size in pixels.

    Returns:
        float [..., 4]: dx, dy, dw, dh.
    """
    size = anchors[..., 2:3]
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2
    wh = (boxes[..., 2:] - boxes[..., :2]).clamp(min=1e-3)
    return torch.cat(
        [
            (centre - anchors[..., :2]) / (CENTRE_VARIANCE * size),
            torch.log(wh / size) / SIZE_VARIANCE,
        ],
        -1,
    )


def decode(deltas: Tensor, anchors: Tensor) -> Tensor:
    """Turn regression outputs into boxes; the inverse of `encode`.

    Args:
        deltas: float [..., 4], dx, dy, dw, dh.
        anchors: float [..., 3], centre x, centre y, size in pixels.

    Returns:
        float [..., 4], xyxy in pixels.
    """
    size = anchors[..., 2:3]
    centre = anchors[..., :2] + deltas[..., :2] * (CENTRE_VARIANCE * size)
    # exp is bounded: a face is never over e^4 times an anchor, and fp16 must not overflow
    half = torch.exp((deltas[..., 2:] * SIZE_VARIANCE).clamp(max=4.0)) * (size / 2)
    return torch.cat([centre - half, centre + half], -1)


def area(boxes: Tensor) -> Tensor:
    """Return the area [...] of boxes [..., 4] in square pixels; inverted boxes have none."""
    return (boxes[..., 2] - boxes[..., 0]).clamp(min=0) * (boxes[..., 3] - boxes[..., 1]).clamp(
        min=0
    )


def resized(boxes: Tensor, times: float) -> Tensor:
    """Return boxes [N, 4], xyxy, so many times as large about the same centres."""
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2 * times
    return torch.cat([centre - half, centre + half], 1)


def iou_matrix(a: Tensor, b: Tensor) -> Tensor:
    """Return the intersection over union [N, M] of boxes [N, 4] and [M, 4]."""
    # a coordinate at a time, side by side in memory: several times as fast
    ax1, ay1, ax2, ay2 = a.T.contiguous()[:, :, None]
    bx1, by1, bx2, by2 = b.T.contiguous()[:, None]
    wide = torch.minimum(ax2, bx2).sub_(torch.maximum(ax1, bx1))
    high = torch.minimum(ay2, by2).sub_(torch.maximum(ay1, by1))
    shared = wide.clamp_(min=0).mul_(high.clamp_(min=0))
    union = (area(a)[:, None] + area(b)[None, :]).sub_(shared).clamp_(min=1e-9)
    return shared.div_(union)


def nms(boxes: Tensor, iou_above: float, group: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Greedy non-maximum suppression, without a loop over boxes.

    A box is kept when no better kept box overlaps it by more than `iou_above`. Boxes are taken in
    blocks, each measured against those kept before it. Within a block, starting from "all kept" and
    applying that rule until nothing changes reaches the greedy result exactly: after k rounds every
    decision whose chain of suppressors is shorter than k is final.

    Args:
        boxes: float [N, 4], xyxy in pixels, **best score first**.
        iou_above: overlap above which the weaker box goes.
        group: int64 [N]; boxes of different groups, such as images of a batch, know nothing of each
            other. None means that all are of one group.

    Returns:
        keep: bool [N]; and owner: int64 [N], for each box the kept box that overlaps it most
        (a kept box owns itself).
    """
    n = len(boxes)
    places = torch.arange(n, device=boxes.device)
    blocks = [slice(start, min(start + _BLOCK, n)) for start in range(0, n, _BLOCK)]
    if group is None:
        group = torch.zeros_like(places)

    def overlap(rows: Tensor | slice, columns: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Return the overlaps of some boxes with others, and which are of one group."""
        alike = group[rows][:, None] == group[columns][None, :]
        return iou_matrix(boxes[rows], boxes[columns]), alike

    kept = places[:0]
    for block in blocks:
        free = torch.ones_like(places[block], dtype=torch.bool)
        if len(kept):
            found, alike = overlap(kept, block)
            free = ~((found > iou_above) & alike).any(0)
        found, alike = overlap(block, block)
        suppresses = (found > iou_above).logical_and_(alike).triu_(1).float()
        keep = free
        while True:
            updated = free & (keep.float() @ suppresses == 0)
            if torch.equal(updated, keep):
                break
            keep = updated
        kept = torch.cat([kept, places[block][keep]])
    keep = torch.zeros(n, dtype=torch.bool, device=boxes.device).index_fill_(0, kept, True)
    owner = places.clone()
    for block in blocks:
        # one block, as usual: what was measured serves twice
        if len(blocks) > 1:
            found, alike = overlap(block, kept)
        else:
            found, alike = found[:, kept], alike[:, kept]
        owner[block] = kept[found.masked_fill_(~alike, -1.0).argmax(1)]
    # a degenerate box overlaps nothing, itself included
    return keep, torch.where(keep, places, owner)


def vote(
    boxes: Tensor, scores: Tensor, keep: Tensor, owner: Tensor, least_iou: float = 0.5
) -> Tensor:
    """Let the suppressed boxes of a face have their say about where it is.

    Each kept box becomes the mean of those it stands for, weighted by score (Gidaris and
    Komodakis, arXiv 1505.01749, §5): several anchors see a face, and their errors average out.

    Args:
        boxes: float [N, 4], xyxy in pixels.
        scores: float [N].
        keep, owner: from `nms`.
        least_iou: boxes that overlap their owner less than this do not vote.

    Returns:
        float [K, 4], the kept boxes in order.
    """
    mine = boxes[owner]
    low = torch.maximum(boxes[:, :2], mine[:, :2])
    high = torch.minimum(boxes[:, 2:], mine[:, 2:])
    shared = (high - low).clamp(min=0).prod(1)
    overlap = shared / (area(boxes) + area(mine) - shared).clamp(min=1e-9)
    weight = torch.where(keep | (overlap >= least_iou), scores, 0.0)[:, None]
    total = torch.zeros_like(weight).index_add_(0, owner, weight)
    summed = torch.zeros_like(boxes).index_add_(0, owner, boxes * weight)
    return (summed / total.clamp(min=1e-9))[keep]
