"""Puts what workers send into the data files of the run, in the order of the inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from videogender.errors import OutputError, VideogenderError
from videogender.jobs.messages import (
    Data,
    Done,
    Message,
    Passed,
    Restarted,
    Started,
    Steps,
    Stopped,
    Task,
)
from videogender.jobs.record import replay
from videogender.jobs.spool import Spool
from videogender.jobs.team import Team
from videogender.outputs import DataOutputs, RunOutputs
from videogender.progress import Progress, Summary
from videogender.targets import Job

__all__ = ["merge"]


def merge(
    team: Team,
    plan: Sequence[Job],
    outputs: RunOutputs,
    data: DataOutputs,
    progress: Progress,
    *,
    into: list[Summary],
) -> None:
    """Have a team work on all inputs, and write their data as one process would.

    Args:
        team: of workers.
        plan: all inputs, also those that have failed or are done already.
        outputs: the open data files.
        data: which they are.
        progress: told what happens, of inputs that run at once by its rows. `finish` comes when an
            input is done, and a second time, with the error, if its data cannot be written then.
        into: gets a summary for each input that was begun, in order.
    """
    files = [Path(place) for place in data.shared.values() if place not in (None, "-")]
    run = _Merge(plan, outputs, progress, Spool(files[0].parent if files else None))
    try:
        tasks = []
        for position, job in enumerate(plan):
            if job.error is not None or job.is_done:
                run.finish(position, _without_work(job))
            else:
                tasks.append(Task(job, position, len(plan)))
        team.run(tasks, run.tell)
        run.write_rest()
    finally:
        run.spool.close()
    into += [run.summaries[position] for position in sorted(run.summaries)]


def _without_work(job: Job) -> Summary:
    output = job.target if job.is_done else None
    return Summary(str(job.source), output=output, error=job.error, skipped=job.is_done)


class _Merge:
    """What has come so far; inputs are written in turn, and wait in a spool until then."""

    def __init__(
        self, plan: Sequence[Job], outputs: RunOutputs, progress: Progress, spool: Spool
    ) -> None:
        self._plan, self._outputs, self._progress = plan, outputs, progress
        self.spool = spool
        self.summaries: dict[int, Summary] = {}
        self._turn = 0
        self._no_room: dict[int, OutputError] = {}

    def tell(self, position: int, message: Message) -> None:
        """Take what a worker says of its input."""
        row = self._progress.row(position)
        match message:
            case Data(piece):
                self._keep(position, piece)
            case Steps(looked, written):
                for faces in looked:
                    row.look(faces)
                for faces in written:
                    row.advance(faces)
            case Started(frames):
                row.start(self._plan[position], frames, position, len(self._plan))
            case Passed(name, frames):
                row.begin_pass(name, frames)
            case Stopped(frames):
                row.stopped(frames)
            case Restarted():
                self.spool.drop(position)
            case Done(summary):
                self.finish(position, summary)

    def finish(self, position: int, summary: Summary) -> None:
        """Note what became of an input, and write those whose turn has come."""
        error = self._no_room.pop(position, None)
        if error is not None and summary.error is None:
            summary = _failed(summary, error)
        self.summaries[position] = summary
        if summary.error is not None:
            self.spool.drop(position)
        elif position != self._turn:
            try:
                self.spool.put_by(position)
            except OSError as problem:
                self.summaries[position] = summary = self._full(position, summary, problem)
        self._progress.row(position).finish(summary)
        while self._turn in self.summaries:
            self._write(self._turn)
            self._turn += 1

    def write_rest(self) -> None:
        """Write what is left when Ctrl-C has made gaps."""
        for position in sorted(self.summaries):
            if position >= self._turn:
                self._write(position)

    def _write(self, position: int) -> None:
        summary = self.summaries[position]
        if summary.error is not None or summary.skipped:
            return
        marks: list[tuple[int, ...]] = []
        try:
            marks += self._outputs.mark()
            replay(self.spool.take(position), self._outputs)
        except VideogenderError as error:
            self._outputs.rollback(marks)
            self.summaries[position] = _failed(summary, error)
            self._progress.row(position).finish(self.summaries[position])

    def _keep(self, position: int, piece: bytes) -> None:
        if position in self._no_room:
            return
        try:
            self.spool.add(position, piece)
        except OSError as error:
            self.spool.drop(position)
            self._no_room[position] = _no_room(self._plan[position], error)

    def _full(self, position: int, summary: Summary, error: OSError) -> Summary:
        self.spool.drop(position)
        return _failed(summary, _no_room(self._plan[position], error))


def _no_room(job: Job, error: OSError) -> OutputError:
    why = error.strerror or error
    return OutputError(f"{job.source}: its data cannot be kept until their turn: {why}")


def _failed(summary: Summary, error: VideogenderError) -> Summary:
    """Return a summary of an input whose copy is written, but not its data."""
    return replace(summary, output=None, frames=0, faces=0, error=error)
