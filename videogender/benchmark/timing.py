"""How forward passes are timed, ours and a peer's alike."""

from __future__ import annotations

import time
from collections.abc import Callable

SIZE_WH = (640, 480)  # of the input, where nothing else is asked for
LEAST_RUNS = 5
WARM_UP_RUNS = 3

__all__ = ["SIZE_WH", "time_runs"]


def time_runs(run: Callable[[], object], seconds: float) -> list[float]:
    """Call `run` for about `seconds`, but at least five times, after a warm-up.

    Returns:
        milliseconds of each call.
    """
    for _ in range(WARM_UP_RUNS):
        run()
    runs_ms: list[float] = []
    until = time.perf_counter() + seconds
    while len(runs_ms) < LEAST_RUNS or time.perf_counter() < until:
        began = time.perf_counter()
        run()
        runs_ms.append((time.perf_counter() - began) * 1e3)
    return runs_ms
