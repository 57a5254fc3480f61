"""JSON Lines: one object a frame, in strict JSON."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, NotRequired, TypedDict

from videogender.frames import Faces, Frame, Label
from videogender.sinks.rows import RowSink, rounded

if TYPE_CHECKING:
    from videogender.zones.figures import Whereabouts

__all__ = ["FaceRecord", "FrameRecord", "JsonlSink", "frame_record"]


class FaceRecord(TypedDict):
    """One face.

    `box` is xyxy in pixels of the upright frame, to 0.1 px; `score` and `female` are probabilities
    to 4 digits, `female` null where the model has no gender heads. `track` counts from 1 and is
    null where faces are not followed; where they are, `female` and `label` are the track's, and
    `predicted` marks boxes of faces that the detector looked for in vain. `zones` are the names of
    those that the face is in, where zones are used. `attribute` is the likeliest class of a
    fine-tuned head, or `unsure`, and `attribute_probability` how probable it is, null where the
    head was not asked; both are left out where there is no such head.
    """

    box: list[float]
    score: float
    female: float | None
    label: Label
    track: int | None
    predicted: bool
    attribute: NotRequired[str]
    attribute_probability: NotRequired[float | None]
    zones: NotRequired[list[str]]


class FrameRecord(TypedDict):
    """One frame; `time_s` is in seconds on the source's clock, null for a still."""

    source: str
    frame: int
    time_s: float | None
    width: int
    height: int
    faces: list[FaceRecord]


def frame_record(
    frame: Frame, faces: Faces, unsure_below: float, where: Whereabouts | None = None
) -> FrameRecord:
    """Describe a frame and its faces in plain values, ready for `json.dumps`.

    Args:
        frame: the frame.
        faces: the faces found in it.
        unsure_below: least probability of the winning label, 0.5 to 1.
        where: which zones they are in, or None while no zones are used.
    """
    tracks = faces.tracks.tolist() or [None] * len(faces)
    predicted = faces.predicted.tolist() or [False] * len(faces)
    time = frame.pts_seconds
    record: FrameRecord = {
        "source": frame.source,
        "frame": frame.index,
        "time_s": None if time is None else rounded(time, 6),
        "width": frame.width,
        "height": frame.height,
        "faces": [
            {
                "box": [rounded(edge, 1) for edge in box],
                "score": rounded(score, 4),
                "female": None if math.isnan(female) else rounded(female, 4),
                "label": label,
                "track": track,
                "predicted": is_predicted,
            }
            for box, score, female, label, track, is_predicted in zip(
                faces.boxes.tolist(),
                faces.scores.tolist(),
                faces.female.tolist(),
                faces.labels(unsure_below),
                tracks,
                predicted,
                strict=True,
            )
        ],
    }
    answers = faces.attribute_labels(unsure_below)
    for face, (name, p) in zip(record["faces"], answers, strict=False):  # none without a head
        face["attribute"] = name
        face["attribute_probability"] = None if math.isnan(p) else rounded(p, 4)
    if where is not None:
        for face, names in zip(record["faces"], where.names(), strict=True):
            face["zones"] = names
    return record


class JsonlSink(RowSink):
    """Writes a line for each frame, faces or none."""

    def write(self, frame: Frame, faces: Faces, where: Whereabouts | None = None) -> None:
        """Write one frame as a line of JSON."""
        record = frame_record(frame, faces, self.unsure_below, where)
        # ASCII with escapes: right whatever encoding a terminal or a pipe believes in.
        self.put(json.dumps(record, allow_nan=False, separators=(",", ":")) + "\n")
