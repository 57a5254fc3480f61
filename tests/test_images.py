"""Stills: what their copies keep, and those whose metadata are odd."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from PIL.ExifTags import IFD, Base

from videogender.sinks.images import ImageSink
from videogender.sources.images import ImageSource

COLOURS = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
GREY = COLOURS[:, :, 0]


def copied(source: Path) -> tuple[NDArray[np.uint8], Path]:
    """Return the pixels of an image, and its copy with nothing drawn on it."""
    copy = source.with_name(f"copy{source.suffix}")
    with ImageSource(source) as opened:
        (frame,) = opened
        with ImageSink(copy, source) as sink:
            sink.write(frame, None)
    return frame.picture.to_rgb(), copy


def pixels_of(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("RGB", {}),
        ("RGB", {"compression": "tiff_lzw", "tiffinfo": {317: 2}}),
        ("RGB", {"compression": "jpeg"}),
        ("RGB", {"big_tiff": True}),
        ("RGBA", {}),
        ("P", {}),
        ("1", {"compression": "group4"}),
        ("L", {}),
        ("LA", {}),
        ("CMYK", {}),
        ("YCbCr", {}),
        ("LAB", {}),
        ("I;16", {}),
        ("F", {}),
    ],
    ids=str,
)
def test_copies_of_tiffs(tmp_path: Path, mode: str, options: dict[str, Any]) -> None:
    if mode == "I;16":
        image = Image.fromarray(GREY.astype(np.uint16) * 257)
    elif mode == "F":
        image = Image.fromarray(GREY.astype(np.float32) / 255)
    else:
        image = Image.fromarray(COLOURS).convert(mode)
    assert image.mode == mode
    image.save(tmp_path / "a.tif", **options)
    pixels, copy = copied(tmp_path / "a.tif")
    np.testing.assert_array_equal(pixels_of(copy), pixels)


def test_a_copy_of_a_tiff_with_a_plane_a_colour(tmp_path: Path) -> None:
    planes = COLOURS.transpose(2, 0, 1).tobytes()
    high, wide = GREY.shape
    # width, height, bits, no compression, RGB, and where each of three planes lies
    tags = [(256, wide), (257, high), (258, 8, 8, 8), (259, 1), (262, 2)]
    tags += [(273, 0, GREY.size, 2 * GREY.size), (277, 3), (278, high), (279, *[GREY.size] * 3)]
    tags += [(284, 2)]
    beyond = 8 + 2 + 12 * len(tags) + 4
    first = beyond + 2 * sum(3 for _, *values in tags if len(values) > 1)
    entries = rest = b""
    for tag, *values in tags:
        held = struct.pack(f"<{len(values)}H", *(v + first * (tag == 273) for v in values))
        if len(values) > 1:
            held, rest = struct.pack("<I", beyond + len(rest)), rest + held
        entries += struct.pack("<HHI", tag, 3, len(values)) + held.ljust(4, b"\0")
    head = struct.pack("<2sHIH", b"II", 42, 8, len(tags))
    (tmp_path / "a.tif").write_bytes(head + entries + bytes(4) + rest + planes)
    pixels, copy = copied(tmp_path / "a.tif")
    np.testing.assert_array_equal(pixels, COLOURS)
    np.testing.assert_array_equal(pixels_of(copy), COLOURS)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_a_copy_tells_who_took_it_when_and_where(tmp_path: Path, suffix: str) -> None:
    exif = Image.Exif()
    exif[Base.Make], exif[Base.Copyright], exif[Base.XResolution] = "Works", "Ann Other", 300.0
    exif[Base.Orientation], exif[Base.CellLength] = 3, 7
    exif.get_ifd(IFD.Exif)[Base.DateTimeOriginal] = "2020:01:01 00:00:00"
    exif.get_ifd(IFD.GPSInfo)[2] = (1.0, 2.0, 3.0)
    Image.fromarray(COLOURS).save(tmp_path / f"a{suffix}", exif=exif.tobytes())
    _, copy = copied(tmp_path / f"a{suffix}")
    with Image.open(copy) as image:
        kept = image.getexif()
        assert (kept[Base.Make], kept[Base.Copyright]) == ("Works", "Ann Other")
        assert float(kept[Base.XResolution]) == 300
        assert kept.get_ifd(IFD.Exif)[Base.DateTimeOriginal] == "2020:01:01 00:00:00"
        assert kept.get_ifd(IFD.GPSInfo)[2] == (1.0, 2.0, 3.0)
        assert kept.get(Base.Orientation, 1) == 1
        assert Base.CellLength not in kept, "says nothing of the picture"


def odd_exif(tag: int, kind: int, value: bytes) -> bytes:
    """Return Exif data that tell of a turn, and of something in a way that nobody expects."""
    entries = sorted([(0x0112, 3, b"\0\6\0\0"), (tag, kind, value)])
    packed = b"".join(struct.pack(">HHI4s", tag, kind, 1, held) for tag, kind, held in entries)
    return b"Exif\0\0MM\0*" + struct.pack(">IH", 8, len(entries)) + packed + bytes(4)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize(
    ("tag", "kind", "value"),
    [
        (0x011A, 7, b"\0\0\0\0"),  # a resolution that is no number
        (0x0100, 2, b"a\0\0\0"),  # a width in letters
        (0x8769, 4, b"\xff\xff\xff\xff"),  # a directory beyond the end
    ],
)
def test_odd_exif_data_are_left_behind(tmp_path: Path, tag: int, kind: int, value: bytes) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(COLOURS).save(path, exif=odd_exif(tag, kind, value))
    pixels, copy = copied(path)
    np.testing.assert_array_equal(pixels, np.rot90(COLOURS, -1))
    np.testing.assert_array_equal(pixels_of(copy), pixels)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_exif_data_that_cannot_be_read_turn_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(COLOURS).save(path, exif=b"Exif\0\0no directory")
    pixels, copy = copied(path)
    np.testing.assert_array_equal(pixels, COLOURS)
    np.testing.assert_array_equal(pixels_of(copy), COLOURS)


def test_exif_data_that_are_too_long_to_be_written(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(IFD.Exif)[Base.UserComment] = bytes(70_000)
    path = tmp_path / "a.webp"
    Image.fromarray(COLOURS).save(path, exif=exif)
    copy = tmp_path / "copy.jpg"
    with ImageSource(path) as source, ImageSink(copy, path) as sink:
        sink.write(next(iter(source)), None)
    with Image.open(copy) as image:
        assert not image.getexif()


def test_a_resolution_that_is_no_number(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(COLOURS).save(path, dpi=(300, 300))
    data = path.read_bytes()
    assert data.count(struct.pack("<II", 300, 1)) == 2
    path.write_bytes(data.replace(struct.pack("<II", 300, 1), bytes(8)))
    _, copy = copied(path)
    np.testing.assert_array_equal(pixels_of(copy), COLOURS)
