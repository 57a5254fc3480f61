"""Annotated stills, in the format of their source."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from PIL import Image
from PIL.ExifTags import IFD, Base

from videogender.errors import OutputError
from videogender.frames import Frame
from videogender.render.canvas import Canvas

__all__ = ["ImageSink", "can_write", "check_name"]

# What says something of a picture, however its pixels are stored: of a TIFF, the Exif data are all
# that it holds, the layout of its pixels above all.
_DESCRIPTIVE_TAGS = frozenset(
    (
        *(Base.ImageDescription, Base.Make, Base.Model, Base.Software, Base.DateTime, Base.Artist),
        *(Base.Copyright, Base.XResolution, Base.YResolution, Base.ResolutionUnit),
        *(IFD.Exif, IFD.GPSInfo),
    )
)

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


def check_name(path: Path) -> None:
    """Refuse the name of an image file that cannot be written.

    Raises:
        OutputError: the suffix is of no image format that can be written.
    """
    if not can_write(path.suffix):
        raise OutputError(
            f"{path}: no image format of this name can be written; try .png, .jpg or .webp"
        )


class ImageSink:
    """Writes one annotated picture; the source's colour profile and Exif data go with it.

    Args:
        path: where to write; the suffix says the format.
        like: the source, from which colour profile and Exif data are taken; None leaves them out.
        with_exif: False leaves Exif data out, as obscured faces demand: they may hold a small copy
            of the picture, and say where it was taken.

    Raises:
        OutputError: the suffix is of no image format that can be written.
    """

    def __init__(
        self, path: str | Path, like: str | Path | None = None, *, with_exif: bool = True
    ) -> None:
        self._path = Path(path)
        self._like, self._with_exif = like, with_exif
        check_name(self._path)

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
        options: dict[str, Any] = {"format": kind, **_QUALITY.get(kind, {})}
        profile, exif = _carried(self._like)
        if profile is not None:
            options["icc_profile"] = profile
        image = Image.fromarray(pixels)
        if exif is not None and self._with_exif:
            is_deep = IFD.Exif in exif or IFD.GPSInfo in exif
            # Pillow writes directories within Exif data into a TIFF only if it does not compress.
            raw = {"compression": "raw"} if kind == "TIFF" and is_deep else {}
            with suppress(Exception):  # of what it reads it cannot write everything
                image.save(self._path, exif=exif, **{**options, **raw})
                return
        try:
            image.save(self._path, **options)
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


def _carried(like: str | Path | None) -> tuple[bytes | None, Image.Exif | None]:
    """Read the colour profile and the Exif data that still hold for an upright RGB copy."""
    profile, exif = None, None
    # What Pillow raises for broken metadata is of many kinds, and the pictures are worth more.
    with suppress(Exception):
        if like is not None:
            with Image.open(like) as image:
                profile = _rgb_profile(image)
                exif = _descriptive_exif(image)
    return profile, exif


def _rgb_profile(image: Image.Image) -> bytes | None:
    profile = image.info.get("icc_profile")
    # Bytes 16 to 19 of a profile name its colour space (ICC.1:2022, table 17).
    return profile if isinstance(profile, bytes) and profile[16:20] == b"RGB " else None


def _descriptive_exif(image: Image.Image) -> Image.Exif | None:
    exif, kept = image.getexif(), Image.Exif()
    exif.bigtiff = False  # the copy is none
    for tag in set(exif) - _DESCRIPTIVE_TAGS:
        del exif[tag]
    kept.load(exif.tobytes())  # for the file is closed soon
    return kept if exif else None
