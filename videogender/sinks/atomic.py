"""Files that appear under their name only when they are complete."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from videogender.errors import OutputError

__all__ = ["pending"]


@contextmanager
def pending(path: str | Path, *, force: bool = False) -> Iterator[Path]:
    """Give a temporary name beside a target, which gets its own name in the end.

    The temporary file exists from the start, is hidden and has the target's suffix. If the block
    raises, Ctrl-C included, it is removed and the target stays as it was.

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
    temporary = target.with_name(f".videogender-{secrets.token_hex(6)}{target.suffix}")
    try:
        # Made by hand, not by tempfile: the result must get the permissions of any new file.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise OutputError(_sentence(path, error)) from error
    try:
        try:
            yield temporary
        except OutputError as error:
            # Whoever writes knows only the temporary name, which means nothing to the user.
            raise OutputError(str(error).replace(str(temporary), str(path))) from error
        _check(target, path, force)
        try:
            os.replace(temporary, target)
        except OSError as error:
            raise OutputError(_sentence(path, error)) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


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
