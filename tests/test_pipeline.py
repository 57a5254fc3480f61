"""The pipeline: order, back-pressure, errors, early ends, and what stays in memory."""

from __future__ import annotations

import gc
import threading
import time
import traceback
import weakref
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
from numpy.typing import NDArray
from squares import SquareDetector, frames, picture

import videogender
from videogender import pipeline as pipeline_module
from videogender.frames import Faces, Frame, RgbPicture
from videogender.pipeline import BATCHES_IN_FLIGHT, ParallelDetector, Pipeline, stream, unbatched

pytestmark = pytest.mark.timed


@pytest.fixture(autouse=True)
def _no_thread_survives() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    left = [thread for thread in threading.enumerate() if thread not in before]
    assert not left, f"threads survive: {left}"


def slowly(count: int, seconds: float) -> Iterator[int]:
    for i in range(count):
        time.sleep(seconds)
        yield i


@pytest.mark.parametrize(("producer", "consumer"), [(0.0, 0.002), (0.002, 0.0), (0.0, 0.0)])
def test_items_come_in_order(producer: float, consumer: float) -> None:
    got = []
    with Pipeline() as line:
        first = line.stage(slowly(100, producer), depth=3, name="a")
        second = line.stage((i * i for i in first), depth=2, name="b")
        for item in second:
            time.sleep(consumer)
            got.append(item)
    assert got == [i * i for i in range(100)]


def test_stages_run_at_the_same_time() -> None:
    """Three stages of 20 ms an item take the time of one, not of three in turn."""

    def pass_on(items: Iterator[int]) -> Iterator[int]:
        for item in items:
            time.sleep(0.02)
            yield item

    began = time.perf_counter()
    with Pipeline() as line:
        first = line.stage(slowly(20, 0.02), depth=2, name="a")
        second = line.stage(pass_on(first), depth=2, name="b")
        assert len(list(pass_on(second))) == 20
    assert time.perf_counter() - began < 0.9  # in turn: 1.2 s; at once: 0.44 s


def test_a_full_queue_stops_the_producer() -> None:
    made = []

    def count() -> Iterator[int]:
        for i in range(1000):
            made.append(i)
            yield i

    with Pipeline() as line:
        stage = line.stage(count(), depth=3, name="a")
        assert next(stage) == 0
        # One was taken, three wait, and one is in the producer's hand.
        deadline = time.monotonic() + 5
        while len(made) < 5 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        assert len(made) == 5


def test_an_error_comes_after_the_items_before_it_with_its_own_trace() -> None:
    class PlannedError(Exception):
        pass

    def fails_at_seven() -> Iterator[int]:
        yield from range(7)
        raise PlannedError("seven")

    got = []
    with Pipeline() as line:
        first = line.stage(fails_at_seven(), depth=20, name="a")
        second = line.stage((i for i in first), depth=1, name="b")
        with pytest.raises(PlannedError, match="seven") as caught:
            got.extend(second)
    names = [entry.name for entry in traceback.extract_tb(caught.value.__traceback__)]
    assert "fails_at_seven" in names
    second_try = list(second)
    assert second_try == []


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_the_first_error_stops_every_stage(failing: int) -> None:
    closed = []

    def worker(items: Iterator[int], number: int) -> Iterator[int]:
        try:
            for i in items:
                if number == failing and i == 5:
                    raise ZeroDivisionError
                yield i
        finally:
            closed.append((number, threading.current_thread().name))

    def endless() -> Iterator[int]:
        i = 0
        while True:
            yield i
            i += 1

    def run() -> None:
        with Pipeline() as line:
            stage: Iterator[int] = endless()
            for number in range(3):
                stage = line.stage(worker(stage, number), depth=1, name=str(number))
            deque(stage, maxlen=0)

    with pytest.raises(ZeroDivisionError):
        run()
    assert sorted(closed) == [(i, f"videogender-{i}") for i in range(3)]


