"""The loop: losses, what a step sees, resuming to the same bits, several processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from finetune_toys import write_faces, write_lite

from videogender.errors import TrainingError
from videogender.finetuning.bank import Bank, BankWriter
from videogender.finetuning.harvest import harvest_anchors, views_of
from videogender.finetuning.judging import judge
from videogender.finetuning.learners import new_learner
from videogender.finetuning.loop import Loop
from videogender.finetuning.loss import answer_losses
from videogender.finetuning.settings import FeatureSettings, FinetuneSettings, LossSettings
from videogender.finetuning.trunk import Trunk
from videogender.network import checkpoints
from videogender.training.stopping import StopRequest

CPU = torch.device("cpu")
FACES, HELD = 30, 8
LABELS = np.arange(FACES) % 2


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A bank of drawn faces, and the weights that saw them."""
    from test_finetune_bank import samples_of

    folder = tmp_path_factory.mktemp("loop")
    weights = write_lite(folder / "lite.safetensors")
    network, _ = checkpoints.load(weights)
    settings = FeatureSettings(precision="fp32")
    samples = samples_of(write_faces(folder / "faces", FACES))
    shapes = [(channels, 5, 5) for channels in network.tap_channels]
    with BankWriter(folder / "bank", FACES, len(views_of(settings)), shapes) as writer:
        harvest_anchors(Trunk(network, CPU, "fp32"), samples, settings, 2, writer)
    return folder / "bank", weights


def loop_on(
    bank: Path, weights: Path, settings: FinetuneSettings, rank: int = 0, world: int = 1
) -> Loop:
    network, _ = checkpoints.load(weights)
    learner = new_learner(network, ("female", "male"), settings)
    held = np.arange(FACES - HELD, FACES)
    return Loop(
        learner, Bank(bank, 64, CPU), LABELS, np.arange(FACES - HELD), held, settings, rank, world
    )


@pytest.mark.parametrize("name", ["bce", "ce", "focal", "mse"])
@pytest.mark.parametrize("classes", [2, 5])
def test_losses_against_their_definitions(name: str, classes: int) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (6, classes))
    label = rng.integers(0, classes, 6)
    found = answer_losses(
        torch.from_numpy(logits), torch.from_numpy(label), LossSettings(name=name, gamma=1.5)
    )
    for row, want, loss in zip(logits, label, found.tolist(), strict=True):
        p = np.exp(row) / np.exp(row).sum()
        hot = np.eye(classes)[want]
        expected = {
            "bce": -np.mean(hot * np.log(p) + (1 - hot) * np.log(1 - p)),
            "ce": -np.log(p[want]),
            "focal": -((1 - p[want]) ** 1.5) * np.log(p[want]),
            "mse": np.mean((p - hot) ** 2),
        }[name]
        assert loss == pytest.approx(expected, rel=1e-9)


def test_losses_stay_finite_where_answers_are_sure() -> None:
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    for name in ("bce", "ce", "focal", "mse"):
        loss = answer_losses(logits, torch.tensor([1, 1]), LossSettings(name=name)).sum()
        (gradient,) = torch.autograd.grad(loss, logits)
        assert loss.isfinite()
        assert gradient.isfinite().all(), name


def test_an_epoch_shows_every_face_once_with_its_own_anchors(made: tuple[Path, Path]) -> None:
    bank, weights = made
    loop = loop_on(bank, weights, FinetuneSettings(batch=5, anchors=3))
    rows = loop.bank.rows
    owner = np.repeat(np.arange(len(rows.first) - 1), np.diff(rows.first)) // loop.bank.views
    who = {(int(a), int(b)): int(c) for a, b, c in zip(rows.level, rows.place, owner, strict=True)}
    shown: list[int] = []
    epoch = loop.plan.epoch(2)
    for number in range(loop.plan.steps):
        step = epoch.step(number)
        here = [who[int(a), int(b)] for a, b in zip(step.level, step.place, strict=True)]
        assert here == step.face.tolist()
        assert len(set(zip(step.level.tolist(), step.place.tolist(), strict=True))) == len(here)
        assert max(here.count(face) for face in set(here)) <= 3
        shown += sorted(set(here))
        # a face weighs the same however many anchors it has
        per_face = [step.weight[step.face == face].sum() for face in set(here)]
        assert per_face == pytest.approx([1.0] * len(per_face), rel=1e-5)
    assert sorted(shown) == list(range(FACES - HELD))


