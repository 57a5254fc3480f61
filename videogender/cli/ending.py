"""How a run ends: one line about an error, and a standard output that nobody reads."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from typing import Any

from videogender.errors import VideogenderError

__all__ = ["abandon_stdout", "explain", "say"]

_LOG = logging.getLogger("videogender")  # --debug opens it


def explain(error: Exception) -> int:
    """Print one line about an error, its trace with --debug, and return its exit code."""
    abandon_stdout()
    if _LOG.isEnabledFor(logging.DEBUG):
        traceback.print_exception(error)
    if isinstance(error, VideogenderError):
        say(f"error: {error}")
        return error.exit_code
    # typer's usage errors; the class itself has moved between typer's versions.
    if callable(show := getattr(error, "format_message", None)):
        code: Any = getattr(error, "exit_code", 2)
        if type(error).__name__ == "NoArgsIsHelpError":
            say(show())
            return int(code)
        context = getattr(error, "ctx", None)
        hint = f" (see {context.command_path} --help)" if context is not None else ""
        say(f"error: {' '.join(show().split()).rstrip('.')}{hint}")
        return int(code)
    say(f"error: unexpected {type(error).__name__}: {error} (--debug shows the trace)")
    return 1


def say(line: str) -> None:
    """Print a line on stderr, if there is anything to say."""
    if line:
        print(line, file=sys.stderr)


def abandon_stdout() -> None:
    """Send what is still buffered nowhere, so that Python's exit has nothing to complain about."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)
