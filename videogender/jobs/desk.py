"""What a worker does wherever it runs: one input after another, with one detector."""

from __future__ import annotations

import pickle
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from videogender.errors import VideogenderError
from videogender.jobs.messages import Data, Message, Passed, Setup, Started, Steps, Stopped, Task
from videogender.progress import DRAW_SECONDS, DetectorFacts, Progress, Summary
from videogender.targets import Job

if TYPE_CHECKING:
    from videogender.jobs.record import Recording

__all__ = ["Desk", "News", "portable"]

# How often the caller's process hears of progress.
NEWS_SECONDS = 0.1


class Desk:
    """Where a worker does one input after another, with the one detector that it holds.

    Args:
        setup: of the run.

    Attributes:
        facts: about the detector.

    Raises:
        ModelError: its weights cannot be used.
        DeviceError: the asked-for device is not there.
    """

    def __init__(self, setup: Setup) -> None:
        # Only now, as it takes torch and the rest: stops are heard meanwhile.
        from videogender.work import load_detector

        self._setup = setup
        self._detector = detector = load_detector(setup.settings)
        self._recording: Recording | None = None
        describe = getattr(detector, "describe", None)
        self.facts = DetectorFacts(
            description=str(describe()) if callable(describe) else setup.settings.detect.model,
            has_gender=bool(getattr(detector, "has_gender", True)),
            classes=tuple(getattr(detector, "classes", ())),
        )

    def do(self, task: Task, send: Callable[[Message], None], news: News) -> Summary:
        """Annotate an input, or do one of two passes over a part of it.

        Args:
            task: names it.
            send: takes what its data files would hold, from several threads.
            news: told of progress.
        """
        from videogender.jobs.record import Recording
        from videogender.work import Work

        setup = self._setup
        if task.part is not None:
            from videogender.jobs.parts import do_part

            return do_part(task, self._detector, setup, send, news)
        force = setup.force or task.force
        self._recording = Recording(setup, force, lambda piece: send(Data(piece)))
        work = Work(
            self._detector,
            setup.settings,
            self._recording,
            setup.span_seconds,
            force,
            news,
            setup.keeps_parts,
            setup.encoder_threads,
        )
        return work.run(task.job, task.position, task.count)

    def flush(self) -> None:
        """Send what still waits of the last input's data."""
        if self._recording is not None:
            self._recording.flush()


class News(Progress):
    """Passes on what happens to one input, in few messages.

    Args:
        send: takes them.
    """

    def __init__(self, send: Callable[[Message], None]) -> None:
        self._send = send
        self._looked: list[int] = []
        self._written: list[int] = []
        self._next = 0.0

    def start(self, job: Job, frames: int | None, position: int, count: int) -> None:
        """Tell that the input is open."""
        self._send(Started(frames))

    def begin_pass(self, name: Literal["looking", "drawing"], frames: int | None) -> None:
        """Tell that a pass begins."""
        self._flush()
        self._send(Passed(name, frames))

    def stopped(self, frames: int) -> float:
        """Tell of Ctrl-C, and end the drawing in a while."""
        self._send(Stopped(frames))
        return DRAW_SECONDS

    def look(self, faces: int) -> None:
        """Count a frame that was looked at."""
        self._looked.append(faces)
        self._perhaps_flush()

    def advance(self, faces: int) -> None:
        """Count a frame that was written."""
        self._written.append(faces)
        self._perhaps_flush()

    def close(self) -> None:
        """Send what still waits."""
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


def portable(error: Exception) -> Exception:
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
