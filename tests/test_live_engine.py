"""The engine: bounded latency and memory, dropping and waiting, several sources, coming back."""

from __future__ import annotations

import gc
import json
import threading
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from media import Clip, cut_short, make_video
from numpy.typing import NDArray
from squares import SquareDetector, picture, read_frames, square_x, write_video

from videogender.config import (
    LiveSettings,
    RenderSettings,
    Settings,
    TrackSettings,
    VideoSettings,
    ZoneSettings,
)
from videogender.errors import ConfigError, OutputError, SourceError, VideogenderError
from videogender.frames import Faces, RgbPicture
from videogender.live.engine import Engine
from videogender.sinks.livelog import LiveLog
from videogender.sinks.record import Recorder
from videogender.sinks.recording import Recording
from videogender.sources.live import Grab, UnreachableError
from videogender.sources.playback import Playback

pytestmark = pytest.mark.timed

FRAME_SECONDS = 0.01


@dataclass
class Scripted:
    """A camera that never waits: pictures of a moving square at a fixed rate, then an end."""

    count: int
    name: str = "scripted"
    waits: bool = False
    frame_seconds: float = FRAME_SECONDS
    size_wh: tuple[int, int] = (160, 120)
    lives: Sequence[int] = ()  # pictures until it is lost, for each time that it is opened
    opened: int = 0
    given: int = 0

    def grabs(self, stop: threading.Event) -> Iterator[Grab]:
        self.opened += 1
        life = self.lives[self.opened - 1] if self.opened <= len(self.lives) else self.count
        began = time.monotonic()
        for number in range(life):
            if self.given >= self.count:
                return
            due = began + number * self.frame_seconds
            if stop.wait(max(0.0, due - time.monotonic())):
                return
            array = picture(*self.size_wh, (square_x(self.given), 40, 32))
            self.given += 1
            yield Grab(RgbPicture(array), time.monotonic())
        if self.given < self.count:
            raise UnreachableError(f"{self.name}: lost")


@dataclass
class Slow(SquareDetector):
    """Takes its time, and notes what it was asked."""

    seconds: float = 0.0
    asked: list[tuple[float, int]] = field(default_factory=list)

    def detect(
        self, scaled: Sequence[NDArray[np.uint8]], sizes_wh: Sequence[tuple[int, int]]
    ) -> list[Faces]:
        self.asked.append((time.monotonic(), len(scaled)))
        time.sleep(self.seconds)
        return super().detect(scaled, sizes_wh)


@dataclass
class Watcher:
    """A screen that remembers where squares and boxes were, and how old the pictures."""

    pictures: bool = True
    ages: list[float] = field(default_factory=list)
    squares: list[int] = field(default_factory=list)
    boxes: list[float] = field(default_factory=list)
    sources: list[int] = field(default_factory=list)
    newest: NDArray[np.uint8] | None = None
    closed: int = 0

    def wants(self, source: int) -> bool:
        return self.pictures

    def show(
        self, source: int, rgb: NDArray[np.uint8], faces: Faces, captured_seconds: float
    ) -> None:
        self.ages.append(time.monotonic() - captured_seconds)
        self.sources.append(source)
        row = rgb[55, :, 2] > 200  # within the square, away from lines of boxes
        self.squares.append(int(np.argmax(row)) if row.any() else -1)
        self.boxes.append(float(faces.boxes[0, 0]) if len(faces) else np.nan)
        self.newest = rgb

    def close(self) -> None:
        self.closed += 1


PLAIN = Settings(render=RenderSettings(style="none", labels=False))


def test_latency_stays_bounded_and_every_frame_is_shown_with_a_detector_five_times_too_slow() -> (
    None
):
    source, detector, watcher = Scripted(200), Slow(seconds=5 * FRAME_SECONDS), Watcher()
    engine = Engine([source], detector, PLAIN)
    engine.run([watcher])
    figures = engine.summaries()[0]
    assert len(watcher.ages) + figures["dropped"] == 200
    assert len(watcher.ages) > 160  # drawing does not wait for looking
    assert np.percentile(watcher.ages, 90) < 3 * FRAME_SECONDS
    assert max(watcher.ages[-50:]) < 0.1  # nothing piles up
    # Labels are as old as one look and what came during the one before, whatever was waiting.
    assert figures["label_ms_p50"] < 1e3 * 5 * FRAME_SECONDS * 2.5
    assert 14 < figures["looks"] < 50
    assert watcher.closed == 1


