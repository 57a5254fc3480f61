"""Fetches one file over HTTP: resumes, retries, and checks the digest that its name announces."""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from videogender import __version__
from videogender.errors import ModelError, OutputError
from videogender.weights_store import sha256_of

__all__ = ["Fetched", "announced_digest", "fetch", "file_name"]

CHUNK_BYTES = 1 << 18
LARGEST_BYTES = 2 << 30  # no weights we can use are larger; ends a stream that does not
RETRIED_STATUS = {408, 425, 429, 500, 502, 503, 504}

Progress = Callable[[int, int | None], None]


@dataclass(frozen=True, slots=True)
class Fetched:
    """A complete file.

    Attributes:
        path: where it lies.
        sha256: its digest, 64 digits.
        checked: whether the digest was compared with one that the file's name announces.
    """

    path: Path
    sha256: str
    checked: bool


class _TransferError(Exception):
    """The connection failed or ended early; asking again may help."""


def announced_digest(name: str) -> str | None:
    """Return the start of the SHA-256 that a file name like `s3fd-619a316812.pth` announces."""
    found = re.search(r"-([0-9a-f]{8,64})\.[^.]+$", name)
    return found[1] if found else None


def file_name(url: str) -> str:
    """Return the name of the file that an address leads to.

    Raises:
        ModelError: it is no http or https address, or names no file.
    """
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:
        parts = urllib.parse.urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.netloc or "@" in parts.netloc:
        shown = re.sub(r"//[^/]*@", "//…@", url)
        raise ModelError(f"{shown}: expected an http or https address, without a password")
    name = re.sub(r"[^A-Za-z0-9._-]", "_", urllib.parse.unquote(parts.path).rpartition("/")[2])
    if not name.strip("._"):
        raise ModelError(f"{url}: the address names no file")
    return name


def fetch(
    url: str,
    folder: Path,
    *,
    progress: Progress = lambda done, total: None,
    attempts: int = 5,
    pause_seconds: float = 1.0,
    timeout_seconds: float = 30.0,
) -> Fetched:
    """Fetch a file into a folder, continuing what an earlier call left unfinished there.

    Args:
        url: an http or https address whose path ends in the file's name.
        folder: where the file goes; created if need be.
        progress: called with the bytes that are here and the bytes there will be, if known.
        attempts: how often in a row a transfer may fail without bringing anything new.
        pause_seconds: wait before the second attempt; doubles from then on.
        timeout_seconds: how long a silent connection is waited for.

    Raises:
        ModelError: the address is of no use, the server refuses or cannot be reached, or the
            digest is not the announced one (the file is then removed).
        OutputError: the file cannot be written.
    """
    name = file_name(url)
    transfer = _Transfer(url, folder / name, progress, timeout_seconds)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _run(transfer, attempts, pause_seconds)
        return _finish(transfer)
    except OSError as error:  # of the disk: those of the connection do not come this far
        raise OutputError(
            f"{folder / name}: cannot be written: {error.strerror or error}"
        ) from error


def _run(transfer: _Transfer, attempts: int, pause_seconds: float) -> None:
    """Ask until the file is complete."""
    failures, best = 0, transfer.start()
    while True:
        try:
            transfer.attempt()
            return
        except _TransferError as broken:
            here = transfer.bytes_here
            failures = 1 if here > best else failures + 1
            best = max(best, here)
            if failures >= attempts:
                raise ModelError(
                    f"{transfer.url}: could not be fetched ({broken}); {here} bytes are kept: run "
                    "the command again to go on, or give another address with --url"
                ) from broken
            time.sleep(pause_seconds * 2 ** (failures - 1))


def _finish(transfer: _Transfer) -> Fetched:
    """Check the digest and give the file its name."""
    digest = sha256_of(transfer.part)
    announced = announced_digest(transfer.target.name)
    if announced and not digest.startswith(announced):
        transfer.discard()
        raise ModelError(
            f"{transfer.url}: not the announced file: its SHA-256 starts with "
            f"{digest[: len(announced)]}, its name says {announced}; removed"
        )
    transfer.part.replace(transfer.target)
    transfer.discard()
    return Fetched(transfer.target, digest, announced is not None)


