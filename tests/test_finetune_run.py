"""Runs from data to weights: what changes and what must not, every recipe, the run's folder."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
import torch
from finetune_toys import write_faces, write_lite, write_two_stages, write_vgg16
from PIL import Image
from safetensors import safe_open

from videogender import Detector
from videogender.cli.finetune_report import figures_line
from videogender.config import DetectSettings
from videogender.errors import ConfigError, OutputError, TrainingError
from videogender.evaluation.detection import iou
from videogender.finetuning.data import Data, read_data
from videogender.finetuning.datasets import Sample
from videogender.finetuning.figures import Answers, by_size, figures, interval
from videogender.finetuning.joint import answers_of
from videogender.finetuning.request import Request, Watcher
from videogender.finetuning.run import finetune
from videogender.finetuning.second_look import fitted_mix, mixed
from videogender.finetuning.settings import FinetuneSettings, settings_of, with_values
from videogender.network import checkpoints
from videogender.training.keyed import checked
from videogender.weights_store import resolve

if TYPE_CHECKING:
    from videogender.finetuning.datasets import Labelled, Split

FAST = {
    "epochs": 3,
    "batch": 8,
    "patience": 0,
    "split.val": 0.25,
    "split.test": 0.25,
    "split.folds": 0,
    "features.precision": "fp32",
    "features.scales": [1.0],
    "workers": 1,
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VIDEOGENDER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_faces(tmp_path_factory.mktemp("faces"), 40)


@pytest.fixture(scope="module")
def lite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lite(tmp_path_factory.mktemp("weights") / "lite.safetensors")


def settings(recipe: str = "heads", **more: Any) -> FinetuneSettings:
    from videogender.finetuning.settings import recipe_values

    extra = {key.replace("__", "."): value for key, value in more.items()}
    return settings_of(with_values(recipe_values(recipe) | FAST | extra))


def run(
    faces: Path, weights: Path, out: Path, want: FinetuneSettings, **more: Any
) -> dict[str, Any]:
    data = read_data(faces, None, more.pop("column", None), want)
    source = {"data": str(faces), "images": None, "column": None}
    request = Request(data, source, weights, out, device="cpu", **more)
    return finetune(request, want, Watcher())


def tensors(path: Path) -> dict[str, torch.Tensor]:
    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def is_gender(key: str) -> bool:
    return "_gender." in key or key.startswith("gender_shared.")


@pytest.mark.parametrize("start", ["weights", "face"])
def test_heads_change_nothing_but_gender_heads(
    faces: Path, lite: Path, tmp_path: Path, start: str
) -> None:
    """Bit for bit, normalisation and its statistics included."""
    run(faces, lite, tmp_path / "run", settings(head__start=start))
    before, after = tensors(lite), tensors(tmp_path / "run" / "best.safetensors")
    fixed = [key for key in before if not is_gender(key)]
    assert sorted(fixed) == sorted(key for key in after if not is_gender(key))
    for key in fixed:
        assert before[key].dtype == after[key].dtype
        assert before[key].numpy().tobytes() == after[key].numpy().tobytes(), key
    if start == "weights":
        changed = [k for k in before if is_gender(k) and not torch.equal(before[k], after[k])]
        assert any(key.startswith("gender_shared.") for key in changed)
    else:
        assert after["s32_gender.weight"].shape == (2, 128, 3, 3)


@pytest.mark.slow  # 22 million parameters
def test_imported_vgg16_keeps_single_precision(faces: Path, tmp_path: Path) -> None:
    weights = write_vgg16(tmp_path / "vgg16.safetensors")
    few = write_faces(tmp_path / "few", 8)
    run(few, weights, tmp_path / "run", settings(epochs=1, features__mirror=False))
    before, after = tensors(weights), tensors(tmp_path / "run" / "best.safetensors")
    assert {str(t.dtype) for t in after.values()} == {"torch.float32"}
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert sum(is_gender(key) for key in after) == 12


def test_new_heads_start_from_the_face_channel(lite: Path) -> None:
    """As the notes mean it: both channels equal the face channel, so everybody is one half."""
    from videogender.finetuning.learners import new_learner

    network, _ = checkpoints.load(lite)
    learner = new_learner(network, ("female", "male"), settings(head__start="face"))
    state = tensors(lite)
    for tap in network.taps:
        head = learner.trained()[f"{tap}_gender.weight"]
        face = state[f"{tap}_mbox_conf.weight"][-1].float()  # channel 3 on the first level
        assert torch.equal(head[0], face)
        assert torch.equal(head[1], face)
    answers = learner.logits(2, torch.randn(5, 64, 5, 5)).softmax(1)
    assert torch.allclose(answers, torch.full_like(answers, 0.5))


def test_run_leaves_weights_that_annotate_uses_and_figures_that_hold(
    faces: Path, lite: Path, tmp_path: Path, cache: Path
) -> None:
    want = settings(epochs=15, batch=4, learning_rate=5e-3, split__folds=3)
    results = run(faces, lite, tmp_path / "run", want)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    expected = {"run.json", "metrics.jsonl", "metrics.csv", "last.pt", "best.safetensors"}
    assert expected | {"results.json"} <= names
    assert not any(name.startswith(".") for name in names)
    assert list((cache / "features").iterdir()) == []  # nobody's features are kept

    stored = json.loads((tmp_path / "run" / "results.json").read_text())
    assert stored["after"]["accuracy"] == pytest.approx(results["after"]["accuracy"])
    assert stored["after"]["accuracy"] >= 0.9
    assert stored["after"]["faces"] == stored["before"]["faces"] == 10
    assert np.array(stored["confusion"]["counts"]).sum() == 10
    assert sum(row["count"] for row in stored["reliability"]) == 10
    assert len(stored["epochs"]) == 15
    with (tmp_path / "run" / "metrics.csv").open() as table:
        rows = list(csv.DictReader(table))
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [int(row["epoch"]) for row in rows] == list(range(1, 16))
    assert [json.loads(line)["epoch"] for line in lines] == list(range(1, 16))

    best = tmp_path / "run" / "best.safetensors"
    trained = checkpoints.load_trained(best)
    assert trained.facts.labels == ("female", "male")
    assert trained.metadata["recipe"] == "heads"
    figures = json.loads(trained.metadata["figures"])
    assert figures["accuracy"] == pytest.approx(stored["after"]["accuracy"])
    assert str(faces) not in str(trained.metadata)
    detector = Detector.load(
        weights=best, device="cpu", settings=DetectSettings(face_threshold=0.4, precision="fp32")
    )
    right = 0
    for number, line in enumerate((faces / "faces.jsonl").read_text().splitlines()):
        truth = np.array([json.loads(line)["faces"][0]["box"]], np.float32)
        found = detector([np.array(Image.open(faces / f"{number}.png"))])[0]
        nearest = int(iou(truth, found.boxes)[0].argmax())
        right += (found.female[nearest] > 0.5) == (number % 2 == 0)
    assert right >= 36


@pytest.mark.parametrize("recipe", ["heads", "tower"])
def test_a_second_stage_is_weighed_against_new_heads(
    faces: Path, tmp_path: Path, recipe: str
) -> None:
    """Of it nothing changes but how much it counts; what is reported is what `annotate` says."""
    start = write_two_stages(tmp_path / "start.safetensors")
    more = {"split__val": 0.5, "split__test": 0.25}
    want = settings(recipe, epochs=20, batch=4, learning_rate=5e-3, **more)
    results = run(faces, start, tmp_path / "run", want)
    best = tmp_path / "run" / "best.safetensors"
    before, after = tensors(start), tensors(best)
    mix = "second_stage.gender_mix"
    for key in before:
        if not is_gender(key) and key != mix:
            assert before[key].numpy().tobytes() == after[key].numpy().tobytes(), key
    assert before[mix].tolist() == [0, 1, 0]
    assert after[mix][0] > 0.2  # the heads learned the colours, the stage has random weights
    detector = Detector.load(
        weights=best, device="cpu", settings=DetectSettings(face_threshold=0.4, precision="fp32")
    )
    lines = (faces / "faces.jsonl").read_text().splitlines()
    found = [detector([np.array(Image.open(faces / f"{n}.png"))])[0] for n in range(len(lines))]
    right = 0
    for number, (line, some) in enumerate(zip(lines, found, strict=True)):
        truth = np.array([json.loads(line)["faces"][0]["box"]], np.float32)
        nearest = int(iou(truth, some.boxes)[0].argmax())
        right += (some.female[nearest] > 0.5) == (number % 2 == 0)
    assert right >= 36
    assert results["after"]["accuracy"] >= 0.9
    assert results["before"]["accuracy"] < results["after"]["accuracy"]


def test_few_answers_leave_the_mix_about_as_it_was() -> None:
    """Forty faces of which a first stage errs in a fifth more than the second; often, by chance,
    a free fit of so few would follow the first."""
    given, rng = (0.0, 1.4, 0.1), np.random.default_rng(0)
    for _ in range(20):
        labels = rng.permutation(np.arange(40) % 2)
        sign = np.where(labels == 0, 1.0, -1.0)
        odds, second = sign + rng.normal(0, 2, 40), 2 * sign + rng.normal(0, 2, 40)
        heads = Answers(np.c_[odds, np.zeros(40)], labels, np.ones(40), np.ones(40), np.arange(40))
        mix = fitted_mix(heads, second.astype(np.float32), given)
        np.testing.assert_allclose(mix, given, atol=0.6)
    one_label = replace(heads, label=np.zeros(40, np.int64))
    assert fitted_mix(one_label, second.astype(np.float32), given) == given


def test_heads_that_no_epoch_betters_are_kept(faces: Path, lite: Path, tmp_path: Path) -> None:
    good = tmp_path / "good" / "best.safetensors"
    run(faces, lite, good.parent, settings(epochs=20, batch=4, learning_rate=5e-3))
    worse = settings(epochs=2, batch=4, learning_rate=5.0, head__start="weights")
    results = run(faces, good, tmp_path / "run", worse)
    assert results["best_epoch"] is None
    assert results["notes"] == ["no epoch was better than the heads as they began, which were kept"]
    before, after = tensors(good), tensors(tmp_path / "run" / "best.safetensors")
    for key in before:
        assert before[key].numpy().tobytes() == after[key].numpy().tobytes(), key
    assert results["after"]["accuracy"] == results["before"]["accuracy"]


def test_sizes_are_told_of_the_same_answers_each_face_once(faces: Path, tmp_path: Path) -> None:
    start = write_two_stages(tmp_path / "start.safetensors")
    want = settings(epochs=8, batch=4, learning_rate=5e-3, features__scales=[1.0, 0.5])
    results = run(faces, start, tmp_path / "run", want)
    rows = results["by_size"]
    assert sum(row["faces"] for row in rows) == results["after"]["faces"] == 10
    right = sum(row["faces"] * row["accuracy"] for row in rows)
    assert right == pytest.approx(10 * results["after"]["accuracy"])


def test_without_gender_heads_the_second_stage_counts_as_before(
    faces: Path, tmp_path: Path
) -> None:
    start = write_two_stages(tmp_path / "start.safetensors")
    run(faces, start, tmp_path / "run", settings("classifier", epochs=1))
    after = tensors(tmp_path / "run" / "best.safetensors")
    assert after["second_stage.gender_mix"].tolist() == [0, 1, 0]


def test_mixing_is_what_the_detector_does() -> None:
    logits = np.array([[1.0, 0.0], [0.0, 2.0], [np.nan, np.nan]])
    heads = Answers(logits, np.array([0, 1, 0]), np.ones(3), np.ones(3), np.array([2, 0, 1]))
    close_up = np.array([10.0, 20.0, 30.0], np.float32)
    both = mixed(heads, close_up, (0.5, 0.1, -1.0))
    np.testing.assert_allclose(both.logits[:2, 0] - both.logits[:2, 1], [2.5, -1.0])
    assert np.isnan(both.logits[2, 0])
    # labels that follow one stage alone give it all the weight
    rng = np.random.default_rng(0)
    margins, labels = rng.normal(size=(400, 2)), rng.integers(0, 2, 400)
    margins[:, 1] += np.where(labels == 0, 1.0, -1.0)
    many = Answers(
        np.c_[margins[:, 0], np.zeros(400)], labels, np.ones(400), np.ones(400), np.arange(400)
    )
    old, new, _ = fitted_mix(many, margins[:, 1].astype(np.float32), (0.0, 2.0, 0.0))
    assert abs(old) < 0.3
    assert 1.4 < new < 2.8  # two: the log-odds of two unit bells, two apart


@pytest.mark.parametrize(
    ("people", "each", "right", "expected"),
    [
        (2, 20, 38, None),
        (34, 1, 34, (0.8985, 1.0)),  # Wilson's: all are right, and yet few
        (20, 10, 200, (0.8389, 1.0)),  # twenty people, not two hundred pictures
        (100, 1, 80, (0.7112, 0.8666)),
    ],
)
def test_an_interval_is_of_people(
    people: int, each: int, right: int, expected: tuple[float, float] | None
) -> None:
    who = np.repeat(np.arange(people), each)
    logits = np.where(np.arange(len(who)) < right, 1.0, -1.0)
    n, zeros = len(who), np.zeros(len(who))
    answers = Answers(
        np.stack([logits, zeros], 1), zeros.astype(np.int64), zeros + 1, zeros + 30, np.arange(n)
    )
    found = figures(answers, ("female", "male"), who)
    own = found["interval"]
    assert own == (None if expected is None else pytest.approx(expected, abs=1e-4))
    assert found.get("people") == (people if each > 1 else None)
    (size,) = by_size(answers, who)
    assert size["interval"] == own
    told = f"too few people for an interval: {people}" if own is None else f"{own[0]:.3f} to "
    assert told in figures_line(found)


def test_people_who_are_answered_alike_widen_an_interval() -> None:
    who, right = np.repeat(np.arange(40), 10), np.repeat(np.arange(40) % 5 > 0, 10)
    together, single = interval(right, who), interval(right, np.arange(400))
    assert together is not None
    assert single is not None
    assert single == pytest.approx((0.758, 0.8363), abs=1e-3)
    assert together == pytest.approx((0.675, 0.925), abs=0.026)


def test_wrong_labels_are_suspected(lite: Path, tmp_path: Path) -> None:
    folder = write_faces(tmp_path / "faces", 40)
    lines = (folder / "faces.jsonl").read_text().splitlines()
    lines[6] = lines[6].replace("female", "male")
    (folder / "faces.jsonl").write_text("\n".join(lines) + "\n")
    want = settings(epochs=15, batch=4, learning_rate=5e-3, split__folds=4)
    results = run(folder, lite, tmp_path / "run", want)
    assert results["suspected"][0]["where"] == "faces.jsonl:7"
    assert results["suspected"][0]["answer"] == "female"


def test_faces_without_boxes_are_found(lite: Path, tmp_path: Path) -> None:
    folder = tmp_path / "classes"
    made = write_faces(tmp_path / "faces", 24)
    for number in range(24):
        target = folder / ("female", "male")[number % 2]
        target.mkdir(parents=True, exist_ok=True)
        (made / f"{number}.png").rename(target / f"{number}.png")
    results = run(folder, lite, tmp_path / "run", settings(epochs=1, features__gate=0.4))
    assert results["after"]["found"] > 0.9


@pytest.mark.parametrize("recipe", ["tower", "best-scale"])
def test_other_recipes_for_gender(faces: Path, lite: Path, tmp_path: Path, recipe: str) -> None:
    results = run(faces, lite, tmp_path / "run", settings(recipe, epochs=1))
    trained = checkpoints.load_trained(tmp_path / "run" / "best.safetensors")
    assert trained.network.gender_form == "tower"
    levels = {row["level"] for row in results["levels"]}
    assert levels <= ({"s16"} if recipe == "best-scale" else set(trained.network.taps))
    assert levels


def colours(tmp_path: Path) -> Path:
    """Write a folder of three classes."""
    folder = tmp_path / "colours"
    for number in range(30):
        name = ("blue", "green", "red")[number % 3]
        (folder / name).mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 90, (80, 100, 3))
        noise[:, :, 2 - number % 3] += 120
        Image.fromarray(noise.astype(np.uint8)).save(folder / name / f"{number}.png")
    return folder


def test_classifier_file_says_what_training_saw(lite: Path, tmp_path: Path) -> None:
    """Three classes; the standardised features are folded into the layer that is written."""
    from videogender.classify import Classifier

    folder = colours(tmp_path)
    results = run(folder, lite, tmp_path / "run", settings("classifier", epochs=20))
    assert results["task"] == "classifier"
    assert results["after"]["accuracy"] == 1.0
    ask = Classifier.load(tmp_path / "run" / "best.safetensors", DetectSettings(precision="fp32"))
    assert ask.labels == ("blue", "green", "red")
    for number in range(0, 30, 5):
        name = ask.labels[number % 3]
        (answer,) = ask([np.array(Image.open(folder / name / f"{number}.png"))])
        assert answer is not None
        assert answer.top(1)[0][0] == name
    last = results["epochs"][-1]
    assert last["val_loss"] < 0.8 * results["epochs"][0]["val_loss"]


def test_labels_other_than_gender_make_attribute_heads(lite: Path, tmp_path: Path) -> None:
    folder = write_faces(tmp_path / "faces", 40)
    text = (folder / "faces.jsonl").read_text()
    text = text.replace('"gender": "female"', '"mask": "with"')
    (folder / "faces.jsonl").write_text(text.replace('"gender": "male"', '"mask": "without"'))
    want = settings(epochs=12, batch=4, learning_rate=3e-3)
    results = run(folder, lite, tmp_path / "run", want, column="mask")
    trained = checkpoints.load_trained(tmp_path / "run" / "best.safetensors")
    assert trained.facts.task == "attribute"
    assert trained.facts.labels == ("with", "without")
    assert trained.facts.gender_temperature == 1.25  # of the weights that it began from
    before, after = tensors(lite), tensors(tmp_path / "run" / "best.safetensors")
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert results["after"]["accuracy"] >= 0.8


def test_refeed_writes_a_second_look(faces: Path, lite: Path, tmp_path: Path) -> None:
    from videogender.refine import Refiner

    few = write_faces(tmp_path / "few", 12)
    want = settings("refeed", epochs=2, features__gate=0.4, head__level=2, head__share=0.7)
    results = run(few, lite, tmp_path / "run", want)
    assert results["before"]["faces"] == results["after"]["faces"] > 0
    assert results["after"]["ms_per_face"] > 0
    refiner = Refiner.load(tmp_path / "run" / "best.safetensors")
    assert refiner.answers_gender
    assert refiner._closeup.facts.share == 0.7


@pytest.mark.slow  # trains a whole network, if only a little
def test_joint_training_tells_detection_before_and_after(faces: Path, tmp_path: Path) -> None:
    want = settings("joint", joint__steps=2, joint__batch=8, joint__side=96, learning_rate=1e-3)
    ships = resolve("lite")
    results = run(faces, ships, tmp_path / "run", want)
    for side in ("before", "after"):
        assert 0 <= results[side]["average_precision"] <= 1
    assert results["confusion"]["labels"] == ["female", "male"]
    before, after = tensors(ships), tensors(tmp_path / "run" / "best.safetensors")
    assert not torch.equal(before["stem.0.conv.weight"], after["stem.0.conv.weight"])
    trained = checkpoints.load_trained(tmp_path / "run" / "best.safetensors")
    assert trained.metadata["recipe"] == "joint"
    lines = (tmp_path / "run" / "joint" / "train" / "faces.jsonl").read_text().splitlines()
    assert len(lines) == 20
    assert all("gender" in json.loads(line)["faces"][0] for line in lines)
    assert "suspected" not in results, "folds are 0 in these tests"


def test_joint_training_has_labels_judged_by_heads(
    faces: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The drawn faces tell the network little; so who is sure of another label is told here."""
    asked = []

    def sure(answers: Answers, most: int) -> list[tuple[int, int, float]]:
        asked.append(answers)
        face = int(answers.face[0])
        return [(face, 1 - int(answers.label[0]), 0.9)]

    monkeypatch.setattr("videogender.finetuning.run.suspected", sure)
    want = settings(
        "joint", joint__steps=1, joint__batch=8, joint__side=96, split__folds=2, epochs=1
    )
    results = run(faces, resolve("lite"), tmp_path / "run", want)
    [answers] = asked
    assert len(np.unique(answers.face)) == len(answers.face) > 10
    assert len(results["suspected"]) == 1
    kept = json.loads((tmp_path / "run" / "results.json").read_text())
    assert len(kept["suspected"]) == 1
    assert not list((cache / "features").glob("*")), "features were for this alone"


