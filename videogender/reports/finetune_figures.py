"""Figures of a fine-tuning run: before and after, curves, confusion, calibration, sizes, levels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from videogender.reports.charts import Bar, Line, bars, lines, reliability
from videogender.reports.markup import Html, Part, join, tag
from videogender.reports.page import Cell, Column, fold, section, table
from videogender.reports.words import UNKNOWN, duration, number, percent, plural, sentence_case

__all__ = ["answers", "before_and_after", "by_size", "calibration", "curves", "judged", "levels"]

Figures = Mapping[str, Any]

# How the known figures are called, and whether they are shares of 1.
_NAMES: dict[str, tuple[str, bool]] = {
    "accuracy": ("Accuracy", True),
    "balanced_accuracy": ("Accuracy, labels weighing the same", True),
    "found": ("Faces found", True),
    "average_precision": ("Average precision of detection", True),
    "confidence_error": ("Confidence error", True),
    "log_loss": ("Log loss", False),
    "ms_per_face": ("Time a face, ms", False),
}
_EPOCH_SHARES = ("train_accuracy", "val_accuracy")


def before_and_after(before: Figures, after: Figures, judged_on: str | None) -> Html:
    """Return the table of figures of the weights that a run began from and those it kept."""
    keys = [key for key in _NAMES if key in before or key in after]
    others = [key for key in {**before, **after} if key not in _NAMES]
    keys += [key for key in others if key not in ("faces", "people", "interval", "by_label")]
    rows: list[list[Cell | Part]] = []
    for key in keys:
        name, is_share = _NAMES.get(key, (sentence_case(_words(key)), False))
        values = [_number(before.get(key)), _number(after.get(key))]
        if values == [None, None]:
            continue
        rows.append([name, *_pair(*values, is_share=is_share)])
        if key == "accuracy":
            rows += _intervals(before, after)
            rows += _by_label(before, after)
    if any(figures.get("faces") is not None for figures in (before, after)):
        rows.append(["Faces judged", _judged_of_all(before), _judged_of_all(after), ""])
    if not rows:
        return Html()
    columns = [Column("", is_number=False), Column("Before"), Column("After"), Column("Change")]
    note = sentence_case(judged_on or "")
    return section("Before and after", table(columns, rows, is_narrow=True), note=note)


def judged(figures: Figures) -> int | None:
    """Return how many faces the accuracy is of: those that were found."""
    faces, found = _number(figures.get("faces")), _number(figures.get("found"))
    return None if faces is None else round(faces * (1.0 if found is None else found))


def _judged_of_all(figures: Figures) -> str:
    count, faces = judged(figures), figures.get("faces")
    return number(count) if count == faces else f"{number(count)} of {number(faces)}"


def _intervals(before: Figures, after: Figures) -> list[list[Cell | Part]]:
    shown = [interval_text(figures.get("interval")) for figures in (before, after)]
    if not any(shown):
        return []
    return [["… 95 % interval", *(text or UNKNOWN for text in shown), ""]]


def _by_label(before: Figures, after: Figures) -> list[list[Cell | Part]]:
    old, new = before.get("by_label") or {}, after.get("by_label") or {}
    rows: list[list[Cell | Part]] = []
    for label in {**new, **old}:
        pair = _pair(_number(old.get(label)), _number(new.get(label)), is_share=True)
        rows.append([f"… of those labelled {label}", *pair])
    return rows


def _pair(old: float | None, new: float | None, *, is_share: bool) -> list[Cell | Part]:
    """Return two values and their difference."""
    shown = [percent(v, 1) if is_share else number(v, 3) for v in (old, new)]
    change = ""
    if old is not None and new is not None:
        change = f"{100 * (new - old):+.1f} points" if is_share else f"{new - old:+.3g}"
    return [*shown, change.replace("-", "\N{MINUS SIGN}")]


def interval_text(interval: Sequence[float] | None) -> str | None:
    """Write an interval of shares: 75 to 80 %."""
    if not interval or any(_number(value) is None for value in interval):
        return None
    low, high = interval
    return f"{100 * low:.1f} to {100 * high:.1f} %"


def curves(epochs: Sequence[Mapping[str, Any]], best: float | None) -> Html:
    """Return loss and accuracy over epochs, and all numbers in a table."""
    if not epochs:
        return Html()

    def line(name: str, key: str) -> Line:
        return Line(name, [(float(e["epoch"]), _number(e.get(key))) for e in epochs])

    mark = _number(best)
    options: dict[str, Any] = {"x_title": "epoch", "mark_x": mark}
    loss = [line("training", "train_loss"), line("validation", "val_loss")]
    shares = [line("training", "train_accuracy"), line("validation", "val_accuracy")]
    drawn = [
        lines(loss, name="Loss by epoch", title="loss", y_name=lambda v: f"{v:.3g}", **options),
        lines(shares, name="Accuracy by epoch", title="accuracy", y_name=_in_percent, **options),
    ]
    legend = tag(
        "div", _line_sign("one", "training"), _line_sign("two", "validation"), class_="legend"
    )
    note = f"The weights of epoch {mark:.0f} were kept." if mark is not None else None
    charts = tag("div", *(tag("figure", d) for d in drawn if d), class_="pair")
    body = [legend, charts] if any(drawn) and len(epochs) > 1 else []
    return section("Training", *body, _epoch_table(epochs), note=note)


def _line_sign(kind: str, text: str) -> Html:
    stroke = tag("path", d="M0 7H26", class_=f"line {kind}")
    sign = tag("svg", stroke, viewBox="0 0 26 14", class_="stroke", aria_hidden="true")
    return tag("span", sign, text, class_="label")


def _epoch_table(epochs: Sequence[Mapping[str, Any]]) -> Html:
    keys = [k for k in dict.fromkeys(k for e in epochs for k in e) if k != "epoch"]
    keys = [k for k in keys if any(_number(e.get(k)) is not None for e in epochs)]
    columns = [Column("epoch"), *(Column(_words(key)) for key in keys)]
    rows = [[number(e["epoch"], 0), *(_epoch_value(k, e.get(k)) for k in keys)] for e in epochs]
    return fold(f"{plural(len(rows), 'epoch')} in numbers", table(columns, rows))


def _in_percent(value: float) -> str:
    """Write a share as an axis does: 90 %, or 92.5 % where that is between."""
    return percent(value, 0 if abs(100 * value - round(100 * value)) < 1e-6 else 1)


def _epoch_value(key: str, value: Any) -> str:
    if key in _EPOCH_SHARES:
        return percent(_number(value), 1)
    if key == "seconds":
        return duration(_number(value))
    found = _number(value)
    return UNKNOWN if found is None else f"{found:,.4g}"


def answers(confusion: Mapping[str, Any]) -> Html:
    """Return what was answered for each label, as a table shaded by share of the row."""
    labels = [str(label) for label in confusion.get("labels") or []]
    given = [str(answer) for answer in confusion.get("answers") or labels]
    counts = confusion.get("counts") or []
    if not labels or len(counts) != len(labels):
        return Html()
    head = tag("tr", tag("th", "label"), *(tag("th", a, scope="col", class_="n") for a in given))
    rows = []
    for label, row in zip(labels, counts, strict=True):
        total = sum(row)
        cells = [
            _matrix_cell(n, total, is_right=a == label) for a, n in zip(given, row, strict=True)
        ]
        rows.append(tag("tr", tag("th", label, scope="row"), *cells))
    grid = tag("table", tag("thead", head), tag("tbody", *rows))
    note = "Rows are labels, columns answers; in each field faces, and their share of the row."
    return section("What was answered", tag("div", grid, class_="scroll matrix"), note=note)


def _matrix_cell(count: int, total: int, *, is_right: bool) -> Html:
    share = count / total if total else 0.0
    shade = 0 if not count else 1 + min(4, int(5 * share))
    small = tag("small", f" {percent(share)}") if total else None
    kind = f"shade{shade}{' right' if is_right else ''}"
    return tag("td", f"{count:,}", small, class_=kind)


def calibration(bins: Sequence[Figures], before: Sequence[Figures], classes: int) -> Html:
    """Return the reliability diagram."""
    now, then = (
        [(float(b["confidence"]), float(b["accuracy"]), int(b["count"])) for b in part]
        for part in (bins, before)
    )
    drawn = reliability(
        now, then, low=1 / max(classes, 2), name="How often answers are right, by how sure they are"
    )
    if not drawn:
        return Html()
    text = "Dots on the line are as sure as they are right; larger ones stand for more faces."
    if any(count for _, _, count in then):
        text += " Open dots: before."
    return tag("div", tag("h3", "How sure, how right"), tag("p", text, class_="note"), drawn)


def by_size(rows: Sequence[Figures]) -> Html:
    """Return accuracy by size of face."""
    if not rows:
        return Html()
    drawn = bars(
        [
            Bar(
                _span_px(row),
                _number(row.get("accuracy")),
                _accuracy_text(row),
                _interval(row.get("interval")),
            )
            for row in rows
        ],
        name="Accuracy by size of face",
    )
    text = "Accuracy by the longer side of the face in pixels"
    text += ", with its 95 % interval." if any(row.get("interval") for row in rows) else "."
    return tag("div", tag("h3", "By size of face"), tag("p", text, class_="note"), drawn)


def levels(rows: Sequence[Figures]) -> Html:
    """Return how much each detection level carries, and how often it is right by itself."""
    total = sum(int(row.get("faces") or 0) for row in rows)
    if not total:
        return Html()
    has_votes = all(_number(row.get("share")) is not None for row in rows)
    shares, right = [], []
    for row in rows:
        faces = int(row.get("faces") or 0)
        share = _number(row.get("share")) if has_votes else faces / total
        shares.append(Bar(_level_name(row), share, plural(faces, "face")))
        asked = {**row, "faces": row.get("asked", row.get("faces"))}
        accuracy, interval = _number(row.get("accuracy")), _interval(row.get("interval"))
        right.append(Bar(_level_name(row), accuracy, _accuracy_text(asked), interval))
    what = "Share of all votes; faces won" if has_votes else "Share of faces"
    parts = [tag("div", tag("h3", what), bars(shares, name=f"{what}, by level"))]
    if any(bar.share is not None for bar in right):
        drawn = bars(right, name="Accuracy by level")
        parts.append(tag("div", tag("h3", "Accuracy of the level alone"), drawn))
    note = "Which level of the network the answers come from, and the step of its grid in pixels."
    return section("Levels", tag("div", *parts, class_="pair"), note=note)


def _level_name(row: Figures) -> str:
    stride = row.get("stride")
    return f"{row.get('level', UNKNOWN)}{f' ({stride})' if stride else ''}"


def _span_px(row: Figures) -> str:
    low, high = row.get("low_px") or 0, row.get("high_px")
    if high is None:
        return f"from {low:g} px"
    return f"{low:g} to {high:g} px" if low else f"below {high:g} px"


def _accuracy_text(row: Figures) -> str:
    faces = row.get("faces")
    of = f" of {faces:,}" if faces is not None else ""
    return f"{percent(_number(row.get('accuracy')), 1)}{of}"


def _interval(value: Any) -> tuple[float, float] | None:
    return (value[0], value[1]) if interval_text(value) else None


def _number(value: Any) -> float | None:
    """Return a finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def _words(key: str) -> str:
    return key.replace("_", " ").replace("val ", "validation ").replace("train ", "training ")


def side_by_side(heading: str, *parts: Html) -> Html:
    """Return a section of parts beside each other, or nothing if all are empty."""
    there = [part for part in parts if part]
    return section(heading, tag("div", *there, class_="pair")) if there else join([])
