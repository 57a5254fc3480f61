"""The page about a fine-tuning run: all that it is given, and nothing where parts are missing."""

from __future__ import annotations

import base64
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pages import Node, read_page
from PIL import Image

from videogender.errors import OutputError
from videogender.reports.finetune_report import write

LEVELS = [
    {"level": "conv3_3", "stride": 4, "faces": 60, "accuracy": 0.62},
    {"level": "conv4_3", "stride": 8, "faces": 240, "accuracy": 0.9},
]
RESULTS: dict[str, Any] = {
    "title": "Gender heads <of> lite",
    "recipe": "heads",
    "model": "lite",
    "labels": ["female", "male"],
    "outcome": "stopped early",
    "seconds": 163.2,
    "weights": "runs/a/best.safetensors",
    "command": "videogender annotate VIDEO --weights 'runs/<a>/best.safetensors'",
    "temperature": 1.31,
    "judged_on": "test: 300 faces of 40 people",
    "notes": ["a note"],
    "settings": {"epochs": 3, "features.scales": [1.0, 0.5], "keep": False, "from": None},
    "epochs": [
        {
            "epoch": e,
            "train_loss": 0.7 / e,
            "val_loss": 0.8 / e,
            "train_accuracy": 0.7,
            "val_accuracy": 0.6 + 0.05 * e,
            "seconds": 2.0,
        }
        for e in (1, 2, 3)
    ],
    "best_epoch": 2,
    "before": {
        "faces": 300,
        "accuracy": 0.781,
        "interval": [0.73, 0.82],
        "by_label": {"male": 0.9},
    },
    "after": {
        "faces": 300,
        "accuracy": 0.862,
        "interval": [0.82, 0.9],
        "by_label": {"female": 0.84, "male": 0.88},
        "confidence_error": 0.024,
        "log_loss": math.nan,
        "half_errors": 0.25,
    },
    "confusion": {
        "labels": ["female", "male"],
        "answers": ["female", "male", "unsure"],
        "counts": [[90, 5, 5], [30, 150, 20]],
    },
    "reliability": [{"confidence": 0.7, "accuracy": 0.72, "count": 120}],
    "reliability_before": [{"confidence": 0.7, "accuracy": 0.6, "count": 100}],
    "by_size": [
        {"low_px": 0, "high_px": 24, "faces": 30, "accuracy": 0.63, "interval": [0.45, 0.8]},
        {"low_px": 24, "high_px": None, "faces": 270, "accuracy": 0.9, "interval": None},
    ],
    "levels": LEVELS,
    "data": {
        "sources": ["faces.csv (CSV, column Gender)"],
        "split_by": "person",
        "splits": {
            "train": {"images": 139, "faces": 1390, "people": 7, "labels": {"female": 60}},
            "test": {"images": 30, "faces": 30, "people": None, "labels": {"male": 10}},
        },
        "problems": [
            {"what": "missing-file", "count": 3, "examples": ["a.csv:12: no <b>file</b>"]}
        ],
    },
}


def page_of(tmp_path: Path, results: dict[str, Any]) -> Node:
    path = write(tmp_path, results)
    assert path == tmp_path / "report.html"
    return read_page(path)


def pictures(node: Node) -> list[Image.Image]:
    texts = [n.attributes["src"].partition(",")[2] for n in node.all("img")]
    return [Image.open(io.BytesIO(base64.b64decode(text))) for text in texts]