def test_an_error_of_the_consumer_stops_every_stage() -> None:
    def run() -> None:
        with Pipeline() as line:
            stage = line.stage(line.stage(slowly(10**6, 0), depth=2, name="a"), depth=2, name="b")
            raise KeyError(next(stage))

    with pytest.raises(KeyError, match="0"):
        run()


def test_closing_a_stage_ends_it_for_its_consumer_at_once() -> None:
    """This is how Ctrl-C ends a video: the writer sees the end of its input and finishes."""
    finished = []

    def writer(items: Iterator[int]) -> Iterator[int]:
        yield from items
        finished.append(True)  # stands for the trailer of the file

    with Pipeline() as line:
        first = line.stage(slowly(10**6, 0.001), depth=5, name="a")
        second = line.stage(writer(first), depth=100, name="b")
        got = [next(second), next(second)]
        began = time.perf_counter()
        first.close()
        got.extend(second)
        assert time.perf_counter() - began < 2.0
    assert got == list(range(len(got)))
    assert finished == [True]


def test_stream_finds_what_is_there_and_keeps_order() -> None:
    detector = SquareDetector(batch_size=4)
    got = list(stream(frames(30), detector))
    assert [frame.index for frame, _ in got] == list(range(30))
    for frame, faces in got:
        x = 4 + frame.index % 40
        np.testing.assert_allclose(faces.boxes, [[x, 8, x + 16, 24]], atol=0.01)
    assert detector.batches == [4] * 7 + [2]
    assert threading.get_ident() not in detector.threads


def test_stream_is_public_and_takes_no_frames() -> None:
    assert videogender.stream is stream
    assert list(stream([], SquareDetector())) == []


def test_a_batch_never_mixes_sizes() -> None:
    arrays = [picture(64, 48, (4, 4, 20))] * 3 + [picture(48, 64, (4, 4, 20))] * 2
    detector = SquareDetector(batch_size=4)
    mixed = (Frame(RgbPicture(array), i, None, "mixed") for i, array in enumerate(arrays))
    got = list(stream(mixed, detector))
    assert [frame.index for frame, _ in got] == [0, 1, 2, 3, 4]
    assert detector.batches == [3, 2]
    for _, faces in got:
        np.testing.assert_allclose(faces.boxes, [[4, 4, 24, 24]], atol=0.01)


def test_boxes_are_in_pixels_of_the_source() -> None:
    big = Frame(RgbPicture(picture(1600, 900, (200, 300, 100), (1200, 500, 200))), 0, None, "big")
    [(_, faces)] = stream([big], SquareDetector(long_side=160))
    np.testing.assert_allclose(faces.boxes, [[200, 300, 300, 400], [1200, 500, 1400, 700]], atol=11)
    assert faces.labels(0.65) == ["female", "male"]


def test_closing_the_generator_stops_everything_promptly() -> None:
    closed = threading.Event()

    def endless() -> Iterator[Frame]:
        try:
            while True:
                yield from frames(10)
        finally:
            closed.set()

    generator = stream(endless(), SquareDetector())
    next(generator)
    began = time.perf_counter()
    generator.close()
    assert time.perf_counter() - began < 2.0
    assert closed.is_set()


def test_an_error_of_the_detector_reaches_the_caller() -> None:
    class Broken(SquareDetector):
        def detect(
            self, scaled: list[NDArray[np.uint8]], sizes_wh: list[tuple[int, int]]
        ) -> list[Faces]:
            if len(self.batches) == 2:
                raise MemoryError("no room for this batch")
            return super().detect(scaled, sizes_wh)

    got: list[Frame] = []
    with pytest.raises(MemoryError, match="no room"):
        got.extend(frame for frame, _ in stream(frames(100), Broken()))
    assert [frame.index for frame in got] == list(range(8))


