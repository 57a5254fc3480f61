"""Meter: rates, latencies and counts of one source, in memory that does not grow."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Latencies", "Meter", "Rate", "Reading", "percentiles_ms"]

_RATE_SECONDS = 2.0
_RECENT = 120  # latencies that the moving percentiles are taken from
# Bins of the whole run's latencies: from 0.1 ms to over 100 s, each 3 % wide.
_FIRST_SECONDS, _BIN_RATIO, _BINS = 1e-4, 1.03, 480


class Rate:
    """Events a second over the last two seconds."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=2000)

    def tick(self, now: float) -> None:
        """Count an event."""
        self._times.append(now)

    def read(self, now: float) -> float:
        """Return the rate at a time."""
        times = self._times
        while times and now - times[0] > _RATE_SECONDS:
            times.popleft()
        if len(times) < 2:
            return 0.0
        # A gap that is longer than usual shows before it ends.
        usual = (times[-1] - times[0]) / (len(times) - 1)
        span = times[-1] - times[0] + max(0.0, now - times[-1] - usual)
        return (len(times) - 1) / span if span > 0 else 0.0


class Latencies:
    """Percentiles of latencies: exact for the last ones, to 3 % for all of a run."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=_RECENT)
        self._counts = np.zeros(_BINS, np.int64)

    def add(self, seconds: float) -> None:
        """Count a latency."""
        self._recent.append(seconds)
        place = math.log(max(seconds, _FIRST_SECONDS) / _FIRST_SECONDS) / math.log(_BIN_RATIO)
        self._counts[min(int(place), _BINS - 1)] += 1

    def recent_ms(self, *percents: float) -> list[float]:
        """Return percentiles of the last latencies in milliseconds; NaN if there are none."""
        if not self._recent:
            return [math.nan] * len(percents)
        return [float(value) * 1e3 for value in np.percentile(list(self._recent), percents)]

    def overall_ms(self, *percents: float) -> list[float]:
        """Return percentiles of all latencies in milliseconds; NaN if there are none."""
        return percentiles_ms(self._counts, *percents)

    def counts(self) -> NDArray[np.int64]:
        """Return how many latencies fell into each bin so far."""
        return self._counts.copy()


def percentiles_ms(counts: NDArray[np.int64], *percents: float) -> list[float]:
    """Return percentiles, in milliseconds, of what `Latencies.counts` tells; NaN of nothing."""
    total = int(counts.sum())
    if not total:
        return [math.nan] * len(percents)
    places = np.searchsorted(np.cumsum(counts), np.asarray(percents) / 100 * total)
    return [1e3 * _FIRST_SECONDS * _BIN_RATIO ** (float(place) + 0.5) for place in places]


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """The counts of a meter at one moment; two of them tell of the time between.

    Attributes:
        seconds: when, on the clock of `time.monotonic`.
        captured, frames, dropped, looks: as the meter has them.
        display, label: latencies by bin.
    """

    seconds: float
    captured: int
    frames: int
    dropped: int
    looks: int
    display: NDArray[np.int64]
    label: NDArray[np.int64]

    def since(self, before: Reading) -> dict[str, float]:
        """Return the figures of the time since an earlier reading; NaN where nothing was."""
        span = max(self.seconds - before.seconds, 1e-9)
        display = percentiles_ms(self.display - before.display, 50, 95)
        label = percentiles_ms(self.label - before.label, 50, 95)
        return {
            "fps_in": (self.captured - before.captured) / span,
            "fps_out": (self.frames - before.frames) / span,
            "looks_per_second": (self.looks - before.looks) / span,
            "latency_ms_p50": display[0],
            "latency_ms_p95": display[1],
            "label_ms_p50": label[0],
            "label_ms_p95": label[1],
            "dropped": self.dropped - before.dropped,
        }


class Meter:
    """What is counted of one source; every thread may count and read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._captured, self._shown = Rate(), Rate()
        self._display, self._label = Latencies(), Latencies()
        self._first = self._last = math.nan  # time of the first and last captured frame
        self.captured = 0
        self.frames = 0
        self.dropped = 0
        self.looks = 0

    def capture(self) -> None:
        """Count a frame that the source delivered."""
        now = time.monotonic()
        with self._lock:
            self._captured.tick(now)
            self.captured += 1
            self._first = now if math.isnan(self._first) else self._first
            self._last = now

    def drop(self) -> None:
        """Count a frame that will not be shown."""
        with self._lock:
            self.dropped += 1

    def show(self, captured_seconds: float) -> None:
        """Count a frame that is on the screen by now."""
        now = time.monotonic()
        with self._lock:
            self._shown.tick(now)
            self._display.add(now - captured_seconds)
            self.frames += 1

    def look(self, captured_seconds: float) -> None:
        """Count a frame whose labels are known by now."""
        now = time.monotonic()
        with self._lock:
            self._label.add(now - captured_seconds)
            self.looks += 1

    def rates(self) -> tuple[float, float]:
        """Return frames a second captured and shown, over the last seconds."""
        now = time.monotonic()
        with self._lock:
            return self._captured.read(now), self._shown.read(now)

    def latency_ms(self) -> tuple[float, float]:
        """Return the median and the 95th percentile from capture to display of the last frames."""
        with self._lock:
            p50, p95 = self._display.recent_ms(50, 95)
        return p50, p95

    def read(self) -> Reading:
        """Return the counts of now."""
        with self._lock:
            return Reading(
                time.monotonic(),
                self.captured,
                self.frames,
                self.dropped,
                self.looks,
                self._display.counts(),
                self._label.counts(),
            )

    def overall(self) -> dict[str, float]:
        """Return the figures of the whole run; NaN where nothing was counted."""
        with self._lock:
            span = self._last - self._first
            per_second = (1 / span) if span > 0 else math.nan
            display, label = self._display.overall_ms(50, 95), self._label.overall_ms(50, 95)
            return {
                "seconds": span,
                "fps_in": (self.captured - 1) * per_second,
                "fps_out": max(self.frames - 1, 0) * per_second,
                "latency_ms_p50": display[0],
                "latency_ms_p95": display[1],
                "label_ms_p50": label[0],
                "label_ms_p95": label[1],
                "frames": self.frames,
                "dropped": self.dropped,
                "looks": self.looks,
            }
