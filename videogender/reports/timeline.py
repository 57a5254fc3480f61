"""The timeline of a video: each track a bar, shots as bands, long videos in several strips."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from typing import Any

from videogender.reports.charts import WIDE, Plot, svg, time_ticks
from videogender.reports.markup import Html, join, tag
from videogender.reports.page import fold
from videogender.reports.words import clock, duration, percent

__all__ = ["lanes", "strips", "sureness", "timeline"]

# Tracks of one strip, about, and how many strips there are at most.
TRACKS_A_STRIP = 60
MOST_STRIPS = 12
# Strips in view before the reader asks for more.
STRIPS_SHOWN = 4
# Cuts of a strip beyond which lines at each would be all that is seen.
_MOST_CUTS = 40
_ROUND_SECONDS = (1, 2, 5, 10, 15, 20, 30, 60, 120, 180, 300, 600, 900, 1200, 1800, 3600, 7200)
_LEFT, _RIGHT = 26, 26

Stretches = Sequence[tuple[float, float]]
"""When a track is in view without a break: (begin, end) in seconds, in order."""


def timeline(
    tracks: Sequence[Mapping[str, Any]],
    stretches: Mapping[int, Stretches],
    shot_begins: Sequence[float],
    whole: tuple[float, float],
    *,
    prefix: str,
) -> Html:
    """Draw tracks over time; each bar leads to the row of its track in the table.

    Args:
        tracks: of a summary, in the order of their ids.
        stretches: when each of them is in view, by id.
        shot_begins: when each shot begins, in seconds.
        whole: time of the first frame, and when the last one ends.
        prefix: of the ids of the table's rows.
    """
    spans = [(stretches[t["id"]][0][0], stretches[t["id"]][-1][1]) for t in tracks]
    rows = lanes(spans)
    parts = []
    for start, stop in strips(*whole, len(tracks)):
        here = [
            (track, stretches[track["id"]], row)
            for track, (begin, end), row in zip(tracks, spans, rows, strict=True)
            if begin < stop and end > start
        ]
        strip = _strip(here, shot_begins, (start, stop), whole, prefix)
        parts.append(tag("figure", strip))
    if len(parts) > STRIPS_SHOWN + 1:
        rest = parts[STRIPS_SHOWN:]
        parts[STRIPS_SHOWN:] = [fold(f"The other {len(rest)} strips of the timeline", *rest)]
    return join(parts)


def strips(begin: float, end: float, tracks: int) -> list[tuple[float, float]]:
    """Divide a video into as many stretches as its tracks need, at round times."""
    wanted = min(MOST_STRIPS, max(1, math.ceil(tracks / TRACKS_A_STRIP)))
    length = (end - begin) / wanted
    if wanted == 1 or length <= 0:
        return [(begin, end)]
    step = next((s for s in _ROUND_SECONDS if s >= length), 3600 * math.ceil(length / 3600))
    first = math.floor(begin / step * 4 + 1e-9) * step / 4  # little time before the video begins
    count = max(1, math.ceil((end - first) / step - 1e-9))
    return [(first + i * step, first + (i + 1) * step) for i in range(count)]


def lanes(spans: Sequence[tuple[float, float]]) -> list[int]:
    """Give each span (begin, end) the first lane that is free; spans come in order of time."""
    free: list[int] = []
    busy: list[tuple[float, int]] = []
    taken = 0
    chosen = []
    for begin, end in spans:
        while busy and busy[0][0] <= begin + 1e-9:
            heapq.heappush(free, heapq.heappop(busy)[1])
        if not free:
            free.append(taken)
            taken += 1
        lane = heapq.heappop(free)
        heapq.heappush(busy, (end, lane))
        chosen.append(lane)
    return chosen


def _strip(
    here: Sequence[tuple[Mapping[str, Any], Stretches, int]],
    shot_begins: Sequence[float],
    span: tuple[float, float],
    whole: tuple[float, float],
    prefix: str,
) -> Html:
    count = max([lane for _, _, lane in here], default=0) + 1
    pitch = 22.0 if count <= 10 else 14.0 if count <= 24 else max(5.0, 340 / count)
    plot = Plot(_LEFT, 6, WIDE - _LEFT - _RIGHT, pitch * count + 4, span, (0, 1))
    first, last = max(span[0], whole[0]), min(span[1], whole[1])
    parts = [_bands(plot, shot_begins, first, last)]
    for track, stretches, lane in here:
        y = plot.top + 3 + pitch * lane
        parts.append(_bar(plot, track, stretches, y, pitch - 2, prefix))
    at = time_ticks(*span)
    fine = any(abs(value - round(value)) > 1e-6 for value in at)
    parts.append(plot.x_axis(at, lambda value: clock(value, 1 if fine else 0)))
    name = f"Appearances from {clock(first)} to {clock(last)}: {len(here)}"
    return svg(WIDE, plot.bottom + 26, *parts, name=name)


def _bands(plot: Plot, shot_begins: Sequence[float], first: float, last: float) -> Html:
    """Return every other shot shaded, and a dashed line at each cut."""
    edges = [*shot_begins, math.inf]
    shades, cuts = [], []
    for i, begin in enumerate(shot_begins):
        a, b = max(begin, first), min(edges[i + 1], last)
        if a < b and i % 2 == 0:
            x = plot.at_x(a)
            shades.append(f"M{x:.1f} {plot.top}H{plot.at_x(b):.1f}V{plot.bottom:.1f}H{x:.1f}Z")
        if i and first < begin < last:
            cuts.append(f"M{plot.at_x(begin):.1f} {plot.top}V{plot.bottom:.1f}")
    parts = [tag("path", d="".join(shades), class_="band")] if shades else []
    if cuts and len(cuts) <= _MOST_CUTS:
        parts.append(tag("path", d="".join(cuts), class_="cut"))
    return join(parts)


def _bar(
    plot: Plot,
    track: Mapping[str, Any],
    stretches: Stretches,
    y: float,
    height: float,
    prefix: str,
) -> Html:
    """Return the bar of a track: filled while it is in view, a thread where it was lost."""
    sure = "" if track["label"] == "unsure" else f" {percent(sureness(track))}"
    attribute = f", {track['attribute']}" if "attribute" in track else ""
    hint = (
        f"{track['id']}: {track['label']}{sure}{attribute}, {clock(track['first_seconds'])} to "
        f"{clock(track['last_seconds'])}, {duration(track['seconds'])} in view"
    )
    parts = [tag("title", hint)]
    low, high = plot.x
    here = [(max(a, low), min(b, high)) for a, b in stretches if a < high and b > low]
    begin = plot.at_x(max(stretches[0][0], low))
    if len(stretches) > 1:
        end, middle = plot.at_x(min(stretches[-1][1], high)), y + height / 2
        parts.append(tag("path", d=f"M{begin:.1f} {middle:.1f}H{end:.1f}", class_="thread"))
    for a, b in here:
        x = plot.at_x(a)
        width = max(plot.at_x(b) - x, 1.5)
        kind = f"fill {track['label']}"
        parts.append(tag("rect", x=x, y=y, width=width, height=height, rx=2, class_=kind))
    room = plot.at_x(here[0][1]) - begin if here and here[0][0] <= max(stretches[0][0], low) else 0
    if room > 14 + 7 * len(str(track["id"])) and height >= 11:
        parts.append(tag("text", track["id"], x=begin + 6, y=y + height / 2 + 4, class_="in"))
    return tag("a", *parts, href=f"#{prefix}{track['id']}")


def sureness(track: Mapping[str, Any]) -> float | None:
    """Return the probability of the likelier label."""
    female = track["female"]
    return None if female is None else max(female, 1 - female)
