"""Squares cut out of arrays of samples, with OpenCV and without, against a slow reference."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

import videogender.squares
from videogender.squares import binned, cut_squares

SIDE = 20


@pytest.fixture(params=["OpenCV", "torch"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What scales: OpenCV, or torch where that does not load."""
    if request.param == "torch":
        monkeypatch.setattr(videogender.squares, "opencv", lambda: None)
    elif videogender.squares.opencv() is None:
        pytest.skip("OpenCV does not load here")
    return str(request.param)


def waves(height: int, width: int, channels: int) -> NDArray[np.uint8]:
    """Paint smooth waves, other ones in each channel."""
    y, x, c = np.mgrid[:height, :width, :channels]
    return (128 + 100 * np.sin((x + 2 * y) / 31 + c)).astype(np.uint8)


def averaged(plane: NDArray[np.uint8], left: int, top: int, side: int, fill: int) -> NDArray[float]:
    """Average what lies under each pixel of the result, a hundred samples each."""
    at = (np.arange(SIDE * 10) + 0.5) * side / (SIDE * 10)
    rows, columns = np.floor(top + at).astype(int), np.floor(left + at).astype(int)
    inside = ((rows >= 0) & (rows < plane.shape[0]))[:, None] & (
        (columns >= 0) & (columns < plane.shape[1])
    )
    seen = plane[rows.clip(0, plane.shape[0] - 1)[:, None], columns.clip(0, plane.shape[1] - 1)]
    return np.where(inside, seen, fill).reshape(SIDE, 10, SIDE, 10).mean((1, 3))


@pytest.mark.parametrize("side", [12, 20, 27, 40, 66, 90, 400])
def test_squares_are_averages_of_what_they_show(way: str, side: int) -> None:
    squares = np.array([[30, 10, side], [-6, 50, side], [100, 90, side]])
    fill = np.array([10, 200, 90], np.uint8)
    whole = waves(120, 160, 3)
    cuts = cut_squares(whole, squares, SIDE, fill)
    assert cuts.shape == (3, SIDE, SIDE, 3)
    assert cuts.dtype == np.uint8
    for cut, (left, top, length) in zip(cuts, squares.tolist(), strict=True):
        for channel in range(3):
            wanted = averaged(whole[..., channel], left, top, length, int(fill[channel]))
            off = np.abs(cut[..., channel] - wanted)
            # edges towards the fill are sharp, and fall between pixels
            assert np.median(off) <= 2
            assert off.mean() < 8


def test_one_plane_is_cut_as_a_channel_of_several(way: str) -> None:
    whole, squares = waves(120, 160, 2), np.array([[30, 10, 20], [-6, 50, 33], [100, 90, 90]])
    both = cut_squares(whole, squares, SIDE, np.array([10, 200], np.uint8))
    for channel, fill in enumerate((10, 200)):
        plane = np.ascontiguousarray(whole[..., channel])
        alone = cut_squares(plane, squares, SIDE, fill)
        np.testing.assert_allclose(alone.astype(int), both[..., channel], atol=1)


def test_a_square_outside_is_filled(way: str) -> None:
    [cut] = cut_squares(waves(50, 50, 1), np.array([[200, -90, 40]]), SIDE, 7)
    assert (cut == 7).all()


def test_views_that_run_backwards_are_cut_as_they_read(way: str) -> None:
    plane, squares = waves(60, 80, 1)[..., 0], np.array([[10, 8, 44]])
    turned = plane[::-1, ::-1].swapaxes(0, 1)
    np.testing.assert_array_equal(
        cut_squares(turned, squares, SIDE, 0),
        cut_squares(np.ascontiguousarray(turned), squares, SIDE, 0),
    )


@pytest.mark.parametrize("px", [1, 2, 3, 4, 5, 6])
def test_a_plane_shrinks_to_the_means_of_whole_squares(px: int) -> None:
    if videogender.squares.opencv() is None:
        pytest.skip("OpenCV does not load here")
    plane = np.random.default_rng(px).integers(0, 256, (12 * px, 16 * px)).astype(np.uint8)
    wanted = plane.reshape(12, px, 16, px).mean((1, 3))
    found = binned(plane, 16, 12)
    assert found.shape == (12, 16)
    assert np.abs(found - wanted).max() <= 1.1  # rounded at each halving


def test_a_plane_of_which_no_whole_squares_fit_shrinks_without_shift() -> None:
    if videogender.squares.opencv() is None:
        pytest.skip("OpenCV does not load here")
    plane = waves(120, 180, 1)[..., 0]
    found = binned(plane, 50, 40)
    x, y = (np.arange(50) + 0.5) * 3.6 - 0.5, (np.arange(40) + 0.5) * 3 - 0.5
    wanted = 128 + 100 * np.sin((x[None, :] + 2 * y[:, None]) / 31)
    assert np.abs(found - wanted).mean() < 1.5
