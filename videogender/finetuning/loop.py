"""The one loop of all recipes with a frozen trunk: epochs over a bank of features.

Which faces a step takes, in which view and by which anchors, follows from seed, epoch and step
alone. A run that was stopped thus goes on as if it had not been. Of several processes each takes
its share of the same steps, and gradients are added, so that their number changes nothing but
rounding.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from videogender.errors import OutputError, TrainingError
from videogender.finetuning.bank import Bank
from videogender.finetuning.figures import balanced_accuracy, log_loss
from videogender.finetuning.judging import judge
from videogender.finetuning.learners import Learner
from videogender.finetuning.loss import answer_losses
from videogender.finetuning.plan import Plan, Step
from videogender.finetuning.settings import FinetuneSettings
from videogender.training.stopping import StopRequest

MOMENTUM = 0.9

__all__ = ["Loop", "Progress", "State"]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an epoch is.

    Attributes:
        epoch: from 1; epochs: of the schedule.
        done, total: faces of this epoch.
        loss: mean over the epoch so far.
        accuracy: share of right answers over the epoch so far.
        faces_per_second: since this process began the epoch, all processes together.
        seconds_left: estimate for the whole schedule.
    """

    epoch: int
    epochs: int
    done: int
    total: int
    loss: float
    accuracy: float
    faces_per_second: float
    seconds_left: float


@dataclass(slots=True)
class State:
    """All of a run that is no tensor; as JSON holds it."""

    epoch: int = 0
    position: int = 0  # steps of this epoch that are done
    step: int = 0
    loss: float = 0.0  # sums over this epoch
    right: float = 0.0
    weight: float = 0.0
    seconds: float = 0.0  # of this epoch, earlier runs included
    best_score: float = -math.inf
    best_epoch: int = 0
    worse: int = 0  # epochs since then
    history: list[dict[str, Any]] = field(default_factory=list)


