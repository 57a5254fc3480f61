"""Where frames come from: video files and still images.

`open_source` looks at what a path holds and returns the source that reads it; `find_inputs` turns
files, folders and patterns into paths. Nothing heavy is imported before a file is opened.
"""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import takewhile
from pathlib import Path
from types import TracebackType
from typing import Literal, NamedTuple, Protocol, Self

from videogender.errors import SourceError
from videogender.frames import Frame
from videogender.sources.address import SCHEMES, redacted

__all__ = [
    "IMAGE_SUFFIXES",
    "MARK",
    "VIDEO_SUFFIXES",
    "Found",
    "Source",
    "find_inputs",
    "is_copy",
    "is_input",
    "open_source",
]

IMAGE_SUFFIXES = frozenset({".avif", ".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
VIDEO_SUFFIXES = frozenset(
    {".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".gif", ".m2ts", ".m2v"}
    | {".m4v", ".mj2", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".nut", ".ogm"}
    | {".ogv", ".qt", ".rm", ".ts", ".vob", ".webm", ".wmv", ".y4m"}
)
MARK = ".annotated"  # stands before the suffix of a copy


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
    from videogender.sources.images import ImageSource, is_image, reads_avif

    if is_image(path):
        return ImageSource(path, name=name)
    if path.suffix.lower() == ".avif" and not reads_avif():
        raise SourceError(f"{name}: the installed Pillow reads no AVIF; update it: 11.3 does")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        raise SourceError(f"{name}: not a readable image, despite its name; is it damaged?")
    from videogender.sources.video import VideoSource

    return VideoSource(path, name=name, start_seconds=start_seconds, end_seconds=end_seconds)


def _check_file(path: Path, name: str) -> None:
    try:
        if path.is_dir():
            raise SourceError(f"{name}: a folder where a file is needed; name a file in it")
        if not path.exists():
            raise SourceError(_why_missing(name))
        if not path.is_file():
            raise SourceError(f"{name}: not a regular file; save it to a file first")
        if path.stat().st_size == 0:
            raise SourceError(f"{name}: the file is empty")
        with path.open("rb"):
            pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SourceError(f"{name}: cannot be read: {reason}") from error


def _why_missing(name: str) -> str:
    """Say what to do about an input that is no file."""
    if name == "-":
        return "-: standard input is not read; save it to a file and name that"
    if name.partition("://")[0].lower() in SCHEMES:
        return (
            f"{redacted(name)}: an address; videogender live --url reads streams, and a file is to "
            "be downloaded first"
        )
    return f"{name}: no such file; check the spelling"


class Found(NamedTuple):
    """A file that an argument stands for.

    Attributes:
        path: of the file.
        below: its folder, as seen from the folder that was named or where a pattern begins to vary.
    """

    path: Path
    below: Path = Path()


def find_inputs(
    arg: str | os.PathLike[str],
    *,
    recursive: bool = False,
    tell: Callable[[str], None] = lambda line: None,
) -> list[Found]:
    """Turn a file, folder or pattern into the files it stands for.

    A folder gives its images and videos, by suffix, sorted, without hidden files and earlier
    outputs (`*.annotated.*`). A pattern is expanded here where the shell did not do so. A file
    named by itself is taken whatever its suffix.

    Args:
        arg: names them.
        recursive: of a folder, take what lies in its subfolders, too.
        tell: told in a line what of a folder is left out.

    Raises:
        SourceError: the argument names nothing that is there, or a folder that holds nothing.
    """
    path, text = Path(arg), os.fspath(arg)
    if not text:
        raise SourceError("an input without a name; name a video, an image, a folder or a pattern")
    if path.is_dir():
        return _in_folder(path, text, recursive, tell)
    if path.exists() or "://" in text or not glob.has_magic(text):
        _check_file(path, text)
        return [Found(path)]
    matches = (Path(match) for match in glob.glob(text, recursive=True))
    found = sorted(match for match in matches if match.is_file())
    if not found:
        raise SourceError(f"{text}: matches no file; check the pattern and the folder")
    start = Path(*takewhile(lambda part: not glob.has_magic(part), path.parts))
    return [Found(match, match.relative_to(start).parent) for match in found]


def _in_folder(
    folder: Path, text: str, recursive: bool, tell: Callable[[str], None]
) -> list[Found]:
    found: list[Found] = []
    left_out: Counter[str] = Counter()  # by suffix
    subfolders = 0
    seen = set()  # links may lead round in a circle
    for place, folders, files in os.walk(folder, onerror=_unreadable(text), followlinks=True):
        seen.add(os.path.realpath(place))
        inner = [name for name in sorted(folders) if not name.startswith(".")]
        inner = [name for name in inner if os.path.realpath(Path(place, name)) not in seen]
        folders[:] = inner if recursive else []
        subfolders += len(inner) - len(folders)
        for path in (Path(place, name) for name in files if is_input(name)):
            if path.suffix.lower() not in IMAGE_SUFFIXES | VIDEO_SUFFIXES:
                left_out[path.suffix.lower()] += 1
            elif path.is_file():
                found.append(Found(path, path.relative_to(folder).parent))
    if subfolders or left_out:
        tell(f"{text}: left out {_listed(subfolders, left_out)}")
    if not found:
        where = "there or below" if recursive else "in this folder"
        hint = "; --recursive takes its subfolders, too" if subfolders else ""
        raise SourceError(f"{text}: no images or videos {where}{hint}")
    return sorted(found)


def _unreadable(text: str) -> Callable[[OSError], None]:
    def refuse(error: OSError) -> None:
        where = "" if Path(error.filename) == Path(text) else f" {error.filename}"
        raise SourceError(f"{text}: the folder{where} cannot be read: {error.strerror}") from error

    return refuse


def _listed(subfolders: int, files: Counter[str]) -> str:
    """Put into words what of a folder is left out."""
    parts = []
    if subfolders:
        parts.append(f"{subfolders} subfolder{'s' * (subfolders > 1)} (--recursive takes them)")
    if count := files.total():
        kinds = ", ".join(suffix or "no suffix" for suffix, _ in files.most_common(4))
        parts.append(f"{count} file{'s' * (count > 1)} of other kinds ({kinds})")
    return " and ".join(parts)


def is_copy(name: str) -> bool:
    """Tell from a file's name whether it is annotated already."""
    return f"{MARK}." in name


def is_input(name: str) -> bool:
    """Tell from a file's name whether it may be meant where its folder is named."""
    return not name.startswith(".") and not is_copy(name)
