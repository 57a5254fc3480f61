"""What a fine-tuning run leaves behind.

run.json           settings, data and weights it began from, written at the start
metrics.jsonl      a line an epoch; metrics.csv has the same as a table
last.pt            everything needed to go on
best.safetensors   the best weights, ready for use
results.json       figures, mistakes, suspected labels, written at the end
report.html        the same as a page
tensorboard/       event files, if asked for
"""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from videogender.errors import ConfigError, OutputError, TrainingError
from videogender.training.keyed import differences
from videogender.training.run_folder import RunFolder

# a run may be made longer or shorter, and its work be done otherwise
MAY_CHANGE = ("epochs", "patience", "workers", "features.memory_mb", "features.keep", "tensorboard")

__all__ = ["FinetuneFolder"]


class FinetuneFolder(RunFolder):
    """The files of one run.

    Args:
        path: the folder; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.table = path / "metrics.csv"
        self.results = path / "results.json"
        self.report = path / "report.html"
        self.board = path / "tensorboard"
        self.joint = path / "joint"

    def begin(self, record: Mapping[str, Any], *, force: bool = False) -> None:
        """Make the folder ready for a new run; see `RunFolder.begin`."""
        rest = (self.table, self.results, self.report)
        if there := [file for file in rest if file.exists()]:
            if not force:
                raise OutputError(
                    f"{self.path}: holds a run already ({there[0].name}); --resume goes on with "
                    "it, --force deletes it"
                )
            for file in there:
                file.unlink()
        super().begin(record, force=force)
        for folder in (self.board, self.joint):
            shutil.rmtree(folder, ignore_errors=True)

    def check_same(self, record: Mapping[str, Any]) -> list[str]:
        """Refuse to go on with a run under other settings, from other data or weights.

        Returns:
            What differs and may.

        Raises:
            TrainingError: if there is no run to go on with.
            ConfigError: if something differs that must not; the message says what.
        """
        stored = self.stored()
        if not stored:
            raise TrainingError(f"{self.path}: holds no run to resume; leave --resume out")
        fixed = {k: v for k, v in stored["settings"].items() if k not in MAY_CHANGE}
        free = {k: v for k, v in stored["settings"].items() if k in MAY_CHANGE}
        unlike = differences(fixed, record["settings"])
        if stored.get("content") != record.get("content"):
            unlike.append("other pictures, boxes or labels")
        if stored.get("weights") != record.get("weights"):
            unlike.append("other weights")
        if unlike:
            raise ConfigError(
                f"{self.path} was begun with {'; '.join(unlike)}: leave that out to resume, or "
                "begin a new run"
            )
        return differences(record["settings"], free)

    def write_metrics(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Write the figures of all epochs so far.

        Raises:
            OutputError: if they cannot be written.
        """
        rows = [{k: _short(v) for k, v in row.items()} for row in history]
        self._replace(self.metrics, "".join(json.dumps(row) + "\n" for row in rows))
        text = io.StringIO()
        names = list(dict.fromkeys(name for row in rows for name in row))
        table = csv.DictWriter(text, names, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        self._replace(self.table, text.getvalue())

    def write_results(self, text: str) -> None:
        """Write `results.json`.

        Raises:
            OutputError: if it cannot be written.
        """
        self._replace(self.results, text)


def _short(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value
