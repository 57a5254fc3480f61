"""Near-duplicates: the same picture re-encoded, resized, lightly cropped, tinted or mirrored.

A picture is shrunk to a print of 17×16 pixels. Pairs are found by dHash: whether each of 256
pixels is brighter than its left neighbour (N. Krawetz, "Kind of Like That", 2013), by one matrix
product over all pairs. Faces look alike: passport photos agree in three quarters of these bits. So
a pair must also agree in the brightness of its prints, and in their colours if both have any.

The thresholds were set on 11,000 portraits and on altered copies of 400 of them: re-encoding at
quality 30, halving, squashing, greying and mirroring are found, as are most crops of 2 % a side;
among 60 million pairs of different photos hardly any pass.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ROWS, COLUMNS = 16, 17
MOST_BITS = 48  # of 256 that may differ
LEAST_CORRELATION = 0.94  # of brightness
LEAST_COLOUR_CORRELATION = 0.5
_LEAST_CONTRAST = 3.0  # standard deviation of brightness, of 255; below, nothing is to be seen
_LEAST_COLOUR = 4.0  # standard deviation of chroma, of 255; below, a picture has no colours
_BLOCK = 1024  # pictures compared with all others at once
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601

__all__ = ["alike_pairs", "print_of"]


def print_of(image: Image.Image) -> bytes:
    """Return what a picture (RGB, upright) is compared by; nothing if it is all of one shade."""
    small = np.asarray(image.resize((COLUMNS, ROWS), Image.Resampling.BOX))
    return small.tobytes() if (small @ _LUMA).std() >= _LEAST_CONTRAST else b""


def alike_pairs(prints: Sequence[bytes]) -> NDArray[np.int64]:
    """Find pictures that look alike, mirrored ones included.

    Time grows with the square of their number: seconds for 10 thousand, minutes for 100.

    Args:
        prints: of each picture, from `print_of`; an empty one is like no other.

    Returns:
        [P, 2] indices, each pair once, the smaller first.
    """
    index = np.array([i for i, p in enumerate(prints) if p], np.int64)
    if len(index) < 2:
        return np.zeros((0, 2), np.int64)
    pixels = np.frombuffer(b"".join(prints), np.uint8).reshape(-1, ROWS, COLUMNS, 3)
    brightness, colour = _patterns(pixels)
    bits = _bits(pixels)
    found = []
    for mirrored in (False, True):
        other = pixels[:, :, ::-1] if mirrored else pixels
        other_bits = _bits(other) if mirrored else bits
        other_brightness, other_colour = _patterns(other) if mirrored else (brightness, colour)
        for start in range(0, len(bits), _BLOCK):
            # bits are ±1: the product is 256 less twice the number that differ
            agree = bits[start : start + _BLOCK] @ other_bits[start:].T
            i, j = np.nonzero(agree >= 256 - 2 * MOST_BITS)
            i, j = i[j > i] + start, j[j > i] + start
            same = (brightness[i] * other_brightness[j]).sum(1) >= LEAST_CORRELATION
            match = (colour[i] * other_colour[j]).sum(1)
            both = colour[i].any(1) & other_colour[j].any(1)
            same &= ~both | (match >= LEAST_COLOUR_CORRELATION)
            found.append(np.stack([i[same], j[same]], 1))
    return np.unique(index[np.concatenate(found)], axis=0)


def _bits(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return dHash as ±1, [N, 256]."""
    luma = pixels @ _LUMA
    return np.where(luma[:, :, 1:] > luma[:, :, :-1], np.float32(1), np.float32(-1)).reshape(
        len(pixels), -1
    )


def _patterns(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return brightness [N, 272] and colour [N, 544], each with zero mean and unit length.

    The product of two is their correlation. Colour is all zero where a picture has next to none.
    """
    luma = pixels @ _LUMA
    chroma = pixels[..., ::2] - luma[..., None]  # R - Y and B - Y
    chroma -= chroma.mean((1, 2), keepdims=True)  # a tint over all of the picture does not count
    flat = chroma.reshape(len(pixels), -1)
    pale = flat.std(1) < _LEAST_COLOUR
    colour = _unit(flat)
    colour[pale] = 0
    luma = luma.reshape(len(pixels), -1)
    return _unit(luma - luma.mean(1, keepdims=True)), colour


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: NDArray[np.float32] = rows / np.maximum(lengths, np.float32(1e-6))
    return unit
