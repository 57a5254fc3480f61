"""CSV: the same data as JSON Lines, flat, a row a face."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from videogender.frames import Faces, Frame
from videogender.sinks.jsonl import frame_record
from videogender.sinks.rows import RowSink

__all__ = ["COLUMNS", "CsvSink"]

COLUMNS = (
    *("source", "frame", "time_s", "width", "height"),
    *("x1", "y1", "x2", "y2", "score", "female", "label", "track", "predicted"),
)


class CsvSink(RowSink):
    """Writes a header and then a row for each face; a frame without faces leaves no row."""

    def __init__(
        self, target: str | Path, *, unsure_below: float, name: str | Path | None = None
    ) -> None:
        super().__init__(target, unsure_below=unsure_below, name=name)
        self.put(_lines([COLUMNS]))

    def write(self, frame: Frame, faces: Faces) -> None:
        """Write a row for each face; what is unknown (no clock, no gender) is left empty.

        `predicted` is 0 or 1.
        """
        if not len(faces):
            return
        record = frame_record(frame, faces, self.unsure_below)
        start = [record[key] for key in ("source", "frame", "time_s", "width", "height")]
        self.put(
            _lines(
                [
                    *(*start, *face["box"], face["score"], face["female"], face["label"]),
                    *(face["track"], int(face["predicted"])),
                ]
                for face in record["faces"]
            )
        )


def _lines(rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
