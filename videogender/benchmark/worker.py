"""Worker: one part of the benchmark in a process of its own, asked over its standard streams."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import videogender
from videogender import errors
from videogender.errors import VideogenderError

__all__ = ["Worker", "child_environment"]


def child_environment() -> dict[str, str]:
    """Return an environment in which a child finds this very package, installed or not."""
    home = str(Path(videogender.__file__).parent.parent)
    others = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([home, *([others] if others else [])])}


class Worker:
    """A part that is set up once and then measures whenever it is asked; idle in between.

    A context manager; leaving it ends the process.

    Args:
        part: its name in `videogender.benchmark.child.PARTS`.
        options: plain values that the part is set up with.

    Raises:
        VideogenderError: what the part raised while it was set up, as the same class.
    """

    def __init__(self, part: str, options: dict[str, Any]) -> None:
        self._part = part
        self._process = subprocess.Popen(
            [sys.executable, "-m", "videogender.benchmark.child", part],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=child_environment(),
        )
        try:
            self.facts: dict[str, Any] = self._exchange(options)
        except BaseException:
            self.close()
            raise

    def ask(self, **request: Any) -> dict[str, Any]:
        """Let the part measure once.

        Raises:
            VideogenderError: what the part raised, as the same class.
        """
        return self._exchange(request)

    def _exchange(self, message: dict[str, Any]) -> dict[str, Any]:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(BrokenPipeError):  # the answer, or its absence, tells why
            process.stdin.write(json.dumps(message) + "\n")
            process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            code = process.wait()
            raise VideogenderError(
                f"bench: the process that measures {self._part!r} ended early (exit code {code}); "
                "its own message stands above"
            )
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise getattr(errors, answer["error"])(answer["message"])
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process. May be called twice."""
        process = self._process
        process.kill()  # it holds nothing that would be worth an orderly end
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
