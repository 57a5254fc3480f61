"""The network alone, and the detector around it, timed from within."""

from __future__ import annotations

import platform
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

import videogender
from videogender.benchmark.timing import SIZE_WH, time_runs
from videogender.config import DetectSettings
from videogender.cores import cores
from videogender.detector import Detector
from videogender.frames import Picture
from videogender.network.heads import Predictions
from videogender.network.second_stage import SecondOpinion
from videogender.sources import open_source

MOST_FRAMES = 64  # of the clip, held in memory at the network's size
CUDA_BATCHES = (1, 8, 32, 128)

__all__ = ["ForwardPass", "FrameParts", "load"]


def load(detect: dict[str, Any]) -> Detector:
    """Load the detector of these settings. Raises what `Detector.load` raises."""
    settings = DetectSettings(**detect)
    return Detector.load(
        settings.model, weights=settings.weights, device=settings.device, settings=settings
    )


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done what it was told; a CPU has already."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


class ForwardPass:
    """A part: the network's forward pass on random pixels."""

    def __init__(self, detect: dict[str, Any]) -> None:
        self._detector = load(detect)

    def facts(self) -> dict[str, Any]:
        """Return the fields of `results.Facts`, and which batches are worth measuring."""
        detector, network = self._detector, self._detector.network
        device = detector.device
        batches = CUDA_BATCHES if device.type == "cuda" else (1,)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(torch.zeros(1, 3, *SIZE_WH[::-1], device=device, dtype=detector.dtype))
        return {
            "description": detector.describe(),
            "model": detector.model_name,
            "device": str(device),
            "device_name": _device_name(device),
            "precision": "int8"
            if detector.takes_pixels
            else str(detector.dtype).removeprefix("torch."),
            "threads": torch.get_num_threads(),
            "batch_size": detector.batch_size,
            "long_side": detector.settings.long_side,
            "parameters": sum(p.numel() for p in network.parameters()),
            "multiply_adds": counter.get_total_flops() // 2,
            "cores": cores(),
            "versions": {
                "videogender": videogender.__version__,
                "python": platform.python_version(),
                "torch": torch.__version__,
                "av": av.__version__,
            },
            "batches": sorted({*batches, detector.batch_size}),
        }

    @torch.inference_mode()
    def ask(self, batch: int, seconds: float, size_wh: tuple[int, int]) -> dict[str, Any]:
        """Run for about `seconds` and return the milliseconds of each run."""
        device, forward = self._detector.device, self._detector.forward
        pixels = self._pixels(batch, size_wh)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

        def run() -> None:
            forward(pixels)
            synchronize(device)

        runs_ms = time_runs(run, seconds)
        peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
        return {"ms": runs_ms, "peak_device_bytes": peak}

    def _pixels(self, batch: int, size_wh: tuple[int, int]) -> torch.Tensor:
        width, height = size_wh
        noise = torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(0))
        levels, dtype = noise * 255 - 128, self._detector.dtype
        if self._detector.takes_pixels:
            levels, dtype = noise * 255, torch.uint8
        return levels.to(self._detector.device, dtype, memory_format=torch.channels_last)


class FrameParts:
    """A part: the detector on frames of a clip, its time split at the network's doors."""

    def __init__(self, detect: dict[str, Any], clip: str, end_seconds: float | None) -> None:
        self._detector = load(detect)
        self._watch = _Watch(self._detector)
        self._scaled: list[NDArray[np.uint8]] = []
        self._pictures: list[Picture] = []
        with open_source(clip, end_seconds=end_seconds) as source:
            self._source_wh = (source.width, source.height)
            size_wh = self._detector.input_size_wh(*self._source_wh)
            for frame in source:
                self._scaled.append(frame.picture.to_rgb(size_wh))
                self._pictures.append(frame.picture)
                if len(self._scaled) == MOST_FRAMES:
                    break
        self._size_wh = size_wh
        # Batches of one size alone: a smaller one at the end costs more a frame.
        self._batch = min(self._detector.batch_size, len(self._scaled))
        self.ask()  # warms up

    def facts(self) -> dict[str, Any]:
        """Return sizes, and how many frames are looked at together."""
        return {
            "source_wh": self._source_wh,
            "size_wh": self._size_wh,
            "batch": self._batch,
        }

    def ask(self) -> dict[str, Any]:
        """Go over the frames once and return milliseconds a frame, one value a batch."""
        watch, count = self._watch, self._batch
        parts: dict[str, list[float]] = {
            name: []
            for name in (
                "scale_ms",
                "before_ms",
                "network_ms",
                "second_ms",
                "after_ms",
                "cut_ms",
                "gender_ms",
                "ratio",
            )
        }
        for start in range(0, len(self._scaled) - count + 1, count):
            rows = slice(start, start + count)
            watch.gender = watch.close_up = watch.second = 0.0
            asked = watch.now()
            for picture in self._pictures[rows]:
                picture.to_rgb(self._size_wh)
            began = watch.now()
            self._detector.detect_pictures(self._scaled[rows], self._pictures[rows])
            ended = watch.now()
            first = watch.left - watch.entered
            networks = first + watch.second + watch.gender
            seconds = {
                "scale_ms": began - asked,
                "before_ms": watch.entered - began,
                "network_ms": first,
                "second_ms": watch.second,
                "after_ms": ended - watch.left - watch.gender - watch.close_up,
                "cut_ms": watch.close_up - watch.second,
                "gender_ms": watch.gender,
            }
            for name, value in seconds.items():
                parts[name].append(value / count * 1e3)
            parts["ratio"].append(((ended - asked) - networks) / networks)
        return parts


class _Watch:
    """Notes when a detector's network is entered and left, and what is asked besides takes."""

    def __init__(self, detector: Detector) -> None:
        self._device = detector.device
        self.entered = self.left = self.gender = self.close_up = self.second = 0.0
        network, forward, close_up = detector.network, detector.forward, detector.close_up
        judge = detector.judge
        inner = network.gender_logits

        def watched(x: torch.Tensor) -> Predictions:
            self.entered = self.now()
            found = forward(x)
            self.left = self.now()
            return found

        def timed(*inputs: Any) -> Any:
            began = self.now()
            result = inner(*inputs)
            self.gender += self.now() - began
            return result

        def seen(*inputs: Any) -> Any:
            began = self.now()
            result = close_up(*inputs)
            self.close_up += self.now() - began
            return result

        def judged(crops: torch.Tensor) -> SecondOpinion:
            assert judge is not None
            began = self.now()
            found = judge(crops)
            self.second += self.now() - began
            return found

        detector.forward = watched
        if judge is not None:
            detector.judge = judged
        setattr(detector, "close_up", seen)  # noqa: B010  # mypy: likewise
        setattr(network, "gender_logits", timed)  # noqa: B010  # mypy: a method of an instance

    def now(self) -> float:
        synchronize(self._device)
        return time.perf_counter()


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
