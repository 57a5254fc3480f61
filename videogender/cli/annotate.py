"""`videogender annotate`: parse the flags, run, and tell the user what happened."""

from __future__ import annotations

import signal
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from videogender.cli.times import parse_time
from videogender.config import flag_of, load_settings, rule_of, with_overrides

__all__ = ["annotate"]

DATA, RESULTS, FACES = "Input and output", "Data and reports", "Finding faces"
FOLLOWING, LOOK, ENCODING = "Following and counting faces", "Drawing", "Encoding"


def setting(key: str, panel: str, help: str | None = None) -> Any:
    """Describe the flag of a setting, with its range and default from `videogender.config`."""
    section, _, name = key.partition(".")
    rule = rule_of(key)
    default = getattr(getattr(load_settings(None), section), name)
    notes = [rule.allowed()] if rule.least is not None else []
    notes += [f"default {default}"] if default is not None else []
    text = help or (rule.help[0].upper() + rule.help[1:])
    return typer.Option(
        flag_of(key),
        metavar="|".join(rule.words) or None,
        help=f"{text} ({'; '.join(notes)})." if notes else f"{text}.",
        show_default=False,
        rich_help_panel=panel,
    )


def looks(every: int | None, detect_fps: float | None, *, blur: bool | None) -> dict[str, object]:
    """Return what the flags about looks, and --blur, put in the place of what a file may say."""
    if blur and every is None and detect_fps is None:
        every = 1  # a face that is not looked for is not hidden
    if every is None and detect_fps is None:
        return {}
    return {
        "track.every": 1 if every is None else every,
        "track.detect_fps": 0.0 if detect_fps is None else detect_fps,
    }


def other(*names: str, panel: str, help: str, metavar: str | None = None) -> Any:
    """Describe a flag that is no setting."""
    return typer.Option(
        *names, help=help, metavar=metavar, show_default=False, rich_help_panel=panel
    )


