"""Public S3FD checkpoints: both families give what their own code gives; others are refused."""

from __future__ import annotations

import collections
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from public_s3fd import (
    State,
    VggList,
    changed,
    check_one_line,
    clcarwin_state,
    fill,
    run_clcarwin,
    small,
    yxlijun_state,
)
from safetensors.torch import save_file
from torch import Tensor, nn

from videogender.errors import ModelError
from videogender.network import checkpoints
from videogender.network.s3fd import S3FD

# A width of 25 cells at stride 4: where pool3 rounds decides about the grids that follow.
SIZE_HW = (132, 100)
BGR_MEAN = torch.tensor([104.0, 117.0, 123.0]).view(3, 1, 1)
RGB_MEAN = torch.tensor([123.0, 117.0, 104.0]).view(3, 1, 1)


@pytest.fixture(scope="module")
def yxlijun() -> State:
    return yxlijun_state()


@pytest.fixture(scope="module")
def clcarwin() -> State:
    return clcarwin_state()


@pytest.fixture(scope="module")
def picture_rgb() -> Tensor:
    """[3, H, W], RGB of 0 to 255, with colours that differ."""
    generator = torch.Generator().manual_seed(13)
    noise = torch.rand(3, *SIZE_HW, generator=generator) * 160
    return noise + torch.tensor([90.0, 40.0, 0.0]).view(3, 1, 1)


def input_bgr(picture_rgb: Tensor) -> Tensor:
    """What every network of ours is fed: BGR minus the mean."""
    return (picture_rgb.flip(0) - BGR_MEAN)[None]


