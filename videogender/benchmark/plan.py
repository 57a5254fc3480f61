"""The order of a benchmark: which parts are asked, how often, and what their answers come to."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, fields
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from videogender.benchmark.commands import run_command
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
    StageTime,
)
from videogender.benchmark.timing import SIZE_WH
from videogender.benchmark.worker import Worker
from videogender.config import DetectSettings, flag_of
from videogender.errors import ConfigError, SourceError

SAMPLE = Path("samples") / "clip.mp4"  # where a clone of the project has it
FORWARD_SECONDS = 0.6  # that one turn of forward passes takes

__all__ = ["Plan", "annotate_command", "check_peer", "choose_clip", "facts_of", "measure"]


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
        check_peer(plan.peer)
    with tempfile.TemporaryDirectory(prefix="videogender-bench-") as folder:
        note("the clip")
        clip = choose_clip(plan, Path(folder))
        note("the forward pass")
        facts, forward = _forward(plan)
        note("the parts of a frame")
        frame = _frame(plan, clip)
        note("the clip from end to end")
        clip_facts, end_to_end = _end_to_end(plan, clip, folder)
        note("the stages")
        stages = _stages(plan, clip, folder)
        note("the whole command")
        command = _command(plan, clip, Path(folder))
        peer = None
        if plan.peer is not None:
            note("the peer")
            peer = _peer(plan, plan.peer, facts.threads)
    return Results(facts, clip_facts, forward, frame, end_to_end, stages, command, peer)


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
        facts = _facts(worker)
    return facts, tuple(
        Forward(batch, turns.ms, 1e3 * batch / turns.ms.median, turns.peak_device_bytes)
        for batch, turns in batches.items()
    )


def facts_of(plan: Plan) -> Facts:
    """Return what is measured and where, without measuring anything.

    Raises:
        ModelError: the weights cannot be used.
        DeviceError: the asked-for device is not there.
    """
    with Worker("forward", {"detect": asdict(plan.detect)}) as worker:
        return _facts(worker)


def _facts(worker: Worker) -> Facts:
    return Facts(**{entry.name: worker.facts[entry.name] for entry in fields(Facts)})


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
        scale_ms=over_all("scale_ms"),
        before_ms=over_all("before_ms"),
        network_ms=over_all("network_ms"),
        second_ms=over_all("second_ms"),
        after_ms=over_all("after_ms"),
        cut_ms=over_all("cut_ms"),
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
        data = start(Worker("data", {**options, "folder": folder}))
        stream = start(Worker("stream", options))
        # The others do as many frames; what it takes counts for nothing else.
        first = annotate.ask(end_seconds=plan.end_seconds)
        ways: dict[str, Callable[[], dict[str, Any]]] = {
            "annotate_seconds": lambda: annotate.ask(end_seconds=plan.end_seconds),
            "transcode_seconds": lambda: transcode.ask(frames=first["frames"]),
            "data_seconds": lambda: data.ask(end_seconds=plan.end_seconds),
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
        data_fps=Spread.of([frames / each.data_seconds for each in rounds]),
        stream_fps=Spread.of([frames / each.stream_seconds for each in rounds]),
        transcode_fps=Spread.of([frames / each.transcode_seconds for each in rounds]),
        annotate_to_transcode=Spread.of(
            [each.annotate_seconds / each.transcode_seconds for each in rounds]
        ),
        rounds=tuple(rounds),
    )


def _stages(plan: Plan, clip: Path, folder: str) -> tuple[StageTime, ...]:
    options = {"detect": asdict(plan.detect), "clip": str(clip), "folder": folder}
    with Worker("stages", options) as worker:
        answers = [worker.ask(end_seconds=plan.end_seconds) for _ in range(plan.rounds)]
    return tuple(
        StageTime(
            name,
            Spread.of([1e3 * answer["stages"][name] / answer["frames"] for answer in answers]),
            median(answer["stages"][name] / answer["seconds"] for answer in answers),
        )
        for name in answers[0]["stages"]
    )


def annotate_command(plan: Plan, clip: Path, output: Path, *data: str) -> list[str]:
    """Return `videogender annotate` as a user would start it with the plan's settings."""
    flags = ["--output", str(output), "--force", *data, "--quiet"]
    for entry in fields(DetectSettings):
        value = getattr(plan.detect, entry.name)
        if value != entry.default:
            flags += [flag_of(f"detect.{entry.name}"), str(value)]
    return [sys.executable, "-m", "videogender", "annotate", *flags, "--", str(clip)]


def _command(plan: Plan, clip: Path, folder: Path) -> Command:
    end = () if plan.end_seconds is None else ("--end", f"{plan.end_seconds:f}")
    argv = annotate_command(plan, clip, folder / "whole.mp4", "--json", "-", *end)
    # followed faces are told when the whole clip has been looked at; frame by frame at once
    one_second = ("--json", "-", "--label-by", "frame", "--end", "1")
    quick = annotate_command(plan, clip, folder / "start.mp4", *one_second)
    starts, costs = [], []
    for _ in range(plan.rounds):
        starts.append(run_command("videogender annotate", quick))
        costs.append(run_command("videogender annotate", argv))
    peaks = [cost.peak_memory_bytes for cost in costs if cost.peak_memory_bytes is not None]
    return Command(
        first_frame_seconds=Spread.of([cost.first_line_seconds for cost in starts]),
        whole_seconds=Spread.of([cost.seconds for cost in costs]),
        peak_memory_bytes=max(peaks, default=None),
    )


def check_peer(file: Path) -> None:
    """Find out before the long measurements what would fail after them.

    Raises:
        ConfigError: it would.
    """
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