def test_boxes_move_between_looks() -> None:
    source, detector, watcher = Scripted(190), Slow(seconds=5 * FRAME_SECONDS), Watcher()
    settings = replace(PLAIN, track=TrackSettings(cuts=False))  # nothing but the square is there
    Engine([source], detector, settings).run([watcher])
    squares = np.array(watcher.squares)
    off = np.array(watcher.boxes) - squares
    # The square runs 200 px a second, and looks alone would lie 10 to 20 px behind it. Every half
    # second it jumps back to the left, where it takes a while until it is found anew.
    late = off[(squares >= 80) & np.isfinite(off)]
    assert len(late) > 20
    assert np.median(np.abs(late)) < 7


@pytest.mark.slow
def test_memory_is_flat_over_thousands_of_frames() -> None:
    class Counting(Watcher):
        def show(self, source: int, rgb: NDArray[np.uint8], *rest: object) -> None:
            nonlocal shown
            shown += 1

    shown = 0
    source = Scripted(10**9, frame_seconds=0.002)
    engine = Engine([source], Slow(seconds=0.01), PLAIN)
    runner = threading.Thread(target=engine.run, args=([Counting()],))
    tracemalloc.start()
    runner.start()
    sizes: list[int] = []
    while len(sizes) < 5:
        until = source.given + 1200
        while source.given < until:
            time.sleep(0.02)
        sizes.append(tracemalloc.get_traced_memory()[0])
    engine.request_stop()
    runner.join(5)
    tracemalloc.stop()
    assert not runner.is_alive()
    assert shown > 300
    assert max(sizes[1:]) - min(sizes[1:]) < 500_000  # a frame is 57 kB, and 4800 passed


def test_files_wait_for_a_slow_screen_and_lose_nothing(tmp_path: Path) -> None:
    class Busy(Watcher):
        def show(self, source: int, rgb: NDArray[np.uint8], *rest: object) -> None:
            time.sleep(0.06)
            super().show(source, rgb, *rest)  # type: ignore[arg-type]

    clip = write_video(tmp_path / "clip.mp4", count=30)
    watcher = Busy()
    engine = Engine([Playback(clip)], SquareDetector(), PLAIN)
    engine.run([watcher])
    assert np.abs(np.array(watcher.squares) - [square_x(n) for n in range(30)]).max() <= 1
    assert engine.stats()[0].dropped == 0
    assert engine.stats()[0].state == "ended"


def test_files_drop_when_told_to(tmp_path: Path) -> None:
    class Busy(Watcher):
        def show(self, source: int, rgb: NDArray[np.uint8], *rest: object) -> None:
            time.sleep(0.12)
            super().show(source, rgb, *rest)  # type: ignore[arg-type]

    clip = write_video(tmp_path / "clip.mp4", count=25)
    watcher = Busy()
    engine = Engine([Playback(clip, drop=True)], SquareDetector(), PLAIN)
    engine.run([watcher])
    dropped = engine.stats()[0].dropped
    assert dropped > 5
    assert len(watcher.squares) + dropped == 25


