"""Playback: a video file as a live source, played at its own speed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

from videogender.errors import SourceError
from videogender.sources import open_source
from videogender.sources.live import Grab, Pacer

__all__ = ["Playback"]

_USUAL_FRAME_SECONDS = 0.04


class Playback:
    """Plays a video file. Attributes are those of `videogender.sources.live.LiveSource`."""

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
        self._path = path
        self._loop = loop
        with open_source(path) as opened:
            if opened.kind != "video":
                raise SourceError(f"{self.name}: a still image; `videogender annotate` takes it")

    def grabs(self, stop: threading.Event) -> Iterator[Grab]:
        """Play the file, from its beginning; see `LiveSource`."""
        pacer, offset = Pacer(), 0.0
        while True:
            first, last, count = offset, offset, 0
            with open_source(self._path) as video:
                for frame in video:
                    last = offset + (frame.pts_seconds or 0.0)
                    first = last if count == 0 else first
                    count += 1
                    now = pacer.wait(last, stop)
                    if stop.is_set():
                        return
                    yield Grab(frame.picture, now, last)
                    del frame
            if not self._loop:
                return
            # The last frame lasts as long as the others did on average.
            usual = (last - first) / (count - 1) if count > 1 else _USUAL_FRAME_SECONDS
            offset = last + max(usual, 1e-3)
