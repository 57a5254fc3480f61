"""Trains gender heads in two processes over gloo; usage: BANK WEIGHTS OUT_FILE.

Process 0 writes the trained tensors and the history.
"""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from test_finetune_loop import loop_on

from videogender.finetuning.settings import FinetuneSettings


def train(rank: int, bank: Path, weights: Path, out: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{out}.meet", rank=rank, world_size=2)
    loop = loop_on(bank, weights, FinetuneSettings(epochs=3, batch=7, patience=0), rank, 2)
    loop.run()
    if rank == 0:
        torch.save({"state": loop.learner.state(), "history": loop.state.history}, out)
    dist.destroy_process_group()


if __name__ == "__main__":
    paths = [Path(text) for text in sys.argv[1:4]]
    other = multiprocessing.get_context("fork").Process(target=train, args=(1, *paths))
    other.start()
    train(0, *paths)
    other.join()
    sys.exit(other.exitcode)
