"""`videogender export`: write a network for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["export"]


def export(
    out: Annotated[
        Path, typer.Argument(metavar="FILE.onnx", help="The file to write.", show_default=False)
    ],
    model: Annotated[str, typer.Option(help="lite or vgg16.")] = "lite",
    weights: Annotated[
        str | None, typer.Option(metavar="FILE", help="Weights instead of the model's own.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Replace a file that exists.")
    ] = False,
) -> None:
    """Write a network as ONNX: a picture in, boxes, face scores and presented gender out.

    Batch, height and width stay free. Thresholds, labels and colour order stand in the file's
    metadata. The file is run in onnxruntime and compared with PyTorch before it gets its name.

    Examples:

      videogender export lite.onnx

      videogender export mine.onnx --weights runs/a/best.safetensors
    """
    from videogender import __version__
    from videogender.config import DetectSettings
    from videogender.detector import Detector
    from videogender.errors import ConfigError
    from videogender.exporting import check_onnx, export_onnx
    from videogender.sinks.atomic import pending
    from videogender.weights_store import resolve, sha256_of

    if out.suffix.lower() != ".onnx":
        raise ConfigError(f"{out}: the file should end in .onnx")
    settings = DetectSettings(model=model, weights=weights, device="cpu", precision="fp32")
    detector = Detector.load(settings=settings)
    facts = {
        "weights_sha256": sha256_of(resolve(model, weights)),
        "made_by": f"videogender {__version__}",
    }
    with pending(out, force=force) as place:
        export_onnx(detector, place, facts)
        apart = check_onnx(detector, place)
    most = ", ".join(f"{name} {value:.1g}" for name, value in apart.items())
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB; largest difference to PyTorch: {most}")
