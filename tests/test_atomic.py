"""A pending file: the target's name appears at success alone, and nothing is left at failure."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from videogender.errors import OutputError
from videogender.sinks.atomic import pending


def test_target_appears_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"
    with pending(target) as place:
        assert place.parent == tmp_path
        assert place.suffix == ".mp4"
        assert place.name.startswith(".")
        place.write_bytes(b"whole")
        assert not target.exists()
    assert target.read_bytes() == b"whole"
    assert os.listdir(tmp_path) == ["out.mp4"]


def test_permissions_are_those_of_a_new_file(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    with pending(tmp_path / "out.mp4") as place:
        place.write_bytes(b"")
    assert (tmp_path / "out.mp4").stat().st_mode == plain.stat().st_mode


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_failure_leaves_the_old_file_alone(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "out.mp4"
    target.write_bytes(b"old")

    def write_half() -> None:
        with pending(target, force=True) as place:
            place.write_bytes(b"half")
            raise error

    with pytest.raises(error):
        write_half()
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["out.mp4"]


def test_existing_target_needs_force(tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"
    target.write_bytes(b"old")
    with pytest.raises(OutputError, match=r"out\.mp4: exists already; --force"), pending(target):
        pytest.fail("the block must not run")
    with pending(target, force=True) as place:
        place.write_bytes(b"new")
    assert target.read_bytes() == b"new"


def test_errors_name_the_target(tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"

    def fail() -> None:
        with pending(target) as place:
            raise OutputError(f"{place}: the disk is full")

    with pytest.raises(OutputError) as caught:
        fail()
    assert str(caught.value) == f"{target}: the disk is full"


def test_target_made_by_another_meanwhile_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"

    def write_late() -> None:
        with pending(target) as place:
            place.write_bytes(b"ours")
            target.write_bytes(b"theirs")

    with pytest.raises(OutputError, match="exists already"):
        write_late()
    assert target.read_bytes() == b"theirs"
    assert os.listdir(tmp_path) == ["out.mp4"]


def test_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real.mp4").write_bytes(b"old")
    (tmp_path / "link.mp4").symlink_to("real.mp4")
    with pending(tmp_path / "link.mp4", force=True) as place:
        place.write_bytes(b"new")
    assert (tmp_path / "link.mp4").is_symlink()
    assert (tmp_path / "real.mp4").read_bytes() == b"new"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (".", "is a folder"),
        ("missing/out.mp4", "does not exist"),
        ("file/out.mp4", "does not exist"),
        ("pipe.mp4", "not a regular file"),
        ("n" * 300 + ".mp4", "cannot be written"),
    ],
)
def test_impossible_targets(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(OutputError, match=message) as caught, pending(tmp_path / name, force=True):
        pytest.fail("the block must not run")
    assert "\n" not in str(caught.value)


def leftover(folder: Path, *, age_seconds: float = 3600.0) -> Path:
    """Make a temporary file as a killed process leaves it."""
    path = folder / ".videogender-0123456789ab.mp4"
    path.write_bytes(b"half")
    then = time.time() - age_seconds
    os.utime(path, (then, then))
    return path


@pytest.mark.skipif(sys.platform == "win32", reason="needs file locks")
def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    left = leftover(tmp_path)
    other = tmp_path / ".hidden.mp4"
    other.write_bytes(b"not ours")
    with pending(tmp_path / "out.mp4"):
        assert not left.exists()
    assert sorted(os.listdir(tmp_path)) == [".hidden.mp4", "out.mp4"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs file locks")
def test_what_another_run_still_writes_is_kept(tmp_path: Path) -> None:
    with pending(tmp_path / "long.mp4") as busy:
        os.utime(busy, (0, 0))  # nothing was written for a long time
        young = leftover(tmp_path, age_seconds=1.0)
        with pending(tmp_path / "short.mp4"):
            assert busy.exists()
            assert young.exists()
        busy.write_bytes(b"whole")
    assert (tmp_path / "long.mp4").read_bytes() == b"whole"


def test_a_pipe_that_breaks_is_none_of_the_files(tmp_path: Path) -> None:
    with pytest.raises(BrokenPipeError), pending(tmp_path / "a.mp4"):
        raise BrokenPipeError
    assert list(tmp_path.iterdir()) == []
