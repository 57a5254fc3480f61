"""What a step learns from: crops of pictures for the anchors, close-ups for the second stage.

A lesson prepares batches and says how wrong the network is about them; `engine.Trainer` does the
rest alike for both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from videogender.evaluation.mixing import fit_logistic
from videogender.network.heads import AnchorNetwork
from videogender.network.second_stage import SecondOpinion, SecondStage
from videogender.training.augment import augment, hide_surroundings
from videogender.training.candidates import Candidates
from videogender.training.closeups import CloseUpPools, CloseUpTargets, blended, plan_closeups
from videogender.training.crops import Targets, plan_crops
from videogender.training.data import ImageStore
from videogender.training.loss import Losses, detection_losses, second_stage_losses
from videogender.training.match import match
from videogender.training.sampling import sample_pixels
from videogender.training.settings import CloseUpSettings, TrainSettings

PROPOSALS_TO_SETTLE = 2048
TOGETHER = 256

__all__ = ["AnchorLesson", "CloseUpLesson", "Lesson", "ask", "prepare_batch"]


class Lesson(Protocol):
    """What `Trainer` needs to take a step."""

    @property
    def learner(self) -> nn.Module:
        """The part of the network that learns; the rest keeps its weights and statistics."""

    def prepare(self, step: int, generator: torch.Generator) -> tuple[Any, int]:
        """Draw the batch of a step; return it and how many pictures it has."""

    def losses(self, batch: Any) -> Losses:
        """Say how wrong the network is about a batch."""

    def settle(self, network: AnchorNetwork) -> None:
        """Fit what is not learned by steps, in a network with this lesson's learner."""

    def state(self) -> Mapping[str, Tensor]:
        """Return what it notes as it goes on, float32; processes average it after each step."""

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a `state`; what is not in it stays as it is."""


class AnchorLesson:
    """Faces, boxes and gender at the anchors, from crops and mosaics of pictures."""

    def __init__(self, network: AnchorNetwork, store: ImageStore, settings: TrainSettings) -> None:
        self._network, self._store, self._settings = network, store, settings

    @property
    def learner(self) -> nn.Module:
        """The whole network; a second stage is given no gradients."""
        return self._network

    def prepare(self, step: int, generator: torch.Generator) -> tuple[tuple[Tensor, Targets], int]:
        """Draw canvases; every `large_every`-th step they are fewer and larger."""
        s = self._settings
        large = s.large_every > 0 and step % s.large_every == s.large_every - 1
        side, count = (s.side * 2, max(1, s.batch // 4)) if large else (s.side, s.batch)
        return prepare_batch(self._store, self._network, count, side, s, generator), count

    def losses(self, batch: tuple[Tensor, Targets]) -> Losses:
        """Match the anchors with the faces and compare."""
        images, targets = batch
        predictions = self._network(images)
        matches = match(targets, predictions.anchors)
        return detection_losses(self._network, predictions, matches, targets, self._settings.loss)

    def settle(self, network: AnchorNetwork) -> None:
        """Do nothing: there is nothing to fit."""

    def state(self) -> Mapping[str, Tensor]:
        """Return nothing: what it shows does not depend on what it showed."""
        return {}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Do nothing."""


class CloseUpLesson:
    """Close-ups of faces and of what the first stage takes for faces."""

    def __init__(self, look: SecondStage, pools: CloseUpPools, settings: TrainSettings) -> None:
        self._look, self._pools, self._settings = look, pools, settings

    @property
    def learner(self) -> nn.Module:
        """The second stage."""
        return self._look

    def prepare(
        self, step: int, generator: torch.Generator
    ) -> tuple[tuple[Tensor, CloseUpTargets], int]:
        """Draw candidates of all pools and cut them out."""
        s, look = self._settings, self._look
        crops, targets = plan_closeups(
            self._pools.store, self._pools.draw(s.closeups, generator), s.closeups, generator
        )
        pixels = sample_pixels(self._pools.store, crops, look.pixel_mean_bgr)
        alone = torch.where(targets.holds_face[:, None], targets.box, torch.nan)
        pixels = hide_surroundings(pixels, alone, generator, s.distortion)
        images = augment(pixels, targets.as_targets(), generator, s.distortion)
        images, targets = blended(images, targets, s.closeups.blend_share, generator)
        return (_as_input(images, look), targets), s.closeups.batch

    def losses(self, batch: tuple[Tensor, CloseUpTargets]) -> Losses:
        """Compare what the second stage says with what is true."""
        images, targets = batch
        opinion = self._look(images)
        known = (targets.gender >= 0) & (targets.share == 1)
        with torch.no_grad():
            each = F.cross_entropy(
                opinion.gender[known].float(), targets.gender[known], reduction="none"
            )
            self._pools.heed(targets.kind[known], each)
        return second_stage_losses(opinion, targets, self._settings.loss)

    @torch.no_grad()
    def settle(self, network: AnchorNetwork) -> None:
        """Fit how much each look's word on a face counts, on proposals as they come."""
        look, pools = network.second_stage, self._pools
        if look is None:
            return
        generator = torch.Generator(pools.store.boxes.device).manual_seed(self._settings.seed)
        table = pools.some_proposed(PROPOSALS_TO_SETTLE, generator)
        if len(table):
            second = ask(look, pools.store, table, generator).face
            look.face_mix.copy_(
                fit_logistic(torch.stack([table.logit, second], 1), table.holds_face)
            )

    def state(self) -> Mapping[str, Tensor]:
        """Return how wrong the network is about each kind of faces, which decides the draws."""
        return {"wrong": self._pools.wrong}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a `state`; from an empty one, with all kinds alike."""
        if "wrong" in state:
            self._pools.wrong.copy_(state["wrong"])


@torch.no_grad()
def ask(
    look: SecondStage, store: ImageStore, table: Candidates, generator: torch.Generator
) -> SecondOpinion:
    """Return what a second stage says of candidates as they come: in the middle, undistorted."""
    still = CloseUpSettings(shift=0.0, size=0.0, rotation_degrees=0.0, aspect=0.0, coarse_share=0.0)
    opinions = []
    for start in range(0, len(table), TOGETHER):
        some = table.select(slice(start, start + TOGETHER))
        crops, _ = plan_closeups(store, some, still, generator)
        pixels = sample_pixels(store, crops, look.pixel_mean_bgr).float()
        opinions.append(look(_as_input(pixels, look)))
    return SecondOpinion(
        *(torch.cat([part.float() for part in parts]) for parts in zip(*opinions, strict=True))
    )


def prepare_batch(
    store: ImageStore,
    network: AnchorNetwork,
    canvases: int,
    side: int,
    settings: TrainSettings,
    generator: torch.Generator,
) -> tuple[Tensor, Targets]:
    """Return network input [B, 3, S, S] and its targets."""
    crops, targets = plan_crops(store, canvases, side, settings.crops, generator)
    pixels = sample_pixels(store, crops, network.pixel_mean_bgr)
    images = augment(pixels, targets, generator, settings.distortion)
    return _as_input(images, network), targets


def _as_input(images: Tensor, network: AnchorNetwork | SecondStage) -> Tensor:
    """Turn distorted pixels [B, 3, S, S] of 0 to 255 into what a network reads, in place."""
    mean = torch.tensor(network.pixel_mean_bgr, device=images.device)[:, None, None]
    images = images.sub_(mean).mul_(network.pixel_scale)
    return images.contiguous(memory_format=torch.channels_last)
