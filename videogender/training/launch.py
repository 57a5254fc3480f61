"""Starts training: reads the data, decides device and processes, and joins them."""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from videogender.config import DetectSettings
from videogender.cores import cores
from videogender.dataset import FILE_NAME, Entry, read_entries
from videogender.detector import PROPOSED_FROM, Detector
from videogender.devices import choose_device
from videogender.errors import ConfigError, DeviceError, TrainingError
from videogender.evaluation.validation import Validation, ValidationData
from videogender.network import checkpoints
from videogender.network.heads import FEMALE, AnchorNetwork
from videogender.network.lite import Lite
from videogender.network.second_stage import SecondStage
from videogender.training.candidates import Candidates, proposals_of
from videogender.training.closeups import CloseUpPools
from videogender.training.data import ImageStore
from videogender.training.digest import digest_of
from videogender.training.engine import Progress, Trainer
from videogender.training.guesses import Guesses
from videogender.training.keep import Keeper
from videogender.training.lessons import AnchorLesson, CloseUpLesson, Lesson
from videogender.training.marks import add_chances, add_ignored
from videogender.training.metrics import MetricsLog
from videogender.training.run_folder import RunFolder
from videogender.training.settings import TrainSettings, flat
from videogender.training.stopping import StopRequest

# The others wait in a collective while process 0 validates or saves; one that dies is noticed at
# once on a CPU, because its connections close.
RANDOM_BOXES = {0: 12, 1: 8}  # by pyramid level, in each scene, besides what is proposed
PATIENCE = timedelta(hours=6)
LOST_PEER = "Connection "  # closed by peer, reset by peer: gloo's words for it

__all__ = ["TrainData", "is_first_process", "train"]


@dataclass(frozen=True, slots=True)
class TrainData:
    """Where the pictures are: JSON Lines files, or folders with a `faces.jsonl`.

    Attributes:
        scenes: pictures in which faces have many sizes.
        portraits: pictures of about one face each.
        ignore_also: another detector's marks in the scenes, see `marks.add_ignored`.
        teach: another network's word on gender, see `marks.add_chances`; close-ups learn from it.
        val_scenes, val_portraits: nothing is learned from these.
    """

    scenes: Sequence[Path] = ()
    portraits: Sequence[Path] = ()
    ignore_also: Sequence[Path] = ()
    teach: Sequence[Path] = ()
    val_scenes: Sequence[Path] = ()
    val_portraits: Sequence[Path] = ()

    def as_lists(self) -> dict[str, list[str]]:
        """Return the absolute paths, as JSON holds them."""
        names = ("scenes", "portraits", "ignore_also", "teach", "val_scenes", "val_portraits")
        return {n: [str(Path(p).resolve()) for p in getattr(self, n)] for n in names}


