"""Annotated stills, in the format of their source."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from PIL import Image

from videogender.errors import OutputError
from videogender.frames import Frame
from videogender.render.canvas import Canvas

__all__ = ["ImageSink", "can_write"]

ORIENTATION_TAG = 0x0112  # Exif 2.3, table 4

# Little is lost by compressing once more at these, and files stay of the source's order of size.
_QUALITY: dict[str, dict[str, object]] = {
    "JPEG": {"quality": 93, "subsampling": "4:4:4", "optimize": True},
    "WEBP": {"quality": 93, "method": 4},
    "AVIF": {"quality": 85},
    "TIFF": {"compression": "tiff_adobe_deflate"},
}


@lru_cache(maxsize=1)
def _formats() -> dict[str, str]:
    """Return Pillow's format by suffix, of those that it can write."""
    return {
        suffix: name for suffix, name in Image.registered_extensions().items() if name in Image.SAVE
    }


def can_write(suffix: str) -> bool:
    """Tell whether an image file of this suffix (`.jpg`) can be written."""
    return suffix.lower() in _formats()


class ImageSink:
    """Writes one annotated picture; the source's colour profile and Exif data go with it.

    Args:
        path: where to write; the suffix says the format.
        like: the source, from which colour profile and Exif data are taken; None leaves them out,
            as obscured faces demand: Exif data may hold a small copy of the picture.

    Raises:
        OutputError: the suffix is of no image format that can be written.
    """

    def __init__(self, path: str | Path, like: str | Path | None = None) -> None:
        self._path = Path(path)
        self._like = like
        if not can_write(self._path.suffix):
            raise OutputError(
                f"{path}: no image format of this name can be written; try .png, .jpg or .webp"
            )

    def write(self, frame: Frame, draw: Callable[[Canvas], None] | None) -> None:
        """Draw on a copy of the frame and save it.

        Raises:
            OutputError: the disk is full, or the file cannot be written for another reason.
        """
        pixels = frame.picture.to_rgb()  # [H, W, 3]
        if draw is not None:
            pixels = np.array(pixels)
            draw(Canvas.from_rgb(pixels))
        kind = _formats()[self._path.suffix.lower()]
        options: dict[str, Any] = {**_QUALITY.get(kind, {}), **_carried(self._like)}
        try:
            Image.fromarray(pixels).save(self._path, format=kind, **options)
        except (OSError, ValueError) as error:
            raise OutputError(f"{self._path}: cannot write this image: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing is held open between pictures."""


def _carried(like: str | Path | None) -> dict[str, object]:
    """Read the colour profile and the Exif data that still hold for an upright RGB copy."""
    if like is None:
        return {}
    carried: dict[str, object] = {}
    try:
        with Image.open(like) as image:
            profile = image.info.get("icc_profile")
            # Bytes 16 to 19 of a profile name its colour space (ICC.1:2022, table 17).
            if isinstance(profile, bytes) and profile[16:20] == b"RGB ":
                carried["icc_profile"] = profile
            exif = image.getexif()
            exif.pop(ORIENTATION_TAG, None)  # the pixels are upright now
            if exif:
                carried["exif"] = exif.tobytes()
    except (OSError, ValueError, SyntaxError):  # what Pillow raises for broken metadata
        pass
    return carried
