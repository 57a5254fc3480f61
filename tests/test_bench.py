"""The benchmark: its statistics, its parts against independent counts, and the whole command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from statistics import median

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from media import Clip, Sound, make_video

import videogender.benchmark.plan as plan_module
from videogender.benchmark.clips import MakeClip, transcode
from videogender.benchmark.network import ForwardPass, FrameParts
from videogender.benchmark.plan import Plan, measure
from videogender.benchmark.results import Results, Spread
from videogender.benchmark.stages import STAGES
from videogender.benchmark.timing import time_runs
from videogender.benchmark.worker import Worker
from videogender.cli.main import main
from videogender.config import VideoSettings
from videogender.errors import ConfigError, ModelError, VideogenderError
from videogender.network import checkpoints
from videogender.network.heads import AnchorNetwork, Predictions
from videogender.network.lite import Lite
from videogender.sinks.video import VideoSink
from videogender.sources.video import VideoSource

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = Lite()
    with torch.no_grad():  # faces everywhere would take longer than they teach
        for tap in network.taps:
            getattr(network, f"{tap}_mbox_conf").bias[-1] -= 8
    path = tmp_path_factory.mktemp("weights") / "untrained.safetensors"
    checkpoints.save(network, path, {})
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return make_video(path, Clip(width=96, height=64, frames=20, sounds=[Sound()]))


def detect(weights: Path, **others: object) -> dict[str, object]:
    """Return settings that disturb nobody who works beside the tests."""
    return {"weights": str(weights), "device": "cpu", "threads": 1, **others}


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=40))
def test_spread_is_what_numpy_says(values: list[float]) -> None:
    spread = Spread.of(values)
    expected = np.percentile(values, [50, 10, 90])
    assert [spread.median, spread.p10, spread.p90] == pytest.approx(expected.tolist())
    assert spread.runs == len(values)


def test_a_spread_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        Spread.of([])


def test_slow_runs_are_repeated_and_quick_ones_fill_the_time() -> None:
    calls: list[int] = []
    assert len(time_runs(lambda: calls.append(1), 0.0)) == 5
    assert len(calls) == 8  # with the warm-up
    assert len(time_runs(lambda: calls.append(1), 0.01)) > 5


def test_multiply_adds_and_parameters_are_those_of_the_layers(weights: Path) -> None:
    facts = ForwardPass(detect(weights)).facts()
    network, _ = checkpoints.load(weights)
    assert facts["multiply_adds"] == counted_multiply_adds(network)
    network.fuse()
    assert facts["parameters"] == sum(p.numel() for p in network.parameters())
    assert facts["batches"] == [1, facts["batch_size"]]


def counted_multiply_adds(network: AnchorNetwork) -> int:
    """Count by the shapes of each layer's weights and output, the heads by their taps."""
    total = 0

    def count(layer: torch.nn.Conv2d, _: object, out: torch.Tensor) -> None:
        nonlocal total
        total += layer.weight.numel() * out.shape[2] * out.shape[3]

    hooks = [
        layer.register_forward_hook(count)  # type: ignore[arg-type]
        for layer in network.modules()
        if isinstance(layer, torch.nn.Conv2d)
    ]
    with torch.no_grad():
        taps = network.features(torch.zeros(1, 3, 480, 640))
    for hook in hooks:
        hook.remove()
    for level, tap in enumerate(taps):
        outputs = 4 + (4 if level == 0 else 2)  # box; face and background, three of them at first
        total += 9 * tap.shape[1] * outputs * tap.shape[2] * tap.shape[3]
    return total


def test_forward_passes_are_timed_at_the_size_asked_for(weights: Path) -> None:
    part = ForwardPass(detect(weights))
    sizes: list[torch.Size] = []
    forward = part._detector.forward

    def noted(x: torch.Tensor) -> Predictions:
        sizes.append(x.shape)
        return forward(x)

    part._detector.forward = noted
    answer = part.ask(batch=2, seconds=0.0, size_wh=(96, 64))
    assert len(answer["ms"]) == 5
    assert all(ms > 0 for ms in answer["ms"])
    assert set(sizes) == {torch.Size([2, 3, 64, 96])}
    assert answer["peak_device_bytes"] is None