def test_joint_training_that_was_killed_before_a_checkpoint_begins_anew(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    want = settings("joint", joint__steps=1, joint__batch=8, joint__side=96)

    def killed(*arguments: Any) -> None:
        raise OutputError("killed")

    with monkeypatch.context() as patch:
        patch.setattr("videogender.training.launch.StopRequest", killed)  # made before it forks
        with pytest.raises(OutputError, match="killed"):
            run(faces, resolve("lite"), tmp_path / "run", want)
    left = {path.name for path in (tmp_path / "run" / "joint" / "run").iterdir()}
    assert left == {"run.json"}
    results = run(faces, resolve("lite"), tmp_path / "run", want, resume=True)
    assert results["outcome"] == "finished"


def test_a_whole_network_is_judged_by_what_annotate_would_say() -> None:
    stills = Path(__file__).parent.parent / "samples" / "stills"
    trained = checkpoints.load_trained(resolve("lite"))
    detector = Detector.load("lite", device="cpu")
    samples, expected = [], []
    for path in sorted(stills.glob("*.jpg")):
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        (found,) = detector([pixels])
        height, width = pixels.shape[:2]
        box = tuple((found.boxes[0] + [4, -4, 4, -4]).tolist())  # labels are never quite so
        samples.append(Sample(path, box, 0, None, path.name, width, height))
        expected.append(found.female[0])
    samples.append(Sample(path, (0, 0, 9, 9), 0, None, "no face there", width, height))
    none = np.zeros(0, np.int64)
    data = Data(
        cast("Labelled", None),
        cast("Split", None),
        samples,
        np.zeros(5, np.int64),
        train=none,
        val=none,
        test=np.arange(5),
    )
    temperature = trained.facts.gender_temperature
    answers = answers_of(trained.network, temperature, data, torch.device("cpu"), settings("joint"))
    assert np.exp(answers.seen.log_probabilities)[:, 0] == pytest.approx(expected, abs=1e-3)
    assert answers.seen.face.tolist() == [0, 1, 2, 3]


def test_joint_training_is_of_genders_alone(lite: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="trains the genders of lite"):
        run(colours(tmp_path), lite, tmp_path / "run", settings("joint"))


def test_kept_features_are_used_again(faces: Path, lite: Path, tmp_path: Path, cache: Path) -> None:
    said: list[str] = []

    class Listener(Watcher):
        def say(self, line: str) -> None:
            said.append(line)

    for out, recipe in (("a", "heads"), ("b", "tower")):
        want = settings(recipe, epochs=1, features__keep=True)
        data = read_data(faces, None, None, want)
        finetune(Request(data, {}, lite, tmp_path / out, device="cpu"), want, Listener())
    assert sum("used again" in line for line in said) == 1
    assert len(list((cache / "features").iterdir())) == 1
    # other views are other features
    want = settings(epochs=1, features__keep=True, features__mirror=False)
    finetune(Request(data, {}, lite, tmp_path / "c", device="cpu"), want, Listener())
    assert len(list((cache / "features").iterdir())) == 2


def test_run_folder_is_not_overwritten(faces: Path, lite: Path, tmp_path: Path) -> None:
    want = settings(epochs=1)
    run(faces, lite, tmp_path / "run", want)
    before = (tmp_path / "run" / "best.safetensors").read_bytes()
    with pytest.raises(OutputError, match="holds a run already"):
        run(faces, lite, tmp_path / "run", want)
    assert (tmp_path / "run" / "best.safetensors").read_bytes() == before
    run(faces, lite, tmp_path / "run", replace(want, seed=3), force=True)
    assert (tmp_path / "run" / "best.safetensors").read_bytes() != before


def test_resuming_needs_the_same_run(faces: Path, lite: Path, tmp_path: Path) -> None:
    want = settings(epochs=1)
    run(faces, lite, tmp_path / "run", want)
    with pytest.raises(ConfigError, match="begun with batch 8, not 4"):
        run(faces, lite, tmp_path / "run", replace(want, batch=4), resume=True)
    others = write_faces(tmp_path / "others", 22)
    with pytest.raises(ConfigError, match="other pictures, boxes or labels"):
        run(others, lite, tmp_path / "run", want, resume=True)
    with pytest.raises(TrainingError, match="holds no run to resume"):
        run(faces, lite, tmp_path / "nothing", want, resume=True)
    # longer is allowed, and goes on
    results = run(faces, lite, tmp_path / "run", replace(want, epochs=2), resume=True)
    assert [row["epoch"] for row in results["epochs"]] == [1, 2]


def test_nothing_found_is_told(faces: Path, lite: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no training face was found"):
        run(faces, lite, tmp_path / "run", settings(features__gate=0.9))


def test_heads_that_do_not_fit_are_told(lite: Path) -> None:
    from videogender.finetuning.learners import new_learner

    network, _ = checkpoints.load(lite)
    with pytest.raises(ConfigError, match="the weights have tower gender heads"):
        new_learner(
            network,
            ("female", "male"),
            settings_of(
                checked(FinetuneSettings, {"head.form": "linear", "head.start": "weights"})
            ),
        )
