"""The training loop: one process a device or core, the same steps everywhere, resumable.

Random numbers depend on the seed, the step and the process alone, so a resumed run draws the crops
that an uninterrupted one would have drawn.
"""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from videogender.devices import has_native_bf16
from videogender.errors import OutputError, TrainingError
from videogender.network import checkpoints
from videogender.network.heads import AnchorNetwork
from videogender.training.lessons import Lesson
from videogender.training.settings import TrainSettings, flat
from videogender.training.stopping import StopRequest, Stopwatch

LEAST_BF16_SIDE = 128
# Steps between two looks at the losses: each look waits for a GPU, which then waits for us.
STEPS_A_LOOK = {"cpu": 1, "cuda": 20}

__all__ = ["Progress", "TrainSettings", "Trainer"]


@dataclass(frozen=True, slots=True)
class Progress:
    """What the last steps came to: one step on a CPU, some on a GPU.

    Attributes:
        step: steps taken so far.
        share: of the schedule, 0 to 1.
        learning_rate: of the last step.
        face, box, gender: means of the losses over these steps, unweighted.
        images_per_second: canvases, all processes together, smoothed.
        data_share: part of the time that went into preparing crops.
        seconds: of training so far, earlier runs of this folder included.
        seconds_left: estimate.
    """

    step: int
    share: float
    learning_rate: float
    face: float
    box: float
    gender: float
    images_per_second: float
    data_share: float
    seconds: float
    seconds_left: float


