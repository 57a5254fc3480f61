"""`videogender config show`: print the settings that are in force."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from videogender.config import load_settings, to_yaml

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Show the settings that are in force."""


@app.command()
def show(
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", metavar="FILE", help="Show what this file and the defaults make together."
        ),
    ] = None,
) -> None:
    """Print every setting as YAML, which is itself a configuration file.

    Examples:

      videogender config show

      videogender config show > mine.yaml

      videogender config show --config mine.yaml
    """
    print(to_yaml(load_settings(config)), end="")
