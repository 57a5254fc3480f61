"""What a training run leaves behind, and whether another may write there.

run.json           settings, data and summary, written at the start
guesses.safetensors   genders that the second stage guessed, see `guesses`
metrics.jsonl      a line now and then: means of the losses, or a validation
last.pt            everything needed to go on
last.safetensors   the averaged weights at that step
best.safetensors   those that validated best
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from videogender.errors import ConfigError, OutputError, TrainingError
from videogender.training.settings import differences

FORMAT = 1
# a run may be made longer or shorter, and looked at more or less often
MAY_CHANGE = ("minutes", "steps", "checkpoint_minutes", "validate_minutes")
LEARNED_FROM = ("scenes", "portraits", "ignore_also", "teach")

__all__ = ["RunFolder"]


class RunFolder:
    """The files of one run.

    Args:
        path: the folder; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record = path / "run.json"
        self.metrics = path / "metrics.jsonl"
        self.guesses = path / "guesses.safetensors"
        self.checkpoint = path / "last.pt"
        self.last = path / "last.safetensors"
        self.best = path / "best.safetensors"

    def begin(self, record: Mapping[str, Any], *, force: bool = False) -> None:
        """Make the folder ready for a new run.

        Args:
            record: what `run.json` shall hold, `settings` and `data` among it; `content` is for
                `check_content`.
            force: a run that the folder holds is deleted.

        Raises:
            OutputError: if the folder holds a run, or cannot be written.
        """
        files = (
            *(self.record, self.metrics, self.guesses),
            *(self.checkpoint, self.last, self.best),
        )
        there = [file for file in files if file.exists()]
        if there and not force:
            raise OutputError(
                f"{self.path}: holds a run already ({there[0].name}); --resume goes on with it, "
                "--force deletes it"
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for file in there:
                file.unlink()
        except OSError as error:
            raise self._cannot_write(error) from error
        self._replace(self.record, json.dumps({"format": FORMAT, **record}, indent=1) + "\n")

    def stored(self) -> dict[str, Any]:
        """Return what `begin` recorded; empty if there is no such file.

        Raises:
            TrainingError: if the file cannot be read.
        """
        try:
            found = json.loads(self.record.read_text(encoding="utf-8"))
            return {**found, "settings": dict(found["settings"]), "data": dict(found["data"])}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TrainingError(
                f"{self.record}: cannot be read ({error}); begin anew with --force"
            ) from error

    def check_same(self, record: Mapping[str, Any]) -> list[str]:
        """Refuse to go on with a run under other settings or from other data.

        Returns:
            What differs and may: the length, and how often it is saved and validated.

        Raises:
            TrainingError: if there is no checkpoint to go on from.
            ConfigError: if settings or training data differ; the message says which.
        """
        if not self.checkpoint.is_file():
            raise TrainingError(f"{self.path}: no checkpoint to resume from; leave --resume out")
        stored = self.stored()
        if not stored:
            return []
        fixed = {k: v for k, v in stored["settings"].items() if k not in MAY_CHANGE}
        free = {k: v for k, v in stored["settings"].items() if k in MAY_CHANGE}
        unlike = differences(fixed, record["settings"])
        data = {key: stored["data"].get(key, []) for key in LEARNED_FROM}
        unlike += differences(data, record["data"])
        if unlike:
            raise ConfigError(
                f"{self.path} was begun with {'; '.join(unlike)}: leave that out to resume, or "
                f"begin a new run from its weights with --init {self.last}"
            )
        return differences(record["settings"], free)

    def check_content(self, content: str) -> None:
        """Refuse to go on where the same data files hold something else than at the start.

        Args:
            content: `digest_of` the training data. A run that recorded none goes on.

        Raises:
            ConfigError: if it is another.
        """
        if self.stored().get("content", content) != content:
            raise ConfigError(
                f"{self.path} was begun with other pictures, boxes or labels in the same files: "
                f"bring them back to resume, or begin a new run from its weights with --init "
                f"{self.last}"
            )

    def amend(self, settings: Mapping[str, Any]) -> None:
        """Record the settings under which a run goes on."""
        if stored := self.stored():
            stored["settings"] = dict(settings)
            self._replace(self.record, json.dumps(stored, indent=1) + "\n")

    def log(self, row: Mapping[str, Any]) -> None:
        """Append a line to the metrics.

        Raises:
            OutputError: if it cannot be written.
        """
        try:
            with self.metrics.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(row, allow_nan=False) + "\n")
        except OSError as error:
            raise self._cannot_write(error) from error

    def rewind(self, step: int) -> None:
        """Drop the metrics of steps past a checkpoint, which will be taken again."""
        if not self.metrics.exists():
            return
        kept = []
        for line in self.metrics.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except (ValueError, KeyError, TypeError):  # the end of a line lost with the process
                continue
        self._replace(self.metrics, "".join(kept))

    def _replace(self, path: Path, text: str) -> None:
        self.write(path, text.encode())

    def write(self, path: Path, data: bytes) -> None:
        """Write one of the files, whole or not at all.

        Raises:
            OutputError: if it cannot be written.
        """
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            temporary.write_bytes(data)
            os.replace(temporary, path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise self._cannot_write(error) from error

    def _cannot_write(self, error: OSError) -> OutputError:
        return OutputError(f"{self.path}: cannot be written: {error.strerror or error}")
