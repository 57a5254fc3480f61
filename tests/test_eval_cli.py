"""`videogender eval` as users run it: same figures as in training, outputs, refusals."""

from __future__ import annotations

import io
import json
import math
import os
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from videogender.cli.eval_report import gender_tables
from videogender.cli.main import main
from videogender.dataset import read_entries
from videogender.detector import Detector
from videogender.evaluation.charts import COLOURS, Curve, Row, curves_chart, rows_chart
from videogender.evaluation.gender import GenderAnswers
from videogender.evaluation.gender_result import gender_result
from videogender.evaluation.scales import ManyScales
from videogender.evaluation.validation import ValidationData, validate
from videogender.frames import Faces
from videogender.network import checkpoints
from videogender.weights_store import resolve

SAMPLES = Path(__file__).resolve().parent.parent / "samples"
WOMEN = ("collins", "hopper")


@pytest.fixture(scope="module")
def stills(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Label what the packaged network sees in the sample's stills, with faults put in.

    Some boxes are moved, so that detections miss; the surest face of every portrait has a gender.
    """
    folder = tmp_path_factory.mktemp("stills")
    detector = Detector.load("lite", device="cpu").at_threshold(0.05)
    lines = []
    for number, path in enumerate(sorted((SAMPLES / "stills").glob("*.jpg"))):
        picture = Image.open(path).convert("RGB")
        picture.thumbnail((320, 320))
        picture.save(folder / f"{path.stem}.png")
        image = np.array(picture)
        boxes = detector([image])[0].boxes.astype(float)
        faces: list[dict[str, Any]] = [{"box": b} for b in boxes.round(2).tolist()]
        faces[0]["gender"] = "female" if path.stem in WOMEN else "male"
        faces[0] |= {"age": 8 if number == 0 else 50, "race": "abc"[number % 3], "wider": "easy"}
        for face in faces[1::3]:
            face["box"] = [v + 0.8 * (face["box"][2] - face["box"][0]) for v in face["box"]]
        size = {"width": image.shape[1], "height": image.shape[0]}
        lines.append(json.dumps({"image": f"{path.stem}.png", **size, "faces": faces}) + "\n")
    (folder / "faces.jsonl").write_text("".join(lines))
    return folder


def run(capsys: pytest.CaptureFixture[str], *args: str | Path) -> tuple[int, str, str]:
    code = main(["eval", *map(str, args)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def figures_of(capsys: pytest.CaptureFixture[str], *args: str | Path) -> dict[str, Any]:
    code, out, _ = run(capsys, *args, "--json", "-", "--quiet")
    assert code == 0
    found: dict[str, Any] = json.loads(out)
    return found


def same_as_training(capsys: pytest.CaptureFixture[str], scenes: Path, portraits: Path) -> None:
    """Compare `eval` with the validation of training, for the packaged weights."""
    network, metadata = checkpoints.load(resolve("lite", None))
    data = ValidationData(read_entries(scenes), read_entries(portraits))
    temperature = float(metadata.get("temperature", "1"))
    trained = validate(network, data, torch.device("cpu"), temperature).figures()
    detect = figures_of(capsys, "detect", scenes)["results"][0]["by_height"]
    assert detect[">= 16 px"]["average_precision"] == trained["ap_16px"]
    assert detect[">= 8 px"]["average_precision"] == trained["ap_8px"]
    assert detect[">= 16 px"]["recall_at_tenth"] == trained["recall_16px_at_tenth"]
    assert detect[">= 16 px"]["recall_at_one"] == trained["recall_16px_at_one"]
    assert 0 < trained["ap_16px"] < 1
    people = figures_of(capsys, "gender", portraits)["results"][0]
    assert people["all"]["faces"] == trained["gender_portraits_faces"]
    assert people["all"]["found"] == trained["gender_portraits_found"]
    assert people["all"]["accuracy"] == trained["gender_portraits"]
    assert people["all"]["accuracy_interval"] == trained["gender_portraits_interval"]
    assert people["calibration_error"] == trained["gender_portraits_calibration_error"]
    scene = figures_of(capsys, "gender", scenes)["results"][0]["by_size"][-1]
    assert scene["name"] == ">= 24 px"
    # training asks once, for fainter faces too, of which the second stage makes some likely ones
    near = {"abs": 0.02}
    assert scene["found"] == pytest.approx(trained["gender_scenes_found"], **near)
    assert scene["accuracy"] == pytest.approx(trained["gender_scenes"], **near)
    assert scene["accuracy_interval"] == pytest.approx(trained["gender_scenes_interval"], **near)


def test_figures_are_those_of_training(
    stills: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # training has portraits of every age in its scenes' figure, `eval` reports the young apart
    grown = tmp_path / "grown"
    grown.mkdir()
    lines = [json.loads(line) for line in (stills / "faces.jsonl").read_text().splitlines()]
    for line in lines:
        line["image"] = str(stills / line["image"])
        for face in line["faces"]:
            face.pop("age", None)
    (grown / "faces.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    same_as_training(capsys, grown, stills)


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif("VIDEOGENDER_DATA" not in os.environ, reason="VIDEOGENDER_DATA is not set")
def test_figures_are_those_of_training_on_real_data(capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(os.environ["VIDEOGENDER_DATA"])
    same_as_training(capsys, folder / "detect/val", folder / "gender/val")


def test_a_report_holds_plots_and_the_figures(
    stills: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report, data = tmp_path / "report", tmp_path / "figures.json"
    args = ("detect", stills, "--report", report, "--json", data)
    code, out, err = run(capsys, *args)
    assert code == 0
    assert "average precision" in out
    assert "easy" in out
    assert "model: lite, cpu" in err
    assert json.loads(data.read_text()) == json.loads((report / "report.json").read_text())
    names = {"report.json", "precision_recall.png", "by_height.png"}
    assert {path.name for path in report.iterdir()} == names
    code, _, err = run(capsys, *args)
    assert (code, len(err.splitlines())) == (4, 1)
    assert "exists already; --force replaces it" in err
    data.unlink()
    code, _, err = run(capsys, *args)
    assert code == 4
    assert "holds a report already; --force replaces it" in err
    assert not data.exists()
    (report / "by_height.png").unlink()
    assert run(capsys, *args, "--force")[0] == 0
    assert {path.name for path in report.iterdir()} == names
    assert {path.name for path in tmp_path.iterdir()} == {"report", "figures.json"}


def test_a_folder_of_other_files_is_never_replaced(
    stills: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "letters.txt").write_text("dear")
    code, _, err = run(capsys, "gender", stills, "--report", tmp_path, "--force")
    assert code == 4
    assert "holds other files" in err
    assert (tmp_path / "letters.txt").read_text() == "dear"


def test_a_failure_leaves_nothing_behind(
    stills: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "set"
    broken.mkdir()
    (broken / "faces.jsonl").write_text((stills / "faces.jsonl").read_text())
    report, data = tmp_path / "report", tmp_path / "figures.json"
    code, out, err = run(capsys, "detect", broken, "--report", report, "--json", data, "-q")
    assert (code, out) == (7, "")
    assert "no such picture" in err
    assert len(err.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_gender_report(stills: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report"
    code, out, _ = run(capsys, "gender", stills, "--report", report, "--unsure-below", "0.8")
    assert code == 0
    assert "with unsure below 0.8" in out
    names = {"report.json", "reliability.png", "coverage.png", "by_size.png", "by_group.png"}
    assert {path.name for path in report.iterdir()} == names
    found = json.loads((report / "report.json").read_text())["results"][0]
    assert found["younger"]["faces"] == 1
    assert [group["name"] for group in found["by_race"]] == ["a", "b", "c"]
    assert found["band"]["unsure_below"] == 0.8


def test_a_clip_that_is_its_own_truth(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `annotate` says of a clip, taken for the truth, is found without a fault."""
    clip, truth = tmp_path / "clip.mp4", tmp_path / "truth.jsonl"
    shorten(SAMPLES / "clip.mp4", clip, frames=20)
    assert main(["annotate", str(clip), "--no-video", "--json", str(truth), "-q"]) == 0
    found = figures_of(
        capsys, "video", clip, truth, "--every", "3", "--every", "1", "--detect-fps", "10"
    )
    usual, by_track, sparse, by_frame = found["results"]
    ways = [(r["label_by"], r["every"], r["detect_fps"]) for r in found["results"]]
    assert ways == [("track", 1, 10), ("track", 1, 0), ("track", 3, 0), ("frame", 1, 0)]
    for other in (usual, sparse):
        assert other["id_switches"] is not None
        assert 0 < other["processor_seconds"] < by_track["processor_seconds"]
    assert sparse["found"] > 0.9
    for same in (usual, by_track):
        assert same["faces"] >= 20
        assert (same["found"], same["false_alarms"]) == (1.0, 0.0)
        assert (same["id_switches"], same["label_changes"]) == (0, 0)
        assert same["track_accuracy"] in (1.0, None)
    assert by_frame["id_switches"] is None
    assert by_frame["found"] > 0.9
    with truth.open("a") as file:
        file.write(json.dumps({"frame": 20, "faces": [{"box": [1, 2, 3]}]}))
    with monkeypatch.context() as patch:  # before anything is looked at
        patch.setattr("videogender.evaluation.video.annotated", None)
        code, _, err = run(capsys, "video", clip, truth)
    assert code == 7
    assert "truth.jsonl:21: a face needs a `box`" in err


def shorten(source: Path, target: Path, frames: int) -> None:
    """Write the first frames of a video, small."""
    import av

    with av.open(str(source)) as read, av.open(str(target), "w") as write:
        stream = write.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        for index, frame in enumerate(read.decode(video=0)):
            if index == frames:
                break
            small = frame.reformat(640, 360, "yuv420p")
            small.pts, small.time_base = index, Fraction(1, 25)
            write.mux(stream.encode(small))
        write.mux(stream.encode(None))


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["detect", "missing"], 7, "no such data"),
        (["detect", "."], 7, "holds no labels"),
        (["detect", ".", "--scales", "1,two"], 2, "--scales should be numbers"),
        (["detect", ".", "--limit", "-1"], 2, "--limit should be 0 or more"),
        (["detect", ".", "--heights-at", "0"], 2, "--heights-at should be 1 or more"),
        (["gender", ".", "--min-age", "nan"], 2, "--min-age should be 0 or more"),
        (["gender", ".", "--unsure-below", "2"], 2, "--unsure-below should be"),
        (["video", "clip.mp4", "missing.jsonl"], 7, "no such data file"),
        (["video", "clip.mp4", "t.jsonl", "--every", "0"], 2, "--every should be"),
        (["video", "clip.mp4", "t.jsonl", "--detect-fps", "0"], 2, "--detect-fps should be more"),
        (["detect", ".", "--report", "no/where"], 4, "does not exist; make it first"),
    ],
)
def test_refusals_take_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    args: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    found, out, err = run(capsys, *args)
    assert (found, out) == (code, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_pictures_without_gender_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    line = {"image": "a.png", "width": 64, "height": 64, "faces": [{"box": [1, 1, 20, 20]}]}
    (tmp_path / "faces.jsonl").write_text(json.dumps(line))
    code, _, err = run(capsys, "gender", tmp_path)
    assert code == 7
    assert "no face that counts has a gender" in err
    assert run(capsys, "detect", tmp_path, "--quiet")[0] == 0


@pytest.mark.parametrize(
    ("face", "command", "message"),
    [
        ({"gender": None}, "gender", "no face that counts has a gender"),
        ({"gender": "male", "ignore": True}, "gender", "no face that counts has a gender"),
        ({"gender": "male"}, "gender", "none of its 1 faces with a gender was found: try"),
        ({"ignore": True}, "detect", "no face counts in these pictures"),
    ],
)
def test_nothing_to_measure_is_told_in_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    face: dict[str, Any],
    command: str,
    message: str,
) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    line = {"image": "a.png", "width": 64, "height": 64, "faces": [{"box": [1, 1, 20, 20], **face}]}
    (tmp_path / "faces.jsonl").write_text(json.dumps(line))
    code, out, err = run(capsys, command, tmp_path, "--quiet")
    assert (code, out, len(err.splitlines())) == (7, "", 1)
    assert message in err


