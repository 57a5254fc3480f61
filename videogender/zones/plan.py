"""Plan: zones and lines in the pixels of one picture, and where points are relative to them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from videogender.config import ZoneSettings
from videogender.errors import ConfigError
from videogender.zones.shapes import Shape, parse_line, parse_zone

__all__ = ["Plan", "Points", "Reach", "plan_of"]

Floats = NDArray[np.float64]
Points = tuple[tuple[float, float], ...]

# An edge is passed when the centre of a face lies this far beyond it, in sizes of the face: boxes
# of a face that stands still tremble by less.
_MARGIN = 0.25
# Rows compared with all edges of a zone at once.
_ROWS = 16384


@dataclass(frozen=True, slots=True, eq=False)
class Reach:
    """Where N faces are relative to Z zones and L lines.

    Attributes:
        depths: float64 [N, Z], px from the nearest edge of each zone, positive inside.
        depth_margins: float64 [N, Z], px beyond which that is certain.
        sides: float64 [N, L], px from the straight through each line, positive on its right.
        side_margins: float64 [N, 1], px beyond which that is certain.
        shares: float64 [N, L], how far along the line, 0 at its first end and 1 at its second.
    """

    depths: Floats
    depth_margins: Floats
    sides: Floats
    side_margins: Floats
    shares: Floats


@dataclass(frozen=True, slots=True)
class Plan:
    """Zones and lines in pixels.

    Attributes:
        zone_names: of the zones [Z].
        zones: their corners.
        line_names: of the lines [L].
        lines: their two ends.
    """

    zone_names: tuple[str, ...]
    zones: tuple[Points, ...]
    line_names: tuple[str, ...]
    lines: tuple[Points, ...]

    def reach(self, boxes: NDArray[np.floating]) -> Reach:
        """Measure where faces are.

        Args:
            boxes: [N, 4], xyxy in pixels.
        """
        edges = boxes.astype(np.float64)
        centres = (edges[:, :2] + edges[:, 2:]) / 2
        sizes = np.sqrt((edges[:, 2:] - edges[:, :2]).clip(0).prod(1))  # [N]
        margins = _MARGIN * sizes[:, None]
        corners = [np.array(zone) for zone in self.zones]
        # A zone smaller than the face has to be within reach, too.
        most = np.array([_thickness(zone) / 2 for zone in corners])
        sides, shares = _beside(centres, np.array(self.lines, np.float64).reshape(-1, 2, 2))
        return Reach(
            _stacked([_depths(centres, zone) for zone in corners], len(edges)),
            np.minimum(margins, most),
            sides,
            margins,
            shares,
        )

    def outside(self, size_wh: tuple[int, int]) -> list[str]:
        """Name the zones and lines that lie wholly beside a picture of this size."""
        limit = np.array(size_wh)
        names = []
        for name, points in zip(
            self.zone_names + self.line_names, self.zones + self.lines, strict=True
        ):
            corners = np.array(points)
            if ((corners.max(0) <= 0) | (corners.min(0) >= limit)).any():
                names.append(name)
        return names


def plan_of(settings: ZoneSettings, size_wh: tuple[int, int]) -> Plan | None:
    """Place the zones and lines of the settings in pictures of one size; None if there are none.

    Raises:
        ConfigError: two zones, or two lines, have one name.
    """
    zones = [parse_zone(text) for text in settings.zone]
    lines = [parse_line(text) for text in settings.line]
    _check_names(zones, "zones")
    _check_names(lines, "lines")
    if not zones and not lines:
        return None
    return Plan(
        tuple(zone.name for zone in zones),
        tuple(zone.pixels(size_wh) for zone in zones),
        tuple(line.name for line in lines),
        tuple(line.pixels(size_wh) for line in lines),
    )


def _check_names(shapes: Sequence[Shape], what: str) -> None:
    names = [shape.name for shape in shapes]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two {what} are named {name!r}; give each a name of its own")


def _stacked(columns: list[Floats], rows: int) -> Floats:
    return np.stack(columns, 1) if columns else np.zeros((rows, 0))


def _depths(points: Floats, corners: Floats) -> Floats:
    """Return the distance [N] of points from a polygon's edge, positive inside (even-odd rule)."""
    parts = [_depths_at_once(points[i : i + _ROWS], corners) for i in range(0, len(points), _ROWS)]
    return np.concatenate(parts) if parts else np.zeros(0)


def _depths_at_once(points: Floats, corners: Floats) -> Floats:
    starts = corners[None]  # [1, E, 2]
    along = np.roll(corners, -1, axis=0)[None] - starts
    away = points[:, None] - starts  # [N, E, 2]
    length = np.maximum((along**2).sum(-1), 1e-12)
    share = np.clip((away * along).sum(-1) / length, 0, 1)
    distance = np.sqrt(((away - share[..., None] * along) ** 2).sum(-1).min(1))
    # A ray to the right crosses the edges whose ends lie on either side of its height.
    rise = np.where(along[..., 1] == 0, 1.0, along[..., 1])
    spans = (away[..., 1] >= 0) != (away[..., 1] >= along[..., 1])
    crossed = spans & (away[..., 0] < along[..., 0] * away[..., 1] / rise)
    inside = crossed.sum(1) % 2 == 1
    depths: Floats = np.where(inside, distance, -distance)
    return depths


def _thickness(corners: Floats) -> float:
    """Return about how thick a polygon is: area by perimeter, half the height of a long strip."""
    turned = np.roll(corners, -1, axis=0)
    area = abs(float((corners[:, 0] * turned[:, 1] - turned[:, 0] * corners[:, 1]).sum())) / 2
    return area / max(float(np.hypot(*(turned - corners).T).sum()), 1e-9)


def _beside(points: Floats, lines: Floats) -> tuple[Floats, Floats]:
    """Return the distance [N, L] to the right of lines [L, 2, 2], and the share along them."""
    along = lines[:, 1] - lines[:, 0]  # [L, 2]
    away = points[:, None] - lines[:, 0]  # [N, L, 2]
    length = np.array([math.hypot(x, y) for x, y in along.tolist()]).reshape(-1)
    # With y downward, a positive cross product is a turn to the right.
    right = (along[:, 0] * away[..., 1] - along[:, 1] * away[..., 0]) / length
    return right, (away * along).sum(-1) / length**2
