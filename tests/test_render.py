"""Drawing on RGB and on YUV 4:2:0, against float colour conversion and plain pixel loops."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from videogender.config import LabelSettings, RenderSettings
from videogender.errors import ConfigError
from videogender.frames import Faces
from videogender.render import COLOURS, Canvas, draw_faces
from videogender.render.canvas import Rgb

Planes = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]

# Kr and Kb of each matrix, as exact fractions, written down apart from the package.
LUMA = {
    "bt601": (Fraction(299, 1000), Fraction(114, 1000)),
    "bt709": (Fraction(2126, 10000), Fraction(722, 10000)),
    "bt2020": (Fraction(2627, 10000), Fraction(593, 10000)),
}


def noise(*shape: int, seed: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(30, 220, shape, dtype=np.uint8)


def yuv_noise(width: int, height: int, seed: int = 3) -> Planes:
    half = ((height + 1) // 2, (width + 1) // 2)
    return (
        noise(height, width, seed=seed),
        noise(*half, seed=seed + 1),
        noise(*half, seed=seed + 2),
    )


def decoded(planes: Planes, matrix: str, full_range: bool) -> NDArray[np.float64]:
    """Turn planes into RGB with one chroma sample for each 2x2 pixels, in floating point."""
    y, u, v = (plane.astype(np.float64) for plane in planes)
    height, width = y.shape
    u, v = (np.kron(c, np.ones((2, 2)))[:height, :width] - 128 for c in (u, v))
    if full_range:
        y, u, v = y / 255, u / 255, v / 255
    else:
        y, u, v = (y - 16) / 219, u / 224, v / 224
    kr, kb = (float(k) for k in LUMA[matrix])
    red = y + 2 * (1 - kr) * v
    blue = y + 2 * (1 - kb) * u
    green = (y - kr * red - kb * blue) / (1 - kr - kb)
    return 255 * np.stack([red, green, blue], -1)


def faces_of(*rows: tuple[float, float, float, float, float]) -> Faces:
    """Build faces from rows of x0, y0, x1, y1 and the probability of `female`."""
    table = np.array(rows, np.float32).reshape(-1, 5)
    return Faces(table[:, :4].copy(), np.ones(len(table), np.float32), table[:, 4].copy())


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", sorted(LUMA))
@pytest.mark.parametrize("rgb", [(230, 159, 0), (0, 0, 0), (255, 255, 255), (10, 200, 250)])
def test_a_fill_on_planes_decodes_to_the_colour(matrix: str, full_range: bool, rgb: Rgb) -> None:
    planes = yuv_noise(20, 14)
    canvas = Canvas.from_yuv420p(*planes, full_range=full_range, matrix=matrix)
    canvas.fill((4, 2, 12, 8), rgb)
    assert np.abs(decoded(planes, matrix, full_range)[2:8, 4:12] - rgb).max() <= 2.5


def test_a_fill_agrees_with_the_video_library_that_encodes() -> None:
    av = pytest.importorskip("av")
    rgb = np.full((16, 16, 3), (86, 180, 233), np.uint8)
    for matrix, colorspace in (("bt601", "ITU601"), ("bt709", "ITU709")):
        frame = av.VideoFrame.from_ndarray(rgb, "rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace=colorspace, dst_color_range="MPEG")
        expected = [int(np.frombuffer(plane, np.uint8)[0]) for plane in frame.planes]
        planes = yuv_noise(16, 16)
        canvas = Canvas.from_yuv420p(*planes, full_range=False, matrix=matrix)
        canvas.fill((0, 0, 16, 16), (86, 180, 233))
        assert [int(plane[0, 0]) for plane in planes] == pytest.approx(expected, abs=1)


@given(
    width=st.integers(1, 13),
    height=st.integers(1, 13),
    x0=st.integers(-5, 14),
    y0=st.integers(-5, 14),
    box_w=st.integers(0, 12),
    box_h=st.integers(0, 12),
    alpha=st.sampled_from([0.0, 0.3, 1.0]),
)
@settings(max_examples=150, deadline=None)
def test_fills_weigh_every_chroma_sample_by_the_pixels_they_cover(
    width: int, height: int, x0: int, y0: int, box_w: int, box_h: int, alpha: float
) -> None:
    box = (x0, y0, x0 + box_w, y0 + box_h)
    covered = np.zeros((height, width))
    for row in range(height):
        for column in range(width):
            inside = box[0] <= column < box[2] and box[1] <= row < box[3]
            covered[row, column] = alpha * inside
    rgb_array = noise(height, width, 3)
    expected = rgb_array + covered[..., None] * (np.array((250, 120, 4)) - rgb_array)
    Canvas.from_rgb(rgb_array).fill(box, (250, 120, 4), alpha)
    assert np.abs(rgb_array - expected).max() <= 1.01

    planes = yuv_noise(width, height)
    before = [plane.copy() for plane in planes]
    # Red in full-range BT.601: Y 76, Cb 85, Cr 255.
    canvas = Canvas.from_yuv420p(*planes, full_range=True, matrix="bt601")
    canvas.fill(box, (255, 0, 0), alpha)
    for plane, old, colour, step in zip(planes, before, (76, 85, 255), (1, 2, 2), strict=True):
        for row in range(plane.shape[0]):
            for column in range(plane.shape[1]):
                rows, columns = row * step, column * step
                weight = covered[rows : rows + step, columns : columns + step].mean()
                wanted = old[row, column] + weight * (colour - int(old[row, column]))
                assert abs(int(plane[row, column]) - wanted) <= 1.5


@given(
    width=st.integers(1, 11),
    height=st.integers(1, 11),
    x=st.integers(-6, 12),
    y=st.integers(-6, 12),
    mask_w=st.integers(1, 8),
    mask_h=st.integers(1, 8),
)
@settings(max_examples=150, deadline=None)
def test_stamps_blend_through_the_mask_and_clip(
    width: int, height: int, x: int, y: int, mask_w: int, mask_h: int
) -> None:
    mask = np.random.default_rng(x + 10).integers(0, 256, (mask_h, mask_w), dtype=np.uint8)
    covered = np.zeros((height, width))
    for row in range(mask_h):
        for column in range(mask_w):
            if 0 <= y + row < height and 0 <= x + column < width:
                covered[y + row, x + column] = mask[row, column] / 255
    rgb_array = noise(height, width, 3)
    expected = rgb_array + covered[..., None] * (np.array((250, 120, 4)) - rgb_array)
    Canvas.from_rgb(rgb_array).stamp(x, y, mask, (250, 120, 4))
    assert np.abs(rgb_array - expected).max() <= 1.01

    planes = yuv_noise(width, height)
    before = [plane.copy() for plane in planes]
    canvas = Canvas.from_yuv420p(*planes, full_range=True, matrix="bt601")
    canvas.stamp(x, y, mask, (255, 0, 0))
    for plane, old, colour, step in zip(planes, before, (76, 85, 255), (1, 2, 2), strict=True):
        for row in range(plane.shape[0]):
            for column in range(plane.shape[1]):
                rows, columns = row * step, column * step
                weight = covered[rows : rows + step, columns : columns + step].mean()
                wanted = old[row, column] + weight * (colour - int(old[row, column]))
                assert abs(int(plane[row, column]) - wanted) <= 1.5


def test_padded_planes_are_written_in_place_and_their_padding_is_not() -> None:
    buffers = [np.full((11, 64), 7, np.uint8), *(np.full((6, 32), 7, np.uint8) for _ in "uv")]
    views = (buffers[0][:, :15], buffers[1][:, :8], buffers[2][:, :8])
    canvas = Canvas.from_yuv420p(*views, full_range=False, matrix="bt709")
    canvas.fill((-100, -100, 100, 100), (255, 255, 255))
    canvas.obscure((0, 0, 15, 11))
    assert (buffers[0][:, :15] == 235).all()
    assert (buffers[1][:, :8] == 128).all()
    for buffer, used in zip(buffers, (15, 8, 8), strict=True):
        assert (buffer[:, used:] == 7).all()


@pytest.mark.parametrize(
    ("box", "size_wh"),
    [
        ((40, 30, 90, 100), (160, 120)),
        ((-20, -30, 40, 50), (161, 121)),
        ((120, 80, 190, 170), (161, 121)),
        ((-500, -500, 600, 600), (63, 47)),
    ],
)
def test_obscuring_destroys_detail_inside_and_leaves_the_rest(
    box: tuple[int, int, int, int], size_wh: tuple[int, int]
) -> None:
    width, height = size_wh
    rgb = noise(height, width, 3)
    planes = yuv_noise(width, height)
    canvases = (
        (Canvas.from_rgb(rgb), [(rgb, 1)]),
        (
            Canvas.from_yuv420p(*planes, full_range=False, matrix="bt709"),
            [(planes[0], 1), (planes[1], 2), (planes[2], 2)],
        ),
    )
    for canvas, arrays in canvases:
        before = [array.copy() for array, _ in arrays]
        canvas.obscure(box)
        for (array, step), old in zip(arrays, before, strict=True):
            x0, y0 = (max(0, edge) // step + 1 for edge in box[:2])
            x1, y1 = min(box[2], width) // step - 1, min(box[3], height) // step - 1
            inside = array[y0:y1, x0:x1].astype(np.float64)
            # Neighbouring noise samples differ by about 60; what is left is a gentle slope.
            assert np.abs(np.diff(inside, axis=0)).mean() < 4
            assert np.abs(np.diff(inside, axis=1)).mean() < 4
            assert abs(inside.mean() - old[y0:y1, x0:x1].mean()) < 12
            margin_x, margin_y = (box[2] - box[0]) / 4, (box[3] - box[1]) / 4
            rows, columns = np.mgrid[: array.shape[0], : array.shape[1]] * step
            far = (columns + step <= box[0] - margin_x - step) | (columns >= box[2] + margin_x + 1)
            far |= (rows + step <= box[1] - margin_y - step) | (rows >= box[3] + margin_y + 1)
            assert (array[far] == old[far]).all()


def test_pictures_of_two_people_with_equal_averages_obscure_to_the_same_pixels() -> None:
    """What tells faces apart (patterns finer than a cell) must leave no trace at all."""
    fine = np.indices((96, 96)).sum(0) % 2 * 100 + 60
    stripes = np.indices((96, 96))[0] % 2 * 100 + 60
    results = []
    for pattern in (fine, stripes):
        array = np.repeat(pattern[..., None], 3, 2).astype(np.uint8)
        Canvas.from_rgb(array).obscure((16, 16, 80, 80))
        results.append(array[17:79, 17:79].astype(int))
    assert np.abs(results[0] - results[1]).max() <= 2


@pytest.mark.parametrize("size_wh", [(97, 75), (160, 120), (361, 641), (1280, 720)])
@pytest.mark.parametrize("style", ["box", "corners", "none"])
def test_planes_and_rgb_get_the_same_drawing(size_wh: tuple[int, int], style: str) -> None:
    width, height = size_wh
    faces = faces_of(
        (0.1 * width, 0.2 * height, 0.3 * width, 0.6 * height, 0.93),
        (0.5 * width, 0.1 * height, 0.7 * width, 0.4 * height, 0.12),
        (0.6 * width, 0.6 * height, 1.2 * width, 1.3 * height, math.nan),
    )
    rgb = np.full((height, width, 3), 128, np.uint8)
    draw_faces(Canvas.from_rgb(rgb), faces, LabelSettings(), RenderSettings(style=style))
    chroma_hw = ((height + 1) // 2, (width + 1) // 2)
    planes = (
        np.full((height, width), 128, np.uint8),
        np.full(chroma_hw, 128, np.uint8),
        np.full(chroma_hw, 128, np.uint8),
    )
    canvas = Canvas.from_yuv420p(*planes, full_range=True, matrix="bt709")
    draw_faces(canvas, faces, LabelSettings(), RenderSettings(style=style))
    # Chroma is shared by 2x2 pixels, so compare means of such blocks.
    even_h, even_w = height // 2 * 2, width // 2 * 2
    drawn = decoded(planes, "bt709", True)
    drawn_blocks, rgb_blocks, lowest, highest = (
        reduce(picture[:even_h, :even_w].reshape(even_h // 2, 2, even_w // 2, 2, 3), axis=(1, 3))
        for picture, reduce in (
            (drawn, np.mean), (rgb, np.mean), (drawn, np.min), (drawn, np.max)
        )
    )  # fmt: skip
    # Where dark text meets a saturated chip, codes leave the range; elsewhere they only round.
    in_gamut = ((lowest > -3) & (highest < 258)).all(-1)
    assert in_gamut.mean() > 0.8
    assert np.abs(drawn_blocks - rgb_blocks)[in_gamut].max() < 4


@pytest.mark.parametrize("size_wh", [(32, 32), (64, 48), (160, 120), (640, 360), (1281, 721)])
def test_every_label_is_drawn_whole_and_in_its_colour(size_wh: tuple[int, int]) -> None:
    """Faces at each corner and side: the chip must lie inside the picture, unbroken."""
    width, height = size_wh
    side = max(6, min(width, height) // 6)
    for x in (-side / 2, width / 2, width - side / 2):
        for y in (-side / 2, height / 2, height - side / 2):
            for female, colour in ((0.9, "female"), (0.1, "male"), (0.5, "unsure")):
                rgb = np.zeros((height, width, 3), np.uint8)
                faces = faces_of((x, y, x + side, y + side, female))
                draw_faces(
                    Canvas.from_rgb(rgb), faces, LabelSettings(0.65), RenderSettings(style="none")
                )
                rows, columns = np.nonzero(rgb.any(-1))
                area = rgb[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
                exact = (area == COLOURS[colour]).all(-1)  # type: ignore[index]
                # The border of a chip is margin all round: nothing was cut off.
                assert exact[0].all()
                assert exact[-1].all()
                assert exact[:, 0].all()
                assert exact[:, -1].all()
                assert (area.max(-1) < 150).sum() > 5  # and there is dark text in it


def test_labels_carry_the_probability_of_the_named_label(monkeypatch: pytest.MonkeyPatch) -> None:
    from videogender.render import faces as module

    seen: list[str] = []
    rendered = module._rendered

    def spy(text: str, size_px: int) -> NDArray[np.uint8]:
        seen.append(text)
        return rendered(text, size_px)

    monkeypatch.setattr(module, "_rendered", spy)
    draw_faces(
        Canvas.from_rgb(np.zeros((200, 600, 3), np.uint8)),
        faces_of(
            (10, 50, 60, 100, 0.93),
            (200, 50, 260, 100, 0.12),
            (400, 50, 460, 100, 0.6),
            (500, 50, 560, 100, math.nan),
        ),
        LabelSettings(unsure_below=0.65),
        RenderSettings(),
    )
    assert seen == ["female 0.93", "male 0.88", "unsure", "unsure"]


def test_chips_of_crowded_faces_do_not_cover_each_other() -> None:
    rows = [(100 + 30 * i, 200.0 + 5 * i, 125 + 30 * i, 230.0 + 5 * i, 0.9) for i in range(6)]
    rgb = np.zeros((480, 640, 3), np.uint8)
    draw_faces(Canvas.from_rgb(rgb), faces_of(*rows), LabelSettings(), RenderSettings(style="none"))
    alone = np.zeros_like(rgb)
    draw_faces(
        Canvas.from_rgb(alone), faces_of(rows[0]), LabelSettings(), RenderSettings(style="none")
    )
    assert rgb.any(-1).sum() == 6 * alone.any(-1).sum()


def test_text_contrasts_with_every_chip() -> None:
    """At least 7:1, level AAA of WCAG 2.1 (relative luminance of sRGB)."""
    from videogender.render.faces import _INK

    def luminance(rgb: Rgb) -> float:
        linear = [
            c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4
            for c in rgb
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for colour in COLOURS.values():
        assert (luminance(colour) + 0.05) / (luminance(_INK) + 0.05) >= 7


def test_box_and_corners_leave_the_face_itself_alone() -> None:
    for style in ("box", "corners"):
        rgb = noise(240, 320, 3)
        before = rgb.copy()
        draw_faces(
            Canvas.from_rgb(rgb),
            faces_of((100, 80, 180, 180, 0.9)),
            LabelSettings(),
            RenderSettings(style=style, labels=False),
        )
        changed = (rgb != before).any(-1)
        assert not changed[84:176, 104:176].any()
        assert not changed[:76].any()
        assert not changed[184:].any()
        assert changed[76:80, 96:104].any()  # the corner is there
        middle = changed[76:80, 135:145].any()  # the top edge, in box style only
        assert middle == (style == "box")


def test_blur_keeps_labels_and_hides_the_face() -> None:
    rgb = noise(240, 320, 3)
    faces = faces_of((100, 80, 180, 180, 0.9))
    draw_faces(Canvas.from_rgb(rgb), faces, LabelSettings(), RenderSettings(blur=True))
    assert np.abs(np.diff(rgb[90:170, 110:170].astype(int), axis=1)).mean() < 4
    assert (rgb == COLOURS["female"]).all(-1).sum() > 400
    hidden = noise(240, 320, 3)
    settings_ = RenderSettings(style="none", labels=False, blur=True)
    draw_faces(Canvas.from_rgb(hidden), faces, LabelSettings(), settings_)
    assert np.abs(np.diff(hidden[90:170, 110:170].astype(int), axis=1)).mean() < 4
    assert not (hidden == COLOURS["female"]).all(-1).any()


def test_nothing_to_draw_leaves_the_picture_as_it_was() -> None:
    for faces, render in (
        (Faces.empty(), RenderSettings(blur=True)),
        (faces_of((5, 5, 20, 20, 0.9)), RenderSettings(style="none", labels=False)),
        (faces_of((500, 500, 520, 520, 0.9)), RenderSettings(labels=False, blur=True)),
    ):
        rgb = noise(64, 64, 3)
        before = rgb.copy()
        draw_faces(Canvas.from_rgb(rgb), faces, LabelSettings(), render)
        assert (rgb == before).all()


def test_an_unknown_style_names_the_known_ones() -> None:
    canvas = Canvas.from_rgb(np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(ConfigError, match=r"'dots'.*box, corners, none"):
        draw_faces(canvas, Faces.empty(), LabelSettings(), RenderSettings(style="dots"))


@pytest.mark.parametrize(
    ("shapes", "matrix", "message"),
    [
        (((8, 8), (4, 4), (4, 4)), "bt470", "unknown matrix"),
        (((9, 9), (4, 4), (4, 4)), "bt709", r"u of shape \(5, 5\)"),
        (((8, 8, 3), (4, 4), (4, 4)), "bt709", "luma plane"),
    ],
)
def test_planes_that_do_not_fit_are_refused(
    shapes: tuple[tuple[int, ...], ...], matrix: str, message: str
) -> None:
    y, u, v = (np.zeros(shape, np.uint8) for shape in shapes)
    with pytest.raises(ValueError, match=message):
        Canvas.from_yuv420p(y, u, v, full_range=False, matrix=matrix)


def test_read_only_pixels_are_refused() -> None:
    array = np.zeros((8, 8, 3), np.uint8)
    array.setflags(write=False)
    with pytest.raises(ValueError, match="read-only"):
        Canvas.from_rgb(array)
