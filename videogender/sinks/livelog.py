"""LiveLog: what is seen live as JSON Lines, a line a frame or a line an interval."""

from __future__ import annotations

import json
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from videogender.errors import OutputError
from videogender.frames import Faces, Frame, Label
from videogender.sinks.jsonl import frame_record
from videogender.sinks.rows import RowSink, Target, rounded

if TYPE_CHECKING:
    from videogender.zones.figures import Tallies, Whereabouts

__all__ = ["LiveLog"]

_LABELS: tuple[Label, ...] = ("female", "male", "unsure")
_GROUPS = ("all", *_LABELS)
_FLUSH_SECONDS = 0.5


class LiveLog(RowSink):
    """Writes JSON Lines as things happen; a file can be followed, and keeps what a kill leaves.

    Where zones are used, a frame has `zones` [{"name", "now": faces inside by label}] and `lines`
    [{"name", "in", "out": crossings so far}] besides the `zones` of each face. An interval has what
    happened in it, by the label of each moment: `zones` [{"name", "appearances": first times
    inside, "entries", "exits", "dwell_seconds", "inside_mean", "peak"}] and `lines` [{"name", "in",
    "out"}]. The `summary` at the end has the figures of `videogender.zones`.

    Args:
        target: the file, or standard output.
        unsure_below: least probability of the winning label, 0.5 to 1.
        interval_seconds: length of what a line sums up; 0 writes every frame.
        force: replace a file that exists.

    Raises:
        OutputError: the file exists or cannot be opened.
    """

    def __init__(
        self,
        target: Target,
        *,
        unsure_below: float,
        interval_seconds: float = 0.0,
        force: bool = False,
    ) -> None:
        if isinstance(target, Path) and not force and os.path.lexists(target):
            raise OutputError(f"{target}: exists already; --force replaces it")
        super().__init__(target, unsure_below=unsure_below)
        self._interval = interval_seconds
        self._flushed = time.monotonic()
        self._since: dict[int, _Interval] = {}
        self._told: dict[int, Tallies] = {}  # what was counted in zones until the last line

    def write(self, frame: Frame, faces: Faces, where: Whereabouts | None = None) -> None:
        """Take a frame that was captured just now."""
        self.take(frame, faces, time.monotonic(), {}, where=where)

    def take(
        self,
        frame: Frame,
        faces: Faces,
        captured_seconds: float,
        figures: Mapping[str, Any],
        *,
        where: Whereabouts | None = None,
        happened: Callable[[], Tallies | None] = lambda: None,
        position: int = 0,
    ) -> None:
        """Take a frame that was shown.

        Args:
            frame: what was shown.
            faces: what was drawn on it.
            captured_seconds: when it was captured, on the clock of `time.monotonic`.
            figures: rates and latencies at this moment, for the line that ends an interval.
            where: who is in which zone, or None without zones.
            happened: returns what was counted in zones so far.
            position: of the source; several may have one name.
        """
        if not self._interval:
            record: dict[str, Any] = {**frame_record(frame, faces, self.unsure_below, where)}
            found = record.pop("faces")
            if where is not None:
                record.update(_of_frame(where, faces.labels(self.unsure_below)))
            record["captured"] = _wall_time(captured_seconds)
            record["latency_ms"] = rounded((time.monotonic() - captured_seconds) * 1e3, 1)
            self._line({**record, "faces": found})
            return
        interval = self._since.setdefault(position, _Interval(captured_seconds))
        interval.add(faces, self.unsure_below, where)
        interval.happened = happened
        if captured_seconds - interval.began >= self._interval:
            self._end_interval(frame.source, position, captured_seconds, figures)

    def finish(self, source: str, summary: Mapping[str, Any], *, position: int = 0) -> None:
        """Write a source's figures over the whole run, after the interval that was under way."""
        if self._interval and position in self._since:
            self._end_interval(source, position, time.monotonic(), {})
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

    def _end_interval(
        self, source: str, position: int, now: float, figures: Mapping[str, Any]
    ) -> None:
        interval = self._since.pop(position)
        zones: dict[str, Any] = {}
        if (happened := interval.happened()) is not None:
            before = self._told.get(position)
            zones = interval.zones(happened if before is None else happened.since(before))
            self._told[position] = happened
        self._line(
            {
                "source": source,
                "began": _wall_time(interval.began),
                "seconds": rounded(now - interval.began, 3),
                **interval.record(),
                **_plain(figures),
                **zones,
            }
        )
        self._since[position] = _Interval(now)

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
        self._classes: tuple[str, ...] = ()  # of a fine-tuned head
        self._attributes: dict[int, str] = {}
        # Faces in each zone, summed over frames.
        self._in_zones: NDArray[np.int64] = np.zeros((0, len(_GROUPS)), np.int64)
        self._peaks: NDArray[np.int64] = np.zeros((0, len(_GROUPS)), np.int64)
        self.happened: Callable[[], Tallies | None] = lambda: None

    def add(self, faces: Faces, unsure_below: float, where: Whereabouts | None) -> None:
        """Count the faces of a frame."""
        labels = faces.labels(unsure_below)
        if where is not None:
            now = [list(counts.values()) for counts in where.now(labels)]
            counts = np.array(now, np.int64).reshape(-1, len(_GROUPS))
            if not len(self._peaks):
                self._in_zones = self._peaks = counts * 0
            self._in_zones = self._in_zones + counts
            self._peaks = np.maximum(self._peaks, counts)
        self._frames += 1
        self._most = max(self._most, len(faces))
        self._in_view.update(labels)
        self._tracks.update(zip(faces.tracks.tolist(), labels, strict=False))
        if faces.classes and len(faces.tracks):
            self._classes = faces.classes
            names = [name for name, _ in faces.attribute_labels(unsure_below)]
            self._attributes.update(zip(faces.tracks.tolist(), names, strict=True))

    def record(self) -> dict[str, Any]:
        """Sum it up: mean faces in view, by label, and how many different tracks there were."""
        frames = max(1, self._frames)
        in_view = {label: rounded(self._in_view[label] / frames, 3) for label in _LABELS}
        last = Counter(self._tracks.values())
        found: dict[str, Any] = {
            "frames": self._frames,
            "faces_mean": rounded(sum(self._in_view.values()) / frames, 3),
            "faces_max": self._most,
            "in_view_mean": in_view,
            "tracks": {label: last[label] for label in _LABELS},
        }
        if self._classes:
            classes = Counter(self._attributes.values())
            found["attributes"] = {name: classes[name] for name in (*self._classes, "unsure")}
        return found

    def zones(self, counted: Tallies) -> dict[str, Any]:
        """Sum up zones and lines: mean faces inside, most at once, and what came and went."""
        figures = counted.figures()
        means = (self._in_zones / max(1, self._frames)).round(3)
        for row, zone in enumerate(figures["zones"]):
            del zone["points"], zone["mean_dwell_seconds"]
            zone["inside_mean"] = dict(zip(_GROUPS, means[row].tolist(), strict=True))
            zone["peak"] = dict(zip(_GROUPS, self._peaks[row].tolist(), strict=True))
        for line in figures["lines"]:
            del line["points"]
        return figures


def _of_frame(where: Whereabouts, labels: Sequence[Label]) -> dict[str, Any]:
    """Say how many faces are in each zone now, and how many went over each line so far."""
    plan = where.plan
    zones = zip(plan.zone_names, where.now(labels), strict=True)
    found: dict[str, Any] = {"zones": [{"name": name, "now": now} for name, now in zones]}
    if where.crossed is not None:
        lines = zip(plan.line_names, where.crossed.tolist(), strict=True)
        found["lines"] = [{"name": name, "in": a, "out": b} for name, (a, b) in lines]
    return found


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
