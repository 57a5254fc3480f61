"""Small charts in SVG: bars, lines, steps over time, calibration. They scale with the page."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from videogender.reports.markup import Html, join, tag
from videogender.reports.words import clock

__all__ = ["Bar", "Line", "Plot", "bars", "lines", "reliability", "steps", "ticks", "time_ticks"]

WIDE = 960  # of a chart as wide as the page, in units of about a pixel
HALF = 470
LINE_CLASSES = ("one", "two")


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return round numbers from `low` to `high`, at most so many."""
    if not high > low:
        return [low]
    rough = (high - low) / max(1, most - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [step * i for i in range(first, last + 1)]


def time_ticks(begin: float, end: float, most: int = 10) -> list[float]:
    """Return times from `begin` to `end` that are round on a clock, at most about so many."""
    round_steps = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)
    step = next((s for s in round_steps if (end - begin) / s <= most), 14400 * 2**8)
    if step > 14400:
        step = 3600 * math.ceil((end - begin) / 3600 / most)
    first, last = math.ceil(begin / step - 1e-9), math.floor(end / step + 1e-9)
    return [step * i for i in range(first, last + 1)]


@dataclass(frozen=True, slots=True)
class Plot:
    """The inner area of a chart, and how values become places in it.

    Attributes:
        left, top, width, height: in units of the drawing.
        x: least and largest value across.
        y: the same upward.
    """

    left: float
    top: float
    width: float
    height: float
    x: tuple[float, float]
    y: tuple[float, float]

    def at_x(self, value: float) -> float:
        """Return where a value lies across."""
        low, high = self.x
        return self.left + self.width * (value - low) / ((high - low) or 1.0)

    def at_y(self, value: float) -> float:
        """Return where a value lies upward."""
        low, high = self.y
        return self.top + self.height * (1 - (value - low) / ((high - low) or 1.0))

    @property
    def bottom(self) -> float:
        """Where the lower edge is."""
        return self.top + self.height

    def x_axis(self, at: Sequence[float], name: Callable[[float], str], title: str = "") -> Html:
        """Return the lower axis with names at these values."""
        edge, right = round(self.bottom) + 0.5, self.left + self.width
        parts = [tag("path", d=f"M{self.left:.1f} {edge}H{right:.1f}", class_="axis")]
        for value in at:
            x = self.at_x(value)
            parts.append(tag("path", d=f"M{x:.1f} {edge}v4", class_="axis"))
            parts.append(tag("text", name(value), x=x, y=edge + 17, class_="mid"))
        if title:
            parts.append(tag("text", title, x=right, y=edge + 34, class_="end"))
        return join(parts)

    def y_axis(self, at: Sequence[float], name: Callable[[float], str], title: str = "") -> Html:
        """Return names and lines across at these values."""
        parts = []
        for value in at:
            y = self.at_y(value)
            line = f"M{self.left:.1f} {round(y) + 0.5}h{self.width:.1f}"
            parts.append(tag("path", d=line, class_="grid"))
            parts.append(tag("text", name(value), x=self.left - 7, y=y + 4, class_="end"))
        if title:
            parts.append(tag("text", title, x=2, y=self.top - 14))
        return join(parts)


def svg(width: float, height: float, *parts: Html, name: str) -> Html:
    """Return a drawing; `name` says what it shows to those who cannot see it."""
    wide = " wide" if width > HALF else ""
    drawing = tag(
        "svg",
        *parts,
        class_=f"chart{wide}",
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        aria_label=name,
    )
    return tag("div", drawing, class_="scroll", tabindex=0) if wide else drawing


