"""`videogender eval`: measure detection, presented gender, and labels over time."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from videogender.cli.annotate import other
from videogender.cli.eval_flags import (
    WHAT,
    BatchSize,
    Data,
    Device,
    FaceThreshold,
    Force,
    Json,
    Limit,
    LongSide,
    Model,
    Precision,
    Quiet,
    Refine,
    Report,
    Threads,
    UnsureBelow,
    Weights,
)
from videogender.cli.eval_work import (
    about_data,
    all_finders,
    at_scales,
    check_count,
    faces_that_count,
    frame_bar,
    load_detector,
    read_data,
    read_scales,
    settings_of,
)
from videogender.config import LOOKS_A_SECOND, with_overrides
from videogender.errors import ConfigError

__all__ = ["app"]

app = typer.Typer(
    help="Measure how well faces are found and labelled, on pictures and videos with labels.",
    no_args_is_help=True,
)


@app.command("detect")
def detect(
    data: Data,
    heights_at: Annotated[
        int,
        other(
            "--heights-at",
            panel=WHAT,
            metavar="N",
            help="Give heights of faces as at this long side (default 640), whatever --long-side "
            "is.",
        ),
    ] = 640,
    limit: Limit = 0,
    scales: Annotated[
        str | None,
        other(
            "--scales",
            panel=WHAT,
            metavar="N,N,...",
            help="Look at several sizes, such as 0.5,1,2 times --long-side, and let them vote.",
        ),
    ] = None,
    flip: Annotated[
        bool, other("--flip", panel=WHAT, help="Also look at mirrored pictures, and let them vote.")
    ] = False,
    peer: Annotated[
        list[Path] | None,
        other(
            "--peer",
            panel=WHAT,
            metavar="FILE.onnx",
            help="Measure a YuNet, SCRFD or CenterFace in the same way beside it. Repeatable.",
        ),
    ] = None,
    json: Json = None,
    report: Report = None,
    force: Force = False,
    quiet: Quiet = False,
    model: Model = None,
    weights: Weights = None,
    device: Device = None,
    precision: Precision = None,
    long_side: LongSide = None,
    batch_size: BatchSize = None,
    threads: Threads = None,
) -> None:
    """Measure how well faces are found.

    Average precision at IoU 0.5 (all points) and recall at 0.1 and 1 false
    alarms an image, over faces from 16 px and from 8 px: smaller faces and those
    marked ignore count neither as found nor as missed, nor does a detection on
    one of them. Within a band of heights the same holds for the faces outside it,
    and false alarms count only if they have such a height themselves. Heights are
    those at a long side of 640, so that a face stays in its band at every
    --long-side. Ranges in brackets are 95 % intervals.

    Easy, medium and hard follow WIDER FACE's official protocol, where the labels
    name the levels: as `wider` in JSON Lines, or by wider_easy_val.mat and the
    like in a WIDER FACE folder.

    Examples:

      videogender eval detect faces/val --report runs/val

      videogender eval detect WIDER/ --long-side 1024 --scales 0.5,1,2 --flip

      videogender eval detect faces/val --peer face_detection_yunet.onnx --json -
    """
    settings = settings_of(
        model, weights, device, precision, batch_size, threads, {"detect.long_side": long_side}
    )
    wanted = read_scales(scales)
    check_count("--limit", limit, 0)
    check_count("--heights-at", heights_at, 1)
    from videogender.cli.eval_report import EvalReport, detect_table
    from videogender.errors import TrainingError
    from videogender.evaluation.detect_result import LEAST_SCORE, detect_result
    from videogender.evaluation.detection import detect_all
    from videogender.evaluation.plots import detect_plots

    with EvalReport(json, report, force=force, quiet=quiet) as aside:
        labelled = read_data(data, limit, aside)
        if not any(faces_that_count(labelled)):
            raise TrainingError(f"{data}: no face counts in these pictures: label some")
        finders = all_finders(settings.detect, peer or [], LEAST_SCORE, aside)
        results = []
        for name, finder in finders:
            looking = at_scales(finder, wanted, flip)
            found = detect_all(looking, labelled.entries)
            listed = list(aside.counted(found, len(labelled.entries), name))
            results.append(detect_result(name, listed, heights_at))
        about = {
            "command": "detect",
            **about_data(data, labelled, settings.detect),
            "heights_at": heights_at,
            "scales": wanted,
            "flip": flip,
            "results": [result.as_dict() for result in results],
        }
        table = detect_table(results, heights_at)
        aside.deliver(about, [table], lambda: detect_plots(results))


@app.command("gender")
def gender(
    data: Data,
    min_age: Annotated[
        float,
        other(
            "--min-age",
            panel=WHAT,
            metavar="N",
            help="Report younger faces apart (default 13); faces of unknown age are with the "
            "others.",
        ),
    ] = 13.0,
    unsure_below: UnsureBelow = None,
    limit: Limit = 0,
    json: Json = None,
    report: Report = None,
    force: Force = False,
    quiet: Quiet = False,
    model: Model = None,
    weights: Weights = None,
    device: Device = None,
    precision: Precision = None,
    long_side: LongSide = None,
    face_threshold: FaceThreshold = None,
    refine: Refine = None,
    batch_size: BatchSize = None,
    threads: Threads = None,
) -> None:
    """Measure how well presented gender is told.

    Every face with a `gender` is looked for (the detection that overlaps it best,
    IoU from 0.5); accuracy is over those that were found, the likelier label,
    however unsure. Groups come from `age`, `race`, `skin` and `age_group` where
    the labels hold them; those of at least 100 found faces are compared. Ranges
    in brackets are 95 % intervals.

    Examples:

      videogender eval gender people/val --report runs/people

      videogender eval gender faces/val --unsure-below 0.8 --json -
    """
    settings = settings_of(
        model,
        weights,
        device,
        precision,
        batch_size,
        threads,
        {
            "detect.long_side": long_side,
            "detect.face_threshold": face_threshold,
            "detect.refine": refine,
            "label.unsure_below": unsure_below,
        },
    )
    check_count("--limit", limit, 0)
    if not 0 <= min_age < float("inf"):
        raise ConfigError(f"--min-age should be 0 or more, got {min_age:g}")
    from videogender.cli.eval_report import EvalReport, gender_tables
    from videogender.dataset import GENDERS
    from videogender.errors import ModelError, TrainingError
    from videogender.evaluation.detect_result import LONG_SIDE
    from videogender.evaluation.detection import detect_all
    from videogender.evaluation.gender import collect_answers
    from videogender.evaluation.gender_result import gender_result
    from videogender.evaluation.plots import gender_plots

    with EvalReport(json, report, force=force, quiet=quiet) as aside:
        labelled = read_data(data, limit, aside)
        if not any(face.get("gender") in GENDERS for face in faces_that_count(labelled)):
            raise TrainingError(
                f"{data}: no face that counts has a gender in these pictures: label some as "
                "female or male"
            )
        name, detector = load_detector(settings.detect, aside)
        if not detector.has_gender:
            raise ModelError(f"{name} has no gender heads; --model lite has them")
        found = detect_all(detector, labelled.entries)
        counted = aside.counted(found, len(labelled.entries), name)
        answers = collect_answers(counted, at_long_side=LONG_SIDE)
        if not answers.found.any():
            raise TrainingError(
                f"{data}: none of its {len(answers):,} faces with a gender was found: try a larger "
                "--long-side or a lower --face-threshold"
            )
        below = settings.label.unsure_below
        result = gender_result(name, answers, unsure_below=below, least_age=min_age)
        about = {
            "command": "gender",
            **about_data(data, labelled, settings.detect),
            "face_threshold": settings.detect.face_threshold,
            "refine": settings.detect.refine,
            "results": [result.as_dict()],
        }
        aside.deliver(about, gender_tables(result), lambda: gender_plots(result))


@app.command("video")
def video(
    clip: Annotated[Path, typer.Argument(metavar="CLIP", help="A video.", show_default=False)],
    truth: Annotated[
        Path,
        typer.Argument(
            metavar="TRUTH",
            help="JSON Lines as `annotate --json` writes them, set right by hand.",
            show_default=False,
        ),
    ],
    unsure_below: UnsureBelow = None,
    every: Annotated[
        list[int] | None,
        other(
            "--every",
            panel=WHAT,
            metavar="N",
            help="Also look at every N-th frame only, between which boxes follow, as annotate "
            "does. Repeatable: a column each.",
        ),
    ] = None,
    detect_fps: Annotated[
        list[float] | None,
        other(
            "--detect-fps",
            panel=WHAT,
            metavar="F",
            help="Also look F times a second only. Repeatable: a column each.",
        ),
    ] = None,
    json: Json = None,
    report: Report = None,
    force: Force = False,
    quiet: Quiet = False,
    model: Model = None,
    weights: Weights = None,
    device: Device = None,
    precision: Precision = None,
    long_side: LongSide = None,
    face_threshold: FaceThreshold = None,
    refine: Refine = None,
    batch_size: BatchSize = None,
    threads: Threads = None,
) -> None:
    """Measure labels over time: by track, and frame by frame.

    The first column is what `annotate` does unless told otherwise; `by track`
    looks at every frame, and so does `by frame`.

    A line of TRUTH is a frame that somebody looked at:

      {"frame": 12,
       "faces": [{"box": [12, 30, 52, 84], "label": "female", "track": 3}]}

    `label` is left out, or unsure, where nobody can tell, and `track` may be left
    out everywhere: then boxes that overlap from line to line are one. For a
    start, take what `annotate --json` says and put it right.

    With --every N, choose an N for which looks do not fall on all labelled
    frames: of frames labelled at every tenth, 7 tells more than 5.

    Examples:

      videogender annotate talk.mp4 --no-video --json truth.jsonl

      videogender eval video talk.mp4 truth.jsonl

      videogender eval video talk.mp4 truth.jsonl --every 3 --every 7
    """
    settings = settings_of(
        model,
        weights,
        device,
        precision,
        batch_size,
        threads,
        {
            "detect.long_side": long_side,
            "detect.face_threshold": face_threshold,
            "detect.refine": refine,
            "label.unsure_below": unsure_below,
        },
    )
    for number in every or ():
        with_overrides(settings, {"track.every": number}, as_flags=True)
    for rate in detect_fps or ():
        with_overrides(settings, {"track.detect_fps": rate}, as_flags=True)
        if not rate:
            raise ConfigError("--detect-fps should be more than 0 here")
    from videogender.cli.eval_report import EvalReport, video_table
    from videogender.evaluation.plots import video_plots
    from videogender.evaluation.video import Way, annotated, evaluate_video, warm_up
    from videogender.evaluation.video_truth import parse_truth

    with EvalReport(json, report, force=force, quiet=quiet) as aside:
        written = parse_truth(truth)
        _, detector = load_detector(settings.detect, aside)
        warm_up(detector)
        results, linked = [], False
        ways = [Way("track", detect_fps=LOOKS_A_SECOND), Way("track")]
        ways += [Way("track", every=n) for n in every or () if n > 1]
        ways += [Way("track", detect_fps=rate) for rate in detect_fps or ()]
        for way in dict.fromkeys([*ways, Way("frame")]):
            began = time.process_time()
            records = annotated(clip, detector, settings, way, frame_bar(aside, f"labels {way}"))
            took = time.process_time() - began
            there = written.of_video({r["frame"]: r["time_s"] or 0.0 for r in records})
            result = evaluate_video(records, there, way)
            results.append(replace(result, processor_seconds=took))
            linked = there.linked
        if linked:
            aside.note(f"{truth}: names no tracks; boxes that overlap were taken for one")
        about = {
            "command": "video",
            "clip": str(clip),
            "truth": str(truth),
            "labelled_frames": len(there.frames),
            "tracks_linked": linked,
            "model": settings.detect.model,
            "weights": settings.detect.weights,
            "long_side": settings.detect.long_side,
            "refine": settings.detect.refine,
            "unsure_below": settings.label.unsure_below,
            "results": [result.as_dict() for result in results],
        }
        aside.deliver(about, [video_table(results)], lambda: video_plots(results))
