"""The state of a live run as Prometheus reads it (text exposition format 0.0.4)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import get_args

from videogender.live.stats import LiveControl, LiveStats, State
from videogender.zones.figures import LABELS

__all__ = ["CONTENT_TYPE", "metrics_text"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Name, type, what it tells; the attribute of `LiveStats` and how many of its units make one here.
_OF_SOURCES: tuple[tuple[str, str, str, str, int], ...] = (
    ("input_frames_per_second", "gauge", "Frames a second that the source delivers.", "fps_in", 1),
    ("output_frames_per_second", "gauge", "Frames a second that are shown.", "fps_out", 1),
    ("latency_p50_seconds", "gauge", "Median from capture to display.", "latency_ms_p50", 1000),
    ("latency_p95_seconds", "gauge", "95th percentile of the same.", "latency_ms_p95", 1000),
    ("frames_total", "counter", "Frames that were shown.", "frames", 1),
    ("dropped_frames_total", "counter", "Frames captured but never shown.", "dropped", 1),
    ("reconnects_total", "counter", "Times that the source came back.", "reconnects", 1),
)

# The same of zones: counters take each event with the label of its moment, so that they never fall.
_OF_ZONES: tuple[tuple[str, str, str, str], ...] = (
    ("zone_faces", "gauge", "Faces in a zone now.", "now"),
    ("zone_appearances_total", "counter", "Faces that were ever in a zone.", "appearances"),
    ("zone_entries_total", "counter", "Faces that came into a zone.", "entries"),
    ("zone_exits_total", "counter", "Faces that went out of a zone.", "exits"),
    ("zone_dwell_seconds_total", "counter", "Time in a zone, summed over faces.", "dwell_seconds"),
)

_Sample = tuple[dict[str, str], float]


def metrics_text(control: LiveControl, viewers: int, version: str) -> str:
    """Return every figure of a live run; those that are unknown are NaN.

    Args:
        control: the run.
        viewers: streams of video that are open.
        version: of this program.
    """
    stats = control.stats()
    sources = [{"index": str(i), "source": one.source} for i, one in enumerate(stats)]
    lines: list[str] = []

    def family(name: str, kind: str, help: str, samples: Iterable[_Sample]) -> None:
        lines.append(f"# HELP videogender_{name} {help}")
        lines.append(f"# TYPE videogender_{name} {kind}")
        lines.extend(f"videogender_{name}{_labels(labels)} {_number(v)}" for labels, v in samples)

    family("info", "gauge", "The program that runs.", [({"version": version}, 1)])
    for name, kind, help, attribute, units in _OF_SOURCES:
        values = [getattr(one, attribute) / units for one in stats]
        family(name, kind, help, zip(sources, values, strict=True))
    family("faces", "gauge", "Faces in view by presented gender.", _faces(sources, stats))
    for name, kind, help, key in _OF_ZONES:
        if samples := list(_zones(sources, stats, key)):
            family(name, kind, help, samples)
    if samples := list(_crossings(sources, stats)):
        help = "Faces that went over a line, with the label of that moment; in is to its right."
        family("line_crossings_total", "counter", help, samples)
    family(
        "source_state", "gauge", "1 for the state that the source is in.", _states(sources, stats)
    )
    family(
        "face_threshold", "gauge", "Least score of a face, 0 to 1.", [({}, control.face_threshold)]
    )
    family("recording", "gauge", "1 while frames are recorded.", [({}, int(control.recording))])
    family("web_viewers", "gauge", "Streams of video that are open.", [({}, viewers)])
    return "\n".join(lines) + "\n"


def _faces(sources: Sequence[dict[str, str]], stats: Sequence[LiveStats]) -> Iterable[_Sample]:
    for source, one in zip(sources, stats, strict=True):
        for label in LABELS:
            yield {**source, "label": label}, getattr(one, label)


def _states(sources: Sequence[dict[str, str]], stats: Sequence[LiveStats]) -> Iterable[_Sample]:
    for source, one in zip(sources, stats, strict=True):
        for state in get_args(State):
            yield {**source, "state": state}, int(one.state == state)


def _zones(
    sources: Sequence[dict[str, str]], stats: Sequence[LiveStats], key: str
) -> Iterable[_Sample]:
    for source, one in zip(sources, stats, strict=True):
        told = one.zones if key == "now" else one.zone_events
        for zone in (told or {}).get("zones", ()):
            for label, count in _by_label(zone[key]):
                yield {**source, "zone": zone["name"], "label": label}, count


def _crossings(sources: Sequence[dict[str, str]], stats: Sequence[LiveStats]) -> Iterable[_Sample]:
    for source, one in zip(sources, stats, strict=True):
        for line in (one.zone_events or {}).get("lines", ()):
            for way in ("in", "out"):
                for label, count in _by_label(line[way]):
                    yield {**source, "line": line["name"], "way": way, "label": label}, count


def _by_label(counts: Mapping[str, float] | None) -> Iterable[tuple[str, float]]:
    """Return the counts of all labels, without their sum; nothing where they are not known."""
    return [(label, n) for label, n in (counts or {}).items() if label != "all"]


def _labels(labels: dict[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return f"{value:.15g}"
