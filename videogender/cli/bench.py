"""`videogender bench`: parse the flags, measure, print a table and JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from videogender.cli.annotate import other, setting
from videogender.cli.bench_live import live
from videogender.cli.bench_report import reporting
from videogender.config import load_settings, with_overrides
from videogender.errors import ConfigError

__all__ = ["app", "bench"]

WHAT, FACES = "What is measured", "Finding faces"


def bench(
    clip: Annotated[
        Path | None,
        typer.Argument(
            metavar="[CLIP]",
            help="A video; by default samples/clip.mp4 if it is here, else a synthetic clip.",
            show_default=False,
        ),
    ] = None,
    seconds: Annotated[
        float,
        other(
            "--seconds",
            panel=WHAT,
            metavar="N",
            help="Use only the first N seconds of the clip; 0 uses all (default 20).",
        ),
    ] = 20.0,
    rounds: Annotated[
        int | None,
        other(
            "--rounds",
            panel=WHAT,
            metavar="N",
            help="Measure this many times (default 5; with --peers 1).",
        ),
    ] = None,
    peers: Annotated[
        bool,
        other(
            "--peers",
            panel=WHAT,
            help="Measure what others would use instead, beside annotate: deface, and face "
            "detectors run frame by frame as tutorials do it. Takes minutes.",
        ),
    ] = False,
    peer: Annotated[
        Path | None,
        other(
            "--peer",
            panel=WHAT,
            metavar="FILE.onnx",
            help="Compare the forward pass with another network's, under onnxruntime; with "
            "--peers, run a YuNet (or SCRFD, CenterFace) over the clip.",
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
    batch_size: Annotated[int | None, setting("detect.batch_size", FACES)] = None,
    threads: Annotated[int | None, setting("detect.threads", FACES)] = None,
) -> None:
    """Measure the network, the detector and the whole way of a clip on this machine.

    Close other programs first: everything that runs beside it shows in the
    figures. What is compared is measured in turns, each part in its own process.

    Examples:

      videogender bench

      videogender bench talk.mp4 --seconds 60 --json bench.json

      videogender bench --peer face_detection_yunet.onnx

      videogender bench talk.mp4 --peers --seconds 10

      videogender bench live    measures a live run (see bench live --help)
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
            "detect.batch_size": batch_size,
            "detect.threads": threads,
        },
        as_flags=True,
    )
    if not 0 <= seconds < float("inf"):
        raise ConfigError(f"--seconds should be 0 or more, got {seconds:g}")
    if rounds is None:
        rounds = 1 if peers else 5
    if rounds < 1:
        raise ConfigError(f"--rounds should be 1 or more, got {rounds}")
    from videogender.benchmark.plan import Plan, measure
    from videogender.benchmark.table import heading, results_table

    plan = Plan(clip, settings.detect, seconds, rounds, peer)
    if peers:
        from videogender.benchmark.rivals import measure_rivals
        from videogender.benchmark.table import rivals_notes, rivals_table

        with reporting(json, force=force) as (note, show):
            rivals = measure_rivals(plan, note)
            show(rivals.as_dict(), heading(rivals), rivals_table(rivals), rivals_notes(rivals))
        return
    with reporting(json, force=force) as (note, show):
        results = measure(plan, note)
        show(results.as_dict(), heading(results), results_table(results))


class _WithLive(TyperGroup):
    """`bench` with its clip, unless the next word is `live`."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any
    ) -> Any:
        if args[:1] == ["live"]:
            return self.commands["live"].make_context(f"{info_name} live", args[1:], parent)
        return self.commands["clip"].make_context(info_name, args, parent)


app = typer.Typer(cls=_WithLive)
app.command("clip")(bench)
app.command("live")(live)
