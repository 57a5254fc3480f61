"""Summaries: how many appearances, presented how, when and for how long, ready for JSON.

Of a video whose faces were followed (`summarize`):

    source, kind "video", width, height, frames, shots, unsure_below, interrupted
    begin_seconds      time of the first frame on the source's clock
    duration_seconds   until the end of the last frame
    appearances        {"all", "female", "male", "unsure"}: tracks by label. They are appearances,
                       not people: who comes back after a cut, or after a while, counts again
    on_screen          by label, and "all" for any: PRESENCE and
                       "first_seconds", "last_seconds": of the first and last such frame, or null
    per_minute         [{"begin_seconds", "end_seconds", "watched_seconds", "all": PRESENCE, ...}]
                       on the source's clock; watched is the part of the minute that was looked at
    PRESENCE           {"seconds": with at least one such face, "face_seconds": summed over faces,
                       "peak": most at once, "peak_at_seconds", "mean": at once}
    tracks             [{"id", "shot", "label", "female", "first_seconds", "last_seconds",
                       "seconds": in view, "mean_height_px", "frames", "detections", "score"}], and
                       "attribute", "attribute_probability" where there is a fine-tuned head: its
                       class, or unsure
    attributes         [{"name", "all", "female", "male", "unsure": appearances of this class by
                       label, "face_seconds": in view, summed over them}], "unsure" last; or null
    zones              as given, or null

Where faces were not followed (`FaceCounts`), `appearances` and `tracks` are null and `shots` too,
`faces` {"all", ...} counts faces over all frames, and so do `attributes`; a still has kind "image"
and no times.

Of several inputs together (`Total`):

    videos, images     how many
    interrupted        whether one of the videos was not looked at to its end
    duration_seconds   of the videos
    appearances        summed over the videos whose faces were followed, or null if there are none
    faces              summed over images, and over the frames of the other videos, or null
    on_screen          {"all": {"seconds", "face_seconds", "peak"}, ...} of the videos: summed, and
                       the most at once in any of them; or null
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from videogender.frames import Faces, Frame, Track, label_of
from videogender.tracking.flat import flatten, frame_seconds
from videogender.tracking.settle import Settled

__all__ = ["LABELS", "FaceCounts", "Total", "counts_at_once", "summarize"]

LABELS = ("female", "male", "unsure")
GROUPS = ("all", *LABELS)

Counts = NDArray[np.int64]  # [F, 4], faces at once: all, female, male, unsure


def summarize(
    settled: Settled,
    *,
    source: str,
    size_wh: tuple[int, int],
    unsure_below: float,
    zones: Mapping[str, Any] | None = None,
    interrupted: bool = False,
) -> dict[str, Any]:
    """Summarise a video whose faces were followed.

    Args:
        settled: of the first pass.
        source: what the user named.
        size_wh: of the upright frames.
        unsure_below: least probability of a label.
        zones: what was counted in zones and at lines, passed on as it is.
        interrupted: the video was not looked at to its end.

    Returns:
        what this module's docstring describes.
    """
    labels = [label_of(track.female, unsure_below) for track in settled.tracks]
    tracks = _tracks(settled, labels, unsure_below)
    return {
        **_frame_facts(settled.seconds, source, "video", size_wh, unsure_below, interrupted),
        "shots": len(np.unique(settled.shot)),
        "appearances": _tally(labels),
        **_over_time(settled.seconds, counts_at_once(settled, unsure_below)),
        "tracks": tracks,
        "attributes": _by_class(settled.classes, tracks),
        "zones": None if zones is None else dict(zones),
    }


def counts_at_once(settled: Settled, unsure_below: float) -> Counts:
    """Return how many faces each frame shows: int64 [F, 4] of all, female, male, unsure."""
    flat = flatten(settled)
    column = np.array(
        [GROUPS.index(label_of(track.female, unsure_below)) for track in settled.tracks], np.int64
    )
    counts = np.zeros((len(settled), len(GROUPS)), np.int64)
    np.add.at(counts, (flat.row, column[flat.track]), 1)
    counts[:, 0] = counts.sum(1)
    return counts


class FaceCounts:
    """Counts faces frame by frame where they are not followed: images, and `label_by: frame`.

    Args:
        source: what the user named.
        unsure_below: least probability of a label.
    """

    def __init__(self, source: str, unsure_below: float) -> None:
        self._source, self._unsure_below = source, unsure_below
        self._size_wh = (0, 0)
        self._seconds, self._counts = array("d"), array("q")
        self._classes: tuple[str, ...] = ()
        self._by_class: Counter[tuple[str, str]] = Counter()  # faces by class and label
        self._is_still = False

    def add(self, frame: Frame, faces: Faces) -> None:
        """Count the faces of one more frame."""
        labels = faces.labels(self._unsure_below)
        tally = _tally(labels)
        self._classes = self._classes or faces.classes
        names = [name for name, _ in faces.attribute_labels(self._unsure_below)]
        self._by_class.update(zip(names, labels, strict=False))  # no names without a head
        self._counts.extend(tally[group] for group in GROUPS)
        self._is_still = frame.pts_seconds is None
        self._seconds.append(frame.pts_seconds or 0.0)
        self._size_wh = (frame.width, frame.height)

    def at_once(self) -> tuple[NDArray[np.float64], Counts]:
        """Return the times of the frames [F] and how many faces each shows [F, 4]."""
        counts = np.array(self._counts, np.int64).reshape(-1, len(GROUPS))
        return np.array(self._seconds, np.float64), counts

    def summary(
        self, *, zones: Mapping[str, Any] | None = None, interrupted: bool = False
    ) -> dict[str, Any]:
        """Summarise what was counted, as this module's docstring describes."""
        seconds, counts = self.at_once()
        kind = "image" if self._is_still else "video"
        facts = _frame_facts(
            seconds, self._source, kind, self._size_wh, self._unsure_below, interrupted
        )
        times: dict[str, Any] = {"on_screen": None, "per_minute": None}
        if self._is_still:
            facts["begin_seconds"] = facts["duration_seconds"] = None
        else:
            times = _over_time(seconds, counts)
        return {
            **facts,
            "shots": None,
            "appearances": None,
            "faces": dict(zip(GROUPS, counts.sum(0).tolist(), strict=True)),
            **times,
            "tracks": None,
            "attributes": self._attributes(),
            "zones": None if zones is None else dict(zones),
        }

    def _attributes(self) -> list[dict[str, Any]] | None:
        if not self._classes:
            return None
        found = []
        for name in dict.fromkeys((*self._classes, "unsure")):
            counts = {label: self._by_class[name, label] for label in LABELS}
            found.append({"name": name, "all": sum(counts.values()), **counts})
        return found