def test_the_parts_of_a_frame_add_up(weights: Path, clip: Path) -> None:
    part = FrameParts(detect(weights, batch_size=8), str(clip), None)
    facts, answer = part.facts(), part.ask()
    assert facts["source_wh"] == facts["size_wh"] == (96, 64)
    names = ("scale_ms", "before_ms", "network_ms", "second_ms", "after_ms", "cut_ms", "gender_ms")
    parts = [
        dict(zip(names, values, strict=True))
        for values in zip(*map(answer.get, names), strict=True)
    ]
    assert len(parts) == 2  # whole batches alone
    for one, ratio in zip(parts, answer["ratio"], strict=True):
        assert min(one["scale_ms"], one["before_ms"], one["network_ms"], one["after_ms"]) > 0
        around = one["scale_ms"] + one["before_ms"] + one["after_ms"] + one["cut_ms"]
        networks = one["network_ms"] + one["second_ms"] + one["gender_ms"]
        assert ratio == pytest.approx(around / networks)


def test_gender_heads_are_timed_where_faces_are(weights: Path, clip: Path) -> None:
    finds = FrameParts(detect(weights, face_threshold=0.0, nms_iou=0.9), str(clip), 0.2)
    assert min(finds.ask()["gender_ms"]) > 0
    blind = FrameParts(detect(weights, face_threshold=1.0), str(clip), 0.2)
    assert set(blind.ask()["gender_ms"]) == {0.0}


def test_transcoding_does_what_annotate_does_without_the_faces(tmp_path: Path) -> None:
    source = make_video(
        tmp_path / "source.mp4",
        Clip(width=320, height=240, frames=40, sounds=[Sound()], b_frames=2),
    )
    assert transcode(source, tmp_path / "plain.mp4", VideoSettings(), 1000) == 40
    with (
        VideoSource(source) as reading,
        VideoSink(tmp_path / "sink.mp4", reading, VideoSettings()) as sink,
    ):
        for frame in reading:
            sink.write(frame)
    ours, plain = summary_of(tmp_path / "sink.mp4"), summary_of(tmp_path / "plain.mp4")
    assert plain["times"] == ours["times"]
    assert plain["sound_packets"] == ours["sound_packets"] > 0
    # the same encoder with the same settings makes the same picture, byte for byte
    assert plain["picture"] == ours["picture"]


def summary_of(path: Path) -> dict[str, object]:
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        base = video.time_base or Fraction(0)
        packets = [p for p in container.demux(video) if p.pts is not None]
        times = sorted(p.pts * base for p in packets)
        picture = b"".join(bytes(p) for p in packets)
    with av.open(str(path)) as container:
        sound = [p for p in container.demux(container.streams.audio[0]) if p.pts is not None]
    return {"times": times, "picture": picture, "sound_packets": len(sound)}


def test_transcoding_stops_at_the_frame_asked_for(clip: Path, tmp_path: Path) -> None:
    assert transcode(clip, tmp_path / "out.mp4", VideoSettings(), 7) == 7
    assert len(summary_of(tmp_path / "out.mp4")["times"]) == 7  # type: ignore[arg-type]


def test_the_synthetic_clip_plays_and_moves(tmp_path: Path) -> None:
    path = tmp_path / "made.mp4"
    MakeClip(str(path))
    with av.open(str(path)) as container:
        frames = [f.to_ndarray(format="gray") for f in container.decode(video=0)]
    assert len(frames) == 150
    assert frames[0].shape == (720, 1280)
    moved = frames[10].astype(int)[:, :-20] - frames[0][:, 20:]
    still = frames[10].astype(int) - frames[0]
    assert np.abs(moved).mean() < np.abs(still).mean() / 2


def test_a_workers_error_arrives_as_its_own_class(tmp_path: Path) -> None:
    missing = tmp_path / "none.safetensors"
    with pytest.raises(ModelError, match=r"none\.safetensors"):
        Worker("forward", {"detect": {"weights": str(missing)}})


