"""`videogender weights`: list what is known, import checkpoints, fetch the public one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from videogender.download import Fetched
    from videogender.weights_store import WeightsFile

__all__ = ["app"]

app = typer.Typer(
    help="List, import and fetch weights.", invoke_without_command=True, no_args_is_help=False
)

Name = Annotated[
    str | None, typer.Option(help="What to call it; by default the name of its model.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace other weights of that name.")]


@app.callback()
def default(context: typer.Context) -> None:
    """List, import and fetch weights; without a command, list."""
    if context.invoked_subcommand is None:
        list_weights()


@app.command("list")
def list_weights() -> None:
    """Show which weights are known, where they lie, and what is in them."""
    from rich.console import Console
    from rich.table import Table

    from videogender.weights_store import known

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("name", "model", "tells", "size", "SHA-256", "where"):
        right = heading == "size"
        table.add_column(heading, justify="right" if right else "left", overflow="fold")
    for entry in known():
        table.add_row(*_row(entry))
    console = Console(markup=False, highlight=False, emoji=False)
    if not console.is_terminal:  # lines for other programs stay whole
        console.width = 500
    console.print(table)


@app.command("import")
def import_weights(
    file: Annotated[
        Path, typer.Argument(help="A public S3FD checkpoint, or weights that videogender wrote.")
    ],
    name: Name = None,
    force: Force = False,
) -> None:
    """Check a checkpoint, convert it to safetensors, and keep it in the cache."""
    from videogender.weights_store import add_file

    _tell(add_file(file, name, force=force))


@app.command("pull")
def pull(
    what: Annotated[str, typer.Argument(help="s3fd: the authors' detector, as a public port.")],
    url: Annotated[str | None, typer.Option(help="Fetch it from this address instead.")] = None,
    name: Name = None,
    force: Force = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Fetch public weights, check them, and import them."""
    from videogender.download import announced_digest, file_name
    from videogender.errors import ModelError
    from videogender.weights_store import PUBLIC, add_file, cache_dir, find_same

    if what not in PUBLIC:
        raise ModelError(f"nothing public is called {what!r}; known are {', '.join(PUBLIC)}")
    model, address = PUBLIC[what]
    address = url or address
    announced = announced_digest(file_name(address))
    # A name that is taken should be found out before the download, not after it.
    entry = None if force else find_same(name or model, announced or "")
    if entry is None:
        fetched = _fetch(address, cache_dir() / "downloads", quiet)
        try:
            entry = add_file(fetched.path, name, force=force)
        finally:
            fetched.path.unlink(missing_ok=True)
        if not fetched.checked:
            print(f"{fetched.path.name}: its name announces no SHA-256; it is {fetched.sha256}")
    _tell(entry)


def _fetch(url: str, folder: Path, quiet: bool) -> Fetched:
    """Fetch with a progress bar on stderr."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    from videogender.download import fetch

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(
        TextColumn("{task.description}", markup=False),
        *columns,
        console=Console(stderr=True),
        disable=quiet,
    ) as bar:
        task = bar.add_task(url.rpartition("/")[2], total=None)
        return fetch(
            url,
            folder,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )


def _row(entry: WeightsFile) -> tuple[str, ...]:
    """Return one line of the table."""
    if entry.problem and not entry.size_bytes:
        hint = "videogender weights pull s3fd" if entry.name == "vgg16" else "reinstall videogender"
        return entry.name, entry.name, "", "", "", f"not here: {hint}"
    if entry.problem:
        return entry.name, entry.model, "", _size(entry), "", entry.problem
    where = f"{entry.path} (ships with videogender)" if entry.origin == "package" else entry.path
    return entry.name, entry.model, _answers(entry), _size(entry), entry.sha256[:12], str(where)


def _answers(entry: WeightsFile) -> str:
    """Say what weights tell of a face, or of a picture."""
    import json

    try:
        labels = [str(label) for label in json.loads(entry.metadata.get("labels", "[]"))]
    except (ValueError, TypeError):
        labels = []
    if len(labels) > 4:
        labels = [*labels[:3], f"{len(labels) - 3} more"]
    kind = {"refeed": "second look", "classifier": "pictures"}.get(entry.metadata.get("task", ""))
    parts = [f"{kind}: {', '.join(labels)}"] if kind else []
    if entry.has_gender and not kind:
        parts.append("gender")
    if entry.metadata.get("task") == "attribute":
        parts.append(", ".join(labels))
    return "; ".join(parts) or "faces only"


def _size(entry: WeightsFile) -> str:
    return f"{entry.size_bytes / 1e6:.1f} MB"


def _tell(entry: WeightsFile) -> None:
    """Say what was imported and how to use it."""
    from videogender.weights_store import MODELS

    source = entry.metadata.get("source_file", entry.path.name)
    if chosen := entry.metadata.get("chosen"):
        print(f"{source}: {chosen}")
    print(f"{entry.name}: model {entry.model}, {_size(entry)}, {entry.path}")
    flag = "--model" if entry.name in MODELS else "--weights"
    print(f"use it with {flag} {entry.name}")
    if not entry.has_gender:
        print("it has no gender heads: every face is `unsure`")
