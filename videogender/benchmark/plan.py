"""The order of a benchmark: which parts are asked, how often, and what their answers come to."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, fields
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import IO, Any

from videogender.benchmark.results import (
    ClipFacts,
    Command,
    EndToEnd,
    Facts,
    Forward,
    FrameCost,
    Peer,
    Results,
    Round,
    Spread,
)
from videogender.benchmark.timing import SIZE_WH
from videogender.benchmark.worker import Worker, child_environment
from videogender.config import DetectSettings, flag_of
from videogender.errors import ConfigError, SourceError, VideogenderError

SAMPLE = Path("samples") / "clip.mp4"  # where a clone of the project has it
FORWARD_SECONDS = 0.6  # that one turn of forward passes takes

__all__ = ["Plan", "choose_clip", "measure"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure.

    Attributes:
        clip: a video, or None for the project's sample, or for a synthetic one without it.
        detect: of the detector.
        seconds: how much of the clip is used, from its beginning; 0 takes all.
        rounds: how often everything is measured, at least 1.
        peer: another network's ONNX file to compare the forward pass with.
    """

    clip: Path | None = None
    detect: DetectSettings = field(default_factory=DetectSettings)
    seconds: float = 20.0
    rounds: int = 5
    peer: Path | None = None

    @property
    def end_seconds(self) -> float | None:
        """Where the used part of the clip ends."""
        return self.seconds or None


def measure(plan: Plan, note: Callable[[str], None] = lambda _: None) -> Results:
    """Measure everything; takes a minute or two on a small machine.

    Args:
        plan: what to measure.
        note: told in a few words what is under way.

    Raises:
        ConfigError: the peer cannot be run.
        SourceError: the clip is missing or no video.
        ModelError: the weights cannot be used.
        DeviceError: the asked-for device is not there.
    """
    if plan.peer is not None:
        _check_peer(plan.peer)
    with tempfile.TemporaryDirectory(prefix="videogender-bench-") as folder:
        note("the clip")
        clip = choose_clip(plan, Path(folder))
        note("the forward pass")
        facts, forward = _forward(plan)
        note("the parts of a frame")
        frame = _frame(plan, clip)
        note("the clip from end to end")
        clip_facts, end_to_end = _end_to_end(plan, clip, folder)
        note("the whole command")
        command = _command(plan, clip, Path(folder))
        peer = None
        if plan.peer is not None:
            note("the peer")
            peer = _peer(plan, plan.peer, facts.threads)
    return Results(facts, clip_facts, forward, frame, end_to_end, command, peer)


def choose_clip(plan: Plan, folder: Path) -> Path:
    """Return the clip to measure with; one is made in the folder where there is none.

    Raises:
        SourceError: the clip that was asked for is missing.
    """
    if plan.clip is not None:
        if not plan.clip.is_file():
            raise SourceError(f"{plan.clip}: no such video file")
        return plan.clip
    if SAMPLE.is_file():
        return SAMPLE
    made = folder / "synthetic.mp4"
    with Worker("make-clip", {"path": str(made)}):
        return made


def _forward(plan: Plan) -> tuple[Facts, tuple[Forward, ...]]:
    with Worker("forward", {"detect": asdict(plan.detect)}) as worker:
        batches = {batch: _Turns() for batch in worker.facts["batches"]}
        for _ in range(plan.rounds):
            for batch, turns in batches.items():
                turns.add(worker.ask(batch=batch, seconds=FORWARD_SECONDS, size_wh=SIZE_WH))
        facts = Facts(**{entry.name: worker.facts[entry.name] for entry in fields(Facts)})
    return facts, tuple(
        Forward(batch, turns.ms, 1e3 * batch / turns.ms.median, turns.peak_device_bytes)
        for batch, turns in batches.items()
    )


def _frame(plan: Plan, clip: Path) -> FrameCost:
    options = {"detect": asdict(plan.detect), "clip": str(clip), "end_seconds": plan.end_seconds}
    with Worker("frame", options) as worker:
        answers = [worker.ask() for _ in range(plan.rounds)]
        facts = worker.facts

    def over_all(name: str) -> Spread:
        return Spread.of([value for answer in answers for value in answer[name]])

    return FrameCost(
        size_wh=tuple(facts["size_wh"]),
        batch=facts["batch"],
        scale_ms=Spread.of(facts["scale_ms"]),
        before_ms=over_all("before_ms"),
        network_ms=over_all("network_ms"),
        after_ms=over_all("after_ms"),
        gender_ms=over_all("gender_ms"),
        around_to_network=over_all("ratio"),
    )


