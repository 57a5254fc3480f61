"""`videogender weights`, and the store behind it."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from file_server import serve
from public_s3fd import clcarwin_state, small, yxlijun_state
from safetensors.numpy import save_file

from videogender import weights_store
from videogender.cli.main import main
from videogender.errors import ModelError, OutputError
from videogender.network import checkpoints
from videogender.network.lite import Lite
from videogender.network.s3fd import S3FD
from videogender.weights_store import add_file, cached_path, known, resolve


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache of the test's own, removed at its end: vgg16 takes 90 MB."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("VIDEOGENDER_CACHE", str(folder))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def clcarwin_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("clcarwin") / "s3fd.pth"
    state = small(clcarwin_state())
    state["conv1_1.weight"] = torch.randn(64, 3, 3, 3)
    torch.save(state, path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def yxlijun_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("yxlijun") / "sfd_face.pth"
    torch.save({"epoch": 1, "weight": small(yxlijun_state())}, path)
    return path.read_bytes()


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def lite_file(path: Path, *, gender: bool = True, **metadata: str) -> Path:
    torch.manual_seed(len(metadata))
    checkpoints.save(Lite(gender), path, metadata)
    return path


def rows(output: str) -> dict[str, str]:
    """The lines of the table by the name at their start."""
    return {line.split()[0]: " ".join(line.split()) for line in output.splitlines() if line.strip()}


def test_list_of_an_empty_cache(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "list"]) == 0
    found = rows(capsys.readouterr().out)
    assert list(found) == ["name", "lite", "vgg16"]
    assert found["vgg16"] == "vgg16 vgg16 not here: videogender weights pull s3fd"
    assert not cache.exists()  # looking leaves nothing behind


def test_list_shows_what_is_there(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_file(lite_file(tmp_path / "mine.safetensors"))
    add_file(lite_file(tmp_path / "plain.safetensors", gender=False))
    (cache / "weights" / "broken.safetensors").write_bytes(b"nothing of use")
    assert main(["weights", "list"]) == 0
    found = rows(capsys.readouterr().out)
    for name, tells in (("mine", "gender"), ("plain", "faces only")):
        path = cache / "weights" / f"{name}.safetensors"
        size = f"{path.stat().st_size / 1e6:.1f} MB"
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
        assert found[name] == f"{name} lite {tells} {size} {digest} {path}"
    assert "damaged: " in found["broken"]


@pytest.mark.parametrize(
    ("task", "labels", "tells"),
    [
        ("attribute", ["mask", "no mask"], "gender; mask, no mask"),
        ("classifier", [f"id{n}" for n in range(10)], "pictures: id0, id1, id2, 7 more"),
        ("refeed", ["female", "male"], "second look: female, male"),
        ("gender", ["female", "male"], "gender"),
    ],
)
def test_list_says_what_weights_tell(
    cache: Path, capsys: pytest.CaptureFixture[str], task: str, labels: list[str], tells: str
) -> None:
    facts = {"task": task, "labels": json.dumps(labels), "model": "lite"}
    (cache / "weights").mkdir(parents=True)
    tensors = {"s8_gender.weight": np.zeros(1, np.float32)}
    save_file(tensors, cache / "weights" / "mine.safetensors", facts)
    assert main(["weights", "list"]) == 0
    assert f" lite {tells} 0.0 MB " in rows(capsys.readouterr().out)["mine"]


def test_list_needs_no_torch(tmp_path: Path) -> None:
    add_file(lite_file(tmp_path / "mine.safetensors"))
    program = (
        "import sys; from videogender.cli.main import main\n"
        "assert main(['weights', 'list']) == 0\n"
        "assert not {'torch', 'cv2', 'av'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "mine.safetensors" in done.stdout


def test_import_of_a_public_checkpoint(
    cache: Path, tmp_path: Path, yxlijun_bytes: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    source = written(tmp_path / "sfd_face.pth", yxlijun_bytes)
    assert main(["weights", "import", str(source)]) == 0
    said = capsys.readouterr().out.splitlines()
    path = cache / "weights" / "vgg16.safetensors"
    assert said == [
        "sfd_face.pth: yxlijun's layer names: fc6 with padding 6, dilation 6, trained on RGB; "
        "no gender heads",
        f"vgg16: model vgg16, {path.stat().st_size / 1e6:.1f} MB, {path}",
        "use it with --model vgg16",
        "it has no gender heads: every face is `unsure`",
    ]
    assert resolve("vgg16") == path
    network, metadata = checkpoints.load(path)
    assert isinstance(network, S3FD)
    assert network.mode == "dilated"
    assert metadata["source_sha256"] == hashlib.sha256(yxlijun_bytes).hexdigest()
    assert known()[1].path == path


def test_import_under_a_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = lite_file(tmp_path / "best.safetensors", temperature="1.5")
    assert main(["weights", "import", str(source), "--name", "summer.2"]) == 0
    assert "use it with --weights summer.2" in capsys.readouterr().out
    path = resolve("lite", "summer.2")
    assert path == cached_path("summer.2")
    assert path.read_bytes() == source.read_bytes()
    assert resolve("lite", "summer.2.safetensors") == path


def test_import_keeps_weights_that_have_the_name(tmp_path: Path) -> None:
    first = lite_file(tmp_path / "first.safetensors")
    second = lite_file(tmp_path / "second.safetensors", step="2")
    kept = add_file(first, "mine")
    assert add_file(first, "mine") == kept  # the same again
    with pytest.raises(OutputError, match="already called mine; give --force"):
        add_file(second, "mine")
    assert cached_path("mine").read_bytes() == first.read_bytes()
    assert main(["weights", "import", str(second), "--name", "mine"]) == 4
    assert main(["weights", "import", str(second), "--name", "mine", "--force"]) == 0
    assert cached_path("mine").read_bytes() == second.read_bytes()


@pytest.mark.parametrize("name", ["lite", "vgg16"])
def test_names_of_models_are_not_for_others(tmp_path: Path, name: str) -> None:
    source = lite_file(tmp_path / "mine.safetensors")
    with pytest.raises(ModelError, match=f"{name} is the name of a model"):
        add_file(source, name)


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "a b", "-x", "a\n"])
def test_names_that_no_file_should_have(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match="cannot name weights"):
        add_file(lite_file(tmp_path / "mine.safetensors"), name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a PyTorch checkpoint, or damaged"),
        (b"<html>", "not a PyTorch checkpoint, or damaged"),
        (None, "no such weights file"),
    ],
)
def test_import_of_what_is_no_checkpoint(
    cache: Path,
    tmp_path: Path,
    content: bytes | None,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "odd.pth"
    if content is not None:
        path.write_bytes(content)
    assert main(["weights", "import", str(path)]) == 5
    said = capsys.readouterr().err
    assert said.startswith(f"error: {path}: ")
    assert message in said
    assert len(said.splitlines()) == 1
    assert not list(cache.rglob("*"))


def test_a_cache_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VIDEOGENDER_CACHE", str(written(tmp_path / "file", b"in the way")))
    source = lite_file(tmp_path / "mine.safetensors")
    assert main(["weights", "import", str(source)]) == 4
    assert "cannot be created" in capsys.readouterr().err


def test_resolve_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="unknown model 'vgg19'; known are lite, vgg16"):
        resolve("vgg19")
    with pytest.raises(ModelError, match=r"weights pull s3fd`.*weights import FILE`"):
        resolve("vgg16")
    with pytest.raises(ModelError, match="no such weights file; `videogender weights list`"):
        resolve("lite", "nothing")
    with pytest.raises(ModelError, match="a folder, expected"):
        resolve("lite", str(tmp_path))
    own = lite_file(tmp_path / "mine.safetensors")
    assert resolve("lite", str(own)) == own


def test_the_cache_is_the_users_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    import platformdirs

    monkeypatch.delenv("VIDEOGENDER_CACHE")
    assert weights_store.cache_dir() == platformdirs.user_cache_path("videogender", False)
    monkeypatch.setenv("VIDEOGENDER_CACHE", "~/elsewhere")
    assert weights_store.cache_dir() == Path.home() / "elsewhere"


def test_pull_fetches_checks_and_imports(
    cache: Path, clcarwin_bytes: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = hashlib.sha256(clcarwin_bytes).hexdigest()
    with serve(clcarwin_bytes, breaks=[5_000]) as site:
        url = f"{site.address}python-fan/s3fd-{digest[:10]}.pth"
        assert main(["weights", "pull", "s3fd", "--url", url]) == 0
        said = capsys.readouterr()
        assert site.ranges_asked == [None, "bytes=5000-"]
        assert "clcarwin's layer names: fc6 with padding 3" in said.out
        assert "announces no SHA-256" not in said.out
        assert known()[1].metadata["source_sha256"] == digest
        assert list((cache / "downloads").iterdir()) == []
        # a second time there is nothing to fetch
        assert main(["weights", "pull", "s3fd", "--url", url]) == 0
        assert len(site.asked) == 2


def test_pull_of_the_wrong_file(
    cache: Path, clcarwin_bytes: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    with serve(clcarwin_bytes) as site:
        url = f"{site.address}s3fd-619a316812.pth"
        assert main(["weights", "pull", "s3fd", "--url", url, "--quiet"]) == 5
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "its name says 619a316812; removed" in said
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_pull_of_a_name_without_digits_says_the_digest(
    yxlijun_bytes: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    with serve(yxlijun_bytes, ranges=False) as site:
        assert main(["weights", "pull", "s3fd", "--url", f"{site.address}sfd_face.pth"]) == 0
    digest = hashlib.sha256(yxlijun_bytes).hexdigest()
    said = capsys.readouterr().out
    assert f"sfd_face.pth: its name announces no SHA-256; it is {digest}" in said


def test_pull_does_not_replace_other_weights(clcarwin_bytes: bytes, tmp_path: Path) -> None:
    torch.manual_seed(3)
    own = tmp_path / "own.safetensors"
    checkpoints.save(S3FD(gender=True), own, {})
    assert add_file(own).name == "vgg16"
    own.unlink()
    with serve(clcarwin_bytes) as site:
        url = f"{site.address}s3fd.pth"
        assert main(["weights", "pull", "s3fd", "--url", url]) == 4
        assert site.asked == []
        assert known()[1].has_gender
        assert main(["weights", "pull", "s3fd", "--url", url, "--force"]) == 0
    assert not known()[1].has_gender


def test_pull_of_something_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "pull", "resnet"]) == 5
    assert capsys.readouterr().err == ("error: nothing public is called 'resnet'; known are s3fd\n")


def test_the_public_address() -> None:
    model, url = weights_store.PUBLIC["s3fd"]
    assert model == "vgg16"
    assert url.endswith("/s3fd-619a316812.pth")
    assert url.startswith("https://")
