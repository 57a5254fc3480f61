"""Stops that another process asks for, as Ctrl-C where they are awaited and nowhere else."""

from __future__ import annotations

import _thread
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Stops"]


class Stops:
    """Raises KeyboardInterrupt in the main thread, once for each time it is asked to.

    Make it there. A terminal sends its Ctrl-C to every process of a run; that is ignored here, as
    the caller's process decides who stops and when.
    """

    def __init__(self) -> None:
        self._asked = 0
        self._raised = 0
        self._is_armed = False
        self._is_held = False
        signal.signal(signal.SIGINT, self._on_signal)

    def ask(self) -> None:
        """Ask for a stop, from any thread."""
        self._asked += 1
        _thread.interrupt_main()

    @contextmanager
    def armed(self) -> Iterator[None]:
        """Let stops come inside the block, also those that were asked for before."""
        self._is_armed = True
        try:
            self._check()
            yield
        finally:
            self._is_armed = False

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep stops back until the end of the block; in other threads they never come."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._is_held = True
        try:
            yield
        finally:
            self._is_held = False
        self._check()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._check()

    def _check(self) -> None:
        if self._is_armed and not self._is_held and self._asked > self._raised:
            self._raised += 1
            raise KeyboardInterrupt
