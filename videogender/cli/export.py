"""`videogender export`: write a network for other runtimes."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from videogender.errors import ConfigError, OutputError

STAGES = ("first", "second")
PRECISIONS = ("fp32", "int8")
ENDINGS = {"onnx": ".onnx", "openvino": ".xml"}

__all__ = ["export"]


def export(
    out: Annotated[
        Path,
        typer.Argument(metavar="FILE.onnx|FILE.xml", help="The file to write.", show_default=False),
    ],
    format: Annotated[
        str | None,
        typer.Option(
            metavar="onnx|openvino",
            help="What to write; without it the file's ending decides.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[str, typer.Option(help="lite or vgg16.")] = "lite",
    weights: Annotated[
        str | None, typer.Option(metavar="FILE", help="Weights instead of the model's own.")
    ] = None,
    stage: Annotated[
        str,
        typer.Option(
            metavar="first|second",
            help="The network that finds faces, or the one that sees each close up.",
        ),
    ] = "first",
    precision: Annotated[
        str,
        typer.Option(
            metavar="fp32|int8",
            help="Number format; int8 (ONNX alone) takes weights that know their ranges, as "
            "those of `lite` do.",
        ),
    ] = "fp32",
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Replace a file that exists.")
    ] = False,
) -> None:
    """Write a network for other runtimes: a picture in, boxes, face scores and gender out.

    With `--stage second` it is what sees each of these boxes close up; the
    description in the file says how it is cut out and how both answers add up.
    For that, gender is given as log-odds where there is such a stage.

    Batch, height and width stay free. Thresholds, labels, mean, temperature and
    colour order stand in the file's metadata (OpenVINO's `model_info`). The file
    is run in onnxruntime or OpenVINO and compared with PyTorch before it gets its
    name. OpenVINO has its weights in a second file, .bin.

    Examples:

      videogender export lite.onnx

      videogender export close-up.onnx --stage second

      videogender export lite-int8.onnx --precision int8

      videogender export mine.xml --weights runs/a/best.safetensors
    """
    kind = _format(out, format)
    if stage not in STAGES:
        raise ConfigError(f"--stage should be {' or '.join(STAGES)}, got {stage!r}")
    if precision not in PRECISIONS:
        raise ConfigError(f"--precision should be {' or '.join(PRECISIONS)}, got {precision!r}")
    if precision == "int8" and kind != "onnx":
        raise ConfigError("--precision int8 is for ONNX files; OpenVINO reads these as well")
    from videogender import __version__
    from videogender.config import DetectSettings
    from videogender.detector import Detector
    from videogender.exporting import (
        check_onnx,
        check_openvino,
        export_onnx,
        export_openvino,
        graph_of,
    )
    from videogender.sinks.atomic import pending
    from videogender.weights_store import resolve, sha256_of

    settings = DetectSettings(model=model, weights=weights, device="cpu", precision="fp32")
    detector = Detector.load(settings=settings)
    graph = graph_of(detector, stage, rounds=precision == "int8")
    facts = {
        "weights_sha256": sha256_of(resolve(model, weights)),
        "precision": precision,
        "made_by": f"videogender {__version__}",
    }
    with ExitStack() as stack:
        if kind == "onnx":
            place = stack.enter_context(pending(out, force=force))
            export_onnx(detector, graph, place, facts)
            apart = check_onnx(graph, place)
        else:
            # the one that names the other gets its name last
            place = stack.enter_context(pending(out, force=force))
            weights_place = stack.enter_context(pending(out.with_suffix(".bin"), force=force))
            with tempfile.TemporaryDirectory(prefix="videogender-export-") as folder:
                made = Path(folder) / "model.xml"
                export_openvino(detector, graph, made, facts)
                apart = check_openvino(graph, made)
                _copy(made, place)
                _copy(made.with_suffix(".bin"), weights_place)
    size = out.stat().st_size
    size += out.with_suffix(".bin").stat().st_size if kind == "openvino" else 0
    most = ", ".join(f"{name} {value:.1g}" for name, value in apart.items())
    print(f"{out}: {size / 1e6:.1f} MB; largest difference to PyTorch: {most}")


def _format(out: Path, asked: str | None) -> str:
    """Return `onnx` or `openvino`: what was asked for, or what the file's ending says."""
    if asked is not None and asked not in ENDINGS:
        raise ConfigError(f"--format should be {' or '.join(ENDINGS)}, got {asked!r}")
    for kind, ending in ENDINGS.items():
        if out.suffix.lower() == ending and asked in (None, kind):
            return kind
    endings = [ENDINGS[asked]] if asked else list(ENDINGS.values())
    raise ConfigError(f"{out}: the file should end in {' or '.join(endings)}")


def _copy(source: Path, place: Path) -> None:
    try:
        shutil.copyfile(source, place)
    except OSError as error:
        raise OutputError(f"{place}: cannot be written: {error.strerror or error}") from error
