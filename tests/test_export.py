"""Export: the file answers as the detector does, also at sizes it was not traced with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from videogender.cli.main import main
from videogender.detector import Detector
from videogender.exporting import ASKED_A_LEVEL, Standalone
from videogender.network.boxes import decode, nms
from videogender.network.heads import FEMALE, MALE
from videogender.sources import open_source


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector.load("lite", device="cpu")


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


def test_export_to_another_kind_of_file_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(tmp_path / "lite.tflite")]) == 2
    assert "should end in .onnx" in capsys.readouterr().err
