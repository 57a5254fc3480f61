"""Weights files of our own, and files that are damaged or dangerous."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from public_s3fd import State, check_one_line, clcarwin_state, small
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from videogender.errors import ModelError, OutputError
from videogender.network import checkpoints
from videogender.network.lite import Lite
from videogender.network.s3fd import S3FD


@pytest.fixture(scope="module")
def clcarwin() -> State:
    return small(clcarwin_state())


@pytest.mark.parametrize("gender", [True, False])
def test_vgg16_round_trip_with_and_without_gender(gender: bool, tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = S3FD("dilated", gender=gender)
    path = tmp_path / "vgg16.safetensors"
    checkpoints.save(network, path, {"temperature": "1.25"})
    found, metadata = checkpoints.load(path)
    size = path.stat().st_size
    path.unlink()
    assert found.has_gender is gender
    assert isinstance(found, S3FD)
    assert found.mode == metadata["mode"] == "dilated"
    assert metadata["temperature"] == "1.25"
    assert size < 46e6  # fp16
    for key, value in network.state_dict().items():
        assert torch.equal(found.state_dict()[key], value.half().float())


@pytest.mark.parametrize("gender", [True, False])
def test_lite_round_trip(gender: bool, tmp_path: Path) -> None:
    torch.manual_seed(2)
    network = Lite(gender)
    network(torch.randn(2, 3, 96, 96))  # running statistics of their own
    checkpoints.save(network, tmp_path / "lite.safetensors", {}, half=False)
    found, metadata = checkpoints.load(tmp_path / "lite.safetensors")
    assert metadata == {"format": "videogender-1", "model": "lite"}
    assert found.has_gender is gender
    assert not found.training
    x = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        expected = network.eval()(x)
        got = found(x)
    assert torch.equal(got.face_logits, expected.face_logits)
    # and it can be trained on, or folded, like one that was never in a file
    found.requires_grad_(True).train()(x).face_logits.sum().backward()
    assert found.get_parameter("stem.0.conv.weight").grad is not None


def test_own_files_are_imported_as_they_are(tmp_path: Path) -> None:
    checkpoints.save(Lite(), tmp_path / "mine.safetensors", {"temperature": "2"})
    network, metadata = checkpoints.import_checkpoint(tmp_path / "mine.safetensors")
    assert isinstance(network, Lite)
    assert metadata["temperature"] == "2"


class Hostile:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("form", ["zip", "old", "plain pickle"])
def test_a_hostile_pickle_runs_nothing(clcarwin: State, tmp_path: Path, form: str) -> None:
    marker, path = tmp_path / "ran", tmp_path / "hostile.pth"
    state = {**clcarwin, "extra": Hostile(marker)}
    if form == "plain pickle":
        path.write_bytes(pickle.dumps({"extra": Hostile(marker)}, protocol=2))
        pickle.loads(path.read_bytes())
        assert marker.is_dir()  # it would have run
        marker.rmdir()
    else:
        torch.save(state, path, _use_new_zipfile_serialization=form == "zip")
        torch.load(path, weights_only=False)
        assert marker.is_dir()
        marker.rmdir()
    with pytest.raises(ModelError, match="could run code, so it is not read") as caught:
        checkpoints.import_checkpoint(path)
    assert not marker.exists()
    assert "weights_only" not in str(caught.value)


def test_a_pickled_module_is_not_read(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(ModelError, match=r"save the state dict alone"):
        checkpoints.import_checkpoint(tmp_path / "module.pth")


def _garbage(path: Path, good: bytes) -> None:
    path.write_bytes(b"<html>not found</html>" * 9)


def _empty(path: Path, good: bytes) -> None:
    path.write_bytes(b"")


def _half(path: Path, good: bytes) -> None:
    path.write_bytes(good[: len(good) // 2])


def _tail(path: Path, good: bytes) -> None:
    path.write_bytes(good[:-100])


@pytest.mark.parametrize("damage", [_garbage, _empty, _half, _tail])
@pytest.mark.parametrize("form", ["zip", "old", "safetensors"])
def test_damaged_files_are_one_line_errors(
    clcarwin: State,
    tmp_path: Path,
    form: str,
    damage: Callable[[Path, bytes], None],
) -> None:
    path = tmp_path / "damaged.bin"
    if form == "safetensors":
        save_file({"conv1_1.weight": torch.randn(64, 3, 3, 3)}, path)
    else:
        state = {**clcarwin, "conv1_1.weight": torch.randn(64, 3, 3, 3)}
        torch.save(state, path, _use_new_zipfile_serialization=form == "zip")
    damage(path, path.read_bytes())
    with pytest.raises(ModelError, match=r"damaged|not a readable safetensors") as caught:
        checkpoints.import_checkpoint(path)
    check_one_line(caught.value, path)


def test_a_missing_file(tmp_path: Path) -> None:
    for read in (checkpoints.load, checkpoints.import_checkpoint):
        with pytest.raises(ModelError, match="no such weights file"):
            read(tmp_path / "none.safetensors")


@pytest.mark.parametrize("damage", [_garbage, _empty, _half, _tail])
def test_load_of_a_damaged_file(tmp_path: Path, damage: Callable[[Path, bytes], None]) -> None:
    path = tmp_path / "lite.safetensors"
    checkpoints.save(Lite(), path, {})
    damage(path, path.read_bytes())
    with pytest.raises(ModelError, match="not a readable safetensors file") as caught:
        checkpoints.load(path)
    check_one_line(caught.value, path)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, "made for model 'unknown', expected one of lite, vgg16"),
        ({"model": "resnet"}, "made for model 'resnet'"),
        ({"model": "vgg16"}, "gives 'nothing' as mode, expected padded or dilated"),
        ({"model": "vgg16", "mode": "x"}, "gives 'x' as mode"),
        ({"model": "vgg16", "mode": "padded"}, "does not fit model 'vgg16': 65 tensors missing"),
        ({"model": "lite"}, "does not fit model 'lite'"),
    ],
)
def test_load_of_a_foreign_file(metadata: dict[str, str], message: str, tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    save_file({"a": torch.zeros(2)}, path, metadata=metadata)
    with pytest.raises(ModelError, match=message) as caught:
        checkpoints.load(path)
    check_one_line(caught.value, path)


def test_save_replaces_whole_files_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "lite.safetensors"
    checkpoints.save(Lite(), path, {"step": "1"})
    checkpoints.save(Lite(), path, {"step": "2"})
    with safe_open(path, framework="pt") as file:
        assert file.metadata()["step"] == "2"
    assert os.listdir(tmp_path) == ["lite.safetensors"]
    with pytest.raises(OutputError, match="could not be written"):
        checkpoints.save(Lite(), tmp_path / "none" / "lite.safetensors", {})
    (tmp_path / "folder.safetensors").mkdir()  # fails at the last step, when all is written
    with pytest.raises(OutputError, match="could not be written"):
        checkpoints.save(Lite(), tmp_path / "folder.safetensors", {})
    assert sorted(os.listdir(tmp_path)) == ["folder.safetensors", "lite.safetensors"]


def test_a_file_that_changes_later_does_not_change_the_network(tmp_path: Path) -> None:
    path = tmp_path / "lite.safetensors"
    checkpoints.save(Lite(), path, {}, half=False)
    network, _ = checkpoints.load(path)
    before = network.get_parameter("stem.0.conv.weight").clone()
    with path.open("r+b") as file:
        file.seek(-path.stat().st_size // 2, os.SEEK_END)
        file.write(b"\0" * (path.stat().st_size // 2))
    assert torch.equal(network.get_parameter("stem.0.conv.weight"), before)


def test_checkpoints_need_no_platformdirs() -> None:
    program = (
        "import sys; sys.modules['platformdirs'] = None\n"
        "import videogender.network.checkpoints, videogender.weights_store as store\n"
        "store.resolve('lite', store.__file__)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
