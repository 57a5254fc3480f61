"""From logits to proposals: which anchors hold a face, and what they and close-ups say of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from videogender.closeup import sharpest_crops
from videogender.frames import Picture
from videogender.network.boxes import decode, nms, resized, vote
from videogender.network.heads import FEMALE, MALE, Predictions
from videogender.network.second_stage import FACE_PX, SIDE_PX, SecondOpinion, refined_boxes

MOST_CANDIDATES = 3000  # an image; only thresholds far below 0.5 reach it
MOST_PROPOSALS = 400  # an image, that are seen close up
# Close-ups, uint8 [K, S, S, 3] **RGB**, to what a second stage says of them.
Judge = Callable[[Tensor], SecondOpinion]

# A second view is for what may be a face, unless the first has left no doubt: by its score, and by
# the log-odds of its gender.
SEEN_AGAIN_FROM = 0.1
PLAIN_SCORE, PLAIN_GENDER = 0.95, 2.0
# Where the first view of a likely face leaves it open which gender it presents, it is seen from a
# little nearer and from a little farther off as well.
OPEN_SCORE, OPEN_GENDER = 0.3, 1.0
ZOOMS = (0.85, 1.15)
MOST_CUTS = 64  # close-ups in a forward pass: a crowd must not need more memory than a frame

__all__ = [
    "MOST_PROPOSALS",
    "ZOOMS",
    "Anchors",
    "Judge",
    "Proposals",
    "Shown",
    "propose",
    "rank_within",
    "seen_close_up",
    "still_faces",
]


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture as a network sees it.

    Attributes:
        pixels: HWC uint8 **RGB**.
        size_wh: of what it was scaled from.
        picture: what it was scaled from, if that is at hand.
    """

    pixels: NDArray[np.uint8]
    size_wh: tuple[int, int]
    picture: Picture | None = None


@dataclass(slots=True)
class Anchors:
    """The anchors of a batch that may hold a face, best score first.

    Attributes:
        image, anchor: int64 [N], which anchor of which picture.
        boxes: float32 [N, 4], xyxy in pixels of the network's input.
        score: float32 [N].
        owner: int64 [N], the anchor that stands for the same face.
        keep: bool [N], whether it stands for a face itself.
    """

    image: Tensor
    anchor: Tensor
    boxes: Tensor
    score: Tensor
    owner: Tensor
    keep: Tensor

    def voted(self) -> Proposals:
        """Return the faces, for whose places all their anchors have voted."""
        boxes = vote(self.boxes, self.score, self.keep, self.owner)
        return Proposals(self.image[self.keep], boxes, self.score[self.keep])

    def stay(self, chosen: Tensor) -> None:
        """Let only those of the kept anchors [K] go on that are chosen, bool [K]."""
        self.keep[self.keep.nonzero().squeeze(1)[~chosen]] = False


@dataclass(frozen=True, slots=True)
class Proposals:
    """What the kept anchors of a batch stand for.

    Attributes:
        image: int64 [K].
        boxes: float32 [K, 4], xyxy in pixels of the network's input.
        scores: float32 [K], the probability that there is a face.
        close_up: float32 [K], log-odds of female that a second stage gives, or None without one.
    """

    image: Tensor
    boxes: Tensor
    scores: Tensor
    close_up: Tensor | None = None

    def __len__(self) -> int:
        return len(self.image)

    def select(self, chosen: Tensor) -> Proposals:
        """Return those that an index or mask chooses."""
        close_up = None if self.close_up is None else self.close_up[chosen]
        return Proposals(self.image[chosen], self.boxes[chosen], self.scores[chosen], close_up)

    def resized(self, times: float) -> Proposals:
        """Return them with boxes so many times as large."""
        return replace(self, boxes=resized(self.boxes, times))

    @classmethod
    def joined(cls, parts: Sequence[Proposals]) -> Proposals:
        """Return the proposals of all parts, of which no second stage has said anything yet."""
        return cls(
            torch.cat([part.image for part in parts]),
            torch.cat([part.boxes for part in parts]),
            torch.cat([part.scores for part in parts]),
        )


def propose(predictions: Predictions, least_logit: float, nms_iou: float) -> Anchors:
    """Gather the anchors above a threshold and tell which stand for the same face."""
    image, anchor = (predictions.face_logits > least_logit).nonzero(as_tuple=True)
    order = predictions.face_logits[image, anchor].argsort(descending=True, stable=True)
    image, anchor = image[order], anchor[order]
    if len(image) > MOST_CANDIDATES:
        best = rank_within(image) < MOST_CANDIDATES
        image, anchor = image[best], anchor[best]
    score = predictions.face_logits[image, anchor].float().sigmoid()
    boxes = decode(predictions.box_deltas[image, anchor].float(), predictions.anchors[anchor])
    keep, owner = nms(boxes, nms_iou, group=image)
    return Anchors(image, anchor, boxes, score, owner, keep)


