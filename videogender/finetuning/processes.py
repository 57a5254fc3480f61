"""Where a process of a run stands among others: launchers such as torchrun start several."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from videogender.devices import choose_device
from videogender.errors import ConfigError

PATIENCE = timedelta(hours=6)  # others wait while one process makes the features

__all__ = ["device_of", "processes"]


def device_of(name: str, local: int) -> torch.device:
    """Return the device that is meant; of several GPUs, this process's own.

    Raises:
        DeviceError: it is not there.
    """
    chosen = choose_device(name)
    index: int | None = chosen.index
    if chosen.type == "cuda" and index is None:
        chosen = torch.device("cuda", local)
        torch.cuda.set_device(chosen)
    return chosen


@contextmanager
def processes(device: str) -> Iterator[tuple[int, int, int]]:
    """Join the others if a launcher such as torchrun started some; yield rank, world, local."""
    if "RANK" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield 0, 1, 0
        return
    if not all(name in os.environ for name in ("MASTER_ADDR", "MASTER_PORT")):
        raise ConfigError("RANK is set, but MASTER_ADDR or MASTER_PORT is not; use torchrun")
    on_gpu = device != "cpu" and torch.cuda.is_available()
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=PATIENCE)
    try:
        yield dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", "0"))
    finally:
        dist.destroy_process_group()
