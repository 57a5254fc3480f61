"""`videogender classify`: what is asked, what is answered, and what is written."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from coloured import box_of, coloured_lite, scene, solid
from numpy.typing import NDArray
from PIL import Image
from squares import write_video
from test_refine import refeed_file

from videogender.classify import Answer, Classifier, fitted
from videogender.cli.classify import classify
from videogender.cli.main import main
from videogender.closeup import CloseUp
from videogender.config import DetectSettings
from videogender.errors import ModelError, OutputError
from videogender.frames import MEAN_RGB, RgbPicture
from videogender.network import checkpoints
from videogender.network.attributes import LinearClassifier

CPU = DetectSettings(device="cpu", precision="fp32")
LABELS = ("red", "green", "blue")


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a classifier that names the colour of a picture's middle."""
    path = tmp_path_factory.mktemp("classifier") / "colours.safetensors"
    network = coloured_lite()
    head = LinearClassifier.beside(network, 3)
    with torch.no_grad():
        head.linear.weight.zero_()
        head.linear.bias.zero_()
        for label in range(3):  # the map is 2 × 2; its last cell reads the pixel at (128, 128)
            head.linear.weight[label, label * 4 + 3] = 2.0
    facts = {"task": "classifier", "labels": json.dumps(LABELS), "column": "Tags"}
    checkpoints.save(network, path, facts, half=False, head=head)
    return path


def save(array: NDArray[np.uint8], path: Path) -> Path:
    Image.fromarray(array).save(path)
    return path


def records(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    ("size", "content"),
    [
        ((256, 256), (0, 0, 256, 256)),
        ((512, 256), (0, 64, 256, 192)),
        ((100, 200), (64, 0, 192, 256)),
        ((3, 1000), (127, 0, 128, 256)),
    ],
)
def test_pictures_keep_their_shape_between_bars(
    size: tuple[int, int], content: tuple[int, int, int, int]
) -> None:
    square = fitted(RgbPicture(np.full((size[1], size[0], 3), 200, np.uint8)), 256)
    assert square.shape == (256, 256, 3)
    x0, y0, x1, y1 = content
    assert (square[y0:y1, x0:x1] == 200).all()
    inside = np.zeros((256, 256), bool)
    inside[y0:y1, x0:x1] = True
    assert (square[~inside] == MEAN_RGB).all()


def test_whole_pictures_of_any_size(colours: Path) -> None:
    classifier = Classifier.load(colours, CPU)
    assert classifier.looks_at == "picture"
    pictures = [solid("red", 640, 480), solid("blue", 50, 90), solid("green", 256, 256)]
    answers = classifier(pictures)
    assert [answer.label(0.65) for answer in answers if answer] == ["red", "blue", "green"]
    for answer, picture in zip(answers, pictures, strict=True):
        assert answer is not None
        assert answer.box is None
        alone = classifier([picture])[0]
        assert alone is not None
        np.testing.assert_allclose(answer.probabilities, alone.probabilities, atol=1e-6)
    assert classifier([]) == []


def test_probabilities_are_the_softmax_of_the_calibrated_logits(colours: Path) -> None:
    """By hand: the pixel's distance from the mean over 64, times 2, over the temperature."""
    trained = checkpoints.load_trained(colours)
    trained = replace(trained, facts=replace(trained.facts, temperature=1.5))
    found = CloseUp(trained, precision="fp32")(fitted(RgbPicture(solid("red")), 256)[None])
    logits = np.array([2 * (255 - MEAN_RGB[0]) / 64, 0.0, 0.0]) / 1.5
    expected = logits - np.log(np.exp(logits).sum())
    np.testing.assert_allclose(found[0], expected, atol=1e-3)


def test_answers_are_ranked_and_unsure_below_the_threshold() -> None:
    answer = Answer(LABELS, np.array([0.2, 0.35, 0.45], np.float32))
    assert [name for name, _ in answer.top(2)] == ["blue", "green"]
    assert answer.label(0.5) == "unsure"
    assert answer.label(0.44) == "blue"


