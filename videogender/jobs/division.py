"""How many processes work, and how many threads each of them has."""

from __future__ import annotations

import os

from videogender.cores import cores

__all__ = ["processes_for", "threads_for"]

# One process with two cores keeps them busy: one decodes and encodes while the other detects.
CORES_A_PROCESS = 2
# What a process holds at full HD, with room to spare.
BYTES_A_PROCESS = 1536 * 2**20


def processes_for(jobs: int, inputs: int) -> int:
    """Return how many processes to start.

    Args:
        jobs: as asked for; 0 takes one for every two cores, if there is memory for so many.
        inputs: to work on.
    """
    if jobs:
        return min(jobs, inputs)
    wanted = cores() // CORES_A_PROCESS
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        wanted = min(wanted, memory // BYTES_A_PROCESS)
    return max(1, min(wanted, inputs))


def threads_for(processes: int) -> int:
    """Return the threads of each process's network and encoder."""
    return max(1, cores() // processes)
