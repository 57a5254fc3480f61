"""What was counted in zones and at lines: where they lie, and a table each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from videogender.reports.charts import HALF, svg
from videogender.reports.markup import Html, Part, tag
from videogender.reports.page import Cell, Column, section, table
from videogender.reports.summary import LABELS
from videogender.reports.words import UNKNOWN, duration

__all__ = ["areas"]

_GROUPS = ("all", *LABELS)
# The figures of `videogender.zones` and what a reader calls them.
_ZONE_FIGURES = {
    "appearances": "Ever inside",
    "entries": "Came in",
    "exits": "Went out",
    "dwell_seconds": "Time inside, summed",
    "mean_dwell_seconds": "Time inside, mean",
    "peak": "Most at once",
}
_LINE_FIGURES = {"in": "In", "out": "Out"}
_MAP_WIDE = HALF


def areas(found: Mapping[str, Any] | None, size_wh: tuple[int, int]) -> Html:
    """Return the section about zones and lines, or nothing if there are none.

    Args:
        found: the figures of `videogender.zones`.
        size_wh: of the frames.
    """
    zones, lines = ((found or {}).get(kind) or [] for kind in ("zones", "lines"))
    if not zones and not lines:
        return Html()
    tables = [_table(zone, _ZONE_FIGURES) for zone in zones]
    tables += [_table(line, _LINE_FIGURES) for line in lines]
    parts = [_map(zones, lines, size_wh), tag("div", *tables, class_="areas")]
    note = "A face is where the centre of its box is."
    if any(area.get("entries") or area.get("in") for area in [*zones, *lines]):
        note += (
            " Comings and goings are counted while a face is in view; who leaves and comes back "
            "counts again."
        )
    if lines:
        note += " “In” leads to the side that the arrow points to."
    return section("Zones and lines", *parts, note=note)


def _table(area: Mapping[str, Any], figures: Mapping[str, str]) -> Html:
    rows: list[list[Cell | Part]] = [
        [words, *(_value(key, area[key].get(group)) for group in _GROUPS)]
        for key, words in figures.items()
        if area.get(key)
    ]
    columns = [Column("", is_number=False), *(Column(group) for group in _GROUPS)]
    counts = table(columns, rows, is_narrow=True) if rows else None
    return tag("div", tag("h3", str(area["name"])), counts)


def _value(key: str, value: float | None) -> Cell:
    if value is None:
        return Cell(UNKNOWN)
    return Cell(duration(value) if key.endswith("_seconds") else f"{value:,}", value)


def _map(
    zones: list[Mapping[str, Any]], lines: list[Mapping[str, Any]], size_wh: tuple[int, int]
) -> Html:
    """Draw where zones and lines lie in the picture, with their names."""
    width, height = size_wh
    if not width or not height or not all("points" in area for area in [*zones, *lines]):
        return Html()
    scale = min((_MAP_WIDE - 2) / width, 300 / height)
    wide, high = width * scale + 2, height * scale + 2
    parts = [tag("rect", x=1, y=1, width=wide - 2, height=high - 2, class_="band frame")]
    for area, kind in [*((z, "zone") for z in zones), *((x, "zone line-across") for x in lines)]:
        points = [(x * scale + 1, y * scale + 1) for x, y in area["points"]]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        closed = "Z" if kind == "zone" else _arrow(points)
        parts.append(tag("path", d=f"M{path}{closed}", class_=kind))
    for area, below in [*((zone, 0.0) for zone in zones), *((line, 30.0) for line in lines)]:
        points = area["points"]
        x = sum(point[0] for point in points) / len(points) * scale + 1
        y = sum(point[1] for point in points) / len(points) * scale + 1 + below
        x, y = min(max(x, 30), wide - 30), min(max(y, 12), high - 8)
        parts.append(tag("text", str(area["name"]), x=x, y=y + 4, class_="mid strong halo"))
    drawing = svg(wide, high, *parts, name="Where the zones and lines lie in the picture")
    return tag("figure", drawing, class_="map")


def _arrow(points: list[tuple[float, float]]) -> str:
    """Return a stroke from the middle of a line to its right, as its first end sees the second."""
    (ax, ay), (bx, by) = points
    length = ((bx - ax) ** 2 + (by - ay) ** 2) ** 0.5 or 1.0
    dx, dy = (bx - ax) / length, (by - ay) / length
    # Down is positive here, so what lies to the right of (dx, dy) is (-dy, dx).
    foot_x, foot_y = (ax + bx) / 2, (ay + by) / 2
    tip_x, tip_y = foot_x - 18 * dy, foot_y + 18 * dx
    barbs = [
        f"M{tip_x:.1f} {tip_y:.1f}L{tip_x + 6 * (dy + side * dx):.1f} "
        f"{tip_y + 6 * (-dx + side * dy):.1f}"
        for side in (-1, 1)
    ]
    return f"M{foot_x:.1f} {foot_y:.1f}L{tip_x:.1f} {tip_y:.1f}{''.join(barbs)}"
