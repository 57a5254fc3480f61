"""Gathers the workers of a run, and divides long videos where that gives more of them work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from videogender.config import Settings
from videogender.cores import cores
from videogender.jobs.division import processes_for, threads_for
from videogender.jobs.messages import LookAt, Setup
from videogender.jobs.parts import can_be_divided, plan_parts
from videogender.jobs.team import Team
from videogender.outputs import DataOutputs
from videogender.targets import Job

# More workers than any cluster has room for.
MANY = 1_000_000

__all__ = ["Workforce", "gather"]


@dataclass(frozen=True, slots=True)
class Workforce:
    """Those who do a run.

    Attributes:
        team: of workers.
        size: how many there are.
        setup: what they know.
        divided: parts of the inputs that all of them do together, by position in the plan.
    """

    team: Team
    size: int
    setup: Setup
    divided: dict[int, list[LookAt]]


def gather(
    stack: ExitStack,
    plan: Sequence[Job],
    settings: Settings,
    data: DataOutputs,
    span_seconds: tuple[float | None, float | None],
    *,
    force: bool,
    keeps_parts: bool,
    jobs: int | None,
    engine: str,
    address: str | None,
    always: bool,
) -> Workforce | None:
    """Start workers, here or on a cluster.

    Args:
        stack: ends them.
        plan: all inputs.
        settings: of the run.
        data: its data files.
        span_seconds: where to begin and end in each video.
        force: existing outputs may be replaced.
        keeps_parts: what Ctrl-C leaves unfinished is kept as far as it goes.
        jobs: how many were asked for; 0 decides, None is 1 here and 0 on a cluster.
        engine: `local` or `ray`.
        address: of the cluster.
        always: also where this process alone would do.

    Returns:
        The workers, or None if this process alone is to do it.
    """

    def setup(threads: int) -> Setup:
        return Setup.of(settings, data, span_seconds, force, keeps_parts, threads)

    def divided(most: int) -> dict[int, list[LookAt]]:
        return _divided(plan, settings, data, span_seconds, most)

    inputs = len(_todo(plan))
    if engine == "ray":
        return _on_cluster(stack, settings, setup, divided, address, jobs or 0, inputs)
    wanted = 1 if jobs is None else jobs
    return _on_this_machine(stack, setup, divided, wanted, inputs, always)


def _todo(plan: Sequence[Job]) -> list[int]:
    return [position for position, job in enumerate(plan) if job.error is None and not job.is_done]


def _divided(
    plan: Sequence[Job],
    settings: Settings,
    data: DataOutputs,
    span_seconds: tuple[float | None, float | None],
    most: int,
) -> dict[int, list[LookAt]]:
    """Divide long videos where there are fewer inputs than workers."""
    todo = _todo(plan)
    if len(todo) >= most:
        return {}
    found = {
        position: plan_parts(plan[position].source, span_seconds, most)
        for position in todo
        if can_be_divided(settings, data, plan[position])
    }
    return {position: parts for position, parts in found.items() if parts}


def _at_once(divided: dict[int, list[LookAt]], inputs: int) -> int:
    """Return how many workers can have something to do at the same time."""
    return max([inputs, *(len(parts) for parts in divided.values())])


def _on_this_machine(
    stack: ExitStack,
    setup: Callable[[int], Setup],
    divide: Callable[[int], dict[int, list[LookAt]]],
    jobs: int,
    inputs: int,
    always: bool,
) -> Workforce | None:
    """Start processes here, if there is room and work for several."""
    divided = divide(processes_for(jobs, jobs or cores()))
    size = max(1, processes_for(jobs, _at_once(divided, inputs)))
    if size == 1 and not always:
        return None
    from videogender.jobs.processes import Processes

    mine = setup(threads_for(size))
    return Workforce(stack.enter_context(Team(Processes(mine), size)), size, mine, divided)


def _on_cluster(
    stack: ExitStack,
    settings: Settings,
    setup: Callable[[int], Setup],
    divide: Callable[[int], dict[int, list[LookAt]]],
    address: str | None,
    jobs: int,
    inputs: int,
) -> Workforce:
    """Start actors of a Ray cluster."""
    from videogender.jobs.cluster import Cluster

    cluster = stack.enter_context(Cluster(address))
    detect = settings.detect
    room = cluster.divide(jobs, MANY, detect.device, detect.threads).workers
    divided = divide(room)
    shares = cluster.divide(jobs, _at_once(divided, inputs), detect.device, detect.threads)
    mine = setup(shares.threads)
    cluster.begin(mine)
    team = stack.enter_context(Team(cluster, shares.workers))
    return Workforce(team, shares.workers, mine, divided)
