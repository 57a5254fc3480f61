"""Faces of a video that somebody labelled by hand, in the form that `annotate --json` writes.

    {"frame": 12, "faces": [{"box": [x1, y1, x2, y2], "label": "female", "track": 3}, …]}

One line a frame that was looked at; other frames say nothing. `label` is female, male, or absent or
`unsure` where nobody can tell; `track` is one number for a face's whole time in view, and may be
left out: then boxes of neighbouring lines that overlap are one track. `"ignore": true` marks a face
that counts neither way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from videogender.dataset import GENDERS, box_problem, read_lines
from videogender.errors import TrainingError
from videogender.evaluation.detection import iou
from videogender.tracking.association import assign

LABELS = (*GENDERS, "unsure")
LINK_IOU = 0.3
LINK_SECONDS = 1.0  # labelled frames further apart than this are no neighbours

Box = tuple[float, float, float, float]

__all__ = ["LINK_SECONDS", "Box", "TrueFace", "VideoTruth", "WrittenTruth", "parse_truth"]


@dataclass(frozen=True, slots=True)
class TrueFace:
    """A face that is there.

    Attributes:
        box: xyxy in pixels of the upright frame.
        label: `female`, `male`, or None where nobody can tell.
        track: number of its time in view.
        ignore: it counts neither way.
    """

    box: Box
    label: str | None
    track: int
    ignore: bool


@dataclass(frozen=True, slots=True)
class VideoTruth:
    """What is to be seen in a video.

    Attributes:
        frames: the faces of every labelled frame, by its index in the video, ascending.
        linked: the labels name no tracks; overlap made them.
    """

    frames: Mapping[int, list[TrueFace]]
    linked: bool


@dataclass(frozen=True, slots=True)
class WrittenTruth:
    """Labels as they are written, not yet held against their video.

    Attributes:
        faces: of every labelled frame, by its index.
        where: file and line of each.
        linked: they name no tracks.
    """

    faces: Mapping[int, list[dict[str, Any]]]
    where: Mapping[int, str]
    linked: bool

    def of_video(self, seconds: Mapping[int, float]) -> VideoTruth:
        """Return the labels of a video.

        Args:
            seconds: time of every frame of the video, by index.

        Raises:
            TrainingError: if the video has no such frame.
        """
        for frame, where in self.where.items():
            if frame not in seconds:
                raise TrainingError(f"{where}: the video has no frame {frame}")
        tracks = _linked(self.faces, seconds) if self.linked else None
        return VideoTruth(
            {
                frame: [
                    _true_face(face, face["track"] if tracks is None else tracks[frame][row])
                    for row, face in enumerate(self.faces[frame])
                ]
                for frame in sorted(self.faces)
            },
            self.linked,
        )


def parse_truth(path: Path) -> WrittenTruth:
    """Read labels.

    Args:
        path: JSON Lines.

    Raises:
        TrainingError: if a line is not as it should be.
    """
    raw: dict[int, list[dict[str, Any]]] = {}
    places: dict[int, str] = {}
    for where, item in read_lines(path):
        frame = item.get("frame")
        if not isinstance(frame, int) or isinstance(frame, bool):
            raise TrainingError(f"{where}: needs the frame's number as `frame`, got {frame!r}")
        if frame in raw:
            raise TrainingError(f"{where}: frame {frame} stands here a second time")
        faces = item.get("faces")
        if not isinstance(faces, list):
            raise TrainingError(f"{where}: needs a list of `faces`, got {faces!r}")
        for face in faces:
            if problem := _problem(face):
                raise TrainingError(f"{where}: {problem}")
        raw[frame], places[frame] = faces, where
    if not raw:
        raise TrainingError(f"{path}: holds no labelled frames (expected JSON Lines)")
    everything = [face for faces in raw.values() for face in faces]
    named = [face.get("track") is not None for face in everything]
    if any(named) and not all(named):
        raise TrainingError(f"{path}: some faces have a `track` and some have none")
    for frame, faces in raw.items() if all(named) else ():
        if len({face["track"] for face in faces}) < len(faces):
            raise TrainingError(f"{path}: frame {frame} has two faces of one track")
    return WrittenTruth(raw, places, not all(named))


def _true_face(face: dict[str, Any], track: int) -> TrueFace:
    return TrueFace(
        tuple(float(edge) for edge in face["box"]),  # type: ignore[arg-type]
        face["label"] if face.get("label") in GENDERS else None,
        track,
        bool(face.get("ignore", False)),
    )


def _problem(face: Any) -> str:
    """Say what is wrong with a face; nothing if all is well."""
    if problem := box_problem(face):
        return problem
    if face.get("label") not in (None, *LABELS):
        return f"label {face['label']!r} is none of {', '.join(LABELS)}"
    track = face.get("track")
    if track is not None and (not isinstance(track, int) or isinstance(track, bool)):
        return f"track {track!r} is no number"
    return ""


def _linked(
    raw: Mapping[int, list[dict[str, Any]]], seconds: Mapping[int, float]
) -> dict[int, list[int]]:
    """Number the faces of each frame so that boxes which overlap from line to line are one."""
    result: dict[int, list[int]] = {}
    count, before, before_seconds = 0, np.zeros((0, 4), np.float32), -np.inf
    numbers: list[int] = []
    for frame in sorted(raw):
        boxes = np.array([face["box"] for face in raw[frame]], np.float32).reshape(-1, 4)
        mine = [0] * len(boxes)
        if seconds[frame] - before_seconds <= LINK_SECONDS:
            cost = 1.0 - iou(before, boxes).astype(np.float64)
            for old, new in zip(*assign(cost, 1 - LINK_IOU), strict=True):
                mine[new] = numbers[old]
        for row, number in enumerate(mine):
            if not number:
                count += 1
                mine[row] = count
        result[frame] = numbers = mine
        before, before_seconds = boxes, seconds[frame]
    return result
