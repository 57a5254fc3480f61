"""The toy set of the original notes under the network that ships: what is learned, what shows."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from videogender.cli.main import main

DATA = os.environ.get("VIDEOGENDER_DATA")

pytestmark = [
    pytest.mark.data,
    pytest.mark.slow,  # looks at 199 pictures in four views
    pytest.mark.skipif(DATA is None, reason="VIDEOGENDER_DATA names no folder"),
]


@pytest.fixture
def celebs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VIDEOGENDER_CACHE", str(tmp_path / "cache"))
    return Path(DATA or "", "celeb-small")


def finetune(celebs: Path, out: Path, *flags: str) -> dict[str, object]:
    where = [str(celebs / "index.csv"), "--images", str(celebs / "images"), "--out", str(out)]
    assert main(["finetune", *where, *flags, "-q"]) == 0
    found: dict[str, object] = json.loads((out / "results.json").read_text())
    return found


def test_genders_are_learned_and_wrong_labels_exposed(celebs: Path, tmp_path: Path) -> None:
    """All 20 pictures of one woman are labelled male; none of them may teach the heads that."""
    results = finetune(celebs, tmp_path / "run")
    after, suspected = results["after"], results["suspected"]
    assert isinstance(after, dict)
    assert after["faces"] == 40
    assert after["accuracy"] > 0.8
    assert isinstance(suspected, list)
    rows = (celebs / "index.csv").read_text().splitlines()
    wrong = {f"{row.split(',')[0]}.jpg" for row in rows if ",Celeb_1,M" in row}
    assert len(wrong) == 20
    names = [Path(row["image"]).name for row in suspected]
    assert len(wrong & set(names)) >= 18
    assert len(set(names) - wrong) <= 10
    speed = results["speed"]
    assert isinstance(speed, dict)
    assert speed["later / first"] <= 1 / 20


def test_ten_people_are_told_apart_better_than_by_chance(celebs: Path, tmp_path: Path) -> None:
    """On the 50 pictures that come apart; the recipe of the notes stays near 5 of them."""
    flags = ["--label-column", "Tags", "--recipe", "classifier", "--set", "split.folds=0"]
    finetune(celebs, tmp_path / "run", *flags)
    pictures = sorted(str(path) for path in (celebs / "test").glob("*/*"))
    answers = tmp_path / "answers.jsonl"
    weights = str(tmp_path / "run" / "best.safetensors")
    assert main(["classify", *pictures, "-w", weights, "--json", str(answers), "-q"]) == 0
    right = 0
    for line in answers.read_text().splitlines():
        answer = json.loads(line)
        number = Path(answer["source"]).parent.name.removeprefix("TestCeleb")[1:]
        best = max(answer["probabilities"], key=answer["probabilities"].get)
        right += best == f"Celeb_{number}"
    assert right >= 10
