"""What the benchmarks share: a note of what is under way, and results as a table and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from json import dumps
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["reporting"]


@contextmanager
def reporting(
    json: str | None, *, force: bool
) -> Iterator[tuple[Callable[[str], None], Callable[..., None]]]:
    """Give two functions to a benchmark: one says what is measured, one shows the results.

    Args:
        json: where the results also go as JSON; - is standard output.
        force: replace a file that exists.

    Raises:
        OutputError: the file exists, or cannot be written.
    """
    from rich.console import Console

    from videogender.sinks.atomic import pending

    aside = Console(stderr=True, highlight=False)
    with ExitStack() as stack:
        place = None
        if json is not None and json != "-":  # a refusal should come before the long work
            place = stack.enter_context(pending(json, force=force))
        status = aside.status("measuring", spinner="line")
        stack.callback(status.stop)
        status.start()

        def show(values: dict[str, Any], heading: str, table: Table, notes: str = "") -> None:
            status.stop()
            text = dumps(values, indent=2) + "\n"
            if place is not None:
                place.write_text(text, encoding="utf-8")
            console = aside if json == "-" else Console(highlight=False)
            if not console.is_terminal:  # lines for a file or another program stay whole
                console.width = 120
            console.print(heading, markup=False, soft_wrap=True)
            console.print()
            console.print(table)
            if notes:
                console.print()
                console.print(notes, markup=False, soft_wrap=True)
            if json == "-":
                print(text, end="")

        yield lambda part: status.update(f"measuring {part}"), show
