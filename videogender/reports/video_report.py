"""The page about annotated videos: who is shown, presented how, when and for how long."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from videogender.config import Settings, rule_of
from videogender.reports.markup import Html, Part, join, tag
from videogender.reports.page import (
    Cell,
    Column,
    fold,
    save,
    section,
    table,
)
from videogender.reports.summary import LABELS, Total
from videogender.reports.video_section import (
    VideoSection,
    by_attribute,
    in_view,
    sentence,
    split,
    stopped_early,
    time_cell,
    video,
)
from videogender.reports.words import UNKNOWN, plural

__all__ = ["VideoSection", "write_video_report"]


def write_video_report(
    path: Path,
    sections: Sequence[VideoSection],
    *,
    settings: Settings,
    model: str,
    unsure_below: float,
) -> None:
    """Write one self-contained page about all inputs of a run.

    Args:
        path: the file, written in place (atomic naming is done outside).
        sections: the inputs, in order; images are gathered in one table.
        settings: under which the run was made.
        model: what found the faces, in a word or two.
        unsure_below: least probability of a label.

    Raises:
        OutputError: the file cannot be written.
    """
    videos = [part for part in sections if part.summary["kind"] != "image"]
    images = [part.summary for part in sections if part.summary["kind"] == "image"]
    names = [str(part.summary["source"]) for part in sections]
    heading = Path(names[0]).name if len(names) == 1 else _how_many(len(videos), len(images))
    lead = sentence(sections[0].summary) if len(names) == 1 else _together(videos, images)
    body: list[Part] = [_header(heading, lead, unsure_below)]
    if len(videos) > 1:
        body.append(_overview(videos))
    for i, part in enumerate(videos):
        content = video(part, f"v{i + 1}", unsure_below)
        if len(names) > 1:
            title = tag("h2", Path(str(part.summary["source"])).name)
            head = tag("header", title, sentence(part.summary))
            content = tag("div", head, content, class_="video", id=f"v{i + 1}")
        body.append(content)
    if images:
        body.append(_images(images))
    body += [_caveats(sections), _settings(settings, model)]
    save(path, heading, *body)


def _how_many(videos: int, images: int) -> str:
    parts = [plural(videos, "video")] if videos else []
    parts += [plural(images, "image")] if images else []
    return " and ".join(parts) or "Nothing"


def _header(heading: str, lead: Html, unsure_below: float) -> Html:
    meaning = (
        "Labels say how a face presents to a viewer, not who somebody is. A face is labelled only "
        f"if the likelier label reaches a probability of {unsure_below:g}; otherwise it is "
        "“unsure”, which is an answer of its own."
    )
    return tag(
        "header",
        tag("p", "Faces on screen, by presented gender", class_="eyebrow"),
        tag("h1", heading),
        lead,
        tag("p", meaning, class_="note"),
    )


def _together(videos: Sequence[VideoSection], images: Sequence[Mapping[str, Any]]) -> Html:
    """Say the most important of several inputs in words."""
    total = Total.of(part.summary for part in videos)
    told: list[str] = []
    if total.appearances is not None:
        told.append(
            f"{plural(total.appearances['all'], 'appearance')}: {split(total.appearances)}."
        )
    for faces, where in (
        (total.faces, "single frames"),
        (Total.of(images).faces, plural(len(images), "image")),
    ):
        if faces is not None:
            told.append(f"{plural(faces['all'], 'face')} in {where}: {split(faces)}.")
    told.append(in_view(total.on_screen, total.duration_seconds))
    return tag("p", stopped_early(total.interrupted), " ".join(told).strip(), class_="lead")


def _overview(videos: Sequence[VideoSection]) -> Html:
    total = Total.of(part.summary for part in videos)
    columns = [
        Column("Video", is_number=False),
        Column("Length"),
        Column("Appearances"),
        *(Column(f"{label}") for label in LABELS),
        Column("Face in view"),
        *(
            Column(f"{label}, summed", hint="time in view, added up over all such faces")
            for label in LABELS
        ),
        Column("Most at once"),
    ]
    rows = []
    for i, part in enumerate(videos):
        summary = part.summary
        link = tag("a", str(summary["source"]), href=f"#v{i + 1}")
        rows.append([Cell(link, str(summary["source"]), "wrap"), *_overview_cells(summary)])
    last = [plural(total.videos, "video"), *_overview_cells(asdict(total))]
    return section("Overview", table(columns, rows, sortable=True, total=last))


def _overview_cells(summary: Mapping[str, Any]) -> list[Cell | Part]:
    tally, seen = summary["appearances"], summary["on_screen"]
    return [
        time_cell(summary["duration_seconds"]),
        *([tally["all"], *(tally[label] for label in LABELS)] if tally else [UNKNOWN] * 4),
        time_cell(seen["all"]["seconds"]),
        *(time_cell(seen[label]["face_seconds"]) for label in LABELS),
        seen["all"]["peak"],
    ]


def _images(images: Sequence[Mapping[str, Any]]) -> Html:
    total = Total.of(images).faces or {}
    columns = [Column("Image", is_number=False), Column("Faces"), *(Column(x) for x in LABELS)]
    rows = [
        [
            Cell(str(image["source"]), class_="wrap"),
            *(image["faces"][group] for group in ("all", *LABELS)),
        ]
        for image in images
    ]
    sentence = f"{plural(total['all'], 'face')} in {plural(len(images), 'image')}: "
    last: list[Cell | Part] = [plural(len(images), "image")]
    last += [total[group] for group in ("all", *LABELS)]
    shown = section(
        "Images",
        table(columns, rows, sortable=True, total=last if len(images) > 1 else None),
        note=f"{sentence}{split(total)}.",
    )
    return join([shown, by_attribute(images)])


def _caveats(sections: Sequence[VideoSection]) -> Html:
    points = [
        "A label says how a face is presented and perceived: how people who look at pictures would "
        "most likely have called it. It says nothing about anybody's gender identity or sex.",
        "Faces are missed, and things are taken for faces. Labels are wrong more often for "
        "children, covered, turned, blurred, dim or tiny faces, and for groups of people that the "
        "training pictures show rarely; a comparison between groups may measure the network.",
        "Report “unsure” beside the other two, label a sample by hand and compare before you "
        "publish figures, and decide nothing about a person by them.",
    ]
    if any(part.settled is not None for part in sections):
        points.insert(
            1,
            "Faces are followed by where they are and how they move, never by who they look like. "
            "So appearances count more than people, and how many people there are is not known.",
        )
    return section("What these figures can bear", tag("ul", *(tag("li", p) for p in points)))


def _settings(settings: Settings, model: str) -> Html:
    columns = [
        Column("Setting", is_number=False),
        Column("Value", is_number=False),
        Column("Default", is_number=False),
        Column("Meaning", is_number=False),
    ]
    defaults = Settings()
    rows: list[list[Cell | Part]] = []
    for group in fields(settings):
        values, usual = getattr(settings, group.name), getattr(defaults, group.name)
        for entry in fields(values):
            value, default = getattr(values, entry.name), getattr(usual, entry.name)
            rows.append(
                [
                    tag("code", f"{group.name}.{entry.name}"),
                    Cell(_value(value), class_="wrap changed" if value != default else "wrap"),
                    _value(default),
                    rule_of(f"{group.name}.{entry.name}").help,
                ]
            )
    changed = sum("changed" in str(row[1].class_) for row in rows if isinstance(row[1], Cell))
    summary = f"{plural(len(rows), 'setting')}, {changed} other than the default"
    return section(
        "How it was made",
        tag("p", "Network: ", tag("strong", model), "."),
        fold(summary, table(columns, rows)),
    )


def _value(value: object) -> str:
    if value is None:
        return UNKNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:g}"
    return str(value)
