"""The bank of a run: found if it was made before, else made; and deleted when nobody needs it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from videogender.finetuning.bank import FORMAT, Bank, BankWriter, bank_folder, drop_stale
from videogender.finetuning.crops import (
    harvest_close_ups,
    harvest_crops,
    harvest_pictures,
    map_shape,
)
from videogender.finetuning.data import Data
from videogender.finetuning.datasets import content_key
from videogender.finetuning.harvest import harvest_anchors, views_of
from videogender.finetuning.learners import Learner
from videogender.finetuning.settings import FinetuneSettings
from videogender.finetuning.trunk import Trunk
from videogender.network.attributes import LinearClassifier, RefeedHead
from videogender.network.heads import AnchorNetwork
from videogender.network.trained import GENDERS

UNIMPORTANT = ("memory_mb", "keep")  # what does not change a bank

__all__ = ["discard", "features_of"]


def features_of(
    data: Data,
    network: AnchorNetwork,
    learner: Learner,
    radius: int | None,
    settings: FinetuneSettings,
    device: torch.device,
    *,
    temperature: float = 1.0,
    makes: bool = True,
    together: bool = False,
    tell: Callable[[int, int], None] = lambda done, total: None,
    say: Callable[[str], None] = lambda line: None,
) -> Bank:
    """Return the features that a learner is trained on.

    Args:
        data: the faces.
        network: the trunk, as its file has it.
        learner: what will be trained.
        radius: cells around an anchor's own that are kept; None for whole maps.
        settings: views, gate and so on.
        device: where the trunk runs, and where a small bank lives.
        temperature: of the network's gender heads, which `refeed` compares with.
        makes: whether this process makes what is missing.
        together: whether others of a process group wait for it.
        tell: told how many of how many pictures are done.
        say: told in sentences.

    Raises:
        OutputError: if features cannot be written.
        TrainingError: if a picture cannot be read.
    """
    folder = bank_folder(_key(data, network, learner, radius, settings, temperature))
    if makes:
        drop_stale()
        if folder.is_dir():
            say("features were kept from an earlier run and are used again")
        else:
            trunk = Trunk(network, device, settings.features.precision)
            with BankWriter(
                folder,
                len(data.samples),
                _views(learner, settings),
                _shapes(learner, trunk, radius),
            ) as writer:
                _fill(writer, data, network, trunk, learner, radius, settings, temperature, tell)
    if together:
        dist.barrier()
    return Bank(folder, settings.features.memory_mb, device)


def discard(bank: Bank) -> None:
    """Delete a bank; what is mapped of it can still be read."""
    shutil.rmtree(bank.folder, ignore_errors=True)


def _fill(
    writer: BankWriter,
    data: Data,
    network: AnchorNetwork,
    trunk: Trunk,
    learner: Learner,
    radius: int | None,
    settings: FinetuneSettings,
    temperature: float,
    tell: Callable[[int, int], None],
) -> None:
    want, workers, head = settings.features, settings.workers, learner.head
    if isinstance(head, LinearClassifier):
        harvest_pictures(trunk, data.samples, head, want, writer, workers, tell)
    elif isinstance(head, RefeedHead):
        first = harvest_crops(
            trunk, network, data.samples, head, want, temperature, writer, workers, tell
        )
        writer.extra["female"] = first.female
        writer.extra["ms_a_crop"] = np.array(first.ms_a_crop)
    else:
        assert radius is not None
        harvest_anchors(trunk, data.samples, want, radius, writer, workers, tell)
        if _is_seen_close_up(data, network):
            assert network.second_stage is not None
            writer.extra["close_up"] = harvest_close_ups(
                network.second_stage, trunk.device, data.samples, writer.boxes, workers
            )


def _is_seen_close_up(data: Data, network: AnchorNetwork) -> bool:
    """Whether the second stage's word on faces is noted: of genders alone, to be mixed with it."""
    return data.classes == GENDERS and network.second_stage is not None


def _views(learner: Learner, settings: FinetuneSettings) -> int:
    if learner.radius is None:
        return 1 + settings.features.mirror
    return len(views_of(settings.features))


def _shapes(learner: Learner, trunk: Trunk, radius: int | None) -> list[tuple[int, ...]]:
    head = learner.head
    if isinstance(head, (LinearClassifier, RefeedHead)):
        return [map_shape(trunk, head)]
    cells = 2 * (radius or 0) + 1
    return [(channels, cells, cells) for channels in trunk.network.tap_channels]


def _key(
    data: Data,
    network: AnchorNetwork,
    learner: Learner,
    radius: int | None,
    settings: FinetuneSettings,
    temperature: float,
) -> str:
    """Return a digest of everything that features depend on."""
    want: dict[str, Any] = asdict(settings.features)
    for name in UNIMPORTANT:
        del want[name]
    digest = hashlib.sha256()
    head = learner.head
    facts: list[Any] = [FORMAT, network.name, radius, want]
    if isinstance(head, RefeedHead):
        facts += [learner.task, head.level, temperature]
    elif radius is None:
        facts.append(learner.task)
    else:
        facts.append(_is_seen_close_up(data, network))
    digest.update(json.dumps([*facts, content_key(data.samples)]).encode())
    for name, tensor in sorted(network.state_dict().items()):
        # a first look at gender is part of what `refeed` notes
        if radius is None or ("_gender." not in name and not name.startswith("gender_shared.")):
            digest.update(name.encode())
            digest.update(tensor.contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()[:32]