def seen_close_up(
    judge: Judge,
    face_mix: Tensor,
    proposals: Proposals,
    batch: Sequence[Shown],
    zooms: Sequence[float] = ZOOMS,
) -> Proposals:
    """Let a second stage judge proposals, and return what both stages say of them.

    Where that leaves doubt, a proposal is seen once more, mirrored and around the box that came
    out; where it leaves open which gender a likely face presents, at two more sizes as well. Face
    and gender then are the mean of what the views say, whose errors differ as the crops do: face of
    the first two, gender of all. The box is the second one's, which had less far to go.

    Args:
        judge: the second stage.
        face_mix: of the second stage.
        proposals: of the first stage.
        batch: the pictures that they are in.
        zooms: how many times as large likely faces are seen, too, whose gender is open.
    """
    if not len(proposals):
        return replace(proposals, close_up=proposals.scores)
    old, new, shift = face_mix.tolist()
    first = old * torch.logit(proposals.scores, 1e-6) + shift
    face, boxes, gender = _opinion(judge, proposals, batch)
    score = (first + new * face).sigmoid()
    plain = (score > PLAIN_SCORE) & (gender.abs() > PLAIN_GENDER)
    again = ((score > SEEN_AGAIN_FROM) & ~plain).nonzero().squeeze(1)
    if not len(again):
        return Proposals(proposals.image, boxes, score, gender)
    is_open = (score[again] > OPEN_SCORE) & (gender[again].abs() < OPEN_GENDER)
    moved = replace(proposals, boxes=boxes).select(again)
    unclear = moved.select(is_open)
    views = [moved, *(unclear.resized(zoom) for zoom in zooms)]
    face_again, boxes_again, gender_again = _opinion(
        judge, Proposals.joined(views), batch, mirrored=len(again)
    )
    face[again] = (face[again] + face_again[: len(again)]) / 2
    boxes[again] = boxes_again[: len(again)]
    said = gender[again] + gender_again[: len(again)]
    said[is_open] += gender_again[len(again) :].view(len(zooms), len(unclear)).sum(0)
    gender[again] = said / torch.where(is_open, 2 + len(zooms), 2)
    score = (first + new * face).sigmoid()
    return Proposals(proposals.image, boxes, score, gender)


def _opinion(
    judge: Judge, proposals: Proposals, batch: Sequence[Shown], *, mirrored: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Return log-odds of a face [K], boxes [K, 4] and log-odds of female [K] of close-ups.

    Args:
        judge: the second stage.
        proposals: what is seen close up.
        batch: the pictures that they are in.
        mirrored: how many of them, from the first one on, are seen mirrored.
    """
    image, around = proposals.image.cpu().numpy(), proposals.boxes.cpu().numpy()
    cuts, middle = sharpest_crops(
        [shown.pixels for shown in batch],
        [shown.picture for shown in batch],
        image,
        around,
        SIDE_PX,
        FACE_PX,
    )
    pixels = torch.from_numpy(cuts)
    pixels[:mirrored] = pixels[:mirrored].flip(2)
    opinions = [judge(part.to(proposals.boxes.device)) for part in torch.split(pixels, MOST_CUTS)]
    face, deltas, gender = (torch.cat(part).float() for part in zip(*opinions, strict=True))
    deltas[:mirrored, 0].neg_()
    boxes = refined_boxes(deltas, torch.from_numpy(middle).to(deltas.device))
    return face, boxes, gender[:, FEMALE] - gender[:, MALE]


def still_faces(proposals: Proposals, least_score: float, nms_iou: float) -> Tensor:
    """Tell which proposals [K] are faces to both stages, each face once, bool [K]."""
    best = proposals.scores.argsort(descending=True, stable=True)
    alone, _ = nms(proposals.boxes[best], nms_iou, group=proposals.image[best])
    stays = proposals.scores > least_score
    stays[best] &= alone
    return stays


def rank_within(owner: Tensor) -> Tensor:
    """Return how many earlier entries have the same owner, [N]."""
    order = owner.argsort(stable=True)
    sorted_owner = owner[order]
    place = torch.arange(len(owner), device=owner.device)
    first = torch.searchsorted(sorted_owner, sorted_owner)
    rank = torch.empty_like(owner)
    rank[order] = place - first
    return rank