def test_a_table_of_children_alone_holds_dashes() -> None:
    young = np.array([5.0, 6.0])
    answers = GenderAnswers(np.array([0.9, np.nan]), np.array([True, False]), young + 30, young)
    tables = gender_tables(gender_result("lite", answers, unsure_below=0.7))
    console = Console(file=io.StringIO(), width=160)
    for table in tables:
        console.print(table)
    text = cast(io.StringIO, console.file).getvalue()
    assert "nan" not in text
    (row,) = [line.split() for line in text.splitlines() if line.split()[:1] == ["all"]]
    assert row == ["all", "0", "-", "-", "-", "-", "-"]


class Ruler:
    """Says where the white square of a picture is, from the pixels it is handed.

    It also invents a face of 20 px and one of 150 px, in the same places at every size.
    """

    batch_size = 1

    def __init__(self) -> None:
        self.sizes: list[tuple[int, int]] = []

    def input_size_wh(self, width: int, height: int) -> tuple[int, int]:
        return width, height

    def detect(self, scaled: Any, sizes_wh: Any) -> list[Faces]:
        (image,), ((width, height),) = scaled, sizes_wh
        self.sizes.append((image.shape[1], image.shape[0]))
        rows, columns = np.nonzero(image.mean(2) > 127)
        grow = width / image.shape[1], height / image.shape[0]
        edges = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        box = [float(edge) * grow[i % 2] for i, edge in enumerate(edges)]
        scores = np.array([0.9, 0.6, 0.3], np.float32)
        invented = [[150.0, 150, 170, 170], [0.0, 30, 150, 180]]
        return [Faces(np.array([box, *invented], np.float32), scores, scores)]


