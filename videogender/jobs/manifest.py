"""What runs have finished, of which content and with which settings and weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, Self

from videogender.config import Settings
from videogender.progress import Summary
from videogender.targets import Job
from videogender.weights_store import resolve, sha256_of

__all__ = ["NAME", "Manifest", "Verdict", "looks_of"]

NAME = ".videogender.manifest.jsonl"
# Settings that say how fast a result comes, not what it is.
_NO_MATTER = ("threads", "batch_size")

# Of a copy: made of this content in this way; made otherwise; nothing is known.
Verdict = Literal["current", "other", "unknown"]


class Manifest:
    """Notes what is finished, in a file beside the annotated copies.

    A line a copy, the last one counts; it is written when the copy has its name. What somebody else
    has changed since is not believed.

    Args:
        way: stands for settings and weights; see `of`.
    """

    def __init__(self, way: str) -> None:
        self.way = way
        self._files: dict[Path, dict[str, Mapping[str, Any]]] = {}  # by folder and name

    @classmethod
    def of(cls, settings: Settings, span_seconds: tuple[float | None, float | None]) -> Self:
        """Begin for a run with these settings, and the weights that they name.

        Raises:
            ModelError: the weights are not there.
        """
        values = asdict(settings)
        detect = values["detect"]
        files = [resolve(detect["model"], detect["weights"])]
        if detect["refine"] is not None:
            files.append(Path(detect["refine"]))
        for name in (*_NO_MATTER, "weights", "refine"):
            del detect[name]
        del values["live"], values["report"]
        weights = [sha256_of(file) if file.is_file() else str(file) for file in files]
        text = json.dumps([values, span_seconds, weights], sort_keys=True, default=str)
        return cls(hashlib.sha256(text.encode()).hexdigest())

    def verdict(self, source: Path, target: Path) -> Verdict:
        """Tell whether an existing copy is what this run would make.

        Args:
            source: the input.
            target: its copy.
        """
        line = self._lines(target.parent).get(target.name)
        try:
            if line is None or line["copy"] != looks_of(target):
                return "unknown"
            if line["way"] != self.way:
                return "other"
            looks = looks_of(source)
            if line["source"] == looks:
                return "current"
            if line["content"] != sha256_of(source):
                return "other"
        except (OSError, KeyError):
            return "unknown"
        with suppress(OSError):  # so that the next run need not read all of it again
            self._add(target.parent, {**line, "source": looks})
        return "current"

    def take(self, job: Job, summary: Summary) -> None:
        """Note what became of an input, if its copy is finished."""
        target = job.target
        if target is None or summary.error or summary.interrupted or summary.skipped:
            return
        # Without a line the copy counts by its date: that the disk is full is no reason to fail.
        with suppress(OSError):
            line = {
                "name": target.name,
                "copy": looks_of(target),
                "way": self.way,
                "source": looks_of(job.source),
                "content": sha256_of(job.source),
            }
            self._add(target.parent, line)

    def _add(self, folder: Path, line: Mapping[str, Any]) -> None:
        with (folder / NAME).open("a", encoding="utf-8") as file:
            # what was cut short before must not take this one with it
            file.write(f"\n{json.dumps(line)}\n")

    def _lines(self, folder: Path) -> dict[str, Mapping[str, Any]]:
        if folder not in self._files:
            self._files[folder] = lines = {}
            with suppress(OSError, UnicodeDecodeError):
                for text in (folder / NAME).read_text(encoding="utf-8").splitlines():
                    with suppress(ValueError, TypeError, KeyError):  # cut short when it was killed
                        line = json.loads(text)
                        lines[line["name"]] = line
        return self._files[folder]


def looks_of(file: Path) -> list[int]:
    """Return size and time of a file, which change when it does."""
    status = file.stat()
    return [status.st_size, status.st_mtime_ns]
