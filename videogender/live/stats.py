"""What a live run tells of itself, and what a screen needs: numbers, controls, pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from videogender.frames import Faces

__all__ = ["LateScreen", "LiveControl", "LiveStats", "Screen", "State", "came_back"]

State = Literal["starting", "running", "reconnecting", "paused", "ended", "failed"]


@dataclass(frozen=True, slots=True)
class LiveStats:
    """How one source does at this moment; rates are over the last seconds.

    Attributes:
        source: what the user named, without credentials.
        state: what its capture does.
        message: why it is in this state, one line; or empty.
        fps_in: frames a second that the source delivers.
        fps_out: frames a second that are shown.
        latency_ms_p50: median of the time from capture to display; NaN while unknown.
        latency_ms_p95: 95th percentile of it.
        dropped: frames that were captured but never shown.
        frames: frames that were shown.
        faces: faces now in view.
        female: of these, those labelled female.
        male: of these, those labelled male.
        unsure: of these, those without a label.
        reconnects: how often the source came back after it was lost.
        device: where the network runs.
        zones: figures of zones and lines so far, of `videogender.zones`, with the faces in each
            zone `now`; each track counts under the label it has by now. None without zones.
        zone_events: the same without `now`, each event under the label of its moment, so that no
            count ever falls.
    """

    source: str
    state: State
    message: str
    fps_in: float
    fps_out: float
    latency_ms_p50: float
    latency_ms_p95: float
    dropped: int
    frames: int
    faces: int
    female: int
    male: int
    unsure: int
    reconnects: int
    device: str
    zones: Mapping[str, Any] | None = None
    zone_events: Mapping[str, Any] | None = None


def came_back(reconnects: int) -> str:
    """Say how often a source came back after it was lost."""
    return "came back once" if reconnects == 1 else f"came back {reconnects} times"


class LiveControl(Protocol):
    """What a screen may ask of a live run and do to it; every member is thread-safe."""

    @property
    def names(self) -> tuple[str, ...]:
        """The sources, as `LiveStats.source` names them, in order."""

    def stats(self) -> list[LiveStats]:
        """Return how each source does, in order."""

    @property
    def face_threshold(self) -> float:
        """Least score of a face that is shown."""

    @property
    def most_threshold(self) -> float:
        """What it may be raised to: where faces are blurred, a higher one would show some."""

    def set_face_threshold(self, value: float) -> None:
        """Change it, from the next look on; 0 to `most_threshold`."""

    @property
    def recording(self) -> bool:
        """Whether frames are being recorded; False also where no file was named for it."""

    @property
    def recording_trouble(self) -> str:
        """Why the recording ended by itself, in one line; empty while it did not."""

    @property
    def can_record(self) -> bool:
        """Whether a file was named to record to."""

    def start_recording(self) -> None:
        """Begin to record, to a further file if there is one already."""

    def stop_recording(self) -> None:
        """Finish the recording, which is complete from then on."""

    def request_stop(self) -> None:
        """End the run soon; returns at once."""


class Screen(Protocol):
    """A place where annotated frames are seen; called by the view thread alone."""

    def show(
        self, source: int, rgb: NDArray[np.uint8], faces: Faces, captured_seconds: float
    ) -> None:
        """Show a frame; must not block.

        Args:
            source: position of the frame's source.
            rgb: HWC uint8 **RGB**, annotated; not written to afterwards by anybody.
            faces: what is drawn on it.
            captured_seconds: when it was captured, on the clock of `time.monotonic`.
        """

    def wants(self, source: int) -> bool:
        """Tell whether anybody looks; where nobody does, no picture need be drawn."""

    def close(self) -> None:
        """Take the screen down. May be called twice."""


@runtime_checkable
class LateScreen(Screen, Protocol):
    """A screen that people come to after frames were shown."""

    def lacks(self, source: int) -> bool:
        """Tell whether somebody looks who has not been shown anything of a source."""
