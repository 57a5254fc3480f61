"""`videogender cameras`: list the cameras of this machine, and the modes they take."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

__all__ = ["cameras"]


def cameras(
    modes: Annotated[
        bool,
        typer.Option(
            "--modes/--no-modes",
            help="Open each camera for a moment, to see which usual modes it takes.",
            show_default=False,
        ),
    ] = True,
) -> int:
    """List the cameras of this machine, and the modes they take.

    Modes are tried, not read from a list: sizes other than the usual four are not
    found, and the frame rate is the one that the driver promises.
    """
    from videogender.sources.cameras import list_cameras, probe_modes

    found = list_cameras()
    if not found:
        where = " (no /dev/video*)" if sys.platform.startswith("linux") else ""
        print(f"no cameras found{where}")
    for camera in found:
        place = f"  {camera.path}" if camera.path else ""
        print(f"{camera.number}: {camera.name or 'name not known'}{place}")
        if camera.problem:
            print(f"    {camera.problem}")
        elif modes:
            taken = probe_modes(camera.number)
            for mode in taken:
                rate = f"{mode.fps:g} fps" if mode.fps else "rate not known"
                print(f"    {mode.width}x{mode.height} {mode.format}, {rate}")
            if not taken:
                print("    modes not known: it does not open; does another program use it?")
    return 0
