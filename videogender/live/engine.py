"""Engine: joins captures, one network, screens, recordings and the log into a live run.

capture thread a source    newest frame ->  looker thread: one network for all sources
      |                                            |
      +--- newest frame ->  view, in the caller's thread  <- newest faces, moved on
                              |-> screens      |-> recorder threads      |-> log
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

from videogender.config import Settings
from videogender.errors import ConfigError, OutputError, VideogenderError
from videogender.live.areas import areas_of
from videogender.live.capture import Capture, Captured
from videogender.live.drawing import Shown, drawn
from videogender.live.garbage import quick_collections
from videogender.live.handoff import Bell
from videogender.live.looking import Looker
from videogender.live.stats import LateScreen, LiveStats, Screen, State
from videogender.pipeline import BatchDetector
from videogender.sinks.livelog import LiveLog, SourceNow
from videogender.sinks.record import Recorder, stop_all
from videogender.sources.live import LiveSource, WarningSource
from videogender.text import printable

__all__ = ["Engine", "Polled"]

_NAP_SECONDS = 0.02
# States in which the last frame is what is to be seen now.
_IN_VIEW = ("running", "paused")
# What ending may take: threads that wait for a network or a forward pass are then left behind.
_RECORDERS_SECONDS, _THREADS_SECONDS = 1.0, 0.3


@runtime_checkable
class Polled(Screen, Protocol):
    """A screen with a life of its own in the view's thread, such as a window."""

    def poll(self) -> None:
        """Paint what was shown, and take in what the user did."""


