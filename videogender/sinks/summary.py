"""Summaries of all inputs as one JSON document."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from videogender import __version__
from videogender.config import Settings
from videogender.reports.summary import Total
from videogender.sinks.rows import Target, TextSink

__all__ = ["SummarySink"]


class SummarySink(TextSink):
    """Writes `{"videogender": version, "inputs": [...], "total": {...}, "settings": {...}}`.

    The summaries and their total are those of `videogender.reports.summary`; each is written when
    its input is done, so that memory does not grow with their number.
    """

    def __init__(
        self, target: Target, *, settings: Settings, name: str | Path | None = None
    ) -> None:
        super().__init__(target, name=name)
        self._settings = settings
        self._count = 0
        self._total = self._marked = Total()

    def add(self, summary: Mapping[str, Any]) -> None:
        """Write the summary of one input."""
        start = f'{{"videogender":"{__version__}","inputs":[' if not self._count else ","
        self.put(f"{start}\n{_json(summary)}")
        self._count += 1
        self._total = self._total.plus(summary)

    def mark(self) -> tuple[int, ...]:
        """Return a place to which `rollback` can return, unless there is a later one.

        It is empty on standard output.
        """
        self._marked = self._total
        place = super().mark()
        return (*place, self._count) if place else ()

    def rollback(self, mark: tuple[int, ...]) -> None:
        """Forget what was written since `mark`, as far as it can be taken back."""
        super().rollback(mark[:1])
        if mark:
            self._count, self._total = mark[1], self._marked

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None and self._count:
                total, settings = _json(asdict(self._total)), _json(asdict(self._settings))
                self.put(f'\n],"total":{total},"settings":{settings}}}\n')
        finally:
            super().__exit__(kind, error, trace)


def _json(value: object) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"))