def steps(
    edges: Sequence[float],
    layers: Sequence[tuple[str, Sequence[float]]],
    *,
    name: str,
    title: str,
) -> Html:
    """Draw counts over time, one layer on the other.

    Args:
        edges: B + 1 times in seconds; each count holds between two of them.
        layers: (class, B counts) from the lowest layer up.
        name: what the chart shows.
        title: of the upward axis.
    """
    bins = len(edges) - 1
    totals = [sum(values[i] for _, values in layers) for i in range(bins)]
    top = max([*totals, 1.0])
    marks = [mark for mark in ticks(0, math.ceil(top)) if mark == int(mark)]
    plot = Plot(46, 32, WIDE - 66, 170, (edges[0], edges[-1]), (0, max(top * 1.04, marks[-1])))
    base = [0.0] * bins
    shapes = []
    for kind, values in layers:
        upper = [low + value for low, value in zip(base, values, strict=True)]
        if any(values):
            shapes.append(tag("path", d=_area(plot, edges, base, upper), class_=f"fill {kind}"))
        base = upper
    at = time_ticks(edges[0], edges[-1])
    return svg(
        WIDE,
        plot.bottom + 26,
        plot.y_axis(marks, lambda value: f"{value:.0f}", title),
        *shapes,
        plot.x_axis(at, _clock_of(at)),
        name=name,
    )


def _area(
    plot: Plot, edges: Sequence[float], lower: Sequence[float], upper: Sequence[float]
) -> str:
    """Return the outline between two stairs, one piece for each stretch that has any height."""
    pieces, start = [], None
    for i in range(len(upper) + 1):
        filled = i < len(upper) and upper[i] > lower[i]
        if filled and start is None:
            start = i
        elif not filled and start is not None:
            part = slice(start, i)
            there = _stairs(plot, edges[start : i + 1], upper[part])
            back = _stairs(plot, edges[start : i + 1], lower[part], backward=True)
            pieces.append(f"M{there}L{back}Z")
            start = None
    return "".join(pieces)


def _stairs(
    plot: Plot, edges: Sequence[float], values: Sequence[float], *, backward: bool = False
) -> str:
    points: list[tuple[float, float]] = []
    for i, value in enumerate(values):
        if points and points[-1][1] == plot.at_y(value):
            points.pop()  # a level stretch needs its ends alone
        else:
            points.append((plot.at_x(edges[i]), plot.at_y(value)))
        points.append((plot.at_x(edges[i + 1]), plot.at_y(value)))
    if backward:
        points.reverse()
    return "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _clock_of(at: Sequence[float]) -> Callable[[float], str]:
    fine = any(abs(value - round(value)) > 1e-6 for value in at)
    return lambda value: clock(value, 1 if fine else 0)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a chart: its name and its points; y may be None where nothing is known."""

    name: str
    points: Sequence[tuple[float, float | None]]


def lines(
    series: Sequence[Line],
    *,
    name: str,
    title: str,
    x_title: str,
    y_name: Callable[[float], str],
    y_limits: tuple[float | None, float | None] = (None, None),
    mark_x: float | None = None,
) -> Html:
    """Draw up to two lines over whole numbers such as epochs.

    Args:
        series: the lines.
        name: what the chart shows.
        title: of the upward axis.
        x_title: of the axis across.
        y_name: how values are written.
        y_limits: ends of the upward axis; None takes them from the lines.
        mark_x: where a vertical line marks something.
    """
    points = [(x, y) for line in series for x, y in line.points if _is_known(y) and y is not None]
    if not points:
        return Html()
    xs, ys = [x for x, _ in points], [y for _, y in points]
    low = min(ys) if y_limits[0] is None else y_limits[0]
    high = max(ys) if y_limits[1] is None else y_limits[1]
    room = 0.06 * (high - low) or max(abs(high) * 0.1, 0.05)
    low = low - room if y_limits[0] is None else low
    high = high + room if y_limits[1] is None else high
    if y_limits[0] is None and min(ys) >= 0:
        low = max(low, 0.0)
    plot = Plot(50, 32, HALF - 70, 190, (min(xs), max(xs)), (low, high))
    shapes = []
    if mark_x is not None and min(xs) <= mark_x <= max(xs):
        x = plot.at_x(mark_x)
        shapes.append(tag("path", d=f"M{x:.1f} {plot.top}V{plot.bottom}", class_="best"))
    for line, kind in zip(series, LINE_CLASSES, strict=False):
        known = [
            (plot.at_x(x), plot.at_y(min(max(y, low), high)), x, y)
            for x, y in line.points
            if _is_known(y) and y is not None
        ]
        path = "L".join(f"{px:.1f} {py:.1f}" for px, py, _, _ in known)
        if len(known) > 1:
            shapes.append(tag("path", d=f"M{path}", class_=f"line {kind}"))
        for px, py, x, y in known if len(known) <= 60 else known[-1:]:
            hint = tag("title", f"{line.name}, {x_title} {x:g}: {y_name(y)}")
            shapes.append(tag("circle", hint, cx=px, cy=py, r=2.6, class_=f"dot {kind}"))
    across = [value for value in ticks(min(xs), max(xs), 8) if value == int(value)]
    return svg(
        HALF,
        plot.bottom + 40,
        plot.y_axis(ticks(low, high), y_name, title),
        *shapes,
        plot.x_axis(across, lambda value: f"{value:.0f}", x_title),
        name=name,
    )


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar: its name, its share of 1, a text at its end, and an interval around the share."""

    name: str
    share: float | None
    text: str
    interval: tuple[float, float] | None = None


