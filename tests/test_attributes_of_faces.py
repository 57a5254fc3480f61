"""Classes of faces all the way: detector, tracks, drawing, data, second looks in a pipeline."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from coloured import box_of, coloured_lite, scene
from numpy.typing import NDArray
from test_refine import refeed_file

from videogender.cli.main import main
from videogender.config import DetectSettings, LabelSettings, RenderSettings
from videogender.detector import Detector
from videogender.errors import ModelError
from videogender.frames import Faces, Frame, RgbPicture
from videogender.network import checkpoints
from videogender.network.attributes import AttributeHeads, LinearClassifier
from videogender.network.boxes import decode, iou_matrix
from videogender.network.heads import VOTES
from videogender.network.lite import Lite
from videogender.pipeline import stream
from videogender.refine import RefinedDetector, Refiner
from videogender.render import Canvas, draw_faces
from videogender.tracking.evidence import ClassEvidence, whole_life, whole_life_of_classes
from videogender.tracking.tape import Tape

CLASSES = ("mask", "no mask", "half")


def colour_heads(network: Lite, classes: int = 3) -> AttributeHeads:
    """Return heads for which red, green and blue are the classes."""
    heads = AttributeHeads(network.tap_channels, classes, "linear")
    with torch.no_grad():
        for parameter in heads.parameters():
            parameter.zero_()
        for level in heads.levels:
            assert isinstance(level, torch.nn.Conv2d)
            for label in range(classes):
                level.weight[label, label, 1, 1] = 1.5
    return heads


def attribute_file(path: Path, *, gender: bool, **facts: str) -> Path:
    network = coloured_lite(gender)
    metadata = {"task": "attribute", "labels": json.dumps(CLASSES), "column": "cover", **facts}
    checkpoints.save(network, path, metadata, half=False, head=colour_heads(network))
    return path


def write_clip(path: Path, images: list[NDArray[np.uint8]]) -> Path:
    """Write a lossless RGB video, 25 frames a second."""
    high, wide = images[0].shape[:2]
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264rgb", rate=25, options={"qp": "0"})
        video.width, video.height, video.pix_fmt = wide, high, "rgb24"
        for image in images:
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(video.encode(None))
    return path


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# detector


def test_anchors_of_a_face_answer_together() -> None:
    """The mean over the best anchors, weighted by face score, counted one by one."""
    torch.manual_seed(11)
    network = Lite(gender=False).eval()
    heads = AttributeHeads(network.tap_channels, 3, "tower")
    image = np.random.default_rng(0).integers(0, 256, (96, 128, 3)).astype(np.uint8)
    x = torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1)[None].float()
    x = (x - torch.tensor(network.pixel_mean_bgr)[:, None, None]) * network.pixel_scale
    with torch.inference_mode():
        predictions = network(x)
        logits = heads.maps(predictions.features)[0] / 1.5
    scores = predictions.face_logits[0].sigmoid()
    threshold = float(scores.sort(descending=True).values[120:122].mean())
    order = [int(a) for a in scores.argsort(descending=True, stable=True)[:121]]
    boxes = decode(predictions.box_deltas[0], predictions.anchors)
    kept: list[int] = []
    for anchor in order:
        if all(iou_matrix(boxes[[anchor]], boxes[[k]]) <= 0.3 for k in kept):
            kept.append(anchor)
    votes: dict[int, list[int]] = {k: [] for k in kept}
    for anchor in order:
        mine = kept[int(iou_matrix(boxes[[anchor]], boxes[kept]).argmax())]
        votes[mine].append(anchor)
    expected = []
    for mine in votes.values():
        best = mine[:VOTES]
        weights = scores[best][:, None]
        expected.append(((logits[best] * weights).sum(0) / weights.sum()).softmax(0))
    assert max(map(len, votes.values())) > VOTES
    detector = Detector(
        network,
        DetectSettings(face_threshold=threshold, nms_iou=0.3, precision="fp32"),
        head=heads,
        classes=CLASSES,
        head_temperature=1.5,
    )
    faces = detector([image])[0]
    assert faces.classes == CLASSES
    assert len(faces) == len(kept) > 5
    assert np.isnan(faces.female).all()
    np.testing.assert_allclose(faces.attributes, torch.stack(expected), atol=2e-4)


def test_each_picture_of_a_batch_has_its_own_classes(tmp_path: Path) -> None:
    path = attribute_file(tmp_path / "w.safetensors", gender=True, gender_temperature="2")
    detector = Detector.load(weights=path, device="cpu")
    images = [
        scene(320, 256, (3, 3, "red"), (7, 5, "green")),
        scene(320, 256),
        scene(320, 256, (6, 3, "blue")),
    ]
    both, none, blue = detector(images)
    assert len(none) == 0
    assert none.classes == CLASSES
    assert {name for name, _ in both.attribute_labels(0.65)} == {"mask", "no mask"}
    assert [name for name, _ in blue.attribute_labels(0.65)] == ["half"]
    np.testing.assert_allclose(blue.boxes, [box_of(6, 3)], atol=0.01)
    np.testing.assert_allclose(blue.attributes.sum(1), 1, atol=1e-5)
    assert blue.female[0] == pytest.approx(1 / (1 + math.exp((255 - 104) / 64 / 2)), abs=1e-3)


def test_a_gender_head_answers_in_place_of_the_networks_own(tmp_path: Path) -> None:
    """Here green is male; the network's own heads know red and blue alone."""
    path, network = tmp_path / "w.safetensors", coloured_lite(gender=True)
    metadata = {"task": "gender", "temperature": "1.5"}
    checkpoints.save(network, path, metadata, half=False, head=colour_heads(network, 2))
    detector = Detector.load(weights=path, device="cpu")
    assert detector.has_gender
    faces = detector([scene(320, 320, (4, 4, "green"))])[0]
    assert faces.classes == ()
    assert faces.female[0] == pytest.approx(1 / (1 + math.exp(138 / 64)), abs=1e-3)


