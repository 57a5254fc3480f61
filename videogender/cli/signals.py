"""Signals that end a run in order, and the exit codes that tell which one did."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from videogender.signals import handling

__all__ = ["Caught", "catching", "press_ctrl_c"]


@dataclass(slots=True)
class Caught:
    """The newest signal that ends a run, or None."""

    number: int | None = None

    @property
    def exit_code(self) -> int:
        """0, or 128 and the signal's number: 130 for Ctrl-C, 143 for SIGTERM."""
        return 0 if self.number is None else 128 + self.number


@contextmanager
def catching(
    numbers: Sequence[int], stop: Callable[[], None], again: Callable[[], None]
) -> Iterator[Caught]:
    """Let signals end what runs in the block; outside the main thread they cannot be caught.

    Args:
        numbers: which signals.
        stop: what the first that comes does, in the main thread.
        again: what all further ones do.
    """
    caught = Caught()

    def on_signal(number: int, frame: FrameType | None) -> None:
        is_first = caught.number is None
        caught.number = number
        (stop if is_first else again)()

    with handling(numbers, on_signal):
        yield caught


def press_ctrl_c() -> None:
    """Do what Ctrl-C would do now, even where a shell has switched it off, as for jobs with `&`."""
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler):
        raise KeyboardInterrupt
    handler(signal.SIGINT, None)
