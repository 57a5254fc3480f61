"""What a fine-tuning run learned from: its sources, the split, and what was wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from videogender.reports.markup import Html, Part, tag
from videogender.reports.page import Cell, Column, fold, section, table
from videogender.reports.words import number, plural

__all__ = ["data"]

_SIDES = {"train": "training", "val": "validation", "test": "test"}
_SPLIT = {
    "given": "The sides of the split are those that the data gives.",
    "person": "All pictures of a person are on one side of the split.",
    "file": "Split by file: nothing is known of who is in which picture.",
}


def data(facts: Mapping[str, Any]) -> Html:
    """Return the section about the data; parts that are missing are left out."""
    sources = [tag("li", str(source)) for source in facts.get("sources") or []]
    how = _SPLIT.get(str(facts.get("split_by")))
    return section(
        "Data",
        tag("ul", *sources) if sources else None,
        _splits(facts.get("splits") or {}),
        tag("p", how, class_="note") if how else None,
        _problems(facts.get("problems") or []),
    )


def _splits(splits: Mapping[str, Any]) -> Html | None:
    if not splits:
        return None
    labels = list(dict.fromkeys(x for side in splits.values() for x in side.get("labels") or {}))
    wanted = ("images", "faces", "people")
    shown = [k for k in wanted if any(side.get(k) is not None for side in splits.values())]
    columns = [Column("", is_number=False), *(Column(key) for key in shown)]
    columns += [Column(str(label)) for label in labels[:12]]  # more would not fit
    rows = [
        [
            _SIDES.get(name, name),
            *(number(side.get(key)) for key in shown),
            *(number((side.get("labels") or {}).get(label)) for label in labels[:12]),
        ]
        for name, side in splits.items()
    ]
    return table(columns, rows, is_narrow=True)


def _problems(problems: list[Mapping[str, Any]]) -> Html:
    if not problems:
        return tag("p", "No problems were found in the data.")
    total = sum(int(problem.get("count") or 0) for problem in problems)
    columns = [
        Column("Problem", is_number=False),
        Column("Count"),
        Column("Examples", is_number=False),
    ]
    rows: list[list[Cell | Part]] = []
    for problem in problems:
        examples = [tag("div", str(text)) for text in problem.get("examples") or []]
        what = str(problem.get("what", "")).replace("-", " ")
        rows.append([what, number(problem.get("count")), Cell(tag("div", *examples), None, "wrap")])
    heading = tag("strong", f"{plural(total, 'problem')} in the data", class_="warn")
    return tag(
        "div", tag("p", heading), fold("What, and where", table(columns, rows), is_open=True)
    )
