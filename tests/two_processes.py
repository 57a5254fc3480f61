"""Trains in two processes over gloo and compares with the same arithmetic done by hand.

Usage: two_processes.py DATA_FOLDER OUT_FILE. Writes JSON: how far the weights moved, how far they
ended from where they should have, and what a lesson noted.
"""

from __future__ import annotations

import copy
import json
import multiprocessing
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from videogender.dataset import read_entries
from videogender.network.lite import Lite
from videogender.training.data import ImageStore
from videogender.training.engine import Trainer, build_optimizer
from videogender.training.lessons import AnchorLesson, prepare_batch
from videogender.training.loss import Losses, detection_losses
from videogender.training.match import match
from videogender.training.settings import TrainSettings
from videogender.training.stopping import StopRequest

STEPS = 2


class Notes(AnchorLesson):
    """Adds 1 in process 0 and 2 in process 1 with every step."""

    noted = torch.zeros(3)

    def losses(self, batch: Any) -> Losses:
        self.noted = self.noted + 1 + dist.get_rank()
        return super().losses(batch)

    def state(self) -> dict[str, torch.Tensor]:
        return {"noted": self.noted}


def settings_for(optimizer: str) -> TrainSettings:
    rate = {"adamw": 1e-3, "sgd": 1e-2}[optimizer]
    return TrainSettings(
        steps=STEPS, side=64, batch=8, optimizer=optimizer, warmup=0.0, learning_rate=rate
    )


def trainer_of(
    start: Lite, store: ImageStore, settings: TrainSettings, rank: int = 0, world: int = 1
) -> Trainer:
    network = copy.deepcopy(start)
    lesson = Notes(network, store, settings)
    return Trainer(network, lesson, settings, Path(), rank, world)


def by_hand(store: ImageStore, settings: TrainSettings, start: Lite) -> dict[str, torch.Tensor]:
    """Take both processes' batches in turn, average the gradients, and step without fusing."""
    network = copy.deepcopy(start).train()
    fused = build_optimizer(network, settings)
    groups = [{**g, "fused": False, "foreach": False} for g in fused.param_groups]
    optimizer = type(fused)(groups, lr=1.0)
    rates = trainer_of(start, store, settings)
    for step in range(STEPS):
        sums = [torch.zeros_like(p) for p in network.parameters()]
        for rank in range(2):
            generator = torch.Generator().manual_seed(step * 4099 + rank)
            images, targets = prepare_batch(
                store, network, settings.batch, settings.side, settings, generator
            )
            predictions = network(images)
            matches = match(targets, predictions.anchors)
            network.zero_grad()
            detection_losses(network, predictions, matches, targets, settings.loss).total.backward()
            for total, p in zip(sums, network.parameters(), strict=True):
                if p.grad is not None:
                    total += p.grad / 2
        for total, p in zip(sums, network.parameters(), strict=True):
            p.grad = total
        torch.nn.utils.clip_grad_norm_(network.parameters(), settings.clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = rates.learning_rate(step / STEPS)
        optimizer.step()
    return {k: p.detach() for k, p in network.named_parameters()}


def train(rank: int, folder: Path, out: Path) -> None:
    torch.set_num_threads(1)
    store = ImageStore(read_entries(folder / "scenes"), read_entries(folder / "portraits"))
    dist.init_process_group("gloo", init_method=f"file://{out}.meet", rank=rank, world_size=2)
    results = {}
    for optimizer in ("adamw", "sgd"):
        torch.manual_seed(0)
        settings = settings_for(optimizer)
        # channels last, as the trainer makes it: gradients must follow that layout
        start = Lite().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        trainer = trainer_of(start, store, settings, rank, 2)
        trainer.bf16 = False
        stop = StopRequest()
        while trainer.share() < 1:
            trainer._some_steps(stop)
        mine = {k: p.detach() for k, p in trainer.network.named_parameters()}
        flat = torch.cat([p.flatten() for p in mine.values()])
        theirs = [torch.empty_like(flat) for _ in range(2)]
        dist.all_gather(theirs, flat)
        if rank == 0:
            expected = by_hand(store, settings, start)
            before = {k: p.detach() for k, p in start.named_parameters()}
            moved = sum(float((mine[k] - before[k]).square().sum()) for k in mine) ** 0.5
            wrong = sum(float((mine[k] - expected[k]).square().sum()) for k in mine) ** 0.5
            results[optimizer] = {
                "moved": moved,
                "wrong": wrong,
                "noted": trainer.lesson.state()["noted"].tolist(),
                "between_processes": float((theirs[0] - theirs[1]).abs().max()),
            }
    if rank == 0:
        out.write_text(json.dumps(results))
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    arguments = Path(sys.argv[1]), Path(sys.argv[2])
    other = multiprocessing.get_context("fork").Process(target=train, args=(1, *arguments))
    other.start()
    train(0, *arguments)
    other.join()
    sys.exit(other.exitcode)
