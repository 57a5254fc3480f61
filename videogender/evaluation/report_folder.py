"""A folder of results that appears under its name only when it is complete."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from videogender.errors import OutputError

REPORT_NAME = "report.json"  # a folder that holds it was made here, and may be replaced

__all__ = ["REPORT_NAME", "pending_folder"]


@contextmanager
def pending_folder(folder: Path, *, force: bool = False) -> Iterator[Path]:
    """Give a temporary folder beside a target, which gets its own name in the end.

    If the block raises, Ctrl-C included, it is removed and the target stays as it was.

    Args:
        folder: the target; an empty folder may be there.
        force: replace an earlier report. Folders of other content are never replaced.

    Yields:
        the folder to write into.

    Raises:
        OutputError: the target is something else, or cannot be written.
    """
    target = Path(os.path.realpath(folder))
    _check(target, folder, force)
    temporary = target.with_name(f".videogender-{secrets.token_hex(6)}")
    old = target.with_name(f"{temporary.name}-old")
    try:
        temporary.mkdir()
        yield temporary
        _check(target, folder, force)
        if target.is_dir():
            target.rename(old)
        temporary.rename(target)
    except OSError as error:
        if old.exists() and not target.exists():
            old.rename(target)
        reason = error.strerror or error
        raise OutputError(f"{folder}: the report cannot be written: {reason}") from error
    finally:
        for rest in (temporary, old):
            shutil.rmtree(rest, ignore_errors=True)


def _check(target: Path, folder: Path, force: bool) -> None:
    if target.is_dir():
        content = {path.name for path in target.iterdir()}
        if content and REPORT_NAME not in content:
            raise OutputError(f"{folder}: holds other files; name a folder of its own")
        if content and not force:
            raise OutputError(f"{folder}: holds a report already; --force replaces it")
    elif target.exists():
        raise OutputError(f"{folder}: is no folder")
    elif not target.parent.is_dir():
        raise OutputError(f"{folder}: the folder {target.parent} does not exist; make it first")
