"""A long video whose parts a team works on: looked at, followed here, drawn, and joined.

workers, a part each                    the caller's process
look: faces of each frame           ->  follow all frames in order, settle tracks and labels
draw: the part's picture, encoded   <-  the part's frames, settled
                                    ->  join the parts, add sound and all else; write the data
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from videogender.errors import OutputError, SourceError, VideogenderError
from videogender.jobs.messages import (
    Data,
    Done,
    Draw,
    Drawn,
    LookAt,
    Looked,
    Message,
    Passed,
    Restarted,
    Seen,
    Setup,
    Started,
    Steps,
    Task,
)
from videogender.jobs.record import Recording
from videogender.jobs.team import Team
from videogender.outputs import InputOutputs
from videogender.passes import Following, Glance, Schedule, without_pictures
from videogender.progress import Summary
from videogender.sinks.atomic import pending, scratch
from videogender.sinks.joined import DrawnPart, join
from videogender.sources import open_source
from videogender.sources.video import VideoSource
from videogender.tracking.cuts import CutDetector, Shot
from videogender.tracking.settle import Settled
from videogender.work import follow_of, unexpected

__all__ = ["work_on_parts"]


def work_on_parts(
    team: Team,
    task: Task,
    parts: Sequence[LookAt],
    setup: Setup,
    tell: Callable[[int, Message], None],
) -> None:
    """Have a team work on one video.

    Args:
        team: of workers.
        task: names the video.
        parts: of it, in order.
        setup: of the run.
        tell: told what a worker would tell of the whole, `Done` last.
    """
    began = time.perf_counter()
    video = _Video(team, task, parts, setup, lambda message: tell(task.position, message))
    try:
        summary = video.annotate()
    except _IndivisibleError:
        team.run([task], tell)
        return
    except _StoppedError:
        summary = Summary(str(task.job.source), interrupted=True)
    except _TeamError as error:  # it cannot work on the others either
        raise error.cause from None
    except VideogenderError as error:
        summary = Summary(str(task.job.source), error=error)
    except Exception as error:  # one odd input must not end the others
        summary = Summary(str(task.job.source), error=unexpected(task.job, error))
    seconds = time.perf_counter() - began
    tell(task.position, Done(replace(summary, seconds=seconds)))


class _StoppedError(Exception):
    """Ctrl-C: nothing is kept of a video of which only parts are done."""


class _IndivisibleError(Exception):
    """The file's index leads astray, or it breaks off: one worker makes the best of it."""


