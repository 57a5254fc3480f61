"""Stops training between two steps when a signal asks for it, and measures what steps spend."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Self

import torch

from videogender.signals import Stopped, handling

__all__ = ["StopRequest", "Stopwatch"]


class StopRequest:
    """Remembers SIGINT and SIGTERM while it is entered; forks inherit that.

    A KeyboardInterrupt that leaves it becomes a `Stopped`, which tells the signal.

    Attributes:
        asked: whether one came.
    """

    def __init__(self) -> None:
        self.asked = False
        self._number: int = signal.SIGINT  # also where another process has heard it
        self._interruptible = False
        self._handling = handling((signal.SIGINT, signal.SIGTERM), self._ask)

    def __enter__(self) -> Self:
        self._handling.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._handling.__exit__(None, None, None)
        if isinstance(error, KeyboardInterrupt) and not isinstance(error, Stopped):
            raise Stopped(self._number) from error

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if not self.asked:
            self.asked, self._number = True, number
        if self._interruptible:
            raise KeyboardInterrupt

    def interruptible(self, work: Callable[[], None]) -> None:
        """Do some work that a signal ends at once; it goes no further than that."""
        if self.asked:
            return
        self._interruptible = True
        try:
            work()
        except KeyboardInterrupt:
            self.asked = True
        finally:
            self._interruptible = False


class Stopwatch:
    """Adds up the time that blocks take, on the device where they run, without waiting for it."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self._seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the block."""
        if self._cuda:
            first = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            last = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            first.record()
            yield
            last.record()
            self._events.append((first, last))
        else:
            began = time.monotonic()
            yield
            self._seconds += time.monotonic() - began

    def take(self) -> float:
        """Return the seconds so far, and begin at 0; on CUDA only after a synchronisation."""
        seconds = self._seconds
        for first, last in self._events:
            seconds += first.elapsed_time(last) / 1000
        self._seconds, self._events = 0.0, []
        return seconds
