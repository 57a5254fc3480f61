"""The page about a fine-tuning run: `report.html` in its folder.

`write` draws what it is given and leaves out what is missing, so that a run that was stopped early
has a page too. Everything in `results` is JSON; every key may be absent or null.

    title       text, e.g. "Gender heads of lite, from the shipped weights"
    recipe      "heads", "classifier", "tower", ...
    model       "lite" or "vgg16"
    column      what the labels are of, e.g. "Gender"; "presented gender" if absent
    labels      ["female", "male"], in the order of the channels
    outcome     how it ended: "finished", "stopped early", "interrupted"
    seconds     what the run took
    weights     the file that holds the best weights, e.g. "runs/a/best.safetensors"
    command     the line that uses them: "videogender annotate VIDEO --weights runs/a/best..."
    temperature of the calibration on held-out faces
    judged_on   what `before` and `after` rest on: "test: 301 faces of 40 people not trained on"
    notes       [text, ...] what a reader should know
    thumbnails  how faces are shown: "plain", the default, as they are the user's own data,
                "blurred" or "none"
    settings    {"epochs": 20, "recipe.rate": 0.01, ...} as they were in force

    epochs      [{"epoch": 1, "train_loss", "val_loss", "train_accuracy", "val_accuracy",
                "seconds"}, ...]; further numbers become columns of the table
    best_epoch  whose weights were kept
    speed       {"first epoch, s": 41.0, ...} numbers worth a line each

    before      FIGURES of the weights that the run began from
    after       FIGURES of the weights that it kept
    FIGURES     {"faces", "found", "accuracy", "interval": [low, high], "by_label": {label: share},
                "confidence_error", "average_precision", "ms_per_face", "log_loss",
                "balanced_accuracy", "people"}; shares from 0 to 1, "found" of "faces", accuracy and
                the like of those that were found; "interval" null with "people": they are too few
                for one; further numbers become rows of the table

    confusion   {"labels": [...], "counts": [[...], ...], "answers": [...]}; rows are the true
                labels; `answers` names the columns where they are others, e.g. with "unsure"
    reliability [{"confidence", "accuracy", "count"}, ...] a bin each, of the probability given
                to the likelier label
    reliability_before   the same, before the run
    by_size     [{"low_px", "high_px", "faces", "accuracy", "interval"}, ...]; high_px null: open
    levels      [{"level": "conv4_3", "stride": 8, "faces" whose best anchor lies there, "share" of
                all votes, "asked": faces that "accuracy" and "interval" of the level alone are
                over}, ...]

    mistakes    [MISTAKE, ...] worst first
    suspected   [MISTAKE, ...] labels that are probably wrong, most suspicious first
    MISTAKE     {"image": path, "box": [x1, y1, x2, y2] or null, "label", "answer",
                "probability" of the answer, "where": "faces.csv:12"}; relative paths start at the
                working directory

    data        {"sources": ["faces.csv (CSV, column Gender)", ...],
                "split_by": "given", "person" or "file",
                "splits": {"train": {"images", "faces", "people", "labels": {label: count}}, ...},
                "problems": [{"what": text, "count", "examples": [text, ...]}, ...]}
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from videogender.reports import finetune_figures as figures
from videogender.reports.contact_sheet import contact_sheet
from videogender.reports.finetune_data import data
from videogender.reports.markup import Html, Part, tag
from videogender.reports.page import Column, cards, fold, save, section, table
from videogender.reports.thumbnails import KINDS, Kind
from videogender.reports.words import UNKNOWN, duration, number, percent, plural, sentence_case
from videogender.sinks.atomic import pending

__all__ = ["write"]


def write(run_dir: Path, results: Mapping[str, Any]) -> Path:
    """Write the page about a run, in place of an earlier one.

    Args:
        run_dir: folder of the run.
        results: what this module's docstring describes.

    Returns:
        the path of the page.

    Raises:
        OutputError: the page cannot be written.
    """
    path = run_dir / "report.html"
    with pending(path, force=True) as place:
        save(place, _title(results), *_body(results))
    return path


def _title(results: Mapping[str, Any]) -> str:
    parts = [results.get("recipe"), results.get("model")]
    title = results.get("title") or " of ".join(str(part) for part in parts if part)
    return sentence_case(str(title or "Fine-tuning"))


def _body(results: Mapping[str, Any]) -> list[Part]:
    before, after = results.get("before") or {}, results.get("after") or {}
    kind: Kind = next((known for known in KINDS if known == results.get("thumbnails")), "plain")
    labels = results.get("labels") or []
    return [
        _header(results, before, after),
        _cards(results, before, after),
        _use(results),
        figures.before_and_after(before, after, results.get("judged_on")),
        figures.curves(results.get("epochs") or [], results.get("best_epoch")),
        figures.answers(results.get("confusion") or {}),
        figures.side_by_side(
            "Where it can be trusted",
            figures.calibration(
                results.get("reliability") or [],
                results.get("reliability_before") or [],
                len(labels),
            ),
            figures.by_size(results.get("by_size") or []),
        ),
        figures.levels(results.get("levels") or []),
        section(
            "Suspected label errors",
            contact_sheet(results.get("suspected") or [], kind),
            note="Labels that heads contradict most which learned without these faces. Look at "
            "each: some are wrong, some are merely hard.",
        ),
        section(
            "Worst mistakes",
            contact_sheet(results.get("mistakes") or [], kind),
            note="Faces held back from training whose answer was wrong, the surest first.",
        ),
        data(results.get("data") or {}) if results.get("data") else None,
        _bearing(),
        _made(results),
    ]


def _header(results: Mapping[str, Any], before: Any, after: Any) -> Html:
    notes = [tag("li", str(note)) for note in results.get("notes") or []]
    return tag(
        "header",
        tag("p", "Fine-tuning report", class_="eyebrow"),
        tag("h1", _title(results)),
        tag("p", _sentence(results, before, after), class_="lead"),
        tag("ul", *notes) if notes else None,
    )


def _sentence(results: Mapping[str, Any], before: Any, after: Any) -> Part:
    """Say in words whether the run was worth it, no surer than its interval allows."""
    outcome = results.get("outcome")
    stopped = (
        tag("span", "Interrupted before its end. ", class_="warn")
        if outcome == "interrupted"
        else None
    )
    now, then = after.get("accuracy"), before.get("accuracy")
    if now is None:
        return tag("span", stopped, "No accuracy was measured.")
    text = f"{percent(now, 1)}{_of_faces(after)} are answered rightly"
    if (interval := figures.interval_text(after.get("interval"))) is not None:
        text += f" (95 % interval {interval})"
    elif after.get("people") is not None:
        text += f" (too few people for an interval: {after['people']})"
    if then is not None:
        low, high = after.get("interval") or (now, now)
        change = "as many as before" if now == then else f"{percent(then, 1)} before"
        text += f"; {change}"
        if now != then and low <= then <= high:
            text += ", a difference that may be chance"
        elif after.get("interval") and then > high:
            text += ": the weights that it began from are better"
    return tag("span", stopped, f"{text}.")


def _of_faces(after: Any) -> str:
    count, faces = figures.judged(after), after.get("faces")
    if count is None:
        return ""
    if count == faces:
        return f" of {plural(count, 'face')}"
    return f" of the {plural(count, 'found face')}, of {number(faces)} in all,"


def _cards(results: Mapping[str, Any], before: Any, after: Any) -> Html:
    shown: list[tuple[str, Part, Part]] = []
    if after.get("accuracy") is not None:
        old = before.get("accuracy")
        shown.append(
            (
                "Accuracy",
                percent(after["accuracy"], 1),
                f"{percent(old, 1)} before" if old is not None else None,
            )
        )
    if after.get("confidence_error") is not None:
        shown.append(
            (
                "Confidence error",
                percent(after["confidence_error"], 1),
                "how far sureness is from being right, on average",
            )
        )
    if results.get("epochs"):
        kept = results.get("best_epoch")
        told = f"the weights of epoch {kept} were kept" if kept is not None else None
        shown.append(("Epochs", number(len(results["epochs"])), told))
    if results.get("seconds") is not None:
        shown.append(("Time", duration(results["seconds"]), results.get("outcome")))
    return cards(shown) if shown else Html()


def _use(results: Mapping[str, Any]) -> Html:
    command = results.get("command")
    if not command:
        return Html()
    return section("To use these weights", tag("pre", tag("code", str(command))))


def _bearing() -> Html:
    points = [
        "Figures hold for faces like those judged on. Other cameras, ages, lighting and groups of "
        "people may fare worse; label a sample of your own material by hand and compare.",
        "A label says what a face shows to a viewer, not who somebody is. Decide nothing "
        "about a person by it.",
    ]
    return section("What these figures can bear", tag("ul", *(tag("li", p) for p in points)))


def _made(results: Mapping[str, Any]) -> Html:
    names = {
        "recipe": "Recipe",
        "model": "Network",
        "column": "Labels are of",
        "labels": "Labels",
        "outcome": "Ended",
        "weights": "Weights",
        "temperature": "Temperature",
    }
    facts = [
        [words, _value(results[key])]
        for key, words in names.items()
        if results.get(key) is not None
    ]
    facts += [
        [sentence_case(str(name)), _value(value)]
        for name, value in (results.get("speed") or {}).items()
    ]
    columns = [Column("", is_number=False), Column("", is_number=False)]
    settings = [
        [tag("code", str(key)), _value(value)]
        for key, value in (results.get("settings") or {}).items()
    ]
    heads = [Column("Setting", is_number=False), Column("Value", is_number=False)]
    return section(
        "How it was made",
        table(columns, facts, is_narrow=True) if facts else None,
        fold(plural(len(settings), "setting"), table(heads, settings)) if settings else None,
    )


def _value(value: object) -> str:
    if value is None:
        return UNKNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(_value(part) for part in value) or UNKNOWN
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)
