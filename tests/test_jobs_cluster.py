"""`annotate --engine ray`: on a cluster of this machine, a worker of which is killed midway."""

from __future__ import annotations

import json
import re
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from squares import write_video
from test_jobs import HERE, names, run, start, stopped
from test_jobs_parts import show_the_same

from videogender.annotation import annotate
from videogender.errors import ConfigError
from videogender.jobs.cluster import Shares

pytestmark = pytest.mark.timed

DATA = ("--json", "--csv", "--coco", "--summary")
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")


@needs_ray
@pytest.mark.timeout(600)  # where other work runs beside it
@pytest.mark.slow  # Ray starts half a dozen processes first
def test_a_cluster_that_loses_a_worker_finds_what_one_process_finds(tmp_path: Path) -> None:
    """The first input is long and costs a worker its life; one input fails for good."""
    for name, count, wide in (("a", 120, 200), ("b", 30, 160), ("c", 10, 160), ("d", 20, 176)):
        write_video(tmp_path / f"{name}.mp4", count=count, size_wh=(wide, 120))
    (tmp_path / "broken.mp4").write_bytes(b"this is no video")
    inputs = ("a.mp4", "broken.mp4", "b.mp4", "c.mp4", "d.mp4")
    hook = {"runtime_env": {"worker_process_setup_hook": "run_squares.stand_in"}}
    deadly = {
        "PYTHONPATH": f"{HERE.parent}:{HERE}",
        "RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps(hook),
        "SQUARES_FATAL_WIDTH": "200",
        "SQUARES_FATAL_AFTER": "10",  # of 30 batches
        "SQUARES_FATAL_ONCE": str(tmp_path / "died"),
    }
    said = {}
    ways = {"alone": ((), {}), "cluster": (("--engine", "ray", "-j", "2"), deadly)}
    for way, (flags, env) in ways.items():
        files = [part for flag in DATA for part in (flag, f"{way}{flag}")]
        code, out, said[way] = run(*inputs, "-o", f"{way}/", *files, *flags, cwd=tmp_path, env=env)
        assert (code, out) == (3, ""), said[way]
    assert (tmp_path / "died").exists()
    assert "a.mp4: its process was killed; a second try went well" in said["cluster"]
    assert "model: squares, cpu, in 2 processes" in said["cluster"]
    assert re.search("^5 inputs, 1 failed: 180 frames, 180 faces", said["cluster"], re.M)
    assert said["cluster"].splitlines()[-5].startswith("failed: broken.mp4: ")
    for flag in DATA:
        alone, cluster = (tmp_path / f"{way}{flag}" for way in ways)
        assert alone.stat().st_size > 500
        assert alone.read_bytes() == cluster.read_bytes(), flag
    for copy in (tmp_path / "alone").iterdir():
        show_the_same(copy, tmp_path / "cluster" / copy.name)


@needs_ray
@pytest.mark.timeout(600)
@pytest.mark.slow  # Ray starts half a dozen processes first
def test_sigterm_is_not_left_to_ray(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_video(tmp_path / f"{name}.mp4", count=400)
    hook = {"runtime_env": {"worker_process_setup_hook": "run_squares.stand_in"}}
    env = {
        "PYTHONPATH": f"{HERE.parent}:{HERE}",
        "RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps(hook),
        "SQUARES_DELAY": "0.1",
    }
    process = start("a.mp4", "b.mp4", "--engine", "ray", "-j", "2", cwd=tmp_path, env=env)
    # of about 10 s in all
    err = stopped(process, tmp_path, 2, process.terminate, after=2.0, within=120)
    assert process.returncode == 143, err
    assert names(tmp_path) == ["a.annotated.mp4", "a.mp4", "b.annotated.mp4", "b.mp4"]


@pytest.mark.parametrize(
    ("has", "asked", "expected"),
    [
        # cores and GPUs; jobs, inputs, device and threads; workers, threads and GPUs of each
        ((64, 0), (0, 1000, "auto", 0), (32, 2, 0)),
        ((64, 0), (0, 5, "auto", 0), (5, 2, 0)),
        ((2, 0), (2, 9, "auto", 0), (2, 1, 0)),
        ((2, 0), (0, 9, "cpu", 1), (2, 1, 0)),
        ((1, 0), (0, 9, "cpu", 0), (1, 1, 0)),
        ((64, 8), (0, 1000, "auto", 0), (8, 2, 1)),
        ((64, 8), (0, 1000, "cpu", 4), (16, 4, 0)),
        ((8, 0), (0, 9, "cuda", 0), (1, 2, 1)),
    ],
)
def test_a_cluster_is_divided(
    has: tuple[int, int], asked: tuple[int, int, str, int], expected: tuple[int, int, int]
) -> None:
    assert Shares.of(*has, *asked) == Shares(*expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"engine": "slurm"}, "--engine should be one of local, ray, got 'slurm'"),
        ({"address": "auto"}, "--address names a Ray cluster; add --engine ray"),
    ],
)
def test_refusals(tmp_path: Path, arguments: dict[str, str], message: str) -> None:
    clip = write_video(tmp_path / "a.mp4", count=2)
    with pytest.raises(ConfigError, match=message):
        annotate(clip, **arguments)  # type: ignore[arg-type]


@needs_ray
@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:1", "no Ray cluster at '127.0.0.1:1': Connection refused"),
        ("ray://head:10001", "ray://head:10001: Ray's client cannot pass on"),
    ],
)
def test_where_no_cluster_is_a_line_says_so_at_once(
    tmp_path: Path, address: str, message: str
) -> None:
    clip = write_video(tmp_path / "a.mp4", count=2)
    with pytest.raises(ConfigError, match=message):
        annotate(clip, engine="ray", address=address)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_without_ray_a_line_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    clip = write_video(tmp_path / "a.mp4", count=2)
    with pytest.raises(ConfigError, match=r"pip install 'videogender\[ray\]'"):
        annotate(clip, engine="ray", output=tmp_path / "b.mp4")


@needs_ray
@pytest.mark.timeout(600)
@pytest.mark.slow
def test_a_cluster_divides_a_long_video_and_does_a_lost_part_again(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", count=240, size_wh=(200, 120), keys_every=10)
    hook = {"runtime_env": {"worker_process_setup_hook": "run_squares.stand_in"}}
    deadly = {
        "PYTHONPATH": f"{HERE.parent}:{HERE}",
        "RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps(hook),
        "SQUARES_PART_SECONDS": "1",
        "SQUARES_FATAL_WIDTH": "200",
        "SQUARES_FATAL_AFTER": "4",
        "SQUARES_FATAL_ONCE": str(tmp_path / "died"),
    }
    ways = {"alone": ((), {}), "cluster": (("--engine", "ray", "-j", "2"), deadly)}
    for way, (flags, env) in ways.items():
        files = ("-o", f"{way}.mp4", "--json", f"{way}.jsonl")
        code, _, err = run("a.mp4", *files, *flags, cwd=tmp_path, env=env)
        assert code == 0, err
    assert (tmp_path / "died").exists()
    assert "in 2 processes" in err
    assert (tmp_path / "alone.jsonl").read_bytes() == (tmp_path / "cluster.jsonl").read_bytes()
    show_the_same(tmp_path / "alone.mp4", tmp_path / "cluster.mp4")
