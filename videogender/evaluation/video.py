"""How steady and how right the labels of a video are, against faces labelled by hand."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np

from videogender.config import Settings
from videogender.evaluation.bootstrap import Interval
from videogender.evaluation.detection import MATCH_IOU, iou
from videogender.evaluation.plain import plain
from videogender.evaluation.proportions import proportion_interval
from videogender.evaluation.video_truth import LINK_SECONDS, Box, TrueFace, VideoTruth
from videogender.pipeline import BatchDetector
from videogender.progress import Progress
from videogender.sinks.jsonl import FaceRecord, FrameRecord
from videogender.tracking.association import assign

LabelBy = Literal["track", "frame"]
Shown = tuple[float, str]  # seconds, label

__all__ = ["TrackAnswer", "VideoResult", "Way", "annotated", "evaluate_video", "warm_up"]

_USUAL_WH = (640, 480)


@dataclass(frozen=True, slots=True)
class Way:
    """A way of labelling a video.

    Attributes:
        label_by: `track` or `frame`.
        every: looks at every so-many-th frame.
        detect_fps: or so many times a second; 0 leaves it to `every`.
    """

    label_by: LabelBy
    every: int = 1
    detect_fps: float = 0.0

    def __str__(self) -> str:
        """Name it in a few words."""
        if self.detect_fps:
            return f"{self.detect_fps:g} looks a second"
        return f"every {self.every}" if self.every > 1 else f"by {self.label_by}"


@dataclass(frozen=True, slots=True)
class TrackAnswer:
    """One labelled face's time in view, and what was said of it.

    Attributes:
        track: its number in the labels.
        label: `female`, `male`, or None where nobody can tell.
        answer: the label that it was given in most frames; None where it was never found.
        shown: (seconds, label given) for every frame in which it was found.
    """

    track: int
    label: str | None
    answer: str | None
    shown: list[Shown]


@dataclass(frozen=True, slots=True)
class VideoResult:
    """What a way of labelling came to.

    Attributes:
        way: how labels were made.
        faces: labelled faces in all labelled frames.
        found: share of them that were found.
        false_alarms: faces that are none, a labelled frame.
        tracks: every labelled time in view.
        track_accuracy: share of the tracks with a female or male label whose answer is it, among
            those that were answered female or male; NaN for none.
        track_coverage: share of the tracks with such a label that were answered so.
        track_interval: 95 % interval of the accuracy, over tracks.
        face_accuracy, face_coverage: the same over single faces that were found.
        label_changes: how often the label of a face changed while it was in view.
        track_minutes: how long faces were in view, together.
        id_switches: how often a face's track changed its number; None without tracks.
        processor_seconds: what looking at the video took, summed over cores; NaN if unknown.
    """

    way: Way
    faces: int
    found: float
    false_alarms: float
    tracks: list[TrackAnswer]
    track_accuracy: float
    track_coverage: float
    track_interval: Interval
    face_accuracy: float
    face_coverage: float
    label_changes: int
    track_minutes: float
    id_switches: int | None
    processor_seconds: float = math.nan

    @property
    def flicker(self) -> float:
        """Label changes per minute that a face is in view."""
        return self.label_changes / self.track_minutes if self.track_minutes else math.nan

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON holds it."""
        found = {
            name: getattr(self, name)
            for name in self.__dataclass_fields__
            if name not in ("way", "tracks", "track_interval")
        }
        tracks = [
            {"track": t.track, "label": t.label, "answer": t.answer, "frames": len(t.shown)}
            for t in self.tracks
        ]
        more = {"flicker_per_track_minute": self.flicker, "tracks": tracks}
        return plain(  # type: ignore[no-any-return]
            {**asdict(self.way), **found, "track_accuracy_interval": self.track_interval, **more}
        )


