"""Data of inputs whose turn has not come, on disk: memory does not grow with their number."""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

__all__ = ["Spool"]


class Spool:
    """Pieces of bytes for each of many inputs, in nameless files that vanish with the process.

    Args:
        folder: holds the files; None takes that of the system for temporary files.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._open: dict[int, tuple[BinaryIO, array[int]]] = {}  # still coming in
        self._waiting: dict[int, array[int]] = {}  # complete: where in the store, then sizes
        self._store: BinaryIO | None = None  # one for all of these, as open files are scarce

    def add(self, key: int, piece: bytes) -> None:
        """Keep one more piece of an input.

        Raises:
            OSError: there is no room.
        """
        if key not in self._open:
            self._open[key] = self._file(), array("q")
        file, sizes = self._open[key]
        file.write(piece)
        sizes.append(len(piece))

    def put_by(self, key: int) -> None:
        """Take an input as complete that has to wait for longer.

        Raises:
            OSError: there is no room.
        """
        if key not in self._open:
            return
        if self._store is None:
            self._store = self._file()
        place = self._store.seek(0, 2)
        sizes = array("q", [place])
        for piece in self.take(key):
            self._store.write(piece)
            sizes.append(len(piece))
        self._waiting[key] = sizes

    def take(self, key: int) -> Iterator[bytes]:
        """Yield the pieces of an input in order, and forget them."""
        file: BinaryIO | None
        if key in self._open:
            file, sizes = self._open[key]
            file.seek(0)
        elif key in self._waiting and self._store is not None:
            file = self._store
            place, sizes = self._waiting[key][0], self._waiting[key][1:]
            file.seek(place)
        else:
            return
        try:
            for size in sizes:
                yield file.read(size)
        finally:
            self.drop(key)

    def drop(self, key: int) -> None:
        """Forget what was kept of an input, if anything."""
        if key in self._open:
            self._open.pop(key)[0].close()
        if self._waiting.pop(key, None) is not None and not self._waiting and self._store:
            self._store.seek(0)
            self._store.truncate()

    def close(self) -> None:
        """Forget everything."""
        for file, _ in self._open.values():
            file.close()
        if self._store is not None:
            self._store.close()

    def _file(self) -> BinaryIO:
        return tempfile.TemporaryFile(dir=self._folder, prefix=".videogender-")
