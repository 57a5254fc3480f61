"""What a team needs of those who do its work, wherever they run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from videogender.jobs.messages import Message, Task

__all__ = ["Crew", "Worker"]


class Worker(Protocol):
    """A process that holds a detector and does one input at a time.

    It begins to load on its own, and says `Ready` or `Broken`.
    """

    def send(self, task: Task) -> None:
        """Give it an input. If it is dead, that will be told by `Crew.messages`."""

    def stop(self) -> None:
        """Pass on one Ctrl-C."""

    def kill(self) -> None:
        """Begin to end it, at once; its death will be told by `Crew.messages`."""

    def close(self) -> None:
        """End it, and hear no more of it."""

    def how_it_ended(self) -> str:
        """Complete the sentence `its process …` about a dead one."""


class Crew(Protocol):
    """Starts workers and hears of them."""

    # What may be wrong where a worker dies before it has loaded its detector.
    advice: str

    def start(self) -> Worker:
        """Start one more."""

    def messages(
        self, workers: Sequence[Any], seconds: float
    ) -> Iterator[tuple[Any, Message | None]]:
        """Wait for at most so long and yield who said what; None is a worker's death."""
