"""What a report says of one video: figures, timeline, counts over time, and its appearances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from videogender.reports.areas import areas
from videogender.reports.charts import steps
from videogender.reports.markup import Html, Part, join, tag
from videogender.reports.page import (
    Cell,
    Column,
    Row,
    cards,
    fold,
    picture,
    section,
    swatch,
    table,
)
from videogender.reports.summary import LABELS, FaceCounts, counts_at_once
from videogender.reports.thumbnails import Thumbnails
from videogender.reports.timeline import sureness, timeline
from videogender.reports.words import UNKNOWN, clock, duration, percent, plural
from videogender.tracking.flat import frame_seconds, stretches
from videogender.tracking.settle import Settled

__all__ = [
    "VideoSection",
    "by_attribute",
    "in_view",
    "legend",
    "sentence",
    "split",
    "stopped_early",
    "time_cell",
    "video",
]

# More rows and bars than this make a browser slow; the tracks longest in view are shown.
MOST_TRACKS = 4000
# Stretches of time that counts over time are averaged over.
_MOST_BINS = 320
_MINUTES_SHOWN = 12
_PICTURE_PX = 48


@dataclass(frozen=True, slots=True)
class VideoSection:
    """One input of a report.

    Attributes:
        summary: of `summarize`, or of `FaceCounts.summary` where faces were not followed.
        settled: what it summarises, or None.
        thumbnails: pictures of the tracks, or None.
        counts: the counter where faces were not followed, or None.
    """

    summary: Mapping[str, Any]
    settled: Settled | None = None
    thumbnails: Thumbnails | None = None
    counts: FaceCounts | None = None


def sentence(summary: Mapping[str, Any]) -> Html:
    """Say the most important in words."""
    if summary["kind"] == "image":
        faces = summary["faces"]
        return tag("p", f"{plural(faces['all'], 'face')}: {split(faces)}.", class_="lead")
    length, whole = summary["duration_seconds"], summary["on_screen"]["all"]
    stopped = stopped_early(summary["interrupted"])
    if not whole["peak"]:
        return tag("p", stopped, f"No face was found in {duration(length)}.", class_="lead")
    tally = summary["appearances"]
    counted = (
        f"{plural(tally['all'], 'appearance')}: {split(tally)}. "
        if tally is not None
        else f"{plural(summary['faces']['all'], 'face')} in {plural(summary['frames'], 'frame')}: "
        f"{split(summary['faces'])}. "
    )
    first = f", first so at {clock(whole['peak_at_seconds'])}"
    seen = in_view(summary["on_screen"], length, first)
    return tag("p", stopped, counted, seen, class_="lead")


def stopped_early(is_so: bool) -> Part:
    """Warn of a video that was not looked at to its end."""
    text = "Stopped early: only this part was looked at. "
    return tag("span", text, class_="warn") if is_so else None


def in_view(on_screen: Mapping[str, Any] | None, length: float, more: str = "") -> str:
    """Say for how long a face is in view, and how many are at most; nothing where none is."""
    whole = on_screen["all"] if on_screen is not None else {"peak": 0}
    if not whole["peak"]:
        return ""
    time = ""
    if length:
        share = percent(whole["seconds"] / length)
        time = f" for {duration(whole['seconds'])} of {duration(length)} ({share})"
    return f"A face is in view{time}, at most {whole['peak']} at once{more}."


def split(tally: Mapping[str, int]) -> str:
    """Say how many there are of each label."""
    return ", ".join(f"{tally[label]:,} {label}" for label in LABELS)


def video(part: VideoSection, prefix: str, unsure_below: float) -> Html:
    """Return all parts of the page about one video; ids in it begin with `prefix`."""
    summary = part.summary
    seconds, counts = _counts(part, unsure_below)
    body = [_cards(summary), _by_label(summary), by_attribute([summary])]
    tracks = summary["tracks"] or []
    shown = tracks
    if len(tracks) > MOST_TRACKS:
        longest = sorted(tracks, key=lambda t: -t["seconds"])[:MOST_TRACKS]
        shown = sorted(longest, key=lambda t: t["id"])
    body.append(_over_time(seconds, counts))
    begin = summary["begin_seconds"] or 0.0
    end = begin + summary["duration_seconds"]
    if shown and part.settled is not None:
        body.append(_timeline(shown, len(tracks), part.settled, (begin, end), prefix))
    body.append(areas(summary["zones"], (summary["width"], summary["height"])))
    body.append(_minutes(summary))
    if shown:
        body.append(_track_table(shown, len(tracks), part.thumbnails, prefix))
    return join(body)


def _counts(
    part: VideoSection, unsure_below: float
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    if part.settled is not None:
        return part.settled.seconds, counts_at_once(part.settled, unsure_below)
    if part.counts is not None:
        return part.counts.at_once()
    return np.zeros(0), np.zeros((0, 4), np.int64)


def _cards(summary: Mapping[str, Any]) -> Html:
    length, whole = summary["duration_seconds"], summary["on_screen"]["all"]
    tally = summary["appearances"]
    figures: list[tuple[str, Part, Part]] = []
    if tally is not None:
        figures.append(("Appearances", f"{tally['all']:,}", split(tally)))
    else:
        per_frame = f"in {plural(summary['frames'], 'frame')}, each labelled by itself"
        figures.append(("Faces, counted a frame", f"{summary['faces']['all']:,}", per_frame))
    if length:
        of_all = f"{duration(whole['seconds'])} of {duration(length)}"
        figures.append(("A face in view", percent(whole["seconds"] / length), of_all))
    when = f"first at {clock(whole['peak_at_seconds'])}; {whole['mean']:.1f} on average"
    figures.append(("Most faces at once", whole["peak"], when if whole["peak"] else None))
    size = f"{summary['width']} by {summary['height']} px, {plural(summary['frames'], 'frame')}"
    if summary["shots"] is not None:
        size = f"{plural(summary['shots'], 'shot')}, {size}"
    figures.append(("Length", duration(length), size))
    return cards(figures)


def _by_label(summary: Mapping[str, Any]) -> Html:
    tally, length = summary["appearances"], summary["duration_seconds"]
    columns = [
        Column("Presented gender", is_number=False),
        Column("Appearances" if tally is not None else "Faces"),
        Column("Share"),
        Column("In view", hint="time with at least one such face"),
        Column("Of the length"),
        Column("Summed", hint="time in view, added up over all faces"),
        Column("First seen"),
        Column("Last seen"),
        Column("Most at once"),
        Column("Mean at once"),
    ]
    counts = tally if tally is not None else summary["faces"]
    rows = []
    for label in (*LABELS, "all"):
        seen = summary["on_screen"][label]
        count = counts[label]
        rows.append(
            [
                swatch(label) if label != "all" else tag("strong", "any face"),
                f"{count:,}",
                percent(count / counts["all"] if counts["all"] else None),
                duration(seen["seconds"]),
                percent(seen["seconds"] / length if length else None),
                duration(seen["face_seconds"]),
                clock(seen["first_seconds"]),
                clock(seen["last_seconds"]),
                seen["peak"],
                f"{seen['mean']:.2f}",
            ]
        )
    note = (
        "An appearance is a face while it stays in view, not a person: whoever comes back after a "
        "cut, or after being out of view for a while, counts again."
        if tally is not None
        else "Faces were not followed: the same face counts anew in every frame."
    )
    return section("By presented gender", table(columns, rows), note=note)


def by_attribute(summaries: Sequence[Mapping[str, Any]]) -> Html:
    """Return the section about the classes of a fine-tuned head; nothing where there is none.

    Args:
        summaries: all of videos whose faces were followed, or none of them.
    """
    found = [group for summary in summaries for group in summary["attributes"] or ()]
    if not found:
        return Html()
    is_timed = all("face_seconds" in group for group in found)
    is_followed = summaries[0]["appearances"] is not None
    columns = [
        Column("Attribute", is_number=False),
        Column("Appearances" if is_followed else "Faces"),
        Column("Share"),
        *(Column(f"of them {label}") for label in LABELS),
        *([Column("Summed", hint="time in view, added up over all faces")] if is_timed else []),
    ]
    whole = sum(group["all"] for group in found)
    rows: list[list[Cell | Part]] = []
    for name in dict.fromkeys(group["name"] for group in found):
        mine = [group for group in found if group["name"] == name]
        count = sum(group["all"] for group in mine)
        cells: list[Cell | Part] = [name, f"{count:,}", percent(count / whole if whole else None)]
        cells += [f"{sum(group[label] for group in mine):,}" for label in LABELS]
        if is_timed:
            cells.append(time_cell(sum(group["face_seconds"] for group in mine)))
        rows.append(cells)
    note = "As the fine-tuned head of these weights sees it; “unsure” where no class is likely."
    return section("By attribute", table(columns, rows), note=note)


def _timeline(
    tracks: Sequence[Mapping[str, Any]],
    count: int,
    settled: Settled,
    whole: tuple[float, float],
    prefix: str,
) -> Html:
    first_rows = np.flatnonzero(np.diff(settled.shot, prepend=-1))
    shot_begins = settled.seconds[first_rows].tolist()
    drawing = timeline(tracks, stretches(settled), shot_begins, whole, prefix=f"{prefix}-t")
    left_out = (
        f" The {len(tracks):,} longest of {count:,} are drawn." if len(tracks) < count else ""
    )
    note = (
        "Each bar is one appearance, with its number; a thin line means out of sight. "
        "Rows only keep bars apart; shading and dashed lines are shots. Point at a bar for "
        "details, click it for its row in the table below."
        f"{left_out}"
    )
    return section("Timeline", legend(), drawing, note=note)


def _over_time(seconds: NDArray[np.float64], counts: NDArray[np.int64]) -> Html:
    """Draw mean counts by label, each over a short stretch of time."""
    if len(seconds) < 2 or not counts.any():
        return Html()
    lengths = frame_seconds(seconds)
    bins = min(len(seconds), _MOST_BINS)
    end = float(seconds[-1] + lengths[-1])
    edges = np.linspace(float(seconds[0]), end, bins + 1)
    # What each bin got of each frame: frames may be longer than a bin, or shorter.
    shown = np.vstack([np.zeros(4), np.cumsum(lengths[:, None] * counts, 0)])
    at_edges = np.stack(
        [np.interp(edges, np.append(seconds, end), shown[:, i]) for i in range(4)], 1
    )
    means = np.diff(at_edges, axis=0) / np.diff(edges)[:, None]
    layers = [(label, means[:, i + 1].round(4).tolist()) for i, label in enumerate(LABELS)]
    chart = steps(
        edges.tolist(), layers, name="Faces at once over time, by label", title="faces at once"
    )
    width = float(edges[1] - edges[0])
    each = "Frame by frame" if bins == len(seconds) else f"Averaged over {_fine(width)} each"
    note = f"{each}; labels are stacked."
    return section("Faces at once", legend(), tag("figure", chart), note=note)


def _fine(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds < 1 else duration(seconds)


def _minutes(summary: Mapping[str, Any]) -> Html:
    minutes = summary["per_minute"]
    if len(minutes) < 2:
        return Html()
    columns = [
        Column("From"),
        Column("Watched"),
        Column("Face in view"),
        Column("Most at once"),
        Column("Mean at once"),
        *(Column(f"{label}, mean") for label in LABELS),
        *(Column(f"{label}, most") for label in LABELS),
    ]
    rows = [
        [
            Cell(clock(minute["begin_seconds"], 0), minute["begin_seconds"]),
            time_cell(minute["watched_seconds"]),
            time_cell(minute["all"]["seconds"]),
            minute["all"]["peak"],
            f"{minute['all']['mean']:.2f}",
            *(f"{minute[label]['mean']:.2f}" for label in LABELS),
            *(minute[label]["peak"] for label in LABELS),
        ]
        for minute in minutes
    ]
    content = table(columns, rows, sortable=True)
    if len(rows) > _MINUTES_SHOWN:
        content = fold(f"{len(rows)} minutes", content)
    return section("Minute by minute", content, note="Minutes of the video's own clock.")


def _track_table(
    tracks: Sequence[Mapping[str, Any]],
    count: int,
    thumbnails: Thumbnails | None,
    prefix: str,
) -> Html:
    has_pictures = thumbnails is not None and thumbnails.kind != "none"
    has_attributes = "attribute" in tracks[0]
    columns = [Column("Face", is_number=False, sortable=False)] if has_pictures else []
    columns += [
        Column("No."),
        Column("Label", is_number=False),
        Column("Probability", hint="of the likelier label, over all frames of the appearance"),
    ]
    if has_attributes:
        columns += [
            Column("Attribute", is_number=False),
            Column("Its probability", hint="over all frames of the appearance"),
        ]
    columns += [
        Column("First seen"),
        Column("Last seen"),
        Column("In view"),
        Column("Mean height", hint="of the face, in pixels"),
        Column("Shot"),
    ]
    rows = [
        Row(
            [*([_face(track, thumbnails)] if has_pictures else []), *_track_cells(track)],
            id=f"{prefix}-t{track['id']}",
            group=track["label"],
        )
        for track in tracks
    ]
    notes = []
    if len(tracks) < count:
        notes.append(f"The {len(tracks):,} longest of {count:,}.")
    if has_pictures and thumbnails is not None and thumbnails.kind == "blurred":
        notes.append(
            "Pictures are averaged to a few cells each, so that they show colours but nobody."
        )
    groups = [(label, label) for label in LABELS]
    content = table(columns, rows, sortable=True, groups=groups)
    return section("Appearances", content, note=" ".join(notes) or None)


def _face(track: Mapping[str, Any], thumbnails: Thumbnails | None) -> Part:
    jpeg = None if thumbnails is None else thumbnails.jpeg(int(track["id"]))
    return picture(jpeg, alt=f"Face {track['id']}", size_px=_PICTURE_PX) if jpeg else None


def _track_cells(track: Mapping[str, Any]) -> list[Cell | Part]:
    sure = sureness(track)
    return [
        track["id"],
        Cell(swatch(track["label"]), track["label"]),
        Cell(UNKNOWN if sure is None else f"{sure:.2f}", sure),
        *_attribute_cells(track),
        Cell(clock(track["first_seconds"]), track["first_seconds"]),
        Cell(clock(track["last_seconds"]), track["last_seconds"]),
        time_cell(track["seconds"]),
        Cell(f"{track['mean_height_px']:.0f} px", track["mean_height_px"]),
        track["shot"] + 1,
    ]


def _attribute_cells(track: Mapping[str, Any]) -> list[Cell | Part]:
    if "attribute" not in track:
        return []
    p = track["attribute_probability"]
    return [track["attribute"], Cell(UNKNOWN if p is None else f"{p:.2f}", p)]


def time_cell(seconds: float | None) -> Cell:
    """Return how long something takes, sorted by its seconds."""
    return Cell(duration(seconds), seconds)


def legend() -> Html:
    """Return the signs of all labels."""
    return tag("div", *(swatch(label) for label in LABELS), class_="legend")
