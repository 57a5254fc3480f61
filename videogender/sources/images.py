"""ImageSource: a still image as a source of one frame."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features
from PIL.ExifTags import Base

from videogender.errors import SourceError
from videogender.frames import Frame, RgbPicture

__all__ = ["ImageSource", "is_image", "reads_avif"]

_FORMATS = ("BMP", "JPEG", "PNG", "TIFF", "WEBP")
# Further pictures of an MPO, a JPEG as telephones make them, are no pages: depth, another exposure.
_NO_PAGES = "MPO"
# How pictures become upright, by their orientation in the Exif data (Exif 2.32, 4.6.4 A).
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@cache
def reads_avif() -> bool:
    """Tell whether the installed Pillow reads AVIF."""
    # of features that an older one does not know, `check` warns
    return "avif" in features.modules and bool(features.check("avif"))


def _formats() -> tuple[str, ...]:
    return (*_FORMATS, "AVIF") if reads_avif() else _FORMATS


def is_image(path: Path) -> bool:
    """Tell from a file's first bytes whether it is an image of a kind that is read here."""
    try:
        with Image.open(path, formats=_formats()):
            return True
    except Image.DecompressionBombError:
        return True  # an image it is; opening it says what is wrong
    except (OSError, ValueError, SyntaxError):
        return False


class ImageSource:
    """The one frame of a JPEG, PNG, WebP, AVIF, BMP or TIFF file; EXIF orientation is applied.

    Of files with several pages or an animation the first picture counts, and a warning says so.
    Attributes are those of `videogender.sources.Source`.
    """

    kind: Literal["image"] = "image"
    frame_count = 1
    duration_seconds = None

    def __init__(self, path: Path, *, name: str | None = None) -> None:
        """Decode the image.

        Args:
            path: a file.
            name: what to call it; the path if None.

        Raises:
            SourceError: the file is missing, damaged or no such image.
        """
        self.path = path
        self.name = name or str(path)
        self.warnings: list[str] = []
        try:
            with Image.open(path, formats=_formats()) as image:
                pixels = _to_rgb(_upright(image))
                pages = _pages(image)
        except Image.DecompressionBombError as error:
            raise SourceError(
                f"{self.name}: more pixels than an image may have here; scale it down"
            ) from error
        # Pillow's decoders raise much more than OSError on damaged files.
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise SourceError(f"{self.name}: a damaged image ({reason})") from error
        if pages > 1:
            self.warnings.append(f"{self.name}: only the first of {pages} pictures in it is used")
        self._picture: RgbPicture | None = RgbPicture(pixels)
        self.width, self.height = self._picture.width, self._picture.height

    def __iter__(self) -> Iterator[Frame]:
        picture, self._picture = self._picture, None
        if picture is not None:
            yield Frame(picture, index=0, pts_seconds=None, source=self.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the pixels."""
        self._picture = None


def _pages(image: Image.Image) -> int:
    """Count the pages of a document or the pictures of an animation, as far as they can be found.

    Pillow looks for them from one to the next, and is lost where one is damaged.
    """
    try:
        return 1 if image.format == _NO_PAGES else getattr(image, "n_frames", 1)
    except Exception:
        return 1


def _upright(image: Image.Image) -> Image.Image:
    """Turn an image as its Exif data say; those that are damaged say nothing."""
    image.load()
    try:
        turn = _TURNS.get(image.getexif().get(Base.Orientation, 1))
    except Exception:  # what Pillow raises for them is of many kinds
        turn = None
    return image if turn is None else image.transpose(turn)


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Return HWC uint8 RGB; what is transparent becomes white."""
    if image.mode.startswith("I") or image.mode == "F":
        # Pillow clips these to 8 bits instead of scaling them. PNG and TIFF store 16 bits so.
        deep = np.asarray(image).astype(np.float64)
        top = 65535.0 if deep.max(initial=0) > 1 else 1.0
        grey = np.clip(deep * (255 / top) + 0.5, 0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        image = Image.alpha_composite(white, layer)
    return np.array(image.convert("RGB"))
