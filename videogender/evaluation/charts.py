"""Two kinds of charts, drawn with Pillow: curves on two axes, and rows of values with intervals.

They are drawn at twice their size and shrunk, which smooths every edge.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

OVER = 2  # drawn so many times larger
INK, FAINT, GRID = (34, 38, 46), (110, 116, 128), (226, 229, 234)
COLOURS = (
    *((30, 100, 200), (214, 106, 20), (36, 140, 84), (150, 60, 160)),  # told apart by all eyes
    *((200, 20, 60), (80, 180, 230), (120, 80, 30), (60, 60, 60)),
)
SIZE_WH = (760, 520)
MARGIN = {"left": 76, "right": 28, "top": 64, "bottom": 62}
TEXT_PX, TITLE_PX = 14, 18
SERIES_PX, BETWEEN_PX = 10, 12  # height of a series of a row, and of what parts two rows
LEAST_ROW_PX, LEGEND_PX = 30, 22

Point = tuple[float, float]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

__all__ = ["Curve", "Row", "curves_chart", "rows_chart"]


@dataclass(frozen=True, slots=True)
class Curve:
    """A line through points.

    Attributes:
        name: in the legend.
        points: x and y of each.
        weights: if given, a disc for each point, its area by weight.
        mark: a point to be singled out, and what to write beside it.
    """

    name: str
    points: Sequence[Point]
    weights: Sequence[float] = ()
    mark: tuple[Point, str] | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One line of `rows_chart`: a name, and for each series a value between its interval's ends.

    Attributes:
        name: at the left; a row without values is a heading.
        values: (value, low, high) for each series; NaN where there is none.
        note: at the right, such as the number of faces.
    """

    name: str
    values: Sequence[tuple[float, float, float]] = ()
    note: str = ""


def curves_chart(
    title: str,
    axes: tuple[str, str],
    curves: Sequence[Curve],
    x_range: tuple[float, float] = (0.0, 1.0),
    y_range: tuple[float, float] = (0.0, 1.0),
    *,
    diagonal: bool = False,
) -> Image.Image:
    """Draw curves on two axes.

    Args:
        title: above.
        axes: names of x and y.
        curves: lines, drawn in order.
        x_range, y_range: ends of the axes.
        diagonal: also draw y = x, faintly.
    """
    sheet = _Sheet(SIZE_WH, title, [curve.name for curve in curves])
    area = _Area(sheet, x_range, y_range)
    area.grid(*axes)
    if diagonal:
        area.polyline([(x_range[0], x_range[0]), (x_range[1], x_range[1])], FAINT, 1)
    for number, curve in enumerate(curves):
        colour = COLOURS[number % len(COLOURS)]
        area.polyline(curve.points, colour, 2.5)
        heaviest = max(curve.weights, default=0.0)
        for point, weight in zip(curve.points, curve.weights, strict=False):
            area.disc(point, 3 + 8 * math.sqrt(weight / heaviest), colour)
        if curve.mark is not None:
            area.disc(curve.mark[0], 5, colour)
            area.text(curve.mark[0], curve.mark[1], colour)
    return sheet.done()


def rows_chart(
    title: str,
    axis: str,
    series: Sequence[str],
    rows: Sequence[Row],
    x_range: tuple[float, float] = (0.0, 1.0),
) -> Image.Image:
    """Draw values with their intervals, a line for each name.

    Args:
        title: above.
        axis: name of the axis of values.
        series: names of the values of a row.
        rows: from top to bottom.
        x_range: ends of the axis.
    """
    names = max((_width(row.name) for row in rows), default=0)
    notes = max((_width(row.note) for row in rows), default=0)
    row_px = max(LEAST_ROW_PX, SERIES_PX * len(series) + BETWEEN_PX)
    height = MARGIN["top"] + MARGIN["bottom"] + row_px * len(rows)
    sheet = _Sheet((SIZE_WH[0], height), title, series)
    left, right = names + 44, SIZE_WH[0] - notes - 44
    bottom = sheet.bottom

    def place(value: float) -> float:
        share = (min(max(value, x_range[0]), x_range[1]) - x_range[0]) / (x_range[1] - x_range[0])
        return left + share * (right - left)

    for tick in _ticks(*x_range):
        sheet.line([(place(tick), sheet.top), (place(tick), bottom)], GRID, 1)
        sheet.text((place(tick), bottom + 8), f"{tick:g}", FAINT, "ma")
    sheet.text(((left + right) / 2, bottom + 30), axis, INK, "ma")
    for number, row in enumerate(rows):
        y = sheet.top + row_px * (number + 0.5)
        if number and row_px > LEAST_ROW_PX:  # else it is plain which dots are whose
            edge = y - row_px / 2
            sheet.line([(24, edge), (SIZE_WH[0] - 24, edge)], GRID, 1)
        sheet.text((24, y), row.name, INK if row.values else FAINT, "lm")
        sheet.text((right + 20, y), row.note, FAINT, "lm")
        for index, (value, low, high) in enumerate(row.values):
            if math.isnan(value):
                continue
            at = y + (index - (len(row.values) - 1) / 2) * SERIES_PX
            colour = COLOURS[index % len(COLOURS)]
            if not math.isnan(low):
                sheet.line([(place(low), at), (place(high), at)], colour, 2)
            sheet.disc((place(value), at), 4.5, colour)
    return sheet.done()


