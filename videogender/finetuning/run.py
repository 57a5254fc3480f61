"""A fine-tuning run: features, epochs, the best weights, and what they are worth."""

from __future__ import annotations

import copy
import json
import shlex
import time
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch.backends import cudnn

from videogender.errors import ConfigError
from videogender.evaluation.mixing import Mix
from videogender.finetuning.bank import Bank
from videogender.finetuning.board import Board
from videogender.finetuning.datasets import content_key
from videogender.finetuning.features import discard, features_of
from videogender.finetuning.figures import Answers, by_size, fit_temperature
from videogender.finetuning.folder import FinetuneFolder
from videogender.finetuning.judging import judge
from videogender.finetuning.learners import (
    ClassifierLearner,
    Learner,
    gender_of,
    is_half,
    new_learner,
)
from videogender.finetuning.loop import Loop
from videogender.finetuning.processes import device_of, processes
from videogender.finetuning.request import Request, Watcher
from videogender.finetuning.results import as_json, compare, face_row, levels
from videogender.finetuning.second_look import fitted_mix, mixed, together
from videogender.finetuning.settings import FinetuneSettings
from videogender.finetuning.suspects import judge_unseen, suspected
from videogender.network import checkpoints
from videogender.network.second_stage import SecondStage
from videogender.network.trained import Trained
from videogender.training.keyed import flat
from videogender.training.stopping import StopRequest
from videogender.weights_store import sha256_of

MOST_SUSPECTS = 60

__all__ = ["finetune"]


@dataclass(slots=True)
class _Clock:
    """What epochs took in this process."""

    features: float = 0.0
    epochs: list[float] = field(default_factory=list)

    def figures(self) -> dict[str, float]:
        """Return the time of the first epoch, features included, and of later ones."""
        if not self.epochs:
            return {}
        first = self.features + self.epochs[0]
        found = {"features, s": self.features, "first epoch, s": first}
        if later := self.epochs[1:]:
            mean = float(np.median(later))
            found |= {"later epochs, s": mean, "later / first": mean / first}
        return found


def finetune(request: Request, settings: FinetuneSettings, watcher: Watcher) -> dict[str, Any]:
    """Train what a recipe trains, and judge it.

    Returns:
        The results, as `results.json` holds them; those of process 0 count.

    Raises:
        TrainingError, ConfigError, ModelError, DeviceError, OutputError: as their names say.
        KeyboardInterrupt: on SIGINT or SIGTERM, once a checkpoint is written.
    """
    with ExitStack() as stack:
        rank, world, local = stack.enter_context(processes(request.device))
        device = device_of(request.device, local)
        stop = stack.enter_context(StopRequest())
        # the same bits for the same seed, also on a GPU
        stack.enter_context(cudnn.flags(enabled=True, benchmark=False, deterministic=True))
        run = _Run(request, settings, device, rank, world, watcher if rank == 0 else Watcher())
        if settings.kind == "joint" and world > 1:
            raise ConfigError("recipe joint uses all cores by itself: start it without torchrun")
        run.begin()
        if settings.kind == "joint":
            from videogender.finetuning.joint import train_jointly

            found = train_jointly(request, settings, run.folder, run.trained, run.watcher)
            if settings.split.folds:
                stop.interruptible(lambda: found.update(suspected=run.suspected_by_heads(stop)))
                run.folder.write_results(as_json(found))
            _draw_report(run.folder.path, found, run.watcher)
            if stop.asked:
                raise KeyboardInterrupt
            return found
        banks: list[Bank] = []
        stop.interruptible(lambda: banks.append(run.features(makes=local == 0)))
        if not banks:
            raise KeyboardInterrupt
        (bank,) = banks
        run.train(bank, stop)
        results = run.finish(bank, stop) if rank == 0 else {}
        if world > 1:
            dist.barrier()
        if stop.asked:
            raise KeyboardInterrupt
        if local == 0 and not settings.features.keep:
            discard(bank)
        return results


