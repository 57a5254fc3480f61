"""Where the time of `annotate` goes: what each thread is doing is looked at all the time.

A sample counts for the stage of the innermost function that belongs to one; what others do on its
behalf, PyTorch and libav above all, is in its time. Stages run side by side in threads, so their
times may add up to more than the whole.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import defaultdict
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

import videogender
from videogender.benchmark.clips import Annotate

__all__ = ["STAGES", "Sampler", "StagedAnnotate"]

# Files, folders and functions of the package; who is not named works for whoever called it. Of
# several that fit, the longest decides. A stage without a name waits for another.
STAGES = {
    "decode": ("sources/video.py",),
    "scale": ("sources/picture.py:to_rgb",),
    "network": ("network/", "backends.py", "detector.py:_tensor"),
    "boxes": ("detector.py", "network/boxes.py", "refine.py"),
    "track": ("tracking/",),
    "render": ("render/",),
    "encode": ("sinks/video.py", "sources/picture.py:to_yuv420p"),
    "data": ("outputs.py",),
    "": ("pipeline.py:__next__", "pipeline.py:_put", "pipeline.py:join"),
}
_STAGE_OF = {place: stage for stage, places in STAGES.items() for place in places}
_HOME = str(Path(videogender.__file__).parent) + "/"
_INTERVAL_SECONDS = 0.002


class Sampler:
    """Looks at all threads of this process while its block runs.

    Attributes:
        seconds: time that each stage was at work, by its name.
    """

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._known: dict[object, str | None] = {}  # stages of functions, by their code
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        own, before = threading.get_ident(), time.perf_counter()
        while not self._over.wait(_INTERVAL_SECONDS):
            now = time.perf_counter()
            for thread, frame in sys._current_frames().items():
                if thread != own and (stage := self._stage(frame)):
                    self.seconds[stage] += now - before
            before = now

    def _stage(self, frame: FrameType | None) -> str:
        while frame is not None:
            code = frame.f_code
            if code not in self._known:
                self._known[code] = _stage_of(code.co_filename, code.co_name)
            if (stage := self._known[code]) is not None:
                return stage
            frame = frame.f_back
        return ""


def _stage_of(file: str, function: str) -> str | None:
    """Return the stage that a function belongs to, or None if to that of its caller."""
    if not file.startswith(_HOME):
        return None
    here = file[len(_HOME) :].replace("\\", "/")
    name = f"{here}:{function}"
    fits = [place for place in _STAGE_OF if place in (name, here) or _holds(place, here)]
    return _STAGE_OF[max(fits, key=len)] if fits else None


def _holds(place: str, file: str) -> bool:
    return place.endswith("/") and file.startswith(place)


class StagedAnnotate(Annotate):
    """A part: annotated video, while its stages are looked at."""

    def ask(self, end_seconds: float | None) -> dict[str, Any]:
        """Annotate the clip once; add the seconds of each stage to what `Annotate` returns."""
        with Sampler() as sampler:
            answer = super().ask(end_seconds)
        stages = {stage: sampler.seconds[stage] for stage in STAGES if stage}
        return {**answer, "stages": stages}