def bars(rows: Sequence[Bar], *, name: str) -> Html:
    """Draw shares as bars from 0 to 1, one below the other."""
    high, left, right = 30, 110, 150
    plot = Plot(left, 6, HALF - left - right, high * len(rows), (0, 1), (0, 1))
    shapes = []
    for i, row in enumerate(rows):
        y = plot.top + high * i
        middle = y + high / 2
        shapes.append(tag("text", row.name, x=left - 8, y=middle + 4, class_="end strong"))
        shapes.append(
            tag("rect", x=left, y=y + 5, width=plot.width, height=high - 10, class_="band")
        )
        if row.share is not None and _is_known(row.share):
            wide = plot.at_x(min(max(row.share, 0.0), 1.0)) - left
            shapes.append(
                tag("rect", x=left, y=y + 5, width=wide, height=high - 10, class_="fill plain")
            )
        if row.interval is not None and all(map(_is_known, row.interval)):
            a, b = (plot.at_x(value) for value in row.interval)
            path = f"M{a:.1f} {middle}H{b:.1f}M{a:.1f} {middle - 4}v8M{b:.1f} {middle - 4}v8"
            shapes.append(tag("path", d=path, class_="whisker"))
        shapes.append(tag("text", row.text, x=left + plot.width + 10, y=middle + 4))
    at = [0.0, 0.5, 1.0]
    return svg(
        HALF,
        plot.bottom + 24,
        *shapes,
        plot.x_axis(at, lambda value: f"{100 * value:.0f} %"),
        name=name,
    )


Bins = Sequence[tuple[float, float, int]]
"""(confidence, accuracy, count) of each bin of a calibration."""


def reliability(bins: Bins, before: Bins = (), *, low: float = 0.5, name: str) -> Html:
    """Draw how often answers were right against how sure they were.

    Args:
        bins: shares from 0 to 1; the area of a dot follows the count.
        before: the same of an earlier state, as open dots.
        low: where both axes begin; it moves down if a bin lies below.
        name: what the chart shows.
    """
    shown = [entry for entry in [*bins, *before] if entry[2] > 0]
    if not shown:
        return Html()
    least = min(low, *(min(c, a) for c, a, _ in shown))
    low = low if least >= low else math.floor(least * 10) / 10
    plot = Plot(50, 34, HALF - 76, 260, (low, 1.0), (low, 1.0))
    ends = f"M{plot.at_x(low):.1f} {plot.at_y(low):.1f}L{plot.at_x(1):.1f} {plot.at_y(1):.1f}"
    shapes = [tag("path", d=ends, class_="ideal")]
    for entries, kind in ((before, "before"), (bins, "one")):
        most = max((count for _, _, count in entries), default=1)
        for confidence, accuracy, count in entries:
            if count <= 0:
                continue
            hint = f"{count:,} answers, {100 * confidence:.0f} % sure, {100 * accuracy:.0f} % right"
            radius = 3 + 7 * math.sqrt(count / most)
            shapes.append(
                tag(
                    "circle",
                    tag("title", hint),
                    cx=plot.at_x(confidence),
                    cy=plot.at_y(accuracy),
                    r=radius,
                    class_=f"dot {kind}",
                )
            )
    at = ticks(low, 1.0)

    def in_percent(value: float) -> str:
        return f"{100 * value:.0f} %"

    return svg(
        HALF,
        plot.bottom + 40,
        plot.y_axis(at, in_percent, "right"),
        *shapes,
        plot.x_axis(at, in_percent, "sure"),
        name=name,
    )


def _is_known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