class _TeamError(Exception):
    """The team itself failed."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class _Video:
    """One video, its parts, and what came of them."""

    def __init__(
        self,
        team: Team,
        task: Task,
        parts: Sequence[LookAt],
        setup: Setup,
        tell: Callable[[Message], None],
    ) -> None:
        self._team, self._task, self._parts, self._setup = team, task, parts, setup
        self._tell = tell
        self._warnings: list[str] = []
        settings = setup.settings
        self._grid = Schedule(follow_of(settings))
        self._following = Following(follow_of(settings), settings.detect.face_threshold)

    def annotate(self) -> Summary:
        """Do all of it."""
        job, setup = self._task.job, self._setup
        start, end = setup.span_seconds
        recording = Recording(setup, setup.force, lambda piece: self._tell(Data(piece)))
        with ExitStack() as stack:
            source = open_source(job.source, start_seconds=start, end_seconds=end)
            assert isinstance(source, VideoSource)
            stack.enter_context(source)
            self._tell(Started(source.frame_count))
            data = InputOutputs(recording, stack, job, source)
            place = None
            if job.target is not None:
                place = stack.enter_context(pending(job.target, force=setup.force))
            self._tell(Passed("looking", source.frame_count))
            try:
                rows, scale = self._look()
            except SourceError as error:
                raise _IndivisibleError from error
            settled = self._following.settle(scale)
            if place is not None:
                self._tell(Passed("drawing", len(settled)))
                self._draw(settled, rows, place, source)
            data.follow(settled, stopped=False)
            faces_found = 0
            for frame, faces in without_pictures(source, settled):
                data.write(frame, faces)
                faces_found += len(faces)
            data.finish(interrupted=False)
            recording.flush()
        return Summary(
            str(job.source),
            output=job.target,
            frames=len(settled),
            faces=faces_found,
            warnings=tuple(dict.fromkeys([*self._warnings, *source.warnings])),
        )

    def _run(self, parts: Sequence[LookAt | Draw], take: Callable[[int, Message], None]) -> None:
        """Have all parts done; what is told of each comes to `take`, but not that it is done.

        The team comes to rest, also where one of them or `take` fails.

        Raises:
            Exception: one of them failed.
            _StoppedError: Ctrl-C.
            _TeamError: the team failed.
        """
        errors: list[Exception] = []
        done = 0

        def tell(number: int, message: Message) -> None:
            nonlocal done
            if not isinstance(message, Done):
                try:
                    if not errors:
                        take(number, message)
                except Exception as error:
                    errors.append(error)
                return
            done += not message.summary.interrupted
            self._warnings += message.summary.warnings
            if message.summary.error is not None:
                errors.append(message.summary.error)

        tasks = [
            Task(self._task.job, number, len(parts), part=part) for number, part in enumerate(parts)
        ]
        try:
            self._team.run(tasks, tell)
        except Exception as error:
            raise _TeamError(error) from error
        if errors:
            raise errors[0]
        if done < len(parts):
            raise _StoppedError

    def _look(self) -> tuple[list[int], float]:
        """Look at all parts and follow; return the rows at which they begin and end, and a scale.

        A part is followed when it has come whole and those before it were.
        """
        seen: dict[int, list[Glance]] = {number: [] for number in range(len(self._parts))}
        complete: dict[int, Looked] = {}
        rows, scale, last = [0], 1.0, None

        def take(number: int, message: Message) -> None:
            nonlocal scale
            match message:
                case Steps(looked, _):
                    self._tell(Steps(looked, ()))
                case _ if number not in seen:
                    pass  # its worker died when all had come: done again, for nothing
                case Seen(glances):
                    seen[number] += glances
                case Looked(found):
                    scale = found
                    complete[number] = message
                    follow()
                case Restarted():
                    seen[number].clear()
                    complete.pop(number, None)

        def follow() -> None:
            nonlocal last
            while (turn := len(rows) - 1) in complete:
                part, glances = complete.pop(turn), seen.pop(turn)
                if glances:
                    glances[0].small, glances[-1].small = part.first, part.last
                if not glances or (last is not None and glances[0].index != last.index + 1):
                    raise SourceError(f"{self._task.job.source}: parts do not meet")
                if last is not None:
                    _across(last, glances[0])
                    after = glances[0]
                    if after.shot is Shot.SAME and self._grid.slot(
                        after.index, after.seconds
                    ) == self._grid.slot(last.index, last.seconds):
                        after.faces = None  # looked at only as the first of its part
                last = glances[-1]
                for _ in self._following.take(glances):
                    pass
                rows.append(rows[-1] + len(glances))

        self._run(self._parts, take)
        return rows, scale

    def _draw(
        self, settled: Settled, rows: Sequence[int], place: Path, source: VideoSource
    ) -> None:
        """Draw all parts and join them."""
        zeros: dict[int, Fraction] = {}

        def take(number: int, message: Message) -> None:
            match message:
                case Drawn(zero):
                    zeros[number] = zero
                case Steps(_, written):
                    self._tell(Steps((), written))

        with ExitStack() as stack:
            try:
                places = [stack.enter_context(scratch(place)) for _ in self._parts]
            except OSError as error:
                raise OutputError(f"{place}: cannot be written: {error.strerror}") from error
            draws = [
                Draw(span, settled.between(first, last), part)
                for span, first, last, part in zip(
                    self._parts, rows, rows[1:], places, strict=False
                )
            ]
            try:
                self._run(draws, take)
            except OutputError as error:
                text = str(error)
                for part in places:  # of which the user knows nothing
                    text = text.replace(str(part), str(place))
                raise OutputError(text) from error
            drawn = [DrawnPart(part, zeros[number]) for number, part in enumerate(places)]
            settings = self._setup.settings
            join(
                drawn,
                place,
                source,
                anonymous=settings.render.blur,
                sound=settings.video.sound,
            )


def _across(before: Glance, after: Glance) -> None:
    """Tell whether there is a cut where two parts meet, which neither could see."""
    if before.small is None or after.small is None:
        return
    cuts = CutDetector()
    cuts.step(before.small, before.seconds)
    after.shot = cuts.step(after.small, after.seconds)
