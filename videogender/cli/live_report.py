"""What `videogender live` says on stderr, and how it takes Ctrl-C and SIGTERM."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.status import Status
from rich.text import Text

from videogender.cli.signals import Caught, catching
from videogender.frames import Faces
from videogender.live.engine import Engine
from videogender.live.stats import LiveStats, Screen, came_back
from videogender.sinks.record import Recorder
from videogender.zones.figures import LABELS

__all__ = ["LiveReport"]

_STATUS_SECONDS = 0.5


class LiveReport:
    """Tells on stderr what happens, so that stdout stays free for data.

    Args:
        quiet: only warnings and errors.
    """

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._status: Status | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop_status()

    def note(self, line: str) -> None:
        """Say something that is good to know."""
        if not self._quiet:
            self._console.print(Text(line))

    def notice(self, line: str) -> None:
        """Say that something has gone wrong, or right again."""
        moment = time.strftime("%H:%M:%S")
        self._console.print(Text.assemble((f"{moment} ", "dim"), line))

    def begin(self, engine: Engine, drops_nothing: Sequence[bool]) -> None:
        """Say what runs where, and which frames are shown."""
        self.note(f"model: {engine.stats()[0].device}")
        for name, keeps in zip(engine.names, drops_nothing, strict=True):
            policy = "every frame is shown" if keeps else "newest frame only, late ones are dropped"
            self.note(f"{name}: {policy}")

    def status_line(self, engine: Engine) -> Screen:
        """Return a screen that shows figures on the terminal instead of pictures."""
        return _StatusLine(self, engine)

    def show_status(self, text: str) -> None:
        """Replace the line of figures at the bottom of the terminal."""
        if self._quiet or not self._console.is_terminal:
            return
        if self._status is None:
            self._status = self._console.status(Text(text), spinner="line")
            self._status.start()
        self._status.update(Text(text))

    def end(
        self, engine: Engine, recorders: Sequence[Recorder], json: str | None, lost_lines: int
    ) -> None:
        """Say what it came to."""
        self._stop_status()
        for name, figures in zip(engine.names, engine.summaries(), strict=True):
            self.note(f"{name}: {_summary(figures)}")
            for line in _areas(figures):
                self.note(f"  {line}")
        for recorder in recorders:
            for path in recorder.paths[-1:]:
                more = f" and {len(recorder.paths) - 1} before it" if recorder.paths[1:] else ""
                lost = f"; {recorder.dropped} frames came too fast" if recorder.dropped else ""
                self.note(f"recording -> {path}{more}{lost}")
        if json is not None and json != "-":
            self.note(f"data -> {json}")
        if lost_lines:
            lines = "a line is" if lost_lines == 1 else f"{lost_lines:,} lines are"
            self.notice(f"standard output: its reader was too slow; {lines} lost")

    def signals(self, engine: Engine) -> AbstractContextManager[Caught]:
        """Let Ctrl-C and SIGTERM end the run in order; a second of them ends it at once."""

        def end_at_once() -> None:
            raise KeyboardInterrupt

        return catching((signal.SIGINT, signal.SIGTERM), engine.request_stop, end_at_once)

    def _stop_status(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None


class _StatusLine:
    """A screen without pictures: the figures of each source in a line of the terminal."""

    def __init__(self, report: LiveReport, engine: Engine) -> None:
        self._report = report
        self._engine = engine
        self._last = 0.0

    def wants(self, source: int) -> bool:
        return False

    def show(
        self, source: int, rgb: NDArray[np.uint8], faces: Faces, captured_seconds: float
    ) -> None:
        return None

    def poll(self) -> None:
        now = time.monotonic()
        if now - self._last >= _STATUS_SECONDS:
            self._last = now
            self._report.show_status("   ".join(map(_status, self._engine.stats())))

    def close(self) -> None:
        return None


def _status(stats: LiveStats) -> str:
    if stats.state != "running":
        return f"{stats.source} {stats.state}"
    return (
        f"{stats.source} {stats.fps_in:.1f} fps in, {stats.fps_out:.1f} out, "
        f"{_ms(stats.latency_ms_p50)}, {stats.dropped} dropped, {stats.faces} faces"
    )


def _summary(figures: dict[str, Any]) -> str:
    parts = [
        f"{figures['frames']:,} frames shown, {figures['dropped']:,} dropped",
        f"{_number(figures['fps_in'])} fps in, {_number(figures['fps_out'])} out",
        f"capture to display {_ms(figures['latency_ms_p50'])} "
        f"(p95 {_ms(figures['latency_ms_p95'])})",
        f"to label {_ms(figures['label_ms_p50'])} (p95 {_ms(figures['label_ms_p95'])})",
    ]
    if figures["reconnects"]:
        parts.append(came_back(figures["reconnects"]))
    return "; ".join(parts)


def _areas(figures: dict[str, Any]) -> Iterator[str]:
    """Say what was counted in each zone and at each line, of all and by label."""
    for zone in figures.get("zones", ()):
        parts = [f"{_seconds(zone['dwell_seconds'])}, at most {zone['peak']['all']} at once"]
        if zone["appearances"] is not None:
            parts = [
                _split("ever inside", zone["appearances"]),
                f"{zone['entries']['all']} came in, {zone['exits']['all']} went out",
                *parts,
            ]
        yield f"zone {zone['name']}: {'; '.join(parts)}"
    for line in figures.get("lines", ()):
        yield f"line {line['name']}: {_split('in', line['in'])}; {_split('out', line['out'])}"


def _split(what: str, counts: dict[str, int]) -> str:
    return f"{counts['all']} {what} ({', '.join(f'{counts[label]} {label}' for label in LABELS)})"


def _seconds(times: dict[str, float]) -> str:
    by_label = ", ".join(f"{times[label]:.1f} {label}" for label in LABELS)
    return f"{times['all']:.1f} s inside ({by_label})"


def _ms(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.0f} ms"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1f}"
