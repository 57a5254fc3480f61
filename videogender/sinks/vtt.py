"""WebVTT: who is in view, as subtitles that any player shows over the source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from videogender.frames import Faces, Frame
from videogender.sinks.rows import RowSink, Target
from videogender.zones.figures import LABELS

if TYPE_CHECKING:
    from videogender.zones.figures import Whereabouts

__all__ = ["VttSink"]

# How long a lone frame is shown: nothing tells.
_LONE_FRAME_SECONDS = 0.04


class VttSink(RowSink):
    """Writes a cue such as `2 female, 1 male` for each time in which these are in view.

    Times are the source's own. Where zones are used, a line more names what each of them holds.
    """

    def __init__(
        self, target: Target, *, unsure_below: float, name: str | Path | None = None
    ) -> None:
        super().__init__(target, unsure_below=unsure_below, name=name)
        self._text = ""  # of the cue that is under way
        self._began = 0.0
        self._last: float | None = None  # time of the last frame
        self._lasts = _LONE_FRAME_SECONDS
        self.put("WEBVTT\n")

    def write(self, frame: Frame, faces: Faces, where: Whereabouts | None = None) -> None:
        """Take one frame, and write the cue that it ends."""
        seconds = max(frame.pts_seconds or 0.0, 0.0)
        if self._last is not None and seconds > self._last:
            self._lasts = seconds - self._last
        self._last = seconds
        text = _text(faces.labels(self.unsure_below), where)
        if text != self._text:
            self._end_cue(seconds)
            self._text, self._began = text, seconds

    def close(self) -> None:
        """Write the last cue and close the file. May be called twice."""
        if self._last is not None:
            self._end_cue(self._last + self._lasts)
            self._text, self._last = "", None
        super().close()

    def _end_cue(self, seconds: float) -> None:
        begin, end = round(self._began * 1000), round(seconds * 1000)
        if self._text and end > begin:
            self.put(f"\n{_clock(begin)} --> {_clock(end)}\n{self._text}\n")


def _text(labels: Sequence[str], where: Whereabouts | None) -> str:
    """Return the text of a cue, or nothing where nobody is in view."""
    lines = [_counts(labels)] if labels else []
    if where is not None:
        for column, name in enumerate(where.plan.zone_names):
            inside = where.inside[:, column].tolist()
            here = [label for label, is_in in zip(labels, inside, strict=True) if is_in]
            lines += [f"{name}: {_counts(here)}"] if here else []
    return _escaped("\n".join(lines))


def _counts(labels: Iterable[str]) -> str:
    counts = Counter(labels)
    return ", ".join(f"{counts[label]} {label}" for label in LABELS if counts[label])


def _escaped(text: str) -> str:
    """Write what WebVTT would take for a tag or an arrow in another way."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _clock(milliseconds: int) -> str:
    """Write a time as 00:01:02.345."""
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{rest // 1000:02d}.{rest % 1000:03d}"