def annotated(
    clip: Path,
    detector: BatchDetector,
    settings: Settings,
    way: Way,
    progress: Progress | None = None,
) -> list[FrameRecord]:
    """Return what `videogender annotate --json` says of a clip.

    Raises:
        SourceError: if the clip cannot be read.
    """
    from videogender.annotation import annotate

    settings = replace(settings, track=replace(settings.track, **asdict(way)))
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "faces.jsonl"
        (summary,) = annotate(
            clip, detector=detector, settings=settings, json=data, video=False, progress=progress
        )
        if summary.error is not None:
            raise summary.error
        with data.open(encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]


def warm_up(detector: BatchDetector) -> None:
    """Let a detector look once, as its first look takes longer than all others."""
    wide, high = detector.input_size_wh(*_USUAL_WH)
    detector.detect([np.zeros((high, wide, 3), np.uint8)], [_USUAL_WH])


def evaluate_video(records: Sequence[FrameRecord], truth: VideoTruth, way: Way) -> VideoResult:
    """Compare what was said of a video with what is there.

    A face that was found is paired with one that is there by overlap (IoU from 0.5); what was a
    pair in the frame before stays one, and the others are paired for the most overlap (as CLEAR
    MOT does; Bernardin and Stiefelhagen, 2008). Between labelled frames up to a second apart, boxes
    of a track move steadily, so that label changes are seen in every frame.

    Args:
        records: of every frame, from `annotated`.
        truth: the labels.
        way: how `records` were made.
    """
    seconds = {r["frame"]: r["time_s"] or 0.0 for r in records}
    there = _filled(truth, seconds)
    tally = _Tally()
    for record in records:
        if record["frame"] in there:
            faces, is_labelled = there[record["frame"]]
            tally.frame(record, seconds[record["frame"]], faces, is_labelled)
    answers = [tally.answer(track) for track in sorted(tally.labels)]
    steps = [step for answer in answers for step in _steps(answer)]
    clear = [answer for answer in answers if answer.label is not None]
    given = np.array([answer.answer in ("female", "male") for answer in clear], bool)
    right = np.array([answer.answer == answer.label for answer in clear], bool)
    return VideoResult(
        way,
        tally.faces,
        tally.found / tally.faces if tally.faces else math.nan,
        tally.false_alarms / max(len(truth.frames), 1),
        answers,
        float(right.sum() / given.sum()) if given.any() else math.nan,
        float(given.mean()) if len(given) else math.nan,
        proportion_interval(int(right.sum()), int(given.sum())),
        tally.right / tally.given if tally.given else math.nan,
        tally.given / tally.asked if tally.asked else math.nan,
        sum(a[1] != b[1] for a, b in steps),
        sum(b[0] - a[0] for a, b in steps) / 60,
        tally.switches if way.label_by == "track" else None,
    )


@dataclass(slots=True)
class _Tally:
    """Counts, frame after frame."""

    faces: int = 0
    found: int = 0
    false_alarms: int = 0
    asked: int = 0  # found faces whose label is clear
    given: int = 0  # those that were called female or male
    right: int = 0
    switches: int = 0
    labels: dict[int, str | None] = field(default_factory=dict)
    shown: dict[int, list[Shown]] = field(default_factory=dict)
    partner: dict[int, int] = field(default_factory=dict)  # the number a track last had

    def frame(
        self,
        record: FrameRecord,
        seconds: float,
        faces: Sequence[TrueFace],
        is_labelled: bool,
    ) -> None:
        """Count one frame."""
        answers = record["faces"]
        pairs = _pairs(faces, answers, self.partner)
        for row, column in pairs.items():
            face, answer = faces[row], answers[column]
            if face.ignore:
                continue
            self.shown.setdefault(face.track, []).append((seconds, answer["label"]))
            number = answer["track"]
            if number is not None:
                self.switches += self.partner.get(face.track, number) != number
                self.partner[face.track] = number
            if is_labelled:
                self.found += 1
                self.asked += face.label is not None
                said = answer["label"] != "unsure"
                self.given += face.label is not None and said
                self.right += face.label is not None and answer["label"] == face.label
        counted = [face for face in faces if not face.ignore]
        for face in counted:
            # the label of a track is the first clear one
            self.labels[face.track] = self.labels.get(face.track) or face.label
        if is_labelled:
            self.faces += len(counted)
            self.false_alarms += _strangers(faces, answers, set(pairs.values()))

    def answer(self, track: int) -> TrackAnswer:
        """Sum up what was said of a track."""
        shown = self.shown.get(track, [])
        names = [label for _, label in shown]
        # of two labels in as many frames, neither is the answer
        counts = sorted(((names.count(name), name) for name in set(names)), reverse=True)
        tied = len(counts) > 1 and counts[0][0] == counts[1][0]
        answer = None if not counts else "unsure" if tied else counts[0][1]
        return TrackAnswer(track, self.labels[track], answer, shown)


