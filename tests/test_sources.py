"""Sources: every frame, upright, at its own time; and a plain sentence where there is none."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import warnings
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from media import (
    CLIPS,
    NEAR,
    Clip,
    Sound,
    Text,
    cut_short,
    grey_of,
    make_song,
    make_video,
    shown,
    upright_luma,
)
from PIL import Image, features

from videogender.errors import SourceError
from videogender.frames import MEAN_RGB, Frame, RgbPicture
from videogender.sources import IMAGE_SUFFIXES, find_inputs, images, open_source
from videogender.sources.picture import DecodedPicture, Orientation, Scalers, samples_of
from videogender.sources.timing import Clock
from videogender.sources.video import decoder_threads


def read(path: Path, **span: float) -> tuple[list[Frame], list[str]]:
    with open_source(path, **span) as source:
        return list(source), source.warnings


def luma_of(frame: Frame) -> np.ndarray:
    """Return the green channel, which for these grey pictures is the displayed luma."""
    rgb = frame.picture.to_rgb()
    assert rgb.flags.c_contiguous
    return rgb[:, :, 1]


@pytest.mark.parametrize("name", CLIPS)
def test_every_frame_upright_at_its_own_time(tmp_path: Path, name: str) -> None:
    file, clip = CLIPS[name]
    path = make_video(tmp_path / file, clip)
    times = clip.times
    with open_source(path) as source:
        assert source.kind == "video"
        assert source.name == str(path)
        frames = list(source)
        assert source.warnings == []
        assert source.finished
        assert list(source) == []
        high, wide = upright_luma(clip, 0).shape
        assert (source.width, source.height) == (wide, high)
    assert [f.index for f in frames] == list(range(len(times)))
    # The first frame counts from where picture or sound begins; the rest keeps its distance.
    first = frames[0].pts_seconds
    assert 0 <= first < 0.05
    for frame, time in zip(frames, times, strict=True):
        tick = 0.0005 if path.suffix in (".mkv", ".webm") else 1e-9
        assert frame.pts_seconds - first == pytest.approx(float(time - times[0]), abs=tick)
        assert (frame.width, frame.height) == (wide, high)
        picture = luma_of(frame)
        assert picture.shape == (high, wide)
        error = np.abs(picture.astype(float) - shown(clip, frame.index))
        middle = np.ones_like(error, bool)  # the mark's edge is blurred by coding
        middle[high // 2 - 4 : high // 2 + 4] = False
        middle[:, wide // 2 - 4 : wide // 2 + 4] = False
        assert error[middle].max() <= NEAR


@pytest.mark.parametrize(("has", "threads"), [(1, 1), (2, 1), (4, 2), (64, 4)])
def test_frames_are_decoded_side_by_side_where_cores_are_many(
    monkeypatch: pytest.MonkeyPatch, has: int, threads: int
) -> None:
    monkeypatch.setattr("videogender.sources.video.cores", lambda: has)
    assert decoder_threads() == threads


@pytest.mark.parametrize("name", ["b-frames", "variable", "transport", "turned-90", "webm"])
def test_threads_change_no_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    file, clip = CLIPS[name]
    path = make_video(tmp_path / file, clip)
    found = []
    for has in (1, 8):
        monkeypatch.setattr("videogender.sources.video.cores", lambda has=has: has)
        for span in ({}, {"start_seconds": 0.3, "end_seconds": 0.7}):
            frames, warnings = read(path, **span)
            pictures = [frame.picture.to_rgb().tobytes() for frame in frames]
            found.append(([(f.index, f.pts_seconds) for f in frames], pictures, warnings))
    assert found[:2] == found[2:]


@pytest.mark.parametrize("name", ["constant", "turned-90", "odd", "turned-mirrored", "10-bit-422"])
def test_scaled_while_converted(tmp_path: Path, name: str) -> None:
    file, clip = CLIPS[name]
    frames, _ = read(make_video(tmp_path / file, clip))
    small = frames[3].picture.to_rgb((20, 16))
    assert small.shape == (16, 20, 3)
    assert small.dtype == np.uint8
    assert small.flags.c_contiguous
    expected = Image.fromarray(shown(clip, 3).astype(np.uint8)).resize(
        (20, 16), Image.Resampling.BOX
    )
    near_edges = np.abs(small[:, :, 1].astype(int) - np.asarray(expected).astype(int))
    assert np.median(near_edges) <= NEAR
    assert near_edges[2, 2] <= NEAR
    assert near_edges[-3, -3] <= NEAR


@pytest.mark.parametrize(
    ("tag", "size", "codes"),
    [
        (5, (64, 48), (81, 90, 240)),
        (1, (64, 48), (63, 102, 240)),
        (2, (64, 48), (81, 90, 240)),
        (2, (1280, 720), (63, 102, 240)),
    ],
)
def test_colours_follow_the_matrix(
    tmp_path: Path, tag: int, size: tuple[int, int], codes: tuple[int, int, int]
) -> None:
    """Red has another code in BT.601 than in BT.709 (H.273); without a tag the size decides."""
    wide, high = size
    frame = av.VideoFrame(wide, high, "yuv420p")
    for plane, value in zip(frame.planes, codes, strict=True):
        np.frombuffer(memoryview(plane), np.uint8)[:] = value
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25, width=wide, height=high)
        stream.codec_context.colorspace = tag
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    (only,), _ = read(path)
    red, green, blue = only.picture.to_rgb((32, 18))[9, 9].astype(int)
    assert red >= 250
    assert green <= 6
    assert blue <= 6


# left, top, side: within, over the edges, and outside
SQUARES = [(2, 4, 16), (8, 6, 20), (-6, 30, 30), (42, 22, 40), (500, 500, 20)]


@pytest.mark.parametrize("name", ["constant", "turned-90", "odd", "turned-mirrored", "10-bit-422"])
def test_squares_are_those_of_the_whole(tmp_path: Path, name: str) -> None:
    file, clip = CLIPS[name]
    frames, _ = read(make_video(tmp_path / file, clip))
    picture = frames[3].picture
    squares = np.array(SQUARES)
    found = picture.squares_rgb(squares, 16)
    wanted = RgbPicture(picture.to_rgb()).squares_rgb(squares, 16)
    assert found.dtype == np.uint8
    # chroma is scaled on its own, so that it may be off where it changes
    off = np.abs(found.astype(int) - wanted)
    assert off.mean() <= 2
    assert np.quantile(off, 0.98) <= 12
    assert (np.abs(found[4].astype(int) - MEAN_RGB) <= 1).all()
    assert picture.squares_rgb(np.zeros((0, 3), np.int64), 16).shape == (0, 16, 16, 3)


def ramps(size_wh: tuple[int, int], matrix: int, full: bool, steepness: float) -> DecodedPicture:
    """Paint a picture whose samples rise towards one corner, in the colours of a matrix."""
    frame = av.VideoFrame(*size_wh, "yuvj420p" if full else "yuv420p")
    frame.colorspace = matrix
    for number, plane in enumerate(frame.planes):
        rows, columns = np.mgrid[: plane.height, : plane.width]
        down, across = (1.2, 0.8) if number == 0 else (0.4, 0.0)
        start = 60 if number == 0 else 100 + 40 * number
        samples_of(plane)[:] = start + steepness * (down * rows + across * columns)
    return DecodedPicture(
        frame, size_wh=size_wh, pts=0, time_base=Fraction(1, 25), scalers=Scalers()
    )


@pytest.mark.parametrize("size_wh", [(64, 48), (63, 47)])
@pytest.mark.parametrize(("matrix", "full"), [(1, False), (5, False), (9, False), (1, True)])
def test_squares_have_the_colours_of_the_whole(
    size_wh: tuple[int, int], matrix: int, full: bool
) -> None:
    picture = ramps(size_wh, matrix, full, steepness=1.0)
    whole = picture.to_rgb().astype(int)
    [square] = picture.squares_rgb(np.array([[4, 6, 40]]), 40)
    # swscale rounds down; a wrong matrix or range is off by ten and more
    assert np.abs(square - whole[6:46, 4:44]).max() <= 5
    assert np.abs((square - whole[6:46, 4:44]).mean((0, 1))).max() < 2


@pytest.mark.parametrize(("matrix", "full"), [(1, False), (5, False), (1, True)])
def test_pictures_shrunk_with_opencv_look_as_swscale_has_them(
    monkeypatch: pytest.MonkeyPatch, matrix: int, full: bool
) -> None:
    picture = ramps((192, 144), matrix, full, steepness=0.4)
    picture._orientation = Orientation(mirror_x=True)
    for size_wh in ((96, 72), (64, 48), (48, 36)):
        assert picture._binned_rgb(*size_wh) is not None
        quick = picture.to_rgb(size_wh).astype(int)
        with monkeypatch.context() as patch:
            patch.setattr("videogender.sources.picture.opencv", lambda: None)
            assert picture._binned_rgb(*size_wh) is None
            slow = picture.to_rgb(size_wh).astype(int)
        # swscale rounds down; a wrong matrix or range is off by ten and more
        assert quick.shape == slow.shape
        assert np.abs(quick - slow)[:, 2:-2].max() <= 6
        assert np.abs((quick - slow).mean((0, 1))).max() < 3
    assert picture._binned_rgb(100, 75) is None, "no whole squares"
    assert picture._binned_rgb(192, 144) is None


@pytest.mark.parametrize("mirrored", [False, True])
def test_chroma_of_squares_lies_where_luma_does(mirrored: bool) -> None:
    """Of an odd picture, the last column has a chroma sample of its own; mirrored, the first."""
    frame = av.VideoFrame(9, 9, "yuv420p")
    for number, plane in enumerate(frame.planes):
        samples_of(plane)[:] = 110 if number == 0 else 128
    samples_of(frame.planes[2])[:, -1] = 200
    scalers = Scalers()
    picture = DecodedPicture(
        frame, size_wh=(9, 9), pts=0, time_base=Fraction(1, 25), scalers=scalers
    )
    picture._orientation = Orientation(mirror_x=mirrored)
    [square] = picture.squares_rgb(np.array([[0, 0, 10]]), 10)[:, :9, :9]
    red = (square[:, :, 0] > square[:, :, 1] + 60).all(0).tolist()
    if mirrored:  # cut from the whole, whose chroma is smoothed
        assert red[0]
        assert not any(red[2:])
    else:
        assert red == [x == 8 for x in range(9)]


def test_full_range_formats_are_full_range_without_a_tag() -> None:
    frame = av.VideoFrame(64, 48, "yuvj420p")
    for plane, value in zip(frame.planes, (255, 128, 128), strict=True):
        np.frombuffer(memoryview(plane), np.uint8)[:] = value
    picture = DecodedPicture(
        frame, size_wh=(64, 48), pts=0, time_base=Fraction(1, 25), scalers=Scalers()
    )
    assert picture.full_range
    assert samples_of(picture.to_yuv420p().planes[0])[5, 5] == 255


@pytest.mark.parametrize(("kind", "bits"), [("gray", 8), ("gray10le", 10)])
@pytest.mark.parametrize(("limited", "black", "white"), [(True, 16, 235), (False, 0, 255)])
def test_grey_has_the_range_that_it_is_tagged_with(
    kind: str, bits: int, limited: bool, black: int, white: int
) -> None:
    frame = av.VideoFrame(63, 47, kind)
    frame.color_range = 1 if limited else 2
    stored = np.frombuffer(memoryview(frame.planes[0]), np.uint16 if bits > 8 else np.uint8)
    rows = stored.reshape(47, -1)
    rows[:, :32], rows[:, 32:] = black << (bits - 8), white << (bits - 8)
    picture = DecodedPicture(
        frame, size_wh=(63, 47), pts=0, time_base=Fraction(1, 25), scalers=Scalers()
    )
    assert picture.full_range is not limited
    ends = (0, 5), (0, 50)
    near = pytest.approx([0, 255], abs=2)
    assert [int(picture.to_rgb()[at].mean()) for at in ends] == near
    squares = picture.squares_rgb(np.array([[0, 0, 8], [40, 0, 8]]), 8)
    assert squares.mean((1, 2, 3)).round().tolist() == near
    planes = [samples_of(plane) for plane in picture.to_yuv420p().planes]
    assert [int(planes[0][at]) for at in ends] == pytest.approx([black, white], abs=1)
    assert {int(samples[0, 5]) for samples in planes[1:]} == {128}


def test_to_rgb_from_several_threads(tmp_path: Path) -> None:
    frames, _ = read(make_video(tmp_path / "a.mp4", Clip(rotation=90)))
    expected = [f.picture.to_rgb((24, 32)) for f in frames]
    wrong: list[int] = []

    def work() -> None:
        for _ in range(5):
            for index, frame in enumerate(frames):
                if not np.array_equal(frame.picture.to_rgb((24, 32)), expected[index]):
                    wrong.append(index)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_frames_outlive_the_source(tmp_path: Path) -> None:
    frames, _ = read(make_video(tmp_path / "a.mp4"))
    assert luma_of(frames[-1])[-1, -1] == pytest.approx((grey_of(24) - 16) * 255 / 219, abs=NEAR)


def test_closing_ends_the_reading(tmp_path: Path) -> None:
    with open_source(make_video(tmp_path / "a.mp4")) as source:
        frames = iter(source)
        next(frames)
        source.close()
        assert list(frames) == []
    source.close()


def test_estimates(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", Clip(frames=50))
    with open_source(path) as source:
        assert source.frame_count == 50
        assert source.duration_seconds == pytest.approx(2)
    with open_source(path, start_seconds=0.5, end_seconds=1.5) as source:
        assert source.frame_count == 25
        assert source.duration_seconds == pytest.approx(0.98)  # the first frame shows at 0.52


@pytest.mark.parametrize("b_frames", [0, 3])
@pytest.mark.parametrize("file", ["a.mp4", "a.mkv", "a.ts"])
@pytest.mark.parametrize("span", [(1.0, 2.0), (0.04, 0.12), (2.52, 60.0), (1.23, 1.29), (0, 0.5)])
def test_span_is_exact(tmp_path: Path, file: str, b_frames: int, span: tuple[float, float]) -> None:
    path = make_video(tmp_path / file, Clip(frames=75, b_frames=b_frames, sounds=[Sound()]))
    every, _ = read(path)
    start, end = span
    expected = [f for f in every if start - 1e-9 <= f.pts_seconds < end - 1e-9]
    assert expected
    frames, warnings = read(path, start_seconds=start, end_seconds=end)
    assert [f.index for f in frames] == [f.index for f in expected]
    assert [f.pts_seconds for f in frames] == [f.pts_seconds for f in expected]
    for frame, other in zip(frames, expected, strict=True):
        np.testing.assert_array_equal(luma_of(frame), luma_of(other))
    assert warnings == []


def test_span_counts_only_frames_that_are_shown(tmp_path: Path) -> None:
    """An edit list hides what lies before time 0."""
    path = make_video(tmp_path / "a.mp4", Clip(pts=range(-10, 65)))
    every, _ = read(path)
    assert len(every) == 65
    frames, _ = read(path, start_seconds=1.2)
    assert [f.index for f in frames] == [f.index for f in every if f.pts_seconds >= 1.2 - 1e-9]
    np.testing.assert_array_equal(luma_of(frames[0]), luma_of(every[frames[0].index]))


@pytest.mark.parametrize("file", ["a.mp4", "a.mkv"])
@pytest.mark.parametrize(
    ("span", "indices", "times"),
    [
        ((1.0, 4.0), [0], [1.0]),  # the first slide, from then on
        ((1.0, 6.0), [0, 1], [1.0, 5.0]),
        ((7.0, None), [1, 2], [7.0, 10.0]),
        ((12.0, None), [2], [12.0]),  # the last one still stands
        ((4.95, None), [1, 2], [5.0, 10.0]),
    ],
)
def test_a_slide_that_stands_when_a_span_begins_is_its_first_frame(
    tmp_path: Path,
    file: str,
    span: tuple[float, float | None],
    indices: list[int],
    times: list[float],
) -> None:
    slides = Clip(time_base=Fraction(1, 1000), pts=(0, 5000, 10000), last_seconds=Fraction(5))
    path = make_video(tmp_path / file, slides)
    frames, _ = read(path, start_seconds=span[0], end_seconds=span[1])
    assert [f.index for f in frames] == indices
    assert [f.pts_seconds for f in frames] == pytest.approx(times)
    every, _ = read(path)
    for frame in frames:
        np.testing.assert_array_equal(luma_of(frame), luma_of(every[frame.index]))


def test_start_alone_and_end_alone(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", Clip(frames=50))
    assert [f.index for f in read(path, start_seconds=1.8)[0]] == [45, 46, 47, 48, 49]
    assert [f.index for f in read(path, end_seconds=0.16)[0]] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("span", "message"),
    [
        ({"start_seconds": 7.0}, "shows nothing in that span; it lasts about 1.0 s"),
        ({"start_seconds": 2.0, "end_seconds": 1.0}, "the end should be later than 2 s"),
        ({"end_seconds": 0.0}, "the end should be later than 0 s"),
    ],
)
def test_empty_span(tmp_path: Path, span: dict[str, float], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        open_source(make_video(tmp_path / "a.mp4"), **span)


def test_cut_short_keeps_what_decodes(tmp_path: Path) -> None:
    clip = Clip(frames=100, muxer={"movflags": "+faststart"})
    path = cut_short(make_video(tmp_path / "a.mp4", clip), 0.8)
    frames, warnings = read(path)
    assert 20 < len(frames) < 95
    assert [f.index for f in frames] == list(range(len(frames)))
    assert len(warnings) >= 1
    assert any("cut short" in w and "of 4.0 s" in w for w in warnings)


def test_cut_short_matroska(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mkv", Clip(frames=100, sounds=[Sound()]))
    frames, warnings = read(cut_short(path, 0.6))
    assert 20 < len(frames) < 95
    assert any("cut short" in w for w in warnings)


def test_sound_longer_than_the_picture_is_no_damage(tmp_path: Path) -> None:
    for file in ("a.mkv", "a.mp4"):
        frames, warnings = read(make_video(tmp_path / file, Clip(sounds=[Sound(seconds=3)])))
        assert len(frames) == 25
        assert warnings == []


def test_damage_in_the_middle(tmp_path: Path) -> None:
    clip = Clip(frames=100, width=160, height=128, gop=10)
    path = make_video(tmp_path / "a.mp4", clip)
    data = bytearray(path.read_bytes())
    middle = (data.index(b"mdat") + data.index(b"moov")) // 2
    data[middle : middle + 300] = bytes(300)
    path.write_bytes(data)
    frames, warnings = read(path)
    assert 80 <= len(frames) < 100
    assert any("damaged pieces were left out" in w for w in warnings)
    times = [f.pts_seconds for f in frames]
    assert times == sorted(set(times))
    assert times[-1] == pytest.approx(3.96)


def test_cover_pictures_are_no_video(tmp_path: Path) -> None:
    frames, warnings = read(make_video(tmp_path / "a.mp4", Clip(cover=True)))
    assert len(frames) == 25
    assert warnings == []


BAD_FILES = {
    "missing.mp4": "no such file",
    "empty.mp4": "the file is empty",
    "folder": "a folder where a file is needed",
    "pipe.mp4": "not a regular file",
    "text.mp4": "not a video",
    "text.txt": "not a video",
    "sound.m4a": "no video stream: it holds only sound",
    "song.mp4": "no video stream: it holds only sound",
    "unknown.mp4": "video codec is not supported",
    "headless.mp4": "not a video, or damaged at its beginning",
    "noise.mp4": "damaged from its first frame on",
    "broken.jpg": "a damaged image",
    "fake.png": "not a readable image",
}


@pytest.fixture(scope="module")
def bad_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("bad")
    (place / "empty.mp4").touch()
    (place / "folder").mkdir()
    os.mkfifo(place / "pipe.mp4")
    (place / "text.mp4").write_text("This is no video at all.\n" * 40)
    (place / "text.txt").write_text("This is no video at all.\n" * 40)
    make_song(place / "sound.m4a")
    make_song(place / "song.mp4", cover=True)
    plain = make_video(place / "plain.mp4", Clip()).read_bytes()
    (place / "unknown.mp4").write_bytes(plain.replace(b"avc1", b"zzzz"))
    (place / "headless.mp4").write_bytes(plain[: len(plain) // 2])
    start = plain.index(b"mdat") + 4
    end = plain.index(b"moov") - 4
    (place / "noise.mp4").write_bytes(plain[:start] + bytes(end - start) + plain[end:])
    noise = np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(place / "broken.jpg")
    cut_short(place / "broken.jpg", 0.4)
    (place / "fake.png").write_text("no picture")
    return place


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_input_is_told_in_one_line(bad_files: Path, name: str) -> None:
    path = bad_files / name
    with pytest.raises(SourceError, match=BAD_FILES[name]) as caught:
        open_source(path)
    message = str(caught.value)
    assert message.startswith(f"{path}")
    assert "\n" not in message


def test_colon_in_a_name_is_no_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_video(tmp_path / "plain.mp4").rename(tmp_path / "http:clip.mp4")
    monkeypatch.chdir(tmp_path)
    frames, _ = read(Path("http:clip.mp4"))
    assert len(frames) == 25
    assert frames[0].source == "http:clip.mp4"


@pytest.mark.parametrize(
    ("said", "expected", "repairs"),
    [
        ([0, 10, 20, 30], [0, 10, 20, 30], 0),
        ([5, 6, 7], [5, 6, 7], 0),
        ([0, 10, 10, 20], [0, 10, 11, 20], 1),
        ([0, 20, 10, 30], [0, 20, 21, 30], 1),
        ([None, None, 20], [0, 10, 20], 2),
        ([0, 5, 5, 5, 6, 30], [0, 5, 6, 7, 8, 30], 3),
        ([8000, 8010, 0, 10, 20], [8000, 8010, 8020, 8030, 8040], 1),
        ([0, 10, 36_000_000, 30, 40], [0, 10, 20, 30, 40], 1),
        ([0, 10, 36_000_000, 72_000_000, 40], [0, 10, 20, 30, 40], 2),
        ([0, 10, 5_000_000, 5_000_010, 5_000_020], [0, 10, 20, 5_000_010, 5_000_020], 1),
        ([0, 10, 300_000, 300_010], [0, 10, 300_000, 300_010], 0),  # five minutes of one picture
    ],
)
def test_clock_always_moves_forward(
    said: list[int | None], expected: list[int], repairs: int
) -> None:
    clock = Clock(Fraction(1, 1000), usual_ticks=10)
    assert [clock.tick(pts, None) for pts in said] == expected
    assert clock.repairs == repairs


def test_missing_times_are_made_up_and_told(tmp_path: Path) -> None:
    """A raw stream has no times at all."""
    path = tmp_path / "a.h264"
    make_video(path, Clip(frames=20))
    frames, _ = read(path)
    assert len(frames) == 20
    gaps = np.diff([f.pts_seconds for f in frames])
    assert gaps.min() > 0
    assert np.median(gaps) == pytest.approx(0.04, abs=0.001)


def test_size_change_in_the_middle_keeps_one_size(tmp_path: Path) -> None:
    make_video(tmp_path / "a.ts", Clip(frames=40))
    make_video(tmp_path / "b.ts", Clip(width=96, height=80, frames=40))
    joined = tmp_path / "joined.ts"
    joined.write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    frames, _ = read(joined)
    assert len(frames) == 80
    assert {(f.width, f.height) for f in frames} == {(64, 48)}
    assert {f.picture.to_rgb().shape for f in frames} == {(48, 64, 3)}
    times = [f.pts_seconds for f in frames]
    assert times == sorted(set(times))
    # The second recording's clock begins again; it is played behind the first.
    assert times[-1] == pytest.approx(79 * 0.04, abs=0.05)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int) -> None:
    upright = np.zeros((40, 64, 3), np.uint8)
    upright[:20, :32] = (250, 0, 0)
    upright[20:, :32] = (0, 250, 0)
    # EXIF 2.32, 4.6.4 A: what has to be done to the stored picture, undone here.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.png"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif)
    (frame,), warnings = read(path)
    assert (frame.index, frame.pts_seconds, frame.source) == (0, None, str(path))
    np.testing.assert_array_equal(frame.picture.to_rgb(), upright)
    assert warnings == []


@pytest.mark.parametrize("suffix", sorted(IMAGE_SUFFIXES))
def test_image_formats(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.new("RGB", (33, 21), (200, 100, 50)).save(path)
    with open_source(path) as source:
        assert (source.kind, source.width, source.height) == ("image", 33, 21)
        assert (source.frame_count, source.duration_seconds) == (1, None)
        (frame,) = source
        assert list(source) == []
    pixel = frame.picture.to_rgb()[10, 10].astype(int)
    assert np.abs(pixel - (200, 100, 50)).max() <= NEAR
    assert frame.picture.to_rgb((11, 7)).shape == (7, 11, 3)


@pytest.mark.parametrize(
    "name",
    [
        *("a.tif", "a.webp", "a.png"),
        pytest.param(
            "a.avif",
            marks=pytest.mark.skipif(not images.reads_avif(), reason="this Pillow has no AVIF"),
        ),
    ],
)
def test_further_pages_are_told_of(tmp_path: Path, name: str) -> None:
    pages = [Image.new("RGB", (32, 16), (80 * i, 0, 0)) for i in range(3)]
    pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:])
    (frame,), warnings = read(tmp_path / name)
    assert frame.picture.to_rgb()[8, 8].tolist() == pytest.approx([0, 0, 0], abs=NEAR)
    assert warnings == [f"{tmp_path / name}: only the first of 3 pictures in it is used"]


def test_further_pictures_of_a_telephones_jpeg_are_no_pages(tmp_path: Path) -> None:
    pages = [Image.new("RGB", (32, 16)) for _ in range(2)]
    pages[0].save(tmp_path / "a.mpo", save_all=True, append_images=pages[1:])
    (tmp_path / "a.mpo").rename(tmp_path / "a.jpg")
    assert read(tmp_path / "a.jpg")[1] == []


def test_image_modes(tmp_path: Path) -> None:
    grey16 = np.full((8, 8), 0x8000, np.uint16)
    Image.fromarray(grey16).save(tmp_path / "deep.png")
    Image.new("RGBA", (8, 8), (10, 20, 30, 0)).save(tmp_path / "clear.png")
    Image.new("L", (8, 8), 77).save(tmp_path / "grey.png")
    Image.new("CMYK", (8, 8), (0, 0, 0, 0)).save(tmp_path / "print.jpg")
    expected = {"deep.png": 128, "clear.png": 255, "grey.png": 77, "print.jpg": 255}
    for name, value in expected.items():
        (frame,), _ = read(tmp_path / name)
        assert frame.picture.to_rgb()[4, 4].tolist() == pytest.approx([value] * 3, abs=2), name


def test_a_pillow_without_avif_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.avif"
    if images.reads_avif():
        Image.new("RGB", (32, 16)).save(path)  # which libav would show as a video of one frame
    else:
        path.write_bytes(b"\0\0\0\x1cftypavif")
    images.reads_avif.cache_clear()
    monkeypatch.delitem(features.modules, "avif", raising=False)  # as in one that is older
    try:
        with warnings.catch_warnings(action="error"), pytest.raises(SourceError) as caught:
            open_source(path)
    finally:
        images.reads_avif.cache_clear()
    assert str(caught.value) == f"{path}: the installed Pillow reads no AVIF; update it: 11.3 does"


def test_content_decides_not_the_name(tmp_path: Path) -> None:
    Image.new("RGB", (20, 10)).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "picture.mp4")
    make_video(tmp_path / "b.mp4").rename(tmp_path / "clip")
    assert open_source(tmp_path / "picture.mp4").kind == "image"
    with open_source(tmp_path / "clip") as source:
        assert source.kind == "video"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    names = "b.mp4 a.JPG c.mkv notes.txt .hidden.mp4 a.annotated.mp4 inner/d.mp4 odd[1].mp4"
    for name in names.split():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (".", ["a.JPG", "b.mp4", "c.mkv", "odd[1].mp4"]),
        ("*.m*", ["a.annotated.mp4", "b.mp4", "c.mkv", "odd[1].mp4"]),
        ("odd[1].mp4", ["odd[1].mp4"]),
        ("notes.txt", ["notes.txt"]),
        ("**/*.mp4", ["a.annotated.mp4", "b.mp4", "inner/d.mp4", "odd[1].mp4"]),
        ("./?.mp4", ["b.mp4"]),
    ],
)
def test_finding_inputs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, given: str, expected: list[str]
) -> None:
    monkeypatch.chdir(folder)
    assert [str(path) for path, _ in find_inputs(given)] == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("*.mov", r"\*\.mov: matches no file"),
        ("missing.mp4", r"missing\.mp4: no such file"),
        ("void", "void: no images or videos in this folder$"),
    ],
)
def test_inputs_that_stand_for_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, given: str, message: str
) -> None:
    (folder / "void").mkdir()
    monkeypatch.chdir(folder)
    with pytest.raises(SourceError, match=message):
        find_inputs(given)


def test_naming_inputs_loads_no_decoder() -> None:
    code = (
        "import sys; from videogender.sources import find_inputs, open_source; "
        "find_inputs(sys.executable); print(*sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"av", "PIL", "cv2", "torch"} & set(ran.stdout.split())


def test_subtitles_do_not_disturb_the_picture(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mkv", Clip(texts=[Text("subrip", [(0.1, 5.0, "long")])]))
    frames, warnings = read(path)
    assert len(frames) == 25
    assert warnings == []