@pytest.mark.parametrize(
    ("scales", "sides"),
    [
        ([1.0], [60, 20, 150]),
        ([0.5], [60, 150]),  # a shrunken pass is not asked for small faces
        ([2.0], [60, 20]),  # nor an enlarged one for large faces
        ([0.5, 1.0, 2.0], [60, 20, 150]),
    ],
)
def test_passes_at_several_sizes_agree_on_a_face(scales: list[float], sides: list[int]) -> None:
    image = np.zeros((200, 320, 3), np.uint8)
    image[40:100, 200:260] = 255
    ruler = Ruler()
    (faces,) = ManyScales(ruler, scales, flip=False)([image])
    assert ruler.sizes == [(round(320 * s), round(200 * s)) for s in scales]
    assert faces.scores[0] == np.float32(0.9)
    assert faces.boxes[0] == pytest.approx([200, 40, 260, 100], abs=1)
    assert (faces.boxes[:, 2] - faces.boxes[:, 0]).round().tolist() == sides


def test_a_mirrored_pass_is_turned_back() -> None:
    image = np.zeros((200, 320, 3), np.uint8)
    image[40:100, 200:260] = 255
    (faces,) = ManyScales(Ruler(), [1.0], flip=True)([image])
    assert faces.boxes[0].tolist() == [200, 40, 260, 100]
    # of what is invented, one face mirrors into itself and one into another place
    others = sorted(faces.boxes[1:].tolist())
    expected = [[0, 30, 150, 180], [150, 150, 170, 170], [170, 30, 320, 180]]
    assert np.array(others) == pytest.approx(np.array(expected), abs=1e-3)


