"""Looker: the thread in which one network looks at the newest frames of all sources."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from videogender.config import Settings
from videogender.frames import Faces
from videogender.live.capture import Capture, Captured
from videogender.live.handoff import Bell
from videogender.pipeline import BatchDetector, WeakDetector, look
from videogender.tracking.cuts import CutDetector, Shot, thumbnail
from videogender.tracking.live import Follower, Outlook

__all__ = ["Look", "Looker"]

_NAP_SECONDS = 0.1
# How long a batch waits for the frames of further sources.
_BATCH_WAIT_SECONDS = 0.01
# Boxes of a look this much older than usual say nothing any more.
_USUAL_LOOKS, _GRACE_SECONDS = 2.0, 1.0
# The screen comes before the network: its threads get less of a busy processor.
_NICENESS = 5
# Of the blank picture by which the network is warmed up.
_USUAL_WH = (640, 480)


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """What one look found, and when.

    Attributes:
        faces: as they are shown in the frame that was looked at.
        seconds: the time of that frame.
    """

    faces: Faces
    seconds: float


@dataclass(slots=True)
class _Known:
    """What is known of a source's faces."""

    outlook: Outlook
    take: int
    good_for_seconds: float


class Looker:
    """Looks at frames, follows their faces, and tells what is to be shown.

    Attributes:
        ready: set once the network has run for the first time, or cannot.
        error: what ended it too early, or None.
    """

    def __init__(
        self,
        captures: Sequence[Capture],
        detector: BatchDetector,
        settings: Settings,
        bell: Bell,
        *,
        passes_on: bool = False,
    ) -> None:
        """Prepare the thread; `start` begins it.

        Args:
            captures: whose frames to look at.
            detector: finds the faces; it is asked for unsure ones too, if it is a `WeakDetector`.
            settings: how faces are followed and labelled.
            bell: rung by the captures, and where frames are passed on, when one was shown.
            passes_on: frames go on to the screen from here, once their faces are known.
        """
        self._captures = captures
        self._detector = detector
        self._settings = settings
        self._bell = bell
        self._passes_on = passes_on
        self.ready = threading.Event()
        self.error: BaseException | None = None
        self.face_threshold = settings.detect.face_threshold
        if isinstance(detector, WeakDetector):
            self.face_threshold = detector.face_threshold
        self._used_threshold = -1.0
        self._asked: BatchDetector = detector
        self._followers: list[Follower | None] = [None] * len(captures)
        self._cuts = [CutDetector() for _ in captures]
        self._known: list[_Known | None] = [None] * len(captures)
        self._looking = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="videogender-looker", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Let the thread end after the look in hand; returns at once."""
        self._stop.set()
        self._bell.ring()

    def join(self, seconds: float) -> bool:
        """Wait for the thread; return whether it has ended."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    @property
    def is_idle(self) -> bool:
        """Whether every frame that was captured for it has been looked at."""
        return not (any(c.looked.is_full for c in self._captures) or self._looking)

    def seen(self, position: int, captured: Captured) -> tuple[Faces, Look | None]:
        """Return the faces to be shown in a frame, moved on from the newest look.

        Args:
            position: of the source.
            captured: a frame of it.

        Returns:
            the faces, and the look that they come from; None if nothing is known.
        """
        seconds = captured.frame.pts_seconds or 0.0
        if captured.faces is not None:
            return captured.faces, Look(captured.faces, seconds)
        known = self._known[position]
        if known is None or known.take != captured.take:
            return Faces.empty(), None
        outlook = known.outlook
        if seconds - outlook.seconds > known.good_for_seconds:
            return Faces.empty(), None
        return outlook.at(seconds), Look(outlook.faces, outlook.seconds)

    def _run(self) -> None:
        if sys.platform.startswith("linux"):
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        try:
            wide, high = self._detector.input_size_wh(*_USUAL_WH)
            self._detector.detect([np.zeros((high, wide, 3), np.uint8)], [_USUAL_WH])
            self.ready.set()
            while not self._stop.is_set():
                batch = self._gather()
                if batch:
                    self._look(batch)
                self._looking = False
        except BaseException as error:
            self.error = error
        finally:
            self.ready.set()

    def _gather(self) -> list[tuple[int, Captured]]:
        """Take the newest frame of each source, as soon as there are any."""
        waiting = [capture for capture in self._captures if not capture.is_over]
        if not any(map(self._is_due, self._captures)):
            self._bell.wait(_NAP_SECONDS)
        until = time.monotonic() + _BATCH_WAIT_SECONDS
        most = min(len(waiting), self._detector.batch_size)
        while 0 < sum(map(self._is_due, self._captures)) < most:
            left = until - time.monotonic()
            if left <= 0 or self._stop.is_set():
                break
            self._bell.wait(left)
        self._looking = True  # before the slots are empty, see `is_idle`
        due = [(i, capture) for i, capture in enumerate(self._captures) if self._is_due(capture)]
        taken = ((i, capture.looked.take()) for i, capture in due)
        return [(position, captured) for position, captured in taken if captured is not None]

    def _is_due(self, capture: Capture) -> bool:
        """Tell whether a frame is to be looked at; where it goes on from here, there must be room.

        Of a file that stands still, the frame before has not been shown: whoever waited for that
        would keep other sources waiting.
        """
        has_room = not (self._passes_on and capture.waits and capture.shown.is_full)
        return has_room and capture.looked.is_full

    def _look(self, batch: list[tuple[int, Captured]]) -> None:
        threshold = self.face_threshold
        if threshold != self._used_threshold:
            self._take_threshold(threshold)
        scaled: dict[tuple[int, int], list[tuple[int, Captured, NDArray[np.uint8]]]] = {}
        for position, captured in batch:
            frame = captured.frame
            size_wh = self._detector.input_size_wh(frame.width, frame.height)
            image = frame.picture.to_rgb(size_wh)
            scaled.setdefault(size_wh, []).append((position, captured, image))
        for looks in scaled.values():
            for start in range(0, len(looks), self._detector.batch_size):
                part = looks[start : start + self._detector.batch_size]
                images = [image for _, _, image in part]
                found = look(self._asked, images, [c.frame.picture for _, c, _ in part])
                for (position, captured, image), faces in zip(part, found, strict=True):
                    self._follow(position, captured, image, faces)

    def _take_threshold(self, threshold: float) -> None:
        self._used_threshold = threshold
        if isinstance(self._detector, WeakDetector):
            follows = self._settings.track.label_by == "track"
            low = min(self._settings.track.low_threshold, threshold) if follows else threshold
            self._asked = self._detector.at_threshold(low, follows=follows)
        for follower in self._followers:
            if follower is not None:
                follower.set_face_threshold(threshold)

    def _follow(
        self, position: int, captured: Captured, image: NDArray[np.uint8], faces: Faces
    ) -> None:
        seconds = captured.frame.pts_seconds or 0.0
        known = self._known[position]
        follower = self._followers[position]
        if self._settings.track.label_by == "frame":
            outlook = Outlook.still(faces, seconds)
        else:
            if follower is None:
                follower = self._followers[position] = Follower(
                    self._settings.track,
                    self._settings.label,
                    self._used_threshold,
                    network_scale=image.shape[0] / max(1, captured.frame.height),
                )
            shot = Shot.SAME
            if self._settings.track.cuts:
                shot = self._cuts[position].step(thumbnail(captured.frame.picture), seconds)
            if known is not None and known.take != captured.take:
                shot = Shot.NEW
            outlook = follower.outlook(faces, seconds, shot)
        usual = 0.0 if known is None else seconds - known.outlook.seconds
        good_for = _USUAL_LOOKS * max(usual, 0.0) + _GRACE_SECONDS
        self._known[position] = _Known(outlook, captured.take, good_for)
        capture = self._captures[position]
        capture.meter.look(captured.captured_seconds)
        if self._passes_on:
            settled = replace(captured, faces=outlook.faces)
            if capture.shown.put(settled):
                capture.meter.drop()
