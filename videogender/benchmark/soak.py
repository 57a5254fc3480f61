"""Soak: how memory, latency and drops of a live run develop, a row every so often."""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from collections.abc import Callable

from rich.table import Table

from videogender.live.meter import Meter

__all__ = ["Soak", "memory_mb", "soak_table"]


_NAP_SECONDS = 0.01

Row = dict[str, float | None]
"""Figures of one stretch by name; None where nothing was counted."""


class Soak:
    """Takes a row at every interval, in a thread of its own, and prints it to stderr at once.

    A context manager around the run.

    Args:
        meter: of the run.
        every_seconds: length of an interval; 0 takes no rows.
    """

    def __init__(self, meter: Meter, every_seconds: float) -> None:
        self.rows: list[Row] = []
        self._meter, self._every = meter, every_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="videogender-soak", daemon=True)

    def __enter__(self) -> Soak:
        if self._every:
            self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._stop.set()
        if self._every:
            self._thread.join()

    def _run(self) -> None:
        while not self._meter.captured and not self._stop.wait(_NAP_SECONDS):
            pass  # loading and the first look are no part of it
        before, used = self._meter.read(), time.process_time()
        began, number = before.seconds, 0
        while not self._stop.is_set():
            number += 1
            self._stop.wait(max(0.0, began + number * self._every - time.monotonic()))
            now, used_now = self._meter.read(), time.process_time()
            passed = now.seconds - before.seconds
            if passed < self._every / 2:  # what is left at the end says little
                return
            found = {
                "seconds": now.seconds - began,
                "memory_mb": memory_mb(),
                **now.since(before),
                "cpu": (used_now - used) / passed,
            }
            self._take({name: None if math.isnan(x) else x for name, x in found.items()})
            before, used = now, used_now

    def _take(self, row: Row) -> None:
        self.rows.append(row)
        print("  ".join(f"{name} {text(row)}" for name, text in _COLUMNS), file=sys.stderr)


def soak_table(rows: list[Row]) -> Table:
    """Lay the rows of a run out."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, _ in _COLUMNS:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*(text(row) for _, text in _COLUMNS))
    return table


def memory_mb() -> float:
    """Return the memory of this process that is in use now, or its peak where only that is known.

    In units of a million bytes; NaN where neither is known.
    """
    try:
        with open("/proc/self/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    except OSError:
        pass
    try:
        import resource
    except ImportError:
        return math.nan
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6


def _number(name: str, form: str, times: float = 1.0) -> Callable[[Row], str]:
    def text(row: Row) -> str:
        value = row[name]
        return "-" if value is None else form.format(value * times)

    return text


def _ms(kind: str) -> Callable[[Row], str]:
    p50, p95 = _number(f"{kind}_p50", "{:.0f}"), _number(f"{kind}_p95", "{:.0f} ms")
    return lambda row: f"{p50(row)}/{p95(row)}"


_COLUMNS: tuple[tuple[str, Callable[[Row], str]], ...] = (
    ("after", _number("seconds", "{:.0f} s")),
    ("memory", _number("memory_mb", "{:.0f} MB")),
    ("to label p50/p95", _ms("label_ms")),
    ("to display p50/p95", _ms("latency_ms")),
    ("fps in", _number("fps_in", "{:.1f}")),
    ("shown", _number("fps_out", "{:.1f}")),
    ("looks/s", _number("looks_per_second", "{:.1f}")),
    ("dropped", _number("dropped", "{:.0f}")),
    ("cpu", _number("cpu", "{:.0f} %", 100)),
)
