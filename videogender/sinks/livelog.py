"""LiveLog: what is seen live as JSON Lines, a line a frame or a line an interval."""

from __future__ import annotations

import json
import math
import os
import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videogender.errors import OutputError
from videogender.frames import Faces, Frame, Label
from videogender.sinks.jsonl import frame_record
from videogender.sinks.rows import RowSink, rounded

if TYPE_CHECKING:
    from videogender.zones.figures import Whereabouts

__all__ = ["LiveLog"]

_LABELS: tuple[Label, ...] = ("female", "male", "unsure")
_FLUSH_SECONDS = 0.5


class LiveLog(RowSink):
    """Writes JSON Lines as things happen; a file can be followed, and keeps what a kill leaves.

    Args:
        target: the file, or `-` for standard output.
        unsure_below: least probability of the winning label, 0.5 to 1.
        interval_seconds: length of what a line sums up; 0 writes every frame.
        force: replace a file that exists.

    Raises:
        OutputError: the file exists or cannot be opened.
    """

    def __init__(
        self,
        target: str | Path,
        *,
        unsure_below: float,
        interval_seconds: float = 0.0,
        force: bool = False,
    ) -> None:
        if str(target) != "-" and not force and os.path.lexists(target):
            raise OutputError(f"{target}: exists already; --force replaces it")
        super().__init__(target, unsure_below=unsure_below)
        self._interval = interval_seconds
        self._flushed = time.monotonic()
        self._since: dict[str, _Interval] = {}

    def write(self, frame: Frame, faces: Faces, where: Whereabouts | None = None) -> None:
        """Take a frame that was captured just now."""
        self.take(frame, faces, time.monotonic(), {})

    def take(
        self, frame: Frame, faces: Faces, captured_seconds: float, figures: Mapping[str, Any]
    ) -> None:
        """Take a frame that was shown.

        Args:
            frame: what was shown.
            faces: what was drawn on it.
            captured_seconds: when it was captured, on the clock of `time.monotonic`.
            figures: rates and latencies at this moment, for the line that ends an interval.
        """
        if not self._interval:
            record: dict[str, Any] = {**frame_record(frame, faces, self.unsure_below)}
            found = record.pop("faces")
            record["captured"] = _wall_time(captured_seconds)
            record["latency_ms"] = rounded((time.monotonic() - captured_seconds) * 1e3, 1)
            self._line({**record, "faces": found})
            return
        interval = self._since.setdefault(frame.source, _Interval(captured_seconds))
        interval.add(faces, self.unsure_below)
        if captured_seconds - interval.began >= self._interval:
            self._end_interval(frame.source, captured_seconds, figures)

    def finish(self, source: str, summary: Mapping[str, Any]) -> None:
        """Write a source's figures over the whole run, after the interval that was under way."""
        if self._interval and source in self._since:
            self._end_interval(source, time.monotonic(), {})
        self._line({"source": source, "summary": _plain(summary)})

    def put(self, text: str) -> None:
        """Write text; whoever follows the file sees it within half a second of the next."""
        super().put(text)
        now = time.monotonic()
        if now - self._flushed >= _FLUSH_SECONDS and not self._is_stdout:
            self._flushed = now
            try:
                self._file.flush()
            except OSError as error:
                raise self._failed(error) from error

    def _end_interval(self, source: str, now: float, figures: Mapping[str, Any]) -> None:
        interval = self._since.pop(source)
        self._line(
            {
                "source": source,
                "began": _wall_time(interval.began),
                "seconds": rounded(now - interval.began, 3),
                **interval.record(),
                **_plain(figures),
            }
        )
        self._since[source] = _Interval(now)

    def _line(self, record: Mapping[str, Any]) -> None:
        self.put(json.dumps(record, allow_nan=False, separators=(",", ":")) + "\n")


class _Interval:
    """What was seen since a time."""

    def __init__(self, began: float) -> None:
        self.began = began
        self._frames = 0
        self._most = 0
        self._in_view: Counter[str] = Counter()
        self._tracks: dict[int, str] = {}

    def add(self, faces: Faces, unsure_below: float) -> None:
        """Count the faces of a frame."""
        labels = faces.labels(unsure_below)
        self._frames += 1
        self._most = max(self._most, len(faces))
        self._in_view.update(labels)
        self._tracks.update(zip(faces.tracks.tolist(), labels, strict=False))

    def record(self) -> dict[str, Any]:
        """Sum it up: mean faces in view, by label, and how many different tracks there were."""
        frames = max(1, self._frames)
        in_view = {label: rounded(self._in_view[label] / frames, 3) for label in _LABELS}
        last = Counter(self._tracks.values())
        return {
            "frames": self._frames,
            "faces_mean": rounded(sum(self._in_view.values()) / frames, 3),
            "faces_max": self._most,
            "in_view_mean": in_view,
            "tracks": {label: last[label] for label in _LABELS},
        }


def _wall_time(captured_seconds: float) -> str:
    """Return a time of `time.monotonic` as one of the calendar, in UTC to the millisecond."""
    wall = time.time() - (time.monotonic() - captured_seconds)
    moment = datetime.fromtimestamp(wall, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _plain(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Return figures that JSON takes: rounded, NaN as null."""
    return {
        key: (None if math.isnan(value) else rounded(value, 2))
        if isinstance(value, float)
        else value
        for key, value in figures.items()
    }
