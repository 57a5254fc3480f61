"""What live sources have in common: frames as they happen, which may stop and come back."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol, runtime_checkable

from videogender.errors import SourceError
from videogender.frames import Picture

__all__ = ["Grab", "LiveSource", "Pacer", "UnreachableError", "WarningSource"]

# What is later than this is not caught up with: it goes on from here at its own speed.
_MOST_LATE_SECONDS = 0.25
_NAP_SECONDS = 0.5


class UnreachableError(SourceError):
    """A source that is lost or not there yet, and may come (back)."""


@dataclass(frozen=True, slots=True, eq=False)
class Grab:
    """A picture that was just captured.

    Attributes:
        picture: upright.
        captured_seconds: when, on the clock of `time.monotonic`.
        pts_seconds: its place in the file, or None where only the time of capture counts.
        pixel_aspect: width of a pixel by its height, or None if unknown.
    """

    picture: Picture
    captured_seconds: float
    pts_seconds: float | None = None
    pixel_aspect: Fraction | None = None


class LiveSource(Protocol):
    """A camera, a stream, or a file played at its own speed."""

    @property
    def name(self) -> str:
        """What the user named, without credentials."""

    @property
    def waits(self) -> bool:
        """Whether it can wait until a frame is taken; otherwise only the newest one counts."""

    def grabs(self, stop: threading.Event) -> Iterator[Grab]:
        """Open the source and yield its pictures as they happen; calling it again opens it anew.

        It returns at the end of what has one, and soon after `stop` is set. Closing the iterator
        closes the source.

        Raises:
            UnreachableError: it is lost or not there; another attempt may succeed.
            SourceError: it cannot be used at all.
        """


@runtime_checkable
class WarningSource(LiveSource, Protocol):
    """A source that may be faulty and still be shown."""

    @property
    def warnings(self) -> list[str]:
        """What went wrong without ending it, each line once; grows."""


class Pacer:
    """Holds pictures back until their time has come, so that they are shown at their own speed.

    Args:
        most_seconds: what is to be waited for longer than this comes at once, and what follows at
            its own speed: the clock of a stream may jump.
    """

    def __init__(self, most_seconds: float = math.inf) -> None:
        self._most_seconds = most_seconds
        self._zero: float | None = None  # time.monotonic at pts 0

    def wait(self, pts_seconds: float, stop: threading.Event) -> float:
        """Wait until a picture is due, or until `stop` is set.

        Returns:
            the time, on the clock of `time.monotonic`.
        """
        now = time.monotonic()
        due = now if self._zero is None else self._zero + pts_seconds
        if self._zero is None or not -_MOST_LATE_SECONDS <= due - now <= self._most_seconds:
            self._zero = now - pts_seconds
        while (left := self._zero + pts_seconds - now) > 0:
            if stop.wait(min(left, _NAP_SECONDS)):
                break
            now = time.monotonic()
        return time.monotonic()
