"""Newest: hands items from one thread to another through a single slot, so that none grows old."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

__all__ = ["Bell", "Newest"]

T = TypeVar("T")


class Bell:
    """Wakes one thread that waits for any of several things to happen."""

    def __init__(self) -> None:
        self._rung = threading.Event()

    def ring(self) -> None:
        """Wake the thread that waits, or the next one to wait."""
        self._rung.set()

    def wait(self, seconds: float) -> bool:
        """Wait until somebody rings, or rang since the last time; False after that many seconds."""
        rung = self._rung.wait(seconds)
        self._rung.clear()
        return rung


class Newest(Generic[T]):
    """A slot of one item. What was not taken in time is replaced, or waited for.

    Args:
        bell: rung when an item is put in.
        waits: `put` waits until the item before was taken.
    """

    def __init__(self, bell: Bell, *, waits: bool = False) -> None:
        self._bell = bell
        self._waits = waits
        self._changed = threading.Condition()
        self._item: T | None = None
        self._closed = False

    def put(self, item: T) -> bool:
        """Put an item in.

        Returns:
            whether an item that nobody had taken was dropped for it.
        """
        with self._changed:
            while self._waits and self._item is not None and not self._closed:
                self._changed.wait(0.5)
            dropped = self._item is not None
            self._item = None if self._closed else item
        self._bell.ring()
        return dropped

    def take(self) -> T | None:
        """Take the item out, or return None if there is none."""
        with self._changed:
            item, self._item = self._item, None
            self._changed.notify_all()
        return item

    @property
    def is_full(self) -> bool:
        """Whether an item waits to be taken."""
        with self._changed:
            return self._item is not None

    def close(self) -> None:
        """Drop the item and let nobody wait any more."""
        with self._changed:
            self._closed = True
            self._item = None
            self._changed.notify_all()
        self._bell.ring()
