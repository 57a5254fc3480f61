"""What the data files of a run are told, recorded in one process and told in another."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import replace
from io import BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from videogender.frames import Faces, Frame, NoPicture
from videogender.jobs.messages import Setup
from videogender.outputs import DataOutputs, RunOutputs

if TYPE_CHECKING:
    from videogender.zones.figures import Whereabouts

__all__ = ["Piece", "Recording", "replay"]

# Frames that are sent together.
ROWS_A_PIECE = 64

# Where the classes of what is recorded come from, and what else it takes to make values of them.
_HOMES = tuple(
    f"videogender.{place}" for place in ("frames", "jobs.record", "reports.", "tracking.", "zones.")
)
_MAKERS = {
    *(
        (f"numpy.{core}.multiarray", name)
        for core in ("core", "_core")
        for name in ("_reconstruct", "scalar")
    ),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("array", "_array_reconstructor"),
    ("array", "array"),
    ("collections", "Counter"),
    ("collections", "defaultdict"),
    ("collections", "OrderedDict"),
}

Row = tuple[Frame, Faces, "Whereabouts | None"]


class Piece(NamedTuple):
    """Some rows, or what an input adds to the summaries or to the report."""

    rows: list[Row]
    summary: Any = None
    section: Any = None


class Recording(RunOutputs):
    """Stands for the open data files of a run, and sends on what they are told.

    The files that an input has for itself are written as ever.

    Args:
        setup: which files there are.
        force: existing files may be replaced.
        send: takes each piece, pickled; called from several threads, though never at once.
    """

    def __init__(self, setup: Setup, force: bool, send: Callable[[bytes], None]) -> None:
        super().__init__(ExitStack(), DataOutputs(), setup.settings, "", force)
        self._send = send
        self._waiting: list[Row] = []
        if setup.wants_rows:
            self.rows.append(_RowEnd(self._add_row))
        if setup.wants_summaries:
            self.summaries = _PieceEnd(lambda summary: self._put(Piece([], summary=summary)))
        if setup.wants_sections:
            self.report = _PieceEnd(lambda section: self._put(Piece([], section=section)))

    def flush(self) -> None:
        """Send the rows that still wait."""
        if self._waiting:
            rows, self._waiting = self._waiting, []
            self._put(Piece(rows))

    def _add_row(self, row: Row) -> None:
        self._waiting.append(row)
        if len(self._waiting) >= ROWS_A_PIECE:
            self.flush()

    def _put(self, piece: Piece) -> None:
        self._send(pickle.dumps(piece, pickle.HIGHEST_PROTOCOL))


def replay(pieces: Iterable[bytes], outputs: RunOutputs, *, were_kept: bool = False) -> None:
    """Tell the data files of a run what a recording was told.

    Args:
        pieces: as the recording sent them.
        outputs: the open files; they want what the recording was set up for.
        were_kept: they do not come from a worker of this very run.

    Raises:
        OutputError: one of them cannot be written.
        pickle.UnpicklingError: these are no pieces of a recording.
    """
    for data in pieces:
        made = _Unpickler(BytesIO(data)).load() if were_kept else pickle.loads(data)
        piece = cast(Piece, made)
        for frame, faces, where in piece.rows:
            for sink in outputs.rows:
                sink.write(frame, faces, where)
        if piece.summary is not None and outputs.summaries is not None:
            outputs.summaries.add(piece.summary)
        if piece.section is not None and outputs.report is not None:
            outputs.report.add(piece.section)


class _Unpickler(pickle.Unpickler):
    """Makes plain values alone: kept data lie in a folder where strangers may have been."""

    def find_class(self, module: str, name: str) -> Any:
        known = (module, name) in _MAKERS or module.startswith(_HOMES)
        found = super().find_class(module, name) if known and "." not in name else None
        # of a module of ours its own classes, none of which does anything when it is made
        is_ours = isinstance(found, type) and found.__module__ == module
        if found is None or not (is_ours or (module, name) in _MAKERS):
            raise pickle.UnpicklingError(f"{module}.{name} has no place in kept data")
        return found


class _End:
    """The caller's process forgets what a failed input sent: nothing is to be undone here."""

    def mark(self) -> tuple[int, ...]:
        return ()

    def rollback(self, mark: tuple[int, ...]) -> None:
        pass


class _RowEnd(_End):
    def __init__(self, take: Callable[[Row], None]) -> None:
        self._take = take

    def write(self, frame: Frame, faces: Faces, where: Whereabouts | None = None) -> None:
        size = NoPicture(frame.width, frame.height)
        self._take((replace(frame, picture=size), faces, where))


class _PieceEnd(_End):
    def __init__(self, take: Callable[[Any], None]) -> None:
        self._take = take

    def add(self, piece: Any, /) -> None:
        self._take(piece)
