"""Data of inputs that are done, kept until the run is that they belong to.

A run that was stopped, or in which something failed, leaves a hidden folder beside its first data
file. The same command then takes from there what is of the same content, settings and weights.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from videogender.jobs.manifest import looks_of
from videogender.sinks.atomic import pending
from videogender.weights_store import sha256_of

__all__ = ["Counts", "Kept"]

_SIZE = struct.Struct("<Q")


class Counts(NamedTuple):
    """What was found in an input."""

    frames: int
    faces: int


class Kept:
    """A file an input: a line of JSON on what it was made of, then the pieces with their sizes.

    Args:
        data_file: the first of the run's.
        way: stands for settings, weights, and which data are wanted.
    """

    def __init__(self, data_file: Path, way: str) -> None:
        self.folder = data_file.with_name(f".{data_file.name}.videogender")
        self._way = way

    def counts(self, source: Path) -> Counts | None:
        """Return what was found in an input, or None if its data are not here."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            with self._file(source).open("rb") as file:
                line = json.loads(file.readline())
            if line["source"] == looks_of(source) or line["content"] == sha256_of(source):
                return Counts(int(line["frames"]), int(line["faces"]))
        return None

    def put(self, source: Path, counts: Counts, pieces: Iterable[bytes]) -> None:
        """Keep the data of an input; they are there when all of them are.

        Raises:
            OSError: there is no room.
            OutputError: likewise.
        """
        self.folder.mkdir(mode=0o700, exist_ok=True)
        made_of = {"source": looks_of(source), "content": sha256_of(source)}
        with pending(self._file(source), force=True) as place, place.open("wb") as file:
            file.write(json.dumps({**made_of, **counts._asdict()}).encode() + b"\n")
            for piece in pieces:
                file.write(_SIZE.pack(len(piece)) + piece)

    def take(self, source: Path) -> Iterator[bytes]:
        """Yield the pieces of an input, in order.

        Raises:
            OSError: they cannot be read.
        """
        with self._file(source).open("rb") as file:
            file.readline()
            while head := file.read(_SIZE.size):
                yield file.read(_SIZE.unpack(head)[0])

    def close(self) -> None:
        """Forget everything: the run is complete."""
        with suppress(OSError):
            shutil.rmtree(self.folder)

    def _file(self, source: Path) -> Path:
        text = f"{self._way}\n{source}"
        return self.folder / hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()