def test_a_classifier_of_pictures_is_no_detector(tmp_path: Path) -> None:
    path, network = tmp_path / "w.safetensors", coloured_lite()
    metadata = {"task": "classifier", "labels": json.dumps(CLASSES)}
    checkpoints.save(network, path, metadata, head=LinearClassifier.beside(network, 3))
    with pytest.raises(ModelError, match="use videogender classify with it"):
        Detector.load(weights=path)
    # the file of a second look finds faces as the network that it was trained beside
    again = Detector.load(weights=refeed_file(tmp_path / "refeed.safetensors"), device="cpu")
    assert len(again([scene(320, 320, (4, 4, "red"))])[0]) == 1
    assert again.classes == ()


# values and tracks


def labelled(*rows: list[float], female: float = math.nan) -> Faces:
    n = len(rows)
    boxes = np.tile(np.array([10, 10, 110, 110], np.float32), (n, 1))
    return Faces(
        boxes,
        np.full(n, 0.9, np.float32),
        np.full(n, female, np.float32),
        attributes=np.array(rows, np.float32),
        classes=CLASSES,
    )


def test_faces_check_and_pick_their_attributes() -> None:
    nan = math.nan
    faces = labelled([0.2, 0.7, 0.1], [0.4, 0.3, 0.3], [nan, nan, nan])
    (first, p), (second, q), (third, r) = faces.attribute_labels(0.65)
    assert (first, second, third) == ("no mask", "unsure", "unsure")
    assert (p, q) == (pytest.approx(0.7), pytest.approx(0.4))
    assert math.isnan(r)
    some = faces.only(np.array([True, False, True]))
    assert [name for name, _ in some.attribute_labels(0.65)] == ["no mask", "unsure"]
    assert some.classes == CLASSES
    assert Faces.empty().attribute_labels(0.65) == []
    with pytest.raises(ValueError, match=r"attributes \(3, 3\) for 3 faces and 2 classes"):
        replace(faces, classes=("a", "b"))