def test_several_sizes_end_in_a_table(stills: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ("detect", stills, "--limit", "4", "--long-side", "32")
    plain = figures_of(capsys, *args)
    several = figures_of(capsys, *args, "--scales", "0.25,0.5", "--flip")
    assert (plain["images"], plain["scales"], several["scales"]) == (4, [1.0], [0.25, 0.5])
    found = [each["results"][0]["by_height"][">= 8 px"] for each in (plain, several)]
    assert found[1]["average_precision"] < found[0]["average_precision"]  # faces of few pixels


def test_many_series_stay_in_their_rows_and_are_all_named() -> None:
    nan = math.nan
    names = [f"labels every {number}" for number in range(8)]
    rows = [Row("a", [(0.5, nan, nan)] * 8), Row("b", [(nan, nan, nan)] * 8)]
    pixels = np.array(rows_chart("t", "x", names, rows)).astype(int)
    few = np.array(rows_chart("t", "x", names[:1], [Row("a"), Row("b")]))
    more = pixels.shape[0] - few.shape[0]
    assert more > 2 * 8 * 9 - 2 * 30  # a place for each series, and further lines of the legend
    row_px = (pixels.shape[0] - 64 - 62 - 22) // 2
    inside = slice(64 + 22, 64 + 22 + row_px)
    for colour in COLOURS:
        close = np.abs(pixels[:, 20:] - colour).sum(2) < 12
        assert close[:80].sum() > 20, "in the legend"
        assert close[inside].sum() > 10, "in the first row"
        assert not close[inside.stop : inside.stop + row_px, 100:].any()
    assert len(set(COLOURS)) == 8
    assert (pixels[:, -8:] == 255).all(), "nothing is cut off"


def test_a_mark_is_not_written_over_its_curve() -> None:
    def chart(*points: tuple[float, float], mark: tuple[float, float] | None) -> Any:
        beside = None if mark is None else (mark, "unsure below 0.7")
        image = curves_chart("t", ("x", "y"), [Curve("a", points, mark=beside)])
        pixels = np.array(image).astype(int)
        return pixels[..., 2] - pixels[..., 0] > 60

    for at in (0.3, 0.95):
        mark = (at, 1 - 0.1 * at)
        curve = chart((0.0, 1.0), (1.0, 0.9), mark=None)
        told = chart(mark=mark)
        rows, columns = np.nonzero(curve & told)
        assert len(rows) > 10
        assert max(np.ptp(rows), np.ptp(columns)) <= 12, "they meet in the dot alone"


def test_charts_put_values_where_they_belong() -> None:
    """A point in the middle of both axes is drawn in the middle, in the first colour."""
    chart = curves_chart("t", ("x", "y"), [Curve("a", [(0.5, 0.5)], [1.0])])
    pixels = np.array(chart).astype(int)
    blue = (pixels[..., 2] - pixels[..., 0]) > 120
    rows, columns = np.nonzero(blue)
    assert (columns.mean(), rows.mean()) == pytest.approx(
        ((76 + 760 - 28) / 2, (64 + 520 - 62) / 2), abs=1
    )
    nan = math.nan
    dots = [Row("a", [(0.25, nan, nan)]), Row("b", [(0.75, nan, nan)]), Row("c", [(nan, nan, nan)])]
    pixels = np.array(rows_chart("t", "x", ["s"], dots)).astype(int)
    blue = (pixels[..., 2] - pixels[..., 0]) > 120
    halves = blue[:94].nonzero()[1].mean(), blue[94:].nonzero()[1].mean()
    # below the last name there is nothing but the lines of the grid at 0, 0.1 ... 1
    grid = np.flatnonzero(pixels[151].min(1) < 245)
    assert halves[1] - halves[0] == pytest.approx((grid[-1] - grid[0]) / 2, abs=2)
