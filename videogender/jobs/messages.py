"""What the caller's process and its workers tell each other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from numpy.typing import NDArray

from videogender.config import Settings
from videogender.outputs import DataOutputs
from videogender.progress import DetectorFacts, Summary
from videogender.targets import Job

if TYPE_CHECKING:
    from videogender.passes import Glance
    from videogender.tracking.settle import Settled

__all__ = [
    "STOP",
    "Broken",
    "Data",
    "Done",
    "Draw",
    "Drawn",
    "LookAt",
    "Looked",
    "Message",
    "Passed",
    "Ready",
    "Restarted",
    "Seen",
    "Setup",
    "Started",
    "Steps",
    "Stopped",
    "Task",
]

# Sent to a worker for each Ctrl-C.
STOP = "stop"


@dataclass(frozen=True, slots=True)
class Setup:
    """What all inputs of a run have in common, as far as workers need it.

    Attributes:
        settings: of the run; the network's threads are a worker's share.
        span_seconds: where to begin and end in each video.
        force: existing outputs may be replaced.
        keeps_parts: what Ctrl-C leaves unfinished is kept as far as it goes.
        encoder_threads: a worker's share.
        wants_rows: faces of every frame are wanted.
        wants_summaries: summaries are wanted.
        wants_sections: sections of a report are wanted.
    """

    settings: Settings
    span_seconds: tuple[float | None, float | None]
    force: bool
    keeps_parts: bool
    encoder_threads: int
    wants_rows: bool
    wants_summaries: bool
    wants_sections: bool

    @classmethod
    def of(
        cls,
        settings: Settings,
        data: DataOutputs,
        span_seconds: tuple[float | None, float | None],
        force: bool,
        keeps_parts: bool,
        threads: int,
    ) -> Self:
        """Give each worker its share of threads, unless the settings say how many it takes."""
        detect = replace(settings.detect, threads=settings.detect.threads or threads)
        return cls(
            settings=replace(settings, detect=detect),
            span_seconds=span_seconds,
            force=force,
            keeps_parts=keeps_parts,
            encoder_threads=threads,
            wants_rows=any(place is not None for place in (data.json, data.csv, data.coco)),
            wants_summaries=data.summary is not None,
            wants_sections=data.report is not None,
        )


@dataclass(frozen=True, slots=True)
class LookAt:
    """A part of a video that is to be looked at; None is its beginning or end."""

    start_seconds: float | None
    end_seconds: float | None


@dataclass(frozen=True, slots=True)
class Draw:
    """A part of a video that is to be drawn.

    Attributes:
        span: which.
        settled: its frames.
        place: where its picture goes.
    """

    span: LookAt
    settled: Settled
    place: Path


@dataclass(frozen=True, slots=True)
class Task:
    """One input to work on, the one at `position` of `count`; or a part of one, likewise."""

    job: Job
    position: int
    count: int
    force: bool = False
    part: LookAt | Draw | None = None


@dataclass(frozen=True, slots=True)
class Ready:
    """The detector is loaded."""

    facts: DetectorFacts


@dataclass(frozen=True, slots=True)
class Broken:
    """A worker cannot go on, and why."""

    error: Exception


@dataclass(frozen=True, slots=True)
class Started:
    """The input is open; `frames` is an estimate."""

    frames: int | None


@dataclass(frozen=True, slots=True)
class Passed:
    """One of two passes begins."""

    name: Literal["looking", "drawing"]
    frames: int | None


@dataclass(frozen=True, slots=True)
class Stopped:
    """Ctrl-C came while `frames` had been looked at, which are being written."""

    frames: int


@dataclass(frozen=True, slots=True)
class Steps:
    """Faces in each of the frames that were looked at and written since the last message."""

    looked: tuple[int, ...]
    written: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Data:
    """A pickled `videogender.jobs.record.Piece` of what the input's data files hold."""

    piece: bytes


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of the next frames of a part, without thumbnails."""

    glances: list[Glance]


@dataclass(frozen=True, slots=True)
class Looked:
    """A part has been looked at.

    Attributes:
        network_scale: that of `videogender.passes.Looks`.
        first, last: the thumbnails of its outer frames, which its neighbours need.
    """

    network_scale: float
    first: NDArray[np.float32] | None
    last: NDArray[np.float32] | None


@dataclass(frozen=True, slots=True)
class Drawn:
    """A part is drawn; `zero_seconds` is the time of its first frame on the file's own clock."""

    zero_seconds: Fraction


@dataclass(frozen=True, slots=True)
class Restarted:
    """The worker died: its input begins anew in another."""


@dataclass(frozen=True, slots=True)
class Done:
    """The input is finished, or has failed."""

    summary: Summary


Message = (
    Ready | Broken | Started | Passed | Stopped | Steps | Data | Seen | Looked | Drawn
    | Restarted | Done
)  # fmt: skip