def test_gender_files_are_asked_about_the_largest_face(tmp_path: Path) -> None:
    """Not about the surest: that is a red one here, half as large as a blue one."""
    path = tmp_path / "gender.safetensors"
    network = coloured_lite(gender=True)
    with torch.no_grad():  # blue at the next level counts as a face as well
        network.s64_mbox_conf.weight[-1, 2, 1, 1] = 4.5
        network.s32_mbox_conf.weight[-1, 2, 1, 1] = 0.0
    checkpoints.save(network, path, {"temperature": "1"}, half=False)
    image = scene(640, 640, (2, 2, "red"))
    image[448:480, 448:480] = (0, 0, 255)
    classifier = Classifier.load(path, CPU)
    assert classifier.looks_at == "largest face"
    answer, none = classifier([image, solid("black", 640, 640)])
    assert none is None
    assert answer is not None
    assert answer.labels == ("female", "male")
    np.testing.assert_allclose(answer.box, box_of(7, 7, level=4), atol=0.01)  # not the red one
    assert answer.label(0.65) == "male"


def test_refeed_files_look_twice_at_the_largest_face(tmp_path: Path) -> None:
    path = refeed_file(tmp_path / "refeed.safetensors", ("warm", "cold"))
    answer = Classifier.load(path, CPU)([scene(320, 320, (4, 4, "blue"))])[0]
    assert answer is not None
    assert answer.label(0.65) == "cold"
    np.testing.assert_allclose(answer.box, box_of(4, 4), atol=0.01)


def test_a_file_without_classes_is_refused(tmp_path: Path) -> None:
    checkpoints.save(coloured_lite(), tmp_path / "plain.safetensors", {})
    with pytest.raises(ModelError, match="has no head that tells classes apart"):
        Classifier.load(tmp_path / "plain.safetensors", CPU)


