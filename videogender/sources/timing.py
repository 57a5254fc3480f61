"""Clock: timestamps that always move forward, whatever a file claims."""

from __future__ import annotations

from fractions import Fraction

__all__ = ["Clock"]

# A step back of at least this long is a new beginning (joined recordings, a counter that wrapped):
# the rest is moved behind what came before. A shorter one is a slip of single frames.
_RESTART_SECONDS = 1
# A leap forward of at least this long is believed once a second frame claims about the same. Until
# then it may be a slip, after which no true time would be later than the time before.
_LEAP_SECONDS = 3600


class Clock:
    """Repairs missing, repeated, backward and single far too late timestamps of one stream.

    Attributes:
        repairs: how many timestamps had to be changed.
        last: the latest timestamp given out, in ticks, or None before the first.
        end: `last` plus its duration, in ticks.
    """

    def __init__(self, time_base: Fraction, *, usual_ticks: int = 1) -> None:
        """Start a clock.

        Args:
            time_base: seconds a tick.
            usual_ticks: how long a frame lasts where the file does not say, in ticks.
        """
        self._usual_ticks = max(1, usual_ticks)
        self._restart_ticks = max(1, round(_RESTART_SECONDS / time_base))
        self._leap_ticks = round(_LEAP_SECONDS / time_base)
        self._leapt: int | None = None  # what the frame before claimed, if that was a leap
        self._offset = 0
        self.repairs = 0
        self.last: int | None = None
        self.end = 0

    def tick(self, pts: int | None, duration: int | None) -> int:
        """Return the time of the next frame, later than that of the frame before.

        Args:
            pts: what the file says, in ticks, or None.
            duration: how long the frame lasts, in ticks; None or 0 if the file does not say.
        """
        duration = duration if duration and duration > 0 else self._usual_ticks
        if pts is not None:
            pts = self._believed(pts + self._offset)
        if self.last is not None and (pts is None or pts <= self.last):
            self.repairs += 1
            if pts is None:
                pts = max(self.end, self.last + 1)
            elif self.last - pts >= self._restart_ticks:
                behind = max(self.end, self.last + 1)
                self._offset += behind - pts
                pts = behind
            else:
                pts = self.last + 1
        elif pts is None:
            self.repairs += 1
            pts = 0
        self.last, self.end = pts, pts + duration
        return pts

    def _believed(self, pts: int) -> int | None:
        """Return a time, or None if it is a leap that no other frame has confirmed."""
        leapt, self._leapt = self._leapt, None
        if self.last is None or pts - self.last < self._leap_ticks:
            return pts
        self._leapt = pts
        return pts if leapt is not None and abs(pts - leapt) < self._leap_ticks else None
