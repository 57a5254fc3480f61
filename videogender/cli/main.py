"""The command line's front door: finds the subcommand, runs it, turns errors into exit codes."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, NamedTuple

import typer

from videogender import __version__
from videogender.cli.ending import abandon_stdout, explain, say

__all__ = ["SUBCOMMANDS", "Subcommand", "main"]


class Subcommand(NamedTuple):
    """Where a subcommand lives, and the one line that `videogender --help` says about it."""

    module: str
    attribute: str  # a typer command function, or a `typer.Typer` that holds further commands
    help: str


# Only the module of the subcommand that runs is imported; the others are known by this table.
SUBCOMMANDS: dict[str, Subcommand] = {
    "annotate": Subcommand(
        "videogender.cli.annotate", "annotate", "Find and label the faces of videos and images."
    ),
    "bench": Subcommand(
        "videogender.cli.bench", "app", "Measure the network and the whole pipeline here."
    ),
    "cameras": Subcommand(
        "videogender.cli.cameras", "cameras", "List the cameras of this machine."
    ),
    "classify": Subcommand(
        "videogender.cli.classify", "classify", "Sort images into your own classes."
    ),
    "config": Subcommand("videogender.cli.config", "app", "Show the settings that are in force."),
    "doctor": Subcommand(
        "videogender.cli.doctor", "doctor", "Say what is installed here, and whether it works."
    ),
    "eval": Subcommand(
        "videogender.cli.eval", "app", "Measure accuracy on pictures and videos with labels."
    ),
    "export": Subcommand(
        "videogender.cli.export", "export", "Write a network as ONNX for other runtimes."
    ),
    "finetune": Subcommand(
        "videogender.cli.finetune", "finetune", "Train heads on labelled faces of your own."
    ),
    "live": Subcommand(
        "videogender.cli.live", "live", "Label faces live: cameras, streams, files."
    ),
    "train": Subcommand("videogender.cli.train", "train", "Train a network from scratch."),
    "weights": Subcommand("videogender.cli.weights", "app", "List, import and fetch weights."),
}

# As if SIGPIPE had ended it, which Python ignores.
READER_LEFT = 141

EPILOG = """\b
Examples:
  videogender annotate clip.mp4                    writes clip.annotated.mp4
  videogender annotate clip.mp4 --json faces.jsonl also writes the data
  videogender annotate --help                      explains every flag
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    It is that of `videogender.errors`, 130 for Ctrl-C, or 141 if nobody reads its output any more.

    Args:
        argv: the arguments after the program's name; None takes `sys.argv`.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    given = list(sys.argv[1:] if argv is None else argv)
    args, debug = _without_debug(given)
    if debug:
        logging.basicConfig(format="%(message)s")
    logging.getLogger("videogender").setLevel(logging.DEBUG if debug else logging.NOTSET)
    command = typer.main.get_command(_build(args))
    try:
        result = command.main(
            args=args or ["--help"], prog_name="videogender", standalone_mode=False
        )
        sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except BrokenPipeError:  # the reader of our output has seen enough (`| head`)
        abandon_stdout()
        return READER_LEFT
    except SystemExit as stop:
        return _code_of(stop)
    except Exception as error:
        return explain(error)
    return result if isinstance(result, int) else 0


def _code_of(stop: SystemExit) -> int:
    """Return the exit code of what ends itself, and print its message if it has one."""
    abandon_stdout()
    if isinstance(stop.__context__, BrokenPipeError):  # so do typer and rich
        return READER_LEFT
    if stop.code is None or isinstance(stop.code, int):
        return stop.code or 0
    say(stop.code)
    return 1


def _without_debug(args: list[str]) -> tuple[list[str], bool]:
    """Take `--debug` out, wherever it stands before a `--`, so that every subcommand has it."""
    end = args.index("--") if "--" in args else len(args)
    flags = [arg for arg in args[:end] if arg != "--debug"]
    return flags + args[end:], len(flags) < end


def _build(args: Sequence[str]) -> typer.Typer:
    """Assemble the application, with the real module behind the one subcommand that was named."""
    chosen = next((arg for arg in args if not arg.startswith("-")), None)
    app = typer.Typer(
        add_completion=False,
        epilog=EPILOG,
        # The panels of rich cost more than everything else in `videogender --help` together.
        rich_markup_mode="rich" if chosen in SUBCOMMANDS else None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for name, entry in SUBCOMMANDS.items():
        if name == chosen:
            target = getattr(import_module(entry.module), entry.attribute)
        else:
            target = _not_loaded
        if isinstance(target, typer.Typer):
            app.add_typer(target, name=name, help=entry.help)
        else:
            app.command(name, short_help=entry.help)(target)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"videogender {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the whole trace of an error, not one line.")
    ] = False,
) -> None:
    """Find the faces in videos and images and label presented gender, with an honest `unsure`."""


def _not_loaded() -> None:
    """Stand in for a subcommand that this run does not need."""
