"""Thumbnails of a real clip: from the best view, read once, and blurred beyond recognition."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from media import NEAR, Clip, grey_of, make_video
from numpy.typing import NDArray
from PIL import Image
from settled_videos import Actor, settled_video, ticks

from videogender.frames import Frame
from videogender.reports import thumbnails
from videogender.reports.thumbnails import Kind, Thumbnails, portrait
from videogender.sources import open_source
from videogender.tracking.settle import Settled

STILL = Path(__file__).parent.parent / "samples" / "stills" / "obama.jpg"


@dataclass
class Counting:
    """Says by its grey which frame it is, and counts who looks."""

    grey: int
    reads: list[int] = field(default_factory=list)
    width: int = 640
    height: int = 360

    def to_rgb(self, size_wh: tuple[int, int] | None = None) -> NDArray[np.uint8]:
        assert size_wh is None
        self.reads.append(self.grey)
        return np.full((self.height, self.width, 3), self.grey, np.uint8)


def offer_all(thumbs: Thumbnails, settled: Settled, reads: list[int]) -> None:
    for row, seconds in enumerate(settled.seconds.tolist()):
        thumbs.offer(Frame(Counting(row, reads), row, seconds, "a"), settled.faces(row))


def pixels(jpeg: bytes | None) -> NDArray[np.uint8]:
    assert jpeg is not None
    return np.array(Image.open(io.BytesIO(jpeg)))


def test_the_largest_view_is_taken_and_other_frames_are_not_read() -> None:
    """One face grows, one shrinks, and one grows past the edge, where less of it is seen."""
    actors = [
        Actor([(0, 10)], growth=5),
        Actor([(0, 10)], size=120, growth=-5, x=300),
        Actor([(0, 10)], size=60, growth=15, x=560),
    ]
    settled = settled_video(actors, ticks(10))
    reads: list[int] = []
    thumbs = Thumbnails(settled, "plain", size_wh=(640, 360))
    offer_all(thumbs, settled, reads)
    grown, shrunk, cut_off = (int(pixels(thumbs.jpeg(i)).mean()) for i in (1, 2, 3))
    assert grown == pytest.approx(99, abs=2)
    assert shrunk == pytest.approx(0, abs=2)
    assert cut_off < 60  # at 2.7 s its right edge leaves the picture
    assert len(reads) == len(set(reads)) <= 3
    assert thumbs.jpeg(4) is None


def test_none_reads_nothing() -> None:
    settled = settled_video([Actor([(0, 5)])], ticks(5))
    reads: list[int] = []
    thumbs = Thumbnails(settled, "none")
    offer_all(thumbs, settled, reads)
    assert (reads, thumbs.jpeg(1)) == ([], None)
    with pytest.raises(ValueError, match="none, blurred, plain"):
        Thumbnails(settled, "sharp")  # type: ignore[arg-type]


def test_memory_is_bounded_and_the_longest_tracks_come_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(thumbnails, "MOST_TRACKS", 4)
    settled = settled_video([Actor([(0, 2 + i)], x=40.0 * i) for i in range(8)], ticks(10))
    thumbs = Thumbnails(settled)
    offer_all(thumbs, settled, [])
    longest = sorted(settled.tracks, key=lambda track: -track.frames)[:4]
    kept = {track.id for track in settled.tracks if thumbs.jpeg(track.id)}
    assert kept == {track.id for track in longest}
    assert all(len(thumbs.jpeg(i) or b"") < 2500 for i in kept)


def test_frames_of_a_real_clip(tmp_path: Path) -> None:
    """The second pass of a file meets its settled frames by their time."""
    path = make_video(tmp_path / "a.mp4", Clip(frames=25, width=320, height=240))
    with open_source(path) as source:
        times = [frame.pts_seconds or 0.0 for frame in source]
    settled = settled_video([Actor([(0, 9)], growth=20, x=200, score=0.95)], times)
    thumbs = Thumbnails(settled, "plain")
    with open_source(path) as source:
        for row, frame in enumerate(source):
            thumbs.offer(frame, settled.faces(row))
    full_range = (grey_of(24) - 16) * 255 / 219
    assert pixels(thumbs.jpeg(1)).mean() == pytest.approx(full_range, abs=NEAR)


def detail(picture: NDArray[np.uint8]) -> float:
    """Strength of the fine structure: what differs from a version of a quarter of its size."""
    image = Image.fromarray(picture)
    small = image.resize((18, 18), Image.Resampling.BOX).resize(
        image.size, Image.Resampling.BICUBIC
    )
    return float(np.abs(picture.astype(float) - np.array(small)).mean())


def faces() -> Iterator[tuple[Kind, NDArray[np.uint8]]]:
    with Image.open(STILL) as file:
        image = file.convert("RGB")
    box = (image.width * 0.3, image.height * 0.1, image.width * 0.7, image.height * 0.6)
    for kind in ("plain", "blurred"):
        yield kind, pixels(portrait(image, box, is_blurred=kind == "blurred"))  # type: ignore[misc]


def test_blurred_pictures_hold_colours_alone() -> None:
    shown = dict(faces())
    plain, blurred = shown["plain"], shown["blurred"]
    assert plain.shape == blurred.shape == (72, 72, 3)
    assert detail(plain) > 4 * detail(blurred)
    # As many numbers as there are cells explain all of it but the noise of JPEG.
    cells = Image.fromarray(blurred).resize((6, 6), Image.Resampling.BOX)
    again = np.array(cells.resize((72, 72), Image.Resampling.BICUBIC)).astype(float)
    assert np.abs(again - blurred).mean() < 8
    assert np.abs(plain.mean((0, 1)) - blurred.mean((0, 1))).max() < 6


@pytest.mark.parametrize(
    "box", [(-30, -20, 30, 40), (630, 350, 700, 420), (700, 400, 800, 500), (5, 5, 5, 5)]
)
def test_boxes_may_reach_past_the_picture_or_lie_outside(box: tuple[float, ...]) -> None:
    image = Image.new("RGB", (640, 360), (200, 0, 0))
    assert pixels(portrait(image, box, is_blurred=False)).shape == (72, 72, 3)
