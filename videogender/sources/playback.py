"""Playback: a video file as a live source, played at its own speed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

from videogender.errors import SourceError
from videogender.sources import Source, open_source
from videogender.sources.live import Grab, Pacer
from videogender.sources.video import VideoSource

__all__ = ["Playback"]

_USUAL_FRAME_SECONDS = 0.04


class Playback:
    """Plays a video file. Attributes are those of `videogender.sources.live.WarningSource`."""

    def __init__(self, path: str | Path, *, loop: bool = False, drop: bool = False) -> None:
        """Check the file.

        Args:
            path: a video.
            loop: begin again at its end, for ever; the time runs on.
            drop: do not wait for frames to be taken.

        Raises:
            SourceError: it is missing, or no video.
        """
        self.name = str(path)
        self.waits = not drop
        self.warnings: list[str] = []
        self._path = path
        self._loop = loop
        self._offset = 0.0  # time at which the next pass begins
        with open_source(path) as opened:
            if opened.kind != "video":
                raise SourceError(f"{self.name}: a still image; `videogender annotate` takes it")

    def grabs(self, stop: threading.Event) -> Iterator[Grab]:
        """Play the file from its beginning, while its time runs on; see `LiveSource`."""
        pacer = Pacer()
        while True:
            yield from self._pass(pacer, stop)
            if stop.is_set() or not self._loop:
                return

    def _pass(self, pacer: Pacer, stop: threading.Event) -> Iterator[Grab]:
        offset = first = self._offset
        with open_source(self._path) as video:
            for count, frame in enumerate(video):
                seconds = offset + (frame.pts_seconds or 0.0)
                first = first if count else seconds
                now = pacer.wait(seconds, stop)
                if stop.is_set():
                    return
                # The last frame lasts as long as the others did on average.
                usual = (seconds - first) / count if count else _USUAL_FRAME_SECONDS
                self._offset = seconds + max(usual, 1e-3)
                yield Grab(frame.picture, now, seconds, _pixel_aspect(video))
                del frame
            self.warnings += [line for line in video.warnings if line not in self.warnings]


def _pixel_aspect(video: Source) -> Fraction | None:
    return video.signal.pixel_aspect if isinstance(video, VideoSource) else None
