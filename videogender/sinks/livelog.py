"""LiveLog: what is seen live as JSON Lines, a line a frame or a line an interval."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from videogender.frames import Faces, Frame, Label
from videogender.sinks.jsonl import frame_record
from videogender.sinks.rows import Target, TextSink, plain, rounded
from videogender.zones.figures import GROUPS, LABELS

if TYPE_CHECKING:
    from videogender.live.meter import Reading
    from videogender.live.stats import State
    from videogender.zones.figures import Tallies, Whereabouts

__all__ = ["LiveLog", "SourceNow"]

_FLUSH_SECONDS = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class SourceNow:
    """How far a source has come when an interval ends.

    Attributes:
        name: of the source; several may have one.
        state: what its capture does.
        reading: of its meter.
        happened: what was counted in zones so far, or None.
    """

    name: str
    state: State
    reading: Reading
    happened: Tallies | None


class LiveLog(TextSink):
    """Writes JSON Lines as things happen; a file can be followed, and keeps what a kill leaves.

    Each line has the name of its `source` and its `index`, from 0.

    Where zones are used, a frame has `zones` [{"name", "now": faces inside by label}] and `lines`
    [{"name", "in", "out": crossings so far}] besides the `zones` of each face. An interval has what
    happened in it, by the label of each moment: `zones` [{"name", "appearances": first times
    inside, "entries", "exits", "dwell_seconds", "inside_mean", "peak"}] and `lines` [{"name", "in",
    "out"}]. The `summary` at the end has the figures of `videogender.zones`.

    Args:
        target: the file, or standard output.
        unsure_below: least probability of the winning label, 0.5 to 1.
        interval_seconds: length of what a line sums up; 0 writes every frame.
        follows: faces have tracks.

    Raises:
        OutputError: the file cannot be opened.
    """

    def __init__(
        self,
        target: Target,
        *,
        unsure_below: float,
        interval_seconds: float = 0.0,
        follows: bool = True,
    ) -> None:
        super().__init__(target)
        self._unsure_below = unsure_below
        self._interval_seconds = interval_seconds
        self._follows = follows
        self._flushed = time.monotonic()
        self._before: Sequence[SourceNow] = ()  # when the interval began
        self._due = 0.0
        self._seen: dict[int, _Interval] = {}

    @property
    def sums_up(self) -> bool:
        """Whether a line tells of an interval, not of a frame."""
        return self._interval_seconds > 0

    def take(
        self,
        frame: Frame,
        faces: Faces,
        captured_seconds: float,
        *,
        where: Whereabouts | None = None,
        position: int = 0,
    ) -> None:
        """Take a frame that was shown.

        Args:
            frame: what was shown.
            faces: what was drawn on it.
            captured_seconds: when it was captured, on the clock of `time.monotonic`.
            where: who is in which zone, or None without zones.
            position: of the source.
        """
        if not self.sums_up:
            record = {
                "source": frame.source,
                "index": position,
                **frame_record(frame, faces, self._unsure_below, where),
            }
            found = record.pop("faces")
            if where is not None:
                record.update(_of_frame(where, faces.labels(self._unsure_below)))
            record["captured"] = _wall_time(captured_seconds)
            record["latency_ms"] = rounded((time.monotonic() - captured_seconds) * 1e3, 1)
            self._line({**record, "faces": found})
            return
        self._interval(position).add(faces, self._unsure_below, where)

    def begin(self, sources: Sequence[SourceNow]) -> None:
        """Begin the first interval.

        Args:
            sources: all of them, in order.
        """
        self._before = sources
        self._due = sources[0].reading.seconds + self._interval_seconds

    def is_due(self, now: float) -> bool:
        """Tell whether the interval is over at a time of `time.monotonic`."""
        return now >= self._due

    def end_interval(self, sources: Sequence[SourceNow]) -> None:
        """Write a line a source of what happened since the interval began, and begin the next.

        Args:
            sources: all of them, in order, at the end of the interval.
        """
        for position, (before, now) in enumerate(zip(self._before, sources, strict=True)):
            self._sum_up(position, before, now)
        self._before = sources
        while self.is_due(sources[0].reading.seconds):  # when it ends late, others do not
            self._due += self._interval_seconds

    def finish(self, source: str, summary: Mapping[str, Any], *, position: int = 0) -> None:
        """Write a source's figures over the whole run."""
        self._line({"source": source, "index": position, "summary": plain(summary, 2)})

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

    def _interval(self, position: int) -> _Interval:
        return self._seen.setdefault(position, _Interval(follows=self._follows))

    def _sum_up(self, position: int, before: SourceNow, now: SourceNow) -> None:
        interval = self._interval(position)
        del self._seen[position]
        zones: dict[str, Any] = {}
        if (happened := now.happened) is not None:
            earlier = before.happened
            zones = interval.zones(happened if earlier is None else happened.since(earlier))
        self._line(
            {
                "source": now.name,
                "index": position,
                "began": _wall_time(before.reading.seconds),
                "seconds": rounded(now.reading.seconds - before.reading.seconds, 3),
                **interval.record(),
                **plain(now.reading.since(before.reading), 2),
                "state": now.state,
                **zones,
            }
        )

    def _line(self, record: Mapping[str, Any]) -> None:
        self.put(json.dumps(record, allow_nan=False, separators=(",", ":")) + "\n")


