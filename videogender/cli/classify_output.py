"""What `videogender classify` writes: lines of a table, JSON Lines, CSV."""

from __future__ import annotations

import csv
import io
import json
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from videogender.classify import Answer
from videogender.config import LabelSettings
from videogender.frames import Frame
from videogender.sinks.atomic import pending
from videogender.sinks.rows import Target, TextSink, rounded

__all__ = ["AnswerFile", "Kind", "answer_record", "table_line"]

Kind = Literal["json", "csv"]
NO_FACE = "no face"


def answer_record(frame: Frame, answer: Answer | None, label: LabelSettings) -> dict[str, Any]:
    """Describe an image and its answer in plain values, ready for `json.dumps`.

    `box` is the face that was asked about, in pixels, null for a whole picture; `label`,
    `probability` (of the likeliest class) and `probabilities` are null where no face was found.
    """
    start = {"source": frame.source, "width": frame.width, "height": frame.height}
    if answer is None:
        return {**start, "box": None, "label": None, "probability": None, "probabilities": None}
    box = None if answer.box is None else [rounded(edge, 1) for edge in answer.box.tolist()]
    return {
        **start,
        "box": box,
        "label": answer.label(label.unsure_below),
        "probability": rounded(answer.top(1)[0][1], 4),
        "probabilities": {
            name: rounded(p, 4)
            for name, p in zip(answer.labels, answer.probabilities.tolist(), strict=True)
        },
    }


def table_line(
    frame: Frame, answer: Answer | None, label: LabelSettings, top: int, width: int
) -> str:
    """Return one line for people: the image, its label, and the likeliest classes.

    Args:
        frame: the image.
        answer: what it was taken for.
        label: the threshold of `unsure`.
        top: how many classes are named.
        width: letters that the image's name takes at least.
    """
    name = f"{frame.source:<{width}}"
    if answer is None:
        return f"{name}  {NO_FACE}"
    names = [*answer.labels, "unsure"]
    column = min(24, max(map(len, names)))
    likeliest = "  ".join(f"{one} {p:.2f}" for one, p in answer.top(top))
    return f"{name}  {answer.label(label.unsure_below):<{column}}  {likeliest}"


class AnswerFile:
    """A file of answers, complete or absent; or standard output.

    Args:
        target: the file, or standard output.
        kind: of data.
        labels: the classes; CSV has a column for each.
        label: the threshold of `unsure`.
        force: replace an existing file.
    """

    def __init__(
        self,
        target: Target,
        kind: Kind,
        labels: tuple[str, ...],
        label: LabelSettings,
        *,
        force: bool = False,
    ) -> None:
        self._target, self._kind, self._labels = target, kind, labels
        self._label, self._force = label, force
        self._stack = ExitStack()
        self._rows: TextSink

    def __enter__(self) -> Self:
        with self._stack:
            place = self._target
            if isinstance(place, Path):
                place = self._stack.enter_context(pending(place, force=self._force))
            self._rows = self._stack.enter_context(TextSink(place, name=str(self._target)))
            if self._kind == "csv":
                start = ["source", "width", "height", "x1", "y1", "x2", "y2", "label"]
                self._rows.put(_csv([*start, "probability", *(f"p({n})" for n in self._labels)]))
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def write(self, frame: Frame, answer: Answer | None) -> None:
        """Write one image.

        Raises:
            OutputError: the disk is full, or the file cannot be written for another reason.
            BrokenPipeError: nobody reads standard output any more, and it is all there is.
        """
        record = answer_record(frame, answer, self._label)
        if self._kind == "json":
            self._rows.put(json.dumps(record, allow_nan=False, separators=(",", ":")) + "\n")
            return
        probabilities = record["probabilities"] or dict.fromkeys(self._labels)
        self._rows.put(
            _csv(
                [
                    *(record[key] for key in ("source", "width", "height")),
                    *(record["box"] or [None] * 4),
                    *(record["label"], record["probability"], *probabilities.values()),
                ]
            )
        )


def _csv(row: list[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(row)
    return text.getvalue()
