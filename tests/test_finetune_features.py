"""Which kept features are used again: those that hold all that this run needs, as it needs it."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from finetune_toys import write_faces, write_lite, write_two_stages

from videogender.finetuning.bank import Bank
from videogender.finetuning.data import read_data
from videogender.finetuning.features import features_of
from videogender.finetuning.learners import new_learner
from videogender.finetuning.settings import recipe_values, settings_of, with_values
from videogender.network import checkpoints


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDEOGENDER_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """Faces whose field `eyes` says the same as their gender, in other words."""
    folder = write_faces(tmp_path / "faces", 8)
    lines = [json.loads(line) for line in (folder / "faces.jsonl").read_text().splitlines()]
    for line in lines:
        (face,) = line["faces"]
        face["eyes"] = {"female": "blue", "male": "brown"}[face["gender"]]
    (folder / "faces.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def bank_of(
    faces: Path, weights: Path, recipe: str, column: str | None = None, temperature: float = 1.0
) -> Bank:
    fast = {"features.scales": [1.0], "features.mirror": False, "features.precision": "fp32"}
    more = {"features.gate": 0.4, "split.val": 0.25, "split.test": 0.0, "workers": 1}
    want = settings_of(with_values(recipe_values(recipe) | fast | more))
    data = read_data(faces, None, column, want)
    network, _ = checkpoints.load(weights)
    learner = new_learner(copy.deepcopy(network), data.classes, want)
    cpu = torch.device("cpu")
    return features_of(data, network, learner, learner.radius, want, cpu, temperature=temperature)


def test_genders_have_the_second_stage_asked_after_other_labels_had_not(
    faces: Path, tmp_path: Path
) -> None:
    weights = write_two_stages(tmp_path / "start.safetensors")
    eyes = bank_of(faces, weights, "heads", "eyes")
    gender = bank_of(faces, weights, "heads")
    assert "close_up" not in eyes.extra
    assert np.isfinite(gender.extra["close_up"]).all()
    assert bank_of(faces, weights, "tower").folder == gender.folder


def test_a_first_look_is_calibrated_anew(faces: Path, tmp_path: Path) -> None:
    weights = write_lite(tmp_path / "start.safetensors")
    odds = []
    for temperature in (1.0, 2.0):
        bank = bank_of(faces, weights, "refeed", temperature=temperature)
        female = bank.extra["female"].astype(np.float64)
        odds.append(np.log(female / (1 - female)))
    np.testing.assert_allclose(odds[0], 2 * odds[1], rtol=1e-3)