def annotate(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...", help="Videos, images, folders or patterns.", show_default=False
        ),
    ],
    output: Annotated[
        str | None,
        other(
            *("--output", "-o"),
            panel=DATA,
            metavar="FILE|DIR",
            help="Where the annotated copy goes: a file for one input, else a folder. "
            "Without it, NAME.annotated.mp4 beside each video.",
        ),
    ] = None,
    no_video: Annotated[
        bool, other("--no-video", panel=DATA, help="Write the data only, no annotated copy.")
    ] = False,
    start: Annotated[
        str | None,
        other("--start", panel=DATA, metavar="TIME", help="Begin here: 12.5, 1m30 or 1:02."),
    ] = None,
    end: Annotated[
        str | None, other("--end", panel=DATA, metavar="TIME", help="End here, as --start.")
    ] = None,
    recursive: Annotated[
        bool,
        other(
            "--recursive",
            "-r",
            panel=DATA,
            help="Take what lies in subfolders, too; below --output DIR they are the same.",
        ),
    ] = False,
    force: Annotated[
        bool, other("--force", "-f", panel=DATA, help="Replace outputs that exist.")
    ] = False,
    skip_existing: Annotated[
        bool,
        other(
            "--skip-existing",
            panel=DATA,
            help="Leave out inputs whose annotated copy is there and current: of the same content, "
            "settings and weights if such a run made it, else not older than its input. A run that "
            "was stopped goes on. Other copies are refused as ever, or replaced with --force. With "
            "--no-video, data that a stopped run has kept are used again; copies and data files "
            "together are refused.",
        ),
    ] = False,
    jobs: Annotated[
        int | None,
        other(
            "--jobs",
            "-j",
            panel=DATA,
            metavar="N",
            help="Work on so many inputs at once, each in a process of its own with a share of "
            "the cores (0 decides from cores and inputs; default 1, or 0 with --engine ray). Where "
            "there are fewer inputs, they do parts of a long video. Data files are the same.",
        ),
    ] = None,
    engine: Annotated[
        str,
        other(
            "--engine",
            panel=DATA,
            metavar="local|ray",
            help="Where they run: on this machine, or on a Ray cluster whose machines see the "
            "same files (default local).",
        ),
    ] = "local",
    address: Annotated[
        str | None,
        other(
            "--address",
            panel=DATA,
            metavar="WHERE",
            help="Of the Ray cluster, such as auto or 10.0.0.1:6379; without it and without "
            "RAY_ADDRESS, Ray is started on this machine.",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        other(
            "--config",
            panel=DATA,
            metavar="FILE",
            help="YAML file of settings; flags win over it (see videogender config show).",
        ),
    ] = None,
    quiet: Annotated[
        bool, other("--quiet", "-q", panel=DATA, help="Say nothing but warnings and errors.")
    ] = False,
    json: Annotated[
        str | None,
        other(
            "--json",
            panel=RESULTS,
            metavar="FILE|-",
            help="Write JSON Lines, one object a frame; - is standard output, here and below.",
        ),
    ] = None,
    csv: Annotated[
        str | None,
        other("--csv", panel=RESULTS, metavar="FILE|-", help="Write CSV, one row a face."),
    ] = None,
    summary: Annotated[
        str | None,
        other(
            "--summary",
            panel=RESULTS,
            metavar="FILE|-",
            help="Write JSON of who was in view, when and for how long.",
        ),
    ] = None,
    report: Annotated[
        str | None,
        other(
            "--report",
            panel=RESULTS,
            metavar="FILE",
            help="Write an HTML page with a timeline, counts over time and all appearances.",
        ),
    ] = None,
    thumbnails: Annotated[str | None, setting("report.thumbnails", RESULTS)] = None,
    vtt: Annotated[
        str | None,
        other(
            "--vtt",
            panel=RESULTS,
            metavar="FILE|DIR|-",
            help="Write WebVTT subtitles of the labels in view, to show over the source.",
        ),
    ] = None,
    coco: Annotated[
        str | None,
        other(
            "--coco",
            panel=RESULTS,
            metavar="FILE|-",
            help="Write COCO JSON over all inputs, for annotation tools.",
        ),
    ] = None,
    mot: Annotated[
        str | None,
        other(
            "--mot",
            panel=RESULTS,
            metavar="FILE|DIR|-",
            help="Write tracks as MOTChallenge text; of several inputs, a folder.",
        ),
    ] = None,
    model: Annotated[str | None, setting("detect.model", FACES)] = None,
    weights: Annotated[str | None, setting("detect.weights", FACES)] = None,
    device: Annotated[str | None, setting("detect.device", FACES)] = None,
    backend: Annotated[str | None, setting("detect.backend", FACES)] = None,
    precision: Annotated[str | None, setting("detect.precision", FACES)] = None,
    long_side: Annotated[int | None, setting("detect.long_side", FACES)] = None,
    face_threshold: Annotated[float | None, setting("detect.face_threshold", FACES)] = None,
    unsure_below: Annotated[float | None, setting("label.unsure_below", FACES)] = None,
    min_face_px: Annotated[float | None, setting("detect.min_face_px", FACES)] = None,
    nms_iou: Annotated[float | None, setting("detect.nms_iou", FACES)] = None,
    batch_size: Annotated[int | None, setting("detect.batch_size", FACES)] = None,
    threads: Annotated[int | None, setting("detect.threads", FACES)] = None,
    refine: Annotated[str | None, setting("detect.refine", FACES)] = None,
    refine_min_px: Annotated[float | None, setting("detect.refine_min_px", FACES)] = None,
    refine_most: Annotated[int | None, setting("detect.refine_most", FACES)] = None,
    label_by: Annotated[str | None, setting("track.label_by", FOLLOWING)] = None,
    every: Annotated[int | None, setting("track.every", FOLLOWING)] = None,
    detect_fps: Annotated[float | None, setting("track.detect_fps", FOLLOWING)] = None,
    min_hits: Annotated[int | None, setting("track.min_hits", FOLLOWING)] = None,
    lost_seconds: Annotated[float | None, setting("track.lost_seconds", FOLLOWING)] = None,
    bridge_seconds: Annotated[float | None, setting("track.bridge_seconds", FOLLOWING)] = None,
    zone: Annotated[
        list[str] | None,
        other(
            "--zone",
            panel=FOLLOWING,
            metavar="NAME:X1,Y1;X2,Y2;...",
            help="Count who is in this area, in pixels or percent; may be given several times.",
        ),
    ] = None,
    line: Annotated[
        list[str] | None,
        other(
            "--line",
            panel=FOLLOWING,
            metavar="NAME:X1,Y1;X2,Y2",
            help="Count who crosses this line; `in` is to its right, seen from its first point.",
        ),
    ] = None,
    style: Annotated[str | None, setting("render.style", LOOK)] = None,
    blur: Annotated[
        bool | None,
        other("--blur/--no-blur", panel=LOOK, help="Make faces unrecognisable; labels are kept."),
    ] = None,
    labels: Annotated[
        bool | None,
        other("--labels/--no-labels", panel=LOOK, help="Write the label beside each face, or not."),
    ] = None,
    codec: Annotated[str | None, setting("video.codec", ENCODING)] = None,
    crf: Annotated[int | None, setting("video.crf", ENCODING)] = None,
    preset: Annotated[str | None, setting("video.preset", ENCODING)] = None,
    sound: Annotated[
        bool | None,
        other("--sound/--no-sound", panel=ENCODING, help="Take the sound along, or not."),
    ] = None,
) -> int:
    """Find the faces of videos and images and label them female, male or unsure.

    A video becomes an MP4 with its sound, an image stays an image of its kind;
    both get `.annotated` into their name and are written beside their source. A
    video is read twice: first faces are found and followed, then they are drawn,
    each with the one label of its time in view.

    Examples:

      videogender annotate clip.mp4

      videogender annotate talks/*.mp4 photos/ --output annotated/

      videogender annotate clip.mp4 --json - --no-video | jq .faces

      videogender annotate clip.mp4 --start 1:02 --end 1:30 --blur

      videogender annotate long.mp4 --detect-fps 6

      videogender annotate archive/ -o annotated/ --jobs 0 --skip-existing

      videogender annotate talk.mp4 --no-video --report talk.html

      videogender annotate hall.mp4 --zone "door:0%,20%;25%,20%;25%,90%;0%,90%"
    """
    settings = with_overrides(
        load_settings(config),
        {
            "detect.model": model,
            "detect.weights": weights,
            "detect.device": device,
            "detect.backend": backend,
            "detect.precision": precision,
            "detect.long_side": long_side,
            "detect.face_threshold": face_threshold,
            "detect.nms_iou": nms_iou,
            "detect.min_face_px": min_face_px,
            "detect.batch_size": batch_size,
            "detect.threads": threads,
            "detect.refine": refine,
            "detect.refine_min_px": refine_min_px,
            "detect.refine_most": refine_most,
            "track.label_by": label_by,
            **looks(every, detect_fps, blur=blur),
            "track.min_hits": min_hits,
            "track.lost_seconds": lost_seconds,
            "track.bridge_seconds": bridge_seconds,
            "label.unsure_below": unsure_below,
            "render.style": style,
            "render.blur": blur,
            "render.labels": labels,
            "video.codec": codec,
            "video.crf": crf,
            "video.preset": preset,
            "video.sound": sound,
            "zones.zone": zone or None,
            "zones.line": line or None,
            "report.thumbnails": thumbnails,
        },
        as_flags=True,
    )
    start_seconds, end_seconds = parse_time(start, "--start"), parse_time(end, "--end")
    # From here on it takes torch and the rest; usage errors have been told by now.
    from videogender.annotation import AnnotationInterrupted
    from videogender.annotation import annotate as run
    from videogender.cli.report import Report
    from videogender.cli.signals import catching, press_ctrl_c
    from videogender.outputs import DataOutputs

    data = DataOutputs(json, csv, coco, mot, vtt, summary, report)
    with (
        catching([signal.SIGTERM], press_ctrl_c, press_ctrl_c) as caught,
        Report(quiet=quiet, model=settings.detect.model, caught=caught) as watch,
    ):
        try:
            summaries = run(
                inputs,
                output=output,
                settings=settings,
                **asdict(data),
                video=not no_video,
                start_seconds=start_seconds,
                end_seconds=end_seconds,
                force=force,
                skip_existing=skip_existing,
                recursive=recursive,
                jobs=jobs,
                engine=engine,
                address=address,
                progress=watch,
            )
        except KeyboardInterrupt as stop:
            there = [place for place in data.places if place == "-" or Path(place).exists()]
            begun = stop.summaries if isinstance(stop, AnnotationInterrupted) else []
            watch.interrupted(begun, there)
            return caught.exit_code or 130
        watch.done(summaries, data.places)
    failed = [done.error for done in summaries if done.error is not None]
    return failed[0].exit_code if failed else 0
