"""Videos whose tracks are known beforehand, settled without a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from videogender.config import TrackSettings
from videogender.frames import Faces
from videogender.tracking.settle import Settled, settle
from videogender.tracking.tape import Tape


@dataclass(frozen=True)
class Actor:
    """A face that is found in the frames of these times [begin, end)."""

    spans: Sequence[tuple[float, float]]
    female: float = 0.9
    size: float = 50.0
    growth: float = 0.0  # px a second
    x: float = 100.0
    score: float = 0.9
    mask: float | None = None  # of classes mask and no mask; NaN where the head was not asked

    def is_there(self, t: float) -> bool:
        return any(begin - 1e-9 <= t < end - 1e-9 for begin, end in self.spans)

    def box(self, t: float) -> list[float]:
        size = self.size + self.growth * t
        return [self.x, 40.0, self.x + 0.8 * size, 40.0 + size]


def settled_video(
    actors: Sequence[Actor],
    times: Sequence[float] | NDArray[np.float64],
    cuts: Sequence[float] = (),
) -> Settled:
    """Settle a video of frames at these times, with shots that begin at `cuts`.

    Tracks are numbered in the order in which they appear, not in that of `actors`.
    """
    tape = Tape()
    for index, t in enumerate(float(t) for t in times):
        if any(abs(t - cut) < 1e-9 for cut in cuts):
            tape.cut()
        tape.frame(index, t, looked=True)
        here = [(i, actor) for i, actor in enumerate(actors) if actor.is_there(t)]
        if here:
            faces = Faces(
                np.array([actor.box(t) for _, actor in here], np.float32),
                np.array([actor.score for _, actor in here], np.float32),
                np.array([actor.female for _, actor in here], np.float32),
            )
            if any(actor.mask is not None for actor in actors):
                masks = np.array([actor.mask for _, actor in here], np.float32)
                both = np.stack([masks, 1 - masks], 1)
                faces = replace(faces, attributes=both, classes=("mask", "no mask"))
            tape.faces(faces, np.array([i + 1 for i, _ in here], np.int64))
    return settle(tape.read(), TrackSettings(), 0.5)


def ticks(seconds: float, fps: float = 10.0, begin: float = 0.0) -> NDArray[np.float64]:
    return begin + np.arange(round(seconds * fps)) / fps