def _pairs(
    faces: Sequence[TrueFace], answers: Sequence[FaceRecord], partner: Mapping[int, int]
) -> dict[int, int]:
    """Pair faces that are there with faces that were found, by position in both lists."""
    if not faces or not answers:
        return {}
    overlap = iou(
        np.array([face.box for face in faces], np.float32),
        np.array([answer["box"] for answer in answers], np.float32).reshape(-1, 4),
    ).astype(np.float64)
    numbers = [answer["track"] for answer in answers]
    pairs: dict[int, int] = {}
    for row, face in enumerate(faces):
        number = partner.get(face.track)
        if number is not None and number in numbers:
            column = numbers.index(number)
            if overlap[row, column] >= MATCH_IOU and column not in pairs.values():
                pairs[row] = column
    cost = 1 - overlap
    cost[list(pairs)] = 1.0
    cost[:, list(pairs.values())] = 1.0
    # what costs as much as the limit stays alone, and an overlap of just one half should not
    for row, column in zip(*assign(cost, 1 - MATCH_IOU + 1e-9), strict=True):
        pairs[int(row)] = int(column)
    return pairs


def _strangers(faces: Sequence[TrueFace], answers: Sequence[FaceRecord], paired: set[int]) -> int:
    """Count the found faces that are none; those on faces to be ignored do not count."""
    rest = [answer["box"] for i, answer in enumerate(answers) if i not in paired]
    ignored = [face.box for face in faces if face.ignore]
    if not rest or not ignored:
        return len(rest)
    overlap = iou(np.array(rest, np.float32), np.array(ignored, np.float32))
    return int((overlap.max(1) < MATCH_IOU).sum())


def _filled(
    truth: VideoTruth, seconds: Mapping[int, float]
) -> dict[int, tuple[list[TrueFace], bool]]:
    """Return the faces of labelled frames and of those between, and whether a frame is labelled."""
    result = {frame: (list(faces), True) for frame, faces in truth.frames.items()}
    frames = list(truth.frames)
    for first, last in pairwise(frames):
        if last - first < 2 or seconds[last] - seconds[first] > LINK_SECONDS:
            continue
        ends = {face.track: face for face in truth.frames[last]}
        for frame in range(first + 1, last):
            if frame not in seconds:
                continue
            share = (seconds[frame] - seconds[first]) / (seconds[last] - seconds[first])
            between = [
                replace(face, box=_between(face.box, ends[face.track].box, share))
                for face in truth.frames[first]
                if face.track in ends
            ]
            result[frame] = (between, False)
    return result


def _between(a: Box, b: Box, share: float) -> Box:
    mixed = [(1 - share) * p + share * q for p, q in zip(a, b, strict=True)]
    return mixed[0], mixed[1], mixed[2], mixed[3]


def _steps(answer: TrackAnswer) -> list[tuple[Shown, Shown]]:
    """Return what was shown of a face from frame to frame, gaps of over a second left out."""
    return [(a, b) for a, b in pairwise(answer.shown) if b[0] - a[0] <= LINK_SECONDS]
