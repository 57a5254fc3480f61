"""Everything that `videogender eval detect` says of one detector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from videogender.dataset import Entry
from videogender.evaluation.bootstrap import Interval, detection_intervals
from videogender.evaluation.detection import DetectionFigures, Judged, Range, judge_all
from videogender.evaluation.plain import plain
from videogender.evaluation.wider_protocol import WiderFigures, evaluate_wider, has_levels
from videogender.frames import Faces

LONG_SIDE = 640  # at which heights are given
LEAST_SCORE = 0.02  # precision over recall needs the weak detections too

BANDS = {
    ">= 16 px": (16.0, np.inf),
    ">= 8 px": (8.0, np.inf),
    "8-16 px": (8.0, 16.0),
    "16-32 px": (16.0, 32.0),
    "32-96 px": (32.0, 96.0),
    ">= 96 px": (96.0, np.inf),
}
CURVE = ">= 16 px"  # whose precision over recall is drawn
CURVE_POINTS = 101

__all__ = ["BANDS", "LEAST_SCORE", "LONG_SIDE", "Band", "DetectResult", "detect_result"]


@dataclass(frozen=True, slots=True)
class Band:
    """Faces of some heights.

    Attributes:
        figures: how well they are found.
        precision_interval, tenth_interval, one_interval: 95 % bootstrap intervals, over images, of
            average precision and of both recalls.
    """

    figures: DetectionFigures
    precision_interval: Interval
    tenth_interval: Interval
    one_interval: Interval


@dataclass(frozen=True, slots=True)
class DetectResult:
    """How well a detector finds the faces of a set.

    Attributes:
        name: of the detector.
        bands: by the names of `BANDS`.
        wider: WIDER FACE's levels by name; empty where the labels hold none.
        curve: recall and precision, best score first, of the faces from 16 px.
    """

    name: str
    bands: dict[str, Band]
    wider: dict[str, WiderFigures]
    curve: list[tuple[float, float]]

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON holds it."""
        bands = {
            name: {
                "average_precision": band.figures.average_precision,
                "average_precision_interval": band.precision_interval,
                "recall_at_tenth": band.figures.recall_at_tenth,
                "recall_at_tenth_interval": band.tenth_interval,
                "recall_at_one": band.figures.recall_at_one,
                "recall_at_one_interval": band.one_interval,
                "faces": band.figures.faces,
            }
            for name, band in self.bands.items()
        }
        wider = {
            level: {
                "average_precision": figures.average_precision,
                "average_precision_interval": figures.interval,
                "faces": figures.faces,
            }
            for level, figures in self.wider.items()
        }
        found = {"name": self.name, "by_height": bands, "wider": wider, "curve": self.curve}
        return plain(found)  # type: ignore[no-any-return]


def detect_result(
    name: str, found: Sequence[tuple[Entry, Faces]], heights_at: float = LONG_SIDE
) -> DetectResult:
    """Measure detections.

    Args:
        name: of the detector.
        found: images with their faces, from `LEAST_SCORE`.
        heights_at: heights of faces are those at this long side.
    """
    bands, curve = {}, []
    for band, (least, most) in BANDS.items():
        judged = judge_all(found, Range(least, most, heights_at))
        bands[band] = Band(judged.figures(), *detection_intervals(judged))
        if band == CURVE:
            curve = _curve(judged)
    levels = has_levels([entry for entry, _ in found])
    return DetectResult(name, bands, evaluate_wider(found) if levels else {}, curve)


def _curve(judged: Judged) -> list[tuple[float, float]]:
    """Return recall and precision at some hundred places."""
    faces = int(judged.faces.sum())
    if not len(judged.hit) or not faces:
        return []
    recall = judged.hit.cumsum() / faces
    precision = judged.hit.cumsum() / np.arange(1, len(recall) + 1)
    at = np.searchsorted(recall, np.linspace(0, recall[-1], CURVE_POINTS))
    return [(float(recall[i]), float(precision[i])) for i in np.unique(at)]
