"""Shapes: zones and lines as the user writes them, `NAME:x1,y1;x2,y2;…` in pixels or percent."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from videogender.errors import ConfigError

__all__ = ["Length", "Shape", "line_text", "parse_line", "parse_zone", "zone_text"]

_LENGTH = re.compile(r"\s*([+-]?(?:\d+(?:\.\d*)?|\.\d+))\s*(%?)\s*")
# A name stands on the picture and in tables; these mark its end, or the end of a table's entry.
_NO_NAME = re.compile(r"[:;\x00-\x1f\x7f-\x9f\u2028\u2029]")
_LONGEST_NAME = 40
# The least part of the picture that a zone encloses; points given twice enclose nothing.
_LEAST_AREA = 1e-6
_MOST = 1e6


@dataclass(frozen=True, slots=True)
class Length:
    """A coordinate: pixels, or percent of the picture's width or height."""

    value: float
    is_percent: bool = False

    def __str__(self) -> str:
        return f"{self.value:.10g}{'%' if self.is_percent else ''}"

    def pixels(self, side_px: float) -> float:
        """Return it in pixels of a picture with this side."""
        return self.value * side_px / 100 if self.is_percent else self.value


@dataclass(frozen=True, slots=True)
class Shape:
    """A zone's corners, or a line's two ends, as they were given."""

    name: str
    points: tuple[tuple[Length, Length], ...]

    def __str__(self) -> str:
        return f"{self.name}:{';'.join(f'{x},{y}' for x, y in self.points)}"

    def pixels(self, size_wh: tuple[int, int]) -> tuple[tuple[float, float], ...]:
        """Return the points in pixels of a picture of this width and height."""
        width, height = size_wh
        return tuple((x.pixels(width), y.pixels(height)) for x, y in self.points)


def parse_zone(text: str) -> Shape:
    """Read a zone: three corners or more.

    Raises:
        ConfigError: the text is no zone.
    """
    shape = _parse(text, "NAME:x1,y1;x2,y2;x3,y3;…")
    if len(shape.points) < 3:
        raise ConfigError(f"{text!r} should have three corners or more")
    if abs(_area(shape.pixels((1, 1)))) < _LEAST_AREA and abs(_area(shape.pixels((100, 100)))) < 1:
        raise ConfigError(f"{text!r} encloses no area")
    return shape


def parse_line(text: str) -> Shape:
    """Read a line: two points.

    Raises:
        ConfigError: the text is no line.
    """
    shape = _parse(text, "NAME:x1,y1;x2,y2")
    if len(shape.points) != 2:
        raise ConfigError(f"{text!r} should have two points, the ends of the line")
    if shape.points[0] == shape.points[1]:
        raise ConfigError(f"{text!r} has no length")
    return shape


def zone_text(value: object) -> str:
    """Return the text of a zone that a configuration file gives as a text or a mapping.

    Raises:
        ConfigError: it is neither, or no zone.
    """
    return str(parse_zone(_as_text(value)))


def line_text(value: object) -> str:
    """Return the text of a line that a configuration file gives as a text or a mapping.

    Raises:
        ConfigError: it is neither, or no line.
    """
    return str(parse_line(_as_text(value)))


def _parse(text: str, form: str) -> Shape:
    name, colon, points = text.partition(":")
    name = name.strip()
    if not colon or not name:
        raise ConfigError(f"{text!r} should be {form} in pixels or percent, as in door:0,10%;…")
    if _NO_NAME.search(name) or len(name) > _LONGEST_NAME:
        raise ConfigError(
            f"{text!r} has a name that cannot be used: at most {_LONGEST_NAME} characters, no ;"
        )
    pairs = [part for part in points.split(";") if part.strip()]
    return Shape(name, tuple(_point(pair, text) for pair in pairs))


def _point(pair: str, text: str) -> tuple[Length, Length]:
    found = [_LENGTH.fullmatch(part) for part in pair.split(",")]
    lengths = [Length(float(match[1]), bool(match[2])) for match in found if match is not None]
    if len(lengths) != 2 or len(found) != 2:
        raise ConfigError(f"{text!r}: {pair.strip()!r} should be x,y such as 320,40 or 50%,10%")
    if any(abs(length.value) > _MOST for length in lengths):
        raise ConfigError(f"{text!r}: {pair.strip()!r} lies far outside of any picture")
    return lengths[0], lengths[1]


def _as_text(value: object) -> str:
    """Write a mapping of `name` and `points` as text; points are texts or pairs."""
    if isinstance(value, str):
        return value
    if not isinstance(value, Mapping) or set(value) != {"name", "points"}:
        raise ConfigError(
            f"{value!r} should be a text NAME:x1,y1;x2,y2;… or a mapping of name and points"
        )
    points = value["points"]
    if isinstance(points, Sequence) and not isinstance(points, str):
        points = ";".join(
            ",".join(map(str, point)) if isinstance(point, Sequence) and not isinstance(point, str)
            else str(point)
            for point in points
        )  # fmt: skip
    return f"{value['name']}:{points}"


def _area(points: Sequence[tuple[float, float]]) -> float:
    """Return the signed area of a polygon by the shoelace formula."""
    turned = [*points[1:], points[0]]
    return sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(points, turned, strict=True)) / 2
