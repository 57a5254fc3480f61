"""`videogender train` in processes of its own: files, streams, signals, exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from drawn_faces import write_portraits, write_scenes
from safetensors import safe_open

from videogender.cli.main import main

ROOT = Path(__file__).parents[1]
FEW = ("--side", "64", "--batch", "8", "--device", "cpu")


def environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "THP_MEM_ALLOC_ENABLE")}
    return {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "videogender", "train", *map(str, arguments)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_scenes(folder / "scenes", 6)
    write_portraits(folder / "portraits", 6)
    (folder / "marks.jsonl").write_text(
        '{"image": "0.png", "faces": [{"box": [0, 0, 9, 9], "score": 0.9}]}\n'
    )
    return folder


@pytest.fixture(scope="module")
def finished(data: Path) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A run of three steps in two processes, with all the kinds of data."""
    out = data / "runs" / "finished"
    arguments = [
        "train",
        *("--scenes", data / "scenes", "--portraits", data / "portraits" / "faces.jsonl"),
        *("--ignore-also", data / "marks.jsonl"),
        *("--val-scenes", data / "scenes", "--val-portraits", data / "portraits"),
        *("--out", out, "--steps", "3", *FEW, "--processes", "2", "--set", "crops.aspect=0.1"),
    ]
    script = (
        "import os, sys\n"
        "from videogender.cli.main import main\n"
        f"code = main({[str(a) for a in arguments]})\n"
        "unwanted = {'av', 'platformdirs', 'matplotlib'} & set(sys.modules)\n"
        "print(sorted(unwanted), os.environ.get('THP_MEM_ALLOC_ENABLE'))\n"
        "sys.exit(code)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    return out, ran


@pytest.mark.slow  # loads PyTorch and trains
def test_run_says_what_happens(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    out, ran = finished
    assert ran.returncode == 0, ran.stderr
    lines = ran.stderr.splitlines()
    assert lines[0].endswith("marks.jsonl: 1 unlabelled faces will be ignored")
    assert lines[1].startswith("12 images, 0.0 GB of pixels, ")
    steps = [line for line in lines if line.startswith("step ")]
    assert steps[0].startswith("step 1 (33.3%), loss: face ")
    assert "img/s (" in steps[0]
    assert steps[0].endswith(" left")
    assert steps[-2].startswith("step 3 (100.0%)")
    assert steps[-1].startswith("step 3: AP 0.")
    assert steps[-1].endswith(", best so far")
    assert lines[-2] == f"best weights: {out}/best.safetensors (temperature 1.00)"
    assert lines[-1].startswith(f"weights -> {out}/best.safetensors ")


@pytest.mark.slow
def test_run_needs_no_video_library_and_asks_for_huge_pages(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    assert finished[1].stdout == "[] 1\n"


@pytest.mark.slow
def test_run_leaves_its_record(
    data: Path, finished: tuple[Path, subprocess.CompletedProcess[str]]
) -> None:
    out, _ = finished
    assert {p.name for p in out.iterdir()} == {
        *("run.json", "metrics.jsonl", "last.pt", "last.safetensors", "best.safetensors")
    }
    record = json.loads((out / "run.json").read_text())
    assert record["settings"]["crops.aspect"] == 0.1
    assert record["settings"]["side"] == 64
    assert record["data"]["scenes"] == [str((data / "scenes").resolve())]
    assert record["processes"] == 2
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [(r["kind"], r["step"]) for r in rows] == [("train", 3), ("validation", 3)]
    assert {"face", "box", "gender", "images_per_second", "data_share"} <= set(rows[0])
    assert {"ap_16px", "ap_8px", "gender_portraits_found", "score"} <= set(rows[1])
    with safe_open(out / "best.safetensors", framework="numpy") as file:
        metadata = file.metadata()
    assert metadata["steps"] == "3"
    assert float(metadata["temperature"]) == 1.0
    sets = json.loads(metadata["data"])
    assert [(s["kind"], s["images"]) for s in sets] == [("scenes", 6), ("portraits", 6)]
    assert sets[1]["name"] == f"{data.name}/portraits"
    assert str(data) not in json.dumps(metadata), "a released file names no folders"
    assert json.loads(metadata["recipe"])["steps"] == 3
    assert json.loads(metadata["figures"])["faces_16px"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--scenes", "{scenes}", "--steps", "3"], 4, "holds a run already"),
        (["--resume", "--batch", "32"], 2, "was begun with batch 8, not 32: leave that out"),
        (["--resume", "--set", "loss.box=9"], 2, "was begun with loss.box 2.0, not 9.0: leave"),
        (["--resume", "--scenes", "{portraits}"], 2, "was begun with scenes ["),
    ],
)
def test_finished_run_is_guarded(
    data: Path,
    finished: tuple[Path, subprocess.CompletedProcess[str]],
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    out, _ = finished
    before = {p.name: p.stat().st_mtime_ns for p in out.iterdir()}
    places = {"scenes": data / "scenes", "portraits": data / "portraits"}
    filled = [a.format(**places) for a in arguments]
    assert main(["train", "--out", str(out), *filled]) == code
    assert message in capsys.readouterr().err
    assert {p.name: p.stat().st_mtime_ns for p in out.iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "error: give the length of training as either --minutes or --steps"),
        (["--steps", "3"], 2, "error: nothing to learn from: give --scenes, --portraits or both"),
        (["--steps", "0"], 2, "either --minutes or --steps"),
        (["--steps", "3", "--set", "batch"], 2, "--set batch: expected KEY=VALUE"),
        (["--steps", "3", "--set", "bach=1"], 2, "--set: unknown key bach; did you mean batch?"),
        (["--steps", "3", "--lr", "99"], 2, "--lr: learning_rate should be a number"),
        (["--steps", "3", "--config", "none.yaml"], 2, "none.yaml: cannot read this file"),
        (["--steps", "3", "--scenes", "none"], 7, "none: no such data file"),
        (["--steps", "3", "--scenes", "none", "--device", "mps"], 6, "mps"),
        (["--steps", "3", "--scenes", "none", "--teach", "none"], 2, "--teach: anchors learn from"),
        (["--resume"], 2, "either --minutes or --steps"),
        (["--resume", "--steps", "3", "--scenes", "none"], 7, "no checkpoint to resume from"),
    ],
)
def test_bad_requests_are_explained_in_a_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--out", "run", *arguments]) == code
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_bad_initial_weights_leave_no_run(data: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.safetensors").write_bytes(b"{")
    arguments = ["--steps", "3", "--init", str(tmp_path / "bad.safetensors")]
    assert (
        main(
            ["train", "--out", str(tmp_path / "run"), "--scenes", str(data / "scenes"), *arguments]
        )
        == 5
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flag", "teaches"),
    [("--help", ['"faces": [{"box": [12, 30, 52, 84], "gender": "female"}]', "--resume", "--set"])],
)
def test_help_teaches_the_data_format(
    capsys: pytest.CaptureFixture[str], flag: str, teaches: list[str]
) -> None:
    assert main(["train", flag]) == 0
    said = capsys.readouterr().out
    assert all(text in said for text in teaches)


def children_of(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(entry.parent.name))
    return found


def begin(data: Path, out: Path) -> tuple[subprocess.Popen[str], list[int]]:
    """Start a long run in two processes, wait for its first step; return it and its forks."""
    running = subprocess.Popen(
        command(
            *("--scenes", data / "scenes", "--out", out, "--steps", "100000", *FEW),
            *("--processes", "2"),
        ),
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stderr is not None
    for line in running.stderr:
        if line.startswith("step "):
            break
    forks = children_of(running.pid)
    assert len(forks) == 1
    return running, forks


def gone(pids: list[int], seconds: float = 30) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        alive = []
        for pid in pids:
            try:
                state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if state != "Z":  # a zombie whose parent has gone waits for init alone
                alive.append(pid)
        if not alive:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.slow  # starts and stops real training
@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_writes_a_checkpoint_and_ends_all_processes(
    data: Path, tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "run"
    running, forks = begin(data, out)
    # one signal to one process is enough, whichever it is
    os.kill(running.pid if number == signal.SIGINT else forks[0], number)
    _, said = running.communicate(timeout=120)
    assert running.returncode == 130, said
    assert said.splitlines()[-1] == (
        f"interrupted: go on with `videogender train --out {out} --resume`"
    )
    assert "Traceback" not in said
    assert gone(forks)
    assert (out / "last.pt").is_file()
    assert (out / "last.safetensors").is_file()
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["kind"] == "train"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("victim", ["parent", "fork"])
def test_killed_process_leaves_no_other(data: Path, tmp_path: Path, victim: str) -> None:
    running, forks = begin(data, tmp_path / "run")
    os.kill(running.pid if victim == "parent" else forks[0], signal.SIGKILL)
    _, said = running.communicate(timeout=120)
    assert gone(forks)
    if victim == "fork":
        assert running.returncode == 7
        assert "error: training process 1 was ended by signal 9" in said.splitlines()[-1]


@pytest.mark.slow
def test_resume_needs_only_the_folder(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    start = command("--scenes", data / "scenes", "--out", out, "--steps", "4", *FEW)
    whole = subprocess.run(
        [*start, "--processes", "1"], env=environment(), capture_output=True, text=True, timeout=200
    )
    assert whole.returncode == 0, whole.stderr
    # as if it had been stopped half-way
    import torch

    state = torch.load(out / "last.pt", weights_only=True)
    state["step"] = 2
    torch.save(state, out / "last.pt")
    ran = subprocess.run(
        command("--out", out, "--resume", "--steps", "5", "--processes", "1", "--device", "cpu"),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "going on at step 2" in ran.stderr
    assert "going on with steps 5, not 4 as before" in ran.stderr
    assert "step 5 (100.0%)" in ran.stderr
    assert json.loads((out / "run.json").read_text())["settings"]["steps"] == 5
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows] == [5], "what came after the checkpoint is told once"


@pytest.mark.slow
def test_torchrun_trains_in_its_own_processes(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", "2", "-m", "videogender", "train"),
            *("--scenes", str(data / "scenes"), "--val-scenes", str(data / "scenes")),
            *("--out", str(out), "--steps", "3", *FEW),
        ],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    said = [line for line in ran.stderr.splitlines() if line.startswith("step 3 (100.0%)")]
    assert len(said) == 1, "one process speaks for all"
    assert json.loads((out / "run.json").read_text())["processes"] == 2
    assert (out / "best.safetensors").is_file()
