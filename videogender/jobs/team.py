"""The caller's side of the workers: starts them, hands out inputs, replaces those that die."""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from types import FrameType, TracebackType
from typing import Any, Self

from videogender.errors import VideogenderError
from videogender.jobs.messages import STOP, Broken, Done, Message, Ready, Restarted, Setup, Task
from videogender.jobs.serve import DRAW_SECONDS, serve
from videogender.progress import DetectorFacts, Summary

__all__ = ["Setup", "Team"]

# How long nothing may come from the workers before Ctrl-C is looked for.
PATIENCE_SECONDS = 0.2
# How long a worker may take to close its files after its last stop; then it is killed.
CLOSE_SECONDS = 10.0
# An input whose worker died is tried again, but not for ever.
MOST_TRIES = 2


@dataclass(slots=True, eq=False)
class _Worker:
    process: Any
    connection: Connection
    is_ready: bool = False
    task: Task | None = None


class Team:
    """Workers that each hold a detector and do one input at a time.

    They are started on entering, and killed on leaving. In between Ctrl-C raises nothing in the
    main thread: the first lets every worker write what it has seen, for a few seconds; another
    keeps what is written by then; a third kills them.

    Args:
        setup: what they all need to know.
        size: how many to start.
    """

    def __init__(self, setup: Setup, size: int) -> None:
        self._setup, self._size = setup, size
        self._workers: list[_Worker] = []
        self._facts: DetectorFacts | None = None
        self._tasks: deque[Task] = deque()
        self._tries: Counter[int] = Counter()
        self._asked = self._passed_on = 0  # times that Ctrl-C was pressed, and told to workers
        self._deadline = float("inf")
        self._before: Any = None

    def __enter__(self) -> Self:
        try:
            while len(self._workers) < self._size:
                self._start()
        except BaseException:
            self._kill_all()
            raise
        if _is_main_thread():
            self._before = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._kill_all()
        finally:
            if self._before is not None:
                signal.signal(signal.SIGINT, self._before)

    def wait(self) -> DetectorFacts:
        """Return what the workers' detector is, once one of them has loaded it.

        Raises:
            ModelError: its weights cannot be used.
            DeviceError: the asked-for device is not there.
            VideogenderError: no worker can be started.
            KeyboardInterrupt: Ctrl-C.
        """
        while self._facts is None:
            if self._asked:
                raise KeyboardInterrupt
            for worker, message in self._messages():
                self._take(worker, message)
        return self._facts

    def run(self, tasks: Sequence[Task], tell: Callable[[int, Message], None]) -> None:
        """Have all tasks done, several at once.

        Args:
            tasks: in the order in which they begin.
            tell: told what happens at which position, `Done` last. Whatever it raises ends the
                run, but KeyboardInterrupt counts as Ctrl-C.

        Raises:
            Exception: a defect in a worker.
        """
        self._tasks.extend(tasks)
        while self._tasks or any(worker.task for worker in self._workers):
            self._obey()
            self._hand_out()
            for worker, message in self._messages():
                position = worker.task.position if worker.task else -1
                found = self._take(worker, message)
                if found is None:
                    continue
                try:
                    tell(position, found)
                except KeyboardInterrupt:
                    self._asked += 1

    def _take(self, worker: _Worker, message: Message | None) -> Message | None:
        """Note what a message says of its worker, None being its death; return what to tell."""
        if message is None:
            return self._bury(worker)
        if isinstance(message, Broken):
            if worker.is_ready or self._facts is None:
                raise message.error
            self._dismiss(worker)  # others can work: the device has no room for this one, say
            self._lose_one(message.error)
            return None
        if isinstance(message, Ready):
            worker.is_ready = True
            self._facts = self._facts or message.facts
            return None
        if isinstance(message, Done) and worker.task is not None:
            position = worker.task.position
            worker.task = None
            if self._tries[position] and message.summary.error is None:
                line = f"{message.summary.source}: its process was killed; a second try went well"
                warnings = (*message.summary.warnings, line)
                return Done(replace(message.summary, warnings=warnings))
        return message

    def _bury(self, worker: _Worker) -> Message | None:
        """Replace a worker that died; its input is tried again, once."""
        task = worker.task
        self._dismiss(worker)
        how = _how_it_ended(worker.process.exitcode)
        if task is None:
            if not worker.is_ready:
                self._lose_one(
                    VideogenderError(
                        f"a process of --jobs {how} before it could begin; is memory short? "
                        "(A script calls annotate under `if __name__ == '__main__':`)"
                    )
                )
            return None
        source = str(task.job.source)
        if self._asked:
            return Done(Summary(source, interrupted=True))
        self._tries[task.position] += 1
        if self._tries[task.position] >= MOST_TRIES:
            error = VideogenderError(
                f"{source}: its process {how}, twice; is memory short? Fewer --jobs need less"
            )
            return Done(Summary(source, error=error))
        # Its copy may have got its name in the last moment; nobody else has made it.
        self._tasks.appendleft(replace(task, force=True))
        return Restarted()

    def _lose_one(self, error: Exception) -> None:
        """Go on with one worker less, unless that leaves none."""
        self._size -= 1
        if not self._size:
            raise error

    def _hand_out(self) -> None:
        idle = [worker for worker in self._workers if worker.task is None]
        while self._tasks and len(self._workers) < self._size and len(idle) < len(self._tasks):
            idle.append(self._start())
        for worker in idle:
            if worker.is_ready and self._tasks:
                worker.task = self._tasks.popleft()
                with suppress(OSError):  # it is dead, as its connection will tell
                    worker.connection.send(worker.task)

    def _obey(self) -> None:
        """Pass on Ctrl-C, and kill whoever takes too long."""
        if self._asked > self._passed_on:
            self._passed_on = self._asked
            self._tasks.clear()
            for worker in [worker for worker in self._workers if worker.task is None]:
                self._dismiss(worker)
            for worker in self._workers:
                with suppress(OSError):
                    worker.connection.send(STOP)
            draw = DRAW_SECONDS if self._asked == 1 else 0.0
            self._deadline = time.monotonic() + (draw + CLOSE_SECONDS if self._asked < 3 else 0.0)
        if time.monotonic() >= self._deadline:
            for worker in self._workers:
                worker.process.kill()

    def _messages(self) -> Iterator[tuple[_Worker, Message | None]]:
        """Wait a little and yield what has come; None is a worker's death."""
        by_connection = {worker.connection: worker for worker in self._workers}
        for connection in wait(list(by_connection), PATIENCE_SECONDS):
            worker = by_connection[connection]  # type: ignore[index]  # only these were given
            try:
                message = worker.connection.recv()
            except (EOFError, OSError):
                message = None
            yield worker, message

    def _start(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=serve, args=(theirs, self._setup), name="videogender-worker", daemon=True
        )
        with _ctrl_c_ignored():  # until the child has a handler of its own
            process.start()
        theirs.close()  # so that its end is seen here when the child is gone
        self._workers.append(_Worker(process, ours))
        return self._workers[-1]

    def _dismiss(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        worker.process.kill()
        worker.process.join()
        worker.connection.close()

    def _kill_all(self) -> None:
        for worker in self._workers:
            worker.process.kill()
        for worker in list(self._workers):
            self._dismiss(worker)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._asked += 1


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


@contextmanager
def _ctrl_c_ignored() -> Iterator[None]:
    if not _is_main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _how_it_ended(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        with suppress(ValueError):
            return f"was killed ({signal.Signals(-exit_code).name})"
    return f"ended with exit code {exit_code}"
