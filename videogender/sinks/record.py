"""Recorder: what is seen live, into files, in a thread of its own."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Collection
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from videogender.config import VideoSettings
from videogender.errors import OutputError, VideogenderError
from videogender.frames import Picture
from videogender.sinks.encoder import find_encoder
from videogender.sinks.recording import SUFFIXES, Recording

__all__ = ["Recorder", "part_path", "stop_all"]

_Item = tuple[NDArray[np.uint8] | Picture, float, Fraction | None]

# Pictures that may wait for the encoder: a moment's hitch, no more.
_MOST_WAITING = 8
_MOST_PARTS = 1_000_000


def part_path(path: Path, source: int | None, part: int | None) -> Path:
    """Name a file of a recording that has several: `day-2-0001.mp4` of `day.mp4`.

    Args:
        path: as the user named it.
        source: number of the source from 1, or None where there is only one.
        part: number of the part from 1, or None for the only or first one.
    """
    name = path.stem
    name += f"-{source}" if source is not None else ""
    name += f"-{part:04d}" if part is not None else ""
    return path.with_name(name + path.suffix)


class Recorder:
    """Encodes in a thread of its own, so that nobody waits for it.

    A new part begins with each `start`, when a segment is full, and when pictures change their
    size. Files have their own names from the beginning: they play at any moment.

    Attributes:
        path: as the user named it.
        paths: the files written so far.
        dropped: pictures that came faster than they could be encoded.
        error: why it ended by itself since the last `start`, or None.
    """

    def __init__(
        self,
        path: str | Path,
        settings: VideoSettings,
        *,
        source: int | None = None,
        segment_seconds: float = 0.0,
        waits: bool = False,
        force: bool = False,
        keep: Collection[str] = (),
    ) -> None:
        """Check the name; nothing is written before the first picture.

        Args:
            path: of the recording; parts get numbers.
            settings: encoder, quality and speed.
            source: number of the source from 1 where there are several.
            segment_seconds: length of a part; 0 makes one of everything.
            waits: pictures wait for the encoder instead of being dropped.
            force: overwrite files that exist.
            keep: real paths of files that are never overwritten, such as inputs.

        Raises:
            OutputError: the file exists, its folder does not, or its name ends in another suffix.
            ConfigError: the encoder is unknown.
        """
        self.path = Path(path)
        self.paths: list[Path] = []
        self.dropped = 0
        self.error: Exception | None = None
        self._settings = settings
        self._source = source
        self._segment_seconds = segment_seconds
        self._waits = waits
        self._force = force
        self._keep = keep
        self._part = 0
        self._began = 0.0
        self._recording: Recording | None = None
        self._waiting: deque[_Item] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._taking = False
        self._check()

    def _check(self) -> None:
        if self.path.suffix.lower() not in SUFFIXES:
            raise OutputError(f"{self.path}: recordings are MP4 or MKV; end the name in either")
        if not self.path.absolute().parent.is_dir():
            raise OutputError(f"{self.path}: the folder does not exist; make it first")
        find_encoder(self._settings.codec)
        first = part_path(self.path, self._source, 1 if self._segment_seconds else None)
        if self._is_kept(first):
            raise OutputError(f"{first}: is an input or another output; name another file")
        if first.exists() and not self._force:
            raise OutputError(f"{first}: exists already; --force replaces it")

    def _is_kept(self, path: Path) -> bool:
        return os.path.realpath(path) in self._keep

    @property
    def running(self) -> bool:
        """Whether pictures are being recorded."""
        return self._taking

    def start(self) -> None:
        """Begin to record; does nothing while it runs, or what it ran before is being finished."""
        if self._thread is None or not self._thread.is_alive():
            self.error = None
            self._taking = True
            self._thread = threading.Thread(
                target=self._run, name="videogender-recorder", daemon=True
            )
            self._thread.start()

    def write(
        self,
        picture: NDArray[np.uint8] | Picture,
        seconds: float,
        pixel_aspect: Fraction | None = None,
    ) -> None:
        """Hand over a picture; it is dropped if too many wait already, or while nothing runs.

        Args:
            picture: HWC uint8 **RGB** that nobody changes any more, or a picture.
            seconds: when it was captured.
            pixel_aspect: width of a pixel by its height, or None if unknown.
        """
        with self._changed:
            while self._waits and self._taking and len(self._waiting) >= _MOST_WAITING:
                self._changed.wait(0.5)
            if not self._taking:
                return
            if len(self._waiting) >= _MOST_WAITING:
                self.dropped += 1
                return
            self._waiting.append((picture, seconds, pixel_aspect))
            self._changed.notify_all()

    def stop(self, seconds: float | None = None) -> bool:
        """Encode what waits, finish the file and end the thread; may be called at any time.

        Args:
            seconds: how long to wait for it; None is for ever.

        Returns:
            whether all is done.
        """
        thread = self._thread
        if thread is None:
            return True
        with self._changed:
            self._taking = False
            self._changed.notify_all()
        thread.join(seconds)
        if thread.is_alive():
            return False
        self._thread = None
        return True

    def _run(self) -> None:
        try:
            try:
                while (item := self._next()) is not None:
                    picture, seconds, aspect = item
                    rgb = picture if isinstance(picture, np.ndarray) else picture.to_rgb()
                    del item, picture
                    self._fitting(rgb, seconds, aspect).write(rgb, seconds)
                    del rgb
            finally:
                self._finish_part()
        except Exception as error:
            self.error = error
        finally:
            with self._changed:
                self._taking = False
                self._waiting.clear()
                self._changed.notify_all()

    def _next(self) -> _Item | None:
        with self._changed:
            while not self._waiting and self._taking:
                self._changed.wait()
            item = self._waiting.popleft() if self._waiting else None
            self._changed.notify_all()
            return item

    def _fitting(
        self, rgb: NDArray[np.uint8], seconds: float, aspect: Fraction | None
    ) -> Recording:
        """Return the recording that a picture belongs to: the one under way, or a new one."""
        size_wh = (int(rgb.shape[1]), int(rgb.shape[0]))
        is_full = self._segment_seconds and seconds - self._began >= self._segment_seconds
        if self._recording is not None and (self._recording.size_wh != size_wh or is_full):
            self._finish_part()
        if self._recording is None:
            self._began = seconds
            self._recording = self._opened(self._new_path(), size_wh, aspect)
            self.paths.append(self._recording.path)
        return self._recording

    def _opened(self, path: Path, size_wh: tuple[int, int], aspect: Fraction | None) -> Recording:
        try:
            return Recording(path, size_wh, self._settings, aspect)
        except VideogenderError:
            with suppress(OSError):
                if path.stat().st_size == 0:  # else it is what `force` would have replaced
                    path.unlink()
            raise

    def _finish_part(self) -> None:
        recording, self._recording = self._recording, None
        if recording is not None:
            recording.close()

    def _new_path(self) -> Path:
        """Choose the next name, and take it so that nobody else can."""
        while self._part < _MOST_PARTS:
            self._part += 1
            is_numbered = self._segment_seconds > 0 or self._part > 1
            path = part_path(self.path, self._source, self._part if is_numbered else None)
            if self._is_kept(path):
                continue
            how = os.O_CREAT | os.O_WRONLY | (0 if self._force else os.O_EXCL)
            try:
                os.close(os.open(path, how, 0o666))
            except FileExistsError:
                continue
            except OSError as error:
                raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
            return path
        raise OutputError(f"{self.path}: too many parts; name another place")


def stop_all(recorders: list[Recorder], seconds: float) -> bool:
    """Stop several recorders at once; return whether all have ended within that many seconds."""
    until = time.monotonic() + seconds
    for recorder in recorders:
        recorder.stop(0.0)
    ended = [recorder.stop(max(0.0, until - time.monotonic())) for recorder in recorders]
    return all(ended)
