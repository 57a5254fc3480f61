"""Export: the file answers as the detector does, also at sizes it was not traced with."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from coloured import coloured_lite, scene

from videogender.cli.main import main
from videogender.closeup import face_crops
from videogender.config import DetectSettings
from videogender.detector import Detector
from videogender.exporting import ASKED_A_LEVEL, Standalone, graph_of
from videogender.network import checkpoints
from videogender.network.attributes import AttributeHeads
from videogender.network.boxes import decode, iou_matrix, nms
from videogender.network.heads import FEMALE, MALE
from videogender.network.lite import Lite
from videogender.network.second_stage import FACE_PX, SIDE_PX, SecondStage
from videogender.sources import open_source
from videogender.weights_store import resolve


@pytest.fixture(scope="module")
def detector() -> Detector:
    """The first stage alone, as it is exported."""
    network, metadata = checkpoints.load(resolve("lite", None))
    network.second_stage = None
    settings = DetectSettings(precision="fp32")
    return Detector(network, settings, temperature=float(metadata["temperature"]))


@pytest.mark.parametrize("size_hw", [(128, 128), (192, 320), (131, 250)])
def test_standalone_answers_as_the_network_does(
    detector: Detector, size_hw: tuple[int, int]
) -> None:
    image = torch.rand(2, 3, *size_hw, generator=torch.Generator().manual_seed(3)) * 255
    with torch.inference_mode():
        boxes, scores, female = Standalone(detector)(image)
        mean = torch.tensor(detector.network.pixel_mean_bgr[::-1])[:, None, None]
        expected = detector.network(image - mean)
        swept = detector.network.gender_maps(expected.features)
    torch.testing.assert_close(scores, expected.face_logits.sigmoid(), rtol=1e-4, atol=1e-5)
    wanted = decode(expected.box_deltas, expected.anchors)
    torch.testing.assert_close(boxes, wanted, rtol=1e-4, atol=1e-2)
    odds = (swept[..., FEMALE] - swept[..., MALE]) / detector.temperature
    asked = ~female.isnan()
    torch.testing.assert_close(female[asked], odds.sigmoid()[asked], rtol=1e-3, atol=1e-4)
    cells = [f.shape[2] * f.shape[3] for f in expected.features]
    per_image = sum(min(ASKED_A_LEVEL[i], n) if i < 3 else n for i, n in enumerate(cells))
    assert asked.sum(1).tolist() == [per_image, per_image]
    for row in range(2):  # those that are asked are the likeliest of their level
        first = slice(0, cells[0])
        least = scores[row, first][asked[row, first]].min()
        assert scores[row, first][~asked[row, first]].max() <= least


def test_both_stages_add_up_as_the_description_says() -> None:
    """Followed to the letter, at a temperature of 2, it gives what the detector says."""
    torch.manual_seed(0)
    network = coloured_lite(gender=True, face_level=2)
    stage = SecondStage().eval()
    with torch.no_grad():
        stage.box.weight.zero_()
        stage.box.bias.zero_()
        stage.face.bias.fill_(6.0)  # it is sure of both: one look is enough
        stage.gender.bias.copy_(torch.tensor([3.0, 0.0]))
        stage.gender_mix.copy_(torch.tensor([0.75, 0.5, 0.25]))
        stage.face_mix.copy_(torch.tensor([0.5, 0.25, -0.5]))
    network.second_stage = stage
    detector = Detector(network, DetectSettings(precision="fp32"), temperature=2.0)
    picture = scene(256, 192, (3, 5, "red"), (11, 6, "blue"), cell=16)
    [found] = detector([picture])
    first, second = graph_of(detector, "first"), graph_of(detector, "second")
    with torch.inference_mode():
        image = torch.from_numpy(picture).permute(2, 0, 1)[None].float()
        boxes, scores, female = (out[0] for out in first.module(image))
        likely = scores > detector.settings.face_threshold
        crops = face_crops(picture, boxes[likely].numpy(), SIDE_PX, FACE_PX)
        face, _, close_up = second.module(torch.from_numpy(crops).permute(0, 3, 1, 2).float())
    old, new, more = stage.face_mix.tolist()
    both = (old * scores[likely].logit() + new * face + more).sigmoid()
    order = both.argsort(descending=True).numpy()
    np.testing.assert_allclose(both.numpy()[order], found.scores, atol=1e-4)
    old, new, more = stage.gender_mix.tolist()
    odds = (old * female[likely] + new * close_up + more) / detector.temperature
    np.testing.assert_allclose(odds.sigmoid().numpy()[order], found.female, atol=1e-4)
    assert np.ptp(found.female) > 0.1
    assert "female: log-odds" in first.description
    assert "divide that of female by temperature" in second.description
    network.second_stage = None
    assert "female: probability" in graph_of(detector, "first").description


def test_fine_tuned_heads_are_not_left_out_in_silence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, out = tmp_path / "mine.safetensors", tmp_path / "a.onnx"
    network = Lite(gender=False).eval()
    head = AttributeHeads.beside(network, 2)
    for facts in ({"task": "gender"}, {"task": "attribute", "labels": '["mask", "none"]'}):
        checkpoints.save(network, weights, facts, head=head)
        assert main(["export", str(out), "--weights", str(weights)]) == 5
        assert "a fine-tuned head beside the network" in capsys.readouterr().err
        assert not out.exists()


@pytest.mark.slow  # PyTorch's exporter takes half a minute
def test_an_exported_file_finds_the_faces_of_the_sample(
    detector: Detector, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path = tmp_path / "lite.onnx"
    assert main(["export", str(path)]) == 0
    assert "largest difference" in capsys.readouterr().out
    with open_source("samples/clip.mp4") as source:
        rgb = next(iter(source)).picture.to_rgb((640, 352))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["labels"]) == ["female", "male"]
    assert facts["colour_order"] == "RGB"
    image = rgb.transpose(2, 0, 1)[None].astype(np.float32)
    boxes, scores, female = (torch.from_numpy(o)[0] for o in session.run(None, {"image": image}))
    likely = scores > float(facts["face_threshold"])
    order = scores[likely].argsort(descending=True)
    keep, _ = nms(boxes[likely][order], float(facts["nms_iou"]))
    ours = detector([rgb])[0]
    assert len(ours) > 0
    np.testing.assert_allclose(scores[likely][order][keep].numpy(), ours.scores, atol=1e-4)
    assert not female[likely].isnan().any()
    assert main(["export", str(path)]) == 4  # it exists


@pytest.mark.slow  # PyTorch's exporter takes half a minute
def test_an_exported_file_in_integers_finds_the_same_faces(
    detector: Detector, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path = tmp_path / "lite.onnx"
    assert main(["export", str(path), "--precision", "int8"]) == 0
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map["precision"] == "int8"
    stored = [t for t in onnx.load(path).graph.initializer if len(t.dims) == 4]
    in_bytes = [t for t in stored if t.data_type == onnx.TensorProto.INT8]
    assert len(in_bytes) >= 20, "weights of the convolutions lie in the file as integers"
    with open_source("samples/clip.mp4") as source:
        rgb = next(iter(source)).picture.to_rgb((640, 352))
    image = rgb.transpose(2, 0, 1)[None].astype(np.float32)
    boxes, scores, _ = (torch.from_numpy(o)[0] for o in session.run(None, {"image": image}))
    likely = scores > 0.5
    order = scores[likely].argsort(descending=True)
    keep, _ = nms(boxes[likely][order], 0.4)
    ours = detector([rgb])[0]
    sure = int((ours.scores > 0.6).sum())
    assert sure > 0
    found = boxes[likely][order][keep][:sure]
    best = iou_matrix(found, torch.from_numpy(ours.boxes[:sure])).amax(0)
    assert (best > 0.85).all()


@pytest.mark.slow  # PyTorch's exporter again
def test_an_exported_second_stage_judges_close_ups_as_the_detector_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    network, metadata = checkpoints.load(resolve("lite", None))
    if network.second_stage is None:
        network.second_stage = SecondStage()
    weights = tmp_path / "both.safetensors"
    checkpoints.save(network.eval(), weights, {**metadata, "temperature": "2"})
    path = tmp_path / "second.onnx"
    assert main(["export", str(path), "--stage", "second", "--weights", str(weights)]) == 0
    assert "largest difference to PyTorch: face" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    facts = session.get_modelmeta().custom_metadata_map
    settings = DetectSettings(precision="fp32")
    both = Detector.load(weights=weights, device="cpu", settings=settings)
    assert both.network.second_stage is not None
    crops = np.random.default_rng(0).integers(0, 256, (3, SIDE_PX, SIDE_PX, 3), np.uint8)
    given = crops.transpose(0, 3, 1, 2).astype(np.float32)
    face, moves, female = session.run(None, {"crops": given})
    mean = torch.tensor(network.pixel_mean_bgr[::-1])[:, None, None]
    with torch.inference_mode():
        ours = both.network.second_stage(torch.from_numpy(given) - mean)
    np.testing.assert_allclose(face, ours.face, atol=2e-3)
    np.testing.assert_allclose(moves, ours.deltas, atol=1e-3)
    np.testing.assert_allclose(female, ours.gender[:, FEMALE] - ours.gender[:, MALE], atol=2e-3)
    for key in ("face_mix", "gender_mix"):
        mix = getattr(both.network.second_stage, key).tolist()
        assert json.loads(facts[key]) == pytest.approx(mix)
    assert facts["temperature"] == "2"


def test_weights_without_a_second_stage_have_none_to_export(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "first.safetensors"
    checkpoints.save(Lite().eval(), weights, {})
    out = tmp_path / "a.onnx"
    assert main(["export", str(out), "--stage", "second", "--weights", str(weights)]) == 5
    assert "no second stage" in capsys.readouterr().err
    assert main(["export", str(out), "--precision", "int8", "--weights", str(weights)]) == 5
    assert "do not know their ranges" in capsys.readouterr().err
    network = Lite().eval()
    network.ranges = {"stem.0": (0.0, 1.0)}
    checkpoints.save(network, weights, {})
    assert main(["export", str(out), "--precision", "int8", "--weights", str(weights)]) == 5
    assert "do not know their ranges" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.onnx", "--precision", "fp16"], "--precision should be fp32 or int8, got 'fp16'"),
        (["a.xml", "--precision", "int8"], "--precision int8 is for ONNX files"),
    ],
)
def test_precisions_that_are_not_to_be_had(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow  # OpenVINO's converter takes some seconds
def test_an_openvino_model_finds_the_faces_of_the_sample(
    detector: Detector, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    openvino = pytest.importorskip("openvino")
    path = tmp_path / "lite.xml"
    assert main(["export", str(path)]) == 0
    assert "largest difference" in capsys.readouterr().out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["lite.bin", "lite.xml"]
    with open_source("samples/clip.mp4") as source:
        rgb = next(iter(source)).picture.to_rgb((640, 352))
    model = openvino.Core().read_model(path)
    facts = {key: fact.value for key, fact in model.get_rt_info()["model_info"].items()}
    assert json.loads(facts["labels"]) == ["female", "male"]
    assert facts["mean_rgb"].startswith("[123.0, 117.0, 104.0]")
    assert facts["temperature"].startswith(f"{detector.temperature:g}")
    compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    results = compiled({"image": rgb.transpose(2, 0, 1)[None].astype(np.float32)})
    boxes, scores, female = (
        torch.from_numpy(results[name])[0] for name in ("boxes", "scores", "female")
    )
    likely = scores > float(facts["face_threshold"])
    order = scores[likely].argsort(descending=True)
    keep, _ = nms(boxes[likely][order], float(facts["nms_iou"]))
    ours = detector([rgb])[0]
    assert len(ours) > 0
    np.testing.assert_allclose(scores[likely][order][keep].numpy(), ours.scores, atol=1e-4)
    assert not female[likely].isnan().any()
    assert main(["export", str(path)]) == 4  # it exists
    path.unlink()
    assert main(["export", str(path)]) == 4  # its weights do
    assert [p.name for p in tmp_path.iterdir()] == ["lite.bin"]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["lite.tflite"], "lite.tflite: the file should end in .onnx or .xml"),
        (["lite.onnx", "--format", "openvino"], "lite.onnx: the file should end in .xml"),
        (["lite.xml", "--format", "onnx"], "lite.xml: the file should end in .onnx"),
        (["lite.onnx", "--stage", "third"], "--stage should be first or second"),
        (["lite.onnx", "--format", "tensorrt"], "--format should be onnx or openvino"),
    ],
)
def test_what_cannot_be_written_is_refused(
    argv: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", *argv]) == 2
    assert said in capsys.readouterr().err


def test_a_missing_converter_names_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert main(["export", str(tmp_path / "lite.xml")]) == 2
    assert "pip install 'videogender[openvino]'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