def test_what_the_results_hold_stands_on_the_page(tmp_path: Path) -> None:
    page = page_of(tmp_path, RESULTS)
    assert page.all("h1")[0].text == RESULTS["title"]
    assert page.section("To use these weights").all("pre")[0].text == RESULTS["command"]
    lead = page.all("p", "lead")[0].text
    assert lead == "86.2 % of 300 faces are answered rightly (95 % interval 82.0 to 90.0 %); " + (
        "78.1 % before."
    )
    rows = {row[0]: row[1:] for row in page.section("Before and after").rows()}
    assert rows["Accuracy"] == ["78.1 %", "86.2 %", "+8.1 points"]
    assert rows["… of those labelled male"] == ["90.0 %", "88.0 %", "\N{MINUS SIGN}2.0 points"]
    assert rows["… of those labelled female"] == ["\N{EN DASH}", "84.0 %", ""]
    assert rows["Half errors"] == ["\N{EN DASH}", "0.250", ""]
    assert "Log loss" not in rows  # not a number on either side
    assert page.section("What was answered").rows() == [
        ["female", "90 90 %", "5 5 %", "5 5 %"],
        ["male", "30 15 %", "150 75 %", "20 10 %"],
    ]
    right = page.section("What was answered").all("td", "right")
    assert [n.text for n in right] == ["90 90 %", "150 75 %"]
    epochs = page.section("Training").rows()
    assert [row[0] for row in epochs] == ["1", "2", "3"]
    assert epochs[1][4] == "70.0 %"
    data = page.section("Data")
    assert data.rows()[:2] == [
        ["training", "139", "1,390", "7", "60", "\N{EN DASH}"],
        ["test", "30", "30", "\N{EN DASH}", "\N{EN DASH}", "10"],
    ]
    assert "3 problems in the data" in data.text
    assert "a.csv:12: no <b>file</b>" in data.text
    sizes = page.section("Where it can be trusted")
    assert [t.text for t in sizes.all("text", "strong")] == ["below 24 px", "from 24 px"]
    settings = dict(page.section("How it was made").all("details")[0].rows())
    assert settings == {
        "epochs": "3",
        "features.scales": "1, 0.5",
        "keep": "no",
        "from": "\N{EN DASH}",
    }


@pytest.mark.parametrize("missing", ["all", *RESULTS])
def test_any_part_may_be_missing(tmp_path: Path, missing: str) -> None:
    results = {} if missing == "all" else {k: v for k, v in RESULTS.items() if k != missing}
    text = page_of(tmp_path, results).all("main")[0].text
    assert "nan" not in text
    assert "None" not in text
    page_of(tmp_path, dict.fromkeys(RESULTS) if missing == "all" else {**RESULTS, missing: None})


def test_results_as_they_come_from_their_file(tmp_path: Path) -> None:
    whole = json.loads(json.dumps({**RESULTS, "after": {**RESULTS["after"], "log_loss": None}}))
    assert page_of(tmp_path, whole).headings() == page_of(tmp_path, RESULTS).headings()


def test_a_small_gain_is_not_called_one(tmp_path: Path) -> None:
    before = {**RESULTS["before"], "accuracy": 0.85}
    assert "may be chance" in page_of(tmp_path, {**RESULTS, "before": before}).text
    assert "may be chance" not in page_of(tmp_path, RESULTS).text
    worse = page_of(tmp_path, {**RESULTS, "after": {"accuracy": 0.7}})
    assert "70.0 % are answered rightly; 78.1 % before." in worse.text


def test_too_few_people_for_an_interval_are_told(tmp_path: Path) -> None:
    after = {**RESULTS["after"], "interval": None, "people": 2}
    sizes = [{**row, "interval": None} for row in RESULTS["by_size"]]
    page = page_of(tmp_path, {**RESULTS, "after": after, "by_size": sizes})
    lead = page.all("p", "lead")[0].text
    assert "answered rightly (too few people for an interval: 2); 78.1 % before" in lead
    assert "interval" not in page.section("Where it can be trusted").text
    assert "People" not in {row[0] for row in page.section("Before and after").rows()}


def test_faces_that_were_not_found_are_not_called_judged(tmp_path: Path) -> None:
    after = {"faces": 300, "found": 0.123333, "accuracy": 0.7}
    page = page_of(tmp_path, {**RESULTS, "before": {}, "after": after})
    lead = page.all("p", "lead")[0].text
    assert lead == "70.0 % of the 37 found faces, of 300 in all, are answered rightly."
    rows = {row[0]: row[1:] for row in page.section("Before and after").rows()}
    assert rows["Faces judged"] == ["\N{EN DASH}", "37 of 300", ""]


