"""Downloads from a server on loopback that breaks off, ignores ranges, or sends the wrong file."""

from __future__ import annotations

import hashlib
import os
import random
import socket
from pathlib import Path

import pytest
from file_server import serve

from videogender.download import announced_digest, fetch, file_name
from videogender.errors import ModelError, OutputError

CONTENT = random.Random(5).randbytes(700_001)
DIGEST = hashlib.sha256(CONTENT).hexdigest()
NAME = f"s3fd-{DIGEST[:10]}.pth"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def test_a_whole_file(tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    with serve(CONTENT) as site:
        found = fetch(
            site.address + NAME, tmp_path / "new", progress=lambda *step: seen.append(step)
        )
    assert found.path == tmp_path / "new" / NAME
    assert found.path.read_bytes() == CONTENT
    assert found.sha256 == DIGEST
    assert found.checked
    assert os.listdir(tmp_path / "new") == [NAME]
    assert len(site.asked) == 1
    assert seen[0] == (0, len(CONTENT))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_a_broken_transfer_goes_on_where_it_ended(tmp_path: Path) -> None:
    with serve(CONTENT, breaks=[300_000, 0, 1]) as site:
        found = fetch(site.address + NAME, tmp_path, pause_seconds=0)
    assert found.path.read_bytes() == CONTENT
    assert site.ranges_asked == [None, "bytes=300000-", "bytes=300000-", "bytes=300001-"]
    assert site.asked[1]["If-Range"] == '"one"'


def test_a_later_run_goes_on_where_the_first_ended(tmp_path: Path) -> None:
    with serve(CONTENT, breaks=[300_000, 0]) as site:
        with pytest.raises(ModelError, match="300000 bytes are kept: run the command again"):
            fetch(site.address + NAME, tmp_path, attempts=1)
        found = fetch(site.address + NAME, tmp_path, pause_seconds=0)
    assert found.path.read_bytes() == CONTENT
    assert site.ranges_asked == [None, "bytes=300000-", "bytes=300000-"]
    assert os.listdir(tmp_path) == [NAME]


def test_a_server_without_ranges_is_asked_for_everything_again(tmp_path: Path) -> None:
    with serve(CONTENT, ranges=False, breaks=[300_000, 5]) as site:
        found = fetch(site.address + NAME, tmp_path, pause_seconds=0)
    assert found.path.read_bytes() == CONTENT
    assert len(site.asked) == 3


def test_a_file_that_changed_meanwhile_is_not_mixed(tmp_path: Path) -> None:
    with serve(CONTENT[::-1], breaks=[300_000]) as site:
        with pytest.raises(ModelError):
            fetch(site.address + "plain.pth", tmp_path, attempts=1)
        site.content, site.etag = CONTENT, '"two"'
        found = fetch(site.address + "plain.pth", tmp_path)
    assert site.asked[1]["If-Range"] == '"one"'
    assert found.path.read_bytes() == CONTENT


def test_a_part_from_another_address_is_not_used(tmp_path: Path) -> None:
    with serve(CONTENT, breaks=[300_000]) as site:
        with pytest.raises(ModelError):
            fetch(site.address + "a/" + NAME, tmp_path, attempts=1)
        found = fetch(site.address + "b/" + NAME, tmp_path)
    assert site.ranges_asked == [None, None]
    assert found.path.read_bytes() == CONTENT


def test_a_part_that_is_already_complete(tmp_path: Path) -> None:
    with serve(CONTENT, breaks=[300_000]) as site:
        with pytest.raises(ModelError):
            fetch(site.address + NAME, tmp_path, attempts=1)
        (tmp_path / f"{NAME}.part").write_bytes(CONTENT)
        found = fetch(site.address + NAME, tmp_path)
    assert site.ranges_asked[1] == f"bytes={len(CONTENT)}-"
    assert found.path.read_bytes() == CONTENT


def test_a_part_that_is_too_long_is_fetched_anew(tmp_path: Path) -> None:
    with serve(CONTENT, breaks=[300_000]) as site:
        with pytest.raises(ModelError):
            fetch(site.address + NAME, tmp_path, attempts=1)
        (tmp_path / f"{NAME}.part").write_bytes(CONTENT + b"more")
        found = fetch(site.address + NAME, tmp_path, pause_seconds=0)
    assert found.path.read_bytes() == CONTENT


def test_a_server_that_sends_another_range_than_asked_for(tmp_path: Path) -> None:
    with serve(CONTENT, breaks=[300_000], shift=1) as site:
        found = fetch(site.address + NAME, tmp_path, pause_seconds=0)
    assert found.path.read_bytes() == CONTENT
    assert site.ranges_asked == [None, "bytes=300000-", None]


def test_a_wrong_file_is_refused_and_removed(tmp_path: Path) -> None:
    with serve(CONTENT[:-1] + b"?") as site, pytest.raises(ModelError) as caught:
        fetch(site.address + NAME, tmp_path)
    assert f"its name says {DIGEST[:10]}; removed" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_a_body_of_unknown_length_is_checked_by_its_digest(tmp_path: Path) -> None:
    with serve(CONTENT, sends_length=False, etag="") as site:
        assert fetch(site.address + NAME, tmp_path).path.read_bytes() == CONTENT
        site.breaks = [300_000]
        with pytest.raises(ModelError, match="not the announced file"):
            fetch(site.address + NAME, tmp_path / "again")


def test_a_name_without_digits_is_not_checked(tmp_path: Path) -> None:
    with serve(CONTENT) as site:
        found = fetch(site.address + "sfd_face.pth?download=1", tmp_path)
    assert not found.checked
    assert found.sha256 == DIGEST
    assert found.path.name == "sfd_face.pth"


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(tmp_path: Path, status: int) -> None:
    with serve(CONTENT, statuses=[status, status]) as site:
        found = fetch(site.address + NAME, tmp_path, pause_seconds=0)
    assert found.path.read_bytes() == CONTENT
    assert len(site.asked) == 3


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_is_final(tmp_path: Path, status: int) -> None:
    with serve(CONTENT, statuses=[status]) as site, pytest.raises(ModelError) as caught:
        fetch(site.address + NAME, tmp_path)
    assert f"HTTP {status}" in str(caught.value)
    assert "--url" in str(caught.value)
    assert len(site.asked) == 1


def test_a_server_that_stays_silent_is_given_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/{NAME}"
        with pytest.raises(ModelError, match="timed out"):
            fetch(url, tmp_path, attempts=2, pause_seconds=0, timeout_seconds=0.1)


def test_a_port_where_nobody_listens(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(ModelError, match=r"could not be fetched .*refused"):
        fetch(f"http://127.0.0.1:{port}/{NAME}", tmp_path, attempts=2, pause_seconds=0)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with serve(CONTENT) as site, pytest.raises(OutputError, match="cannot be written"):
        fetch(site.address + NAME, tmp_path / "file" / "folder")


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://localhost/a.pth",
        "s3fd.pth",
        "",
        "http:///a.pth",
        "http://[::1/a.pth",
        "http://user:secret@localhost/a.pth",
        "http://localhost/",
        "http://localhost/..",
        "http://localhost:port/a.pth",
    ],
)
def test_addresses_that_are_of_no_use(url: str, tmp_path: Path) -> None:
    expected = r"expected an http|names no file|not a usable address"
    with pytest.raises(ModelError, match=expected) as caught:
        fetch(url, tmp_path, attempts=1)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://host/a/s3fd-619a316812.pth", "s3fd-619a316812.pth"),
        ("https://host/a%20b.pth?x=/y#z", "a_b.pth"),
        ("https://host/a/..%2f..%2fetc%2fpasswd", "passwd"),
    ],
)
def test_file_name_stays_in_its_folder(url: str, name: str) -> None:
    assert file_name(url) == name


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("s3fd-619a316812.pth", "619a316812"),
        ("resnet18-f37072fd.pth", "f37072fd"),
        ("2DFAN4-cd938726ad.zip", "cd938726ad"),
        ("sfd_face.pth", None),
        ("my-model.pth", None),
        ("run-2024.pth", None),
        ("a-619a316812-b.pth", None),
    ],
)
def test_announced_digest(name: str, digest: str | None) -> None:
    assert announced_digest(name) == digest
