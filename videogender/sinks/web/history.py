"""Faces over the last minutes, so that a page that is opened now can show what was before."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass

from videogender.live.stats import LiveControl

__all__ = ["SPAN_SECONDS", "History", "Sample"]

SPAN_SECONDS = 300
PERIOD_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Sample:
    """How many faces were in view at one moment.

    Attributes:
        seconds: since the history began.
        counts: (female, male, unsure) of every source, in order.
    """

    seconds: float
    counts: tuple[tuple[int, int, int], ...]


class History:
    """Looks at the numbers once a second and keeps those of the last minutes."""

    def __init__(self, control: LiveControl) -> None:
        self._control = control
        self._began = time.monotonic()
        self._samples: deque[Sample] = deque(maxlen=round(SPAN_SECONDS / PERIOD_SECONDS))

    @property
    def seconds(self) -> float:
        """The time since the history began."""
        return time.monotonic() - self._began

    def since(self, seconds: float) -> list[Sample]:
        """Return the samples after a time, oldest first."""
        return [sample for sample in self._samples if sample.seconds > seconds]

    async def run(self) -> None:
        """Take samples until cancelled."""
        while True:
            counts = tuple((one.female, one.male, one.unsure) for one in self._control.stats())
            self._samples.append(Sample(round(self.seconds, 3), counts))
            await asyncio.sleep(PERIOD_SECONDS)
