"""Decides what is annotated and where each result goes, before any work starts."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from videogender.errors import ConfigError, OutputError, SourceError, VideogenderError

if TYPE_CHECKING:
    from videogender.jobs.manifest import Manifest

__all__ = ["Job", "date_before", "plan_jobs"]

MARK = ".annotated"
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
) -> list[Job]:
    """Name the output of every input and refuse what would harm a file.

    `clip.mov` becomes `clip.annotated.mp4` and `face.jpg` becomes `face.annotated.jpg`, beside
    their source or in the folder `output`. Files that are named so already are left out where a
    folder or a pattern was given.

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

    Raises:
        ConfigError: the arguments contradict each other.
        OutputError: an output exists, is an input, or cannot be written.
    """
    rows = {flag: str(path) for flag, path in (data or {}).items() if path is not None}
    own = {flag: str(path) for flag, path in (each or {}).items() if path is not None}
    _check_wishes(output, rows | own, video=video)
    found = list(_expand(inputs))
    folder = _folder("--output", output, len(found))
    one_file = Path(output) if output is not None and folder is None else None
    folders = {flag: _folder(flag, path, len(found)) for flag, path in own.items()}
    jobs = []
    others = set()  # copies of other content, or made in another way
    for source, error in found:
        if error is not None:
            jobs.append(Job(source, None, error))
            continue
        target = one_file or _beside(source, folder) if video else None
        files = {}
        for flag, path in own.items():
            place = folders[flag]
            name = f"{source.stem}{SUFFIXES[flag]}"
            files[flag] = Path(path) if place is None else place / name
        is_done = False
        if skip_existing and target is not None and target.is_file():
            verdict = "unknown" if manifest is None else manifest.verdict(source, target)
            is_done = verdict == "current" or (verdict == "unknown" and _is_newer(target, source))
            if verdict == "other":
                others.add(target)
        jobs.append(Job(source, target, data=files, is_done=is_done))
    shared = {flag: Path(path) for flag, path in rows.items() if path != "-"}
    made = [place for place in (folder, *folders.values()) if place is not None]
    _check(jobs, shared, made, others, force=force, skip_existing=skip_existing)
    if any(job.error is None and not job.is_done for job in jobs):
        for place in made:
            _make(place)
    return jobs


def _check_wishes(output: str | Path | None, data: Mapping[str, str], *, video: bool) -> None:
    """Refuse arguments that contradict each other."""
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


def _expand(inputs: Iterable[str | Path]) -> Iterable[tuple[Path, VideogenderError | None]]:
    """Yield each input file once, and inputs that stand for no file with the reason."""
    from videogender.sources import expand_inputs

    seen: set[object] = set()
    for given in inputs:
        try:
            paths = expand_inputs([given])
            if len(paths) > 1:  # of a folder or a pattern, which may match earlier outputs
                paths = [path for path in paths if not path.stem.endswith(MARK)]
                if not paths:
                    raise SourceError(f"{given}: matches only files that are annotated already")
        except SourceError as error:
            yield Path(given), error
            continue
        for path in paths:
            if (key := _identity(path)) not in seen:
                seen.add(key)
                yield path, None


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


def _beside(source: Path, folder: Path | None) -> Path:
    """Name the annotated copy: an image keeps its format where that can be written."""
    from videogender.sinks.images import can_write
    from videogender.sources.images import is_image

    suffix = ".mp4"
    if is_image(source):
        suffix = source.suffix if can_write(source.suffix) else ".png"
    return (folder or source.parent) / f"{source.stem}{MARK}{suffix}"


def _check(
    jobs: Sequence[Job],
    files: Mapping[str, Path],
    folders: Sequence[Path],
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


def _check_place(target: Path, new_folders: Sequence[Path]) -> None:
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
