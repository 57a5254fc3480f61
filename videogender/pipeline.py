"""Joins the rooms: threads with bounded queues between them, order kept, first error stops all.

    reader thread          inference thread         the caller, or a further stage
    decode, scale    ->    batches of frames   ->   (frame, faces), one by one

A stage is an ordinary iterator that runs in a thread of its own. A full queue stops its producer,
so that memory depends on the depth of the queues and never on the length of the video. Where the
detector says so, the inference thread hands batches to several workers and keeps their order.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from videogender.frames import Faces, Frame, Picture

__all__ = [
    "BatchDetector",
    "ParallelDetector",
    "PictureDetector",
    "Pipeline",
    "Stage",
    "WeakDetector",
    "batches_in_flight",
    "detect_in",
    "in_order",
    "look",
    "stream",
    "unbatched",
]

T = TypeVar("T")
R = TypeVar("R")

# Batches that may wait between two stages. Two smooth out the frames that take longer than others.
QUEUE_DEPTH = 2
# One is being read, one inferred and one consumed; the others wait. Further workers have one each.
BATCHES_IN_FLIGHT = 3 + 2 * QUEUE_DEPTH
# Bytes of decoded frames in flight. Batches shrink to fit: a 4K frame holds 12 MB as yuv420p.
FRAME_BUDGET_BYTES = 512 * 2**20


class BatchDetector(Protocol):
    """What the pipeline needs of a `videogender.detector.Detector`."""

    @property
    def batch_size(self) -> int:
        """Frames a forward pass, at least 1."""

    def input_size_wh(self, width: int, height: int) -> tuple[int, int]:
        """Return the (width, height) to which a frame of the given size is scaled."""

    def detect(
        self, scaled: Sequence[NDArray[np.uint8]], sizes_wh: Sequence[tuple[int, int]]
    ) -> list[Faces]:
        """Find the faces of HWC uint8 RGB images of one size; boxes in pixels of `sizes_wh`."""


@runtime_checkable
class WeakDetector(BatchDetector, Protocol):
    """A detector that can be asked for fainter faces, by which those that are known go on."""

    @property
    def face_threshold(self) -> float:
        """Least score of the faces that it reports."""

    def at_threshold(self, face_threshold: float, *, follows: bool = False) -> BatchDetector:
        """Return the same detector with another threshold; they share their network.

        Args:
            face_threshold: least score of the faces that it reports.
            follows: what it finds is followed through a video, so that every face is seen again:
                it need not settle at one look which gender a face presents.
        """


@runtime_checkable
class PictureDetector(BatchDetector, Protocol):
    """A detector that also wants pictures as they were decoded, for a closer look at some faces."""

    def detect_pictures(
        self, scaled: Sequence[NDArray[np.uint8]], pictures: Sequence[Picture]
    ) -> list[Faces]:
        """Find the faces of pictures, given as they are and scaled; boxes in their own pixels."""


@runtime_checkable
class ParallelDetector(BatchDetector, Protocol):
    """A detector that answers more batches a second if several threads ask it."""

    @property
    def workers(self) -> int:
        """How many threads are best; 1 if there is nothing to gain."""

    def worker_threads(self) -> AbstractContextManager[Executor]:
        """Return so many threads that are fit to ask it."""


class _NoConsumerError(Exception):
    """Tells a stage's thread that nobody wants its items any more."""


