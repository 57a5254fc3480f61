"""CSV: the same data as JSON Lines, flat, a row a face."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from videogender.frames import Faces, Frame
from videogender.sinks.jsonl import frame_record
from videogender.sinks.rows import RowSink, Target

if TYPE_CHECKING:
    from videogender.zones.figures import Whereabouts

__all__ = ["COLUMNS", "CsvSink"]

COLUMNS = (
    *("source", "frame", "time_s", "width", "height"),
    *("x1", "y1", "x2", "y2", "score", "female", "label", "track", "predicted"),
)
ATTRIBUTE_COLUMNS = ("attribute", "attribute_probability")


class CsvSink(RowSink):
    """Writes a header and then a row for each face; a frame without faces leaves no row.

    Args:
        target: the file, or `-`.
        unsure_below: least probability of the winning label, 0.5 to 1.
        name: what messages call the target.
        attributes: further columns hold the class of a fine-tuned head and its probability.
        zones: a further column names the zones that a face is in, divided by `;`.
    """

    def __init__(
        self,
        target: Target,
        *,
        unsure_below: float,
        name: str | Path | None = None,
        attributes: bool = False,
        zones: bool = False,
    ) -> None:
        super().__init__(target, unsure_below=unsure_below, name=name)
        self._attributes, self._zones = attributes, zones
        columns = [*COLUMNS, *(ATTRIBUTE_COLUMNS if attributes else ())]
        self.put(_lines([[*columns, "zones"] if zones else columns]))

    def write(self, frame: Frame, faces: Faces, where: Whereabouts | None = None) -> None:
        """Write a row for each face; what is unknown (no clock, no gender) is left empty.

        `predicted` is 0 or 1.
        """
        if not len(faces):
            return
        record = frame_record(frame, faces, self.unsure_below, where)
        start = [record[key] for key in ("source", "frame", "time_s", "width", "height")]
        rows = []
        for face in record["faces"]:
            row = [*start, *face["box"], face["score"], face["female"], face["label"]]
            row += [face["track"], int(face["predicted"])]
            if self._attributes:
                row += [face.get("attribute"), face.get("attribute_probability")]
            if self._zones:
                row.append(";".join(face.get("zones", [])))
            rows.append(row)
        self.put(_lines(rows))


def _lines(rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
