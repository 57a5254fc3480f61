"""What the data sinks share: a text file or standard output, written row by row."""

from __future__ import annotations

import io
import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from videogender.errors import OutputError
from videogender.frames import Faces, Frame
from videogender.text import printable

if TYPE_CHECKING:
    from videogender.zones.figures import Whereabouts

__all__ = ["RowSink", "Stdout", "Target", "TextSink", "plain", "rounded"]


class Stdout(io.TextIOBase):
    """Standard output, whose reader may leave before the end, as `head` does.

    Args:
        is_all: nothing else is written, so that there is no use in going on.

    Attributes:
        is_left: by its reader; what is written from then on goes nowhere.
    """

    def __init__(self, *, is_all: bool = True) -> None:
        self.is_left = False
        self._is_all = is_all

    def __str__(self) -> str:
        return "standard output"

    def or_file(self, target: str | Path) -> Path | Stdout:
        """Return where data go: here for `-`, else to a file.

        Raises:
            OutputError: standard output was closed before the run.
        """
        if str(target) != "-":
            return Path(target)
        if sys.__stdout__ is None:
            raise OutputError(f"{self}: is closed")
        return self

    def write(self, text: str) -> int:
        """Write text; a pipe's reader sees it at once.

        Raises:
            BrokenPipeError: nobody reads standard output any more, and it is all there is.
        """
        if not self.is_left:
            try:
                self._send(text)
            except BrokenPipeError:
                if self._is_all:
                    raise
                self.is_left = True
        return len(text)

    def _send(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    def check_read(self) -> None:
        """Tell, once all else is written, that its reader left before the end.

        Raises:
            OutputError: it did.
        """
        if self.is_left:
            raise OutputError(f"{self}: its reader left before the end; all else is written")


Target = Path | Stdout


class TextSink:
    """Text that streams to a file or to standard output.

    Args:
        target: the file, written in place (atomic naming is done outside), or standard output.
        name: what messages call the target; None takes `target` itself.

    Raises:
        OutputError: the file cannot be opened.
    """

    def __init__(self, target: Target, *, name: str | Path | None = None) -> None:
        self._is_stdout = isinstance(target, Stdout)
        self.name = str(target if name is None or self._is_stdout else name)
        if isinstance(target, Stdout):
            self._file: io.TextIOBase = target
            return
        try:
            self._file = target.open("w", encoding="utf-8", newline="")
        except OSError as error:
            raise self._failed(error) from error

    def put(self, text: str) -> None:
        """Write text as it is; a pipe's reader sees it at once.

        Raises:
            OutputError: the disk is full, or the file cannot be written for another reason.
            BrokenPipeError: nobody reads standard output any more.
        """
        try:
            self._file.write(printable(text))
        except BrokenPipeError:
            raise
        except OSError as error:
            raise self._failed(error) from error

    def mark(self) -> tuple[int, ...]:
        """Return a place to which `rollback` can return; empty on standard output."""
        if self._is_stdout:
            return ()
        try:
            return (self._file.tell(),)
        except OSError as error:
            raise self._failed(error) from error

    def rollback(self, mark: tuple[int, ...]) -> None:
        """Forget what was written since `mark`, as far as it can be taken back."""
        if not mark:
            return
        try:
            self._file.seek(mark[0])
            self._file.truncate()
        except OSError as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Write what is buffered and close the file; standard output stays open."""
        if self._is_stdout:
            return
        try:
            self._file.close()
        except OSError as error:
            raise self._failed(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except OutputError:
            if error is None:  # else the first error says more
                raise

    def _failed(self, error: OSError) -> OutputError:
        return OutputError(f"{self.name}: cannot write: {error.strerror or error}")


class RowSink(TextSink, ABC):
    """Frames and faces as text.

    Args:
        target: the file, or standard output.
        unsure_below: least probability of the winning label, 0.5 to 1.
        name: what messages call the target; None takes `target` itself.

    Raises:
        OutputError: the file cannot be opened.
    """

    def __init__(
        self, target: Target, *, unsure_below: float, name: str | Path | None = None
    ) -> None:
        super().__init__(target, name=name)
        self.unsure_below = unsure_below

    @abstractmethod
    def write(self, frame: Frame, faces: Faces, where: Whereabouts | None = None) -> None:
        """Write one frame.

        Args:
            frame: the frame.
            faces: the faces found in it.
            where: which zones they are in, or None while no zones are used.

        Raises:
            OutputError: the disk is full, or the file cannot be written for another reason.
            BrokenPipeError: nobody reads standard output any more.
        """


def plain(figures: Mapping[str, Any], digits: int | None = None) -> dict[str, Any]:
    """Return figures that JSON takes: what is not finite as null.

    Args:
        figures: by name; only numbers with a fraction are changed.
        digits: to round them to; None leaves them as they are.
    """

    def told(value: Any) -> Any:
        if not isinstance(value, float):
            return value
        if not math.isfinite(value):
            return None
        return value if digits is None else rounded(value, digits)

    return {name: told(value) for name, value in figures.items()}


def rounded(value: float, digits: int) -> float:
    """Round, and turn -0.0 into 0.0."""
    return round(value, digits) + 0.0
