"""`videogender train`: parse the flags, join them with a recipe or a stored run, and train."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from videogender.cli.annotate import other
from videogender.errors import ConfigError
from videogender.signals import exit_code_of
from videogender.training.run_folder import RunFolder
from videogender.training.settings import (
    TrainSettings,
    read_recipe,
    rule_of,
    settings_of,
    with_values,
)

__all__ = ["train"]

DATA, RUN, RECIPE = "Data", "Run", "Recipe"

# flags of settings that have one of their own
FLAGS = {
    "--part": "part",
    "--minutes": "minutes",
    "--steps": "steps",
    "--side": "side",
    "--batch": "batch",
    "--lr": "learning_rate",
    "--optimizer": "optimizer",
    "--seed": "seed",
}


def setting(flag: str, panel: str) -> Any:
    """Describe the flag of a setting, with its range and default."""
    key = FLAGS[flag]
    rule = rule_of(key)
    default = next(f.default for f in TrainSettings.__dataclass_fields__.values() if f.name == key)
    notes = [rule.allowed()] if rule.least is not None and rule.least > 0 else []
    notes += [f"default {default}"] if default else []
    text = rule.help[0].upper() + rule.help[1:]
    return typer.Option(
        flag,
        metavar="|".join(rule.choices) or None,
        help=f"{text} ({'; '.join(notes)})." if notes else f"{text}.",
        show_default=False,
        rich_help_panel=panel,
    )


def paths(flag: str, help: str) -> Any:
    """Describe a flag that takes data files and may be repeated."""
    return other(flag, panel=DATA, metavar="DIR|JSONL", help=help)


def train(
    out: Annotated[
        Path,
        other(
            *("--out", "-o"),
            panel=RUN,
            metavar="DIR",
            help="Folder of the run: best.safetensors, last.safetensors, last.pt, metrics.jsonl.",
        ),
    ],
    scenes: Annotated[
        list[Path] | None, paths("--scenes", "Pictures with faces of all sizes. Repeatable.")
    ] = None,
    portraits: Annotated[
        list[Path] | None, paths("--portraits", "Pictures of about one face each. Repeatable.")
    ] = None,
    ignore_also: Annotated[
        list[Path] | None,
        other(
            "--ignore-also",
            panel=DATA,
            metavar="JSONL",
            help="What another detector found in the scenes (a box and a score a face): where the "
            "labels have no such face, it counts neither way. Repeatable.",
        ),
    ] = None,
    teach: Annotated[
        list[Path] | None,
        other(
            "--teach",
            panel=DATA,
            metavar="JSONL",
            help="How likely another network takes faces for female (a box and `female`, 0 to 1, a "
            "face): --part second-stage learns from it beside the labels. Repeatable.",
        ),
    ] = None,
    val_scenes: Annotated[
        list[Path] | None,
        paths("--val-scenes", "Scenes to choose the best weights by. Repeatable."),
    ] = None,
    val_portraits: Annotated[
        list[Path] | None,
        paths("--val-portraits", "Portraits to choose by and to calibrate on. Repeatable."),
    ] = None,
    part: Annotated[str | None, setting("--part", RUN)] = None,
    minutes: Annotated[float | None, setting("--minutes", RUN)] = None,
    steps: Annotated[int | None, setting("--steps", RUN)] = None,
    init: Annotated[
        Path | None,
        other("--init", panel=RUN, metavar="FILE", help="Start from these .safetensors weights."),
    ] = None,
    resume: Annotated[
        bool,
        other(
            "--resume",
            panel=RUN,
            help="Go on where the run in --out stopped, with its own settings and data; only its "
            "length may change.",
        ),
    ] = False,
    force: Annotated[
        bool, other("--force", "-f", panel=RUN, help="Delete a run that --out holds.")
    ] = False,
    device: Annotated[
        str, other("--device", panel=RUN, metavar="auto|cpu|cuda", help="Where to train.")
    ] = "auto",
    processes: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="On a CPU, processes of one thread each; 0 takes one a core.",
            show_default=False,
            rich_help_panel=RUN,
        ),
    ] = 0,
    quiet: Annotated[
        bool, other("--quiet", "-q", panel=RUN, help="Say nothing but warnings and errors.")
    ] = False,
    config: Annotated[
        Path | None,
        other(
            "--config",
            panel=RECIPE,
            metavar="FILE",
            help="YAML file of settings, as configs/train.yaml; flags win over it.",
        ),
    ] = None,
    side: Annotated[int | None, setting("--side", RECIPE)] = None,
    batch: Annotated[int | None, setting("--batch", RECIPE)] = None,
    optimizer: Annotated[str | None, setting("--optimizer", RECIPE)] = None,
    lr: Annotated[float | None, setting("--lr", RECIPE)] = None,
    seed: Annotated[int | None, setting("--seed", RECIPE)] = None,
    set_: Annotated[
        list[str] | None,
        other(
            "--set",
            panel=RECIPE,
            metavar="KEY=VALUE",
            help="Any setting of the recipe, such as crops.mosaic_share=0.5. Repeatable.",
        ),
    ] = None,
) -> int:
    """Train `lite` to find faces and to tell presented gender.

    The data is JSON Lines, one line a picture, in a file or in a folder's
    `faces.jsonl`. Paths are relative to that file; boxes are x1, y1, x2, y2 in
    pixels. `gender` (female or male) is left out where unknown, and
    `"ignore": true` marks a face that counts neither as found nor as missed:

      {"image": "a.jpg", "width": 640, "height": 480,
       "faces": [{"box": [12, 30, 52, 84], "gender": "female"}]}

    The anchors come first. `--part second-stage` then teaches the small network
    that sees each face close up, on what the anchors of --init propose.

    With data to choose by, best.safetensors holds the weights with the highest
    sum of average precision and gender accuracy, calibrated at the end. Ctrl-C
    writes a checkpoint first.

    Examples:

      videogender train --scenes faces/train --portraits people/train
        --val-scenes faces/val --val-portraits people/val --out runs/a
        --minutes 300

      videogender train --out runs/a --resume

      videogender train --part second-stage --init runs/a/best.safetensors
        --scenes faces/train --portraits people/train --val-scenes faces/val
        --val-portraits people/val --out runs/b --minutes 120

      torchrun --nproc-per-node 8 -m videogender train --scenes faces/train
        --out runs/b --steps 50000 --batch 256
    """
    folder = RunFolder(out)
    stored = folder.stored() if resume else {}
    values = with_values(stored.get("settings", {}), source=str(folder.record))
    if config is not None:
        values = with_values(read_recipe(config), values, str(config))
    for text in set_ or []:
        key, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--set {text}: expected KEY=VALUE, such as crops.aspect=0.1")
        values = with_values({key.strip(): value}, values, "--set")
    given = (part, minutes, steps, side, batch, lr, optimizer, seed)
    for (flag, key), flag_value in zip(FLAGS.items(), given, strict=True):
        if flag_value is not None:
            values = with_values({key: flag_value}, values, flag)
    if (minutes is None) != (steps is None):  # the flag replaces a length of the other kind
        values["minutes" if minutes is None else "steps"] = 0
    settings = settings_of(values)
    named = {
        "scenes": scenes,
        "portraits": portraits,
        "ignore_also": ignore_also,
        "teach": teach,
        "val_scenes": val_scenes,
        "val_portraits": val_portraits,
    }
    kept = stored.get("data", {})
    data = {k: v or [Path(p) for p in kept.get(k, [])] for k, v in named.items()}
    if not data["scenes"] and not data["portraits"]:
        raise ConfigError("nothing to learn from: give --scenes, --portraits or both")
    return _run(
        data, settings, out, device, processes, init=init, resume=resume, force=force, quiet=quiet
    )


def _run(
    data: dict[str, list[Path]],
    settings: TrainSettings,
    out: Path,
    device: str,
    processes: int,
    *,
    init: Path | None,
    resume: bool,
    force: bool,
    quiet: bool,
) -> int:
    """Load what is heavy, and train."""
    # Large tensors on huge pages: page faults cost more than the work on fresh memory (converting a
    # batch from uint8 to float takes a quarter of the time). PyTorch reads this when it is loaded.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    from videogender.cli.train_report import TrainReport
    from videogender.training.launch import TrainData, is_first_process
    from videogender.training.launch import train as run

    where = TrainData(**data)
    with TrainReport(quiet=quiet or not is_first_process()) as report:
        try:
            weights = run(
                where,
                settings,
                out,
                device=device,
                processes=processes,
                init=init,
                resume=resume,
                force=force,
                say=report.say,
                report=report.progress,
                validated=report.validated,
            )
        except KeyboardInterrupt as stop:
            report.interrupted(out)
            return exit_code_of(stop)
        report.done(weights)
    return 0
