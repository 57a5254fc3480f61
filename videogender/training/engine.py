"""The training loop: one process a device or core, the same steps everywhere, resumable.

Random numbers depend on the seed, the step and the process alone, so a resumed run draws the crops
that an uninterrupted one would have drawn.
"""

from __future__ import annotations

import copy
import math
import os
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from videogender.errors import OutputError, TrainingError
from videogender.network import checkpoints
from videogender.network.heads import AnchorNetwork
from videogender.training.augment import augment
from videogender.training.crops import CropSettings, plan_crops, sample_pixels
from videogender.training.data import ImageStore
from videogender.training.loss import LossSettings, detection_losses
from videogender.training.match import match

__all__ = ["Progress", "TrainSettings", "Trainer", "prepare_batch"]


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """A run of `videogender train`."""

    minutes: float = 0.0  # length of the schedule in wall-clock minutes, or
    steps: int = 0  # in optimiser steps; exactly one of the two
    side: int = 256  # canvas in pixels
    batch: int = 16  # canvases a step and process
    large_every: int = 5  # every n-th step takes canvases of twice the side, a quarter as many
    learning_rate: float = 2.5e-3
    least_rate: float = 0.01  # final learning rate, as a share of the first
    weight_decay: float = 0.05
    warmup: float = 0.04  # share of the schedule
    ema: float = 0.998
    clip_norm: float = 10.0
    seed: int = 0
    checkpoint_minutes: float = 3.0
    validate_minutes: float = 10.0
    crops: CropSettings = field(default_factory=CropSettings)
    loss: LossSettings = field(default_factory=LossSettings)


@dataclass(frozen=True, slots=True)
class Progress:
    """What a step reports."""

    step: int
    share: float  # of the schedule, 0 to 1
    learning_rate: float
    face: float
    box: float
    gender: float
    images_per_second: float
    data_share: float  # of the time, spent preparing crops
    seconds_left: float


def prepare_batch(
    store: ImageStore,
    network: AnchorNetwork,
    canvases: int,
    side: int,
    settings: CropSettings,
    generator: torch.Generator,
) -> tuple[Tensor, Any]:
    """Return network input [B, 3, S, S] and its targets."""
    crops, targets = plan_crops(store, canvases, side, settings, generator)
    pixels = sample_pixels(store, crops, network.pixel_mean_bgr)
    images = augment(pixels, targets, generator)
    mean = torch.tensor(network.pixel_mean_bgr, device=images.device)[:, None, None]
    images = images.sub_(mean).mul_(network.pixel_scale)
    return images.contiguous(memory_format=torch.channels_last), targets


