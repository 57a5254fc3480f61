"""Puts what workers send into the data files of the run, in the order of the inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from videogender.errors import OutputError, VideogenderError
from videogender.jobs.divided import work_on_parts
from videogender.jobs.kept import Counts, Kept
from videogender.jobs.manifest import Manifest
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
from videogender.jobs.workforce import Workforce
from videogender.outputs import DataOutputs, RunOutputs
from videogender.progress import Progress, Summary
from videogender.targets import Job

__all__ = ["merge"]


def merge(
    workforce: Workforce,
    plan: Sequence[Job],
    outputs: RunOutputs,
    data: DataOutputs,
    progress: Progress,
    manifest: Manifest | None = None,
    kept: Kept | None = None,
    *,
    into: list[Summary],
) -> None:
    """Have a workforce work on all inputs, and write their data as one process would.

    Args:
        workforce: does it.
        plan: all inputs, also those that have failed or are done already.
        outputs: the open data files.
        data: which they are.
        progress: told what happens, of inputs that run at once by its rows. `finish` comes when an
            input is done, and a second time, with the error, if its data cannot be written then.
        manifest: notes what is finished.
        kept: keeps the data of what is finished, and has those of inputs that are done already.
        into: gets a summary for each input that was begun, in order.
    """
    files = [Path(place) for place in data.shared.values() if place not in (None, "-")]
    run = _Merge(plan, outputs, progress, manifest, kept, Spool(files[0].parent if files else None))
    try:
        tasks = []
        for position, job in enumerate(plan):
            if job.error is not None or job.is_done:
                run.finish(position, _without_work(job, kept))
            else:
                tasks.append(Task(job, position, len(plan)))
        team, divided = workforce.team, workforce.divided
        for task in tasks:
            if task.position in divided and not team.is_stopped:
                work_on_parts(team, task, divided[task.position], workforce.setup, run.tell)
        team.run([task for task in tasks if task.position not in divided], run.tell)
        left = [task.position for task in tasks if task.position not in run.summaries]
        if left and not any(summary.interrupted for summary in run.summaries.values()):
            # Ctrl-C came between two inputs.
            run.finish(left[0], Summary(str(plan[left[0]].source), interrupted=True))
        run.write_rest()
    finally:
        run.spool.close()
    into += [run.summaries[position] for position in sorted(run.summaries)]


def _without_work(job: Job, kept: Kept | None) -> Summary:
    output = job.target if job.is_done else None
    counts = kept.counts(job.source) if kept is not None and job.is_done else None
    if counts is not None:
        return Summary(str(job.source), None, counts.frames, counts.faces, skipped=True)
    return Summary(str(job.source), output=output, error=job.error, skipped=job.is_done)


class _Merge:
    """What has come so far; inputs are written in turn, and wait in a spool until then."""

    def __init__(
        self,
        plan: Sequence[Job],
        outputs: RunOutputs,
        progress: Progress,
        manifest: Manifest | None,
        kept: Kept | None,
        spool: Spool,
    ) -> None:
        self._plan, self._outputs, self._progress = plan, outputs, progress
        self._manifest, self._kept = manifest, kept
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
        elif self._kept is not None or position != self._turn:
            try:
                self._put_by(position, summary)
            except (OSError, OutputError) as problem:
                self.summaries[position] = summary = self._full(position, summary, problem)
        if self._manifest is not None:
            self._manifest.take(self._plan[position], summary)
        self._progress.row(position).finish(summary)
        while self._turn in self.summaries:
            self._write(self._turn)
            self._turn += 1

    def _put_by(self, position: int, summary: Summary) -> None:
        """Let the data of an input wait, for its turn or for another run."""
        if self._kept is None:
            self.spool.put_by(position)
        elif not summary.skipped and not summary.interrupted:
            counts = Counts(summary.frames, summary.faces)
            self._kept.put(self._plan[position].source, counts, self.spool.take(position))

    def write_rest(self) -> None:
        """Write what is left when Ctrl-C has made gaps."""
        for position in sorted(self.summaries):
            if position >= self._turn:
                self._write(position)

    def _write(self, position: int) -> None:
        summary, kept = self.summaries[position], self._kept
        if summary.error is not None or (summary.skipped and kept is None):
            return
        if summary.interrupted and kept is not None:
            return
        marks: list[tuple[int, ...]] = []
        try:
            marks += self._outputs.mark()
            pieces = self.spool.take(position)
            if kept is not None:
                pieces = kept.take(self._plan[position].source)
            replay(pieces, self._outputs, were_kept=kept is not None)
        except BrokenPipeError:
            raise  # nobody reads what it is all for
        except Exception as error:  # there is little that damaged data do not raise
            self._outputs.rollback(marks)
            if not isinstance(error, VideogenderError):
                why = f"{type(error).__name__}: {error}"
                error = OutputError(f"{summary.source}: its kept data cannot be read ({why})")
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

    def _full(self, position: int, summary: Summary, error: OSError | OutputError) -> Summary:
        self.spool.drop(position)
        return _failed(summary, _no_room(self._plan[position], error))


def _no_room(job: Job, error: OSError | OutputError) -> OutputError:
    why = getattr(error, "strerror", None) or error
    return OutputError(f"{job.source}: its data cannot be kept until their turn: {why}")


def _failed(summary: Summary, error: VideogenderError) -> Summary:
    """Return a summary of an input whose copy is written, but not its data."""
    return replace(summary, output=None, frames=0, faces=0, error=error)