class _Interval:
    """What was seen of a source in an interval."""

    def __init__(self, *, follows: bool) -> None:
        self._follows = follows
        self._frames = 0
        self._most = 0
        self._in_view: Counter[str] = Counter()
        self._tracks: dict[int, str] = {}
        self._classes: tuple[str, ...] = ()  # of a fine-tuned head
        self._attributes: dict[int, str] = {}
        # Faces in each zone, summed over frames.
        self._in_zones: NDArray[np.int64] | None = None
        self._peaks: NDArray[np.int64] | None = None

    def add(self, faces: Faces, unsure_below: float, where: Whereabouts | None) -> None:
        """Count the faces of a frame."""
        labels = faces.labels(unsure_below)
        if where is not None:
            now = [list(counts.values()) for counts in where.now(labels)]
            counts = np.array(now, np.int64).reshape(-1, len(GROUPS))
            self._in_zones = counts if self._in_zones is None else self._in_zones + counts
            self._peaks = counts if self._peaks is None else np.maximum(self._peaks, counts)
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
        in_view = {label: rounded(self._in_view[label] / frames, 3) for label in LABELS}
        last = Counter(self._tracks.values())
        found: dict[str, Any] = {
            "frames": self._frames,
            "faces_mean": rounded(sum(self._in_view.values()) / frames, 3),
            "faces_max": self._most,
            "in_view_mean": in_view,
            "tracks": {label: last[label] for label in LABELS} if self._follows else None,
        }
        if self._classes:
            classes = Counter(self._attributes.values())
            found["attributes"] = {name: classes[name] for name in (*self._classes, "unsure")}
        return found

    def zones(self, counted: Tallies) -> dict[str, Any]:
        """Sum up zones and lines: mean faces inside, most at once, and what came and went."""
        figures = counted.figures()
        nobody = np.zeros((len(figures["zones"]), len(GROUPS)), np.int64)
        in_zones = nobody if self._in_zones is None else self._in_zones
        peaks = nobody if self._peaks is None else self._peaks
        means = (in_zones / max(1, self._frames)).round(3)
        for row, zone in enumerate(figures["zones"]):
            del zone["points"], zone["mean_dwell_seconds"]
            zone["inside_mean"] = dict(zip(GROUPS, means[row].tolist(), strict=True))
            zone["peak"] = dict(zip(GROUPS, peaks[row].tolist(), strict=True))
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