def scene(path: Path, orientation: int = 1) -> Path:
    """A grey picture with a red face in it, stored as `orientation` says."""
    pixels = np.full((100, 200, 3), 128, np.uint8)
    pixels[20:60, 130:170] = (220, 0, 0)
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = orientation
    if orientation == 6:  # to be turned clockwise by the viewer
        image = image.transpose(Image.Transpose.ROTATE_90)
    image.save(path, quality=95, exif=exif)
    return path


@pytest.mark.parametrize("orientation", [1, 6])
def test_mistakes_show_the_face(tmp_path: Path, orientation: int) -> None:
    image = scene(tmp_path / "a.jpg", orientation)
    common = {"label": "male", "answer": "female", "probability": 0.97, "where": "<a>.csv:3"}
    faces = [
        {**common, "image": str(image), "box": [130, 20, 170, 60]},
        {**common, "image": str(image), "box": None},
        {**common, "image": str(tmp_path / "gone.jpg"), "box": None},
        {"label": "male"},
    ]
    page = page_of(tmp_path, {"mistakes": faces[:1], "suspected": faces})
    sheet = page.section("Suspected label errors")
    items = sheet.all("li")
    assert "label: male" in items[0].text
    assert "answer: female 97 %" in items[0].text
    assert "a.jpg · <a>.csv:3" in items[0].text
    assert [len(i.all("div", "missing")) for i in items] == [0, 0, 1, 1]
    face, whole = (np.array(p).astype(int) for p in pictures(sheet))
    red = face[..., 0] - face[..., 1] > 100
    # The face, of 40 px in a square of 64, is in the middle.
    assert red.mean() == pytest.approx((40 / 64) ** 2, abs=0.05)
    middle = len(face) // 2
    assert red[middle - 30 : middle + 30, middle - 30 : middle + 30].all()
    assert (whole[..., 0] - whole[..., 1] > 100).mean() == pytest.approx(0.04, abs=0.01)
    assert len(pictures(page.section("Worst mistakes"))) == 1


def test_pictures_may_be_blurred_or_left_out_and_are_not_endless(tmp_path: Path) -> None:
    image = scene(tmp_path / "a.jpg")
    face = {"image": str(image), "box": [130, 20, 170, 60], "label": "male"}
    counts = {}
    for kind in ("plain", "blurred", "none", None, "odd"):
        page = page_of(tmp_path, {"mistakes": [face] * 120, "thumbnails": kind})
        sheet = page.section("Worst mistakes")
        counts[kind] = len(sheet.all("img"))
        assert "24 more are not shown" in sheet.text
        if kind in ("plain", "blurred"):
            pixels = np.array(pictures(sheet)[0]).astype(int)
            sharpest = np.abs(np.diff(pixels[84, :, 1])).max()
            assert sharpest > 30 if kind == "plain" else sharpest < 12
    assert counts == {"plain": 96, "blurred": 96, "none": 0, None: 96, "odd": 96}


def test_levels_by_votes_or_by_faces(tmp_path: Path) -> None:
    voted = [
        {**row, "share": share, "asked": 7} for row, share in zip(LEVELS, (0.1, 0.9), strict=True)
    ]
    for rows, wide, of in ((LEVELS, 0.2, "60"), (voted, 0.1, "7")):
        section = page_of(tmp_path, {"levels": rows}).section("Levels")
        full = float(section.all("rect", "band")[0].attributes["width"])
        bars = [float(bar.attributes["width"]) / full for bar in section.all("rect", "plain")]
        assert bars == [pytest.approx(x, abs=0.01) for x in (wide, 1 - wide, 0.62, 0.9)]
        assert f"62.0 % of {of}" in section.text


def test_an_earlier_page_is_replaced_and_a_failure_is_told(tmp_path: Path) -> None:
    write(tmp_path, {"title": "One"})
    assert page_of(tmp_path, {"title": "Two"}).all("h1")[0].text == "Two"
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    with pytest.raises(OutputError, match="does not exist"):
        write(tmp_path / "none", {})
