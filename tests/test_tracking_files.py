"""Tracks through whole files: two passes, their data and pictures, interruptions, cuts."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from squares import SquareDetector, picture, read_frames, square_x, write_video

from videogender.annotation import AnnotationInterrupted, Progress, annotate
from videogender.config import Settings, with_overrides
from videogender.errors import ConfigError
from videogender.frames import Faces
from videogender.passes import FirstPass
from videogender.pipeline import Pipeline, WeakDetector
from videogender.sources import open_source
from videogender.sources.picture import DecodedPicture


def settings_of(**values: object) -> Settings:
    return with_overrides(
        Settings(), {key.replace("__", "."): value for key, value in values.items()}
    )


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_pictures(path: Path, pictures: Sequence[NDArray[np.uint8]], fps: int = 25) -> Path:
    height, width = pictures[0].shape[:2]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for array in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
        container.mux(stream.encode(None))
    return path


class Scripted(SquareDetector):
    """Alters what is found by the number of the look."""

    def __init__(self, alter: Callable[[int, Faces], Faces], **options: Any) -> None:
        super().__init__(**options)
        self._alter = alter
        self.looks = 0

    def detect(
        self, scaled: Sequence[NDArray[np.uint8]], sizes_wh: Sequence[tuple[int, int]]
    ) -> list[Faces]:
        found = []
        for faces in super().detect(scaled, sizes_wh):
            found.append(self._alter(self.looks, faces))
            self.looks += 1
        return found


def blind(*looks: int) -> Callable[[int, Faces], Faces]:
    return lambda look, faces: Faces.empty() if look in looks else faces


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_video(tmp_path / "clip.mp4")


def test_rows_carry_the_track_and_its_label(clip: Path, tmp_path: Path) -> None:
    """The square crosses the middle in frame 23 or so; the detector then changes its mind."""

    def wavering(look: int, faces: Faces) -> Faces:
        return replace(faces, female=np.full(1, 0.2 if look % 3 == 0 else 0.95, np.float32))

    rows = {}
    for mode in ("track", "frame"):
        path = tmp_path / f"{mode}.jsonl"
        annotate(
            clip,
            detector=Scripted(wavering),
            settings=settings_of(track__label_by=mode),
            json=path,
            video=False,
        )
        rows[mode] = [face for record in records(path) for face in record["faces"]]
        assert len(rows[mode]) == 25
    assert {face["label"] for face in rows["frame"]} == {"female", "male"}
    assert {face["track"] for face in rows["frame"]} == {None}
    assert {face["label"] for face in rows["track"]} == {"female"}
    assert {face["track"] for face in rows["track"]} == {1}
    assert len({face["female"] for face in rows["track"]}) == 1
    for a, b in zip(rows["track"], rows["frame"], strict=True):
        assert (a["box"], a["score"], a["predicted"]) == (b["box"], b["score"], False)


def test_an_image_is_not_followed(tmp_path: Path) -> None:
    from PIL import Image

    path = tmp_path / "still.png"
    Image.fromarray(picture(200, 150, (20, 30, 60))).save(path)
    annotate(path, detector=SquareDetector(), json=tmp_path / "faces.jsonl", video=False)
    [record] = records(tmp_path / "faces.jsonl")
    [face] = record["faces"]
    assert (face["track"], face["predicted"], face["female"]) == (None, False, 0.93)


@pytest.mark.parametrize("key", ["track__every", "track__detect_fps"])
def test_rare_looks_and_boxes_that_follow(clip: Path, tmp_path: Path, key: str) -> None:
    detector = SquareDetector()
    path = tmp_path / "faces.jsonl"
    settings = settings_of(**{key: 5})
    [summary] = annotate(clip, detector=detector, settings=settings, json=path)
    assert sum(detector.batches) == 5
    assert (summary.frames, summary.faces) == (25, 25)
    for i, record in enumerate(records(path)):
        [face] = record["faces"]
        x = square_x(i)
        np.testing.assert_allclose(face["box"], [x, 40, x + 32, 72], atol=2.5)
        assert (face["track"], face["predicted"]) == (1, False)
    # The drawing surrounds the square in frames that the detector never saw.
    assert summary.output is not None
    for i, (old, new) in enumerate(
        zip(read_frames(clip), read_frames(summary.output), strict=True)
    ):
        _, columns = np.nonzero(np.abs(old.astype(int) - new).max(axis=2) > 60)
        assert abs(columns.min() - square_x(i)) <= 8, f"frame {i}"


def test_files_are_looked_at_ten_times_a_second_unless_faces_are_hidden(
    clip: Path, tmp_path: Path
) -> None:
    for number, (more, looks) in enumerate(
        [
            ({}, 10),
            ({"track__every": 2}, 13),
            ({"track__detect_fps": 0}, 25),
            ({"render__blur": True}, 25),
            ({"render__blur": True, "track__detect_fps": 5}, 5),
            ({"track__label_by": "frame"}, 25),
        ]
    ):
        detector = SquareDetector()
        out = tmp_path / f"{number}.jsonl"
        annotate(clip, detector=detector, settings=settings_of(**more), json=out, video=False)
        assert sum(detector.batches) == looks, more
        for i, record in enumerate(records(out)):
            [face] = record["faces"]
            np.testing.assert_allclose(face["box"], [square_x(i), 40, square_x(i) + 32, 72], atol=2)


def test_missed_frames_are_bridged_and_drawn_dashed(clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "faces.jsonl"
    plain = settings_of(render__labels=False, track__detect_fps=0)
    [summary] = annotate(clip, detector=Scripted(blind(10, 11, 12)), settings=plain, json=path)
    flags = [[face["predicted"] for face in record["faces"]] for record in records(path)]
    assert flags == [[i in (10, 11, 12)] for i in range(25)]
    assert summary.output is not None
    before, after = read_frames(clip), read_frames(summary.output)
    drawn = [
        int((np.abs(old.astype(int) - new).max(axis=2) > 60).sum())
        for old, new in zip(before, after, strict=True)
    ]
    solid = np.median([drawn[i] for i in range(25) if i not in (10, 11, 12)])
    for i in (10, 11, 12):
        assert 0.35 * solid < drawn[i] < 0.9 * solid


def test_blur_hides_also_what_was_found_once(clip: Path) -> None:
    only = Scripted(lambda look, faces: faces if look == 12 else Faces.empty())
    quiet = settings_of(render__labels=False, render__style="none")
    hidden = with_overrides(quiet, {"render.blur": True})
    for settings, count in ((quiet, 0), (hidden, 1)):
        only.looks = 0
        [summary] = annotate(clip, detector=only, settings=settings, force=True)
        assert summary.faces == count
    assert summary.output is not None
    inside = slice(square_x(12) - 4, square_x(12) + 36)
    contrast = [frame[36:76, inside].std() for frame in read_frames(summary.output)]
    assert contrast[12] < 0.8 * contrast[11]


def test_blur_hides_a_face_that_fades(clip: Path, tmp_path: Path) -> None:
    """What goes on at a score below the threshold is followed, and so it can be hidden."""
    fading = Scripted(
        lambda look, faces: replace(faces, scores=np.full(1, 0.9 if look < 10 else 0.3, np.float32))
    )
    shown = {}
    for blur in (False, True):
        fading.looks = 0
        out = tmp_path / f"{blur}.jsonl"
        settings = settings_of(render__blur=blur, track__every=1)
        annotate(clip, detector=fading, settings=settings, json=out, video=False)
        shown[blur] = [r["frame"] for r in records(out) if r["faces"]]
    assert shown == {False: list(range(10)), True: list(range(25))}


def test_a_cut_ends_tracks(tmp_path: Path) -> None:
    """Two rooms with a square in one place; the second appears between two looks."""
    rng = np.random.default_rng(0)

    def room(seed: int) -> NDArray[np.uint8]:
        tiles = np.random.default_rng(seed).integers(10, 150, (6, 8), np.uint8)
        return np.repeat(np.kron(tiles, np.ones((20, 20), np.uint8))[..., None], 3, 2)

    rooms = [room(1)] * 13 + [room(2)] * 12
    pictures = []
    for array in rooms:
        image = np.clip(array + rng.integers(-3, 4, array.shape), 0, 255).astype(np.uint8)
        image[40:72, 60:92] = 255
        pictures.append(image)
    path = write_pictures(tmp_path / "rooms.mp4", pictures)
    for every in (1, 5):
        out = tmp_path / f"{every}.jsonl"
        detector = SquareDetector()
        rate = 0 if every == 1 else None  # null leaves it to `every`, too, where that is over 1
        settings = settings_of(track__every=every, track__detect_fps=rate)
        annotate(path, detector=detector, settings=settings, json=out, video=False)
        ids = [[face["track"] for face in record["faces"]] for record in records(out)]
        assert ids == [[1]] * 13 + [[2]] * 12
        assert sum(detector.batches) == {1: 25, 5: 6}[every], "the first of a shot is looked at"
    annotate(
        path,
        detector=SquareDetector(),
        settings=settings_of(track__cuts=False),
        json=tmp_path / "uncut.jsonl",
        video=False,
    )
    assert {f["track"] for r in records(tmp_path / "uncut.jsonl") for f in r["faces"]} == {1}


class Asked(SquareDetector):
    """Reports the squares with a score that sinks, down to the threshold it was asked for."""

    face_threshold = 0.5

    def at_threshold(self, face_threshold: float, *, follows: bool = False) -> Asked:
        assert follows
        other = Asked()
        other.face_threshold = face_threshold
        return other

    def detect(
        self, scaled: Sequence[NDArray[np.uint8]], sizes_wh: Sequence[tuple[int, int]]
    ) -> list[Faces]:
        found = []
        for faces in super().detect(scaled, sizes_wh):
            # frames 10 to 13, told by where the square is
            doubtful = 29.5 <= faces.boxes[0, 0] < 37.5
            score = 0.3 if doubtful else 0.9
            found.append(
                replace(faces, scores=np.full(1, score, np.float32))
                if score >= self.face_threshold
                else Faces.empty()
            )
        return found


def test_a_detector_is_asked_for_fainter_faces(clip: Path, tmp_path: Path) -> None:
    assert isinstance(Asked(), WeakDetector)
    assert not isinstance(SquareDetector(), WeakDetector)
    path = tmp_path / "faces.jsonl"
    annotate(clip, detector=Asked(), json=path, video=False)
    scores = [record["faces"][0]["score"] for record in records(path)]
    assert 3 <= scores.count(0.3) <= 4
    assert {face["track"] for r in records(path) for face in r["faces"]} == {1}
    frame = settings_of(track__label_by="frame")
    annotate(clip, detector=Asked(), settings=frame, json=path, video=False, force=True)
    assert 3 <= [len(record["faces"]) for record in records(path)].count(0) <= 4


def test_part_of_a_video_is_followed(clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "faces.jsonl"
    [summary] = annotate(
        clip, detector=SquareDetector(), json=path, start_seconds=0.4, end_seconds=0.8
    )
    found = records(path)
    assert [record["frame"] for record in found] == list(range(10, 20))
    assert [face["track"] for record in found for face in record["faces"]] == [1] * 10
    assert summary.output is not None
    assert len(read_frames(summary.output)) == 10


class Interrupts(Progress):
    """Presses Ctrl-C at chosen moments and writes down what it is told."""

    def __init__(self, looks: int | None = None, writes: int | None = None) -> None:
        self.looks, self.writes = looks, writes
        self.passes: list[tuple[str, int | None]] = []
        self.still_to_write: int | None = None

    def begin_pass(self, name: str, frames: int | None) -> None:
        self.passes.append((name, frames))

    def stopped(self, frames: int) -> None:
        self.still_to_write = frames

    def look(self, faces: int) -> None:
        if self.looks is not None:
            self.looks -= 1
            if self.looks == 0:
                raise KeyboardInterrupt

    def advance(self, faces: int) -> None:
        if self.writes is not None:
            self.writes -= 1
            if self.writes == 0:
                raise KeyboardInterrupt


def test_both_passes_are_told(clip: Path) -> None:
    progress = Interrupts()
    annotate(clip, detector=SquareDetector(), progress=progress)
    assert progress.passes == [("looking", 25), ("drawing", 25)]


@pytest.mark.parametrize("video", [True, False])
def test_ctrl_c_while_looking_writes_what_was_seen(tmp_path: Path, video: bool) -> None:
    long = write_video(tmp_path / "long.mp4", count=400)
    path, progress = tmp_path / "faces.jsonl", Interrupts(looks=30)
    with pytest.raises(AnnotationInterrupted) as caught:
        annotate(long, detector=SquareDetector(), json=path, video=video, progress=progress)
    [summary] = caught.value.summaries
    assert 30 <= summary.frames < 400
    assert progress.still_to_write == summary.frames
    found = records(path)
    assert len(found) == summary.frames
    assert all(record["faces"][0]["track"] for record in found)
    if video:
        assert summary.output is not None
        assert len(read_frames(summary.output)) == summary.frames


def test_ctrl_c_again_keeps_what_is_drawn(tmp_path: Path) -> None:
    long = write_video(tmp_path / "long.mp4", count=400)
    path, progress = tmp_path / "faces.jsonl", Interrupts(looks=300, writes=5)
    with pytest.raises(AnnotationInterrupted) as caught:
        annotate(long, detector=SquareDetector(), json=path, progress=progress)
    [summary] = caught.value.summaries
    assert summary.output is not None
    assert 5 <= summary.frames < 300
    assert len(read_frames(summary.output)) == len(records(path)) == summary.frames


def test_the_first_pass_keeps_no_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: weakref.WeakSet[DecodedPicture] = weakref.WeakSet()
    begin = DecodedPicture.__init__
    most = 0

    def counted(self: DecodedPicture, *args: Any, **options: Any) -> None:
        nonlocal most
        begin(self, *args, **options)
        alive.add(self)
        most = max(most, len(alive))

    monkeypatch.setattr(DecodedPicture, "__init__", counted)
    long = write_video(tmp_path / "long.mp4", count=200)
    with open_source(long) as source:
        first = FirstPass(source, SquareDetector(), Settings().track, 0.5)
        with Pipeline() as pipeline:
            assert sum(first.start(pipeline)) == 200
    gc.collect()
    assert most <= 4
    settled = first.settle()
    assert len(settled) == 200
    # The square jumps back every 50 frames.
    assert [track.frames for track in settled.tracks] == [50] * 4


def test_data_alone_decodes_once(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []
    begin = DecodedPicture.__init__

    def counted(self: DecodedPicture, *args: Any, **options: Any) -> None:
        begin(self, *args, **options)
        decoded.append(self.pts)

    monkeypatch.setattr(DecodedPicture, "__init__", counted)
    annotate(clip, detector=SquareDetector(), json=tmp_path / "a.jsonl", video=False)
    assert len(decoded) == 25
    annotate(clip, detector=SquareDetector(), json=tmp_path / "b.jsonl")
    assert len(decoded) == 75
    assert (tmp_path / "a.jsonl").read_text() == (tmp_path / "b.jsonl").read_text()


def test_warnings_of_two_passes_are_told_once(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mkv", count=100)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    [summary] = annotate(cut, detector=SquareDetector())
    assert len(summary.warnings) == 1
    assert summary.output is not None
    assert len(read_frames(summary.output)) == summary.frames == summary.faces


def test_settings_that_contradict_each_other_are_refused_first(clip: Path) -> None:
    settings = settings_of(track__every=2, track__label_by="frame")
    with pytest.raises(ConfigError, match="--label-by frame keeps no tracks"):
        annotate(clip, detector=SquareDetector(), settings=settings)
