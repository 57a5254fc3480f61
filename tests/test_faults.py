"""Faults from outside: killed at any moment, or out of room, nothing half-done looks finished."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import pytest
from media import Clip, Sound, make_video

HERE = Path(__file__).parent
OUTPUTS = ("out.mp4", "faces.jsonl", "faces.csv")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals and limits")


def annotate(folder: Path, *, most_bytes: int | None = None) -> subprocess.Popen[str]:
    """Start annotating `clip.mp4`, in about a second."""

    def limit() -> None:
        if most_bytes is not None:
            signal.signal(
                signal.SIGXFSZ, signal.SIG_IGN
            )  # a write fails instead, as on a full disk
            resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))

    arguments = ["annotate", "clip.mp4", "-o", "out.mp4", "--json", "faces.jsonl", "--csv"]
    return subprocess.Popen(
        [sys.executable, str(HERE / "run_squares.py"), *arguments, "faces.csv", "--force"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(HERE.parent), "SQUARES_DELAY": "0.02"},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=limit,
    )


def finished(folder: Path) -> bool:
    """Tell whether the outputs are whole; they appear together, or one by one at the end."""
    with av.open(str(folder / "out.mp4")) as container:
        count = sum(1 for _ in container.decode(video=0))
    return count == 60


@pytest.mark.slow  # eleven processes
def test_killed_at_any_moment_nothing_looks_finished(tmp_path: Path) -> None:
    make_video(tmp_path / "clip.mp4", Clip(frames=60, sounds=[Sound()]))
    process = annotate(tmp_path)
    began = time.monotonic()
    process.communicate(timeout=60)
    assert process.returncode == 0
    whole_seconds = time.monotonic() - began
    for name in OUTPUTS:
        (tmp_path / name).unlink()
    rng = random.Random(4)
    left_something = False
    for _ in range(10):
        process = annotate(tmp_path)
        time.sleep(rng.uniform(0.2, 1.0) * whole_seconds)
        process.kill()
        process.communicate(timeout=60)
        if (tmp_path / "out.mp4").exists():
            assert finished(tmp_path)
        left = [path for path in tmp_path.iterdir() if path.name.startswith(".videogender-")]
        left_something = left_something or bool(left)
        for path in left:
            os.utime(path, (0, 0))  # some time passes until the next run
        for name in OUTPUTS:
            (tmp_path / name).unlink(missing_ok=True)
    assert left_something, "no kill came in the middle of the work"
    process = annotate(tmp_path)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert finished(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(["clip.mp4", *OUTPUTS])


@pytest.mark.slow  # ten processes
def test_out_of_room_at_any_moment_says_so_and_keeps_what_was(tmp_path: Path) -> None:
    make_video(tmp_path / "clip.mp4", Clip(frames=60, sounds=[Sound()]))
    process = annotate(tmp_path)
    process.communicate(timeout=60)
    assert process.returncode == 0
    before = {name: (tmp_path / name).read_bytes() for name in OUTPUTS}
    largest = max(map(len, before.values()))
    rng = random.Random(5)
    for _ in range(10):
        process = annotate(tmp_path, most_bytes=rng.randrange(200, round(largest * 0.9)))
        _, said = process.communicate(timeout=60)
        assert process.returncode == 4, said
        errors = [line for line in said.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, said
        assert "Traceback" not in said
        assert sorted(os.listdir(tmp_path)) == sorted(["clip.mp4", *OUTPUTS])
        assert {name: (tmp_path / name).read_bytes() for name in OUTPUTS} == before
