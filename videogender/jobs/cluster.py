"""Workers that are actors of a Ray cluster, on this machine or on many.

Ray places them, starts them, carries what is said and notices when one is gone. Who does which
input, and what is tried again, is decided by `videogender.jobs.team`, as for processes.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self

from videogender.errors import ConfigError, VideogenderError
from videogender.jobs.desk import Desk, News, portable
from videogender.jobs.division import CORES_A_PROCESS
from videogender.jobs.messages import Broken, Done, Message, Ready, Setup, Task
from videogender.progress import Summary

__all__ = ["Cluster", "Shares"]

# Ray's own answer to a call, and a stop beside it.
_CALLS_AT_ONCE = 2
_KNOCK_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Shares:
    """How a cluster is divided.

    Attributes:
        workers: how many there are.
        threads: of each, for its network and its encoder.
        gpus: of each; Ray shows it no other.
    """

    workers: int
    threads: int
    gpus: int

    @classmethod
    def of(
        cls, cores: float, gpus: float, jobs: int, inputs: int, device: str, threads: int
    ) -> Self:
        """Divide a cluster.

        Args:
            cores: of all its machines.
            gpus: likewise.
            jobs: workers that were asked for; 0 takes as many as there is room for.
            inputs: to work on.
            device: of the network, from the settings.
            threads: of each worker, from the settings; 0 leaves it open.
        """
        each_gpu = int(device == "cuda" or (device == "auto" and gpus >= 1))
        room = int(gpus) if each_gpu else int(cores) // (threads or CORES_A_PROCESS)
        workers = max(1, min(jobs or room, inputs))
        share = threads or max(1, min(CORES_A_PROCESS, int(cores) // workers))
        return cls(workers, share, each_gpu)


class Cluster:
    """A `videogender.jobs.crew.Crew` on a Ray cluster: joins it on entering.

    Args:
        address: of the cluster, such as `auto` or `10.0.0.1:6379`; None takes the one that the
            process is part of already or that RAY_ADDRESS names, else starts one of this machine
            alone, for as long as the block lasts.

    Raises:
        ConfigError: Ray is not installed, or there is no cluster at that address.
    """

    advice = (
        "is memory short? Is videogender installed for the same Python on all machines of the "
        "cluster?"
    )

    def __init__(self, address: str | None) -> None:
        # What runs on a user's machine tells nobody of it; a cluster's owner decides for theirs.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Ray would print on standard output, where data may go, that a worker has died.
        os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
        self._on_sigterm = signal.getsignal(signal.SIGTERM)
        try:
            self._ray: Any = import_module("ray")
        except ImportError as error:
            raise ConfigError("--engine ray needs Ray: pip install 'videogender[ray]'") from error
        self._address = address
        self._is_ours = False
        self._setup: Setup | None = None
        self._shares = Shares(1, 1, 0)

    def __enter__(self) -> Self:
        ray = self._ray
        if ray.is_initialized():
            return self
        address = self._address or os.environ.get("RAY_ADDRESS", "local")
        if address.startswith("ray://"):
            raise ConfigError(
                f"{address}: Ray's client cannot pass on what workers say while they work; run "
                "this on a machine of the cluster, with --address auto"
            )
        _knock(address)
        options = {"include_dashboard": False} if address == "local" else {}
        try:
            ray.init(address, log_to_driver=False, logging_level="ERROR", **options)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            line = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ConfigError(
                f"no Ray cluster at {address!r}, or none that lets this machine in (if it asks for "
                f"a token, RAY_AUTH_MODE=token gives it yours): {line}"
            ) from error
        self._is_ours = True
        if callable(self._on_sigterm) and threading.current_thread() is threading.main_thread():
            # Ray has put in one of its own, which would end this process at once.
            signal.signal(signal.SIGTERM, self._on_sigterm)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._is_ours:
            self._ray.shutdown()

    def divide(self, jobs: int, inputs: int, device: str, threads: int) -> Shares:
        """Decide how many workers there will be; see `Shares.of`.

        Raises:
            ConfigError: a GPU was named that is Ray's to choose.
        """
        if device.startswith("cuda:"):
            raise ConfigError(
                f"--device {device}: Ray chooses each worker's GPU; give --device cuda"
            )
        has = self._ray.cluster_resources()
        self._shares = Shares.of(
            has.get("CPU", 1), has.get("GPU", 0), jobs, inputs, device, threads
        )
        return self._shares

    def begin(self, setup: Setup) -> None:
        """Take what all workers need to know, before the first is started."""
        self._setup = setup

    def start(self) -> _Actor:
        """Ask Ray for one more actor, which loads its detector wherever there is room."""
        kind = self._ray.remote(
            num_cpus=self._shares.threads,
            num_gpus=self._shares.gpus,
            max_concurrency=_CALLS_AT_ONCE,
        )(_Servant)
        return _Actor(self._ray, kind.remote(self._setup, str(Path.cwd())))

    def messages(
        self, workers: Sequence[_Actor], seconds: float
    ) -> Iterator[tuple[_Actor, Message | None]]:
        """Wait for at most so long and yield who said what; None is a worker's death."""
        by_answer = {worker.answer: worker for worker in workers if worker.answer is not None}
        if not by_answer:
            threading.Event().wait(seconds)
            return
        # The first to come is not to wait for the others.
        heard, _ = self._ray.wait(list(by_answer), num_returns=1, timeout=seconds)
        more = [answer for answer in by_answer if answer not in heard]
        if heard and more:
            heard += self._ray.wait(more, num_returns=len(more), timeout=0)[0]
        for answer in heard:
            worker = by_answer[answer]
            for message in worker.take():
                yield worker, message


