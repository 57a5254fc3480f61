"""Fine-tuned heads against slow loops, and the files that hold them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from coloured import coloured_lite
from public_s3fd import check_one_line
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from videogender.errors import ModelError
from videogender.network import checkpoints
from videogender.network.attributes import (
    AttributeHeads,
    Form,
    Head,
    LinearClassifier,
    RefeedHead,
)
from videogender.network.lite import Lite
from videogender.network.s3fd import S3FD

CHANNELS = (3, 5, 4)
LABELS = ("mask", "no mask", "half")


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def maps(batch: int = 2) -> tuple[Tensor, ...]:
    return tuple(noise(batch, c, 7 - 2 * i, 6 - i, seed=i) for i, c in enumerate(CHANNELS))


@pytest.mark.parametrize("form", ["linear", "tower"])
def test_sparse_answers_are_those_of_a_loop_over_cells(form: Form) -> None:
    torch.manual_seed(3)
    heads = AttributeHeads(CHANNELS, 3, form, hidden=6)
    features = maps()
    expected = []
    for level, feature in enumerate(features):
        first = heads.levels[level]
        reach = 1 if form == "linear" else 2
        padded = F.pad(feature, [reach] * 4)
        for row in range(feature.shape[2]):
            for column in range(feature.shape[3]):
                patch = padded[:, :, row : row + 2 * reach + 1, column : column + 2 * reach + 1]
                out = F.conv2d(patch, first.weight, first.bias)
                if form == "tower":
                    out = F.conv2d(out.relu(), heads.shared[1].weight, heads.shared[1].bias)
                    out = F.conv2d(out.relu(), heads.shared[3].weight, heads.shared[3].bias)
                expected.append(out.flatten(1))
    truth = torch.stack(expected, 1)  # [B, A, C]
    anchors = truth.shape[1]
    torch.testing.assert_close(heads.maps(features), truth)
    image = torch.arange(2).repeat_interleave(anchors)
    anchor = torch.arange(anchors).repeat(2)
    shuffled = torch.randperm(2 * anchors)
    got = heads(features, image[shuffled], anchor[shuffled])
    torch.testing.assert_close(got, truth.reshape(-1, 3)[shuffled])
    assert heads(features, image[:0], anchor[:0]).shape == (0, 3)


def test_linear_heads_start_from_the_face_and_answer_one_in_c() -> None:
    network = Lite()
    heads = AttributeHeads.beside(network, 4, "linear")
    predictions = network.eval()(noise(1, 3, 96, 96) * 60)
    answers = heads.maps(predictions.features).softmax(2)
    torch.testing.assert_close(answers, torch.full_like(answers, 0.25))
    # and the logits themselves are the face channel's, which differ from place to place
    face = network.s8_mbox_conf(predictions.features[1])[:, -1].flatten(1)
    start = predictions.features[0][0, 0].numel()
    logits = heads.maps(predictions.features)[:, start : start + face.shape[1], 2]
    torch.testing.assert_close(logits, face, atol=1e-4, rtol=1e-4)


def test_a_tower_starts_from_lites_gender_tower() -> None:
    torch.manual_seed(4)
    network = Lite().eval()
    heads = AttributeHeads.beside(network, 2)
    assert heads.form == "tower"
    heads.shared[3].load_state_dict(network.gender_shared[3].state_dict())
    features = network.features(noise(1, 3, 96, 96) * 60)
    torch.testing.assert_close(heads.maps(features), network.gender_maps(features))


def test_vgg16_gets_linear_heads() -> None:
    with torch.device("meta"):
        heads = AttributeHeads.beside(S3FD(), 3)
    assert heads.form == "linear"
    assert [head.in_channels for head in heads.levels] == [256, 512, 512, 1024, 512, 256]  # type: ignore[union-attr]


def test_the_last_map_of_256_pixels() -> None:
    """2304 for the padded vgg16 is the notes' own figure; lite's is counted on a real pass."""
    with torch.device("meta"):
        assert LinearClassifier.inputs_of(S3FD("padded")) == 2304
        assert LinearClassifier.inputs_of(S3FD("dilated")) == 1024
    lite = Lite()
    before = {key: value.clone() for key, value in lite.state_dict().items()}
    classifier = LinearClassifier.beside(lite, 10)
    assert all(torch.equal(value, before[key]) for key, value in lite.state_dict().items())
    features = lite.eval().features(noise(3, 3, 256, 256))
    assert classifier(features).shape == (3, 10)
    expected = features[-1].flatten(1) @ classifier.linear.weight.T + classifier.linear.bias
    torch.testing.assert_close(classifier(features), expected)


@pytest.mark.parametrize("level", [1, 2, 3])
def test_a_refeed_head_reads_the_middle_of_its_crop(level: int) -> None:
    network = coloured_lite()
    head = RefeedHead.beside(network, 2, level)
    assert head.side_px / head.face_px == 1.75
    crop = torch.zeros(1, 3, head.side_px, head.side_px)
    middle = head.side_px // 2
    half = head.face_px // 8
    crop[:, 2, middle - half : middle + half, middle - half : middle + half] = 255  # BGR: red
    patches = head.centre(network.features(crop / 64))
    assert patches.shape[2:] == (5, 5)
    red = patches[0, 0] > 0
    assert red.nonzero().tolist() == [[2, 2]]
    torch.testing.assert_close(head(network.features(crop / 64)), head.at_centre(patches))


def test_a_padded_vgg16_has_the_face_in_the_middle_too() -> None:
    """fc6's padding adds two cells on each side: the middle stays where it is."""
    with torch.device("meta"):
        network, head = S3FD("padded"), RefeedHead(1024, 2, level=3)
        features = network.features(torch.empty(1, 3, head.side_px, head.side_px))
    assert features[3].shape[2:] == (11, 11)  # 7 + 4
    marked = (*features[:3], torch.zeros(1, 1, 11, 11), *features[4:])
    marked[3][0, 0, 5, 5] = 1.0
    assert RefeedHead(1, 2, level=3).centre(marked)[0, 0].nonzero().tolist() == [[2, 2]]


