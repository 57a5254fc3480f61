"""One self-contained page: its frame, stylesheet and script, and the parts that reports share."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.resources import files
from pathlib import Path

from videogender import __version__
from videogender.errors import OutputError
from videogender.render.faces import COLOURS
from videogender.reports.markup import Html, Part, join, tag

__all__ = [
    "Cell",
    "Column",
    "Row",
    "cards",
    "fold",
    "picture",
    "render",
    "save",
    "section",
    "swatch",
    "table",
]

# Rows of a long table that are shown before the reader asks for more.
ROWS_SHOWN = 50


def save(path: Path, title: str, *body: Part) -> None:
    """Write a page that loads nothing: all it needs is inside.

    Args:
        path: the file, written in place (atomic naming is done outside).
        title: of the window; the body has a heading of its own.
        body: the page.

    Raises:
        OutputError: the file cannot be written.
    """
    now = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    footer = f"Made by videogender {__version__} on {now}. This page loads nothing from elsewhere."
    text = render(f"{title} · videogender", *body, footer=footer)
    try:
        # A file's name on disk need not be valid text.
        path.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        raise OutputError(f"{path}: cannot write: {error.strerror or error}") from error


def render(title: str, *body: Part, footer: str) -> str:
    """Return the text of a page.

    Its content security policy allows its own style and script, by their hashes, and pictures
    that are written into it; whatever else might slip in would be dead.
    """
    style, script = _style(), _resource("page.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; "
        f"script-src '{_digest(script)}'; base-uri 'none'; form-action 'none'"
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", title),
        tag("style", Html(style)),
    )
    main = tag("main", *body)
    foot = tag("footer", tag("p", footer))
    page = tag("body", _patterns(), main, foot, tag("script", Html(script)))
    return f"<!doctype html>\n{tag('html', head, page, lang='en')}\n"


def section(heading: str, *body: Part, note: Part = None, id: str | None = None) -> Html:
    """Return a part of the page under a heading; without a body, nothing."""
    if not any(body):
        return Html()
    top = tag("h2", heading) + (tag("p", note, class_="note") if note else "")
    return tag("section", Html(top), *body, id=id)


def fold(summary: str, *body: Part, is_open: bool = False) -> Html:
    """Return a part that opens on demand."""
    return tag("details", tag("summary", summary), *body, open=is_open)


def cards(figures: Iterable[tuple[str, Part, Part]]) -> Html:
    """Return key figures: (name, figure, what it means) each."""
    shown = [
        tag(
            "div",
            tag("dt", name),
            tag("dd", figure, class_="figure"),
            tag("dd", meaning, class_="meaning"),
        )
        for name, figure, meaning in figures
    ]
    return tag("dl", *shown, class_="cards")


def swatch(kind: str, text: str | None = None) -> Html:
    """Return the sign of a label, as charts show it, with its name."""
    box = tag("rect", x=0.5, y=0.5, width=13, height=13, rx=2, class_=f"fill {kind}")
    sign = tag("svg", box, viewBox="0 0 14 14", class_="swatch", aria_hidden="true")
    return tag("span", sign, kind if text is None else text, class_="label")


def picture(jpeg: bytes, *, alt: str, size_px: int) -> Html:
    """Return a picture that is written into the page."""
    text = base64.b64encode(jpeg).decode("ascii")
    address = f"data:image/jpeg;base64,{text}"
    return tag("img", src=address, alt=alt, width=size_px, height=size_px, decoding="async")


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: its heading, and whether it holds numbers."""

    heading: str
    is_number: bool = True
    hint: str | None = None
    sortable: bool = True


@dataclass(frozen=True, slots=True)
class Cell:
    """What a cell shows, and what it is sorted by if that is something else."""

    shown: Part
    key: float | str | None = None
    class_: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """Cells with an address that links lead to, and a group that the reader can choose."""

    cells: Sequence[Cell | Part]
    id: str | None = None
    group: str | None = None