class Stage(Generic[T]):
    """An iterator whose items are made ahead of time, in a thread of its own.

    Items come in order. An error of the inner iterator is raised here, after the items that came
    before it, as the same exception with its own traceback. Make stages with `Pipeline.stage`.
    """

    def __init__(self, items: Iterable[T], depth: int, name: str) -> None:
        self._items = items
        self._depth = depth
        self._waiting: deque[T] = deque()
        self._changed = threading.Condition()
        self._finished = False  # the inner iterator has ended
        self._closed = False  # the consumer wants no more
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"videogender-{name}", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        with self._changed:
            while not (self._waiting or self._finished or self._closed):
                # The timeout lets Ctrl-C through on systems where a plain wait does not.
                self._changed.wait(0.5)
            if self._waiting and not self._closed:
                item = self._waiting.popleft()
                self._changed.notify_all()
                return item
            error, self._error = self._error, None
        if error is not None and not self._closed:
            raise error
        raise StopIteration

    def close(self) -> None:
        """End the stage for its consumer at once; its thread stops after the item in hand."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()

    def join(self) -> None:
        """Wait until the thread is gone."""
        self._thread.join()

    def _run(self) -> None:
        iterator = iter(self._items)
        try:
            for item in iterator:
                self._put(item)
                del item  # a frame handed over must not be kept alive from here
        except _NoConsumerError:
            pass
        except BaseException as error:
            self._error = error
        finally:
            try:
                # A generator's own `with` and `finally` run here, in the thread that opened them.
                if callable(close := getattr(iterator, "close", None)):
                    close()
            except BaseException as error:
                self._error = self._error or error
            with self._changed:
                self._finished = True
                self._changed.notify_all()

    def _put(self, item: T) -> None:
        with self._changed:
            while len(self._waiting) >= self._depth and not self._closed:
                self._changed.wait()
            if self._closed:
                raise _NoConsumerError
            self._waiting.append(item)
            self._changed.notify_all()


class Pipeline:
    """The stages that belong together: leaving the `with` stops and joins all of them."""

    def __init__(self) -> None:
        self._stages: list[Stage[object]] = []

    def stage(self, items: Iterable[T], *, depth: int, name: str) -> Stage[T]:
        """Start running an iterator in a thread.

        Args:
            items: what to run; a generator is closed in its own thread when the pipeline stops.
            depth: items that may wait for the consumer, at least 1.
            name: of the thread.
        """
        stage = Stage(items, depth, name)
        self._stages.append(stage)  # type: ignore[arg-type]  # only stopped and joined from here
        return stage

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Closing all before joining any: a stage may be waiting for the one before it.
        for stage in self._stages:
            stage.close()
        for stage in self._stages:
            stage.join()


def stream(
    source: str | Path | Iterable[Frame], detector: BatchDetector
) -> Iterator[tuple[Frame, Faces]]:
    """Find the faces of a video, frame by frame, while decoding runs ahead in another thread.

    Args:
        source: a path, or any iterable of frames, such as an opened source.
        detector: finds the faces, e.g. `Detector.load("lite")`.

    Yields:
        each frame with its faces, in order. Closing the generator stops everything.

    Raises:
        SourceError: the source is missing or cannot be decoded.
    """
    if isinstance(source, (str, Path)):
        from videogender.sources import open_source

        with open_source(source) as opened:
            yield from stream(opened, detector)
        return
    with Pipeline() as pipeline:
        yield from unbatched(detect_in(pipeline, source, detector))


def detect_in(
    pipeline: Pipeline, frames: Iterable[Frame], detector: BatchDetector
) -> Stage[list[tuple[Frame, Faces]]]:
    """Add the reader and the inference stage for these frames to a pipeline.

    Returns:
        the inference stage, whose items are batches of frames with their faces, in order.
    """
    batches = pipeline.stage(_read(frames, detector), depth=QUEUE_DEPTH, name="reader")
    return pipeline.stage(_infer(batches, detector), depth=QUEUE_DEPTH, name="inference")


def unbatched(batches: Iterable[list[T]]) -> Iterator[T]:
    """Yield the items of all batches, dropping each as it goes."""
    for batch in batches:
        batch.reverse()
        while batch:
            yield batch.pop()


@dataclass(slots=True)
class _Batch:
    """Frames whose scaled pictures have one size."""

    frames: list[Frame]
    scaled: list[NDArray[np.uint8]]  # HWC uint8 RGB


def _read(frames: Iterable[Frame], detector: BatchDetector) -> Iterator[_Batch]:
    """Decode and scale, one batch at a time."""
    batch = _Batch([], [])
    for frame in frames:
        image = frame.picture.to_rgb(detector.input_size_wh(frame.width, frame.height))
        if batch.scaled and batch.scaled[0].shape != image.shape:
            yield batch
            batch = _Batch([], [])
        batch.frames.append(frame)
        batch.scaled.append(image)
        if len(batch.frames) >= _batch_size(frame, detector):
            yield batch
            batch = _Batch([], [])
        del frame, image
    if batch.frames:
        yield batch


def _infer(
    batches: Iterable[_Batch], detector: BatchDetector
) -> Iterator[list[tuple[Frame, Faces]]]:
    def work(batch: _Batch) -> list[tuple[Frame, Faces]]:
        found = look(detector, batch.scaled, [frame.picture for frame in batch.frames])
        # The consumer empties the list as it goes; nothing here may keep its frames alive.
        return list(zip(batch.frames, found, strict=True))

    return in_order(batches, work, detector)


def in_order(batches: Iterable[T], work: Callable[[T], R], detector: BatchDetector) -> Iterator[R]:
    """Yield what work makes of each batch, in order; side by side if the detector gains by it."""
    if not isinstance(detector, ParallelDetector) or detector.workers < 2:
        yield from map(work, batches)
        return
    waiting: deque[Future[R]] = deque()
    with detector.worker_threads() as workers:
        try:
            for batch in batches:
                waiting.append(workers.submit(work, batch))
                del batch
                while waiting and (len(waiting) > detector.workers or waiting[0].done()):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for result in waiting:
                result.cancel()


def batches_in_flight(detector: BatchDetector) -> int:
    """Return how many batches may be on their way at the same time."""
    more = detector.workers if isinstance(detector, ParallelDetector) else 1
    return BATCHES_IN_FLIGHT + (more if more > 1 else 0)


def look(
    detector: BatchDetector, scaled: Sequence[NDArray[np.uint8]], pictures: Sequence[Picture]
) -> list[Faces]:
    """Let a detector find the faces of pictures, and see as much of them as it asks for.

    Args:
        detector: finds the faces.
        scaled: HWC uint8 RGB images of one size, each its picture at `input_size_wh`.
        pictures: what they were scaled from.
    """
    if isinstance(detector, PictureDetector):
        return detector.detect_pictures(scaled, pictures)
    return detector.detect(scaled, [(picture.width, picture.height) for picture in pictures])


def _batch_size(frame: Frame, detector: BatchDetector) -> int:
    """Return the detector's batch size, or less where frames are so large that few of them fit."""
    frame_bytes = max(1, frame.width * frame.height * 3 // 2)
    fits = FRAME_BUDGET_BYTES // (batches_in_flight(detector) * frame_bytes)
    return max(1, min(detector.batch_size, fits))
