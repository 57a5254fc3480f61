"""`videogender bench live`: parse the flags, measure live runs, print a table and JSON."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from videogender.cli.annotate import other, setting
from videogender.cli.bench_report import reporting
from videogender.cli.times import parse_time
from videogender.config import load_settings, with_overrides
from videogender.errors import ConfigError

__all__ = ["live"]

WHAT, FACES = "What is measured", "Finding faces"
_LEAST_SECONDS = 2.0


def live(
    clip: Annotated[
        Path | None,
        typer.Argument(
            metavar="[CLIP]",
            help="A video that plays the camera; by default samples/clip.mp4 if it is here.",
            show_default=False,
        ),
    ] = None,
    seconds: Annotated[
        float,
        other("--seconds", panel=WHAT, metavar="N", help="How long each run takes (default 20)."),
    ] = 20.0,
    fps: Annotated[
        float,
        other("--fps", panel=WHAT, metavar="N", help="Frames a second of the camera (default 30)."),
    ] = 30.0,
    size: Annotated[
        list[str] | None,
        other(
            "--size",
            panel=WHAT,
            metavar="WxH",
            help="Size of the camera (default 640x480 and 1280x720). Repeatable.",
        ),
    ] = None,
    rows: Annotated[
        str | None,
        other(
            "--rows",
            panel=WHAT,
            metavar="TIME",
            help="Also give memory, latency and drops of each stretch this long, such as 1m.",
        ),
    ] = None,
    json: Annotated[
        str | None,
        other(
            "--json",
            panel=WHAT,
            metavar="FILE|-",
            help="Also write the results as JSON; - is standard output, and the table goes to "
            "standard error.",
        ),
    ] = None,
    force: Annotated[
        bool, other("--force", "-f", panel=WHAT, help="Replace a JSON file that exists.")
    ] = False,
    model: Annotated[str | None, setting("detect.model", FACES)] = None,
    weights: Annotated[str | None, setting("detect.weights", FACES)] = None,
    device: Annotated[str | None, setting("detect.device", FACES)] = None,
    backend: Annotated[str | None, setting("detect.backend", FACES)] = None,
    precision: Annotated[str | None, setting("detect.precision", FACES)] = None,
    long_side: Annotated[int | None, setting("detect.long_side", FACES)] = None,
    threads: Annotated[int | None, setting("detect.threads", FACES)] = None,
) -> None:
    """Measure live runs at 640x480 and 1280x720: latency to label and to display, and CPU share.

    A clip, decoded and scaled to the size, takes the part of the camera. Every
    frame is drawn as for a window, but not painted on a screen.

    Examples:

      videogender bench live --seconds 30 --json live.json

      videogender bench live --seconds 600 --size 1280x720 --rows 1m
    """
    settings = with_overrides(
        load_settings(None),
        {
            "detect.model": model,
            "detect.weights": weights,
            "detect.device": device,
            "detect.backend": backend,
            "detect.precision": precision,
            "detect.long_side": long_side,
            "detect.threads": threads,
        },
        as_flags=True,
    )
    if not _LEAST_SECONDS <= seconds < float("inf"):
        raise ConfigError(f"--seconds should be {_LEAST_SECONDS:g} or more, got {seconds:g}")
    if not 1 <= fps <= 1000:
        raise ConfigError(f"--fps should be 1 to 1000, got {fps:g}")
    sizes_wh = [_size_wh(text) for text in size or ()]
    rows_seconds = parse_time(rows, "--rows") or 0.0
    from videogender.benchmark.live import SIZES_WH, live_heading, live_table, measure_live
    from videogender.benchmark.plan import Plan

    with reporting(json, force=force) as (note, show):
        results = measure_live(
            Plan(clip, settings.detect),
            seconds,
            fps,
            note,
            sizes_wh=sizes_wh or SIZES_WH,
            rows_seconds=rows_seconds,
        )
        show(results, live_heading(results), live_table(results))


def _size_wh(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9]\d{1,3})x([1-9]\d{1,3})", text)
    if found is None:
        raise ConfigError(f"--size should be a size such as 1280x720, got {text!r}")
    return int(found[1]), int(found[2])
