"""What a batch of close-ups shows: which candidates, cut how, and what is true of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from videogender.network.second_stage import FACE_PX, SIDE_PX
from videogender.training.candidates import Candidates, faces_of
from videogender.training.crops import Crops, Targets
from videogender.training.data import PYRAMID_LEVELS, ImageStore
from videogender.training.settings import CloseUpSettings

OCTAVES = 10  # of sizes, from a pixel on
SLOWLY = 0.002  # what one face changes in how wrong the network is said to be about its kind

__all__ = ["CloseUpPools", "CloseUpTargets", "blended", "plan_closeups"]


@dataclass(frozen=True, slots=True)
class CloseUpTargets:
    """What is true of K crops.

    Attributes:
        holds_face: bool [K].
        has_box: bool [K], whether the face's box is to be learned.
        box: float32 [K, 4], the face, xyxy in pixels of the crop; only where there is one.
        gender: int64 [K], 0 female, 1 male, -1 unknown.
        male: float32 [K], the chance of a male face that is to be learned; NaN unknown.
        share: float32 [K], how much of the first face is left in the blend; 1 where there is none.
        kind: int64 [K], two for each of the store's groups: the first of women, and of faces whose
            gender is unknown.
    """

    holds_face: Tensor
    has_box: Tensor
    box: Tensor
    gender: Tensor
    male: Tensor
    share: Tensor
    kind: Tensor

    def as_targets(self) -> Targets:
        """Return the faces in the form that distortions of pixels read."""
        return Targets(
            self.box[:, None], self.gender[:, None], ~self.holds_face[:, None],
            self.holds_face[:, None],
        )  # fmt: skip


class CloseUpPools:
    """The candidates of a store, sorted by what they teach.

    Args:
        store: the pictures.
        proposals: of a first stage in its scenes; see `candidates.proposals_of`.

    Attributes:
        wrong: float32 [kinds], how wrong the network is about each kind of faces; see `heed`.
    """

    def __init__(self, store: ImageStore, proposals: Candidates) -> None:
        self.store = store
        faces = faces_of(store)
        known = ~faces.male.isnan()
        is_scene = faces.image < len(store.scene_ids)
        self.wrong = torch.ones(len(store.groups) * 2, device=faces.image.device)
        self._portraits = faces.select(known & ~is_scene)
        self._scenes = faces.select(known & is_scene)
        self._faces = Candidates.joined([proposals.select(proposals.holds_face), faces])
        self._none = proposals.select(~proposals.holds_face)
        self._proposed = proposals.select(~proposals.logit.isnan())
        # most faces are tiny; so that large ones are seen as well, a face counts by its side's root
        self._face_weight = (self._faces.box[:, 2:] - self._faces.box[:, :2]).amax(1).sqrt()

    def draw(self, settings: CloseUpSettings, generator: torch.Generator) -> Candidates:
        """Draw the candidates of a batch; what a pool lacks is drawn from all faces.

        Of these, gender is not known.
        """
        parts = []
        for table, share, weight in (
            (self._portraits, settings.portrait_share, self._fair(self._portraits)),
            (self._scenes, settings.scene_share, self._fair(self._scenes)),
            (self._none, settings.none_share, None),
        ):
            count = round(settings.batch * share) if len(table) else 0
            parts.append(table.select(_drawn(len(table), count, weight, generator)))
        rest = settings.batch - sum(len(part) for part in parts)
        others = self._faces.select(_drawn(len(self._faces), rest, self._face_weight, generator))
        # drawn as they come, with more men among the small: they teach no gender
        parts.append(
            replace(
                others,
                gender=torch.full_like(others.gender, -1),
                male=torch.full_like(others.male, math.nan),
            )
        )
        return Candidates.joined(parts)

    def heed(self, kind: Tensor, loss: Tensor) -> None:
        """Note how wrong the network is about kinds of faces, for the next draws.

        Args:
            kind: int64 [K], see `CloseUpTargets.kind`.
            loss: float [K], of gender.
        """
        total = torch.zeros_like(self.wrong).index_add_(0, kind, loss)
        count = torch.zeros_like(self.wrong).index_add_(0, kind, torch.ones_like(loss))
        mean = torch.where(count > 0, total / count.clamp(min=1), self.wrong)
        self.wrong = torch.lerp(self.wrong, mean, SLOWLY * count.clamp(max=1 / SLOWLY))

    def _fair(self, table: Candidates) -> Tensor:
        """Return how often each of some faces with gender is to be drawn, float [N].

        A group counts by the square of how wrong the network is about it, and by the root of its
        size: few faces drawn often are learned by heart. Women and men come as often, among small
        faces and among large ones: else size itself, which differs between them in the data, would
        speak for one.
        """
        size = torch.bincount(table.kind, minlength=len(self.wrong)).clamp(min=1)
        weight = (self.wrong.square() / size.sqrt())[table.kind]
        side = (table.box[:, 2:] - table.box[:, :2]).amax(1)
        octave = side.log2().long().clamp(0, OCTAVES - 1)
        cell = octave * 2 + table.gender
        total = torch.zeros(OCTAVES * 2, device=weight.device).index_add_(0, cell, weight)
        of_octave = total.view(OCTAVES, 2).sum(1).repeat_interleave(2)
        has_both = (total.view(OCTAVES, 2) > 0).all(1).repeat_interleave(2)
        factor = torch.where(has_both, of_octave / 2 / total.clamp(min=1e-9), 1.0)
        fair: Tensor = weight * factor[cell]
        return fair

    def some_proposed(self, most: int, generator: torch.Generator) -> Candidates:
        """Draw proposals of the first stage, each once."""
        n = len(self._proposed)
        return self._proposed.select(
            torch.randperm(n, generator=generator, device=generator.device)[:most]
        )


def _drawn(n: int, count: int, weight: Tensor | None, generator: torch.Generator) -> Tensor:
    device = generator.device
    if count <= 0 or n == 0:
        return torch.zeros(0, dtype=torch.long, device=device)
    if weight is None:
        return torch.randint(n, (count,), generator=generator, device=device)
    return torch.multinomial(weight, count, replacement=True, generator=generator)


def plan_closeups(
    store: ImageStore, table: Candidates, settings: CloseUpSettings, generator: torch.Generator
) -> tuple[Crops, CloseUpTargets]:
    """Cut candidates out as a second stage sees them, a little off and turned.

    Args:
        store: the pictures.
        table: one candidate a crop.
        settings: how far they are off.
        generator: random numbers.
    """
    k = len(table)

    device = table.box.device

    def uniform() -> Tensor:
        return torch.rand(k, device=device, generator=generator)

    def normal() -> Tensor:
        return torch.randn(k, device=device, generator=generator)

    box = table.box
    wh = box[:, 2:] - box[:, :2]
    side = wh.amax(1)
    centre = (box[:, :2] + box[:, 2:]) / 2
    centre = centre + torch.stack([normal(), normal()], 1) * (settings.shift * side)[:, None]
    side = side * torch.exp(normal() * settings.size)
    step = side / FACE_PX  # stored pixels a pixel of the crop

    mirror = torch.where(uniform() < 0.5, -1.0, 1.0)
    angle = torch.where(uniform() < 0.5, normal() * math.radians(settings.rotation_degrees), 0.0)
    cos, sin = angle.cos(), angle.sin()
    linear = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)
    linear[:, :, 0] *= mirror[:, None]
    # a little wider or narrower, at the same area
    step_xy = step[:, None] * torch.exp(normal()[:, None] * torch.tensor([0.5, -0.5], device=device)
                                        * settings.aspect)  # fmt: skip
    linear = linear * step_xy[:, None, :]
    middle = torch.full((2,), SIDE_PX / 2, device=device)
    to_source = torch.cat([linear, (centre - linear @ middle)[:, :, None]], 2)

    natural = torch.floor(torch.log2(step.clamp(min=1.0)) + 0.3).long()
    coarsest = torch.log2((side / settings.least_seen_px).clamp(min=1.0)).floor()
    coarse = torch.where(uniform() < settings.coarse_share, (uniform() * (coarsest + 1)).long(), 0)
    level = torch.maximum(torch.maximum(natural, coarse), table.level).clamp(max=PYRAMID_LEVELS - 1)

    holds = table.holds_face
    face = torch.where(holds[:, None], table.face, table.box)
    at = torch.linalg.solve(linear, ((face[:, :2] + face[:, 2:]) / 2 - centre)[:, :, None])
    at = at.squeeze(2) + middle
    half = (face[:, 2:] - face[:, :2]) / step_xy / 2
    index = torch.arange(k, device=device)
    crops = Crops(
        SIDE_PX,
        index,
        torch.ones_like(index),
        index,
        torch.zeros(k, 2, device=device),
        torch.full((k,), float(SIDE_PX), device=device),
        table.image,
        level,
        to_source,
    )
    has_box = holds if settings.portrait_boxes else holds & (table.image < len(store.scene_ids))
    found = torch.cat([at - half, at + half], 1)
    return crops, CloseUpTargets(
        holds, has_box, found, table.gender, table.male, torch.ones_like(step), table.kind
    )


def blended(
    images: Tensor, targets: CloseUpTargets, share: float, generator: torch.Generator
) -> tuple[Tensor, CloseUpTargets]:
    """Blend another face into some of those with gender (mixup, arXiv 1710.09412).

    What is right of both is right of the blend, each as much as it is left: a network that has to
    say so learns fewer faces, and fewer wrong labels, by heart. Blends teach gender alone.

    Args:
        images: float [K, 3, S, S]; written to.
        targets: what is true of them.
        share: how many of the faces with gender.
        generator: random numbers, on the same device.
    """
    known = (~targets.male.isnan()).nonzero().squeeze(1)
    if len(known) < 2 or share <= 0:
        return images, targets
    draw = torch.rand(2, len(known), device=images.device, generator=generator)
    chosen = draw[0] < share
    first = known[chosen]
    second = known.roll(1)[chosen]  # the order of a batch is by pool, and within it by chance
    left = 0.5 + draw[1][chosen] / 2
    images[first] = torch.lerp(images[second], images[first], left[:, None, None, None])
    male, share_left, has_box = (
        targets.male.clone(),
        targets.share.clone(),
        targets.has_box.clone(),
    )
    male[first] = torch.lerp(targets.male[second], targets.male[first], left)
    share_left[first] = left
    has_box[first] = False
    return images, replace(targets, male=male, share=share_left, has_box=has_box)
