"""The report page: collects what became of each input and writes the page when all are done."""

from __future__ import annotations

import os
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from videogender.config import Settings
from videogender.errors import OutputError

if TYPE_CHECKING:
    from videogender.reports.video_report import VideoSection

__all__ = ["ReportSink"]


class ReportSink:
    """Keeps the sections of a report in a temporary file until the page is written.

    Args:
        target: the page, written in place (atomic naming is done outside).
        settings: under which the run is made.
        model: what finds the faces, in a word or two.
    """

    def __init__(self, target: Path, *, settings: Settings, model: str) -> None:
        self._target, self._settings, self._model = target, settings, model
        self._places: list[int] = []
        try:
            self._file = tempfile.TemporaryFile(dir=target.parent, prefix=".videogender-")  # noqa: SIM115
        except OSError as error:
            raise self._failed(error) from error

    def add(self, section: VideoSection) -> None:
        """Keep the section of one input.

        Raises:
            OutputError: the disk is full.
        """
        try:
            self._places.append(self._file.seek(0, os.SEEK_END))
            pickle.dump(section, self._file, pickle.HIGHEST_PROTOCOL)
            self._file.flush()
        except OSError as error:
            raise self._failed(error) from error

    def mark(self) -> tuple[int, ...]:
        """Return a place to which `rollback` can return."""
        return (len(self._places),)

    def rollback(self, mark: tuple[int, ...]) -> None:
        """Forget the sections added since `mark`."""
        del self._places[mark[0] :]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None and self._places:
                self._write()
        finally:
            self._file.close()

    def _failed(self, error: OSError) -> OutputError:
        return OutputError(f"{self._target}: cannot write: {error.strerror or error}")

    def _write(self) -> None:
        from videogender.reports.video_report import VideoSection, write_video_report

        latest: tuple[int, VideoSection] | None = None

        def load(place: int) -> VideoSection:
            nonlocal latest
            if latest is None or latest[0] != place:
                self._file.seek(place)
                latest = place, pickle.load(self._file)
            return latest[1]

        write_video_report(
            self._target,
            [cast(VideoSection, _Stored(load, place)) for place in self._places],
            settings=self._settings,
            model=self._model,
            unsure_below=self._settings.label.unsure_below,
        )


class _Stored:
    """Stands for a section, whose parts are read from the file when they are asked for."""

    def __init__(self, load: Callable[[int], VideoSection], place: int) -> None:
        self._load, self._place = load, place

    def __getattr__(self, name: str) -> Any:
        return getattr(self._load(self._place), name)