class Trainer:
    """Trains a network, or a part of it.

    Args:
        network: the network, on its device; changed in place.
        lesson: what it learns from, on the same device, and which part of it learns.
        settings: the run.
        run_dir: where checkpoints go; only process 0 writes.
        rank, world: this process and how many there are (an initialised process group if over 1).
        facts: recorded in the weights that are saved.
    """

    def __init__(
        self,
        network: AnchorNetwork,
        lesson: Lesson,
        settings: TrainSettings,
        run_dir: Path,
        rank: int = 0,
        world: int = 1,
        facts: Mapping[str, str] | None = None,
    ) -> None:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network, self.lesson = network, lesson
        lesson.learner.train()
        self.settings, self.run_dir = settings, run_dir
        self.rank, self.world, self.facts = rank, world, dict(facts or {})
        self.device = next(network.parameters()).device
        self.optimizer = build_optimizer(network, settings)
        self.average = copy.deepcopy(network).eval().requires_grad_(False)
        self.step = 0
        self.elapsed = 0.0  # seconds of training so far, earlier runs included
        self.generator = torch.Generator(device=self.device)
        # oneDNN's bf16 gradient of a strided convolution of a single cell reads memory that nobody
        # wrote; the coarsest level of a smaller canvas has one cell only
        tiny = self.device.type == "cpu" and settings.side < LEAST_BF16_SIDE
        self.bf16 = has_native_bf16(self.device) and not tiny
        self.steps_a_look = STEPS_A_LOOK[self.device.type]
        self._watch = Stopwatch(self.device)
        self._any_asked = torch.zeros((), device=self.device)  # processes that shall stop
        self._images_per_second = 0.0

    def share(self) -> float:
        """Return how much of the schedule is done, 0 to 1."""
        if self.settings.steps:
            return self.step / self.settings.steps
        return self.elapsed / (self.settings.minutes * 60)

    def learning_rate(self, share: float) -> float:
        """Return the rate at a share of the schedule: linear warm-up, then half a cosine."""
        s = self.settings
        if share < s.warmup:
            return s.highest_rate * max(share / s.warmup, 1e-3)
        left = max(1 - s.warmup, 1e-9)
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, (share - s.warmup) / left)))
        return s.highest_rate * (s.least_rate + (1 - s.least_rate) * cosine)

    def run(
        self,
        report: Callable[[Progress], None],
        validate: Callable[[AnchorNetwork, int], None] | None = None,
        stop: StopRequest | None = None,
    ) -> None:
        """Train to the end of the schedule.

        Args:
            report: told of every look at the losses, on process 0.
            validate: called now and then and at the end with the averaged network and the step, on
                process 0, right after a checkpoint; the other processes wait.
            stop: looked at between steps; one asked process stops all.

        Raises:
            TrainingError: if the loss is no longer finite.
            KeyboardInterrupt: on a stop, once a checkpoint is written.
        """
        stop = stop or StopRequest()
        saved = validated = time.monotonic()
        while self.share() < 1.0:
            progress, stopping = self._some_steps(stop)
            if self.rank == 0:
                report(progress)
            if stopping:
                self.save()
                raise KeyboardInterrupt
            now = time.monotonic()
            validating = validate and now - validated > self.settings.validate_minutes * 60
            if validating or now - saved > self.settings.checkpoint_minutes * 60:
                self.save()
                saved = now
            if validating:
                self._validate(validate, stop)
                validated = time.monotonic()
        self.save()
        self._validate(validate, stop)
        if stop.asked:
            raise KeyboardInterrupt

    def _validate(
        self, validate: Callable[[AnchorNetwork, int], None] | None, stop: StopRequest
    ) -> None:
        if validate and self.rank == 0:
            stop.interruptible(lambda: validate(self.average, self.step))

    def _some_steps(self, stop: StopRequest) -> tuple[Progress, bool]:
        """Take the steps up to the next look at the losses; tell what came out, and a stop."""
        began, first, images = time.monotonic(), self.step, 0
        losses: list[Tensor] = []
        while len(losses) < self.steps_a_look and self.share() < 1.0:
            rate = self.learning_rate(self.share())
            parts, count = self._one_step(rate, stop)
            losses.append(parts)
            images += count
        values = torch.stack(losses).tolist()  # waits for the device
        for number, row in enumerate(values):
            if not all(math.isfinite(v) for v in row):
                raise TrainingError(
                    f"the loss is not finite at step {first + number} (face, box, gender: "
                    f"{', '.join(f'{v:g}' for v in row)}); the last checkpoint in {self.run_dir} "
                    "is kept; begin again from it with --init and a smaller --lr"
                )
        seconds = time.monotonic() - began
        self.elapsed += self._agreed(seconds)
        speed = images * self.world / seconds
        before = self._images_per_second or speed
        self._images_per_second = 0.95 * before + 0.05 * speed
        face, box, gender = (sum(column) / len(values) for column in zip(*values, strict=True))
        share = min(1.0, self.share())
        progress = Progress(
            self.step,
            share,
            rate,
            face,
            box,
            gender,
            self._images_per_second,
            self._watch.take() / seconds,
            self.elapsed,
            self.elapsed * (1 / share - 1),
        )
        return progress, stop.asked if self.world == 1 else bool(self._any_asked > 0)

    def _one_step(self, rate: float, stop: StopRequest) -> tuple[Tensor, int]:
        """Take one optimiser step; return its losses [3], still on the device, and canvases."""
        s = self.settings
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        seed = (s.seed * 1_000_003 + self.step) * 4099 + self.rank
        self.generator.manual_seed(seed)
        torch.manual_seed(~seed)  # of all devices, for dropout: other numbers than the crops'
        with self._watch.running():
            batch, count = self.lesson.prepare(self.step, self.generator)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            losses = self.lesson.losses(batch)
        self.optimizer.zero_grad(set_to_none=True)
        losses.total.backward()  # type: ignore[no-untyped-call]
        parts = torch.stack([losses.face, losses.box, losses.gender])
        if self.world > 1:
            self._reduce(parts, stop.asked)
        nn.utils.clip_grad_norm_(self.network.parameters(), s.clip_norm)
        self.optimizer.step()
        self.step += 1
        self._update_average()
        return parts, count

    def _reduce(self, parts: Tensor, asked: bool) -> None:
        """Average gradients, losses and what the lesson notes; hear whether any shall stop."""
        learning = [p for p in self.network.parameters() if p.requires_grad]
        for parameter in learning:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [p.grad for p in learning if p.grad is not None]
        averaged = [*gradients, parts, *self.lesson.state().values()]
        flag = torch.tensor([float(asked)], device=self.device)
        joined = torch.cat([*(tensor.reshape(-1) for tensor in averaged), flag])
        dist.all_reduce(joined)
        joined /= self.world
        start = 0
        for tensor in averaged:
            # copied, not replaced: the optimiser needs a gradient in its parameter's memory layout
            tensor.copy_(joined[start : start + tensor.numel()].view_as(tensor))
            start += tensor.numel()
        self._any_asked = joined[-1]

    def _agreed(self, seconds: float) -> float:
        """Make all processes count the same time, so that schedules stay in step."""
        if self.world == 1 or self.settings.steps:
            return seconds
        value = torch.tensor([seconds], dtype=torch.float64, device=self.device)
        dist.broadcast(value, 0)
        return float(value)

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.settings.ema, (1 + self.step) / (10 + self.step))
        mine, theirs = self.average.state_dict(), self.network.state_dict()
        averaged = [k for k, v in mine.items() if v.is_floating_point()]
        torch._foreach_lerp_([mine[k] for k in averaged], [theirs[k] for k in averaged], 1 - decay)

    def save(self) -> None:
        """Write `last.pt` (everything needed to go on) and `last.safetensors` (the average).

        Random numbers follow from seed, step and process, so they need no saving.
        """
        if self.rank != 0:
            return
        self.lesson.settle(self.average)
        state = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "lesson": self.lesson.state(),
            "step": self.step,
            "elapsed": self.elapsed,
            "model": self.network.name,
            "settings": flat(self.settings),
        }
        target = self.run_dir / "last.pt"
        temporary = self.run_dir / f".last.pt.{os.getpid()}"
        try:
            try:
                torch.save(state, temporary)
                os.replace(temporary, target)
            finally:
                temporary.unlink(missing_ok=True)
        except (OSError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise OutputError(f"{target}: checkpoint could not be written ({reason})") from error
        checkpoints.save(
            self.average, self.run_dir / "last.safetensors", {**self.facts, "steps": str(self.step)}
        )

    def resume(self, path: Path) -> None:
        """Go on from a `last.pt`.

        Raises:
            TrainingError: if the file is missing, damaged or of another network.
        """
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            self.network.load_state_dict(state["network"])
            self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.lesson.load(state.get("lesson", {}))  # older files have none
            self.step, self.elapsed = int(state["step"]), float(state["elapsed"])
        except Exception as error:  # a damaged file can end in any of them
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise TrainingError(f"{path}: cannot go on from this checkpoint ({reason})") from error


def build_optimizer(network: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    """Return AdamW or SGD over the trainable weights, of which biases and scales do not decay."""
    trained = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": settings.decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=settings.highest_rate, momentum=0.9, fused=True)
    return torch.optim.AdamW(groups, lr=settings.highest_rate, fused=True)