@dataclass(frozen=True, slots=True)
class Total:
    """What the summaries of several inputs come to, as this module's docstring describes."""

    videos: int = 0
    images: int = 0
    interrupted: bool = False
    duration_seconds: float = 0.0
    appearances: Mapping[str, int] | None = None
    faces: Mapping[str, int] | None = None
    on_screen: Mapping[str, Mapping[str, Any]] | None = None

    @classmethod
    def of(cls, summaries: Iterable[Mapping[str, Any]]) -> Self:
        """Sum up."""
        total = cls()
        for summary in summaries:
            total = total.plus(summary)
        return total

    def plus(self, summary: Mapping[str, Any]) -> Self:
        """Return the total of one more input."""
        is_image = summary["kind"] == "image"
        return type(self)(
            self.videos + (not is_image),
            self.images + is_image,
            self.interrupted or summary["interrupted"],
            _rounded(self.duration_seconds + (summary["duration_seconds"] or 0.0)),
            _summed(self.appearances, summary["appearances"]),
            _summed(self.faces, summary.get("faces")),
            _seen_together(self.on_screen, summary["on_screen"]),
        )


def _summed(
    one: Mapping[str, int] | None, other: Mapping[str, int] | None
) -> Mapping[str, int] | None:
    if one is None or other is None:
        return one or other
    return {group: one[group] + other[group] for group in GROUPS}


def _seen_together(
    one: Mapping[str, Mapping[str, Any]] | None, other: Mapping[str, Mapping[str, Any]] | None
) -> Mapping[str, Mapping[str, Any]] | None:
    if other is None:
        return one
    nothing = {"seconds": 0.0, "face_seconds": 0.0, "peak": 0}
    found = {}
    for group in GROUPS:
        a, b = (one[group] if one is not None else nothing), other[group]
        found[group] = {
            "seconds": _rounded(a["seconds"] + b["seconds"]),
            "face_seconds": _rounded(a["face_seconds"] + b["face_seconds"]),
            "peak": max(a["peak"], b["peak"]),
        }
    return found