class _Transfer:
    """One file on its way: `<name>.part` holds what is here, `<name>.part.json` where from."""

    def __init__(self, url: str, target: Path, progress: Progress, timeout_seconds: float) -> None:
        self.url = url
        self.target = target
        self.part = target.with_name(f"{target.name}.part")
        self.note = target.with_name(f"{target.name}.part.json")
        self._origin = hashlib.sha256(url.encode()).hexdigest()  # addresses can hold secrets
        self._progress = progress
        self._timeout_seconds = timeout_seconds
        self._validator = ""  # ETag or date: shows whether the rest belongs to what is here

    @property
    def bytes_here(self) -> int:
        """How much of the file has arrived."""
        return self.part.stat().st_size if self.part.exists() else 0

    def start(self) -> int:
        """Take up what an earlier run left, if it came from the same address; return its size."""
        try:
            note = json.loads(self.note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            note = {}
        if isinstance(note, dict) and note.get("origin") == self._origin:
            self._validator = str(note.get("validator", ""))
        else:
            self.discard()
        return self.bytes_here

    def discard(self) -> None:
        """Remove what has arrived."""
        self.part.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def attempt(self) -> None:
        """Ask once for what is missing; return when the file is complete.

        Raises:
            _TransferError: the connection failed, or the server is overloaded.
            ModelError: the server refuses.
        """
        here = self.bytes_here
        headers = {"User-Agent": f"videogender/{__version__}", "Accept-Encoding": "identity"}
        if here:
            headers["Range"] = f"bytes={here}-"
            if self._validator:
                headers["If-Range"] = self._validator
        request = urllib.request.Request(self.url, headers=headers)
        try:
            response = urllib.request.urlopen(request, timeout=self._timeout_seconds)
        except urllib.error.HTTPError as error:
            with error:
                return self._refused(error, here)
        except (http.client.InvalidURL, UnicodeError) as error:
            raise ModelError(f"{self.url}: not a usable address ({error})") from error
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or str(error) or type(error).__name__
            raise _TransferError(str(reason)) from error
        with response:
            return self._receive(response, here)

    def _refused(self, error: urllib.error.HTTPError, here: int) -> None:
        """Decide what a status that is not 2xx means; return if the file is complete."""
        if error.code == 416 and here:  # nothing follows what is here: all of it, or too much
            total = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
            if total and int(total[1]) == here:
                return
            self.discard()
            raise _TransferError("what was here did not fit; starting anew") from error
        if error.code in RETRIED_STATUS:
            raise _TransferError(f"HTTP {error.code} {error.reason}") from error
        raise ModelError(
            f"{self.url}: the server answers HTTP {error.code} {error.reason}; give another "
            "address with --url, or a file to `videogender weights import`"
        ) from error

    def _receive(self, response: http.client.HTTPResponse, here: int) -> None:
        """Append the body to what is here, or start anew where the server sends everything."""
        length = response.headers.get("Content-Length", "")
        total = int(length) if length.isdigit() else None
        if response.status == 206:
            sent = re.fullmatch(
                r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "")
            )
            if not sent or int(sent[1]) != here:
                self.discard()
                raise _TransferError("the server sent another part than asked for")
            total = int(sent[2]) if sent[2] != "*" else None if total is None else here + total
        elif response.status == 200:
            here = 0
        else:
            raise ModelError(f"{self.url}: the server answers HTTP {response.status}")
        etag = response.headers.get("ETag", "")
        strong = etag if etag.startswith('"') else ""
        self._validator = strong or response.headers.get("Last-Modified", "")
        self.note.write_text(json.dumps({"origin": self._origin, "validator": self._validator}))
        with self.part.open("ab" if here else "wb") as file:
            self._progress(here, total)
            while chunk := _read(response):
                file.write(chunk)
                here += len(chunk)
                if here > LARGEST_BYTES:
                    raise ModelError(f"{self.url}: more than {LARGEST_BYTES} bytes, given up")
                self._progress(here, total)
        if total is not None and here < total:
            raise _TransferError(f"the transfer ended after {here} of {total} bytes")
        if total is not None and here > total:
            self.discard()
            raise _TransferError("more arrived than the server had announced")


def _read(response: http.client.HTTPResponse) -> bytes:
    """Read some bytes; errors of the connection become `_TransferError`, unlike the disk's."""
    try:
        return response.read1(CHUNK_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise _TransferError(str(error) or type(error).__name__) from error