class Loop:
    """Trains a learner on a bank.

    Args:
        learner: on the bank's device; changed in place.
        bank: features of all faces.
        labels: int64 [S], the class of each face of the bank.
        train: indices of the faces to learn from; those without features are left out.
        val: indices to choose by, the learner as it was given among them, as epoch 0; none keeps
            the last epoch.
        settings: schedule, batches, loss.
        rank, world: this process and how many there are (an initialised process group if over 1).
        epochs: the schedule's length, if not the settings'.
    """

    def __init__(
        self,
        learner: Learner,
        bank: Bank,
        labels: NDArray[np.int64],
        train: NDArray[np.int64],
        val: NDArray[np.int64],
        settings: FinetuneSettings,
        rank: int = 0,
        world: int = 1,
        epochs: int | None = None,
    ) -> None:
        self.learner, self.bank, self.labels = learner, bank, labels
        self.settings, self.rank, self.world = settings, rank, world
        self.epochs = epochs or settings.epochs
        self.val = val
        self.plan = Plan(bank, labels, train, learner.classes, settings)
        learner.freeze_levels(self.plan.unseen_levels())
        self.parameters = [p for p in learner.trained().values() if p.requires_grad]
        for parameter in self.parameters:
            parameter.grad = torch.zeros_like(parameter)
        self.optimizer = _build_optimizer(self.parameters, settings)
        self.state, self.best = State(), learner.state()
        self._any_asked = False

    @property
    def finished(self) -> bool:
        """Whether the schedule is over, or patience is."""
        patience = self.settings.patience
        return self.state.epoch >= self.epochs or 0 < patience <= self.state.worse

    def run(
        self,
        report: Callable[[Progress], None] = lambda progress: None,
        epoch_done: Callable[[dict[str, Any], bool], None] = lambda row, best: None,
        save: Callable[[], None] = lambda: None,
        stop: StopRequest | None = None,
    ) -> None:
        """Train to the end; afterwards the learner has the best weights.

        Args:
            report: told of every step.
            epoch_done: told of every epoch: its figures, and whether it is the best so far.
            save: called after every epoch, and before a stop.
            stop: looked at between steps; one asked process stops all.

        Raises:
            TrainingError: if the loss is no longer finite.
            KeyboardInterrupt: on a stop, once all is saved.
        """
        stop = stop or StopRequest()
        if len(self.val) and self.state.best_score == -math.inf:
            self.state.best_score, _ = self._judged()  # what was given is to be beaten
        while not self.finished:
            epoch = self.plan.epoch(self.state.epoch)
            before, began, first = self.state.seconds, time.monotonic(), self.state.position
            while self.state.position < self.plan.steps:
                self._step(epoch.step(self.state.position), stop.asked)
                self.state.seconds = before + time.monotonic() - began
                report(self._progress(time.monotonic() - began, self.state.position - first))
                if self._any_asked:
                    save()
                    raise KeyboardInterrupt
            row, is_best = self._end_epoch()
            row["seconds"] = before + time.monotonic() - began
            epoch_done(row, is_best)
            save()
        self.learner.put(self.best)

    def _step(self, batch: Step, asked: bool) -> None:
        """Take one optimiser step."""
        rate = self._learning_rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        for parameter in self.parameters:
            assert parameter.grad is not None
            parameter.grad.zero_()
        total = float(batch.weight.sum())
        mine = np.arange(self.rank, len(batch.face), self.world)
        sums = torch.zeros(3, device=self.bank.device)  # loss, right, stop
        sums[2] = float(asked)
        for level in np.unique(batch.level[mine]):
            here = mine[batch.level[mine] == level]
            logits = self.learner.logits(int(level), self.bank.patches(level, batch.place[here]))
            label = torch.from_numpy(self.labels[batch.face[here]]).to(logits.device)
            weight = torch.from_numpy(batch.weight[here]).to(logits.device)
            loss = (answer_losses(logits, label, self.settings.loss) * weight).sum() / total
            loss.backward()  # type: ignore[no-untyped-call]
            sums[0] += loss.detach()
            sums[1] += ((logits.detach().argmax(1) == label) * weight).sum() / total
        if self.world > 1:
            self._reduce(sums)
        if self.settings.clip_norm > 0:
            nn.utils.clip_grad_norm_(self.parameters, self.settings.clip_norm)
        self.optimizer.step()
        loss_now, right, stops = sums.tolist()
        if not math.isfinite(loss_now):
            raise TrainingError(
                f"the loss is not finite at epoch {self.state.epoch + 1}; begin again with a "
                "smaller --set learning_rate"
            )
        self._any_asked = stops > 0
        self.state.loss += loss_now * batch.faces
        self.state.right += right * batch.faces
        self.state.weight += batch.faces
        self.state.position += 1
        self.state.step += 1

    def _reduce(self, sums: Tensor) -> None:
        """Add up gradients and sums over the processes."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        joined = torch.cat([*(g.reshape(-1) for g in gradients), sums])
        dist.all_reduce(joined)
        start = 0
        for gradient in gradients:
            gradient.copy_(joined[start : start + gradient.numel()].view_as(gradient))
            start += gradient.numel()
        sums.copy_(joined[start:])

    def _end_epoch(self) -> tuple[dict[str, Any], bool]:
        """Judge the epoch, keep it if it is the best, and make ready for the next."""
        state = self.state
        row: dict[str, Any] = {
            "epoch": state.epoch + 1,
            "step": state.step,
            "train_loss": state.loss / state.weight,
            "train_accuracy": state.right / state.weight,
        }
        score = 0.0
        if len(self.val):
            score, figures = self._judged()
            row |= figures
        row |= {"learning_rate": self._learning_rate(state.step - 1)}
        is_best = not len(self.val) or score > state.best_score
        if is_best:
            state.best_score, state.best_epoch, state.worse = score, state.epoch + 1, 0
            self.best = self.learner.state()
        else:
            state.worse += 1
        state.history.append(row)
        row["seconds"] = state.seconds
        state.epoch, state.position = state.epoch + 1, 0
        state.loss = state.right = state.weight = state.seconds = 0.0
        return row, is_best

    def _judged(self) -> tuple[float, dict[str, Any]]:
        """Return how good the learner is by the faces to choose by, and its figures."""
        answers = judge(self.learner, self.bank, self.labels, self.val)
        loss, accuracy = log_loss(answers), balanced_accuracy(answers)
        # of equal accuracies, which few faces often give, the surer one is better
        score = -loss if self.settings.choose_by == "loss" else accuracy - 1e-4 * loss
        return self._agreed(score), {"val_loss": loss, "val_accuracy": accuracy}

    def _agreed(self, score: float) -> float:
        """Let process 0 decide for all."""
        if self.world == 1:
            return score
        value = torch.tensor([score], dtype=torch.float64, device=self.bank.device)
        dist.broadcast(value, 0)
        return float(value)

    def _learning_rate(self, step: int | None = None) -> float:
        """Return the rate of a step: linear warm-up, then half a cosine."""
        s, step = self.settings, self.state.step if step is None else step
        steps = self.epochs * self.plan.steps
        share = (step + 1) / steps
        if share < s.warmup:
            return s.highest_rate * share / s.warmup
        cosine = 0.5 * (1 + math.cos(math.pi * (share - s.warmup) / max(1 - s.warmup, 1e-9)))
        return s.highest_rate * (s.least_rate + (1 - s.least_rate) * cosine)

    def _progress(self, seconds: float, steps: int) -> Progress:
        state, done = self.state, self.state.position * self.settings.batch
        faces = steps * self.settings.batch / max(seconds, 1e-9)
        left = (self.epochs - state.epoch) * len(self.plan.train) - done
        return Progress(
            state.epoch + 1,
            self.epochs,
            min(done, len(self.plan.train)),
            len(self.plan.train),
            state.loss / state.weight,
            state.right / state.weight,
            faces,
            max(0, left) / max(faces, 1e-9),
        )

    def save(self, path: Path, facts: dict[str, Any]) -> None:
        """Write everything that is needed to go on; process 0 only.

        Raises:
            OutputError: if it cannot be written; an earlier checkpoint is still there.
        """
        if self.rank:
            return
        state = {
            "learner": self.learner.state(),
            "best": self.best,
            "optimizer": self.optimizer.state_dict(),
            "state": {name: getattr(self.state, name) for name in State.__slots__},
            "random": torch.get_rng_state(),
            **facts,
        }
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            try:
                torch.save(state, temporary)
                os.replace(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
        except (OSError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise OutputError(f"{path}: checkpoint could not be written ({reason})") from error

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            TrainingError: if it is missing, damaged or of another run.
        """
        try:
            stored = torch.load(path, map_location=self.bank.device, weights_only=True)
            self.learner.put(stored["learner"])
            self.best = stored["best"]
            self.optimizer.load_state_dict(stored["optimizer"])
            self.state = State(**stored["state"])
            torch.set_rng_state(stored["random"].cpu())
        except Exception as error:  # a damaged file can end in any of them
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise TrainingError(f"{path}: cannot go on from this checkpoint ({reason})") from error


def _build_optimizer(
    parameters: list[nn.Parameter], settings: FinetuneSettings
) -> torch.optim.Optimizer:
    """Return AdamW or SGD, under which biases do not decay."""
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=settings.highest_rate, momentum=MOMENTUM)
    return torch.optim.AdamW(groups, lr=settings.highest_rate)
