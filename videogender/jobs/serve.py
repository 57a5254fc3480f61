"""A worker: loads the detector once, then annotates one input after another until it is killed."""

from __future__ import annotations

import os
import pickle
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Literal

from videogender.errors import VideogenderError
from videogender.jobs.messages import (
    STOP,
    Broken,
    Data,
    Done,
    Message,
    Passed,
    Ready,
    Setup,
    Started,
    Steps,
    Stopped,
    Task,
)
from videogender.jobs.stops import Stops
from videogender.progress import DetectorFacts, Progress, Summary
from videogender.targets import Job

__all__ = ["serve"]

# The first Ctrl-C lets a worker draw what it has looked at, for so long.
DRAW_SECONDS = 5.0
# How often the caller's process hears of progress.
NEWS_SECONDS = 0.1


def serve(connection: Connection, setup: Setup) -> None:
    """Run in a process of its own.

    Args:
        connection: brings tasks and stops, takes messages.
        setup: of the run.
    """
    stops = Stops()
    channel = _Channel(connection, stops)
    tasks: SimpleQueue[Task] = SimpleQueue()
    threading.Thread(target=_listen, args=(connection, stops, tasks), daemon=True).start()
    try:
        _work(setup, stops, channel, tasks)
    except Exception as error:
        channel.send(Broken(_portable(error)))


def _work(setup: Setup, stops: Stops, channel: _Channel, tasks: SimpleQueue[Task]) -> None:
    # Only now, as it takes torch and the rest: stops are heard meanwhile.
    from videogender.jobs.record import Recording
    from videogender.work import Work, load_detector

    detector = load_detector(setup.settings)
    describe = getattr(detector, "describe", None)
    facts = DetectorFacts(
        description=str(describe()) if callable(describe) else setup.settings.detect.model,
        has_gender=bool(getattr(detector, "has_gender", True)),
        classes=tuple(getattr(detector, "classes", ())),
    )
    channel.send(Ready(facts))
    while True:
        task = tasks.get()
        force = setup.force or task.force
        recording = Recording(setup, force, lambda piece: channel.send(Data(piece)))
        news = _News(channel, stops)
        work = Work(
            detector,
            setup.settings,
            recording,
            setup.span_seconds,
            force,
            news,
            setup.keeps_parts,
            setup.encoder_threads,
        )
        try:
            with stops.armed():
                summary = work.run(task.job, task.position, task.count)
        except KeyboardInterrupt:  # between two inputs, as it were
            summary = Summary(str(task.job.source), interrupted=True)
        news.close()
        recording.flush()
        channel.send(Done(summary))


def _listen(connection: Connection, stops: Stops, tasks: SimpleQueue[Task]) -> None:
    while True:
        try:
            message = connection.recv()
        except (EOFError, OSError):
            os._exit(1)  # the caller is gone: as if killed with it
        if message == STOP:
            stops.ask()
        else:
            tasks.put(message)


class _Channel:
    """Sends whole messages, from any thread, whatever stops come meanwhile."""

    def __init__(self, connection: Connection, stops: Stops) -> None:
        self._connection, self._stops = connection, stops
        self._lock = threading.Lock()

    def send(self, message: Message) -> None:
        with self._stops.held(), self._lock:
            try:
                self._connection.send(message)
            except OSError:
                os._exit(1)


class _News(Progress):
    """Passes on what happens to one input, in few messages."""

    def __init__(self, channel: _Channel, stops: Stops) -> None:
        self._send: Callable[[Message], None] = channel.send
        self._stops = stops
        self._looked: list[int] = []
        self._written: list[int] = []
        self._next = 0.0
        self._timer: threading.Timer | None = None

    def start(self, job: Job, frames: int | None, position: int, count: int) -> None:
        self._send(Started(frames))

    def begin_pass(self, name: Literal["looking", "drawing"], frames: int | None) -> None:
        self._flush()
        self._send(Passed(name, frames))

    def stopped(self, frames: int) -> None:
        self._send(Stopped(frames))
        self._timer = threading.Timer(DRAW_SECONDS, self._stops.ask)
        self._timer.daemon = True
        self._timer.start()

    def look(self, faces: int) -> None:
        self._looked.append(faces)
        self._perhaps_flush()

    def advance(self, faces: int) -> None:
        self._written.append(faces)
        self._perhaps_flush()

    def close(self) -> None:
        """Send what still waits."""
        if self._timer is not None:
            self._timer.cancel()
        self._flush()

    def _perhaps_flush(self) -> None:
        if time.monotonic() >= self._next:
            self._flush()

    def _flush(self) -> None:
        self._next = time.monotonic() + NEWS_SECONDS
        if self._looked or self._written:
            steps = Steps(tuple(self._looked), tuple(self._written))
            self._looked, self._written = [], []
            self._send(steps)


def _portable(error: Exception) -> Exception:
    """Return an error that can be sent to another process, with its trace as a note."""
    trace = traceback.format_exc()
    try:
        copy = pickle.loads(pickle.dumps(error))
    except Exception:
        copy = RuntimeError(f"{type(error).__name__}: {error}")
    if not isinstance(copy, VideogenderError):
        copy.add_note(f"In a worker:\n{trace}")
    found: Exception = copy
    return found
