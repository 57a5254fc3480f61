"""`videogender finetune`: parse the flags, join them with a recipe or a stored run, and train."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from videogender.cli.annotate import other
from videogender.errors import ConfigError
from videogender.finetuning.folder import FinetuneFolder
from videogender.finetuning.settings import (
    FinetuneSettings,
    recipe_values,
    rule_of,
    settings_of,
    with_values,
)
from videogender.signals import exit_code_of
from videogender.training.keyed import read_recipe

__all__ = ["finetune"]

DATA, RUN, RECIPE = "Data", "Run", "Recipe"

# flags of settings that have one of their own
FLAGS = {
    "--epochs": "epochs",
    "--batch": "batch",
    "--lr": "learning_rate",
    "--loss": "loss.name",
    "--seed": "seed",
    "--workers": "workers",
}


def setting(flag: str, panel: str) -> Any:
    """Describe the flag of a setting, with its range."""
    rule = rule_of(FLAGS[flag])
    allowed = rule.allowed() if rule.least is not None and rule.least > 0 else ""
    text = rule.help[0].upper() + rule.help[1:]
    return typer.Option(
        flag,
        metavar="|".join(rule.choices) or None,
        help=f"{text} ({allowed})." if allowed else f"{text}.",
        show_default=False,
        rich_help_panel=panel,
    )


def finetune(
    data: Annotated[
        Path | None,
        typer.Argument(
            metavar="DATA",
            help="CSV file, folder of classes, JSON Lines, YOLO or COCO export.",
            show_default=False,
        ),
    ] = None,
    images: Annotated[
        Path | None,
        other("--images", panel=DATA, metavar="DIR", help="Where the pictures are, if not there."),
    ] = None,
    label_column: Annotated[
        str | None,
        other(
            "--label-column",
            panel=DATA,
            metavar="NAME",
            help="Column of the labels, such as Gender or Tags; without it, the gender.",
        ),
    ] = None,
    strict: Annotated[
        bool, other("--strict", panel=DATA, help="Refuse data that has any fault.")
    ] = False,
    dry_run: Annotated[
        bool,
        other(
            "--dry-run",
            panel=DATA,
            help="Say what the data holds, and name every fault; train nothing.",
        ),
    ] = False,
    recipe: Annotated[
        str | None,
        other(
            "--recipe",
            panel=RECIPE,
            metavar="NAME",
            help="heads (default), tower, best-scale, joint, classifier, classifier-notes, refeed.",
        ),
    ] = None,
    from_scratch: Annotated[
        bool,
        other(
            "--from-scratch",
            panel=RECIPE,
            help="Begin with new heads, copies of the face heads, not with the weights' own.",
        ),
    ] = False,
    model: Annotated[
        str, other("--model", panel=RUN, metavar="lite|vgg16", help="Which network (lite).")
    ] = "lite",
    from_: Annotated[
        str | None,
        other(
            "--from", panel=RUN, metavar="WEIGHTS", help="Begin with these, not the model's own."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        other(
            *("--out", "-o"),
            panel=RUN,
            metavar="DIR",
            help="Folder of the run; without it, runs/NAME-RECIPE.",
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        other(
            "--resume",
            panel=RUN,
            metavar="DIR",
            help="Go on where this run stopped, with its own data and settings.",
        ),
    ] = None,
    force: Annotated[
        bool, other("--force", "-f", panel=RUN, help="Delete a run that the folder holds.")
    ] = False,
    device: Annotated[
        str, other("--device", panel=RUN, metavar="auto|cpu|cuda|mps", help="Where to train.")
    ] = "auto",
    workers: Annotated[int | None, setting("--workers", RUN)] = None,
    quiet: Annotated[
        bool, other("--quiet", "-q", panel=RUN, help="Say nothing but warnings and errors.")
    ] = False,
    config: Annotated[
        Path | None,
        other(
            "--config",
            panel=RECIPE,
            metavar="FILE",
            help="YAML file of settings, as those in configs/finetune/; flags win over it.",
        ),
    ] = None,
    epochs: Annotated[int | None, setting("--epochs", RECIPE)] = None,
    batch: Annotated[int | None, setting("--batch", RECIPE)] = None,
    lr: Annotated[float | None, setting("--lr", RECIPE)] = None,
    loss: Annotated[str | None, setting("--loss", RECIPE)] = None,
    seed: Annotated[int | None, setting("--seed", RECIPE)] = None,
    set_: Annotated[
        list[str] | None,
        other(
            "--set",
            panel=RECIPE,
            metavar="KEY=VALUE",
            help="Any setting of the recipe, such as features.scales=[1,0.5,0.25]. Repeatable.",
        ),
    ] = None,
) -> int:
    """Fine-tune on labelled faces of your own: gender, or any other classes.

    The form of DATA is recognised: a CSV with a column for the picture's name, a
    folder with one folder a class, JSON Lines as for `train`, YOLO and COCO
    exports. By default only gender heads learn and the network finds faces as
    before; labels other than gender make heads of their own, which `annotate`
    draws as well.

    The folder of the run gets best.safetensors, results.json and report.html.
    Ctrl-C writes a checkpoint first.

    Examples:

      videogender finetune people.csv --images photos/ --dry-run

      videogender finetune people.csv --images photos/ --out runs/a

      videogender finetune masks/ --recipe tower --out runs/masks

      videogender finetune people.csv --label-column Tags --recipe classifier

      videogender finetune --resume runs/a

      torchrun --nproc-per-node 2 -m videogender finetune people.csv --out runs/b
    """
    if resume is not None and out is not None and out.resolve() != resume.resolve():
        raise ConfigError("--resume goes on in its own folder: leave --out out")
    stored: dict[str, Any] = {}
    if resume is not None:
        stored = FinetuneFolder(resume).stored()
        if not stored:
            raise ConfigError(f"--resume {resume}: holds no run")
    given = dict(zip(FLAGS, (epochs, batch, lr, loss, seed, workers), strict=True))
    values = _values(stored, recipe, config, from_scratch, set_ or [], given)
    settings = settings_of(values)
    source = stored.get("data", {})
    where = data or _path(source.get("data"))
    if where is None:
        raise ConfigError("nothing to learn from: name a CSV file, a folder or an export")
    pictures, column = images or _path(source.get("images")), label_column or source.get("column")
    from videogender.finetuning.data import read_data
    from videogender.finetuning.datasets import summary_lines

    found = read_data(where, pictures, column, settings, strict=strict)
    quiet = quiet or os.environ.get("RANK", "0") != "0"  # one process speaks for all
    if not quiet:
        lines = summary_lines(found.labelled, found.split, all_problems=dry_run)
        print("\n".join(lines), file=sys.stderr)
    if dry_run:
        return 0
    # From here on it takes torch.
    from videogender.cli.finetune_report import FinetuneReport
    from videogender.finetuning.request import Request
    from videogender.finetuning.run import finetune as run
    from videogender.weights_store import resolve

    with FinetuneReport(quiet=quiet) as report:
        begun = stored.get("weights_file") if from_ is None else None
        request = Request(
            data=found,
            source={
                "data": str(where.resolve()),
                "images": str(pictures.resolve()) if pictures else None,
                "column": column,
            },
            weights=Path(begun) if begun else resolve(model, from_),
            out=resume or out or Path("runs") / f"{found.labelled.name}-{settings.recipe}",
            device=device,
            resume=resume is not None,
            force=force,
        )
        try:
            results = run(request, settings, report)
        except KeyboardInterrupt as stop:
            report.interrupted(request.out)
            return exit_code_of(stop)
        if results:
            report.done(results)
    return 0


def _values(
    stored: dict[str, Any],
    recipe: str | None,
    config: Path | None,
    from_scratch: bool,
    texts: list[str],
    flags: dict[str, Any],
) -> dict[str, object]:
    """Lay a recipe, a file and flags over each other."""
    if stored:
        values = with_values(stored["settings"], source="run.json")
        if recipe not in (None, values["recipe"]):
            raise ConfigError(f"--recipe {recipe}: the run was begun with {values['recipe']}")
    else:
        values = dict[str, object]()
    read = read_recipe(config) if config is not None else {}
    if not stored:
        named = recipe or read.get("recipe") or FinetuneSettings().recipe
        values = with_values(recipe_values(str(named)))
        read["recipe"] = named
    if config is not None:
        values = with_values(read, values, str(config))
    if from_scratch:
        values = with_values({"head.start": "face"}, values, "--from-scratch")
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--set {text}: expected KEY=VALUE, such as features.anchors=4")
        values = with_values({key.strip(): value}, values, "--set")
    for flag, key in FLAGS.items():
        if flags[flag] is not None:
            values = with_values({key: flags[flag]}, values, flag)
    recipe_values(str(values.get("recipe", "heads")))  # known, wherever it was named
    return values


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None