def train(
    data: TrainData,
    settings: TrainSettings,
    run_dir: Path,
    *,
    device: str = "auto",
    processes: int = 0,
    init: Path | None = None,
    resume: bool = False,
    force: bool = False,
    say: Callable[[str], None] = print,
    report: Callable[[Progress], None] = lambda progress: None,
    validated: Callable[[Validation, int, bool], None] = lambda validation, step, best: None,
) -> Path:
    """Train `lite` from scratch, from given weights, or from where a run stopped.

    Args:
        data: what to learn from, and what to choose by.
        settings: schedule, batches, losses.
        run_dir: gets the files that `run_folder` lists.
        device: auto, cpu or cuda.
        processes: on a CPU, how many of one thread each; 0 takes one a core. Under `torchrun` the
            processes that it started are used instead, each with its own copy of the pictures.
        init: weights to start from.
        resume: go on from `run_dir/last.pt`; training data and settings must be the run's own,
            except those in `run_folder.MAY_CHANGE`.
        force: delete a run that is there.
        say: told in sentences what happens; like the next two, in process 0 only.
        report: told of every look at the losses.
        validated: told of every validation, its step, and whether it is the best so far.

    Returns:
        The weights: the best if there is data to choose by, else the last.

    Raises:
        TrainingError, ConfigError, ModelError, DeviceError, OutputError: as their names say.
        KeyboardInterrupt: on SIGINT or SIGTERM, once a checkpoint is written.
    """
    chosen = _device(device)
    rank, world = _processes(chosen, processes)
    if chosen.type == "cpu" and world > 1:
        # a pool of threads would not survive the fork, and one a process is fastest
        torch.set_num_threads(1)
    first = not rank
    tell = say if first else _silent
    folder = RunFolder(Path(run_dir))
    record: dict[str, Any] = {
        "model": Lite.name,
        "settings": flat(settings),
        "data": data.as_lists(),
    }
    if resume:
        for change in folder.check_same(record):
            tell(f"going on with {change} as before")
    if data.teach and settings.part != "second-stage":
        raise ConfigError("--teach: anchors learn from labels alone; it is for --part second-stage")
    if settings.part == "second-stage" and not data.scenes:
        raise TrainingError("a second stage learns in scenes what is no face: give --scenes, too")
    scenes, portraits, facts = _entries(data, tell)
    content = digest_of(scenes, portraits)
    if resume:
        folder.check_content(content)
    validation = ValidationData(
        [e for path in data.val_scenes for e in read_entries(path)],
        [e for path in data.val_portraits for e in read_entries(path)],
    )
    network = _start(init or (folder.last if resume else None), settings)
    store = ImageStore(
        scenes,
        portraits,
        threads=cores(),
        least_age=settings.least_age,
        group_by=settings.closeups.group_by,
        label_share=settings.closeups.label_share,
    )
    tell(
        f"{len(store):,} images, {store.pixels.numel() / 1e9:.1f} GB of pixels, "
        f"{len(store.boxes):,} faces, {int((store.gender >= 0).sum()):,} with gender"
    )
    proposals = guesses = None
    if settings.part == "second-stage":
        assert network.second_stage is not None
        if resume:
            guesses = Guesses.load(folder.guesses) if folder.guesses.exists() else None
        elif init and settings.closeups.guess_from < 1:
            guesses = Guesses.make(store, network.second_stage.eval(), settings.closeups)
        if guesses is not None:
            guesses.put_into(store)
            count, women = len(guesses.face), int((guesses.gender == FEMALE).sum())
            tell(f"{count:,} faces without a gender got a guess, {women:,} of them female")
        proposals = _proposals(network, store, settings, tell).to(chosen)
    store = store.to(chosen)
    if first and not resume:
        how = {"init": str(init) if init else None, "device": chosen.type, "processes": world}
        folder.begin({**record, **how, "content": content, "summary": facts}, force=force)
        if guesses is not None:
            folder.write(folder.guesses, guesses.packed())
    elif first:
        folder.amend(record["settings"])
    facts = {key: json.dumps(value) for key, value in facts.items()}
    facts["recipe"] = json.dumps(flat(settings))

    def work(rank: int, rendezvous: str | None, stop: StopRequest) -> None:
        if rendezvous:
            backend = "nccl" if chosen.type == "cuda" else "gloo"
            dist.init_process_group(
                backend, init_method=rendezvous, rank=rank, world_size=world, timeout=PATIENCE
            )
        try:
            network.to(chosen)
            lesson = _lesson(network, store, proposals, settings)
            trainer = Trainer(network, lesson, settings, folder.path, rank, world, facts)
            if resume:
                trainer.resume(folder.checkpoint)
                if rank == 0:
                    folder.rewind(trainer.step)
                    say(f"going on at step {trainer.step:,}")
            keeper = Keeper(folder, validation, chosen, facts, validated) if validation else None
            if rank == 0 and keeper and keeper.forgets:
                say(f"{folder.best} was chosen by other validation data: the best is chosen anew")
            with MetricsLog(folder) as log:

                def both(progress: Progress) -> None:
                    log.add(progress)
                    report(progress)

                def judge(network: AnchorNetwork, step: int) -> None:
                    log.flush()  # lines stand in the order of steps
                    if keeper:
                        keeper(network, step)

                trainer.run(both, judge if keeper else None, stop)
            if keeper and rank == 0:
                stop.interruptible(lambda: _finish(keeper, say))
        finally:
            if rendezvous:
                dist.destroy_process_group()

    with StopRequest() as stop:
        if rank is not None:
            work(rank, "env://", stop)
        elif world == 1:
            work(0, None, stop)
        else:
            _fork(work, world, stop)
        if stop.asked:
            raise KeyboardInterrupt
    return folder.best if validation else folder.last


