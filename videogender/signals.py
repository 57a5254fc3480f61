"""Signals: a handler of one's own for a while, and how a stop tells which one it was."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["Stopped", "exit_code_of", "handling"]


class Stopped(KeyboardInterrupt):
    """A signal ended the work, in order.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__("stopped")
        self.number = number


def exit_code_of(stop: BaseException) -> int:
    """Return 128 and the number of the signal that ended a run; it is Ctrl-C if nobody says."""
    return 128 + (stop.number if isinstance(stop, Stopped) else signal.SIGINT)


@contextmanager
def handling(
    numbers: Sequence[int], handler: Callable[[int, FrameType | None], Any] | signal.Handlers
) -> Iterator[None]:
    """Handle signals in the block; outside the main thread, which alone may, it changes nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