def test_a_file_plays_at_its_own_speed_and_again_and_again(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", count=12)  # 0.48 s
    watcher = Watcher()
    engine = Engine([Playback(clip, loop=True)], SquareDetector(), PLAIN, duration_seconds=1.6)
    began = time.monotonic()
    engine.run([watcher])
    assert time.monotonic() - began > 1.5
    figures = engine.summaries()[0]
    assert len(watcher.squares) == figures["frames"] < 50  # 40 at the clip's own rate
    assert 5 < figures["fps_in"] < 35  # a busy machine is late, and then makes up for some
    back = np.diff(watcher.squares) < -5
    assert back.sum() >= 1


def test_the_time_of_a_file_runs_on_though_it_was_lost(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", count=5)
    source, stop = Playback(clip, loop=True), threading.Event()
    times: list[float] = []
    grabs = source.grabs(stop)
    times += [next(grabs).pts_seconds or 0.0 for _ in range(5)]
    clip.rename(tmp_path / "away.mp4")
    with pytest.raises(SourceError, match="no such file"):
        next(grabs)
    (tmp_path / "away.mp4").rename(clip)
    grabs = source.grabs(stop)
    times += [next(grabs).pts_seconds or 0.0 for _ in range(5)]
    assert times == pytest.approx([n / 25 for n in range(10)])


def test_what_is_wrong_with_a_file_is_told_once(tmp_path: Path) -> None:
    path = cut_short(make_video(tmp_path / "cut.mkv", Clip(frames=50)), 0.5)
    told: list[str] = []
    source = Playback(path, loop=True)
    Engine([source], SquareDetector(), PLAIN, notice=told.append, duration_seconds=3.0).run([])
    assert len([line for line in told if "cut short" in line]) == 1


def test_pixels_that_are_no_squares_are_recorded_so(tmp_path: Path) -> None:
    clip = make_video(tmp_path / "clip.mp4", Clip(frames=5, pixel_aspect=Fraction(4, 3)))
    for records_raw in (False, True):
        recorder = Recorder(
            tmp_path / f"{records_raw}.mkv", VideoSettings(preset="ultrafast"), waits=True
        )
        Engine(
            *([Playback(clip)], SquareDetector(), PLAIN),
            recorders=[recorder],
            records_raw=records_raw,
        ).run([])
        with av.open(str(recorder.path)) as container:
            assert container.streams.video[0].sample_aspect_ratio == Fraction(4, 3)


def test_several_sources_share_a_batch() -> None:
    sources = [Scripted(60, name=f"scripted {n}") for n in range(3)]
    detector, watcher = Slow(seconds=0.03), Watcher()
    engine = Engine(sources, detector, PLAIN)
    engine.run([watcher])
    sizes = [size for _, size in detector.asked[3:-3]]
    assert np.mean(sizes) > 2
    assert set(watcher.sources) == {0, 1, 2}
    assert engine.names == ("scripted 0", "scripted 1", "scripted 2")
    assert [stats.source for stats in engine.stats()] == list(engine.names)


def test_sources_of_different_sizes_are_not_mixed_in_a_batch() -> None:
    # The detector of squares refuses a batch of two sizes, which would end the run.
    sources = [Scripted(40), Scripted(40, size_wh=(120, 160))]
    Engine(sources, SquareDetector(), PLAIN).run([])


def test_a_source_that_is_lost_comes_back_and_says_so() -> None:
    told: list[str] = []
    source = Scripted(60, lives=[20, 20])
    engine = Engine([source], SquareDetector(), PLAIN, notice=told.append)
    states: set[str] = set()

    class Nosy(Watcher):
        def poll(self) -> None:
            states.add(engine.stats()[0].state)

    watcher = Nosy()
    engine.run([watcher])
    assert source.opened == 3
    assert engine.stats()[0].reconnects == 2
    assert {"running", "reconnecting"} <= states
    assert told == [
        "scripted: lost; trying again",
        "scripted: is there",
        "scripted: lost; trying again",
        "scripted: is there",
        "scripted: ended",
    ]
    assert len(watcher.ages) + engine.stats()[0].dropped == 60


def test_faces_of_before_a_loss_are_not_shown_after_it() -> None:
    class Late(SquareDetector):
        """Finds everything, until the source was lost; then it hangs in its look."""

        def detect(self, scaled, sizes_wh):  # type: ignore[no-untyped-def]
            if source.opened > 1:
                time.sleep(0.25)
            return super().detect(scaled, sizes_wh)

    source, watcher = Scripted(60, lives=[40]), Watcher()
    Engine([source], Late(), PLAIN).run([watcher])
    squares, boxes = np.array(watcher.squares), np.array(watcher.boxes)
    first_after = np.abs(squares - square_x(45)) <= 10  # pictures 40 to 49: nowhere else before
    assert np.isfinite(boxes[squares < square_x(39)]).any()
    assert first_after.any()
    assert np.isnan(boxes[first_after]).all()


def test_a_source_is_given_up_after_a_while() -> None:
    settings = replace(PLAIN, live=LiveSettings(give_up_after_seconds=0.8))
    source = Scripted(60, lives=[5] + [0] * 99)
    engine = Engine([source], SquareDetector(), settings)
    began = time.monotonic()
    with pytest.raises(SourceError, match=r"scripted: lost \(given up after 0.8 s\)"):
        engine.run([])
    assert 0.75 < time.monotonic() - began < 3
    assert engine.stats()[0].state == "failed"


def test_intervals_end_by_the_clock_though_no_frame_comes(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    sources = [Scripted(60, lives=[20] + [0] * 99), Scripted(10**6)]  # of one name
    with LiveLog(data, unsure_below=0.65, interval_seconds=0.4) as log:
        Engine(sources, SquareDetector(), PLAIN, duration_seconds=2.2).run([], log)
    lines = [json.loads(line) for line in data.read_text().splitlines()]
    assert [line["index"] for line in lines] == [0, 1] * (len(lines) // 2)
    assert "summary" in lines[-1]
    lost, well = lines[:-2:2], lines[1:-2:2]
    assert len(lost) == len(well) == 6
    assert len({tuple(line) for line in lost + well}) == 1  # one schema
    ends = np.cumsum([line["seconds"] for line in lost])
    assert ends[:-1] == pytest.approx(0.4 * np.arange(1, 6), abs=0.15)
    assert {line["state"] for line in lost[1:]} == {"reconnecting"}
    assert [line["frames"] for line in lost[1:]] == [0] * 5
    assert sum(line["fps_in"] * line["seconds"] for line in lost) == pytest.approx(20, abs=0.5)
    assert all(line["frames"] > 5 and line["state"] == "running" for line in well[:-1])


def test_one_failing_source_does_not_end_the_others() -> None:
    class Broken(Scripted):
        def grabs(self, stop: threading.Event) -> Iterator[Grab]:
            raise SourceError("broken: no such camera")

    told: list[str] = []
    engine = Engine(
        [Broken(1, name="broken"), Scripted(40)], SquareDetector(), PLAIN, notice=told.append
    )
    watcher = Watcher()
    with pytest.raises(SourceError, match="broken: no such camera"):  # once all have ended
        engine.run([watcher])
    assert len(watcher.ages) > 20
    assert "broken: no such camera" in told
    assert [stats.state for stats in engine.stats()] == ["failed", "ended"]


def test_an_error_of_the_network_ends_the_run() -> None:
    class Failing(SquareDetector):
        def detect(self, scaled, sizes_wh):  # type: ignore[no-untyped-def]
            if len(self.batches) > 3:
                raise VideogenderError("out of memory")
            return super().detect(scaled, sizes_wh)

    watcher = Watcher()
    with pytest.raises(VideogenderError, match="out of memory"):
        Engine([Scripted(10**6)], Failing(), PLAIN).run([watcher])
    assert watcher.closed == 1


def test_stopping_takes_less_than_two_seconds_in_the_middle_of_a_long_look() -> None:
    engine = Engine([Scripted(10**6)], Slow(seconds=4.0), PLAIN)
    runner = threading.Thread(target=engine.run)
    runner.start()
    time.sleep(0.5)  # it warms up, or looks
    began = time.monotonic()
    engine.request_stop()
    runner.join(5)
    assert time.monotonic() - began < 2
    assert not engine.ended_clean  # and says that a thread was left behind


def slow_disk(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    write = Recording.write

    def late(recording: Recording, rgb: NDArray[np.uint8], at: float) -> None:
        time.sleep(seconds)
        write(recording, rgb, at)

    monkeypatch.setattr(Recording, "write", late)


def test_recordings_of_files_are_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_disk(monkeypatch, 0.3)  # 2.4 s for what waits when the file ends
    clip = write_video(tmp_path / "clip.mp4", count=12)
    recorder = Recorder(tmp_path / "day.mp4", VideoSettings(preset="ultrafast"), waits=True)
    told: list[str] = []
    engine = Engine(
        [Playback(clip)], SquareDetector(), PLAIN, recorders=[recorder], notice=told.append
    )
    engine.run()
    assert engine.ended_clean
    assert len(read_frames(tmp_path / "day.mp4")) == 12
    assert "the recording is still being written; Ctrl-C leaves its end out" in told


def test_a_recording_that_cannot_be_finished_in_time_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_disk(monkeypatch, 3)
    recorder = Recorder(tmp_path / "day.mp4", VideoSettings(preset="ultrafast"))
    source = Scripted(100_000)
    engine = Engine([source], SquareDetector(), PLAIN, recorders=[recorder])
    threading.Timer(0.5, engine.request_stop).start()
    with pytest.raises(OutputError, match=r"day\.mp4: its end is missing"):
        engine.run()
    assert not engine.ended_clean
    monkeypatch.undo()
    assert recorder.stop(30)


def test_nothing_is_drawn_where_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    monkeypatch.setattr(
        "videogender.live.drawing.draw_faces", lambda *args: drawn.append(len(args[1]))
    )
    engine = Engine([Scripted(40)], SquareDetector(), PLAIN)
    engine.run([Watcher(pictures=False)])
    assert drawn == []
    assert engine.summaries()[0]["frames"] > 20  # counted all the same


def test_with_blur_every_shown_frame_was_looked_at_and_no_face_is_seen() -> None:
    settings = Settings(render=RenderSettings(style="none", labels=False, blur=True))
    detector, watcher = Slow(seconds=0.03), Watcher()
    engine = Engine([Scripted(120)], detector, settings)

    seen: list[float] = []

    class Sharp(Watcher):
        def show(self, source: int, rgb: NDArray[np.uint8], *rest: object) -> None:
            # The edge of a square spans 215 grey levels from one pixel to the next.
            seen.append(float(np.abs(np.diff(rgb[:, :, 1].astype(int), axis=1)).max()))
            super().show(source, rgb, *rest)  # type: ignore[arg-type]

    watcher = Sharp()
    engine.run([watcher])
    assert 10 < len(seen) <= engine.summaries()[0]["looks"]
    assert max(seen) < 100
    assert engine.stats()[0].dropped + len(seen) == 120


def test_with_blur_the_threshold_is_never_raised_above_where_it_began() -> None:
    settings = Settings(render=RenderSettings(blur=True))
    engine = Engine([Scripted(1)], SquareDetector(), settings)
    began = engine.face_threshold
    assert engine.most_threshold == began
    engine.set_face_threshold(began / 2)
    engine.set_face_threshold(began)
    with pytest.raises(ConfigError, match="with --blur the threshold stays at or below"):
        engine.set_face_threshold(began + 0.01)
    assert engine.face_threshold == began
    assert Engine([Scripted(1)], SquareDetector(), PLAIN).most_threshold == 1


def test_a_recording_that_died_says_why_until_it_is_started_again(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "day.mp4", VideoSettings(preset="ultrafast"))
    engine = Engine([Scripted(1)], SquareDetector(), PLAIN, recorders=[recorder])
    assert engine.recording_trouble == ""
    recorder.error = OutputError("day.mp4: the disk is full")
    assert engine.recording_trouble == "day.mp4: the disk is full"
    engine.start_recording()
    assert engine.recording_trouble == ""
    engine.stop_recording()


def test_names_that_are_no_text_are_told_as_text(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", count=5).rename(tmp_path / "clip-\udcff.mp4")
    settings = replace(PLAIN, zones=ZoneSettings(zone=("z\udcff:0,0;9,0;9,9",)))
    engine = Engine([Playback(clip)], SquareDetector(), settings)
    engine.run([])
    assert engine.names[0].endswith(r"clip-\udcff.mp4")
    told = json.dumps(asdict(engine.stats()[0]), ensure_ascii=False)
    assert told.encode()
    assert r"z\\udcff" in told


def test_raw_recordings_and_blur_contradict_each_other() -> None:
    settings = Settings(render=RenderSettings(blur=True))
    with pytest.raises(ConfigError, match="--record-raw"):
        Engine(
            [Scripted(1)],
            SquareDetector(),
            settings,
            recorders=[object()],  # type: ignore[list-item]
            records_raw=True,
        )


def test_the_threshold_can_be_moved_while_it_runs() -> None:
    @dataclass
    class Weak(SquareDetector):
        face_threshold: float = 0.5
        lows: list[float] = field(default_factory=list)

        def at_threshold(self, face_threshold: float, *, follows: bool = False) -> Weak:
            assert follows
            self.lows.append(face_threshold)
            return self

    detector, watcher = Weak(), Watcher()
    engine = Engine([Scripted(180)], detector, PLAIN)
    assert engine.face_threshold == 0.5

    def turn_up() -> None:
        while len(watcher.boxes) < 100:
            time.sleep(0.01)
        engine.set_face_threshold(0.95)  # squares have 0.9

    knob = threading.Thread(target=turn_up)
    knob.start()
    engine.run([watcher])
    knob.join()
    assert np.isfinite(watcher.boxes[60:100]).mean() > 0.8
    assert np.isnan(watcher.boxes[-50:]).all()
    assert detector.lows == [0.2, 0.2]  # faces that are followed may be as unsure as ever
    with pytest.raises(ValueError, match="0 to 1"):
        engine.set_face_threshold(1.5)


@pytest.mark.parametrize("blur", [False, True])
def test_pausing_holds_files_and_lets_cameras_run(tmp_path: Path, blur: bool) -> None:
    clip = write_video(tmp_path / "clip.mp4", count=50)
    settings = replace(PLAIN, render=replace(PLAIN.render, blur=blur))
    engine = Engine([Playback(clip, loop=True), Scripted(10**6)], SquareDetector(), settings)
    watcher = Watcher()
    runner = threading.Thread(target=engine.run, args=([watcher],))
    runner.start()
    while len(watcher.ages) < 10:
        time.sleep(0.01)
    engine.set_paused(True)
    time.sleep(0.2)
    before = [stats.frames for stats in engine.stats()]
    time.sleep(0.4)
    after = engine.stats()
    assert after[0].frames == before[0]
    assert after[0].state == "paused"
    assert after[1].frames > before[1] + 10
    engine.set_paused(False)
    time.sleep(0.4)
    assert engine.stats()[0].frames > before[0]
    engine.request_stop()
    runner.join(5)
    assert not runner.is_alive()


def test_looks_are_as_rare_as_asked_for() -> None:
    settings = replace(PLAIN, track=TrackSettings(detect_fps=10))
    engine = Engine([Scripted(150)], SquareDetector(), settings)
    engine.run([])
    assert 10 <= engine.summaries()[0]["looks"] <= 20  # 1.5 s


def test_labels_by_frame_need_no_tracks() -> None:
    settings = replace(PLAIN, track=TrackSettings(label_by="frame"))

    class Tracks(Watcher):
        def show(self, source: int, rgb: NDArray[np.uint8], faces: Faces, *rest: object) -> None:
            assert not len(faces.tracks)
            super().show(source, rgb, faces, *rest)  # type: ignore[arg-type]

    watcher = Tracks()
    Engine([Scripted(60)], SquareDetector(), settings).run([watcher])
    assert np.isfinite(watcher.boxes).mean() > 0.8


def test_counts_by_label_are_of_now() -> None:
    class Two(Scripted):
        def grabs(self, stop: threading.Event) -> Iterator[Grab]:
            array = picture(160, 120, (10, 30, 32), (110, 50, 32))  # left is female, right male
            for _ in range(self.count):
                if stop.wait(FRAME_SECONDS):
                    return
                yield Grab(RgbPicture(array), time.monotonic())

    engine = Engine([Two(60)], SquareDetector(), PLAIN)
    seen: set[tuple[int, int, int, int]] = set()

    class Nosy(Watcher):
        def poll(self) -> None:
            now = engine.stats()[0]
            seen.add((now.faces, now.female, now.male, now.unsure))

    engine.run([Nosy()])
    assert (2, 1, 1, 0) in seen


def test_frames_and_files_that_were_played_are_let_go_of(tmp_path: Path) -> None:
    """Some objects of libav refer to themselves; in a large program they are freed too late."""
    clip = write_video(tmp_path / "clip.mp4", count=12)
    watcher = Watcher()
    gc.collect()
    gc.disable()
    try:
        Engine([Playback(clip, loop=True)], SquareDetector(), PLAIN, duration_seconds=1.5).run(
            [watcher]
        )
        # only now: to walk all objects while other threads make some can crash Python
        frames = [each for each in gc.get_objects() if isinstance(each, av.VideoFrame)]
    finally:
        gc.enable()
    assert len(watcher.ages) > 20
    assert sum(frame.width > 16 for frame in frames) < 6  # all the others were freed on their way
