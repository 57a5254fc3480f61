"""A worker in a process of this machine: hears the caller through a pipe, until it is killed."""

from __future__ import annotations

import os
import threading
from multiprocessing.connection import Connection
from queue import SimpleQueue

from videogender.jobs.desk import Desk, News, portable
from videogender.jobs.messages import STOP, Broken, Done, Message, Ready, Setup, Task
from videogender.jobs.stops import Stops
from videogender.progress import Summary

__all__ = ["serve"]


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
        channel.send(Broken(portable(error)))


def _work(setup: Setup, stops: Stops, channel: _Channel, tasks: SimpleQueue[Task]) -> None:
    desk = Desk(setup)
    channel.send(Ready(desk.facts))
    while True:
        task = tasks.get()
        news = News(channel.send)
        try:
            with stops.armed():
                summary = desk.do(task, channel.send, news)
        except KeyboardInterrupt:  # between two inputs, as it were
            summary = Summary(str(task.job.source), interrupted=True)
        news.close()
        desk.flush()
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
