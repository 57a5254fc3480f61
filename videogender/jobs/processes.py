"""Workers that are processes of this machine."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from videogender.jobs.messages import STOP, Message, Setup, Task
from videogender.jobs.serve import serve
from videogender.signals import handling

__all__ = ["Processes"]


@dataclass(slots=True, eq=False)
class _Process:
    """A `videogender.jobs.crew.Worker` at the other end of a pipe."""

    process: Any
    connection: Connection

    def send(self, task: Task) -> None:
        with suppress(OSError):
            self.connection.send(task)

    def stop(self) -> None:
        with suppress(OSError):
            self.connection.send(STOP)

    def kill(self) -> None:
        self.process.kill()

    def close(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()

    def how_it_ended(self) -> str:
        exit_code = self.process.exitcode
        if exit_code is not None and exit_code < 0:
            with suppress(ValueError):
                return f"was killed ({signal.Signals(-exit_code).name})"
        return f"ended with exit code {exit_code}"


class Processes:
    """A `videogender.jobs.crew.Crew` on this machine.

    Args:
        setup: what all workers need to know.
    """

    advice = "is memory short? (A script calls annotate under `if __name__ == '__main__':`)"

    def __init__(self, setup: Setup) -> None:
        self._setup = setup

    def start(self) -> _Process:
        """Start one more process, which loads its detector."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=serve, args=(theirs, self._setup), name="videogender-worker", daemon=True
        )
        # Children inherit that, until they have handlers of their own.
        with handling((signal.SIGINT, signal.SIGTERM), signal.SIG_IGN):
            process.start()
        theirs.close()  # so that its end is seen here when the child is gone
        return _Process(process, ours)

    def messages(
        self, workers: Sequence[_Process], seconds: float
    ) -> Iterator[tuple[_Process, Message | None]]:
        """Wait for at most so long and yield who said what; None is a worker's death."""
        by_connection = {worker.connection: worker for worker in workers}
        for connection in wait(list(by_connection), seconds):
            worker = by_connection[connection]  # type: ignore[index]  # only these were given
            try:
                message = worker.connection.recv()
            except (EOFError, OSError):
                message = None
            yield worker, message