@dataclass(slots=True, eq=False)
class _Actor:
    """A `videogender.jobs.crew.Worker` somewhere in the cluster."""

    ray: Any
    handle: Any
    answer: Any = None  # what is awaited: a reference, or a generator of them
    is_loaded: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.answer = self.handle.load.remote()

    def send(self, task: Task) -> None:
        self.answer = self.handle.work.options(num_returns="streaming").remote(task)

    def take(self) -> list[Message | None]:
        """Return what has come, if it was a message; None is the actor's death."""
        try:
            if self.is_loaded:
                said: Message = self.ray.get(next(self.answer))
            else:
                said = self.ray.get(self.answer)
                self.is_loaded, self.answer = True, None
        except StopIteration:
            self.answer = None
            return []
        except self.ray.exceptions.RayError:
            self.answer = None
            return [None]
        if isinstance(said, Done):
            self.answer = None
        return [said]

    def stop(self) -> None:
        with suppress(self.ray.exceptions.RayError):
            self.handle.stop.remote()

    def kill(self) -> None:
        self.ray.kill(self.handle)

    def close(self) -> None:
        self.ray.kill(self.handle)

    def how_it_ended(self) -> str:
        return "or its machine was lost"


class _Servant:
    """Runs in an actor's process: a worker's own side.

    Args:
        setup: of the run.
        folder: in which the caller works, and to which the names of files relate.
    """

    def __init__(self, setup: Setup, folder: str) -> None:
        self._setup, self._folder = setup, folder
        self._desk: Desk | None = None
        self._stops = _Stops()

    def load(self) -> Message:
        """Load the detector."""
        try:
            _enter(self._folder)
            self._desk = Desk(self._setup)
        except Exception as error:
            return Broken(portable(error))
        return Ready(self._desk.facts)

    def work(self, task: Task) -> Iterator[Message]:
        """Annotate an input, and yield what there is to tell of it."""
        said: SimpleQueue[Message] = SimpleQueue()
        threading.Thread(target=self._work, args=(task, said), daemon=True).start()
        while True:
            message = said.get()
            yield message
            if isinstance(message, (Done, Broken)):
                return

    def stop(self) -> None:
        """Pass on one Ctrl-C, while `work` goes on."""
        self._stops.ask()

    def _work(self, task: Task, said: SimpleQueue[Message]) -> None:
        desk = self._desk
        assert desk is not None
        news = _StoppableNews(said, self._stops)
        try:
            try:
                summary = desk.do(task, said.put, news)
            except KeyboardInterrupt:
                summary = Summary(str(task.job.source), interrupted=True)
            news.close()
            desk.flush()
            said.put(Done(summary))
        except Exception as error:
            said.put(Broken(portable(error)))


class _Stops:
    """Stops that were asked for and have not been obeyed yet."""

    def __init__(self) -> None:
        self._asked = threading.Semaphore(0)

    def ask(self) -> None:
        self._asked.release()

    def check(self) -> None:
        """Raise KeyboardInterrupt, once for each time it was asked for."""
        if self._asked.acquire(blocking=False):
            raise KeyboardInterrupt


class _StoppableNews(News):
    """Stops an input between two frames, as no signal reaches a thread."""

    def __init__(self, said: SimpleQueue[Message], stops: _Stops) -> None:
        super().__init__(said.put)
        self._stops = stops

    def look(self, faces: int) -> None:
        super().look(faces)
        self._stops.check()

    def advance(self, faces: int) -> None:
        super().advance(faces)
        self._stops.check()


def _knock(address: str) -> None:
    """Find out in a moment what takes Ray minutes: that nobody is there."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _KNOCK_SECONDS).close()
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError(f"no Ray cluster at {address!r}: {why}") from error


def _enter(folder: str) -> None:
    """Go where the caller is, so that relative names mean the same."""
    try:
        os.chdir(folder)
    except OSError as error:
        raise VideogenderError(
            f"{socket.gethostname()} has no folder {folder}; inputs and outputs of --engine ray "
            "lie where all machines of the cluster see them under the same name"
        ) from error
