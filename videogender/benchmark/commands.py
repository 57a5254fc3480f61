"""Commands as a user starts them, each in a process of its own: what they cost."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

from videogender.benchmark.worker import child_environment
from videogender.errors import VideogenderError

__all__ = ["Cost", "run_command"]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a command took.

    Attributes:
        first_line_seconds: from its start to the first line on standard output.
        seconds: from its start to its end.
        cpu_seconds: of the processor, with all processes that it started; None if unknown.
        peak_memory_bytes: most resident memory, of its largest process; None if unknown.
        said: the last line on standard output.
    """

    first_line_seconds: float
    seconds: float
    cpu_seconds: float | None
    peak_memory_bytes: int | None
    said: str


def run_command(name: str, argv: Sequence[str]) -> Cost:
    """Run a command to its end.

    Args:
        name: for the message if it fails.
        argv: the program and its arguments.

    Raises:
        VideogenderError: it cannot be started, or fails; the message ends with its last line.
    """
    began = time.perf_counter()
    with tempfile.TemporaryFile() as errors, _child(name, argv, errors) as process:
        assert process.stdout is not None
        last = process.stdout.readline()
        first_seconds = time.perf_counter() - began
        for line in process.stdout:
            last = line
        cpu_seconds, peak = _wait(process)
        seconds = time.perf_counter() - began
        if process.returncode:
            errors.seek(0)
            lines = errors.read().decode(errors="replace").strip().splitlines()
            raise VideogenderError(f"bench: `{name}` failed: {lines[-1] if lines else 'silently'}")
    said = last.decode(errors="replace").strip()
    return Cost(first_seconds, seconds, cpu_seconds, peak, said)


@contextmanager
def _child(name: str, argv: Sequence[str], errors: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=child_environment(),
        )
    except OSError as error:
        raise VideogenderError(f"bench: `{name}` cannot be started: {error.strerror}") from error
    with process:
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()


def _wait(process: subprocess.Popen[bytes]) -> tuple[float | None, int | None]:
    """Wait for a process and return its processor time and the most memory that it held.

    Linux counts what its parent held when it was started, too. That is this process, which has
    neither torch nor av loaded and so stays far below.
    """
    if not hasattr(os, "wait4"):
        process.wait()
        return None, None
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return usage.ru_utime + usage.ru_stime, peak