class Engine:
    """A live run. `run` blocks until it ends; every other member may be used by any thread.

    It is a `videogender.live.stats.LiveControl`.

    Attributes:
        captures: one a source, in order.
        looker: the thread of the network.
        ended_clean: every thread has ended with `run`; one that waits for a network may not have.
    """

    def __init__(
        self,
        sources: Sequence[LiveSource],
        detector: BatchDetector,
        settings: Settings | None = None,
        *,
        recorders: Sequence[Recorder] = (),
        records_raw: bool = False,
        duration_seconds: float = 0.0,
        notice: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Prepare a run.

        Args:
            sources: what to watch; names may repeat.
            detector: finds the faces of all of them.
            settings: how to follow, label and draw; None takes the defaults.
            recorders: one a source, or none. They run from the beginning.
            records_raw: record pictures without anything drawn on them.
            duration_seconds: how long to run; 0 is until it is stopped, or all sources end.
            notice: told in one line when a source is lost, comes back, fails or ends.

        Raises:
            ConfigError: raw pictures would show faces that are to be blurred, or a zone is of a
                source that there is not.
        """
        settings = settings or Settings()
        blur = self._looks_first = settings.render.blur
        if blur and records_raw and recorders:
            raise ConfigError("--record-raw would keep the faces that --blur hides; drop either")
        if blur:
            # A face hidden too many does no harm, one too few does: whatever is found is hidden,
            # and a frame is shown only when its own faces are known.
            settings = replace(settings, track=replace(settings.track, min_hits=1))
        self._settings = settings
        self._view_bell, self._look_bell = Bell(), Bell()
        self.captures = [
            Capture(
                source,
                settings.track,
                view_bell=self._view_bell,
                look_bell=self._look_bell,
                give_up_after_seconds=settings.live.give_up_after_seconds,
                looks_first=blur,
            )
            for source in sources
        ]
        self.looker = Looker(self.captures, detector, settings, self._look_bell, passes_on=blur)
        self._most_threshold = self.looker.face_threshold if blur else 1.0
        self._recorders = list(recorders)
        self._records_raw = records_raw
        self._log: LiveLog | None = None
        self._duration = duration_seconds
        self._notice = notice
        self._device = _device_of(detector)
        self.ended_clean = False
        self._stop = threading.Event()
        self._paused = False
        self._faces = [(0, 0, 0)] * len(self.captures)  # female, male, unsure now in view
        self._areas = areas_of(settings, len(self.captures))
        self._beside: list[list[str]] = [[] for _ in self.captures]
        self._last: list[Shown | None] = [None] * len(self.captures)
        self._told: list[State] = ["starting"] * len(self.captures)
        self._warned = [0] * len(self.captures)  # lines that were told
        self._failures: list[Exception] = []  # of recordings
        self._recording_lock = threading.Lock()

    @property
    def names(self) -> tuple[str, ...]:
        """The sources, without credentials."""
        return tuple(capture.name for capture in self.captures)

    @property
    def face_threshold(self) -> float:
        """Least score of a face that is shown."""
        return self.looker.face_threshold

    @property
    def most_threshold(self) -> float:
        """What it may be raised to: where faces are blurred, a higher one would show some."""
        return self._most_threshold

    def set_face_threshold(self, value: float) -> None:
        """Change it, from the next look on.

        Args:
            value: 0 to `most_threshold`.

        Raises:
            ConfigError: it would show faces that are to be blurred.
        """
        if not 0 <= value <= 1:
            raise ValueError(f"a face threshold is 0 to 1, got {value}")
        if value > self._most_threshold:
            raise ConfigError(
                f"with --blur the threshold stays at or below {self._most_threshold:g}, or faces "
                "would be seen; start with a higher --face-threshold"
            )
        self.looker.face_threshold = value

    @property
    def can_record(self) -> bool:
        """Whether a file was named to record to."""
        return bool(self._recorders)

    @property
    def recording(self) -> bool:
        """Whether frames are being recorded."""
        return any(recorder.running for recorder in self._recorders)

    @property
    def recording_trouble(self) -> str:
        """Why recordings ended by themselves since the last start; empty if none did."""
        errors = [recorder.error for recorder in self._recorders]
        return printable("; ".join(str(_in_words(error)) for error in errors if error is not None))

    def start_recording(self) -> None:
        """Begin to record, to further files if there are some already."""
        with self._recording_lock:
            for recorder in self._recorders:
                recorder.start()

    def stop_recording(self) -> None:
        """Finish the recordings, which are complete from then on."""
        with self._recording_lock:
            stop_all(self._recorders, _RECORDERS_SECONDS)

    @property
    def paused(self) -> bool:
        """Whether the user wants nothing to move: files stand still, cameras run on unseen."""
        return self._paused

    def set_paused(self, value: bool) -> None:
        """Pause, or go on."""
        self._paused = value

    def request_stop(self) -> None:
        """End the run soon; returns at once. Safe in a signal's handler."""
        self._stop.set()

    def stats(self) -> list[LiveStats]:
        """Return how each source does, in order."""
        found = []
        for position, areas in enumerate(self._areas):
            stats, events = self._stats_of(position), areas.happened()
            found.append(
                replace(
                    stats,
                    zones=areas.told(in_view=stats.state in _IN_VIEW),
                    zone_events=None if events is None else events.figures(),
                )
            )
        return found

    def _stats_of(self, position: int) -> LiveStats:
        """Return how a source does, without its zones."""
        capture = self.captures[position]
        state = self._state_of(position)
        female, male, unsure = self._faces[position] if state in _IN_VIEW else (0, 0, 0)
        fps_in, fps_out = capture.meter.rates()
        p50, p95 = capture.meter.latency_ms()
        return LiveStats(
            source=capture.name,
            state=state,
            message=capture.condition[1],
            fps_in=fps_in,
            fps_out=fps_out,
            latency_ms_p50=p50,
            latency_ms_p95=p95,
            dropped=capture.meter.dropped,
            frames=capture.meter.frames,
            faces=female + male + unsure,
            female=female,
            male=male,
            unsure=unsure,
            reconnects=capture.reconnects,
            device=self._device,
        )

    def _state_of(self, position: int) -> State:
        capture = self.captures[position]
        state = capture.condition[0]
        return "paused" if state == "running" and self._paused and capture.waits else state

    def summaries(self) -> list[dict[str, Any]]:
        """Return each source's figures over the whole run."""
        return [
            {
                **capture.meter.overall(),
                "reconnects": capture.reconnects,
                "state": capture.condition[0],
                "device": self._device,
                **(areas.figures() or {}),
            }
            for capture, areas in zip(self.captures, self._areas, strict=True)
        ]

    def run(self, screens: Sequence[Screen] = (), log: LiveLog | None = None) -> None:
        """Watch until all sources end, the time is up, or `request_stop`; screens are closed.

        Args:
            screens: where frames are shown.
            log: told each frame that is shown.

        Raises:
            SourceError: a source failed, which does not end the others.
            OutputError: a recording or the log could not be written to its end.
            VideogenderError: what the network raised.
        """
        self._log = log
        with quick_collections():
            self._watch(screens)
        self._finish()

    def _watch(self, screens: Sequence[Screen]) -> None:
        self.looker.start()
        try:
            while not (self._stop.is_set() or self.looker.ready.wait(_NAP_SECONDS)):
                pass  # the first forward pass takes longer than all others
            began = time.monotonic()
            self.start_recording()
            if self._log is not None:
                self._log.begin(self._sources_now())
            for capture in self.captures:
                capture.start(began)
            while not self._stop.is_set():
                self._view_bell.wait(_NAP_SECONDS)
                # Asked before the view, so that what came in between is still shown.
                is_over = all(capture.is_over for capture in self.captures)
                is_over = is_over and (not self._looks_first or self.looker.is_idle)
                moved = self._view(screens)
                self._tell_changes()
                self._log_interval()
                if self.looker.error is not None:
                    raise self.looker.error
                if is_over and not moved:
                    break
                if self._duration and time.monotonic() - began >= self._duration:
                    break
            self._log_interval(is_last=True)
        finally:
            self.ended_clean = self._end(screens)

    def _view(self, screens: Sequence[Screen]) -> bool:
        """Show the newest frame of each source; return whether there was any."""
        shown: list[tuple[int, Shown]] = []
        for position, capture in enumerate(self.captures):
            if self._paused and capture.waits:
                continue
            captured = capture.shown.take()
            if captured is not None:
                self._look_bell.ring()  # there is room for another one
                shown.append((position, self._show(position, captured, screens)))
        for screen in screens:
            if isinstance(screen, LateScreen):
                self._show_again(screen)
            if isinstance(screen, Polled):
                screen.poll()
        for position, now in shown:
            self.captures[position].meter.show(now.captured.captured_seconds)
            if self._log is not None:
                self._log.take(
                    now.captured.frame,
                    now.faces,
                    now.captured.captured_seconds,
                    where=now.where,
                    position=position,
                )
        return bool(shown)

    def _show_again(self, screen: LateScreen) -> None:
        """Show the last frame to whoever came after it; a source may stand still for long."""
        for position, last in enumerate(self._last):
            if last is not None and screen.lacks(position):
                seconds = last.captured.captured_seconds
                screen.show(position, drawn(last, self._settings), last.faces, seconds)

    def _show(self, position: int, captured: Captured, screens: Sequence[Screen]) -> Shown:
        faces, look = self.looker.seen(position, captured)
        labels = faces.labels(self._settings.label.unsure_below)
        self._faces[position] = (
            labels.count("female"),
            labels.count("male"),
            labels.count("unsure"),
        )
        frame = captured.frame
        shown = Shown(captured, faces, self._areas[position].at(captured, faces, look))
        self._last[position] = shown
        eager = [screen for screen in screens if screen.wants(position)]
        recorder = self._recorders[position] if self._recorders else None
        if recorder is not None and not recorder.running:
            recorder = None
        if recorder is not None and self._records_raw:
            recorder.write(frame.picture, frame.pts_seconds or 0.0, captured.pixel_aspect)
            recorder = None
        if recorder is None and not eager:
            return shown
        rgb = drawn(shown, self._settings)
        for screen in eager:
            screen.show(position, rgb, faces, captured.captured_seconds)
        if recorder is not None:
            recorder.write(rgb, frame.pts_seconds or 0.0, captured.pixel_aspect)
        return shown

    def _log_interval(self, *, is_last: bool = False) -> None:
        """Sum an interval up once it is over by the clock, whether frames come or not."""
        log = self._log
        if log is not None and log.sums_up and (is_last or log.is_due(time.monotonic())):
            log.end_interval(self._sources_now())

    def _sources_now(self) -> list[SourceNow]:
        return [
            SourceNow(
                capture.name, self._state_of(position), capture.meter.read(), areas.happened()
            )
            for position, (capture, areas) in enumerate(
                zip(self.captures, self._areas, strict=True)
            )
        ]

    def _tell_changes(self) -> None:
        for position, capture in enumerate(self.captures):
            self._tell_beside(position)
            self._tell_warnings(position)
            state, message = capture.condition
            if state == self._told[position]:
                continue
            before, self._told[position] = self._told[position], state
            if state == "running":
                if before == "reconnecting":
                    self._notice(f"{capture.name}: is there")
            else:
                self._faces[position] = (0, 0, 0)
                self._notice(message or f"{capture.name}: {state}")
        for recorder in self._recorders:
            error = recorder.error
            if error is not None and error not in self._failures:
                self._failures.append(error)
                self._notice(f"recording stopped: {_in_words(error)}")

    def _tell_warnings(self, position: int) -> None:
        """Tell what is wrong with a source that is shown all the same."""
        source = self.captures[position].source
        if isinstance(source, WarningSource):
            for line in source.warnings[self._warned[position] :]:
                self._warned[position] += 1
                self._notice(line)

    def _tell_beside(self, position: int) -> None:
        """Warn of zones that no face of the newest picture can be in."""
        before, now = self._beside[position], self._areas[position].beside
        if now != before:
            self._beside[position] = now
            for name in sorted(set(now) - set(before)):
                self._notice(f"{self.names[position]}: {name} lies beside the picture")

    def _end(self, screens: Sequence[Screen]) -> bool:
        for capture in self.captures:
            capture.stop()
        self.looker.stop()
        is_recorded = stop_all(self._recorders, _RECORDERS_SECONDS)
        for screen in screens:
            with suppress(Exception):
                screen.close()
        until = time.monotonic() + _THREADS_SECONDS
        is_clean = self.looker.join(_THREADS_SECONDS)
        for capture in self.captures:
            is_clean = capture.join(max(0.0, until - time.monotonic())) and is_clean
        is_recorded = is_recorded or self._wait_for_recordings()
        self._stop.set()
        return is_clean and is_recorded

    def _wait_for_recordings(self) -> bool:
        """Let slow encoders come to their end, unless somebody stops that; return if they did."""
        if not self._stop.is_set():
            self._notice("the recording is still being written; Ctrl-C leaves its end out")
        while not self._stop.is_set():
            if stop_all(self._recorders, _NAP_SECONDS):
                return True
        return False

    def _finish(self) -> None:
        """Write the summaries, and raise the first of what went wrong on the way."""
        if self._log is not None:
            for position, summary in enumerate(self.summaries()):
                self._log.finish(self.names[position], summary, position=position)
        for error in [*self._failures, *(recorder.error for recorder in self._recorders)]:
            if error is not None:
                raise _in_words(error)
        for recorder in self._recorders:
            if not recorder.stop(0.0):
                path = [recorder.path, *recorder.paths][-1]
                raise OutputError(f"{path}: its end is missing: there was no time to encode it")
        for capture in self.captures:
            if capture.error is not None:
                raise capture.error


def _in_words(error: Exception) -> VideogenderError:
    if isinstance(error, VideogenderError):
        return error
    return VideogenderError(f"unexpected {type(error).__name__} while recording: {error}")


def _device_of(detector: BatchDetector) -> str:
    describe = getattr(detector, "describe", None)
    return str(describe()) if callable(describe) else type(detector).__name__