def test_the_command_writes_a_table_and_files(
    colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    save(solid("red", 300, 200), photos / "a.png")
    save(solid("black"), photos / "b.jpg")
    write_video(photos / "c.mp4", count=2)  # a folder's videos are left out
    rows, table = tmp_path / "rows.jsonl", tmp_path / "rows.csv"
    arguments = ["classify", str(photos), "--weights", str(colours), "--device", "cpu"]
    arguments += ["--precision", "fp32", "--json", str(rows), "--csv", str(table), "--top", "2"]
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    first, second = out.splitlines()
    assert first == f"{photos}/a.png  red     red 0.97  green 0.02"
    assert second == f"{photos}/b.jpg  unsure  red 0.33  green 0.33"
    assert err == "3 classes, asked about the picture\n"
    red, black = records(rows)
    assert red["source"] == f"{photos}/a.png"
    assert (red["width"], red["height"], red["box"], red["label"]) == (300, 200, None, "red")
    probabilities = red["probabilities"]
    assert isinstance(probabilities, dict)
    assert list(probabilities) == list(LABELS)
    assert sum(probabilities.values()) == pytest.approx(1, abs=2e-4)
    assert red["probability"] == probabilities["red"]
    assert black["label"] == "unsure"
    with table.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["label"] for line in lines] == ["red", "unsure"]
    assert float(lines[0]["p(red)"]) == red["probability"]
    assert lines[0]["x1"] == ""
    # and nothing is overwritten without being asked to
    assert main(arguments) == 4
    assert f"{rows}: exists already; --force replaces it" in capsys.readouterr().err
    assert main([*arguments, "--force", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_subfolders_are_told_of_or_taken(
    colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    save(solid("red"), tmp_path / "photos" / "a.png")
    save(solid("blue"), tmp_path / "photos" / "deep" / "b.png")
    (tmp_path / "photos" / "deep" / "notes.txt").touch()
    arguments = ["classify", str(tmp_path / "photos"), "--weights", str(colours), "--device", "cpu"]
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert [line.split()[1] for line in out.splitlines()] == ["red"]
    assert "photos: left out 1 subfolder (--recursive takes them)" in err
    assert main([*arguments, "--recursive"]) == 0
    out, err = capsys.readouterr()
    assert [line.split()[1] for line in out.splitlines()] == ["red", "blue"]
    assert "photos: left out 1 file of other kinds (.txt)" in err
    assert main([*arguments, "--recursive", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_lines_on_standard_output_stand_alone(
    colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = save(solid("blue"), tmp_path / "blue.png")
    base = ["classify", str(image), "--weights", str(colours), "--device", "cpu"]
    assert main([*base, "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["label"] == "blue"
    assert main([*base, "--csv", "-"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert main([*base, "--csv", "-", "--json", "-"]) == 2
    assert "only one of --json and --csv" in capsys.readouterr().err


@contextmanager
def left_stdout() -> Iterator[None]:
    """Make standard output one whose reader has left."""
    reader, writer = os.pipe()
    os.close(reader)
    gone = os.fdopen(writer, "w")
    with suppress(BrokenPipeError), gone, redirect_stdout(gone):
        yield


@pytest.mark.parametrize("to_stdout", [None, "-"], ids=["table", "json"])
def test_a_file_is_completed_though_nobody_reads_the_rest(
    colours: Path, tmp_path: Path, to_stdout: str | None
) -> None:
    images = [str(save(solid("blue"), tmp_path / f"{n}.png")) for n in range(3)]
    table = tmp_path / "a.csv"
    left = "standard output: its reader left before the end; all else is written"
    with left_stdout(), pytest.raises(OutputError, match=left):
        classify(images, str(colours), json=to_stdout, csv=str(table), device="cpu")
    assert len(table.read_text().splitlines()) == 4
    with left_stdout(), pytest.raises(BrokenPipeError):
        classify(images, str(colours), json=to_stdout, device="cpu")


def test_images_without_a_face_are_said_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "gender.safetensors"
    checkpoints.save(coloured_lite(gender=True), weights, {}, half=False)
    image = save(solid("black", 320, 320), tmp_path / "dark.png")
    face = save(scene(320, 320, (4, 4, "red")), tmp_path / "face.png")
    base = ["classify", str(image), str(face), "--weights", str(weights), "--device", "cpu"]
    assert main(base) == 0
    none, one = capsys.readouterr().out.splitlines()
    assert none.split(maxsplit=1)[1].strip() == "no face"
    assert one.split()[1] == "female"
    assert main([*base, "--json", "-"]) == 0
    lines = capsys.readouterr().out.splitlines()
    empty, found = (json.loads(line) for line in lines)
    assert empty["label"] is None
    assert empty["probabilities"] is None
    assert found["box"] == box_of(4, 4)
    assert main([*base, "--csv", "-"]) == 0
    assert capsys.readouterr().out.splitlines()[1].endswith(",320,320,,,,,,,,")


def test_failures_do_not_stop_the_others(
    colours: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = save(solid("red"), tmp_path / "good.png")
    bad = tmp_path / "bad.png"
    bad.write_bytes(good.read_bytes()[:60])
    clip = write_video(tmp_path / "clip.mp4", count=2)
    rows = tmp_path / "rows.jsonl"
    base = ["classify", "--weights", str(colours), "--device", "cpu", "--json", str(rows)]
    missing = tmp_path / "none.png"
    assert main([*base, str(missing), str(bad), str(clip), str(good)]) == 3
    out, err = capsys.readouterr()
    assert [line.split()[1] for line in out.splitlines()] == ["red"]
    assert f"error: {missing}: no such file; check the spelling" in err
    assert f"error: {bad}: " in err
    assert f"error: {clip}: a video; videogender annotate labels" in err
    assert [row["label"] for row in records(rows)] == ["red"]
    # where all fail no file appears
    rows.unlink()
    assert main([*base, str(bad)]) == 3
    assert sorted(os.listdir(tmp_path)) == ["bad.png", "clip.mp4", "good.png"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--weights", "none.safetensors"], 5, "no such weights file"),
        (["--weights", "FILE", "--unsure-below", "0.2"], 2, "--unsure-below should be a number"),
        (["--weights", "FILE", "--device", "tpu"], 2, "--device"),
        (["--weights", "FILE", "--top", "0"], 2, "top"),
        ([], 2, "weights"),
    ],
)
def test_wrong_usage(
    arguments: list[str],
    code: int,
    message: str,
    colours: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    image = save(solid("red"), tmp_path / "a.png")
    given = [str(colours) if word == "FILE" else word for word in arguments]
    assert main(["classify", str(image), *given]) == code
    err = capsys.readouterr().err
    assert message in err
    assert len(err.splitlines()) == 1