def _frame_facts(
    seconds: NDArray[np.float64],
    source: str,
    kind: str,
    size_wh: tuple[int, int],
    unsure_below: float,
    interrupted: bool,
) -> dict[str, Any]:
    return {
        "source": source,
        "kind": kind,
        "width": size_wh[0],
        "height": size_wh[1],
        "frames": len(seconds),
        "begin_seconds": _rounded(seconds[0]) if len(seconds) else None,
        "duration_seconds": _rounded(frame_seconds(seconds).sum()),
        "unsure_below": unsure_below,
        "interrupted": interrupted,
    }


def _tally(labels: list[Any]) -> dict[str, int]:
    return {"all": len(labels)} | {name: labels.count(name) for name in LABELS}


def _over_time(seconds: NDArray[np.float64], counts: Counts) -> dict[str, Any]:
    """Return `on_screen` and `per_minute` of frames at these times with these faces at once."""
    lengths = frame_seconds(seconds)
    whole: dict[str, Any] = {}
    for column, group in enumerate(GROUPS):
        there = seconds[counts[:, column] > 0]
        whole[group] = {
            **_presence(seconds, lengths, counts[:, column]),
            "first_seconds": _rounded(there[0]) if len(there) else None,
            "last_seconds": _rounded(there[-1]) if len(there) else None,
        }
    minutes = []
    minute = np.floor(seconds / 60).astype(np.int64)
    for value in np.unique(minute).tolist():
        part = slice(*np.searchsorted(minute, [value, value + 1]).tolist())
        minutes.append(
            {
                "begin_seconds": 60 * value,
                "end_seconds": 60 * (value + 1),
                "watched_seconds": _rounded(lengths[part].sum()),
                **{
                    group: _presence(seconds[part], lengths[part], counts[part, column])
                    for column, group in enumerate(GROUPS)
                },
            }
        )
    return {"on_screen": whole, "per_minute": minutes}


def _presence(
    seconds: NDArray[np.float64], lengths: NDArray[np.float64], count: Counts
) -> dict[str, Any]:
    watched = float(lengths.sum())
    face_seconds = float((lengths * count).sum())
    peak = int(count.max(initial=0))
    mean = face_seconds / watched if watched else float(count.mean()) if len(count) else 0.0
    return {
        "seconds": _rounded(lengths[count > 0].sum()),
        "face_seconds": _rounded(face_seconds),
        "peak": peak,
        "peak_at_seconds": _rounded(seconds[count.argmax()]) if peak else None,
        "mean": _rounded(mean),
    }


def _tracks(settled: Settled, labels: list[Any], unsure_below: float) -> list[dict[str, Any]]:
    flat, count = flatten(settled), len(settled.tracks)
    heights = (flat.boxes[:, 3] - flat.boxes[:, 1]).astype(np.float64)
    shown = np.maximum(np.bincount(flat.track, minlength=count), 1)
    mean_height = np.bincount(flat.track, heights, count) / shown
    in_view = np.bincount(flat.track, frame_seconds(settled.seconds)[flat.row], count)
    return [
        {
            "id": track.id,
            "shot": track.shot,
            "label": label,
            "female": None if math.isnan(track.female) else _rounded(track.female, 4),
            "first_seconds": _rounded(track.first_seconds),
            "last_seconds": _rounded(track.last_seconds),
            "seconds": _rounded(seconds),
            "mean_height_px": _rounded(height, 1),
            "frames": track.frames,
            "detections": track.detections,
            "score": _rounded(track.score, 4),
            **_attribute(track, unsure_below),
        }
        for track, label, seconds, height in zip(
            settled.tracks, labels, in_view.tolist(), mean_height.tolist(), strict=True
        )
    ]


def _attribute(track: Track, unsure_below: float) -> dict[str, Any]:
    answer = track.attribute(unsure_below)
    if answer is None:
        return {}
    name, p = answer
    return {
        "attribute": name,
        "attribute_probability": None if math.isnan(p) else _rounded(p, 4),
    }


def _by_class(
    classes: Sequence[str], tracks: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]] | None:
    """Count tracks by the class of a fine-tuned head and by label."""
    if not classes:
        return None
    found = []
    for name in dict.fromkeys((*classes, "unsure")):
        mine = [track for track in tracks if track["attribute"] == name]
        seconds = _rounded(sum(track["seconds"] for track in mine))
        tally = _tally([track["label"] for track in mine])
        found.append({"name": name, **tally, "face_seconds": seconds})
    return found


def _rounded(value: float, digits: int = 3) -> float:
    """Round for JSON, without a negative zero."""
    return round(float(value), digits) + 0.0