def facts(task: str, **more: str) -> dict[str, str]:
    return {"task": task, "labels": json.dumps(LABELS), "column": "cover", **more}


@pytest.mark.parametrize("kind", ["linear", "tower", "classifier", "refeed"])
def test_round_trip_of_a_file_with_a_head(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(5)
    network, path = Lite(gender=kind == "tower"), tmp_path / "w.safetensors"
    head: Head
    if kind == "classifier":
        task, head = "classifier", LinearClassifier.beside(network, 3)
    elif kind == "refeed":
        task, head = "refeed", RefeedHead(network.tap_channels[2], 3, level=2, hidden=32)
    else:
        form: Form = "linear" if kind == "linear" else "tower"
        task, head = "attribute", AttributeHeads(network.tap_channels, 3, form, hidden=48)
    checkpoints.save(network, path, facts(task, temperature="1.5", share="0.25"), head=head)
    (tmp_path / "new").touch()
    assert path.stat().st_mode == (tmp_path / "new").stat().st_mode  # for others to read, as usual
    found = checkpoints.load_trained(path)
    assert type(found.head) is type(head)
    assert found.facts.task == task
    assert found.facts.labels == LABELS
    assert (found.facts.column, found.facts.temperature, found.facts.share) == ("cover", 1.5, 0.25)
    assert found.facts.gender_temperature == 1.0
    assert found.network.has_gender is (kind == "tower")
    assert not found.head.training  # type: ignore[union-attr]
    for key, value in head.state_dict().items():
        assert torch.equal(found.head.state_dict()[key], value)  # type: ignore[union-attr]  # fp32
    # whoever wants the network alone gets it
    alone, _ = checkpoints.load(path)
    x = noise(1, 3, 64, 64)
    assert torch.equal(alone(x).face_logits, found.network(x).face_logits)


def test_a_file_without_any_of_this_is_a_gender_file(tmp_path: Path) -> None:
    checkpoints.save(Lite(), tmp_path / "old.safetensors", {"temperature": "1.37"})
    found = checkpoints.load_trained(tmp_path / "old.safetensors")
    assert found.head is None
    assert found.facts.task == "gender"
    assert found.facts.labels == ("female", "male")
    assert found.facts.temperature == found.facts.gender_temperature == 1.37
    checkpoints.save(Lite(gender=False), tmp_path / "plain.safetensors", {})
    assert checkpoints.load_trained(tmp_path / "plain.safetensors").facts.labels == ()


HOSTILE = [
    ({"task": "identity"}, "'identity' as task, expected one of gender, attribute"),
    ({"labels": "["}, "no JSON list"),
    ({"labels": "[" * 100_000}, "no JSON list"),
    ({"labels": '"mask"'}, "a JSON list of 2 to 100 names"),
    ({"labels": '["mask"]'}, "a JSON list of 2 to 100 names"),
    ({"labels": json.dumps([str(n) for n in range(101)])}, "2 to 100 names"),
    ({"labels": '["a", 2, "c"]'}, "'2' is no label"),
    ({"labels": '["a", "  ", "c"]'}, "is no label"),
    ({"labels": json.dumps(["a", "\x1b[31m", "c"])}, "is no label"),
    ({"labels": json.dumps(["a", "b\nc", "c"])}, "is no label"),
    ({"labels": json.dumps(["a", "x" * 61, "c"])}, "is no label"),
    ({"labels": '["a", "unsure", "c"]'}, "other than 'unsure'"),
    ({"labels": '["a", "b", "a"]'}, "name a class twice"),
    ({"labels": '["a", "b"]'}, "does not fit a head for 2 classes: levels.0."),
    ({"temperature": "hot"}, "its temperature is 'hot', expected a number"),
    ({"temperature": "nan"}, "its temperature is 'nan'"),
    ({"temperature": "0"}, "its temperature is '0'"),
    ({"gender_temperature": "-1"}, "its gender_temperature is '-1'"),
    ({"share": "2"}, "its share is '2', expected a number of 0 to 1"),
    ({"form": "cube"}, "'cube' as form, expected one of linear, tower"),
    ({"form": "tower"}, "does not fit a head for 3 classes"),
    ({"task": "refeed"}, "'nothing' as level, expected one of 0, 1, 2, 3, 4, 5"),
    ({"task": "refeed", "level": "-1"}, "'-1' as level"),
    ({"task": "classifier"}, "does not fit a head for 3 classes"),
    ({"task": "gender"}, "its labels should be"),
    ({"column": "a\nb"}, "its column is no printable name"),
]


@pytest.fixture(scope="module")
def attribute_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("attribute") / "good.safetensors"
    network = Lite(gender=False)
    checkpoints.save(
        network, path, facts("attribute"), head=AttributeHeads(network.tap_channels, 3, "linear")
    )
    return path


@pytest.mark.parametrize(("change", "message"), HOSTILE)
def test_hostile_metadata_is_a_one_line_error(
    change: dict[str, str], message: str, attribute_file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "hostile.safetensors"
    with safe_open(attribute_file, framework="pt") as file:
        metadata = dict(file.metadata())
    save_file(load_file(attribute_file), path, metadata={**metadata, **change})
    with pytest.raises(ModelError) as caught:
        checkpoints.load_trained(path)
    assert message in str(caught.value)
    assert "\x1b" not in str(caught.value)
    check_one_line(caught.value, path)


def test_labels_are_needed_and_tensors_are_checked(attribute_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "less.safetensors"
    with safe_open(attribute_file, framework="pt") as file:
        metadata = dict(file.metadata())
    tensors = load_file(attribute_file)
    without = {key: value for key, value in metadata.items() if key != "labels"}
    save_file(tensors, path, metadata=without)
    with pytest.raises(ModelError, match="its metadata name no labels"):
        checkpoints.load_trained(path)
    broken = {k: v for k, v in tensors.items() if k != "head.levels.3.bias"}
    save_file(broken, path, metadata=metadata)
    with pytest.raises(ModelError, match="1 tensors missing, 0 unknown"):
        checkpoints.load_trained(path)
    save_file({**tensors, "head.levels.0.bias": torch.tensor([0, torch.inf, 0])}, path, metadata)
    with pytest.raises(ModelError, match="not finite"):
        checkpoints.load_trained(path)
