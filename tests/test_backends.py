"""Other runtimes in PyTorch's place: the same answers, graphs that are kept, clear refusals."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from videogender import backends
from videogender.backends import RuntimePass, choose_backend
from videogender.cli.main import main
from videogender.config import DetectSettings
from videogender.detector import Detector
from videogender.errors import ConfigError, ModelError
from videogender.network import checkpoints, graph
from videogender.network.lite import Lite
from videogender.network.s3fd import MODES, S3FD, Mode
from videogender.sources import open_source

pytest.importorskip("onnx")

each_runtime = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.skipif(find_spec(name) is None, reason=f"no {name}"))
        for name in backends.RUNTIMES
    ],
)


any_runtime = pytest.mark.parametrize(
    "name", [name for name in backends.RUNTIMES if find_spec(name) is not None][:1]
)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("VIDEOGENDER_CACHE", str(folder))
    return folder


def load(backend: str, **settings: Any) -> Detector:
    wanted = {"device": "cpu", "precision": "fp32", "threads": 1, "backend": backend, **settings}
    return Detector.load(settings=DetectSettings(**wanted))


def noise(*shape_bhw: int) -> torch.Tensor:
    pixels = torch.rand(*shape_bhw, 3, generator=torch.Generator().manual_seed(1))
    return (pixels * 255 - 120).permute(0, 3, 1, 2)


@torch.inference_mode()
def answers(detector: Detector, x: torch.Tensor, *, plainly: bool = False) -> list[torch.Tensor]:
    found = detector.network(x) if plainly else detector.forward(x)
    return [found.face_logits, found.box_deltas, found.anchors, *found.features]


@each_runtime
def test_a_runtime_answers_as_pytorch_does(name: str) -> None:
    detector = load(name)
    for shape in ((1, 480, 640), (3, 96, 160), (1, 32, 32), (2, 130, 257)):
        x = noise(*shape)
        wanted = answers(detector, x, plainly=True)
        for found, expected in zip(answers(detector, x), wanted, strict=True):
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@each_runtime
def test_answers_outlive_the_next_question(name: str) -> None:
    detector = load(name)
    first = answers(detector, noise(1, 96, 128))
    copies = [tensor.clone() for tensor in first]
    answers(detector, noise(1, 96, 128) * 0.5)
    assert all(torch.equal(a, b) for a, b in zip(first, copies, strict=True))


@each_runtime
def test_faces_are_the_same(name: str) -> None:
    with open_source("samples/clip.mp4") as source:
        picture = next(iter(source)).picture
    (wanted,) = load("torch")([picture])
    detector = load(name)
    (found,) = detector([picture])
    assert len(wanted) > 0
    np.testing.assert_allclose(found.boxes, wanted.boxes, atol=0.01)
    np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-4)
    np.testing.assert_allclose(found.female, wanted.female, atol=1e-4)
    assert detector.describe() == f"lite, {name}, cpu, fp32, {torch.get_num_threads()} threads"


@pytest.mark.slow  # 90 MB of weights, written and read four times
@pytest.mark.parametrize(("name", "mode"), list(zip(backends.RUNTIMES, MODES, strict=True)))
def test_vgg16_in_either_geometry(name: str, mode: Mode, tmp_path: Path) -> None:
    pytest.importorskip(name)
    torch.manual_seed(0)
    path = tmp_path / "vgg16.safetensors"
    checkpoints.save(S3FD(mode, gender=True), path, {})
    detector = load(name, model="vgg16", weights=str(path))
    x = noise(1, 132, 100)  # 25 by 33 cells at stride 4: the geometries differ
    wanted = answers(detector, x, plainly=True)
    for found, expected in zip(answers(detector, x), wanted, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@each_runtime
def test_threads_are_those_that_were_asked_for(name: str) -> None:
    network = load("torch").network
    _, forward = choose_backend(name, network, threads=1)
    assert isinstance(forward, RuntimePass)
    session: Any = forward._session
    if name == "onnxruntime":
        assert session._session.get_session_options().intra_op_num_threads == 1
    else:  # which never takes more than there are cores
        assert session._compiled.get_property("INFERENCE_NUM_THREADS") == 1


@any_runtime
def test_a_graph_is_made_once_for_each_weights_file(
    name: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / f"{seed}.safetensors" for seed in range(2)]
    for seed, path in enumerate(paths):
        torch.manual_seed(seed)
        checkpoints.save(Lite(), path, {})
    for path in paths:
        load(name, weights=str(path))
    kept = list((cache / "graphs").iterdir())
    assert len(kept) == 2

    def again(_: object) -> bytes:
        raise AssertionError("made again")

    monkeypatch.setattr(graph, "network_graph", again)
    x = noise(1, 64, 96)
    for path in paths:  # each from its own graph
        detector = load(name, weights=str(path))
        found, wanted = answers(detector, x), answers(detector, x, plainly=True)
        torch.testing.assert_close(found[0], wanted[0], atol=1e-4, rtol=1e-4)


@any_runtime
@pytest.mark.parametrize("damage", [b"", b"not a graph", None])
def test_a_damaged_or_strange_graph_is_made_anew(
    name: str, cache: Path, tmp_path: Path, damage: bytes | None
) -> None:
    load(name)
    (kept,) = (cache / "graphs").iterdir()
    good = kept.read_bytes()
    if damage is None:  # a graph of other weights under this name
        torch.manual_seed(0)
        other = Lite().eval().requires_grad_(False)
        other.fuse()
        damage = graph.network_graph(other)
    kept.write_bytes(damage)
    assert load(name).backend == name
    assert len(kept.read_bytes()) == len(good)


@any_runtime
def test_without_a_cache_the_graph_is_made_every_time(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder can be here")
    monkeypatch.setenv("VIDEOGENDER_CACHE", str(blocked))
    assert load(name).backend == name


@pytest.mark.parametrize(("name", "extra"), [("onnxruntime", "onnx"), ("openvino", "openvino")])
def test_a_missing_runtime_names_its_extra(
    name: str, extra: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    argv = ["annotate", "samples/clip.mp4", "--no-video", "--json", "-", "--backend", name]
    assert main([*argv, "--device", "cpu"]) == 2
    said = capsys.readouterr().err.strip()
    assert said == f"error: --backend {name} needs {name}: pip install 'videogender[{extra}]'"


@any_runtime
def test_a_missing_exporter_names_the_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ConfigError, match=r"needs onnx: pip install 'videogender\["):
        load(name)


def test_only_fp32_on_the_cpu() -> None:
    with pytest.raises(ConfigError, match="fp32 alone: leave --precision out"):
        load("onnxruntime", precision="bf16")
    elsewhere = load("torch").network.to("meta")
    with pytest.raises(ConfigError, match=r"on the CPU alone, not on meta: add --device cpu"):
        choose_backend("openvino", elsewhere, threads=1)
    assert choose_backend("auto", elsewhere, threads=1) == ("torch", elsewhere)


def test_auto_takes_what_is_fastest_of_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    detector = load("auto")
    if detector.forward is not detector.network:  # packed
        assert detector.describe().startswith("lite, torch, cpu")
    monkeypatch.setattr(backends, "pack", lambda _: None)
    assert load("auto").backend == "openvino"
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert load("auto").backend == "onnxruntime"
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert load("auto").backend == "torch"


@any_runtime
def test_a_runtime_that_answers_otherwise_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = load("torch")
    other = Lite().eval().requires_grad_(False)
    other.fuse()
    wrong = graph.network_graph(other)
    monkeypatch.setattr(graph, "network_graph", lambda _: wrong)
    with pytest.raises(ModelError, match="otherwise than PyTorch does"):
        choose_backend(name, detector.network, threads=1)
