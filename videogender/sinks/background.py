"""BackgroundStdout: standard output in a thread of its own, so that no reader holds a run up."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque

from videogender.errors import OutputError
from videogender.sinks.rows import Stdout

__all__ = ["BackgroundStdout"]

# Half a minute of frames may wait for a reader that stands still.
_MOST_WAITING = 1000
_LAST_SECONDS = 1.0


class BackgroundStdout(Stdout):
    """Standard output of a live run, whose reader may be slow; what it is too slow for is lost.

    That its reader has left, or that it cannot be written, is told with the next write.

    Args:
        is_all: nothing else is written, so that there is no use in going on.

    Attributes:
        lost: how often there was no room for what was to be written.
    """

    def __init__(self, *, is_all: bool = True) -> None:
        super().__init__(is_all=is_all)
        self.lost = 0
        self._error: OSError | None = None
        self._ending = False
        self._waiting: deque[str] = deque()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="videogender-stdout", daemon=True)

    def close(self) -> None:
        """Wait a moment until all is written. May be called twice."""
        if not self.closed and self._thread.ident is not None:
            with self._changed:
                self._ending = True
                self._changed.notify()
            self._thread.join(_LAST_SECONDS)
            if self._error is None:
                self.lost += len(self._waiting) + self._thread.is_alive()
        super().close()

    def check_read(self) -> None:
        """Tell, once all is written, what went wrong; see `Stdout`.

        Raises:
            OutputError: its reader left before the end, or it could not be written.
            BrokenPipeError: its reader left, and it is all there is.
        """
        if isinstance(self._error, BrokenPipeError):
            self.write("")
        elif self._error is not None:
            reason = self._error.strerror or self._error
            raise OutputError(f"{self}: cannot write: {reason}") from self._error
        super().check_read()

    def _send(self, text: str) -> None:
        if self._error is not None:
            raise self._error
        if self._thread.ident is None:
            self._thread.start()
        with self._changed:
            if len(self._waiting) < _MOST_WAITING:
                self._waiting.append(text)
                self._changed.notify()
            else:
                self.lost += 1

    def _run(self) -> None:
        try:
            while (text := self._next()) is not None:
                _write(text)
        except OSError as error:
            self._error = error

    def _next(self) -> str | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ending)
            return self._waiting.popleft() if self._waiting else None


def _write(text: str) -> None:
    """Write beside `sys.stdout`: Python's exit would wait for its lock as long as this waits."""
    try:
        number = sys.stdout.fileno()
    except (OSError, ValueError):  # somebody has put another file in its place
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    rest = text.encode()
    while rest:
        rest = rest[os.write(number, rest) :]
