"""Every picture decoded once, by a few threads: can it be read, how large is it, what is on it."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from videogender.cores import cores
from videogender.finetuning.datasets.likeness import print_of
from videogender.finetuning.datasets.sample import Picture

MOST_WORKERS = 8
_CHUNK = 512  # pictures under way at once, so that memory does not grow with their number
_DRAFT_PX = 128  # a JPEG is decoded at an eighth of its size if that is still so large

_QUARTER_TURNS = frozenset({5, 6, 7, 8})  # EXIF orientations that swap width and height

__all__ = ["digest_all", "look", "look_at_all"]


def look_at_all(paths: Iterable[Path], workers: int = 0) -> dict[Path, Picture | str]:
    """Decode pictures and keep what matters: for each a `Picture`, or why it cannot be read.

    Args:
        paths: files, each looked at once.
        workers: threads; 0 for one a core, at most 8.
    """
    seen: dict[Path, Picture | str] = {}
    rest = iter(dict.fromkeys(paths))
    with warnings.catch_warnings(), ThreadPoolExecutor(workers or _threads()) as pool:
        # a picture large enough for this warning is still read; a bomb is an error
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        while chunk := list(islice(rest, _CHUNK)):
            seen.update(zip(chunk, pool.map(look, chunk), strict=True))
    return seen


def look(path: Path) -> Picture | str:
    """Decode one picture in full; return what was seen, or why it cannot be read."""
    try:
        data = path.read_bytes()
        if not data:
            return "the file is empty"
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            image.draft("RGB", (_DRAFT_PX, _DRAFT_PX))
            image.load()
            # read only now: TIFF turns itself upright on loading
            if image.getexif().get(ExifTags.Base.Orientation) in _QUARTER_TURNS:
                width, height = height, width
            upright = ImageOps.exif_transpose(image).convert("RGB")
    except UnidentifiedImageError:  # its message names an object in memory
        return "not a picture of a known kind"
    except OSError as error:
        return error.strerror or str(error)
    except (SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return str(error) or type(error).__name__
    return Picture(width, height, _digest(data), print_of(upright))


def digest_all(paths: Iterable[Path]) -> dict[Path, bytes]:
    """Return the digest of each file's bytes.

    Raises:
        OSError: if one cannot be read.
    """
    return {path: _digest(path.read_bytes()) for path in dict.fromkeys(paths)}


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def _threads() -> int:
    return min(MOST_WORKERS, cores())
