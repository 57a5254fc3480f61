"""Pictures on their way to viewers: each source's newest frame, encoded once, never queued.

    view thread        encoder thread             event loop
    newest frame  ->   newest picture (JPEG)  ->  each viewer, as fast as it reads

A frame is encoded only when some viewer is ready for it: one who reads slowly, or not at all, gets
fewer pictures and costs nobody anything.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["Feed", "Picture", "Viewer", "encode_jpeg"]

# Sharp enough for labels, light enough for a wireless network: some 100 kB a picture.
LONG_SIDE_PX = 1280
JPEG_QUALITY = 80


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One encoded frame.

    Attributes:
        source: position of its source.
        number: counts the pictures of the feed, from 1.
        jpeg: the file.
        captured_seconds: when it was captured, on the clock of `time.monotonic`.
    """

    source: int
    number: int
    jpeg: bytes
    captured_seconds: float


def encode_jpeg(rgb: NDArray[np.uint8]) -> bytes:
    """Encode a HWC uint8 **RGB** frame, made smaller if it is larger than a page shows."""
    image = Image.fromarray(rgb)
    shrink = LONG_SIDE_PX / max(image.size)
    if shrink < 1:
        size = (max(1, round(image.width * shrink)), max(1, round(image.height * shrink)))
        image = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    out = BytesIO()
    # Pillow holds Python's lock for the 3 ms that this takes, half of what PyAV's encoder needs.
    image.save(out, "JPEG", quality=JPEG_QUALITY)
    return out.getvalue()


class Feed:
    """The newest picture of every source, and whoever looks.

    `offer`, `wanted` and `lacks` are for the view thread; viewers live in the event loop.
    """

    def __init__(self, sources: int) -> None:
        self._frames: dict[int, tuple[NDArray[np.uint8], float]] = {}  # offered, not yet encoded
        self._asked: set[int] = set()  # sources of which some viewer is ready for a picture
        self._changed = threading.Condition()  # guards these two, `_given` and `_closed`
        self._closed = False
        self._looking = [0] * sources
        self._given: set[int] = set()  # sources of which these viewers have a picture coming
        # From here on: the event loop's alone.
        self._viewers: set[Viewer] = set()
        self._newest: dict[int, Picture] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._encoder = threading.Thread(
            target=self._encode, name="videogender-web-encoder", daemon=True
        )

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to encode for the viewers of this loop."""
        self._loop = loop
        self._encoder.start()

    def offer(self, source: int, rgb: NDArray[np.uint8], captured_seconds: float) -> None:
        """Take a frame in place of the one before; costs no more than a lock."""
        with self._changed:
            if not self._looking[source]:
                return
            self._given.add(source)
            self._frames[source] = (rgb, captured_seconds)
            if source in self._asked:
                self._changed.notify()

    def wanted(self, source: int) -> bool:
        """Tell whether anybody looks at a source."""
        return self._looking[source] > 0

    def lacks(self, source: int) -> bool:
        """Tell whether somebody looks at a source of which no frame came since."""
        return self._looking[source] > 0 and source not in self._given

    @property
    def viewers(self) -> int:
        """How many streams are open."""
        return len(self._viewers)

    def close(self) -> None:
        """End every stream, from any thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._wake)
            self._encoder.join()

    def _encode(self) -> None:
        """Run the encoder's thread."""
        number, source = 0, -1
        while True:
            with self._changed:
                while not (ready := self._asked & self._frames.keys()) and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                source = _after(source, ready, len(self._looking))
                self._asked.discard(source)
                rgb, captured_seconds = self._frames.pop(source)
            number += 1
            picture = Picture(source, number, encode_jpeg(rgb), captured_seconds)
            del rgb
            assert self._loop is not None
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._publish, picture)

    def _publish(self, picture: Picture) -> None:
        if self._looking[picture.source]:
            self._newest[picture.source] = picture
            self._wake()

    def _wake(self) -> None:
        for viewer in self._viewers:
            viewer.woken.set()

    def _ask(self, sources: Iterable[int]) -> None:
        with self._changed:
            self._asked.update(sources)
            self._changed.notify()

    def _enter(self, viewer: Viewer) -> None:
        self._viewers.add(viewer)
        with self._changed:
            for source in viewer.sources:
                self._looking[source] += 1

    def _leave(self, viewer: Viewer) -> None:
        self._viewers.discard(viewer)
        with self._changed:
            for source in viewer.sources:
                self._looking[source] -= 1
                if not self._looking[source]:
                    # Whoever comes next wants to see what is now, not what was then.
                    self._asked.discard(source)
                    self._given.discard(source)
                    self._frames.pop(source, None)
                    self._newest.pop(source, None)


def _after(source: int, ready: set[int], count: int) -> int:
    """Return the next source in turn of those that are ready."""
    return min(ready, key=lambda other: (other - source - 1) % count)


class Viewer:
    """One stream of pictures, of one source or of several, in the event loop.

    Use it as a context manager: a source is drawn while somebody is inside.
    """

    def __init__(self, feed: Feed, sources: Iterable[int]) -> None:
        self._feed = feed
        self.sources = tuple(sources)
        self.woken = asyncio.Event()
        self._seen = dict.fromkeys(self.sources, 0)

    async def next(self) -> Picture | None:
        """Wait for a picture that this viewer has not had; None when the feed is closed."""
        while not self._feed._closed:
            self.woken.clear()
            newest = self._feed._newest
            fresh = [s for s in self.sources if s in newest and newest[s].number > self._seen[s]]
            self._feed._ask([s for s in self.sources if s not in fresh])
            if fresh:
                # The one that was not served for longest; others may renew a source all the time.
                picture = newest[min(fresh, key=lambda s: self._seen[s])]
                self._seen[picture.source] = picture.number
                return picture
            await self.woken.wait()
        return None

    def __enter__(self) -> Self:
        self._feed._enter(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._feed._leave(self)
