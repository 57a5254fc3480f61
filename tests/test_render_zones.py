"""Zones and lines on pictures: where the outlines are, on RGB and planes, and what is written."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from videogender.config import ZoneSettings
from videogender.render import Canvas
from videogender.render.canvas import Stencil
from videogender.render.zones import _texts, draw_zones
from videogender.zones.figures import Whereabouts
from videogender.zones.plan import plan_of

SIZE = (320, 180)


def where(
    *zones: str,
    lines: tuple[str, ...] = (),
    size_wh: tuple[int, int] = SIZE,
    faces: int = 0,
    tracked: bool = True,
) -> Whereabouts:
    plan = plan_of(ZoneSettings(zone=zones, line=lines), size_wh)
    assert plan is not None
    crossed = np.arange(2 * len(lines)).reshape(-1, 2) if tracked else None
    return Whereabouts(plan, np.ones((faces, len(zones)), bool), crossed)


def drawn(
    places: Whereabouts, size_wh: tuple[int, int] = SIZE, grey: int = 128
) -> NDArray[np.int_]:
    pixels = np.full((size_wh[1], size_wh[0], 3), grey, np.uint8)
    draw_zones(Canvas.from_rgb(pixels), places)
    return pixels.astype(int)


def test_outlines_follow_their_edges_and_leave_the_rest() -> None:
    corners = np.array([(40, 60), (280, 80), (200, 160), (60, 150)], float)
    text = ";".join(f"{x:g},{y:g}" for x, y in corners)
    changed = np.abs(drawn(where(f"a:{text}")) - 128).max(2) > 30
    beside = changed.copy()
    beside[58:90, 38:80] = False  # where the name stands
    rows, columns = np.nonzero(beside)
    steps = np.linspace(0, 1, 2000)[:, None]
    edges = zip(corners, np.roll(corners, -1, 0), strict=True)
    rim = np.concatenate([a * (1 - steps) + b * steps for a, b in edges])
    for x, y in zip(columns.tolist(), rows.tolist(), strict=True):
        assert np.hypot(*(rim - (x + 0.5, y + 0.5)).T).min() < 4, (x, y)
    for x, y in rim:
        near = changed[int(y) - 2 : int(y) + 3, int(x) - 2 : int(x) + 3]
        assert near.any(), (x, y)


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_outlines_are_seen_on_any_ground(grey: int) -> None:
    pixels = drawn(where("a:20,20;300,20;300,160;20,160"), grey=grey)
    across = pixels[100, 10:30, 0]
    assert np.abs(across - grey).max() > 100


def test_a_line_has_an_arrow_to_its_right() -> None:
    """Upward in the middle of the picture."""
    changed = np.abs(drawn(where(lines=("gate:50%,100%;50%,0",))) - 128).max(2) > 30
    assert changed[70:110, 164:].any()
    assert not changed[70:110, :156].any()
    turned = np.abs(drawn(where(lines=("gate:50%,0;50%,100%",))) - 128).max(2) > 30
    assert turned[70:110, :156].any()
    assert not turned[70:110, 164:].any()


def test_what_is_written() -> None:
    places = where("hall:0,0;9,0;9,9", lines=("gate:0,0;9,9", "b:0,0;1,1"), faces=2)
    assert _texts(places) == ["hall 2", "gate in 0 out 1", "b in 2 out 3"]
    places = where("hall:0,0;9,0;9,9", lines=("gate:0,0;9,9",), tracked=False)
    assert _texts(places) == ["hall 0", "gate"]


def test_counts_change_what_is_written_on_the_picture() -> None:
    a, b = (drawn(where("hall:40,40;300,40;300,160;40,160", faces=n)) for n in (1, 7))
    rows, columns = np.nonzero(np.abs(a - b).max(2) > 40)
    assert len(rows) > 5
    assert rows.max() < 70
    assert columns.max() < 120


@pytest.mark.parametrize("size_wh", [(33, 21), (320, 180), (641, 361)])
def test_shapes_far_outside_are_drawn_where_they_pass(size_wh: tuple[int, int]) -> None:
    places = where(
        "all:-1000000,-50;1000000,-50;1000000,50%;-1000000,50%",
        lines=("up:50%,90000;50%,-90000",),
        size_wh=size_wh,
    )
    changed = np.abs(drawn(places, size_wh) - 128).max(2) > 30
    assert changed[size_wh[1] // 2 - 2 : size_wh[1] // 2 + 3].any(0).all()
    assert changed[:, size_wh[0] // 2 - 2 : size_wh[0] // 2 + 3].any(1).all()


def test_names_do_not_cover_each_other() -> None:
    """Three zones that share their highest corner: each name is as readable as when alone."""
    shape = "20,20;300,20;300,160"
    both = drawn(where(f"aaa:{shape}", f"bbb:{shape}", f"ccc:{shape}"))
    light = (both > 220).all(2)
    rows = np.flatnonzero(light[24:90, 28:70].any(1))
    groups = 1 + int((np.diff(rows) > 2).sum())
    assert groups == 3


@pytest.mark.parametrize("size_wh", [(64, 48), (65, 49)])
def test_tracing_is_stamping_a_whole_mask(size_wh: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    width, height = size_wh
    mask = rng.integers(0, 256, (height, width), np.uint8) * (rng.random((height, width)) < 0.1)
    mask = mask.astype(np.uint8)
    colour = (250, 20, 90)
    for make in (rgb_canvas, yuv_canvas):
        (first, stamped), (second, traced) = make(size_wh), make(size_wh)
        first.stamp(0, 0, mask, colour)
        second.trace(Stencil.of(mask), colour)
        for a, b in zip(stamped, traced, strict=True):
            np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="a stencil of"):
        rgb_canvas((10, 10))[0].trace(Stencil.of(mask), colour)


def rgb_canvas(size_wh: tuple[int, int]) -> tuple[Canvas, list[NDArray[np.uint8]]]:
    pixels = np.random.default_rng(1).integers(0, 256, (size_wh[1], size_wh[0], 3), np.uint8)
    return Canvas.from_rgb(pixels), [pixels]


def yuv_canvas(size_wh: tuple[int, int]) -> tuple[Canvas, list[NDArray[np.uint8]]]:
    rng = np.random.default_rng(2)
    width, height = size_wh
    half = (-(-height // 2), -(-width // 2))
    planes = [rng.integers(16, 236, shape, np.uint8) for shape in ((height, width), half, half)]
    return Canvas.from_yuv420p(*planes, full_range=False, matrix="bt709"), planes