def check_outputs(network: nn.Module, x: Tensor, scores: Tensor, deltas: Tensor) -> None:
    with torch.inference_mode():
        found = network(x)
    expected = scores.softmax(1)[:, 1]
    assert expected.std() > 0.05  # the scores tell something
    assert len(found.face_logits[0]) == len(expected)
    torch.testing.assert_close(found.face_logits[0].sigmoid(), expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(found.box_deltas[0], deltas, atol=1e-3, rtol=1e-3)


@pytest.fixture(scope="module")
def yxlijun_file(yxlijun: State, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("yxlijun") / "sfd_face.pth"
    torch.save({"epoch": 7, "weight": collections.OrderedDict(yxlijun)}, path)
    yield path
    path.unlink()  # 90 MB


@pytest.fixture(scope="module")
def clcarwin_file(clcarwin: State, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("clcarwin") / "s3fd.pth"
    torch.save(clcarwin, path)
    yield path
    path.unlink()


def test_yxlijun_weights_give_what_their_own_code_gives(
    yxlijun: State, yxlijun_file: Path, picture_rgb: Tensor
) -> None:
    network, metadata = checkpoints.import_checkpoint(yxlijun_file)
    reference = VggList()
    reference.load_state_dict(yxlijun)
    with torch.inference_mode():
        scores, deltas = reference((picture_rgb - RGB_MEAN)[None])
    assert metadata["mode"] == "dilated"
    assert metadata["naming"] == "yxlijun"
    assert not network.has_gender
    check_outputs(network, input_bgr(picture_rgb), scores, deltas)


def test_clcarwin_weights_give_what_their_own_code_gives(
    clcarwin: State, clcarwin_file: Path, picture_rgb: Tensor
) -> None:
    network, metadata = checkpoints.import_checkpoint(clcarwin_file)
    with torch.inference_mode():
        scores, deltas = run_clcarwin(clcarwin, input_bgr(picture_rgb))
    assert metadata["mode"] == "padded"
    assert metadata["naming"] == "clcarwin"
    check_outputs(network, input_bgr(picture_rgb), scores, deltas)


@pytest.mark.parametrize("family", ["yxlijun", "clcarwin"])
def test_the_mode_and_the_outputs_survive_a_round_trip(
    family: str, picture_rgb: Tensor, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    network, metadata = checkpoints.import_checkpoint(request.getfixturevalue(f"{family}_file"))
    path = tmp_path / "vgg16.safetensors"
    checkpoints.save(network, path, metadata, half=False)
    again, found = checkpoints.load(path)
    assert isinstance(again, S3FD)
    assert isinstance(network, S3FD)
    assert again.mode == network.mode == found["mode"]
    assert found["source_sha256"] == metadata["source_sha256"]
    assert found["model"] == "vgg16"
    for key, value in network.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)
    path.unlink()


def test_metadata_names_the_source_and_says_what_was_chosen(yxlijun_file: Path) -> None:
    _, metadata = checkpoints.import_checkpoint(yxlijun_file)
    expected = hashlib.sha256(yxlijun_file.read_bytes()).hexdigest()
    assert metadata["source_sha256"] == expected
    assert metadata["source_file"] == "sfd_face.pth"
    assert metadata["chosen"] == (
        "yxlijun's layer names: fc6 with padding 6, dilation 6, trained on RGB; no gender heads"
    )


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"epoch": 3, "weight": state},
        lambda state: {"state_dict": state, "loss": 0.5},
        lambda state: {"model": {f"module.{k}": v for k, v in state.items()}},
        lambda state: collections.OrderedDict((f"module.{k}", v) for k, v in state.items()),
        lambda state: {f"_orig_mod.module.{k}": v for k, v in state.items()},
        lambda state: {f"module._orig_mod.{k}": v for k, v in state.items()},
        lambda state: {k: v.half() for k, v in state.items()},
        lambda state: {k: nn.Parameter(v) for k, v in state.items()},
    ],
    ids=[
        "bare",
        "weight",
        "state_dict",
        "nested",
        "module",
        "compiled",
        "inside",
        "fp16",
        "parameters",
    ],
)
@pytest.mark.parametrize("family", ["yxlijun", "clcarwin"])
def test_every_usual_wrapping_is_read(
    family: str,
    wrap: Callable[[State], object],
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    path = tmp_path / "wrapped.pth"
    torch.save(wrap(small(request.getfixturevalue(family))), path)
    network, metadata = checkpoints.import_checkpoint(path)
    assert metadata["naming"] == family
    assert not network.training
    parameters = list(network.parameters())
    assert all(p.dtype == torch.float32 and not p.requires_grad for p in parameters)
    assert all(p.device.type == "cpu" and p.is_contiguous() for p in parameters)


def test_the_old_file_format_is_read(clcarwin: State, tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    torch.save(small(clcarwin), path, _use_new_zipfile_serialization=False)
    assert checkpoints.import_checkpoint(path)[1]["naming"] == "clcarwin"


def test_safetensors_of_others_are_read(yxlijun: State, tmp_path: Path) -> None:
    path = tmp_path / "sfd_face.safetensors"
    save_file(yxlijun, path)
    network, metadata = checkpoints.import_checkpoint(path)
    assert metadata["mode"] == "dilated"
    weight = network.get_parameter("conv1_1.weight")
    assert torch.equal(weight, yxlijun["vgg.0.weight"].flip(1))
    path.unlink()


def test_gender_heads_in_a_checkpoint_are_taken(clcarwin: State, tmp_path: Path) -> None:
    state = dict(clcarwin)
    fill(state, "conv4_3_norm_gender", 2, 512, 3)
    path = tmp_path / "one_level.pth"
    torch.save(state, path)
    network, metadata = checkpoints.import_checkpoint(path)
    path.unlink()
    assert network.has_gender
    assert metadata["chosen"].endswith("; gender heads on conv4_3_norm")
    taken = network.get_parameter("conv4_3_norm_gender.weight")
    assert torch.equal(taken, state["conv4_3_norm_gender.weight"])
    # levels that the file leaves out answer one half
    for tap, face in (("conv3_3_norm", 3), ("fc7", 1), ("conv7_2", 1)):
        for channel in (0, 1):
            assert torch.equal(
                network.get_parameter(f"{tap}_gender.weight")[channel],
                state[f"{tap}_mbox_conf.weight"][face],
            )
            assert (
                network.get_parameter(f"{tap}_gender.bias")[channel]
                == state[f"{tap}_mbox_conf.bias"][face]
            )


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        (
            "clcarwin",
            {"fc6__weight": torch.zeros(1024, 512, 1, 1)},
            r"fc6.weight has shape \(1024, 512, 1, 1\), expected \(1024, 512, 3, 3\)",
        ),
        (
            "yxlijun",
            {"conf.0.weight": torch.zeros(2, 256, 3, 3)},
            r"conv3_3_norm_mbox_conf.weight has shape \(2, 256, 3, 3\), expected \(4,",
        ),
        (
            "clcarwin",
            {"conv7_2__bias": None},
            r"1 tensors missing, 0 unknown \(first: conv7_2.bias",
        ),
        ("clcarwin", {"fc8__bias": torch.zeros(2)}, r"0 tensors missing, 1 unknown \(first: fc8"),
        ("yxlijun", {"cpm.0.weight": torch.zeros(2)}, r"not a plain S3FD: unknown layer cpm.0"),
        ("yxlijun", {"L2Norm3_3.weight": None}, r"not an S3FD checkpoint of a known kind.*vgg.0"),
        ("clcarwin", {"fc7__bias": torch.full((1024,), torch.nan)}, r"fc7.bias .* not finite"),
        (
            "clcarwin",
            {"fc7_gender__weight": torch.zeros(2, 512, 3, 3), "fc7_gender__bias": torch.zeros(2)},
            r"fc7_gender.weight has shape \(2, 512, 3, 3\), expected \(2, 1024, 3, 3\)",
        ),
    ],
)
def test_other_networks_are_one_line_errors(
    family: str,
    changes: dict[str, Tensor | None],
    message: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    path = tmp_path / "other.pth"
    torch.save(changed(small(request.getfixturevalue(family)), **changes), path)
    with pytest.raises(ModelError, match=message) as caught:
        checkpoints.import_checkpoint(path)
    check_one_line(caught.value, path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "found nothing"),
        (torch.zeros(3), "holds a Tensor, expected a state dict"),
        ({"epoch": 3}, "'epoch' is a int"),
        ({"features.0.weight": torch.zeros(64, 3, 3, 3)}, "found features.0.weight"),
    ],
)
def test_files_without_s3fd_are_one_line_errors(
    content: object, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "other.pth"
    torch.save(content, path)
    with pytest.raises(ModelError, match=message) as caught:
        checkpoints.import_checkpoint(path)
    check_one_line(caught.value, path)
