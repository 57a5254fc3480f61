"""`videogender finetune` from the command line: messages, dry runs, stopping, several processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from finetune_data_sets import write_csv
from finetune_toys import write_faces, write_lite
from safetensors import safe_open

from videogender.cli.finetune_report import FinetuneReport
from videogender.cli.main import main
from videogender.finetuning.settings import (
    RECIPES,
    FinetuneSettings,
    defaults_of,
    rule_of,
    with_values,
)
from videogender.training.keyed import flat, keys, read_recipe

CONFIGS = Path(__file__).parents[1] / "configs" / "finetune"
FAST = ["--set", "split.folds=0", "--set", "features.scales=[1]", "--set", "features.mirror=false"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDEOGENDER_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_faces(tmp_path_factory.mktemp("faces"), 40)


@pytest.fixture(scope="module")
def lite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lite(tmp_path_factory.mktemp("weights") / "lite.safetensors")


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_is_written_out(recipe: str) -> None:
    """The file is complete, and is what `--recipe` alone gives."""
    values = with_values(read_recipe(CONFIGS / f"{recipe}.yaml"), source=recipe)
    assert set(values) == set(keys(FinetuneSettings))
    plain = {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}
    assert plain == defaults_of(recipe)


def test_no_other_recipe_is_written_out() -> None:
    assert {path.stem for path in CONFIGS.iterdir()} == set(RECIPES)


def test_defaults_lie_within_their_rules() -> None:
    for key, value in flat(FinetuneSettings()).items():
        rule = rule_of(key)
        assert rule.help
        assert all(rule.admits(v) for v in (value if isinstance(value, list) else [value])), key


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "epoch=3"], "--set: unknown key epoch; did you mean epochs?"),
        (["--set", "mirror=no"], "--set: unknown key mirror; did you mean features.mirror?"),
        (["--set", "features.mirror=3"], "features.mirror should be true or false, got '3'"),
        (["--set", "loss.name=hinge"], "loss.name should be a word (bce, ce, focal or mse)"),
        (["--set", "epochs"], "--set epochs: expected KEY=VALUE"),
        (["--epochs", "0"], "--epochs: epochs should be a whole number (1 to 100000), got 0"),
        (["--recipe", "head"], "unknown recipe 'head'; known are heads, tower"),
        (["--split", "3"], "No such option"),
    ],
)
def test_wrong_settings_are_told_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["finetune", "nowhere.csv", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1


def test_dry_run_says_what_is_there_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [f"p{n},P{n % 10},{'FM'[n % 2]}" for n in range(40)]
    rows += [f"gone{n},P1,M" for n in range(5)]
    table = write_csv(tmp_path / "data", rows)
    for path in (tmp_path / "data" / "images").glob("gone*.png"):
        path.unlink()
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert main(["finetune", str(table), "--dry-run"]) == 0
    error = capsys.readouterr().err
    assert "40 faces in 40 pictures" in error
    assert "missing-file: 5" in error
    assert all(f"index.csv:{row}" in error for row in range(42, 47))
    assert sorted(tmp_path.rglob("*")) == before
    assert main(["finetune", str(table), "--dry-run", "--strict"]) == 7
    assert "index.csv:42" in capsys.readouterr().err


def test_resuming_nothing_and_elsewhere_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["finetune", "--resume", str(tmp_path)]) == 2
    assert "holds no run" in capsys.readouterr().err
    assert main(["finetune", "--resume", str(tmp_path), "--out", "b"]) == 2
    assert "leave --out out" in capsys.readouterr().err
    assert main(["finetune"]) == 2
    assert "nothing to learn from" in capsys.readouterr().err


def test_help_and_wrong_flags_take_no_torch() -> None:
    code = (
        "import sys; from videogender.cli.main import main; main(['finetune', '--help']);"
        "main(['finetune', 'x', '--set', 'epoch=1']);"
        "print([m for m in ('torch', 'cv2', 'av', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment()
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_tensorboard_that_is_missing_is_told(
    faces: Path,
    lite: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    flags = ["--from", str(lite), "--out", str(tmp_path / "run"), *FAST]
    assert main(["finetune", str(faces), *flags, "--set", "tensorboard=true"]) == 2
    assert "pip install 'videogender[tensorboard]'" in capsys.readouterr().err


def test_tensorboard_gets_a_point_an_epoch(faces: Path, lite: Path, tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    flags = ["--from", str(lite), "--out", str(tmp_path / "run"), "--epochs", "3", *FAST, "-q"]
    assert main(["finetune", str(faces), *flags, "--set", "tensorboard=true"]) == 0
    events = reader.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert [point.step for point in events.Scalars("val_loss")] == [1, 2, 3]


def test_what_is_said_at_the_end(
    faces: Path, lite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    flags = ["--from", str(lite), "--out", str(out), "--epochs", "2", *FAST]
    assert main(["finetune", str(faces), *flags]) == 0
    error = capsys.readouterr().err
    assert "epoch 2: loss " in error
    assert "judged on test: 6 faces" in error
    assert f"use them: videogender annotate VIDEO --weights {out}/best.safetensors" in error
    assert main(["finetune", str(faces), *flags]) == 4
    assert "holds a run already" in capsys.readouterr().err


@pytest.mark.parametrize(("count", "labels"), [(1, "1 label"), (22, "22 labels")])
def test_suspected_labels_are_to_be_looked_at(
    capsys: pytest.CaptureFixture[str], count: int, labels: str
) -> None:
    row = {"image": "a/b.jpg", "label": "male", "answer": "female", "probability": 0.97}
    results = {"judged_on": "x", "weights": "w", "command": "c", "suspected": [row] * count}
    with FinetuneReport(quiet=False) as report:
        report.done(results)
    told = f"{labels} to look at, first b.jpg: called male, looks female (97%)"
    assert told in capsys.readouterr().err


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}


def tensors(path: Path) -> dict[str, torch.Tensor]:
    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


COMMAND = [sys.executable, "-m", "videogender", "finetune"]
LONG = ["--epochs", "60", "--batch", "4", "--set", "patience=0", *FAST]


@pytest.fixture(scope="module")
def uninterrupted(faces: Path, lite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    flags = [str(faces), "--from", str(lite), *LONG, "--out", str(folder / "run")]
    cache = {"VIDEOGENDER_CACHE": str(folder / "cache")}
    subprocess.run([*COMMAND, *flags], check=True, env=environment() | cache)
    return folder / "run"


@pytest.mark.slow  # two processes, one after the other, and one for both
@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_and_resumed_is_as_if_never_stopped(
    faces: Path, lite: Path, uninterrupted: Path, tmp_path: Path, number: int
) -> None:
    part = tmp_path / "part"
    flags = [str(faces), "--from", str(lite), *LONG, "--out", str(part)]
    running = subprocess.Popen([*COMMAND, *flags], env=environment())
    began = time.monotonic()
    while not (part / "metrics.csv").exists():
        assert running.poll() is None
        assert time.monotonic() - began < 300
        time.sleep(0.01)
    running.send_signal(number)
    assert running.wait(120) == 128 + number
    assert 0 < len((part / "metrics.jsonl").read_text().splitlines()) < 60
    assert not (part / "results.json").exists()
    subprocess.run([*COMMAND, "--resume", str(part)], check=True, env=environment())
    expected, found = (tensors(run / "best.safetensors") for run in (uninterrupted, part))
    for key, tensor in expected.items():
        assert torch.equal(tensor, found[key]), key
    assert len((part / "metrics.jsonl").read_text().splitlines()) == 60


@pytest.mark.slow  # torchrun and its two processes
@pytest.mark.timeout(900)
def test_torchrun_gives_what_one_process_gives(faces: Path, lite: Path, tmp_path: Path) -> None:
    flags = [str(faces), "--from", str(lite), "--epochs", "2", "--batch", "8", "--device", "cpu"]
    flags += FAST
    one, two = tmp_path / "one", tmp_path / "two"
    single = [sys.executable, "-m", "videogender", "finetune", *flags, "--out", str(one)]
    subprocess.run(single, check=True, env=environment())
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    launcher += ["--master-port", "0", "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    double = [*launcher, "-m", "videogender", "finetune", *flags, "--out", str(two)]
    subprocess.run(double, check=True, env=environment())
    start, alone, shared = (
        torch.cat([t[k].float().flatten() for k in sorted(t) if "gender" in k])
        for t in map(tensors, (lite, one / "best.safetensors", two / "best.safetensors"))
    )
    assert (alone - start).norm() > 0.1
    assert (alone - shared).norm() < 0.02 * (alone - start).norm()