def test_rare_classes_weigh_more(made: tuple[Path, Path]) -> None:
    bank, weights = made
    network, _ = checkpoints.load(weights)
    settings = FinetuneSettings()
    learner = new_learner(network, ("female", "male"), settings)
    train = np.array([0, 1, 3, 5])  # one woman, three men
    loop = Loop(learner, Bank(bank, 64, CPU), LABELS, train, train[:0], settings)
    assert loop.plan.class_weight == pytest.approx([2.0, 2 / 3])


def test_it_learns_and_keeps_the_best(made: tuple[Path, Path]) -> None:
    bank, weights = made
    loop = loop_on(bank, weights, FinetuneSettings(epochs=24, batch=4, learning_rate=5e-3))
    rows: list[dict[str, Any]] = []
    loop.run(epoch_done=lambda row, best: rows.append({**row, "best": best}))
    assert rows[-1]["train_loss"] < 0.5 * rows[0]["train_loss"]
    answers = judge(loop.learner, loop.bank, LABELS, loop.val)
    best = rows[loop.state.best_epoch - 1]
    assert best["best"]
    assert best["val_accuracy"] == max(row["val_accuracy"] for row in rows) >= 0.9
    assert answers.right.mean() == pytest.approx(best["val_accuracy"])  # the learner has them


def test_patience_ends_a_run(made: tuple[Path, Path]) -> None:
    bank, weights = made
    still = FinetuneSettings(epochs=50, patience=2, learning_rate=1e-8, choose_by="accuracy")
    loop = loop_on(bank, weights, still)
    loop.state.best_score = 2.0  # nothing can be better
    loop.run()
    assert loop.state.epoch == 2


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_resuming_leads_to_the_same_bits(
    made: tuple[Path, Path], tmp_path: Path, optimizer: str
) -> None:
    """Stopped in the middle of the second epoch, and gone on with in a new loop."""
    settings = FinetuneSettings(epochs=4, batch=6, optimizer=optimizer, patience=0)
    whole = loop_on(*made, settings)
    whole.run()
    part, checkpoint, stop = loop_on(*made, settings), tmp_path / "last.pt", StopRequest()

    def ask(progress: object) -> None:
        stop.asked = part.state.step >= 5

    with pytest.raises(KeyboardInterrupt):
        part.run(ask, save=lambda: part.save(checkpoint, {}), stop=stop)
    assert 0 < part.state.position < part.plan.steps
    again = loop_on(*made, settings)
    again.resume(checkpoint)
    again.run()
    assert again.state.step == whole.state.step
    for name, tensor in whole.learner.state().items():
        assert torch.equal(tensor, again.learner.state()[name]), name
    keys = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
    assert [[r[k] for k in keys] for r in again.state.history] == [
        [r[k] for k in keys] for r in whole.state.history
    ]


def test_damaged_checkpoint_is_told(made: tuple[Path, Path], tmp_path: Path) -> None:
    loop = loop_on(*made, FinetuneSettings(epochs=1))
    (tmp_path / "last.pt").write_bytes(b"PK\x03\x04")
    with pytest.raises(TrainingError, match=r"last\.pt: cannot go on from this checkpoint"):
        loop.resume(tmp_path / "last.pt")


def test_the_seed_decides(made: tuple[Path, Path]) -> None:
    runs = []
    for seed in (1, 1, 2):
        loop = loop_on(*made, FinetuneSettings(epochs=1, batch=6, seed=seed))
        loop.run()
        runs.append(torch.cat([p.flatten() for p in loop.learner.state().values()]))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


@pytest.mark.slow  # two processes that import PyTorch
def test_two_processes_do_what_one_does(made: tuple[Path, Path], tmp_path: Path) -> None:
    settings = FinetuneSettings(epochs=3, batch=7, patience=0)
    one = loop_on(*made, settings)
    start = one.learner.state()
    one.run()
    script, out = Path(__file__).with_name("finetune_two_processes.py"), tmp_path / "two.pt"
    command = [sys.executable, str(script), *map(str, made), str(out)]
    path = os.pathsep.join(sys.path)
    subprocess.run(command, check=True, timeout=240, env={**os.environ, "PYTHONPATH": path})
    two = torch.load(out, weights_only=True)
    mine, theirs, before = (
        torch.cat([state[k].flatten() for k in start])
        for state in (one.learner.state(), two["state"], start)
    )
    assert (mine - before).norm() > 0.1
    # AdamW divides by the size of gradients, so that rounding in those near zero shows
    assert (mine - theirs).norm() < 0.01 * (mine - before).norm()
    losses = [[row["train_loss"] for row in h] for h in (one.state.history, two["history"])]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