def table(
    columns: Sequence[Column],
    rows: Sequence[Row | Sequence[Cell | Part]],
    *,
    caption: str | None = None,
    sortable: bool = False,
    groups: Sequence[tuple[str, str]] = (),
    is_narrow: bool = False,
    total: Sequence[Cell | Part] | None = None,
) -> Html:
    """Return a table; a long one is folded, which a reader without scripts can open too.

    Args:
        columns: headings.
        rows: as many cells each.
        caption: what the table holds, for those who cannot see it.
        sortable: clicking a heading sorts.
        groups: names and texts of groups of rows, which the reader may show alone.
        is_narrow: no wider than what it holds.
        total: cells of a last row, which stays where it is.
    """
    lines = [_row(columns, row if isinstance(row, Row) else Row(row)) for row in rows]
    head = tag("thead", tag("tr", *(_heading(column, sortable) for column in columns)))
    title = tag("caption", caption) if caption else None
    first, rest = lines, list[Html]()
    if len(lines) > ROWS_SHOWN + 10:
        first, rest = lines[:ROWS_SHOWN], lines[ROWS_SHOWN:]
    kind = "narrow" if is_narrow else None
    foot = tag("tfoot", _row(columns, Row(total))) if total is not None else None
    grid = tag("table", title, head, tag("tbody", *first), foot, class_=kind)
    shown = tag("div", grid, class_="scroll", tabindex=0)
    if not sortable and not rest:
        return shown
    tools = None
    if groups and len(lines) > 1:
        boxes = [
            tag("label", tag("input", type="checkbox", value=name, checked=True), text)
            for name, text in groups
        ]
        tools = tag("div", *boxes, class_="choose", hidden=True)
    hidden = tag("div", tag("table", head, tag("tbody", *rest)), class_="scroll", tabindex=0)
    more = fold(f"The other {len(rest):,}", hidden) if rest else None
    return tag("div", tools, shown, more, class_="rows", data_shown=ROWS_SHOWN)


def _heading(column: Column, sortable: bool) -> Html:
    text: Part = column.heading
    if sortable and column.sortable:
        text = tag("button", column.heading, type="button", disabled=True)
    return tag("th", text, scope="col", class_="n" if column.is_number else None, title=column.hint)


def _row(columns: Sequence[Column], row: Row) -> Html:
    if len(row.cells) != len(columns):
        raise ValueError(f"{len(row.cells)} cells for {len(columns)} columns")
    shown = []
    for column, value in zip(columns, row.cells, strict=True):
        cell = value if isinstance(value, Cell) else Cell(value)
        classes = " ".join(filter(None, ["n" if column.is_number else None, cell.class_]))
        text = f"{cell.shown:,}" if isinstance(cell.shown, int) else cell.shown
        shown.append(tag("td", text, class_=classes or None, data_key=cell.key))
    return tag("tr", *shown, id=row.id, data_group=row.group)


@cache
def _style() -> str:
    """Return the stylesheet, with the colours in which labels are drawn on the video."""
    colours = [f"--{name}:rgb({r} {g} {b});" for name, (r, g, b) in COLOURS.items()]
    return f":root{{{''.join(colours)}}}\n{_resource('page.css')}"


@cache
def _resource(name: str) -> str:
    return files("videogender.reports").joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """Return the name under which a content security policy allows an inline text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _patterns() -> Html:
    """Return the fills of labels, which are told apart without colours too."""

    def pattern(name: str, size: int, *marks: Html, turn: str | None = None) -> Html:
        ground = tag("rect", width=size, height=size, class_="ground")
        return tag(
            "pattern",
            ground,
            *marks,
            id=f"pattern-{name}",
            class_=f"pattern {name}",
            width=size,
            height=size,
            patternUnits="userSpaceOnUse",
            patternTransform=turn,
        )

    line = tag("rect", width=1.2, height=5, class_="mark")
    dots = join(
        tag("circle", cx=x, cy=y, r=0.9, class_="mark") for x, y in ((1.5, 1.5), (4.5, 4.5))
    )
    fills = [pattern("male", 5, line, turn="rotate(45)"), pattern("unsure", 6, dots)]
    return tag("svg", tag("defs", *fills), class_="fills", width=0, height=0, aria_hidden="true")