def is_first_process() -> bool:
    """Tell whether this process speaks for all, as every one does that torchrun did not start."""
    return _torchrun_rank() in (None, 0)


def _silent(line: str) -> None:
    """Say nothing."""


def _finish(keeper: Keeper, say: Callable[[str], None]) -> None:
    _, temperature = keeper.finish()
    say(f"best weights: {keeper.folder.best} (temperature {temperature:.2f})")


def _torchrun_rank() -> int | None:
    """Return this process's number if torchrun, or another launcher of its kind, started it."""
    if all(name in os.environ for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")):
        return int(os.environ["RANK"])
    return None


def _processes(device: torch.device, wanted: int) -> tuple[int | None, int]:
    """Return this process's number if a launcher gave it one, and how many there will be."""
    rank = _torchrun_rank()
    if rank is not None:
        world = int(os.environ["WORLD_SIZE"])
        if wanted not in (0, world):
            raise ConfigError(f"--processes {wanted}: torchrun has started {world}; leave it out")
        return rank, world
    if device.type != "cpu":
        if wanted > 1:
            raise ConfigError(f"--processes {wanted}: on GPUs, use torchrun --nproc-per-node")
        return None, 1
    if platform.system() != "Linux":  # elsewhere a fork breaks the system's own libraries
        return None, 1
    return None, wanted or cores()


def _fork(
    work: Callable[[int, str | None, StopRequest], None], world: int, stop: StopRequest
) -> None:
    """Run process 0 here and the others as forks, which share the decoded images."""
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory(prefix="videogender-") as folder:
        rendezvous = f"file://{folder}/rendezvous"

        def child(rank: int) -> None:
            try:
                work(rank, rendezvous, stop)
            except KeyboardInterrupt:
                os._exit(130)
            except TrainingError:  # a loss that is not finite is so in every process
                os._exit(TrainingError.exit_code)
            except BaseException:
                with suppress(OSError):  # process 0 may have gone, and the folder with it
                    Path(folder, f"error-{rank}").write_text(traceback.format_exc())
                os._exit(1)
            os._exit(0)

        others = [context.Process(target=child, args=(r,), daemon=True) for r in range(1, world)]
        sys.stdout.flush()
        sys.stderr.flush()
        for process in others:
            process.start()
        try:
            work(0, rendezvous, stop)
        except RuntimeError as error:
            # if another process died, this is only the broken connection to it
            for rank, process in enumerate(others, 1):
                process.join(10)
                if cause := _cause(process.exitcode, Path(folder, f"error-{rank}")):
                    raise TrainingError(f"training process {rank} {cause}") from error
            raise
        finally:
            for process in others:
                process.join(10)
                process.kill()
                process.join()


def _cause(exit_code: int | None, trace: Path) -> str:
    """Say why a forked process ended; nothing if it only lost its connection to the others."""
    if exit_code is not None and exit_code < 0:
        return (
            f"was ended by signal {-exit_code} (9 often means too little memory); "
            "go on with --resume"
        )
    text = trace.read_text() if trace.exists() else ""
    return f"failed: {text.splitlines()[-1]}" if text and LOST_PEER not in text else ""


def _device(name: str) -> torch.device:
    if name == "auto" and not torch.cuda.is_available():
        return torch.device("cpu")
    chosen = choose_device(name)
    if chosen.type not in ("cpu", "cuda"):
        raise DeviceError(f"--device {name}: training runs on cpu or cuda")
    if chosen.type == "cuda":
        index: int | None = chosen.index
        if index is None:
            chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(chosen)
    return chosen


def _entries(
    data: TrainData, say: Callable[[str], None]
) -> tuple[list[Entry], list[Entry], dict[str, Any]]:
    """Read the training data; also say what it is, by short names that reveal no folders."""
    groups: dict[str, list[Entry]] = {"scenes": [], "portraits": []}
    sets = []
    for kind, paths in (("scenes", data.scenes), ("portraits", data.portraits)):
        for path in paths:
            entries = read_entries(path)
            groups[kind] += entries
            faces = [f for e in entries for f in e.faces]
            sets.append(
                {
                    "name": _short(path),
                    "kind": kind,
                    "images": len(entries),
                    "faces": sum(not f.get("ignore", False) for f in faces),
                    "with_gender": sum(bool(f.get("gender")) for f in faces),
                }
            )
    ignored = 0
    for path in data.ignore_also:
        count = add_ignored(groups["scenes"], path)
        say(f"{path}: {count:,} unlabelled faces will be ignored")
        ignored += count
    for path in data.teach:
        count = add_chances([*groups["scenes"], *groups["portraits"]], path)
        say(f"{path}: tells of {count:,} faces how likely they are female")
    return groups["scenes"], groups["portraits"], {"data": sets, "also_ignored": ignored}


def _short(path: Path) -> str:
    where = Path(path).resolve()
    where = where.parent if where.name == FILE_NAME else where
    return "/".join(where.parts[-2:])


def _start(init: Path | None, settings: TrainSettings) -> AnchorNetwork:
    torch.manual_seed(settings.seed)  # the same first weights in every process
    if init is None:
        if settings.part == "second-stage":
            raise ConfigError("a second stage needs weights of a first one to go with: give --init")
        return Lite()
    network, _ = checkpoints.load(init)
    network.ranges = None  # they will change
    if not isinstance(network, Lite):
        raise TrainingError(f"{init}: holds {network.name}; `train` trains lite")
    if settings.part == "second-stage":
        network.requires_grad_(False)
        if network.second_stage is None:
            network.second_stage = SecondStage()
        network.second_stage.requires_grad_(True)
        return network
    if not network.has_gender:
        network.add_gender_heads()
    network.requires_grad_(True)
    if network.second_stage is not None:
        network.second_stage.requires_grad_(False)
    return network


def _lesson(
    network: AnchorNetwork,
    store: ImageStore,
    proposals: Candidates | None,
    settings: TrainSettings,
) -> Lesson:
    if proposals is None or network.second_stage is None:
        return AnchorLesson(network, store, settings)
    return CloseUpLesson(network.second_stage, CloseUpPools(store, proposals), settings)


def _proposals(
    network: AnchorNetwork, store: ImageStore, settings: TrainSettings, say: Callable[[str], None]
) -> Candidates:
    """Let the first stage propose faces in all scenes, as they are and at half their size."""
    first = Lite(gender=False)
    wanted = first.state_dict()
    first.load_state_dict({k: v for k, v in network.state_dict().items() if k in wanted})
    detector = Detector(first, DetectSettings(face_threshold=PROPOSED_FROM, long_side=0))

    def propose(picture: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        [faces] = detector([picture])
        return faces.boxes, faces.scores

    generator = torch.Generator().manual_seed(settings.seed)
    parts = []
    for level, drawn in RANDOM_BOXES.items():
        size = f"1/{2**level} of the size" if level else "full size"
        say(f"looking for what the first stage takes for faces, at {size}")

        def told(done: int, count: int) -> None:
            if done < count and done % max(1, count // 4) == 0:
                say(f"{done:,} of {count:,} scenes")

        parts.append(
            proposals_of(
                store, propose, level=level, random_boxes=drawn, generator=generator, told=told
            )
        )
    table = Candidates.joined(parts)
    holds = int(table.holds_face.sum())
    say(f"{holds:,} proposals hold a face, {len(table) - holds:,} none")
    return table