def test_classes_of_a_track_are_two_sided_like_gender() -> None:
    """Two classes give what `whole_life` gives, also at its bounds."""
    rng = np.random.default_rng(5)
    tracks = np.sort(rng.integers(0, 6, 200))
    seconds, weights = np.sort(rng.uniform(0, 20, 200)), rng.uniform(0, 1, 200)
    female = rng.uniform(0, 1, 200)
    female[:5] = (0, 1, 0.999, 0.5, 1e-7)
    two = np.stack([female, 1 - female], 1)
    expected = whole_life(tracks, seconds, female, weights, 7)
    found = whole_life_of_classes(tracks, seconds, two, weights, 7)
    np.testing.assert_allclose(found[:6, 0], expected[:6], atol=1e-9)
    assert np.isnan(found[6]).all()  # nobody saw it


def test_looks_without_an_answer_are_left_out() -> None:
    nan = [math.nan] * 3
    rows = np.array([[0.8, 0.1, 0.1], nan, [0.6, 0.3, 0.1], nan])
    tracks, seconds = np.array([0, 0, 0, 1]), np.array([0.0, 1.0, 2.0, 2.0])
    found = whole_life_of_classes(tracks, seconds, rows, np.ones(4), 2)
    # two views; mean of log-odds against the likeliest, with half a look of doubt
    odds = np.log(rows[[0, 2]]).sum(0) / 2.5
    odds *= 2 / (1 + 0.7)
    np.testing.assert_allclose(found[0], np.exp(odds) / np.exp(odds).sum(), atol=1e-9)
    assert np.isnan(found[1]).all()


def test_live_classes_end_where_the_whole_life_does() -> None:
    rng = np.random.default_rng(1)
    rows = rng.dirichlet([4, 2, 1], 60)
    seconds = np.arange(60) / 10
    evidence = ClassEvidence(1e9)
    for row, t in zip(rows, seconds, strict=True):
        evidence.add(np.array([7]), row[None], np.ones(1), t)
    expected = whole_life_of_classes(np.zeros(60, np.intp), seconds, rows, np.ones(60), 1)
    np.testing.assert_allclose(evidence.probabilities(np.array([7]), 3), expected, atol=1e-9)
    assert np.isnan(evidence.probabilities(np.array([8]), 3)).all()
    evidence.keep(np.array([8]))
    assert np.isnan(evidence.probabilities(np.array([7]), 3)).all()


def test_live_classes_forget_by_half_lives() -> None:
    evidence = ClassEvidence(1.0)
    ids = np.array([1])
    evidence.add(ids, np.array([[0.9, 0.1]]), np.ones(1), 0.0)
    before = evidence.probabilities(ids, 2)[0, 0]
    evidence.add(ids, np.array([[0.1, 0.9]]), np.ones(1), 10.0)
    after = evidence.probabilities(ids, 2)[0, 0]
    assert before == pytest.approx(1 - after, abs=2e-3)