class Trainer:
    """Trains a network on a store of images.

    Args:
        network: the network, on its device; changed in place.
        store: images and faces, on the same device.
        settings: the run.
        run_dir: where checkpoints go; only process 0 writes.
        rank, world: this process and how many there are (an initialised process group if over 1).
    """

    def __init__(
        self,
        network: AnchorNetwork,
        store: ImageStore,
        settings: TrainSettings,
        run_dir: Path,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if (settings.minutes > 0) == (settings.steps > 0):
            raise TrainingError("give the length of training as either minutes or steps")
        self.network = network.to(memory_format=torch.channels_last).train()
        self.store, self.settings, self.run_dir = store, settings, run_dir
        self.rank, self.world = rank, world
        self.device = store.boxes.device
        decay = [p for p in network.parameters() if p.ndim > 1]
        plain = [p for p in network.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": decay, "weight_decay": settings.weight_decay},
                {"params": plain, "weight_decay": 0.0},
            ],
            lr=settings.learning_rate,
            fused=True,
        )
        self.average = copy.deepcopy(network).eval().requires_grad_(False)
        self.step = 0
        self.elapsed = 0.0  # seconds of training so far, earlier runs included
        self.generator = torch.Generator(device=self.device)
        self._stop = False

    def share(self) -> float:
        """Return how much of the schedule is done, 0 to 1."""
        if self.settings.steps:
            return self.step / self.settings.steps
        return self.elapsed / (self.settings.minutes * 60)

    def learning_rate(self, share: float) -> float:
        """Return the rate at a share of the schedule: linear warm-up, then half a cosine."""
        s = self.settings
        if share < s.warmup:
            return s.learning_rate * max(share / s.warmup, 1e-3)
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, (share - s.warmup) / (1 - s.warmup))))
        return s.learning_rate * (s.least_rate + (1 - s.least_rate) * cosine)

    def run(
        self,
        report: Callable[[Progress], None],
        validate: Callable[[AnchorNetwork, int], None] | None = None,
    ) -> None:
        """Train to the end of the schedule.

        Args:
            report: told of each step, on process 0.
            validate: called now and then with the averaged network and the step, on process 0.

        Raises:
            TrainingError: if the loss is no longer finite.
            KeyboardInterrupt: on SIGINT or SIGTERM, once a checkpoint is written.
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask_to_stop)
        last_save = last_validation = time.monotonic()
        rate = 0.0
        while (share := self.share()) < 1.0:
            began = time.monotonic()
            losses, count, data_seconds, stop = self._one_step(share)
            seconds = time.monotonic() - began
            self.elapsed += self._agree(seconds)
            now = time.monotonic()
            rate = count * self.world / seconds if rate == 0 else 0.95 * rate + 0.05 * count * self.world / seconds
            if self.rank == 0:
                left = self.elapsed * (1 / max(self.share(), 1e-6) - 1)
                report(
                    Progress(
                        self.step,
                        self.share(),
                        self.learning_rate(share),
                        *losses,
                        rate,
                        data_seconds / seconds,
                        left,
                    )
                )
                if now - last_save > self.settings.checkpoint_minutes * 60:
                    self.save()
                    last_save = now
                if validate and now - last_validation > self.settings.validate_minutes * 60:
                    validate(self.average, self.step)
                    last_validation = time.monotonic()
            if stop:
                if self.rank == 0:
                    self.save()
                raise KeyboardInterrupt
        if self.rank == 0:
            self.save()
            if validate:
                validate(self.average, self.step)

    def _ask_to_stop(self, *_: object) -> None:
        self._stop = True

    def _one_step(self, share: float) -> tuple[tuple[float, float, float], int, float, bool]:
        """Take one optimiser step; return losses, canvases, seconds of data work, and a stop."""
        s = self.settings
        rate = self.learning_rate(share)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        large = s.large_every > 0 and self.step % s.large_every == s.large_every - 1
        side, count = (s.side * 2, max(1, s.batch // 4)) if large else (s.side, s.batch)
        self.generator.manual_seed((s.seed * 1_000_003 + self.step) * 4099 + self.rank)
        began = time.monotonic()
        images, targets = prepare_batch(
            self.store, self.network, count, side, s.crops, self.generator
        )
        data_seconds = time.monotonic() - began
        with torch.autocast(self.device.type, torch.bfloat16, enabled=wants_bf16(self.device)):
            predictions = self.network(images)
            matches = match(targets, predictions.anchors)
            losses = detection_losses(self.network, predictions, matches, targets, s.loss)
        self.optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        parts = torch.stack([losses.face, losses.box, losses.gender])
        stop = self._reduce_gradients(parts)
        values = parts.tolist()
        if not all(math.isfinite(v) for v in values):
            raise TrainingError(
                f"the loss is not finite at step {self.step} (face, box, gender: {values}); "
                "the last checkpoint is kept; try a smaller learning rate"
            )
        nn.utils.clip_grad_norm_(self.network.parameters(), s.clip_norm)
        self.optimizer.step()
        self.step += 1
        self._update_average()
        return (values[0], values[1], values[2]), count, data_seconds, stop

    def _reduce_gradients(self, parts: Tensor) -> bool:
        """Average gradients and losses over the processes; tell whether any wants to stop."""
        if self.world == 1:
            return self._stop
        for parameter in self.network.parameters():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        flag = torch.tensor([float(self._stop)], device=self.device)
        flat = torch.cat([*(g.reshape(-1) for g in gradients), parts, flag])
        dist.all_reduce(flat)
        flat /= self.world
        start = 0
        for gradient in gradients:
            # copied, not replaced: the optimiser needs a gradient in its parameter's memory layout
            gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
            start += gradient.numel()
        parts.copy_(flat[start : start + 3])
        return bool(flat[-1] > 0)

    def _agree(self, seconds: float) -> float:
        """Make all processes count the same time, so that schedules stay in step."""
        if self.world == 1 or self.settings.steps:
            return seconds
        value = torch.tensor([seconds], device=self.device)
        dist.broadcast(value, 0)
        return float(value)

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.settings.ema, (1 + self.step) / (10 + self.step))
        mine, theirs = self.average.state_dict(), self.network.state_dict()
        averaged = [k for k, v in mine.items() if v.is_floating_point()]
        torch._foreach_lerp_([mine[k] for k in averaged], [theirs[k] for k in averaged], 1 - decay)

    def save(self) -> None:
        """Write `last.pt` (everything needed to go on) and `last.safetensors` (the average)."""
        state = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "elapsed": self.elapsed,
            "model": self.network.name,
            "settings": asdict(self.settings),
        }
        target = self.run_dir / "last.pt"
        temporary = self.run_dir / ".last.pt.tmp"
        try:
            torch.save(state, temporary)
            os.replace(temporary, target)
        except (OSError, RuntimeError) as error:
            temporary.unlink(missing_ok=True)
            raise OutputError(f"{target}: checkpoint could not be written ({error})") from error
        checkpoints.save(
            self.average, self.run_dir / "last.safetensors", {"steps": str(self.step)}
        )

    def resume(self, path: Path) -> None:
        """Go on from a `last.pt`."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.elapsed = int(state["step"]), float(state["elapsed"])


def wants_bf16(device: torch.device) -> bool:
    """Tell whether bf16 arithmetic is native to a device, and so faster than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    if device.type == "cpu":
        flags = torch.backends.cpu.get_cpu_capability()
        bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
        return "AVX512" in flags and bool(bf16)
    return False
