"""What training minimises: face scores with hard negatives, boxes by complete IoU, gender."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from videogender.network.boxes import decode
from videogender.network.heads import FEMALE, AnchorNetwork, Predictions
from videogender.network.second_stage import SecondOpinion, proposal_in_crop, refined_boxes
from videogender.training.closeups import CloseUpTargets
from videogender.training.crops import Targets
from videogender.training.match import BACKGROUND, Matches
from videogender.training.settings import LossSettings

__all__ = ["LossSettings", "Losses", "ciou_loss", "detection_losses", "second_stage_losses"]


@dataclass(frozen=True, slots=True)
class Losses:
    """The parts, unweighted, each a scalar; and their weighted sum."""

    total: Tensor
    face: Tensor
    box: Tensor
    gender: Tensor


def detection_losses(
    network: AnchorNetwork,
    predictions: Predictions,
    matches: Matches,
    targets: Targets,
    settings: LossSettings,
) -> Losses:
    """Compare predictions with the faces that the anchors were matched to.

    Args:
        network: whose gender heads are asked at face anchors.
        predictions: its output for the batch.
        matches: the face of each anchor.
        targets: the faces.
        settings: weights of the parts.
    """
    logits = predictions.face_logits.float()
    canvas, anchor = (matches.face >= 0).nonzero(as_tuple=True)
    face = matches.face[canvas, anchor]
    count = max(1, len(face))

    hard = F.softplus(logits.detach()).masked_fill(matches.face != BACKGROUND, -1.0).flatten()
    chosen = hard.topk(min(settings.negatives * count, len(hard))).indices
    chosen = chosen[hard[chosen] >= 0]
    face_loss = (
        F.softplus(-logits[canvas, anchor]).sum() + F.softplus(logits.flatten()[chosen]).sum()
    ) / count

    found = decode(predictions.box_deltas[canvas, anchor].float(), predictions.anchors[anchor])
    box_loss = ciou_loss(found, targets.boxes[canvas, face]).sum() / count

    gender_loss = logits.sum() * 0.0
    if network.has_gender:
        gender = targets.gender[canvas, face]
        known = (gender >= 0).nonzero().squeeze(1)
        if len(known) > settings.gender_anchors:
            # evenly spaced over the batch; which ones those are is random already
            step = len(known) / settings.gender_anchors
            spread = torch.arange(settings.gender_anchors, device=known.device) * step
            known = known[spread.long()]
        if len(known):
            gender = gender[known]
            answers = network.gender_logits(predictions.features, canvas[known], anchor[known])
            share = (gender == FEMALE).float().mean().clamp(0.1, 0.9)
            weight = torch.where(gender == FEMALE, 0.5 / share, 0.5 / (1 - share))
            each = F.cross_entropy(
                answers.float(), gender, reduction="none", label_smoothing=settings.gender_smoothing
            )
            gender_loss = (each * weight).sum() / weight.sum()
    total = face_loss + settings.box * box_loss + settings.gender * gender_loss
    return Losses(total, face_loss.detach(), box_loss.detach(), gender_loss.detach())


def second_stage_losses(
    opinion: SecondOpinion, targets: CloseUpTargets, settings: LossSettings
) -> Losses:
    """Compare what a second stage says of K crops with what is true of them.

    Args:
        opinion: its output.
        targets: the truth.
        settings: weights of the parts.
    """
    alone = targets.share == 1
    each = F.binary_cross_entropy_with_logits(
        opinion.face.float(), targets.holds_face.float(), reduction="none"
    )
    face_loss = (each * alone).sum() / alone.sum().clamp(min=1)
    boxed = targets.has_box
    found = refined_boxes(opinion.deltas[boxed].float(), proposal_in_crop(opinion.deltas)[boxed])
    box_loss = ciou_loss(found, targets.box[boxed]).sum() / boxed.sum().clamp(min=1)
    known = ~targets.male.isnan()
    male = targets.male[known]
    each = F.cross_entropy(
        opinion.gender[known].float(),
        torch.stack([1 - male, male], 1),
        reduction="none",
        label_smoothing=settings.gender_smoothing,
    )
    gender_loss = each.sum() / known.sum().clamp(min=1)
    total = face_loss + settings.box * box_loss + settings.gender * gender_loss
    return Losses(total, face_loss.detach(), box_loss.detach(), gender_loss.detach())


def ciou_loss(found: Tensor, wanted: Tensor) -> Tensor:
    """Return 1 − complete IoU (arXiv 1911.08287) [N] of boxes [N, 4] in pixels."""
    low = torch.maximum(found[:, :2], wanted[:, :2])
    high = torch.minimum(found[:, 2:], wanted[:, 2:])
    shared = (high - low).clamp(min=0).prod(1)
    wh_found, wh_wanted = found[:, 2:] - found[:, :2], wanted[:, 2:] - wanted[:, :2]
    union = wh_found.prod(1) + wh_wanted.prod(1) - shared + 1e-7
    iou = shared / union
    hull = torch.maximum(found[:, 2:], wanted[:, 2:]) - torch.minimum(found[:, :2], wanted[:, :2])
    diagonal = hull.square().sum(1) + 1e-7
    gap = ((found[:, :2] + found[:, 2:] - wanted[:, :2] - wanted[:, 2:]) / 2).square().sum(1)
    angle = torch.atan(wh_wanted[:, 0] / wh_wanted[:, 1].clamp(min=1e-6)) - torch.atan(
        wh_found[:, 0] / wh_found[:, 1].clamp(min=1e-6)
    )
    shape = 4 / math.pi**2 * angle.square()
    with torch.no_grad():
        alpha = shape / (1 - iou + shape + 1e-7)
    return 1 - iou + gap / diagonal + alpha * shape
