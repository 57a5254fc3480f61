"""What annotated videos may be called; known before a decoder is loaded."""

from __future__ import annotations

from pathlib import Path

from videogender.errors import OutputError

__all__ = ["SUFFIXES", "check_name"]

SUFFIXES = (".mp4", ".m4v")


def check_name(path: Path) -> None:
    """Refuse the name of a video file that says another format.

    Raises:
        OutputError: the suffix is not one of MP4.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise OutputError(f"{path}: annotated video is MP4; let the name end in .mp4")
