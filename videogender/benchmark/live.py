"""Live runs, measured: a clip plays the camera, at its sizes and its rate."""

from __future__ import annotations

import math
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table

from videogender.benchmark.plan import Plan, choose_clip
from videogender.benchmark.soak import soak_table
from videogender.benchmark.worker import Worker
from videogender.cores import cores

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from videogender.frames import Faces
    from videogender.sources.live import Grab

SIZES_WH = ((640, 480), (1280, 720))

__all__ = ["LiveRun", "live_heading", "live_table", "measure_live"]


class LiveRun:
    """A part: live runs of a clip, in a process whose processor time is theirs alone."""

    def __init__(self, detect: dict[str, Any], clip: str) -> None:
        from videogender.benchmark.network import load

        self._detector = load(detect)
        self._clip = clip

    def facts(self) -> dict[str, Any]:
        """Return what runs where, and how many cores it may use."""
        return {"description": self._detector.describe(), "cores": cores()}

    def ask(
        self, size_wh: tuple[int, int], fps: float, seconds: float, rows_seconds: float
    ) -> dict[str, Any]:
        """Watch for so long; return the run's figures, its share of one core, and its rows."""
        from videogender.benchmark.soak import Soak, memory_mb
        from videogender.config import Settings
        from videogender.live.engine import Engine

        source = _ClipCamera(self._clip, (size_wh[0], size_wh[1]), fps)
        settings = Settings(detect=self._detector.settings)
        engine = Engine([source], self._detector, settings, duration_seconds=seconds)
        began, used = time.perf_counter(), time.process_time()
        with Soak(engine.captures[0].meter, rows_seconds) as soak:
            engine.run([_Nowhere()])
        share = (time.process_time() - used) / (time.perf_counter() - began)
        figures = {**engine.summaries()[0], "cpu": share, "memory_mb": memory_mb()}
        figures["looks_per_second"] = figures["looks"] / (figures["seconds"] or math.nan)
        known = {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in figures.items()
        }
        return {"width": size_wh[0], "height": size_wh[1], **known, "rows": soak.rows}


class _ClipCamera:
    """A clip that behaves like a camera: frames come at a fixed rate, taken or not."""

    waits = False

    def __init__(self, clip: str, size_wh: tuple[int, int], fps: float) -> None:
        self.name = "clip"
        self._clip, self._size_wh, self._fps = clip, size_wh, fps

    def grabs(self, stop: threading.Event) -> Iterator[Grab]:
        """Yield the clip's frames, again and again; see `LiveSource`."""
        from videogender.frames import RgbPicture
        from videogender.sources import open_source
        from videogender.sources.live import Grab

        began, number = -1.0, 0
        while True:
            with open_source(self._clip) as video:
                for frame in video:
                    began = time.monotonic() if number == 0 else began  # opening took a while
                    due = began + number / self._fps
                    if stop.wait(max(0.0, due - time.monotonic())):
                        return
                    number += 1
                    # A camera's driver stamps a frame before it is unpacked and converted.
                    captured = time.monotonic()
                    yield Grab(RgbPicture(frame.picture.to_rgb(self._size_wh)), captured)
                    del frame


class _Nowhere:
    """A screen for which everything is drawn, and which shows nothing."""

    def wants(self, source: int) -> bool:
        return True

    def show(
        self, source: int, rgb: NDArray[np.uint8], faces: Faces, captured_seconds: float
    ) -> None:
        return None

    def close(self) -> None:
        return None


def measure_live(
    plan: Plan,
    seconds: float,
    fps: float,
    note: Callable[[str], None] = lambda _: None,
    *,
    sizes_wh: Sequence[tuple[int, int]] = SIZES_WH,
    rows_seconds: float = 0.0,
) -> dict[str, Any]:
    """Measure a run at each size.

    Args:
        plan: the clip and the detector.
        seconds: length of a run.
        fps: frames a second of the camera.
        note: told in a few words what is under way.
        sizes_wh: sizes of the camera.
        rows_seconds: takes a row of figures every so often; 0 takes none.

    Returns:
        plain values, ready for JSON.

    Raises:
        SourceError: the clip is missing or no video.
        ModelError: the weights cannot be used.
        DeviceError: the asked-for device is not there.
    """
    with tempfile.TemporaryDirectory(prefix="videogender-bench-") as folder:
        clip = choose_clip(plan, Path(folder))
        with Worker("live", {"detect": asdict(plan.detect), "clip": str(clip)}) as worker:
            runs = []
            for size_wh in sizes_wh:
                note(f"a live run at {size_wh[0]}x{size_wh[1]}")
                runs.append(
                    worker.ask(size_wh=size_wh, fps=fps, seconds=seconds, rows_seconds=rows_seconds)
                )
            return {"fps": fps, "seconds": seconds, **worker.facts, "runs": runs}


def live_heading(results: dict[str, Any]) -> str:
    """Say in a line or two what was measured, on what."""
    cores = results["cores"]
    return (
        f"model: {results['description']}; {cores} {'core' if cores == 1 else 'cores'}\n"
        f"live:  {results['fps']:g} frames a second for {results['seconds']:g} s at each size"
    )


def live_table(results: dict[str, Any]) -> Table | Group:
    """Lay the figures out: a column a size, and below it the rows of each run."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", no_wrap=True)
    for run in results["runs"]:
        table.add_column(f"{run['width']}x{run['height']}", justify="right", no_wrap=True)
    for name, text in _ROWS.items():
        table.add_row(name, *(text(run) for run in results["runs"]))
    parts: list[Table | str] = [table]
    for run in results["runs"]:
        if run["rows"]:
            parts += [f"\n{run['width']}x{run['height']}", soak_table(run["rows"])]
    return Group(*parts) if len(parts) > 1 else table


def _number(key: str, form: str) -> Callable[[dict[str, Any]], str]:
    return lambda run: "-" if run[key] is None else form.format(run[key])


_ROWS: dict[str, Callable[[dict[str, Any]], str]] = {
    "capture to label, median": _number("label_ms_p50", "{:.0f} ms"),
    "capture to label, p95": _number("label_ms_p95", "{:.0f} ms"),
    "capture to display, median": _number("latency_ms_p50", "{:.0f} ms"),
    "capture to display, p95": _number("latency_ms_p95", "{:.0f} ms"),
    "frames a second in": _number("fps_in", "{:.1f}"),
    "frames a second shown": _number("fps_out", "{:.1f}"),
    "dropped": _number("dropped", "{}"),
    "looks a second": _number("looks_per_second", "{:.1f}"),
    "processor, share of a core": lambda run: f"{100 * run['cpu']:.0f} %",
    "memory at the end": _number("memory_mb", "{:.0f} MB"),
}
