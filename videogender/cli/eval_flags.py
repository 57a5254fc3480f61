"""Flags that the commands of `videogender eval` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from videogender.cli.annotate import other, setting

__all__ = [
    "FACES",
    "RESULTS",
    "WHAT",
    "BatchSize",
    "Data",
    "Device",
    "FaceThreshold",
    "Force",
    "Json",
    "Limit",
    "LongSide",
    "Model",
    "Precision",
    "Quiet",
    "Refine",
    "Report",
    "Threads",
    "UnsureBelow",
    "Weights",
]

WHAT, FACES, RESULTS = "What is measured", "Finding faces", "Results"

Data = Annotated[
    Path,
    typer.Argument(
        metavar="DATA",
        help="JSON Lines or a folder with faces.jsonl, COCO JSON, or a WIDER FACE folder.",
        show_default=False,
    ),
]
Limit = Annotated[
    int,
    other(
        "--limit",
        panel=WHAT,
        metavar="N",
        help="Only N pictures, spread over the set; 0 takes all.",
    ),
]
Json = Annotated[
    str | None,
    other(
        "--json",
        panel=RESULTS,
        metavar="FILE|-",
        help="Also write the results as JSON; - is standard output, and tables go to standard "
        "error.",
    ),
]
Report = Annotated[
    Path | None,
    other("--report", panel=RESULTS, metavar="DIR", help="Write plots (PNG) and report.json here."),
]
Force = Annotated[bool, other("--force", "-f", panel=RESULTS, help="Replace results that exist.")]
Quiet = Annotated[bool, other("--quiet", "-q", panel=RESULTS, help="Show no progress, no notes.")]
Model = Annotated[str | None, setting("detect.model", FACES)]
Weights = Annotated[str | None, setting("detect.weights", FACES)]
Device = Annotated[str | None, setting("detect.device", FACES)]
Precision = Annotated[str | None, setting("detect.precision", FACES)]
LongSide = Annotated[int | None, setting("detect.long_side", FACES)]
BatchSize = Annotated[int | None, setting("detect.batch_size", FACES)]
Threads = Annotated[int | None, setting("detect.threads", FACES)]
FaceThreshold = Annotated[float | None, setting("detect.face_threshold", FACES)]
Refine = Annotated[str | None, setting("detect.refine", FACES)]
UnsureBelow = Annotated[float | None, setting("label.unsure_below", WHAT)]