def test_a_tape_keeps_the_classes_of_tracked_faces() -> None:
    tape = Tape()
    tape.frame(0, 0.0, looked=True)
    tape.faces(labelled([0.2, 0.7, 0.1], [0.5, 0.3, 0.2]), np.array([0, 4]))
    tape.frame(1, 0.04, looked=True)
    tape.faces(Faces.empty(), np.zeros(0, np.int64))
    tape.frame(2, 0.08, looked=True)
    tape.faces(labelled([0.1, 0.1, 0.8]), np.array([4]))
    recording = tape.read()
    assert recording.classes == CLASSES
    np.testing.assert_allclose(recording.attributes, [[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
    assert Tape().read().attributes.shape == (0, 0)


# drawing and data


def chips(faces: Faces) -> set[tuple[int, ...]]:
    """Return the colours that stand on a grey picture, ink and rims left out."""
    image = np.full((200, 400, 3), 60, np.uint8)
    draw_faces(Canvas.from_rgb(image), faces, LabelSettings(), RenderSettings())
    colours, counts = np.unique(image.reshape(-1, 3), axis=0, return_counts=True)
    many = zip(colours.tolist(), counts.tolist(), strict=True)
    return {tuple(colour) for colour, count in many if count > 300 and max(colour) > 80}


def test_classes_have_colours_of_their_own_where_gender_is_unknown() -> None:
    mask, none = labelled([0.9, 0.05, 0.05]), labelled([0.05, 0.9, 0.05])
    unsure = labelled([0.4, 0.3, 0.3])
    assert len(chips(mask)) == len(chips(none)) == len(chips(unsure)) == 1
    assert len(chips(mask) | chips(none) | chips(unsure)) == 3
    plain = replace(unsure, attributes=np.zeros((0, 0), np.float32), classes=())
    assert chips(unsure) == chips(plain)
    # with a gender, that decides the colour, and the chip grows by the class
    woman = labelled([0.9, 0.05, 0.05], female=0.95)
    assert chips(woman) == chips(replace(plain, female=np.array([0.95], np.float32)))
    assert chips(woman) != chips(mask)


def width_of_chip(faces: Faces) -> int:
    image = np.full((200, 400, 3), 60, np.uint8)
    render = RenderSettings(style="none")
    draw_faces(Canvas.from_rgb(image), faces, LabelSettings(), render)
    return int((image != 60).any(2).any(0).sum())


def test_both_answers_stand_on_one_chip() -> None:
    mask = labelled([0.9, 0.05, 0.05])
    woman = labelled([0.9, 0.05, 0.05], female=0.95)
    alone = replace(woman, attributes=np.zeros((0, 0), np.float32), classes=())
    not_asked = labelled([math.nan] * 3, female=0.95)
    assert width_of_chip(woman) > width_of_chip(alone) + 0.7 * width_of_chip(mask)
    assert width_of_chip(not_asked) == width_of_chip(alone)


@pytest.mark.parametrize("follow", ["track", "frame"])
def test_annotate_writes_classes(
    follow: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [scene(320, 256, (2, 3, "red"), (7, 4, "blue"))] * 5)
    weights = attribute_file(tmp_path / "w.safetensors", gender=False)
    rows, table = tmp_path / "faces.jsonl", tmp_path / "faces.csv"
    arguments = ["annotate", str(clip), "--weights", str(weights), "--device", "cpu"]
    arguments += ["--json", str(rows), "--csv", str(table), "--label-by", follow]
    summary, page = tmp_path / "sums.json", tmp_path / "page.html"
    arguments += ["--summary", str(summary), "--report", str(page)]
    assert main(arguments) == 0
    assert "warning" not in capsys.readouterr().err  # every face has its label
    lines = records(rows)
    assert len(lines) == 5
    for line in lines:
        assert [face["attribute"] for face in line["faces"]] == ["half", "mask"]
        assert {face["label"] for face in line["faces"]} == {"unsure"}
    probabilities = {face["attribute_probability"] for line in lines for face in line["faces"]}
    assert len(probabilities) == 2  # one a track, as one a frame of this still clip
    assert min(probabilities) > 0.85
    with table.open(newline="") as file:
        flat = list(csv.DictReader(file))
    assert len(flat) == 10
    assert flat[0]["attribute"] == "half"
    assert float(flat[0]["attribute_probability"]) == lines[0]["faces"][0]["attribute_probability"]
    [told] = json.loads(summary.read_text())["inputs"]
    times = 1 if follow == "track" else 5
    found = {group["name"]: group["all"] for group in told["attributes"]}
    assert found == {"mask": times, "no mask": 0, "half": times, "unsure": 0}
    assert "By attribute" in page.read_text()
    with av.open(str(tmp_path / "clip.annotated.mp4")) as container:
        frame = next(container.decode(video=0)).to_ndarray(format="rgb24")
    left = frame[50:, 14:20].reshape(-1, 3).astype(int)  # along the left edge of the red face
    green = np.abs(left - (0, 158, 115)).max(1) < 60
    assert green.sum() > 100


def test_faces_without_classes_are_written_as_before(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [scene(320, 256, (3, 3, "red"))])
    weights, table = tmp_path / "w.safetensors", tmp_path / "faces.csv"
    checkpoints.save(coloured_lite(gender=True), weights, {}, half=False)
    rows = tmp_path / "faces.jsonl"
    arguments = ["annotate", str(clip), "--weights", str(weights), "--device", "cpu", "--no-video"]
    assert main([*arguments, "--json", str(rows), "--csv", str(table)]) == 0
    assert "attribute" not in records(rows)[0]["faces"][0]
    assert "attribute" not in table.read_text()


# the second look in a pipeline


def fine_face() -> NDArray[np.uint8]:
    """Return a face that is male to who sees it shrunk, and female to who sees every row of it.

    Green makes it a face. Its rows are red and blue in turn: shrunk to half they mix, and blue lies
    further from the mean. The row that the second look reads is red.
    """
    image = np.zeros((480, 640, 3), np.uint8)
    image[216:256:2, 216:256] = (255, 255, 0)  # the cell is 224 to 256; filters see its rim too
    image[217:256:2, 216:256] = (0, 255, 255)
    return image


@pytest.fixture
def looks(tmp_path: Path) -> tuple[Path, Path]:
    """Return weights of a first look at small faces, and of a second."""
    first = tmp_path / "first.safetensors"
    checkpoints.save(coloured_lite(gender=True, face_level=2), first, {}, half=False)
    return first, refeed_file(tmp_path / "second.safetensors", share="0.9")


def test_stream_shows_the_source_to_the_second_look(looks: tuple[Path, Path]) -> None:
    settings = DetectSettings(long_side=320, device="cpu")
    detector = Detector.load(weights=looks[0], settings=settings)
    refined = RefinedDetector(detector, Refiner.load(looks[1]))
    image = fine_face()
    frames = [Frame(RgbPicture(image), i, i / 25, "x") for i in range(3)]
    seen = [faces for _, faces in stream(frames, refined)]
    alone = refined([image])[0]
    assert len(alone) == 1
    np.testing.assert_allclose(alone.boxes, [[v * 2 for v in box_of(7, 7, level=2)]], atol=0.1)
    assert alone.female[0] > 0.7
    assert detector([image])[0].female[0] < 0.5
    small = RgbPicture(image).to_rgb((320, 240))
    assert refined.detect([small], [(640, 480)])[0].female[0] < 0.5  # nothing more to be seen
    for faces in seen:
        np.testing.assert_allclose(faces.female, alone.female, atol=1e-5)


@pytest.mark.parametrize("follow", ["track", "frame"])
def test_annotate_refine_shows_it_in_both_passes(
    follow: str, looks: tuple[Path, Path], tmp_path: Path
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [fine_face()] * 3)
    base = ["annotate", str(clip), "--weights", str(looks[0]), "--device", "cpu", "--no-video"]
    base += ["--label-by", follow, "--unsure-below", "0.5", "--long-side", "320"]
    once, twice = tmp_path / "once.jsonl", tmp_path / "twice.jsonl"
    assert main([*base, "--json", str(once)]) == 0
    assert main([*base, "--json", str(twice), "--refine", str(looks[1])]) == 0
    assert [face["label"] for line in records(once) for face in line["faces"]] == ["male"] * 3
    assert [face["label"] for line in records(twice) for face in line["faces"]] == ["female"] * 3
    # faces that are too small are left as they are
    left = tmp_path / "left.jsonl"
    small = ["--refine", str(looks[1]), "--refine-min-px", "200"]
    assert main([*base, "--json", str(left), *small]) == 0
    assert records(left) == records(once)


def test_refine_refuses_weights_of_another_task(
    looks: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [fine_face()])
    arguments = ["annotate", str(clip), "--weights", str(looks[0]), "--refine", str(looks[0])]
    assert main([*arguments, "--device", "cpu"]) == 5
    err = capsys.readouterr().err
    assert "its task is gender, but a second look needs weights of `videogender finetune" in err
    assert not (tmp_path / "clip.annotated.mp4").exists()
