"""`videogender live`: parse the flags, join the parts, and run until somebody stops it."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from videogender.cli.annotate import looks, other, setting
from videogender.cli.ending import abandon_stdout, explain
from videogender.cli.live_parts import TOKEN_VARIABLE, LiveParts
from videogender.cli.times import parse_time
from videogender.config import load_settings, with_overrides
from videogender.errors import ConfigError, VideogenderError

if TYPE_CHECKING:
    from videogender.pipeline import BatchDetector

__all__ = ["live"]

SOURCES, SCREENS, OUTPUT = "Sources", "Screens", "Output"
FACES, LOOK, ENCODING = "Finding and following faces", "Drawing", "Encoding"


def live(
    camera: Annotated[
        list[str] | None,
        other(
            "--camera",
            panel=SOURCES,
            metavar="N|/dev/videoN|NAME",
            help="A camera (see videogender cameras). May be repeated, as the next two may; "
            "without any of them it is camera 0.",
        ),
    ] = None,
    url: Annotated[
        list[str] | None,
        other(
            "--url",
            panel=SOURCES,
            metavar="ADDRESS",
            help="A stream: RTSP, RTMP, HTTP (MJPEG, MPEG-TS, HLS), UDP, RTP, SRT.",
        ),
    ] = None,
    file: Annotated[
        list[Path] | None,
        other("--file", panel=SOURCES, metavar="FILE", help="A video, played at its own speed."),
    ] = None,
    loop: Annotated[
        bool, other("--loop", panel=SOURCES, help="Play files again and again.")
    ] = False,
    drop: Annotated[
        bool,
        other("--drop", panel=SOURCES, help="Drop frames of files, too, rather than slow down."),
    ] = False,
    size: Annotated[str | None, setting("live.size", SOURCES)] = None,
    fps: Annotated[float | None, setting("live.fps", SOURCES)] = None,
    timeout_seconds: Annotated[float | None, setting("live.timeout_seconds", SOURCES)] = None,
    give_up_after: Annotated[
        str | None,
        other(
            "--give-up-after",
            panel=SOURCES,
            metavar="TIME",
            help="How long to try to bring a lost source back, such as 30s or 10m; 0 is for ever "
            "(default 60s).",
        ),
    ] = None,
    duration: Annotated[
        str | None,
        other(
            "--duration", panel=SOURCES, metavar="TIME", help="End after this time, such as 30s."
        ),
    ] = None,
    display: Annotated[
        bool | None,
        other(
            "--display/--no-display",
            panel=SCREENS,
            help="Open a window, or not; by default where there is a display and no --serve.",
        ),
    ] = None,
    hud: Annotated[
        bool | None,
        other("--hud/--no-hud", panel=SCREENS, help="Write the figures into the window's picture."),
    ] = None,
    serve: Annotated[
        str | None,
        other(
            "--serve",
            panel=SCREENS,
            metavar="[HOST:]PORT",
            help="Show a web page; without HOST it is reachable from this machine alone.",
        ),
    ] = None,
    token: Annotated[
        str | None,
        other(
            "--token",
            panel=SCREENS,
            metavar="TEXT",
            help="Secret that visitors of the page need (or in the environment: "
            f"{TOKEN_VARIABLE}); one is made where it is needed.",
        ),
    ] = None,
    record: Annotated[
        str | None,
        other(
            "--record",
            panel=OUTPUT,
            metavar="FILE",
            help="Record what is seen, as .mp4 or .mkv; with several sources a file each.",
        ),
    ] = None,
    record_raw: Annotated[
        bool, other("--record-raw", panel=OUTPUT, help="Record without anything drawn.")
    ] = False,
    segment: Annotated[
        str | None,
        other(
            "--segment", panel=OUTPUT, metavar="TIME", help="Record into parts this long, as 10m."
        ),
    ] = None,
    json: Annotated[
        str | None,
        other(
            "--json",
            panel=OUTPUT,
            metavar="FILE|-",
            help="Write JSON Lines, one object a frame; - is standard output.",
        ),
    ] = None,
    interval: Annotated[
        str | None,
        other("--interval", panel=OUTPUT, metavar="TIME", help="One object every so often, as 5s."),
    ] = None,
    force: Annotated[
        bool, other("--force", "-f", panel=OUTPUT, help="Replace outputs that exist.")
    ] = False,
    config: Annotated[
        Path | None,
        other("--config", panel=OUTPUT, metavar="FILE", help="YAML file; flags win over it."),
    ] = None,
    quiet: Annotated[
        bool, other("--quiet", "-q", panel=OUTPUT, help="Say nothing but warnings and errors.")
    ] = False,
    model: Annotated[str | None, setting("detect.model", FACES)] = None,
    weights: Annotated[str | None, setting("detect.weights", FACES)] = None,
    device: Annotated[str | None, setting("detect.device", FACES)] = None,
    backend: Annotated[str | None, setting("detect.backend", FACES)] = None,
    precision: Annotated[str | None, setting("detect.precision", FACES)] = None,
    long_side: Annotated[int | None, setting("detect.long_side", FACES)] = None,
    face_threshold: Annotated[float | None, setting("detect.face_threshold", FACES)] = None,
    unsure_below: Annotated[float | None, setting("label.unsure_below", FACES)] = None,
    min_face_px: Annotated[float | None, setting("detect.min_face_px", FACES)] = None,
    threads: Annotated[int | None, setting("detect.threads", FACES)] = None,
    refine: Annotated[str | None, setting("detect.refine", FACES)] = None,
    detect_fps: Annotated[
        float | None,
        setting("track.detect_fps", FACES, "Look this many times a second at most; 0 at all times"),
    ] = None,
    label_by: Annotated[str | None, setting("track.label_by", FACES)] = None,
    zone: Annotated[
        list[str] | None,
        other(
            "--zone",
            panel=FACES,
            metavar="NAME[@N]:X1,Y1;X2,Y2;...",
            help="Count who is in this area, in pixels or percent; may be given several times. It "
            "holds for every source, with @N for the N-th alone (cameras first, then addresses, "
            "then files).",
        ),
    ] = None,
    line: Annotated[
        list[str] | None,
        other(
            "--line",
            panel=FACES,
            metavar="NAME[@N]:X1,Y1;X2,Y2",
            help="Count who crosses this line; `in` is to its right, seen from its first point.",
        ),
    ] = None,
    style: Annotated[str | None, setting("render.style", LOOK)] = None,
    blur: Annotated[
        bool | None,
        other(
            "--blur/--no-blur",
            panel=LOOK,
            help="Make faces unrecognisable; frames are then shown only once they were looked at.",
        ),
    ] = None,
    labels: Annotated[
        bool | None, other("--labels/--no-labels", panel=LOOK, help="Write labels, or not.")
    ] = None,
    codec: Annotated[str | None, setting("video.codec", ENCODING)] = None,
    crf: Annotated[int | None, setting("video.crf", ENCODING)] = None,
    preset: Annotated[str | None, setting("video.preset", ENCODING)] = None,
) -> int:
    """Label the faces of cameras, streams and files live, on a window, a page or neither.

    Only the newest frame of a camera or stream counts, so that the picture never
    lags; what is dropped is counted. Keys in the window: q or Esc quits, space
    pauses, s saves a still, h shows or hides the figures. Ctrl-C ends a run in
    order, too.

    Examples:

      videogender live --camera 0

      videogender live --url rtsp://user:secret@camera.local/stream
        --record day.mkv --segment 1h

      videogender live --camera 0 --url http://door.local/video.mjpg --serve 8080

      videogender live --file clip.mp4 --loop --no-display --json - --interval 5s

      videogender live --camera 0 --line "gate:50%,100%;50%,0%" --serve 8080
    """
    settings = with_overrides(
        load_settings(config),
        {
            "live.size": size,
            "live.fps": fps,
            "live.timeout_seconds": timeout_seconds,
            "live.give_up_after_seconds": parse_time(give_up_after, "--give-up-after"),
            "live.hud": hud,
            "detect.model": model,
            "detect.weights": weights,
            "detect.device": device,
            "detect.backend": backend,
            "detect.precision": precision,
            "detect.long_side": long_side,
            "detect.face_threshold": face_threshold,
            "detect.min_face_px": min_face_px,
            "detect.threads": threads,
            "detect.refine": refine,
            **looks(None, detect_fps, blur=blur),
            "track.label_by": label_by,
            "zones.zone": zone or None,
            "zones.line": line or None,
            "label.unsure_below": unsure_below,
            "render.style": style,
            "render.blur": blur,
            "render.labels": labels,
            "video.codec": codec,
            "video.crf": crf,
            "video.preset": preset,
        },
        as_flags=True,
    )
    run = LiveParts(settings, force=force)
    run.check(
        record=record,
        record_raw=record_raw,
        segment=segment,
        json=json,
        interval=interval,
        token=token,
        serve=serve,
    )
    ends_after = parse_time(duration, "--duration") or 0.0
    if (size or fps) and (url or file) and not camera:
        raise ConfigError("--size and --fps are asked of cameras; there is none here")
    if (loop or drop) and not file:
        raise ConfigError("--loop and --drop go with --file")
    run.keep_apart(file or [], json, record)
    place = run.place(serve, token)
    window = run.window(display, has_page=place is not None)
    sources = run.sources(camera or [], url or [], file or [], loop=loop, drop=drop)
    run.check_zones(len(sources))
    from videogender.sinks.background import BackgroundStdout

    stdout = BackgroundStdout(is_all=record is None and place is None and window is not True)
    failure: VideogenderError | None = None
    with ExitStack() as stack:
        recorders = run.recorders(record, sources, parse_time(segment, "--segment") or 0.0)
        from videogender.cli.live_report import LiveReport

        report = stack.enter_context(LiveReport(quiet=quiet))
        from videogender.detector import Detector
        from videogender.live.engine import Engine

        detect = settings.detect
        first = Detector.load(
            detect.model, weights=detect.weights, device=detect.device, settings=detect
        )
        detector: BatchDetector = first
        if detect.refine is not None:
            from videogender.refine import RefinedDetector

            detector = RefinedDetector.around(first, detect)
        engine = Engine(
            sources,
            detector,
            settings,
            recorders=recorders,
            records_raw=record_raw,
            duration_seconds=ends_after,
            notice=report.notice,
        )
        screens = run.screens(engine, report, place, window=window)
        for screen in screens:
            stack.callback(screen.close)
        log = run.log(stack, json, parse_time(interval, "--interval") or 0.0, stdout)
        report.begin(engine, drops_nothing=[source.waits for source in sources])
        with report.signals(engine) as caught:
            try:
                with stdout:
                    engine.run(screens, log)
                stdout.check_read()
            except VideogenderError as error:
                failure = error
            except KeyboardInterrupt:
                pass  # a second signal: it ends at once
            finally:
                report.end(engine, recorders, json, stdout.lost)
    code = 0 if failure is None else explain(failure)
    code = caught.exit_code or code
    if not engine.ended_clean:
        # A thread in a long forward pass, or one that waits for a network, cannot be stopped, and
        # Python would trip over it on its way out. Everything is closed by now.
        abandon_stdout()
        sys.stderr.flush()
        os._exit(code)
    return code
