"""`videogender classify`: parse the flags, ask about each image, and say what came out."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from videogender.cli.annotate import DATA, FACES, other, setting
from videogender.config import Settings, with_overrides
from videogender.errors import ConfigError, SourceError, VideogenderError

if TYPE_CHECKING:
    from videogender.classify import Answer, Classifier
    from videogender.frames import Frame

__all__ = ["classify"]

BATCH = 8


def classify(
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE...", help="Images, folders or patterns.", show_default=False),
    ],
    weights: Annotated[
        str,
        other(
            *("--weights", "-w"),
            panel=DATA,
            metavar="FILE",
            help="Weights of videogender finetune, of any recipe.",
        ),
    ],
    json: Annotated[
        str | None,
        other("--json", panel=DATA, metavar="FILE|-", help="Write JSON Lines, an object an image."),
    ] = None,
    csv: Annotated[
        str | None,
        other("--csv", panel=DATA, metavar="FILE|-", help="Write CSV, a row an image."),
    ] = None,
    top: Annotated[
        int,
        typer.Option(min=1, help="How many classes the table names.", rich_help_panel=DATA),
    ] = 3,
    recursive: Annotated[
        bool,
        other("--recursive", "-r", panel=DATA, help="Take what lies in subfolders, too."),
    ] = False,
    force: Annotated[
        bool, other("--force", "-f", panel=DATA, help="Replace outputs that exist.")
    ] = False,
    quiet: Annotated[
        bool, other("--quiet", "-q", panel=DATA, help="Print no table, only errors.")
    ] = False,
    unsure_below: Annotated[float | None, setting("label.unsure_below", FACES)] = None,
    face_threshold: Annotated[float | None, setting("detect.face_threshold", FACES)] = None,
    device: Annotated[str | None, setting("detect.device", FACES)] = None,
    precision: Annotated[str | None, setting("detect.precision", FACES)] = None,
) -> int:
    """Say which of its classes a fine-tuned network sees in images.

    Weights of the recipe classifier look at the whole picture, scaled into 256 by
    256 pixels with its aspect ratio kept; all others look at the largest face of
    each image. An answer that is less probable than --unsure-below is `unsure`,
    and that is an answer.

    What it is for: a closed set of classes of your own, such as sorting an
    archive by ten presenters who agreed to it. What it is not for: recognising
    people in the open. It names one of its classes for any stranger, at times
    with confidence; it can neither verify nor find anybody, and nothing about a
    person should be decided by it.

    Examples:

      videogender classify photos/ --weights run/best.safetensors

      videogender classify *.jpg --weights mask.safetensors --json - | jq .label
    """
    if json == csv == "-":
        raise ConfigError("only one of --json and --csv can go to standard output")
    settings = with_overrides(
        Settings(),
        {
            "label.unsure_below": unsure_below,
            "detect.face_threshold": face_threshold,
            "detect.device": device,
            "detect.precision": precision,
        },
        as_flags=True,
    )
    from videogender.classify import Classifier
    from videogender.cli.classify_output import AnswerFile, Kind, table_line
    from videogender.sinks.rows import Stdout

    classifier = Classifier.load(weights, settings.detect)
    if not quiet:
        _say(f"{len(classifier.labels)} classes, asked about the {classifier.looks_at}")
    targets: dict[Kind, str | None] = {"json": json, "csv": csv}
    stdout = Stdout(is_all={json, csv} <= {None, "-"})
    failed: list[VideogenderError] = []
    paths = list(_expanded(images, failed, recursive=recursive, quiet=quiet))
    width = min(60, max((len(str(path)) for path in paths), default=0))
    done = 0
    try:
        with ExitStack() as stack:
            files = [
                stack.enter_context(
                    AnswerFile(
                        stdout.or_file(target),
                        kind,
                        classifier.labels,
                        settings.label,
                        force=force,
                    )
                )
                for kind, target in targets.items()
                if target is not None
            ]
            for frame, answer in _answers(paths, classifier, failed):
                done += 1
                for file in files:
                    file.write(frame, answer)
                if not quiet and "-" not in (json, csv):
                    stdout.write(f"{table_line(frame, answer, settings.label, top, width)}\n")
            if not done:
                raise _NothingDoneError
    except _NothingDoneError:
        pass
    stdout.check_read()
    return failed[0].exit_code if failed else 0


class _NothingDoneError(Exception):
    """Every image failed: takes the output files away before they get their names."""


def _expanded(
    given: Sequence[str], failed: list[VideogenderError], *, recursive: bool, quiet: bool
) -> Iterator[Path]:
    """Yield the images that the arguments stand for; videos beside them in folders are left out."""
    from videogender.sources import VIDEO_SUFFIXES, find_inputs

    def tell(line: str) -> None:
        if not quiet:
            _say(line)

    seen: set[Path] = set()
    for text in given:
        try:
            paths = [path for path, _ in find_inputs(text, recursive=recursive, tell=tell)]
            if len(paths) > 1 or Path(text).is_dir():
                paths = [path for path in paths if path.suffix.lower() not in VIDEO_SUFFIXES]
            if not paths:
                raise SourceError(f"{text}: holds videos, but no images")
        except SourceError as error:
            _fail(error, failed)
            continue
        for path in paths:
            if path.resolve() not in seen:
                seen.add(path.resolve())
                yield path


def _answers(
    paths: Sequence[Path], classifier: Classifier, failed: list[VideogenderError]
) -> Iterator[tuple[Frame, Answer | None]]:
    """Yield each image that can be read, in order, with what it was taken for."""
    waiting = iter(paths)
    while batch := list(islice(waiting, BATCH)):
        frames = []
        for path in batch:
            try:
                frames.append(_read(path))
            except SourceError as error:
                _fail(error, failed)
        yield from zip(frames, classifier(frames), strict=True)


def _read(path: Path) -> Frame:
    """Return an image as a frame.

    Raises:
        SourceError: it is missing, damaged or no image.
    """
    from videogender.sources import open_source

    with open_source(path) as source:
        if source.kind != "image":
            raise SourceError(f"{path}: a video; videogender annotate labels the faces of videos")
        return next(iter(source))


def _fail(error: VideogenderError, failed: list[VideogenderError]) -> None:
    failed.append(error)
    _say(f"error: {error}")


def _say(line: str) -> None:
    print(line, file=sys.stderr)
