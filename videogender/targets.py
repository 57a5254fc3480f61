"""Decides what is annotated and where each result goes, before any work starts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from videogender.errors import ConfigError, OutputError, SourceError, VideogenderError

__all__ = ["Job", "plan_jobs"]

MARK = ".annotated"


@dataclass(frozen=True, slots=True)
class Job:
    """One input and its annotated copy.

    Attributes:
        source: the input.
        target: the annotated copy, or None if only data is wanted.
        error: why this input cannot be used, found before any work started.
    """

    source: Path
    target: Path | None
    error: VideogenderError | None = None


def plan_jobs(
    inputs: Sequence[str | Path],
    *,
    output: str | Path | None = None,
    data: Mapping[str, str | Path | None] | None = None,
    video: bool = True,
    force: bool = False,
) -> list[Job]:
    """Name the output of every input and refuse what would harm a file.

    `clip.mov` becomes `clip.annotated.mp4` and `face.jpg` becomes `face.annotated.jpg`, beside
    their source or in the folder `output`. Files that are named so already are left out where a
    folder or a pattern was given.

    Args:
        inputs: files, folders and patterns.
        output: a folder, which is made if it ends with a slash or has no suffix; or a file.
        data: the data files by flag (`--json`), `-` for standard output; None if not wanted.
        video: whether annotated copies are wanted.
        force: existing outputs may be replaced.

    Raises:
        ConfigError: the arguments contradict each other.
        OutputError: an output exists, is an input, or cannot be written.
    """
    rows = {flag: str(path) for flag, path in (data or {}).items() if path is not None}
    if not video and output is not None:
        raise ConfigError(f"--no-video writes no annotated copy, so --output {output} has no use")
    if not video and not rows:
        raise ConfigError("--no-video leaves nothing to write; add --json FILE or --csv FILE")
    if sum(path == "-" for path in rows.values()) > 1:
        raise ConfigError(f"only one of {' and '.join(rows)} can go to standard output")
    found = list(_expand(inputs))
    folder = _folder(output, len(found))
    one_file = Path(output) if output is not None and folder is None else None
    jobs = []
    for source, error in found:
        target = None
        if video and error is None:
            target = one_file or _beside(source, folder)
        jobs.append(Job(source, target, error))
    files = {flag: Path(path) for flag, path in rows.items() if path != "-"}
    _check(jobs, files, folder, force=force)
    if folder is not None and any(job.target for job in jobs):
        _make(folder)
    return jobs


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


def _folder(output: str | Path | None, inputs: int) -> Path | None:
    """Return `output` if it means a folder; refuse one file for several inputs."""
    if output is None:
        return None
    path = Path(output)
    if path.is_dir() or not path.suffix or str(output).endswith(("/", os.sep)):
        return path
    if inputs > 1:
        raise ConfigError(
            f"--output {output} is one file, but there are {inputs} inputs; name a folder"
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
    jobs: Sequence[Job], files: Mapping[str, Path], folder: Path | None, *, force: bool
) -> None:
    """Refuse outputs that exist, that are inputs, or that two inputs share."""
    sources = [job.source for job in jobs if job.error is None]
    wanted = [(job.target, str(job.source)) for job in jobs if job.target is not None]
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
        _check_place(target, folder)
    existing = [target for target, _ in wanted if target.exists() or target.is_symlink()]
    if existing and not force:
        more = f" (and {len(existing) - 1} more)" if len(existing) > 1 else ""
        raise OutputError(f"{existing[0]}: exists already{more}; --force replaces it")


def _identity(path: Path) -> object:
    """Return what two names of one file have in common: links and relative paths are followed."""
    try:
        status = path.stat()
        return status.st_dev, status.st_ino
    except OSError:
        return path.resolve()


def _check_place(target: Path, new_folder: Path | None) -> None:
    """Refuse a target whose folder is missing or closed to us; `new_folder` will be made."""
    if target.is_dir():
        raise OutputError(f"{target}: this is a folder, not a file that can be written")
    parent = target.parent
    if parent == new_folder:
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
