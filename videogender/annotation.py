"""Annotates videos and images: plans the run, takes the inputs one by one or side by side."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from videogender.config import Settings, with_overrides
from videogender.errors import ConfigError
from videogender.outputs import DataOutputs, RunOutputs, check_zones
from videogender.passes import check
from videogender.pipeline import BatchDetector
from videogender.progress import AnnotationInterrupted, DetectorFacts, Progress, Summary
from videogender.targets import Job, plan_jobs
from videogender.work import Work, load_detector

if TYPE_CHECKING:
    from videogender.jobs.kept import Kept
    from videogender.jobs.manifest import Manifest
    from videogender.jobs.team import Team
    from videogender.jobs.workforce import Workforce

__all__ = ["AnnotationInterrupted", "Progress", "Summary", "annotate"]

ENGINES = ("local", "ray")


class _NothingDoneError(Exception):
    """Every input failed: takes the data files away before they get their names."""


def annotate(
    inputs: str | Path | Sequence[str | Path],
    *,
    output: str | Path | None = None,
    detector: BatchDetector | None = None,
    settings: Settings | None = None,
    json: str | Path | None = None,
    csv: str | Path | None = None,
    coco: str | Path | None = None,
    mot: str | Path | None = None,
    vtt: str | Path | None = None,
    summary: str | Path | None = None,
    report: str | Path | None = None,
    zones: Sequence[str] | None = None,
    lines: Sequence[str] | None = None,
    video: bool = True,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
    force: bool = False,
    skip_existing: bool = False,
    recursive: bool = False,
    jobs: int | None = None,
    engine: str = "local",
    address: str | None = None,
    progress: Progress | None = None,
) -> list[Summary]:
    """Find and label the faces of videos and images, and write annotated copies and data.

    An input that fails does not stop the others: its summary carries the error. Outputs appear
    under their names only when they are complete.

    Videos are read twice where faces are labelled by track (`settings.track`): first they are
    looked at and every face is followed, then they are drawn; data come with the second pass.

    Args:
        inputs: files, folders and patterns.
        output: a folder, or with one input a file; None writes `<name>.annotated.<suffix>` beside
            each input. What lies below an input folder, or where a pattern begins to vary, keeps
            its subfolders there.
        detector: finds the faces; None loads the one that `settings` names. Given, its own
            threshold holds, if it names one.
        settings: thresholds, looks and encoding; None takes the defaults.
        json: file for JSON Lines, one object a frame; `-` is standard output, as for all but the
            report.
        csv: file for CSV, one row a face.
        coco: file for COCO JSON over all inputs.
        mot: file for MOTChallenge text, or a folder for one an input.
        vtt: file for WebVTT subtitles, or a folder for one a video.
        summary: JSON file for who was in view and for how long.
        report: HTML page with the same and a timeline of all appearances.
        zones: areas to count in, `NAME:x1,y1;x2,y2;x3,y3;…` in pixels or percent; None takes those
            of `settings`.
        lines: lines to count at, `NAME:x1,y1;x2,y2`; None takes those of `settings`.
        video: False writes data only.
        start_seconds: where to begin in each video, on its own clock from its first frame.
        end_seconds: where to end.
        force: replace existing outputs.
        skip_existing: leave out inputs whose annotated copy is there and current, by content,
            settings and weights where an earlier run with this noted them, else by date; then
            Ctrl-C keeps no unfinished copy. Without copies, data that an unfinished run has kept
            beside its first data file are used again.
        recursive: of input folders, take what lies in their subfolders, too.
        jobs: processes among which several inputs are divided, each with a detector of its own; 0
            decides from cores and inputs. Data come in the order of the inputs all the same. A
            script calls this under `if __name__ == "__main__":`. None is 1, or 0 with `ray`.
        engine: where they run: `local` on this machine, `ray` as actors of a Ray cluster.
        address: of that cluster; None takes the one that RAY_ADDRESS names or that Ray is
            connected to already, else starts one on this machine.
        progress: told what happens.

    Returns:
        a summary for each input, in order.

    Raises:
        ConfigError: the arguments contradict each other.
        OutputError: an output exists, is an input, or cannot be written; nothing was started. Or
            the reader of standard output left while other outputs were written, which are there.
        ModelError: the detector's weights cannot be used.
        DeviceError: the asked-for device is not there.
        AnnotationInterrupted: Ctrl-C; a `KeyboardInterrupt` that carries the summaries.
    """
    wishes = {"zones.zone": zones, "zones.line": lines}
    settings = with_overrides(settings or Settings(), wishes)
    progress = progress or Progress()
    check(settings.track)
    check_zones(settings)
    shows_plain = report is not None and settings.report.thumbnails == "plain"
    if shows_plain and settings.render.blur:
        raise ConfigError("--thumbnails plain would show the faces that --blur hides; drop either")
    if end_seconds is not None and end_seconds <= (begin := start_seconds or 0.0):
        least = f"--start ({begin:g} s)" if start_seconds is not None else "0"
        raise ConfigError(f"--end ({end_seconds:g} s) should be later than {least}")
    data = DataOutputs(json, csv, coco, mot, vtt, summary, report)
    _check_run(jobs, engine, address, detector, skip_existing, data, video)
    span_seconds = start_seconds, end_seconds
    manifest = _manifest(settings, span_seconds) if skip_existing and detector is None else None
    plan = plan_jobs(
        [inputs] if isinstance(inputs, (str, Path)) else list(inputs),
        output=output,
        data=data.shared,
        each=data.each,
        video=video,
        force=force,
        skip_existing=skip_existing,
        manifest=manifest,
        recursive=recursive,
        tell=progress.left_out,
    )
    kept = None
    if manifest is not None and data.places:
        kept = _kept(manifest, data, settings)
        plan = [replace(job, is_done=_has(kept, job)) for job in plan]
    summaries: list[Summary] = []
    try:
        with ExitStack() as stack:
            workforce: Workforce | None = None
            is_todo = any(job.error is None and not job.is_done for job in plan)
            if kept or (is_todo and (engine == "ray" or jobs not in (None, 1))):
                from videogender.jobs.workforce import gather

                workforce = gather(
                    stack,
                    plan,
                    settings,
                    data,
                    span_seconds,
                    force=force,
                    keeps_parts=not skip_existing,
                    jobs=jobs,
                    engine=engine,
                    address=address,
                    always=bool(kept),
                )
            team = workforce.team if workforce else None
            progress.begin(len(plan), workforce.size if workforce else 1)
            facts = _loaded(detector, team, settings, plan)
            if facts is not None:
                progress.ready(facts)
            outputs = RunOutputs(
                stack,
                data,
                settings,
                _describe(facts, settings),
                force,
                attributes=bool(getattr(facts, "classes", ())),
                copies=video,
            )
            if workforce is not None:
                from videogender.jobs.merge import merge

                merge(workforce, plan, outputs, data, progress, manifest, kept, into=summaries)
            else:
                assert not isinstance(facts, DetectorFacts)
                work = Work(
                    facts, settings, outputs, span_seconds, force, progress, not skip_existing
                )
                for position, job in enumerate(plan):
                    summaries.append(work.run(job, position, len(plan)))
                    if manifest is not None:
                        manifest.take(job, summaries[-1])
                    progress.finish(summaries[-1])
                    if summaries[-1].interrupted:
                        break
            if not any(summary.frames for summary in summaries):
                raise _NothingDoneError
            if kept and any(summary.interrupted for summary in summaries):
                raise _NothingDoneError  # the data are kept, until the run goes on
    except _NothingDoneError:
        pass
    except KeyboardInterrupt as stop:  # between two inputs
        raise AnnotationInterrupted(summaries) from stop
    if any(summary.interrupted for summary in summaries):
        raise AnnotationInterrupted(summaries)
    outputs.stdout.check_read()
    if kept and not any(summary.error for summary in summaries):
        kept.close()
    return summaries


def _check_run(
    jobs: int | None,
    engine: str,
    address: str | None,
    detector: BatchDetector | None,
    skip_existing: bool,
    data: DataOutputs,
    video: bool,
) -> None:
    """Refuse what does not go together."""
    if jobs is not None and jobs < 0:
        raise ConfigError(f"--jobs should be 0 or a number of processes, got {jobs}")
    if engine not in ENGINES:
        raise ConfigError(f"--engine should be one of {', '.join(ENGINES)}, got {engine!r}")
    if address is not None and engine != "ray":
        raise ConfigError("--address names a Ray cluster; add --engine ray")
    if detector is not None and (jobs not in (None, 1) or engine != "local"):
        what = "--jobs" if engine == "local" else "--engine ray"
        raise ConfigError(f"processes of {what} load their own detector; leave the one given out")
    own = [str(place) for place in data.each.values() if place is not None]
    if skip_existing and data.places and (video or own or "-" in data.places):
        raise ConfigError(
            "--skip-existing leaves inputs out, and data files would lack them; run it without "
            f"{data.places[0]}, or with --no-video and files that hold all inputs, or use --force "
            "instead of --skip-existing to do all anew"
        )


def _manifest(
    settings: Settings, span_seconds: tuple[float | None, float | None]
) -> Manifest | None:
    from videogender.errors import ModelError
    from videogender.jobs.manifest import Manifest

    try:
        return Manifest.of(settings, span_seconds)
    except ModelError:  # told when the detector is loaded, if anything is left to do
        return None


def _kept(manifest: Manifest, data: DataOutputs, settings: Settings) -> Kept:
    from videogender.jobs.kept import Kept

    wanted = [flag for flag, place in data.shared.items() if place is not None]
    way = f"{manifest.way} {wanted} {settings.report}"
    return Kept(Path(data.places[0]), way)


def _has(kept: Kept, job: Job) -> bool:
    return job.error is None and kept.counts(job.source) is not None


def _loaded(
    detector: BatchDetector | None, team: Team | None, settings: Settings, plan: Sequence[Job]
) -> BatchDetector | DetectorFacts | None:
    """Return what finds the faces, here or in other processes; None if nothing is left to do."""
    if team is not None:
        return team.wait()
    if detector is not None or all(job.error is not None or job.is_done for job in plan):
        return detector
    return load_detector(settings)


def _describe(detector: object, settings: Settings) -> str:
    describe = getattr(detector, "describe", None)
    return str(describe()) if callable(describe) else settings.detect.model
