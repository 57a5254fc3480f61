"""Who judges a label: heads that saw neither the picture nor a copy of it nor the person."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from finetune_data_sets import picture
from finetune_toys import write_faces, write_lite

from videogender.finetuning.bank import Bank, BankWriter
from videogender.finetuning.data import Data, read_data
from videogender.finetuning.harvest import harvest_anchors
from videogender.finetuning.learners import Learner, new_learner
from videogender.finetuning.settings import (
    FinetuneSettings,
    recipe_values,
    settings_of,
    with_values,
)
from videogender.finetuning.suspects import judge_unseen
from videogender.finetuning.trunk import Trunk
from videogender.network import checkpoints
from videogender.training.stopping import StopRequest

CPU = torch.device("cpu")


def settings(**more: object) -> FinetuneSettings:
    values = {"split.folds": 3, "split.test": 0.0, "features.scales": [1.0], "workers": 1, **more}
    return settings_of(with_values(recipe_values("heads") | values))


def write_people(folder: Path) -> Path:
    """Write a table of twelve people with two pictures each, of whom six are copies."""
    (folder / "images").mkdir(parents=True)
    rows = ["image,gender,person,split"]
    for who in range(12):
        for number in range(2):
            look = picture(2 * who + (number if who % 2 else 0), (96, 96))
            name = f"{who}-{number}.jpg"
            look.save(folder / "images" / name, quality=95 - 20 * number)
            known = f"P{who}" if who % 4 == 1 else ""
            rows.append(f"{name},{'fm'[who // 2 % 2]},{known},{'val' if who > 9 else 'train'}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder / "labels.csv"


@pytest.mark.parametrize("by", ["given", "file", "person"])
def test_copies_and_persons_are_judged_together_however_data_is_split(
    tmp_path: Path, by: str
) -> None:
    data = read_data(write_people(tmp_path), None, None, settings(**{"split.by": by}))
    assert data.split.by == by
    people = [int(sample.path.name.split("-")[0]) for sample in data.samples]
    groups: dict[int, set[int]] = {}
    for who, group in zip(people, data.groups(), strict=True):
        groups.setdefault(who, set()).add(int(group))
    copies_or_known = [who for who in range(12) if who % 2 == 0 or who % 4 == 1]
    assert [len(groups[who]) for who in copies_or_known] == [1] * 9
    assert [len(groups[who]) for who in (3, 7, 11)] == [2] * 3
    assert len(set().union(*groups.values())) == 15


def bank_of(data: Data, weights: Path, folder: Path) -> Bank:
    network, _ = checkpoints.load(weights)
    shapes = [(channels, 5, 5) for channels in network.tap_channels]
    want = settings().features
    with BankWriter(folder, len(data.samples), 2, shapes) as writer:
        harvest_anchors(Trunk(network, CPU, "fp32"), data.samples, want, 2, writer)
    return Bank(folder, 64, CPU)


def test_a_label_that_all_others_lack_is_not_suspected(tmp_path: Path) -> None:
    """All women are one person: who judges them knows men alone."""
    faces = write_faces(tmp_path / "faces", 24)
    lines = [json.loads(line) for line in (faces / "faces.jsonl").read_text().splitlines()]
    for number, line in enumerate(lines):
        line["faces"][0]["person"] = "her" if number % 2 == 0 else f"him {number}"
    (faces / "faces.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    want = settings(**{"split.by": "file", "epochs": 1, "learning_rate": 5e-3})
    data = read_data(faces, None, None, want)
    weights = write_lite(tmp_path / "lite.safetensors")

    def fresh(faces: np.ndarray) -> Learner:
        return new_learner(checkpoints.load(weights)[0], data.classes, want)

    bank = bank_of(data, weights, tmp_path / "bank")
    answers = judge_unseen(fresh, bank, data, want, 1, StopRequest())
    assert sorted(answers.face) == [n for n in range(24) if n % 2]
