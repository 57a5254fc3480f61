"""Where frames come from: video files and still images.

`open_source` looks at what a path holds and returns the source that reads it; `expand_inputs`
turns files, folders and patterns into paths. Nothing heavy is imported before a file is opened.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self

from videogender.errors import SourceError
from videogender.frames import Frame

__all__ = ["IMAGE_SUFFIXES", "VIDEO_SUFFIXES", "Source", "expand_inputs", "open_source"]

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
VIDEO_SUFFIXES = frozenset(
    {".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".gif", ".m2ts", ".m2v"}
    | {".m4v", ".mj2", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".nut", ".ogm"}
    | {".ogv", ".qt", ".rm", ".ts", ".vob", ".webm", ".wmv", ".y4m"}
)


class Source(Protocol):
    """Yields the frames of one input, once; a context manager that closes it."""

    @property
    def name(self) -> str:
        """The input as the user named it."""

    @property
    def path(self) -> Path:
        """Where it lies."""

    @property
    def kind(self) -> Literal["video", "image"]:
        """What it is."""

    @property
    def width(self) -> int:
        """Width of every frame, upright, in pixels."""

    @property
    def height(self) -> int:
        """Height of every frame, upright, in pixels."""

    @property
    def frame_count(self) -> int | None:
        """Frames in the selected span, as far as the file tells."""

    @property
    def duration_seconds(self) -> float | None:
        """Length of the selected span, as far as the file tells."""

    @property
    def warnings(self) -> list[str]:
        """What went wrong without ending the run; grows while frames are read."""

    def __iter__(self) -> Iterator[Frame]: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def close(self) -> None:
        """Close the file; reading ends. May be called twice."""


def open_source(
    path: str | Path, *, start_seconds: float | None = None, end_seconds: float | None = None
) -> Source:
    """Open a video or an image, whichever the content says.

    Args:
        path: a file.
        start_seconds: leave out what is shown before this time, counted from the video's start.
        end_seconds: leave out what is shown from this time on. Images ignore both.

    Raises:
        SourceError: the input is missing, a folder, empty, damaged from its first frame on, or
            neither video nor image.
    """
    name, path = str(path), Path(path)
    _check_file(path, name)
    from videogender.sources.images import ImageSource, is_image

    if is_image(path):
        return ImageSource(path, name=name)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        raise SourceError(f"{name}: not a readable image, despite its name; is it damaged?")
    from videogender.sources.video import VideoSource

    return VideoSource(path, name=name, start_seconds=start_seconds, end_seconds=end_seconds)


def _check_file(path: Path, name: str) -> None:
    try:
        if path.is_dir():
            raise SourceError(f"{name}: a folder where a file is needed; name a file in it")
        if not path.exists():
            raise SourceError(f"{name}: no such file; check the spelling")
        if not path.is_file():
            raise SourceError(f"{name}: not a regular file; save it to a file first")
        if path.stat().st_size == 0:
            raise SourceError(f"{name}: the file is empty")
        with path.open("rb"):
            pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SourceError(f"{name}: cannot be read: {reason}") from error


def expand_inputs(args: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Turn files, folders and patterns into the files they stand for.

    A folder gives its images and videos, by suffix, sorted, without its subfolders, hidden files
    and earlier outputs (`*.annotated.*`). A pattern is expanded here where the shell did not do
    so. A file named by itself is taken whatever its suffix. Nothing is listed twice.

    Raises:
        SourceError: an argument names nothing that is there, or a folder that holds nothing.
    """
    found: dict[str, Path] = {}
    for arg in args:
        for path in _expand(Path(arg), os.fspath(arg)):
            found.setdefault(os.path.realpath(path), path)
    if not found:
        raise SourceError("no input: name a video, an image, a folder or a pattern")
    return list(found.values())


def _expand(path: Path, text: str) -> list[Path]:
    if path.is_dir():
        try:
            inside = sorted(path.iterdir())
        except OSError as error:
            raise SourceError(f"{text}: the folder cannot be read: {error.strerror}") from error
        known = IMAGE_SUFFIXES | VIDEO_SUFFIXES
        found = [p for p in inside if p.suffix.lower() in known and _is_input(p)]
        if not found:
            raise SourceError(f"{text}: no images or videos in this folder; name its subfolders")
        return found
    if path.exists() or not glob.has_magic(text):
        _check_file(path, text)
        return [path]
    matches = (Path(match) for match in glob.glob(text, recursive=True))
    found = sorted(p for p in matches if p.is_file())
    if not found:
        raise SourceError(f"{text}: matches no file; check the pattern and the folder")
    return found


def _is_input(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".") and ".annotated." not in path.name