class _Sheet:
    """White paper with a title and a legend; places are in pixels of the finished chart.

    Args:
        size_wh: of the chart; it grows where the legend takes more than a line.
        title: above.
        names: of the colours, which are named if there is more than one.

    Attributes:
        size_wh: as it has become.
        top, bottom: between what stands above and the axis below.
    """

    def __init__(self, size_wh: tuple[int, int], title: str, names: Sequence[str]) -> None:
        places = _legend_places(names if len(names) > 1 else (), size_wh[0])
        more = LEGEND_PX * max((line for _, line in places), default=0)
        self.size_wh = size_wh[0], size_wh[1] + more
        self.top, self.bottom = MARGIN["top"] + more, self.size_wh[1] - MARGIN["bottom"]
        self._image = Image.new("RGB", (self.size_wh[0] * OVER, self.size_wh[1] * OVER), "white")
        self._pen = ImageDraw.Draw(self._image)
        self.text((24, 14), title, INK, "la", TITLE_PX)
        for number, (x, line) in enumerate(places):
            y = 48 + LEGEND_PX * line
            self.disc((x + 6, y), 5, COLOURS[number % len(COLOURS)])
            self.text((x + 16, y), names[number], INK, "lm")

    def line(self, points: Sequence[Point], colour: tuple[int, int, int], width: float) -> None:
        scaled = [(x * OVER, y * OVER) for x, y in points]
        self._pen.line(scaled, colour, max(1, round(width * OVER)), "curve")

    def disc(self, centre: Point, radius: float, colour: tuple[int, int, int]) -> None:
        x, y, r = centre[0] * OVER, centre[1] * OVER, radius * OVER
        self._pen.ellipse((x - r, y - r, x + r, y + r), colour, "white", OVER)

    def text(
        self,
        place: Point,
        text: str,
        colour: tuple[int, int, int],
        anchor: str,
        size: int = TEXT_PX,
    ) -> None:
        at = (place[0] * OVER, place[1] * OVER)
        self._pen.text(at, text, fill=colour, font=_font(size * OVER), anchor=anchor)

    def upright(self, place: Point, text: str) -> None:
        """Write from bottom to top, centred on a place."""
        left, top, right, bottom = _font(TEXT_PX * OVER).getbbox(text)
        strip = Image.new("RGB", (round(right - left) + 4, round(bottom - top) + 4), "white")
        ImageDraw.Draw(strip).text((2 - left, 2 - top), text, INK, _font(TEXT_PX * OVER))
        strip = strip.rotate(90, expand=True)
        x, y = round(place[0] * OVER), round(place[1] * OVER)
        self._image.paste(strip, (x - strip.width // 2, y - strip.height // 2))

    def done(self) -> Image.Image:
        return self._image.resize(self.size_wh, Image.Resampling.LANCZOS)


class _Area:
    """The part of a sheet between two axes."""

    def __init__(self, sheet: _Sheet, x_range: Point, y_range: Point) -> None:
        self._sheet, self._x, self._y = sheet, x_range, y_range
        self._left, self._right = MARGIN["left"], sheet.size_wh[0] - MARGIN["right"]
        self._top, self._bottom = sheet.top, sheet.bottom

    def grid(self, x_name: str, y_name: str) -> None:
        for tick in _ticks(*self._x):
            x, _ = self._place((tick, self._y[0]))
            self._sheet.line([(x, self._top), (x, self._bottom)], GRID, 1)
            self._sheet.text((x, self._bottom + 8), f"{tick:g}", FAINT, "ma")
        for tick in _ticks(*self._y):
            _, y = self._place((self._x[0], tick))
            self._sheet.line([(self._left, y), (self._right, y)], GRID, 1)
            self._sheet.text((self._left - 8, y), f"{tick:g}", FAINT, "rm")
        middle = (self._left + self._right) / 2, (self._top + self._bottom) / 2
        self._sheet.text((middle[0], self._bottom + 32), x_name, INK, "ma")
        self._sheet.upright((22, middle[1]), y_name)

    def polyline(self, points: Sequence[Point], colour: tuple[int, int, int], width: float) -> None:
        if len(points) > 1:
            self._sheet.line([self._place(point) for point in points], colour, width)

    def disc(self, point: Point, radius: float, colour: tuple[int, int, int]) -> None:
        self._sheet.disc(self._place(point), radius, colour)

    def text(self, point: Point, text: str, colour: tuple[int, int, int]) -> None:
        """Write beside a point of a curve that falls: above, or else below it."""
        x, y = self._place(point)
        if x + 8 + _width(text) < self._right:
            self._sheet.text((x + 8, y - 6), text, colour, "ld")
        else:
            self._sheet.text((x - 8, y + 6), text, colour, "ra")

    def _place(self, point: Point) -> Point:
        shares = [
            (min(max(value, low), high) - low) / (high - low)
            for value, (low, high) in zip(point, (self._x, self._y), strict=True)
        ]
        return (
            self._left + shares[0] * (self._right - self._left),
            self._bottom - shares[1] * (self._bottom - self._top),
        )


def _ticks(low: float, high: float) -> list[float]:
    """Return four to ten round numbers within a range."""
    power: float = 10.0 ** math.floor(math.log10(high - low))
    step = next(
        power * part
        for part in (0.1, 0.2, 0.5, 1.0, 2.0)
        if (high - low) / (power * part) <= 10.001
    )
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 10) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _legend_places(names: Sequence[str], wide: int) -> list[tuple[int, int]]:
    """Return where each name of a legend begins, and on which line."""
    places, x, line = [], 24, 0
    for name in names:
        taken = 36 + _width(name)
        if x > 24 and x + taken > wide:
            x, line = 24, line + 1
        places.append((x, line))
        x += taken
    return places


def _width(text: str) -> int:
    return math.ceil(_font(TEXT_PX * OVER).getlength(text) / OVER)


@lru_cache(maxsize=4)
def _font(size_px: int) -> Font:
    return ImageFont.load_default(size_px)