def _end_to_end(plan: Plan, clip: Path, folder: str) -> tuple[ClipFacts, EndToEnd]:
    options = {"detect": asdict(plan.detect), "clip": str(clip)}
    rounds: list[Round] = []
    with ExitStack() as stack:
        start = stack.enter_context
        transcode = start(Worker("transcode", {"clip": str(clip), "folder": folder}))
        annotate = start(Worker("annotate", {**options, "folder": folder}))
        stream = start(Worker("stream", options))
        # The others do as many frames; what it takes counts for nothing else.
        first = annotate.ask(end_seconds=plan.end_seconds)
        ways: dict[str, Callable[[], dict[str, Any]]] = {
            "annotate_seconds": lambda: annotate.ask(end_seconds=plan.end_seconds),
            "transcode_seconds": lambda: transcode.ask(frames=first["frames"]),
            "stream_seconds": lambda: stream.ask(end_seconds=plan.end_seconds),
        }
        for index in range(plan.rounds):
            # There and back, so that a machine that grows slower or faster favours none.
            order = list(ways) if index % 2 == 0 else list(ways)[::-1]
            rounds.append(Round(**{way: ways[way]()["seconds"] for way in order}))
        about = transcode.facts
    frames = first["frames"]
    length = about["duration_seconds"] or 0.0
    clip_facts = ClipFacts(
        path=str(clip) if clip in (plan.clip, SAMPLE) else None,
        width=about["source_wh"][0],
        height=about["source_wh"][1],
        frames=frames,
        seconds=min(length, plan.seconds) if plan.seconds else length,
        faces_per_frame=first["faces"] / frames,
    )
    return clip_facts, EndToEnd(
        annotate_fps=Spread.of([frames / each.annotate_seconds for each in rounds]),
        stream_fps=Spread.of([frames / each.stream_seconds for each in rounds]),
        transcode_fps=Spread.of([frames / each.transcode_seconds for each in rounds]),
        annotate_to_transcode=Spread.of(
            [each.annotate_seconds / each.transcode_seconds for each in rounds]
        ),
        rounds=tuple(rounds),
    )


def _command(plan: Plan, clip: Path, folder: Path) -> Command:
    flags = ["--output", str(folder / "whole.mp4"), "--force", "--json", "-", "--quiet"]
    for entry in fields(DetectSettings):
        value = getattr(plan.detect, entry.name)
        if value is not None:
            flags += [flag_of(f"detect.{entry.name}"), str(value)]
    if plan.end_seconds is not None:
        flags += ["--end", f"{plan.end_seconds:f}"]
    argv = [sys.executable, "-m", "videogender", "annotate", *flags, "--", str(clip)]
    runs = [_run_command(argv) for _ in range(plan.rounds)]
    peaks = [peak for _, _, peak in runs if peak is not None]
    return Command(
        first_frame_seconds=Spread.of([first for first, _, _ in runs]),
        whole_seconds=Spread.of([whole for _, whole, _ in runs]),
        peak_memory_bytes=max(peaks, default=None),
    )


def _run_command(argv: list[str]) -> tuple[float, float, int | None]:
    """Return seconds to the first line on standard output and to the end, and peak memory."""
    began = time.perf_counter()
    with tempfile.TemporaryFile() as said, _child(argv, said) as process:
        assert process.stdout is not None
        process.stdout.readline()
        first = time.perf_counter() - began
        for _ in process.stdout:
            pass
        peak = _wait(process)
        whole = time.perf_counter() - began
        if process.returncode:
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines()
            raise VideogenderError(
                f"bench: `videogender annotate` failed: {lines[-1] if lines else 'silently'}"
            )
    return first, whole, peak


@contextmanager
def _child(argv: list[str], said: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=said, env=child_environment()
    ) as process:
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()


def _wait(process: subprocess.Popen[bytes]) -> int | None:
    """Wait for a process and return the most memory that it held, in bytes.

    Linux counts what its parent held when it was started, too. That is this process, which has
    neither torch nor av loaded and so stays far below.
    """
    if not hasattr(os, "wait4"):
        process.wait()
        return None
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _check_peer(file: Path) -> None:
    """Find out before the long measurements what would fail after them."""
    if find_spec("onnxruntime") is None:
        raise ConfigError("--peer needs onnxruntime: pip install onnxruntime")
    if not file.is_file():
        raise ConfigError(f"--peer: {file}: no such file")


def _peer(plan: Plan, file: Path, threads: int) -> Peer:
    on_cpu = {**asdict(plan.detect), "device": "cpu"}
    with (
        Worker("peer", {"file": str(file), "threads": threads}) as theirs,
        Worker("forward", {"detect": on_cpu}) as ours,
    ):
        size_wh = tuple(theirs.facts["size_wh"])
        ours_turns, peer_turns = _Turns(), _Turns()
        for index in range(plan.rounds):
            for mine in (True, False) if index % 2 == 0 else (False, True):
                if mine:
                    answer = ours.ask(batch=1, seconds=FORWARD_SECONDS, size_wh=size_wh)
                    ours_turns.add(answer)
                else:
                    peer_turns.add(theirs.ask(seconds=FORWARD_SECONDS))
    ratios = [a / b for a, b in zip(ours_turns.medians, peer_turns.medians, strict=True)]
    return Peer(
        str(file),
        (size_wh[0], size_wh[1]),
        threads,
        ours_turns.ms,
        peer_turns.ms,
        Spread.of(ratios),
    )


class _Turns:
    """Answers of a part that timed forward passes."""

    def __init__(self) -> None:
        self._all: list[float] = []
        self.medians: list[float] = []
        self.peak_device_bytes: int | None = None

    def add(self, answer: dict[str, Any]) -> None:
        self._all += answer["ms"]
        self.medians.append(median(answer["ms"]))
        peak = answer.get("peak_device_bytes")
        if peak is not None:
            self.peak_device_bytes = max(peak, self.peak_device_bytes or 0)

    @property
    def ms(self) -> Spread:
        return Spread.of(self._all)
