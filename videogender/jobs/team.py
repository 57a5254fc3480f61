"""The caller's side of the workers: starts them, hands out inputs, replaces those that die."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from types import FrameType, TracebackType
from typing import Any, Self

from videogender.errors import VideogenderError
from videogender.jobs.crew import Crew, Worker
from videogender.jobs.messages import Broken, Done, Message, Ready, Restarted, Task
from videogender.progress import DRAW_SECONDS, DetectorFacts, Summary

__all__ = ["Team"]

# How long nothing may come from the workers before Ctrl-C is looked for.
PATIENCE_SECONDS = 0.2
# How long a worker may take to close its files after its last stop; then it is killed.
CLOSE_SECONDS = 10.0
# An input whose worker died is tried again, but not for ever.
MOST_TRIES = 2


@dataclass(slots=True, eq=False)
class _Member:
    worker: Worker
    is_ready: bool = False
    task: Task | None = None


class Team:
    """Workers that each hold a detector and do one input at a time.

    They are started on entering, and killed on leaving. In between Ctrl-C raises nothing in the
    main thread: the first lets every worker write what it has seen, for a few seconds; another
    keeps what is written by then; a third kills them.

    Args:
        crew: starts them.
        size: how many to start.
    """

    def __init__(self, crew: Crew, size: int) -> None:
        self._crew, self._size = crew, size
        self._members: list[_Member] = []
        self._facts: DetectorFacts | None = None
        self._tasks: deque[Task] = deque()
        self._tries: Counter[int] = Counter()
        self._asked = self._passed_on = 0  # times that Ctrl-C was pressed, and told to workers
        self._deadline = float("inf")
        self._before: Any = None

    def __enter__(self) -> Self:
        try:
            while len(self._members) < self._size:
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
            for member, message in self._messages():
                self._take(member, message)
        return self._facts

    @property
    def is_stopped(self) -> bool:
        """Whether Ctrl-C has been pressed."""
        return self._asked > 0

    def run(self, tasks: Sequence[Task], tell: Callable[[int, Message], None]) -> None:
        """Have all tasks done, several at once.

        Args:
            tasks: in the order in which they begin.
            tell: told what happens at which position, `Done` last. Whatever it raises ends the
                run, but KeyboardInterrupt counts as Ctrl-C.

        Raises:
            Exception: a defect in a worker.
        """
        self._tries.clear()
        self._tasks.extend([] if self._asked else tasks)
        while self._tasks or any(member.task for member in self._members):
            self._obey()
            self._hand_out()
            for member, message in self._messages():
                position = member.task.position if member.task else -1
                found = self._take(member, message)
                if found is None:
                    continue
                try:
                    tell(position, found)
                except KeyboardInterrupt:
                    self._asked += 1

    def _take(self, member: _Member, message: Message | None) -> Message | None:
        """Note what a message says of its worker, None being its death; return what to tell."""
        if message is None:
            return self._bury(member)
        if isinstance(message, Broken):
            if member.is_ready or self._facts is None:
                raise message.error
            self._dismiss(member)  # others can work: the device has no room for this one, say
            self._lose_one(message.error)
            return None
        if isinstance(message, Ready):
            member.is_ready = True
            self._facts = self._facts or message.facts
            return None
        if isinstance(message, Done) and member.task is not None:
            position = member.task.position
            member.task = None
            if self._tries[position] and message.summary.error is None:
                line = f"{message.summary.source}: its process was killed; a second try went well"
                warnings = (*message.summary.warnings, line)
                return Done(replace(message.summary, warnings=warnings))
        return message

    def _bury(self, member: _Member) -> Message | None:
        """Replace a worker that died; its input is tried again, once."""
        task = member.task
        self._dismiss(member)
        how = member.worker.how_it_ended()
        if task is None:
            if not member.is_ready:
                self._lose_one(
                    VideogenderError(
                        f"a process of --jobs {how} before it could begin; {self._crew.advice}"
                    )
                )
            return None
        source = str(task.job.source)
        if self._asked:
            return Done(Summary(source, interrupted=True))
        self._tries[task.position] += 1
        if self._tries[task.position] >= MOST_TRIES:
            why = "is memory short? Fewer --jobs need less"
            if "SIGABRT" in how or "SIGSEGV" in how:
                why = "its decoder seems to crash over it"
            error = VideogenderError(f"{source}: its process {how}, twice; {why}")
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
        idle = [member for member in self._members if member.task is None]
        while self._tasks and len(self._members) < self._size and len(idle) < len(self._tasks):
            idle.append(self._start())
        for member in idle:
            if member.is_ready and self._tasks:
                member.task = self._tasks.popleft()
                member.worker.send(member.task)

    def _obey(self) -> None:
        """Pass on Ctrl-C, and kill whoever takes too long."""
        if self._asked > self._passed_on:
            self._passed_on = self._asked
            self._tasks.clear()
            for member in [member for member in self._members if member.task is None]:
                self._dismiss(member)
            for member in self._members:
                member.worker.stop()
            draw = DRAW_SECONDS if self._asked == 1 else 0.0
            self._deadline = time.monotonic() + (draw + CLOSE_SECONDS if self._asked < 3 else 0.0)
        if time.monotonic() >= self._deadline:
            for member in self._members:
                member.worker.kill()

    def _messages(self) -> Iterator[tuple[_Member, Message | None]]:
        """Wait a little and yield what has come; None is a worker's death."""
        members = {id(member.worker): member for member in self._members}
        workers = [member.worker for member in self._members]
        for worker, message in self._crew.messages(workers, PATIENCE_SECONDS):
            yield members[id(worker)], message

    def _start(self) -> _Member:
        self._members.append(_Member(self._crew.start()))
        return self._members[-1]

    def _dismiss(self, member: _Member) -> None:
        self._members.remove(member)
        member.worker.close()

    def _kill_all(self) -> None:
        for member in self._members:
            member.worker.kill()
        for member in list(self._members):
            self._dismiss(member)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._asked += 1


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