class Counted:
    """A picture that counts how many of its kind are alive."""

    width, height = 64, 48
    alive = 0
    most = 0

    def __init__(self) -> None:
        cls = type(self)
        cls.alive += 1
        cls.most = max(cls.most, cls.alive)
        weakref.finalize(self, cls._gone)

    @classmethod
    def _gone(cls) -> None:
        cls.alive -= 1

    def to_rgb(self, size_wh: tuple[int, int] | None = None) -> NDArray[np.uint8]:
        return picture(*(size_wh or (64, 48)))


@pytest.mark.parametrize("count", [100, 400])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_frames_in_flight_do_not_grow_with_the_length(count: int, batch_size: int) -> None:
    class Here(Counted):
        pass

    source = (Frame(Here(), i, None, "counted") for i in range(count))
    for i, (frame, _) in enumerate(stream(source, SquareDetector(batch_size=batch_size))):
        assert frame.index == i
        if i % 25 == 0:
            time.sleep(0.02)  # lets every queue fill
    # Each thread may hold one frame more for the moment of handing over.
    assert batch_size * 3 <= Here.most <= batch_size * BATCHES_IN_FLIGHT + 3
    del frame
    gc.collect()
    assert Here.alive == 0


def test_batches_shrink_where_frames_are_huge(monkeypatch: pytest.MonkeyPatch) -> None:
    frame_bytes = 64 * 48 * 3 // 2
    monkeypatch.setattr(
        pipeline_module, "FRAME_BUDGET_BYTES", 2 * BATCHES_IN_FLIGHT * frame_bytes + 1
    )
    detector = SquareDetector(batch_size=16)
    assert len(list(stream(frames(10), detector))) == 10
    assert detector.batches == [2] * 5


def test_unbatched_drops_items_as_it_goes() -> None:
    batch = [1, 2, 3]
    items = unbatched([batch, [4]])
    assert next(items) == 1
    assert len(batch) == 2
    assert list(items) == [2, 3, 4]


# --- several workers ------------------------------------------------------------------------------


class Side(SquareDetector):
    """Two threads may ask it; every second batch takes longer than the next."""

    workers = 2

    def __init__(self, fails_at: int | None = None) -> None:
        super().__init__()
        self.fails_at, self.asked, self.together, self.most = fails_at, 0, 0, 0
        self._counting = threading.Lock()

    @contextmanager
    def worker_threads(self) -> Iterator[Executor]:
        with ThreadPoolExecutor(self.workers) as pool:
            yield pool

    def detect(self, scaled, sizes_wh):  # type: ignore[no-untyped-def]
        with self._counting:
            number, self.asked, self.together = self.asked, self.asked + 1, self.together + 1
            self.most = max(self.most, self.together)
        time.sleep(0.05 if number % 2 == 0 else 0.01)
        with self._counting:
            self.together -= 1
        if number == self.fails_at:
            raise RuntimeError("too much")
        return super().detect(scaled, sizes_wh)


def test_workers_keep_the_order_and_work_side_by_side() -> None:
    detector = Side()
    assert isinstance(detector, ParallelDetector)
    found = [(frame.index, len(faces)) for frame, faces in stream(frames(25), detector)]
    assert [index for index, _ in found] == list(range(len(found)))
    assert len(found) == 25
    assert {count for _, count in found} == {1}
    assert detector.most == 2


def test_an_error_of_a_worker_comes_after_what_was_before_it() -> None:
    detector = Side(fails_at=2)
    running = stream(frames(25), detector)
    seen = [next(running)[0].index for _ in range(2 * detector.batch_size)]
    assert seen == list(range(2 * detector.batch_size))
    with pytest.raises(RuntimeError, match="too much"):
        next(running)


def test_closing_early_stops_the_workers() -> None:
    detector = Side()
    running = stream(frames(25), detector)
    next(running)
    running.close()
    asked = detector.asked
    time.sleep(0.2)
    assert detector.asked == asked
