"""Starts training: reads the data, decides device and processes, and joins them."""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from videogender.errors import DeviceError, TrainingError
from videogender.network import checkpoints
from videogender.network.heads import AnchorNetwork
from videogender.network.lite import Lite
from videogender.training.data import Entry, ImageStore, add_ignored, read_entries
from videogender.training.engine import Progress, Trainer, TrainSettings

__all__ = ["TrainData", "train"]


@dataclass(frozen=True, slots=True)
class TrainData:
    """Where the training images are: JSON Lines files, or folders with a `faces.jsonl`."""

    scenes: Sequence[Path] = ()
    portraits: Sequence[Path] = ()
    ignore_also: Sequence[Path] = ()  # another detector's marks, see `data.add_ignored`


def train(
    data: TrainData,
    settings: TrainSettings,
    run_dir: Path,
    *,
    device: str = "auto",
    processes: int = 0,
    init: Path | None = None,
    resume: bool = False,
    say: Callable[[str], None] = print,
    report: Callable[[Progress], None] = lambda progress: None,
    validate: Callable[[AnchorNetwork, int], None] | None = None,
) -> None:
    """Train `lite` from scratch, from given weights, or from where a run stopped.

    Args:
        data: what to learn from.
        settings: schedule, batches, losses.
        run_dir: gets `last.pt` and `last.safetensors`.
        device: auto, cpu or cuda.
        processes: on a CPU, how many of one thread each; 0 takes one a core. Under `torchrun` the
            processes that it started are used instead.
        init: weights to start from.
        resume: go on from `run_dir/last.pt`.
        say, report, validate: told of what happens; see `Trainer.run`.

    Raises:
        TrainingError, ModelError, DeviceError, OutputError: as their names say.
    """
    chosen = _device(device)
    torchrun = "RANK" in os.environ and "WORLD_SIZE" in os.environ
    world = int(os.environ["WORLD_SIZE"]) if torchrun else 1
    if not torchrun and chosen.type == "cpu" and hasattr(os, "fork"):
        world = processes or len(os.sched_getaffinity(0))
    if chosen.type == "cpu" and world > 1:
        # a pool of threads would not survive the fork, and one a process is fastest
        torch.set_num_threads(1)
    scenes, portraits = _entries(data, say)
    store = ImageStore(scenes, portraits, threads=os.cpu_count() or 1).to(chosen)
    say(
        f"{len(store)} images, {store.pixels.numel() / 1e9:.1f} GB of pixels, "
        f"{len(store.boxes)} faces, {int((store.gender >= 0).sum())} with gender"
    )

    def work(rank: int, rendezvous: str | None) -> None:
        if rendezvous:
            backend = "nccl" if chosen.type == "cuda" else "gloo"
            dist.init_process_group(backend, init_method=rendezvous, rank=rank, world_size=world)
        try:
            torch.manual_seed(settings.seed)  # the same first weights in every process
            network = _start(init).to(chosen)
            trainer = Trainer(network, store, settings, run_dir, rank, world)
            if resume:
                trainer.resume(run_dir / "last.pt")
                if rank == 0:
                    say(f"going on at step {trainer.step}")
            trainer.run(report, validate)
        finally:
            if rendezvous:
                dist.destroy_process_group()

    if torchrun:
        work(int(os.environ["RANK"]), "env://")
    elif world == 1:
        work(0, None)
    else:
        _fork(work, world)


def _fork(work: Callable[[int, str | None], None], world: int) -> None:
    """Run process 0 here and the others as forks, which share the decoded images."""
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory(prefix="videogender-") as folder:
        rendezvous = f"file://{folder}/rendezvous"

        def child(rank: int) -> None:
            try:
                work(rank, rendezvous)
            except KeyboardInterrupt:
                sys.exit(130)

        others = [context.Process(target=child, args=(r,), daemon=True) for r in range(1, world)]
        for process in others:
            process.start()
        try:
            work(0, rendezvous)
        finally:
            for process in others:
                process.join(10)
                process.kill()


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise DeviceError("--device cuda: no CUDA device was found; use --device cpu")
    if name not in ("cpu", "cuda"):
        raise DeviceError(f"--device {name}: training runs on cpu or cuda")
    if name == "cuda":
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device(name)


def _entries(data: TrainData, say: Callable[[str], None]) -> tuple[list[Entry], list[Entry]]:
    scenes = [e for path in data.scenes for e in read_entries(path)]
    portraits = [e for path in data.portraits for e in read_entries(path)]
    for path in data.ignore_also:
        say(f"{path}: {add_ignored(scenes, path)} unlabelled faces will be ignored")
    return scenes, portraits


def _start(init: Path | None) -> AnchorNetwork:
    if init is None:
        return Lite()
    network, _ = checkpoints.load(init)
    if not isinstance(network, Lite):
        raise TrainingError(f"{init}: holds {network.name}; `train` trains lite")
    return network.requires_grad_(True)
