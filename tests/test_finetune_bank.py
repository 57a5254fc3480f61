"""Banks hold exactly what the frozen network sees, and what they are asked is what it says."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from finetune_toys import blind, write_faces
from PIL import Image
from torch import Tensor

from videogender import Detector
from videogender.config import DetectSettings
from videogender.detector import PROPOSED_FROM
from videogender.errors import OutputError
from videogender.finetuning import bank as bank_module
from videogender.finetuning.bank import Bank, BankWriter
from videogender.finetuning.datasets import Sample
from videogender.finetuning.figures import Answers
from videogender.finetuning.harvest import harvest_anchors, views_of
from videogender.finetuning.judging import judge
from videogender.finetuning.learners import Learner, gender_of
from videogender.finetuning.settings import FeatureSettings
from videogender.finetuning.trunk import Trunk
from videogender.network import checkpoints
from videogender.network.boxes import iou_matrix
from videogender.network.lite import Lite
from videogender.weights_store import resolve

SAMPLES = Path(__file__).resolve().parent.parent / "samples"
CPU = torch.device("cpu")
PLAIN = FeatureSettings(precision="fp32", scales=(1.0, 0.75), min_face_px=16.0)


def samples_of(folder: Path) -> list[Sample]:
    """Read what `write_faces` wrote, without the code that fine-tuning uses."""
    found = []
    for number, line in enumerate((folder / "faces.jsonl").read_text().splitlines()):
        item = json.loads(line)
        for face in item["faces"]:
            box = tuple(face["box"]) if "box" in face else None
            label = ("female", "male").index(face["gender"])
            where = f"faces.jsonl:{number + 1}"
            size = item["width"], item["height"]
            found.append(Sample(folder / item["image"], box, label, None, where, *size))
    return found


def fill(folder: Path, network: Lite, samples: list[Sample], settings: FeatureSettings) -> Bank:
    trunk = Trunk(network, CPU, settings.precision)
    shapes = [(channels, 5, 5) for channels in network.tap_channels]
    with BankWriter(folder, len(samples), len(views_of(settings)), shapes) as writer:
        harvest_anchors(trunk, samples, settings, 2, writer)
    return Bank(folder, 1024, CPU)


@pytest.fixture(scope="module")
def network() -> Lite:
    torch.manual_seed(3)
    made = blind(Lite())
    assert isinstance(made, Lite)
    return made


def rows_of(bank: Bank, face: int, view: int) -> range:
    at = face * bank.views + view
    return range(int(bank.rows.first[at]), int(bank.rows.first[at + 1]))


def test_patches_are_what_the_network_sees_around_anchors_on_the_face(
    network: Lite, tmp_path: Path
) -> None:
    """Against whole maps of the plain network, for the picture as it is and mirrored."""
    samples = samples_of(write_faces(tmp_path / "faces", 3))
    bank = fill(tmp_path / "bank", network, samples, PLAIN)
    assert [v.mirrored for v in views_of(PLAIN)] == [False, True, False, True]
    for face, sample in enumerate(samples):
        image = np.array(Image.open(sample.path))
        for view in (0, 1):
            shown = image[:, ::-1] if view else image
            x1, y1, x2, y2 = sample.box or (0, 0, 0, 0)
            box = (96 - x2, y1, 96 - x1, y2) if view else (x1, y1, x2, y2)
            bgr = torch.from_numpy(shown[:, :, ::-1].copy()).float()
            bgr = (bgr - torch.tensor(network.pixel_mean_bgr)) * network.pixel_scale
            with torch.inference_mode():
                seen = network(bgr.permute(2, 0, 1)[None])
            centre, size = seen.anchors[:, :2], seen.anchors[:, 2:]
            squares = torch.cat([centre - size / 2, centre + size / 2], 1).clamp(0, 96)
            overlap = iou_matrix(squares, torch.tensor([box]))[:, 0]
            fitting = set((overlap >= PLAIN.match_iou).nonzero().squeeze(1).tolist())
            rows = rows_of(bank, face, view)
            assert len(rows) == min(6, len(fitting))
            for row in rows:
                level, place = int(bank.rows.level[row]), int(bank.rows.place[row])
                found = bank.patches(level, np.array([place]))[0]
                padded = torch.nn.functional.pad(seen.features[level][0], [2] * 4)
                cells = padded.unfold(1, 5, 1).unfold(2, 5, 1).flatten(1, 2).transpose(0, 1)
                near = (cells - found).abs().amax((1, 2, 3)) < 2e-2
                start = sum(f.shape[2] * f.shape[3] for f in seen.features[:level])
                assert {start + i for i in near.nonzero().squeeze(1).tolist()} & fitting
                assert bank.rows.score[row] == pytest.approx(0.5, abs=1e-4)


def test_two_faces_of_one_picture_keep_their_anchors_apart(network: Lite, tmp_path: Path) -> None:
    """An anchor goes to the face that it overlaps more."""
    picture = tmp_path / "two.png"
    Image.fromarray(np.full((96, 192, 3), 90, np.uint8)).save(picture)
    left, right = (10.0, 10.0, 70.0, 80.0), (90.0, 10.0, 150.0, 80.0)
    samples = [Sample(picture, box, 0, None, "a:1", 192, 96) for box in (left, right)]
    bank = fill(tmp_path / "bank", network, samples, FeatureSettings(precision="fp32", anchors=99))
    places = [
        {(int(bank.rows.level[r]), int(bank.rows.place[r])) for r in rows_of(bank, face, 0)}
        for face in (0, 1)
    ]
    assert places[0]
    assert places[1]
    assert not places[0] & places[1]


def test_gate_and_size_keep_anchors_out(network: Lite, tmp_path: Path) -> None:
    samples = samples_of(write_faces(tmp_path / "faces", 1))
    strict = fill(tmp_path / "a", network, samples, FeatureSettings(precision="fp32", gate=0.6))
    assert len(strict.rows.score) == 0
    assert strict.count(np.array([0]), 0).tolist() == [0]
    large = fill(
        tmp_path / "b", network, samples, FeatureSettings(precision="fp32", min_face_px=60)
    )
    counts = [len(rows_of(large, 0, view)) for view in range(4)]  # 64 px; 32 px where shrunk
    assert min(counts[:2]) > 0
    assert counts[2:] == [0, 0]


def test_best_scale_takes_anchors_of_the_fitting_level_alone(network: Lite, tmp_path: Path) -> None:
    samples = samples_of(write_faces(tmp_path / "faces", 1))  # 56×64 px: 64 px anchors, level 2
    best = FeatureSettings(precision="fp32", levels="best", anchors=99)
    bank = fill(tmp_path / "bank", network, samples, best)
    assert {int(bank.rows.level[r]) for r in rows_of(bank, 0, 0)} == {2}
    assert {int(bank.rows.level[r]) for r in rows_of(bank, 0, 2)} == {1}  # half as large


def test_mapped_and_held_banks_are_equal(network: Lite, tmp_path: Path) -> None:
    samples = samples_of(write_faces(tmp_path / "faces", 3))
    held = fill(tmp_path / "bank", network, samples, PLAIN)
    mapped = Bank(tmp_path / "bank", 0, CPU)
    for level in np.unique(held.rows.level):
        places = held.rows.place[held.rows.level == level][::-1].copy()
        assert torch.equal(held.patches(int(level), places), mapped.patches(int(level), places))


def test_unfinished_bank_has_no_name(tmp_path: Path) -> None:
    def fail() -> None:
        with BankWriter(tmp_path / "bank", 1, 1, [(2, 1, 1)]) as writer:
            writer.add(0, torch.tensor([0]), 0, torch.ones(1), torch.ones(1, 2, 1, 1))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_full_disk_is_told(tmp_path: Path) -> None:
    """The raw file of a level is a device on which every write fails."""

    def write() -> None:
        with (
            BankWriter(tmp_path / "bank", 1, 1, [(512, 5, 5)]) as writer,
            Path("/dev/full").open("wb") as full,
        ):
            writer._files[0] = full
            for _ in range(8):
                writer.add(0, torch.tensor([0]), 0, torch.ones(1), torch.ones(1, 512, 5, 5))

    with pytest.raises(OutputError, match=r"disk is full.*VIDEOGENDER_CACHE"):
        write()
    assert list(tmp_path.iterdir()) == []


def test_old_banks_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setenv("VIDEOGENDER_CACHE", str(tmp_path))
    for name in ("old", "new"):
        (tmp_path / "features" / name).mkdir(parents=True)
    os.utime(tmp_path / "features" / "old", (0, 0))
    bank_module.drop_stale()
    assert [f.name for f in (tmp_path / "features").iterdir()] == ["new"]


class FirstChannels(Learner):
    """Says of a patch what its first two channels hold."""

    def logits(self, level: int, patches: Tensor) -> Tensor:
        return patches[:, :2, 0, 0]


def test_the_best_two_anchors_vote(tmp_path: Path) -> None:
    """As in `Detector`, by face score; of one level those of that level."""
    scores, levels = torch.tensor([0.3, 0.9, 0.6, 0.5]), [1, 0, 1, 1]
    female = torch.tensor([8.0, 1.0, 4.0, -2.0])
    with BankWriter(tmp_path / "bank", 3, 1, [(2, 1, 1)] * 2) as writer:
        for row, level in enumerate(levels):
            patch = torch.stack([female[row], torch.tensor(0.0)]).view(1, 2, 1, 1)
            writer.add(level, torch.tensor([1]), 0, scores[row : row + 1], patch)
    bank = Bank(tmp_path / "bank", 64, CPU)
    learner, labels = FirstChannels(Lite(), None, 2), np.zeros(3, np.int64)
    both = judge(learner, bank, labels, np.array([2, 1, 0]))
    assert both.logits[1, 0] == pytest.approx((0.9 * 1 + 0.6 * 4) / 1.5, abs=1e-3)
    assert both.score.tolist() == [0, pytest.approx(0.9), 0]
    assert np.isnan(both.logits[[0, 2]]).all()
    of_one = judge(learner, bank, labels, np.array([1]), level=1)
    assert of_one.logits[0, 0] == pytest.approx((0.6 * 4 - 0.5 * 2) / 1.1, abs=1e-3)


def test_judging_says_what_annotate_says(tmp_path: Path) -> None:
    """Real portraits under the first stage that ships: the bank's answer is the detector's."""
    stills = sorted((SAMPLES / "stills").glob("*.jpg"))
    network, metadata = checkpoints.load(resolve("lite"))
    network.second_stage = None
    samples = []
    for still in stills:
        width, height = Image.open(still).size
        samples.append(Sample(still, None, 0, None, still.name, width, height))
    settings = FeatureSettings(precision="fp32", scales=(1.0,), mirror=False)
    assert isinstance(network, Lite)
    bank = fill(tmp_path / "bank", network, samples, settings)
    learner = gender_of(network)
    assert learner is not None
    labels, faces = np.zeros(len(samples), np.int64), np.arange(len(samples))
    answers: Answers = judge(learner, bank, labels, faces)
    found = np.exp(answers.tempered(float(metadata["temperature"])).log_probabilities)[:, 0]
    detector = Detector(
        copy.deepcopy(network),
        # what the anchors propose where a second stage has the last word
        DetectSettings(precision="fp32", face_threshold=PROPOSED_FROM),
        CPU,
        float(metadata["temperature"]),
    )
    expected = [detector([np.array(Image.open(s).convert("RGB"))])[0] for s in stills]
    assert found == pytest.approx([float(faces.female[0]) for faces in expected], abs=0.002)
    assert answers.score == pytest.approx([float(faces.scores[0]) for faces in expected], abs=1e-3)
    for box, faces_ in zip(bank.boxes, expected, strict=True):
        overlap = iou_matrix(torch.from_numpy(box[None]), torch.from_numpy(faces_.boxes[:1]))
        assert overlap[0, 0] > 0.6
