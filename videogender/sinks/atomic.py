"""Files that appear under their name only when they are complete."""

from __future__ import annotations

import errno
import os
import secrets
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

if sys.platform != "win32":  # which has no such locks, and does not rename files that are open
    import fcntl

from videogender.errors import OutputError

__all__ = ["pending", "scratch"]

_MARK = ".videogender-"
# A temporary file is locked a moment after it is made; one that is older is either locked or dead.
_STALE_SECONDS = 60.0


@contextmanager
def pending(path: str | Path, *, force: bool = False) -> Iterator[Path]:
    """Give a temporary name beside a target, which gets its own name in the end.

    The temporary file exists from the start, is hidden and has the target's suffix. If the block
    raises, Ctrl-C included, it is removed and the target stays as it was. What a killed process
    left in the folder is removed first.

    Args:
        path: the target; a link is followed.
        force: replace an existing file instead of refusing it.

    Yields:
        the path to write to.

    Raises:
        OutputError: the target exists, is no regular file, or its folder cannot be written.
    """
    target = Path(os.path.realpath(path))
    _check(target, path, force)
    try:
        with scratch(target) as temporary:
            try:
                yield temporary
            except OutputError as error:
                # Whoever writes knows only the temporary name, which means nothing to the user.
                raise OutputError(str(error).replace(str(temporary), str(path))) from error
            _check(target, path, force)
            os.replace(temporary, target)
    except BrokenPipeError:  # of standard output, say: files have no readers who leave
        raise
    except OSError as error:
        raise OutputError(_sentence(path, error)) from error


@contextmanager
def scratch(beside: Path) -> Iterator[Path]:
    """Give a hidden file beside another, with its suffix, that is gone in the end.

    What a killed process left in the folder is removed first.

    Raises:
        OSError: it cannot be made.
    """
    _sweep(beside.parent)
    temporary = beside.with_name(f"{_MARK}{secrets.token_hex(6)}{beside.suffix}")
    # Made by hand, not by tempfile: the result must get the permissions of any new file.
    file = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        if not _lock(file):
            os.close(file)
            file = -1
        yield temporary
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if file >= 0:
            os.close(file)  # and with it goes the lock


def _lock(file: int) -> bool:
    """Take the lock that tells others that the file is in use; False if there are no locks here."""
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _sweep(folder: Path) -> None:
    """Remove temporary files whose process is gone, and with it its lock."""
    for path in folder.glob(f"{_MARK}*"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime < _STALE_SECONDS:
                continue
            file = os.open(path, os.O_WRONLY)
            try:
                if _lock(file):
                    path.unlink()
            finally:
                os.close(file)


def _check(target: Path, path: str | Path, force: bool) -> None:
    try:
        mode = target.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        if not target.parent.is_dir():
            raise OutputError(
                f"{path}: the folder {target.parent} does not exist; make it first"
            ) from None
        return
    except OSError as error:
        raise OutputError(_sentence(path, error)) from error
    if stat.S_ISDIR(mode):
        raise OutputError(f"{path}: is a folder; name a file in it")
    if not stat.S_ISREG(mode):
        raise OutputError(f"{path}: not a regular file, so it cannot be replaced")
    if not force:
        raise OutputError(f"{path}: exists already; --force replaces it")


def _sentence(path: str | Path, error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return f"{path}: the disk is full; make room or name another place"
    return f"{path}: cannot be written: {error.strerror or error}"
