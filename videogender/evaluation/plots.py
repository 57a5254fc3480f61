"""The pictures of a report, by file name."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image

from videogender.evaluation.charts import Curve, Row, curves_chart, rows_chart
from videogender.evaluation.detect_result import CURVE, DetectResult
from videogender.evaluation.gender_result import GenderResult
from videogender.evaluation.groups import Group
from videogender.evaluation.video import VideoResult

Value = tuple[float, float, float]

__all__ = ["detect_plots", "gender_plots", "video_plots"]


def detect_plots(results: Sequence[DetectResult]) -> dict[str, Image.Image]:
    """Draw precision over recall, and average precision by height and by WIDER level."""
    names = [result.name for result in results]
    curves = [Curve(result.name, result.curve) for result in results]
    rows = [
        Row(
            band,
            [
                (r.bands[band].figures.average_precision, *r.bands[band].precision_interval)
                for r in results
            ],
            _faces(results[0].bands[band].figures.faces),
        )
        for band in results[0].bands
        if results[0].bands[band].figures.faces
    ]
    rows += [
        Row(
            f"WIDER {level}",
            [(r.wider[level].average_precision, *r.wider[level].interval) for r in results],
            _faces(figures.faces),
        )
        for level, figures in results[0].wider.items()
    ]
    return {
        "precision_recall.png": curves_chart(
            f"Faces {CURVE}: precision over recall", ("recall", "precision"), curves
        ),
        "by_height.png": rows_chart(
            "Average precision by height, with 95 % intervals", "average precision", names, rows
        ),
    }


def gender_plots(result: GenderResult) -> dict[str, Image.Image]:
    """Draw reliability, accuracy over coverage, and accuracy by size and by group."""
    bins = Curve(
        result.name, [(b.said, b.true) for b in result.bins], [b.faces for b in result.bins]
    )
    steps = [(c, a) for _, c, a in result.ladder if not math.isnan(a)]
    band = result.band
    here = ((band.coverage, band.accuracy), f"unsure below {band.unsure_below:g}")
    coverage = Curve(result.name, steps, mark=None if math.isnan(band.accuracy) else here)
    floor = math.floor(10 * min([0.9, *(a for _, a in steps)])) / 10
    groups = [Row("all", _both(result.all), _faces(result.all.figures.faces))]
    if result.younger:
        groups.append(_row(result.younger))
    labelled = {"age": result.ages, **result.labels}
    for key, members in labelled.items():
        if members:
            groups += [Row(f"by {key.replace('_', ' ')}"), *map(_row, members)]
    sizes = [_row(group) for group in result.sizes]
    both = ["accuracy", "balanced over women and men"]
    error = result.all.figures.calibration_error
    return {
        "reliability.png": curves_chart(
            f"Is the probability to be believed? (calibration error {error:.3f})",
            ("probability of female", "share labelled female"),
            [bins],
            diagonal=True,
        ),
        "coverage.png": curves_chart(
            "Accuracy over coverage, as unsure-below moves from 0.5 up",
            ("share of found faces that get a label", "share of the labels that are right"),
            [coverage],
            (0.0, 1.0),
            (floor, 1.0),
        ),
        "by_size.png": rows_chart(
            "Presented gender by height at a long side of 640",
            "accuracy, with 95 % intervals",
            both,
            sizes,
            _reach(sizes),
        ),
        "by_group.png": rows_chart(
            "Presented gender by group",
            "accuracy, with 95 % intervals",
            both,
            groups,
            _reach(groups),
        ),
    }


def video_plots(results: Sequence[VideoResult]) -> dict[str, Image.Image]:
    """Draw, for each labelled track, the share of its frames in which each label was shown."""
    rows = []
    for position, track in enumerate(results[0].tracks):
        values = []
        for result in results:
            shown = [label for _, label in result.tracks[position].shown]
            right = sum(label == track.label for label in shown)
            share = right / len(shown) if shown and track.label else math.nan
            values.append((share, math.nan, math.nan))
        rows.append(Row(f"track {track.track}, {track.label or 'unclear'}", values))
    names = [f"labels {result.way}" for result in results]
    title = "Share of a face's frames in which its label is right"
    return {"tracks.png": rows_chart(title, "share of frames", names, rows)}


def _row(group: Group) -> Row:
    return Row(group.name, _both(group), _faces(group.figures.faces))


def _reach(rows: Sequence[Row]) -> tuple[float, float]:
    """Return the part of the axis that is of interest."""
    lowest = min(
        (low for row in rows for _, low, _ in row.values if not math.isnan(low)), default=1.0
    )
    return (0.4, 1.0) if lowest >= 0.4 else (0.0, 1.0)


def _both(group: Group) -> list[Value]:
    figures = group.figures
    return [(figures.accuracy, *figures.interval), (group.balanced, *group.balanced_interval)]


def _faces(count: int) -> str:
    return f"{count:,} face{'' if count == 1 else 's'}"
