"""Gender of large faces: each is shrunk to sizes at which the network tells gender best.

`lite` has learned gender from faces of up to some 180 px, and the coarse levels that hold larger
ones least of all. So a large face is cut out of the network's input, shrunk, and both this cut and
its half go through the network again; the mean of both answers takes the place of the first.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from videogender.network.boxes import decode, iou_matrix
from videogender.network.heads import VOTES, AnchorNetwork, Predictions

FACE_PX = 128  # longer side of the face in a cut
CUT_PX = 192  # side of the cut; its half is a multiple of 32 as well
SAME_FACE = 0.4  # IoU of an anchor's box with the face, to have a say
TOGETHER = 8  # cuts in a forward pass: a crowd must not need more memory than a frame

__all__ = ["large_face_logits"]


def large_face_logits(
    network: AnchorNetwork, pictures: Tensor, image: Tensor, boxes: Tensor
) -> Tensor:
    """Ask a network's gender heads about faces that are too large for them.

    Args:
        network: has gender heads.
        pictures: its input [B, 3, H, W], in which the faces were found.
        image: int64 [K], the picture of each face.
        boxes: float [K, 4], xyxy in pixels of the pictures.

    Returns:
        float32 [K, 2], gender logits; NaN where no anchor of the cuts holds the face.
    """
    answers = []
    for start in range(0, len(boxes), TOGETHER):
        part = slice(start, start + TOGETHER)
        cuts, inside = _cut_out(pictures, image[part], boxes[part])
        looks = torch.stack(
            [_look(network, cuts, inside), _look(network, F.avg_pool2d(cuts, 2), inside / 2)]
        )
        answers.append(looks.nanmean(0))
    return torch.cat(answers) if answers else boxes.new_zeros(0, 2)


def _cut_out(pictures: Tensor, image: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Return square cuts [K, 3, S, S] with the faces in their middle, and their boxes there.

    What lies beyond a picture is zero, as the rim of a padded picture is.
    """
    height, width = pictures.shape[2:]
    cuts = pictures.new_empty(len(boxes), 3, CUT_PX, CUT_PX)
    inside = torch.empty_like(boxes)
    for row, (index, (x1, y1, x2, y2)) in enumerate(
        zip(image.tolist(), boxes.tolist(), strict=True)
    ):
        reach = max(x2 - x1, y2 - y1) * CUT_PX / FACE_PX / 2
        left, top = round((x1 + x2) / 2 - reach), round((y1 + y2) / 2 - reach)
        side = round(2 * reach)
        right, bottom = left + side, top + side
        seen = pictures[index, :, max(top, 0) : bottom, max(left, 0) : right]
        rim = (max(-left, 0), max(right - width, 0), max(-top, 0), max(bottom - height, 0))
        square = F.pad(seen.float(), rim)[None]
        cuts[row] = F.interpolate(square, CUT_PX, mode="bilinear", antialias=True)[0]
        shift = boxes.new_tensor([left, top, left, top])
        inside[row] = (boxes[row] - shift) * (CUT_PX / side)
    return cuts.contiguous(memory_format=torch.channels_last), inside


def _look(network: AnchorNetwork, cuts: Tensor, inside: Tensor) -> Tensor:
    """Return the gender logits [K, 2] of one face a cut, weighted by face score; NaN for none."""
    predictions: Predictions = network(cuts)
    found = decode(predictions.box_deltas.float(), predictions.anchors)
    overlap = torch.stack(
        [iou_matrix(one[None], some)[0] for one, some in zip(inside, found, strict=True)]
    )
    votes = predictions.face_logits.float().sigmoid() * (overlap > SAME_FACE)
    weight, anchor = votes.topk(VOTES, 1)
    which = torch.arange(len(cuts), device=cuts.device).repeat_interleave(VOTES)
    answers = network.gender_logits(predictions.features, which, anchor.flatten()).float()
    voted = (answers.view(len(cuts), VOTES, -1) * weight[..., None]).sum(1)
    return voted / weight.sum(1, keepdim=True)  # 0 / 0 is NaN