class _Run:
    """One run, step by step."""

    def __init__(
        self,
        request: Request,
        settings: FinetuneSettings,
        device: torch.device,
        rank: int,
        world: int,
        watcher: Watcher,
    ) -> None:
        self.request, self.settings, self.watcher = request, settings, watcher
        self.device, self.rank, self.world = device, rank, world
        self.data, self.folder = request.data, FinetuneFolder(request.out)
        self.trained: Trained = checkpoints.load_trained(request.weights)
        self.half = is_half(request.weights)
        self.clock = _Clock()
        self.board: Board | None = None
        self.learner = self._new()
        gender = gender_of(copy.deepcopy(self.trained.network))
        comparable = self.data.classes == ("female", "male") and self.learner.radius is not None
        self.before = gender.to(device) if gender is not None and comparable else None

    def _new(self) -> Learner:
        """Return what is trained, as it is at the start."""
        network = copy.deepcopy(self.trained.network)
        return new_learner(network, self.data.classes, self.settings).to(self.device)

    def begin(self) -> None:
        """Make the folder ready, or check that it can be gone on with."""
        record = {
            "settings": flat(self.settings),
            "data": self.request.source,
            "content": content_key(self.data.samples),
            "weights": sha256_of(self.request.weights),
            "weights_file": str(self.request.weights.resolve()),
            "summary": self.data.facts(),
        }
        if self.request.resume:
            for change in self.folder.check_same(record):
                self.watcher.say(f"going on with {change} as before")
        elif self.rank == 0:
            self.folder.begin(record, force=self.request.force)
        if self.settings.tensorboard and self.rank == 0:
            self.board = Board(self.folder.board)

    def features(self, makes: bool) -> Bank:
        """Return the features of all faces."""
        radius = self.learner.radius
        if radius is not None and self.before is not None:
            radius = max(radius, self.before.radius or 0)
        began = time.monotonic()
        bank = features_of(
            self.data,
            self.trained.network,
            self.learner,
            radius,
            self.settings,
            self.device,
            temperature=self.trained.facts.gender_temperature,
            makes=makes,
            together=self.world > 1,
            tell=self.watcher.looking,
            say=self.watcher.say,
        )
        self.clock.features = bank.seconds  # also where an earlier run has made them
        everyone = np.arange(len(self.data.samples))
        found = int((bank.count(everyone, 0) > 0).sum())
        lost = (
            f", {len(everyone) - found:,} not found by the network" if found < len(everyone) else ""
        )
        self.watcher.say(
            f"features of {found:,} faces{lost}: {bank.bytes / 2**20:,.0f} MB in "
            f"{time.monotonic() - began:.1f} s"
        )
        return bank

    def train(self, bank: Bank, stop: StopRequest) -> None:
        """Run the loop; afterwards the learner has the best weights."""
        self._standardise(self.learner, bank, self.data.train)
        loop = Loop(
            self.learner,
            bank,
            self.data.labels,
            self.data.train,
            self.data.val,
            self.settings,
            self.rank,
            self.world,
        )
        self.loop = loop
        if self.request.resume and self.folder.checkpoint.is_file():
            loop.resume(self.folder.checkpoint)
            self.watcher.say(f"going on in epoch {loop.state.epoch + 1}")

        def epoch_done(row: dict[str, Any], is_best: bool) -> None:
            self.clock.epochs.append(row["seconds"])
            if self.rank:
                return
            self.folder.write_metrics(loop.state.history)
            if self.board is not None:
                self.board.add(row)
            if is_best:
                self._write(1.0, {"epoch": row["epoch"]})
            self.watcher.epoch(row, is_best)

        def save() -> None:
            loop.save(self.folder.checkpoint, {"settings": flat(self.settings)})

        loop.run(self.watcher.learning, epoch_done, save, stop)

    def finish(self, bank: Bank, stop: StopRequest) -> dict[str, Any]:
        """Judge the best weights, write them and everything about them; process 0 only."""
        data, settings, learner = self.data, self.settings, self.learner
        if self.half and learner.task == "gender":
            _round(learner)  # what is judged is what the file will hold
        chosen_by = judge(learner, bank, data.labels, data.val)
        temperature = fit_temperature(chosen_by)
        _, faces = data.judged
        after = judge(learner, bank, data.labels, faces)
        stage = learner.network.second_stage
        if stage is not None and "close_up" in bank.extra:
            mix = fitted_mix(chosen_by, bank.extra["close_up"], _mix_of(stage))
            stage.gender_mix.copy_(torch.tensor(mix))
            after, temperature = mixed(after, bank.extra["close_up"], mix), 1.0
        after = after.tempered(temperature)
        before = self._before(bank, faces)
        if "female" in bank.extra and data.classes == ("female", "male"):
            after = together(before, after, settings.head.share)
        results = self._described() | compare(data, before, after)
        if learner.task != "classifier":
            results["by_size"] = by_size(after, data.persons())
        results["levels"] = levels(learner, bank, data, faces)
        results["temperature"] = temperature
        if "ms_a_crop" in bank.extra:
            results["after"]["ms_per_face"] = float(bank.extra["ms_a_crop"])
        self._write(temperature, {"epoch": self.loop.state.best_epoch, **_short(results)})
        if settings.split.folds:
            epochs = self.loop.state.best_epoch
            results["suspected"] = self._suspected(bank, settings, epochs, stop)
        self.folder.write_results(as_json(results))
        _draw_report(self.folder.path, results, self.watcher)
        return results

    def _described(self) -> dict[str, Any]:
        """Return what the results say of the run itself."""
        settings, state = self.settings, self.loop.state
        given = self.request.weights.name
        notes = []
        if not len(self.data.val):
            notes.append("nothing to choose by: the last epoch was kept, and nothing calibrated")
        elif not state.best_epoch:
            notes.append("no epoch was better than the heads as they began, which were kept")
            self.watcher.say(notes[-1])
        return {
            "title": f"{settings.recipe} of {self.trained.network.name}, from {given}",
            "recipe": settings.recipe,
            "task": self.learner.task,
            "model": self.trained.network.name,
            "column": self.data.labelled.column,
            "labels": list(self.data.classes),
            "outcome": "finished" if state.epoch >= settings.epochs else "stopped early",
            "weights": str(self.folder.best),
            "command": _command(self.learner.task, self.folder.best),
            "notes": notes,
            "settings": flat(settings),
            "epochs": state.history,
            "best_epoch": state.best_epoch or None,
            "speed": self.clock.figures(),
            "seconds": self.clock.features + sum(self.clock.epochs),
            "data": self.data.described(),
        }

    def _before(self, bank: Bank, faces: NDArray[np.int64]) -> Answers | None:
        """Return what the given weights say of faces, calibrated as they are."""
        if self.before is not None:
            answers = judge(self.before, bank, self.data.labels, faces)
            stage = self.trained.network.second_stage
            if stage is not None and "close_up" in bank.extra:
                answers = mixed(answers, bank.extra["close_up"], _mix_of(stage))
            return answers.tempered(self.trained.facts.gender_temperature)
        if "female" not in bank.extra or self.data.classes != ("female", "male"):
            return None
        female = bank.extra["female"][faces].astype(np.float64).clip(1e-6, 1 - 1e-6)
        plain = judge(self.learner, bank, self.data.labels, faces)
        logits = np.log(np.stack([female, 1 - female], 1))
        return Answers(logits, plain.label, plain.score, plain.face_px, plain.face)

    def suspected_by_heads(self, stop: StopRequest) -> list[dict[str, Any]]:
        """Return labels that are probably wrong by heads alone, where the recipe trains all."""
        settings = replace(self.settings, learning_rate=None)  # heads bear more than a trunk
        bank = self.features(makes=True)
        found = self._suspected(bank, settings, settings.epochs, stop)
        if not settings.features.keep:
            discard(bank)
        return found

    def _suspected(
        self, bank: Bank, settings: FinetuneSettings, epochs: int, stop: StopRequest
    ) -> list[dict[str, Any]]:
        """Return labels that are probably wrong."""

        def fresh(faces: NDArray[np.int64]) -> Learner:
            learner = self._new()
            self._standardise(learner, bank, faces)
            return learner

        answers = judge_unseen(
            fresh,
            bank,
            self.data,
            settings,
            epochs,
            stop,
            self.watcher.checking,
        )
        return [face_row(self.data, *found) for found in suspected(answers, MOST_SUSPECTS)]

    def _standardise(self, learner: Learner, bank: Bank, faces: NDArray[np.int64]) -> None:
        if isinstance(learner, ClassifierLearner) and self.settings.head.standardise:
            rows = [bank.rows.first[i * bank.views] for i in faces if bank.count(i, 0)]
            learner.standardise(bank.patches(0, bank.rows.place[np.array(rows)]).flatten(1))

    def _write(self, temperature: float, more: dict[str, Any]) -> None:
        """Write the weights as they are now."""
        metadata = {
            "task": self.learner.task,
            "labels": json.dumps(self.data.classes),
            "recipe": self.settings.recipe,
            "column": self.data.labelled.column,
            "temperature": f"{temperature:.4f}",
            "settings": json.dumps(flat(self.settings)),
            "data": json.dumps(self.data.facts()),
            "trained_from": f"{self.request.weights.name} {sha256_of(self.request.weights)[:16]}",
            **{k: v if isinstance(v, str) else json.dumps(v) for k, v in more.items()},
        }
        if self.learner.task != "gender":
            metadata["gender_temperature"] = repr(self.trained.facts.gender_temperature)
        if self.learner.task == "refeed":
            metadata["share"] = repr(self.settings.head.share)
        if "data" in self.trained.metadata:
            metadata["trunk_data"] = self.trained.metadata["data"]
        self.learner.write(self.folder.best, metadata, half=self.half)


def _mix_of(stage: SecondStage) -> Mix:
    old, new, shift = stage.gender_mix.tolist()
    return old, new, shift


def _short(results: dict[str, Any]) -> dict[str, Any]:
    """Return the figures that weights record."""
    keep = ("faces", "found", "accuracy", "interval", "balanced_accuracy", "confidence_error")
    after = {k: v for k, v in results["after"].items() if k in keep}
    return {"figures": json.loads(as_json({"judged_on": results["judged_on"], **after}))}


@torch.no_grad()
def _round(learner: Learner) -> None:
    for parameter in learner.trained().values():
        parameter.copy_(parameter.half().float())


def _command(task: str, weights: Path) -> str:
    path = shlex.quote(str(weights))
    if task == "classifier":
        return f"videogender classify IMAGE --weights {path}"
    flag = "--refine" if task == "refeed" else "--weights"
    return f"videogender annotate VIDEO {flag} {path}"


def _draw_report(folder: Path, results: dict[str, Any], watcher: Watcher) -> None:
    try:
        from videogender.reports.finetune_report import write
    except ImportError:
        return
    page = write(folder, results)
    watcher.say(f"report -> {page}")
