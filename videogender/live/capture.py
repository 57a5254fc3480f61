"""Capture: a thread that takes a source's frames as they happen, and brings it back when lost."""

from __future__ import annotations

import math
import threading
import time
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction

from videogender.config import TrackSettings
from videogender.errors import SourceError
from videogender.frames import Faces, Frame
from videogender.live.handoff import Bell, Newest
from videogender.live.meter import Meter
from videogender.live.stats import State
from videogender.passes import Schedule
from videogender.sources.live import Grab, LiveSource, UnreachableError
from videogender.text import printable
from videogender.tracking.cuts import Shot

__all__ = ["Capture", "Captured"]

_FIRST_DELAY_SECONDS, _MOST_DELAY_SECONDS = 0.5, 15.0
# A source that lasted this long is tried again at once; before that, ever more slowly.
_STEADY_SECONDS = 10.0


@dataclass(frozen=True, slots=True, eq=False)
class Captured:
    """A frame on its way to the screen and to the network.

    Attributes:
        frame: numbered over the whole run; its `pts_seconds` counts from the run's beginning by
            the time of capture, or is that of the file.
        captured_seconds: when it was captured, on the clock of `time.monotonic`.
        pixel_aspect: width of a pixel by its height, or None if unknown.
        take: which continuous piece of the source it belongs to: another begins when the source
            comes back, or its frames change their size.
        faces: what is to be shown in it, where that is settled before it goes to the screen.
    """

    frame: Frame
    captured_seconds: float
    take: int
    pixel_aspect: Fraction | None = None
    faces: Faces | None = None


class Capture:
    """Runs one source in a thread of its own.

    Attributes:
        source: what is captured.
        name: of the source, as any text can hold it.
        waits: whether no frame is dropped.
        meter: what is counted.
        shown: the newest frame for the screen.
        looked: the newest frame for the network.
        error: why it failed, once `state` says so.
        reconnects: how often it came back.
    """

    def __init__(
        self,
        source: LiveSource,
        settings: TrackSettings,
        *,
        view_bell: Bell,
        look_bell: Bell,
        give_up_after_seconds: float,
        looks_first: bool = False,
    ) -> None:
        """Prepare a capture; `start` begins it.

        Args:
            source: what to capture.
            settings: at which frames to look.
            view_bell: rung for each frame, and when the state changes.
            look_bell: rung for each frame that is to be looked at.
            give_up_after_seconds: how long to try to bring a lost source back; 0 is for ever.
            looks_first: whoever looks at the frames passes them on to the screen.
        """
        self.source = source
        self.name = printable(source.name)
        self.waits = source.waits
        self.meter = Meter()
        self.shown: Newest[Captured] = Newest(view_bell, waits=source.waits)
        self.looked: Newest[Captured] = Newest(look_bell, waits=source.waits and looks_first)
        self.error: SourceError | None = None
        self.reconnects = 0
        self._condition: tuple[State, str] = ("starting", "")
        self._schedule = Schedule(settings)
        self._view_bell = view_bell
        self._looks_first = looks_first
        self._began = 0.0
        self._patience = give_up_after_seconds
        self._stop = threading.Event()
        self._index = self._take = -1
        self._size_wh = (0, 0)
        self._thread = threading.Thread(target=self._run, name="videogender-capture", daemon=True)

    @property
    def condition(self) -> tuple[State, str]:
        """The state and why it is so."""
        return self._condition

    @property
    def is_over(self) -> bool:
        """Whether no frame will come any more."""
        return self._condition[0] in ("ended", "failed")

    def start(self, began_seconds: float) -> None:
        """Begin to capture.

        Args:
            began_seconds: what counts as 0 in times of capture, on the clock of `time.monotonic`.
        """
        self._began = began_seconds
        self._thread.start()

    def stop(self) -> None:
        """Let the thread end soon; returns at once."""
        self._stop.set()
        self.shown.close()
        self.looked.close()

    def join(self, seconds: float) -> bool:
        """Wait for the thread; return whether it has ended."""
        if self._thread.ident is not None:
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._keep_up()
        except SourceError as error:
            self.error = error
            self._become("failed", str(error))
        except Exception as error:  # a defect here must not end the other sources silently
            self.error = SourceError(f"{self.name}: unexpected {type(error).__name__}: {error}")
            self._become("failed", str(self.error))

    def _keep_up(self) -> None:
        """Run the source until it ends; bring it back when it is lost."""
        lost_since = time.monotonic()
        delay = _FIRST_DELAY_SECONDS
        while not self._stop.is_set():
            before = self.meter.captured
            opened = time.monotonic()
            try:
                self._run_once()
                self._become("ended", "")
                return
            except SourceError as error:
                if not isinstance(error, UnreachableError) and not self.meter.captured:
                    raise
                why = str(error)  # the error itself would keep the closed source alive
            now = time.monotonic()
            if self.meter.captured > before:
                lost_since = now
                if now - opened >= _STEADY_SECONDS:
                    delay = _FIRST_DELAY_SECONDS
            left = self._patience - (now - lost_since) if self._patience else math.inf
            if left <= 0:
                raise SourceError(f"{why} (given up after {self._patience:g} s)")
            self._become("reconnecting", f"{why}; trying again")
            self._stop.wait(min(delay, left))
            delay = min(2 * delay, _MOST_DELAY_SECONDS)

    def _run_once(self) -> None:
        is_new = True
        with closing(self.source.grabs(self._stop)) as grabs:  # type: ignore[type-var]
            for grab in grabs:
                if self._stop.is_set():
                    return
                self._hand_on(grab, is_new)
                is_new = False
                del grab

    def _hand_on(self, grab: Grab, is_new: bool) -> None:
        size_wh = (grab.picture.width, grab.picture.height)
        if is_new or size_wh != self._size_wh:
            self._take += 1
            self._size_wh = size_wh
        if is_new:
            self.reconnects += self._condition[0] == "reconnecting"
            self._become("running", "")
        self._index += 1
        seconds = grab.pts_seconds
        if seconds is None:
            seconds = grab.captured_seconds - self._began
        frame = Frame(grab.picture, self._index, seconds, self.name)
        captured = Captured(frame, grab.captured_seconds, self._take, grab.pixel_aspect)
        self.meter.capture()
        is_due = self._schedule.is_due(self._index, seconds, Shot.SAME)
        dropped = self.looked.put(captured) if is_due else False
        if not self._looks_first:
            dropped = self.shown.put(captured)
        elif not is_due:
            dropped = True
        if dropped:
            self.meter.drop()

    def _become(self, state: State, message: str) -> None:
        self._condition = (state, printable(message))
        self._view_bell.ring()
