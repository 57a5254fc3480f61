"""Decides what is annotated and where each result goes, before any work starts."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from videogender.errors import ConfigError, OutputError, SourceError, VideogenderError
from videogender.sinks import mp4
from videogender.sources import (
    IMAGE_SUFFIXES,
    MARK,
    VIDEO_SUFFIXES,
    Found,
    find_inputs,
    is_copy,
    is_input,
)

if TYPE_CHECKING:
    from videogender.jobs.manifest import Manifest

__all__ = ["Job", "date_before", "plan_jobs"]

# Data files of one input each, by flag, and the suffix of their names in a folder.
SUFFIXES = {"--mot": ".txt", "--vtt": ".vtt"}


@dataclass(frozen=True, slots=True)
class Job:
    """One input and its annotated copy.

    Attributes:
        source: the input.
        target: the annotated copy, or None if only data is wanted.
        data: the data files of this input alone, by flag; `-` is standard output.
        error: why this input cannot be used, found before any work started.
        is_done: its annotated copy is there and up to date, and is to be left alone.
    """

    source: Path
    target: Path | None
    error: VideogenderError | None = None
    data: Mapping[str, Path] = field(default_factory=dict)
    is_done: bool = False


def plan_jobs(
    inputs: Sequence[str | Path],
    *,
    output: str | Path | None = None,
    data: Mapping[str, str | Path | None] | None = None,
    each: Mapping[str, str | Path | None] | None = None,
    video: bool = True,
    force: bool = False,
    skip_existing: bool = False,
    manifest: Manifest | None = None,
    recursive: bool = False,
    tell: Callable[[str], None] = lambda line: None,
) -> list[Job]:
    """Name the output of every input and refuse what would harm a file.

    `clip.mov` becomes `clip.annotated.mp4` and `face.jpg` becomes `face.annotated.jpg`, beside
    their source or in the folder `output`, which then has the subfolders of an input folder or
    pattern. Files that are named so already are left out where a folder or a pattern was given.

    Where `clip.mp4` lies beside `clip.mov`, it is `clip.mov.annotated.mp4`. The folder decides, not
    the other inputs, so that every run names a copy alike.

    Args:
        inputs: files, folders and patterns.
        output: a folder, which is made if it ends with a slash or has no suffix; or a file.
        data: the data files by flag (`--json`), `-` for standard output; None if not wanted.
        each: data files that every input has for itself (`--vtt`): a file for one input, else a
            folder, in which each gets the name of its source.
        video: whether annotated copies are wanted.
        force: existing outputs may be replaced.
        skip_existing: inputs whose copy is current count as done.
        manifest: knows which are; without it, and where it knows nothing of a copy, those that are
            not older than their input.
        recursive: of folders, take what lies in their subfolders, too.
        tell: told in a line what of a folder is left out.

    Raises:
        ConfigError: the arguments contradict each other.
        OutputError: an output exists, is an input, or cannot be written.
    """
    rows = {flag: str(path) for flag, path in (data or {}).items() if path is not None}
    own = {flag: str(path) for flag, path in (each or {}).items() if path is not None}
    _check_wishes(output, rows | own, video=video)
    found = list(_expand(inputs, recursive, tell))
    folder = _folder("--output", output, len(found))
    one_file = Path(output) if output is not None and folder is None else None
    folders = {flag: _folder(flag, path, len(found)) for flag, path in own.items()}
    jobs = []
    made = set()  # folders
    others = set()  # copies of other content, or made in another way
    names = _Names({source.suffix.lower() for (source, _), error in found if error is None})

    def inside(folder: Path, below: Path) -> Path:
        made.add(folder / below)
        return folder / below

    for (source, below), error in found:
        if error is not None:
            jobs.append(Job(source, None, error))
            continue
        target = None
        if video and one_file is not None:
            _check_suffix(one_file, source)
            target = one_file
        elif video:
            place = source.parent if folder is None else inside(folder, below)
            target = place / names.of_copy(source)
        files = {}
        for flag, path in own.items():
            if (data_folder := folders[flag]) is None:
                files[flag] = Path(path)
            else:
                name = names.of_data(source, SUFFIXES[flag])
                files[flag] = inside(data_folder, below) / name
        is_done = False
        if skip_existing and target is not None and target.is_file():
            verdict = "unknown" if manifest is None else manifest.verdict(source, target)
            is_done = verdict == "current" or (verdict == "unknown" and _is_newer(target, source))
            if verdict == "other":
                others.add(target)
        jobs.append(Job(source, target, data=files, is_done=is_done))
    shared = {flag: Path(path) for flag, path in rows.items() if path != "-"}
    _check(jobs, shared, made, others, force=force, skip_existing=skip_existing)
    if any(job.error is None and not job.is_done for job in jobs):
        for place in made:
            _make(place)
    return jobs


def _check_wishes(output: str | Path | None, data: Mapping[str, str], *, video: bool) -> None:
    """Refuse arguments that contradict each other, or name nothing."""
    for flag, path in {"--output": output, **data}.items():
        if path is not None and not str(path):
            raise ConfigError(f"{flag} names nothing; name a file or a folder")
    if str(output) == "-":
        raise ConfigError("--output -: copies go to files, not to standard output; name a file")
    if not video and output is not None:
        raise ConfigError(f"--no-video writes no annotated copy, so --output {output} has no use")
    if not video and not data:
        raise ConfigError(
            "--no-video leaves nothing to write; add --json FILE, --report FILE or other data"
        )
    streams = [flag for flag, path in data.items() if path == "-"]
    if len(streams) > 1:
        raise ConfigError(f"only one of {' and '.join(streams)} can go to standard output")
    if "--report" in streams:
        raise ConfigError("--report is a page to open in a browser; name a file")


def _expand(
    inputs: Iterable[str | Path], recursive: bool, tell: Callable[[str], None]
) -> Iterable[tuple[Found, VideogenderError | None]]:
    """Yield each input file once, and inputs that stand for no file with the reason."""
    seen: set[Path] = set()
    for given in inputs:
        try:
            files = find_inputs(given, recursive=recursive, tell=tell)
            if len(files) > 1:  # of a folder or a pattern, which may match earlier outputs
                files = [file for file in files if not is_copy(file.path.name)]
                if not files:
                    raise SourceError(f"{given}: matches only files that are annotated already")
        except SourceError as error:
            yield Found(Path(given)), error
            continue
        for file in files:
            if (key := file.path.resolve()) not in seen:  # hard links have names of their own
                seen.add(key)
                yield file, None


def _folder(flag: str, given: str | Path | None, inputs: int) -> Path | None:
    """Return what a flag names if it means a folder; refuse one file for several inputs."""
    if given is None:
        return None
    path = Path(given)
    is_stdout = str(given) == "-" and flag != "--output"
    if not is_stdout and (path.is_dir() or not path.suffix or str(given).endswith(("/", os.sep))):
        return path
    if inputs > 1:
        raise ConfigError(
            f"{flag} {given} is one file, but there are {inputs} inputs; name a folder"
        )
    return None


class _Names:
    """Names the files of an input, apart from those of inputs that differ in their suffix alone.

    Args:
        suffixes: of inputs, in lower case, besides those by which inputs are known.
    """

    def __init__(self, suffixes: Set[str]) -> None:
        self._suffixes = IMAGE_SUFFIXES | VIDEO_SUFFIXES | suffixes
        self._folders: dict[Path, defaultdict[str, list[Path]]] = {}

    def of_copy(self, source: Path) -> str:
        """Name the annotated copy."""
        suffix = _copy_suffix(source)
        is_alone = all(_copy_suffix(twin) != suffix for twin in self._twins(source))
        return f"{source.stem if is_alone else source.name}{MARK}{suffix}"

    def of_data(self, source: Path, suffix: str) -> str:
        """Name a data file. Images make room for videos, whose posters they often are."""
        rivals = self._twins(source)
        if rivals and _is_video(source):
            rivals = [twin for twin in rivals if _is_video(twin)]
        return f"{source.name if rivals else source.stem}{suffix}"

    def _twins(self, source: Path) -> list[Path]:
        """Return the inputs that lie beside another under the same name but for their suffix."""
        folder = source.parent
        if folder not in self._folders:
            self._folders[folder] = _by_stem(folder, self._suffixes)
        return [path for path in self._folders[folder][source.stem] if path.name != source.name]


def _by_stem(folder: Path, suffixes: Set[str]) -> defaultdict[str, list[Path]]:
    found = defaultdict[str, list[Path]](list)
    with suppress(OSError):
        for path in map(folder.joinpath, os.listdir(folder)):
            if path.suffix.lower() in suffixes and is_input(path.name):
                found[path.stem].append(path)
    return found


def _is_video(source: Path) -> bool:
    """Tell whether a file is to be opened as a video; one with the name of an image never is."""
    from videogender.sources.images import is_image

    return source.suffix.lower() not in IMAGE_SUFFIXES and not is_image(source)


def _copy_suffix(source: Path) -> str:
    """Return the suffix of a copy: an image keeps its format where that can be written."""
    from videogender.sinks.images import can_write

    if _is_video(source):
        return mp4.SUFFIXES[0]
    return source.suffix if can_write(source.suffix) else ".png"


def _check_suffix(target: Path, source: Path) -> None:
    """Refuse a name that says another format than the copy can have."""
    from videogender.sinks import images
    from videogender.sources.images import is_image

    if _is_video(source):
        mp4.check_name(target)
    elif is_image(source):  # a damaged one is told when it is opened
        images.check_name(target)


def _check(
    jobs: Sequence[Job],
    files: Mapping[str, Path],
    folders: Set[Path],
    others: Set[Path],
    *,
    force: bool,
    skip_existing: bool,
) -> None:
    """Refuse outputs that exist, that are inputs, or that two inputs share."""
    sources = [job.source for job in jobs if job.error is None]
    wanted = [(job.target, str(job.source)) for job in jobs if job.target is not None]
    for job in jobs:
        wanted += [(path, str(job.source)) for path in job.data.values() if str(path) != "-"]
    wanted += [(path, flag) for flag, path in files.items()]
    inputs = {_identity(source): source for source in sources}
    owners: dict[object, str] = {}
    for target, owner in wanted:
        key = _identity(target)
        if key in inputs:
            raise OutputError(f"{target}: this output is the input {inputs[key]}; name another")
        if key in owners:
            raise OutputError(
                f"{target}: {owners[key]} and {owner} would both be written here; "
                "run them apart with --output"
            )
        owners[key] = owner
    for target, _ in wanted:
        _check_place(target, folders)
    done = {job.target for job in jobs if job.is_done}
    existing = [
        target
        for target, _ in wanted
        if target not in done and (target.exists() or target.is_symlink())
    ]
    if existing and not force:
        more = f" (and {len(existing) - 1} more)" if len(existing) > 1 else ""
        is_copy = any(existing[0] == job.target for job in jobs)
        old = ", older than its input" if skip_existing and is_copy else ""
        if existing[0] in others:
            old = ", made of other content or with other settings or weights"
        raise OutputError(f"{existing[0]}: exists already{old}{more}; --force replaces it")


def _is_newer(target: Path, source: Path) -> bool:
    """Tell whether an annotated copy was made after its source was last changed."""
    try:
        return target.stat().st_mtime >= source.stat().st_mtime
    except OSError:
        return False


def date_before(target: Path, source: Path) -> None:
    """Date a copy that ends too early before its source, so that nobody takes it for current."""
    with suppress(OSError):
        # Some file systems count in steps of two seconds.
        os.utime(target, (time.time(), source.stat().st_mtime - 2))


def _identity(path: Path) -> object:
    """Return what two names of one file have in common: links and relative paths are followed."""
    try:
        status = path.stat()
        return status.st_dev, status.st_ino
    except OSError:
        return path.resolve()


def _check_place(target: Path, new_folders: Set[Path]) -> None:
    """Refuse a target whose folder is missing or closed to us; `new_folders` will be made."""
    if target.is_dir():
        raise OutputError(f"{target}: this is a folder, not a file that can be written")
    parent = target.parent
    if parent in new_folders:
        while not parent.exists() and parent != parent.parent:
            parent = parent.parent
    if not parent.exists():
        raise OutputError(f"{target}: the folder {parent} does not exist; make it first")
    if not parent.is_dir():
        raise OutputError(f"{target}: {parent} is not a folder")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(f"{target}: no permission to write in {parent}")


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot make this folder: {error.strerror or error}"
        ) from error
