"""`videogender bench live`: parse the flags, measure live runs, print a table and JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from videogender.cli.annotate import other, setting
from videogender.cli.bench_report import reporting
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
    precision: Annotated[str | None, setting("detect.precision", FACES)] = None,
    long_side: Annotated[int | None, setting("detect.long_side", FACES)] = None,
    threads: Annotated[int | None, setting("detect.threads", FACES)] = None,
) -> None:
    """Measure live runs at 640x480 and 1280x720: latency to label and to display, and CPU share.

    A clip, decoded and scaled to the size, takes the part of the camera. Every frame is drawn as
    for a window, but not painted on a screen.

    Example:

      videogender bench live --seconds 30 --json live.json
    """
    settings = with_overrides(
        load_settings(None),
        {
            "detect.model": model,
            "detect.weights": weights,
            "detect.device": device,
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
    from videogender.benchmark.live import live_heading, live_table, measure_live
    from videogender.benchmark.plan import Plan

    with reporting(json, force=force) as (note, show):
        results = measure_live(Plan(clip, settings.detect), seconds, fps, note)
        show(results, live_heading(results), live_table(results))