def test_a_worker_that_dies_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(VideogenderError, match=r"'unheard-of' ended early \(exit code 1\)"):
        Worker("unheard-of", {})
    assert "KeyError: 'unheard-of'" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["none.mp4"], 3, "error: none.mp4: no such video file"),
        (["--rounds", "0"], 2, "error: --rounds should be 1 or more, got 0"),
        (["--seconds", "-1"], 2, "error: --seconds should be 0 or more, got -1"),
        (["--peer", "none.onnx"], 2, "error: --peer: none.onnx: no such file"),
        (["--json", "there.json"], 4, "error: there.json: exists already; --force replaces it"),
        (["--threads", "-1"], 2, "error: --threads should be a whole number (0 to 1024), got -1"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line_before_anything_is_measured(
    arguments: list[str],
    code: int,
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plan_module, "find_spec", lambda name: object())
    monkeypatch.setattr(plan_module, "Worker", None)
    (tmp_path / "there.json").write_text("kept")
    assert main(["bench", *arguments]) == code
    captured = capsys.readouterr()
    assert captured.err.strip() == line
    assert captured.out == ""
    assert (tmp_path / "there.json").read_text() == "kept"


def test_a_peer_without_onnxruntime_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install onnxruntime"):
        measure(Plan(peer=Path("any.onnx")))


@pytest.mark.parametrize(
    ("shape", "size_wh"), [((1, 3, "h", "w"), [640, 480]), ((1, 3, 64, 96), [96, 64])]
)
def test_a_peer_is_measured_at_a_size_that_it_takes(
    shape: tuple[int | str, ...], size_wh: list[int], tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    file = tmp_path / "peer.onnx"
    file.write_bytes(onnx_identity(shape))
    with Worker("peer", {"file": str(file), "threads": 1}) as worker:
        assert worker.facts["size_wh"] == size_wh
        assert all(ms > 0 for ms in worker.ask(seconds=0.0)["ms"])


def test_a_peer_that_is_none_is_told_in_one_line(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    file = tmp_path / "peer.onnx"
    file.write_bytes(b"not a model")
    with pytest.raises(ConfigError, match=r"peer\.onnx: not an ONNX model") as caught:
        Worker("peer", {"file": str(file), "threads": 1})
    assert "\n" not in str(caught.value)


def onnx_identity(shape: tuple[int | str, ...]) -> bytes:
    """Write an ONNX model y = x for a float tensor of this shape (protobuf, by hand)."""

    def number(field: int, value: int) -> bytes:
        out = bytes([field << 3])
        while value > 127:
            out, value = out + bytes([value & 127 | 128]), value >> 7
        return out + bytes([value])

    def inner(field: int, value: bytes) -> bytes:
        return bytes([field << 3 | 2]) + number(0, len(value))[1:] + value

    dims = b"".join(
        inner(1, inner(2, d.encode()) if isinstance(d, str) else number(1, d)) for d in shape
    )
    kind = inner(1, number(1, 1) + inner(2, dims))  # tensor type: element type float, shape
    node = inner(1, b"x") + inner(2, b"y") + inner(4, b"Identity")
    values = [
        inner(field, inner(1, name) + inner(2, kind)) for field, name in ((11, b"x"), (12, b"y"))
    ]
    graph = inner(1, node) + inner(2, b"g") + b"".join(values)
    return number(1, 8) + inner(7, graph) + inner(8, number(2, 13))


@pytest.fixture(scope="module")
def ran(
    weights: Path, clip: Path, tmp_path_factory: pytest.TempPathFactory
) -> subprocess.CompletedProcess[str]:
    """The whole command, once, on as little as possible."""
    flags = ["--rounds", "2", "--seconds", "0.4", "--batch-size", "2", "--json", "-"]
    flags += ["--weights", str(weights), "--device", "cpu", "--threads", "1"]
    return subprocess.run(
        [sys.executable, "-m", "videogender", "bench", str(clip), *flags],
        cwd=tmp_path_factory.mktemp("elsewhere"),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


@pytest.mark.timeout(900)
@pytest.mark.slow  # eight processes start, each of which imports torch
def test_the_whole_command_measures_everything(ran: subprocess.CompletedProcess[str]) -> None:
    assert ran.returncode == 0, ran.stderr
    results = json.loads(ran.stdout)
    assert list(results) == list(Results.__slots__)
    assert results["peer"] is None
    assert results["facts"]["description"].startswith("lite, cpu, ")
    assert results["facts"]["threads"] == 1
    assert [each["batch"] for each in results["forward"]] == [1, 2]
    for each in results["forward"]:
        assert 0 < each["ms"]["p10"] <= each["ms"]["median"] <= each["ms"]["p90"]
        expected = 1e3 * each["batch"] / each["ms"]["median"]
        assert each["images_per_second"] == pytest.approx(expected)
    clip = results["clip"]
    assert (clip["width"], clip["height"], clip["frames"]) == (96, 64, 10)
    assert clip["seconds"] == pytest.approx(0.4)
    whole, rounds = results["end_to_end"], results["end_to_end"]["rounds"]
    assert len(rounds) == 2
    ratio = median(each["annotate_seconds"] / each["transcode_seconds"] for each in rounds)
    assert whole["annotate_to_transcode"]["median"] == pytest.approx(ratio)
    for way in ("annotate", "stream", "transcode"):
        fps = median(clip["frames"] / each[f"{way}_seconds"] for each in rounds)
        assert whole[f"{way}_fps"]["median"] == pytest.approx(fps)
        assert fps > 0
    stages = {each["name"]: each for each in results["stages"]}
    assert list(stages) == [stage for stage in STAGES if stage]
    assert stages["encode"]["ms"]["p10"] > 0
    total_ms = 1e3 * median(each["annotate_seconds"] for each in rounds) / clip["frames"]
    # a few looks at so small a picture may fall between samples; nor is a machine always as fast
    assert 0 <= stages["network"]["ms"]["median"] < 3 * total_ms
    command = results["command"]
    assert 0 < command["first_frame_seconds"]["median"] < command["whole_seconds"]["median"]
    assert command["peak_memory_bytes"] is None or command["peak_memory_bytes"] > 100e6  # torch


@pytest.mark.slow  # shares the run of the test above
def test_the_table_shows_what_the_json_says(ran: subprocess.CompletedProcess[str]) -> None:
    results = json.loads(ran.stdout)
    table = ran.stderr
    ratio = results["end_to_end"]["annotate_to_transcode"]["median"]
    shown = f"{ratio:.2f}" if ratio < 10 else f"{ratio:.1f}"
    (line,) = [line for line in table.splitlines() if "annotate / transcode" in line]
    assert line.split()[3] == shown
    assert f"{results['facts']['multiply_adds'] / 1e9:.2f} G multiply-adds" in table
    for part in ("batch 1", "batch 2", "around / network", "start to first frame", "by stage"):
        assert part in table


def test_a_clip_that_is_named_wins_over_the_sample_and_that_over_a_synthetic_one(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = plan_module.choose_clip(Plan(), tmp_path)
    assert (made.parent, made.stat().st_size > 100_000) == (tmp_path, True)
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "clip.mp4").write_bytes(clip.read_bytes())
    assert plan_module.choose_clip(Plan(), tmp_path) == Path("samples/clip.mp4")
    assert plan_module.choose_clip(Plan(clip), tmp_path) == clip


def test_the_parent_stays_light() -> None:
    """Linux counts a parent's memory towards its child's peak, so the parent must load nothing."""
    code = (
        "import sys; import videogender.benchmark.plan, videogender.benchmark.table;"
        "print([m for m in ('torch', 'av', 'numpy', 'PIL') if m in sys.modules])"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_live_runs_are_measured(
    weights: Path, clip: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "live.json"
    flags = ["--seconds", "2", "--fps", "20", "--weights", str(weights), "--device", "cpu"]
    assert main(["bench", "live", str(clip), *flags, "--threads", "1", "--json", str(out)]) == 0
    found = json.loads(out.read_text())
    assert [(run["width"], run["height"]) for run in found["runs"]] == [(640, 480), (1280, 720)]
    for run in found["runs"]:
        assert 0 < run["latency_ms_p50"] <= run["latency_ms_p95"]
        assert 0 < run["label_ms_p50"] <= run["label_ms_p95"]
        assert run["looks"] >= 1
        assert 0 < run["cpu"] < found["cores"] + 0.5
        assert run["frames"] + run["dropped"] <= 2 * 20 + 2
    said = capsys.readouterr().out
    assert "capture to label, median" in said
    assert main(["bench", "live", str(clip), "--seconds", "1"]) == 2
    assert main(["bench", "live", str(clip), "--size", "large"]) == 2


def test_a_long_live_run_gives_a_row_at_every_interval(
    weights: Path, clip: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "live.json"
    flags = ["--seconds", "3.5", "--fps", "20", "--weights", str(weights), "--device", "cpu"]
    flags += ["--size", "320x240", "--rows", "1s", "--json", str(out)]
    assert main(["bench", "live", str(clip), *flags, "--threads", "1"]) == 0
    [run] = json.loads(out.read_text(), parse_constant=pytest.fail)["runs"]
    assert (run["width"], run["height"]) == (320, 240)
    assert 2 <= len(run["rows"]) <= 4
    for number, row in enumerate(run["rows"], 1):
        assert row["seconds"] == pytest.approx(number, abs=0.9)  # a busy machine is late
        assert 20 < row["memory_mb"] < 20_000
        assert 0 <= row["fps_out"] <= row["fps_in"] + 2
        assert row["dropped"] >= 0
    assert run["memory_mb"] == pytest.approx(run["rows"][-1]["memory_mb"], rel=0.5)
    said, aside = capfd.readouterr()
    assert said.count(" MB") >= 1 + len(run["rows"])
    assert aside.count("to label p50/p95 ") == len(run["rows"])  # as it goes
