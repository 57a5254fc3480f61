"""The page about videos, read back with a parser and compared with what was settled."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pages import Node, read_page
from settled_videos import Actor, settled_video, ticks

from videogender.config import Settings, with_overrides
from videogender.frames import Faces, Frame, RgbPicture
from videogender.reports import video_section
from videogender.reports.summary import LABELS, FaceCounts, summarize
from videogender.reports.video_report import write_video_report
from videogender.reports.video_section import VideoSection
from videogender.reports.words import duration
from videogender.tracking.flat import stretches

NASTY = "talks & co/<script>alert('x')</script> \"café\" 会議.mp4"


def part_of(actors: list[Actor], seconds: float = 20, **more: Any) -> VideoSection:
    cuts = more.pop("cuts", ())
    settled = settled_video(actors, ticks(seconds), cuts=cuts)
    options = {"source": "a.mp4", "size_wh": (640, 360), "unsure_below": 0.65} | more
    return VideoSection(summarize(settled, **options), settled)


def crowd(count: int, seconds: float, seed: int = 0) -> list[Actor]:
    rng = np.random.default_rng(seed)
    actors = []
    for i in range(count):
        begin = rng.uniform(0, seconds - 2)
        female = (0.03, 0.5, 0.97)[i % 3]
        actors.append(Actor([(begin, begin + rng.uniform(0.8, 6))], female=female, x=5.0 * i))
    return actors


def page_of(tmp_path: Path, *parts: VideoSection, settings: Settings | None = None) -> Node:
    path = tmp_path / "report.html"
    write_video_report(
        path, parts, settings=settings or Settings(), model="lite", unsure_below=0.65
    )
    return read_page(path)


def test_the_page_says_what_the_summary_says(tmp_path: Path) -> None:
    part = part_of(crowd(90, 100), seconds=100, cuts=[40.0, 60.0], source=NASTY)
    page = page_of(tmp_path, part)
    summary = part.summary
    assert page.all("h1")[0].text == Path(NASTY).name
    tally = summary["appearances"]
    lead = page.all("p", "lead")[0].text
    assert lead.startswith(
        f"{tally['all']} appearances: {tally['female']} female, {tally['male']} male, "
        f"{tally['unsure']} unsure."
    )
    by_label = page.section("By presented gender").rows()
    assert [row[1] for row in by_label] == [str(tally[x]) for x in (*LABELS, "all")]
    rows = page.section("Appearances").rows()
    assert [int(row[0]) for row in rows] == [track["id"] for track in summary["tracks"]]
    assert [row[1] for row in rows] == [track["label"] for track in summary["tracks"]]
    minutes = page.section("Minute by minute").rows()
    assert [row[0] for row in minutes] == ["0:00", "1:00"]
    assert [int(row[3]) for row in minutes] == [m["all"]["peak"] for m in summary["per_minute"]]


def test_each_bar_of_the_timeline_is_a_stretch_and_leads_to_its_row(tmp_path: Path) -> None:
    actors = [*crowd(20, 20), Actor([(1.0, 4.0), (4.9, 9.0)], female=0.97, x=900)]
    part = part_of(actors, cuts=[12.0])
    assert part.settled is not None
    page = page_of(tmp_path, part)
    links = page.section("Timeline").all("a")
    spans = stretches(part.settled)
    assert max(map(len, spans.values())) > 1
    labels = {track["id"]: track["label"] for track in part.summary["tracks"]}
    (axis,) = [p for p in page.section("Timeline").all("path", "axis") if "H" in p.attributes["d"]]
    left, right = (float(x) for x in re.findall(r"[MH]([\d.]+)", axis.attributes["d"]))
    scale = (right - left) / 20
    for link in links:
        number = int(link.attributes["href"].removeprefix("#v1-t"))
        bars = link.all("rect")
        assert len(bars) == len(spans[number])
        for bar, (begin, end) in zip(bars, spans.pop(number), strict=True):
            assert labels[number] in bar.classes
            assert float(bar.attributes["x"]) == pytest.approx(left + begin * scale, abs=0.1)
            width = max((end - begin) * scale, 1.5)
            assert float(bar.attributes["width"]) == pytest.approx(width, abs=0.1)
    assert not spans


def area_of(path: str) -> float:
    """Area of the polygons of a path, by the shoelace formula."""
    total = 0.0
    for piece in re.findall(r"M([^Z]*)Z", path):
        points = [tuple(map(float, p.split())) for p in piece.split("L")]
        pairs = zip(points, points[1:] + points[:1], strict=True)
        total += abs(sum(a[0] * b[1] - b[0] * a[1] for a, b in pairs)) / 2
    return total


@pytest.mark.parametrize("seconds", [20, 120])
def test_stacked_areas_hold_the_time_of_the_faces(tmp_path: Path, seconds: int) -> None:
    part = part_of(crowd(40, seconds), seconds=seconds)
    chart = page_of(tmp_path, part).section("Faces at once").all("svg", "chart")[0]
    across, *_ = [p.attributes["d"] for p in chart.all("path", "axis") if "H" in p.attributes["d"]]
    left, right = (float(x) for x in re.findall(r"[MH]([\d.]+)", across))
    names = {t.text: float(t.attributes["y"]) for t in chart.all("text", "end") if t.text.isdigit()}
    most = max(names, key=int)
    one = (names["0"] - names[most]) / int(most)  # px a face
    for label in LABELS:
        (shape,) = [p for p in chart.all("path", "fill") if label in p.classes]
        told = area_of(shape.attributes["d"]) / one / ((right - left) / seconds)
        assert told == pytest.approx(
            part.summary["on_screen"][label]["face_seconds"], rel=0.01, abs=0.2
        )


def test_thousands_of_tracks_are_folded_and_the_longest_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video_section, "MOST_TRACKS", 200)
    part = part_of(crowd(300, 200), seconds=200)
    page = page_of(tmp_path, part)
    section = page.section("Appearances")
    shown = {int(row[0]) for row in section.rows()}
    assert len(shown) == 200
    longest = sorted((t["seconds"] for t in part.summary["tracks"]), reverse=True)[:200]
    kept = [t["seconds"] for t in part.summary["tracks"] if t["id"] in shown]
    assert sorted(kept, reverse=True) == longest
    assert "The 200 longest of 300." in section.text
    assert len(section.all("details")[0].all("tr")) == 151  # fifty are in view, one is the head
    assert len({a.attributes["href"] for a in page.section("Timeline").all("a")}) == 200
    assert f"{part.summary['appearances']['all']} appearances" in page.all("p", "lead")[0].text


def test_zones_with_their_map(tmp_path: Path) -> None:
    counts = {"all": 12, "female": 5, "male": 6, "unsure": 1}
    zone = {"name": "<door>", "points": [[0, 0], [320, 0], [320, 360]], "entries": counts}
    zone |= {"dwell_seconds": {"all": 130.5, "female": 60.0, "male": 70.5, "unsure": None}}
    zone |= {"exits": None}
    line = {"name": "aisle", "points": [[600, 0], [600, 300]], "in": counts, "out": counts}
    zones = {"zones": [zone], "lines": [line]}
    section = page_of(tmp_path, part_of(crowd(3, 20), zones=zones)).section("Zones and lines")
    assert [h.text for h in section.all("h3")] == ["<door>", "aisle"]
    assert section.rows() == [
        ["Came in", "12", "5", "6", "1"],
        ["Time inside, summed", "2 min 10 s", "1 min 00 s", "1 min 10 s", "\N{EN DASH}"],
        ["In", "12", "5", "6", "1"],
        ["Out", "12", "5", "6", "1"],
    ]
    # `in` leads to the right of who looks along the line: here down, so to the left in the picture.
    arrow = section.all("path", "line-across")[0].attributes["d"]
    foot, tip = re.findall(r"M[\d.]+ [\d.]+L[\d.]+ [\d.]+M([\d.]+) [\d.]+L([\d.]+)", arrow)[0]
    assert float(tip) < float(foot)


def test_attributes_have_a_table_and_stand_beside_each_appearance(tmp_path: Path) -> None:
    actors = [
        Actor([(0, 8)], female=0.95, mask=0.9),
        Actor([(2, 10)], female=0.05, mask=0.1),
        Actor([(12, 14)], female=0.05, mask=float("nan")),
    ]
    page = page_of(tmp_path, part_of(actors))
    rows = page.section("By attribute").rows()
    assert [row[:2] for row in rows] == [["mask", "1"], ["no mask", "1"], ["unsure", "1"]]
    assert rows[0][3:] == ["1", "0", "0", "8.0 s"]
    tracks = page.section("Appearances").rows()
    assert [row[3] for row in tracks] == ["mask", "no mask", "unsure"]
    assert float(tracks[0][4]) > 0.8
    assert tracks[2][4] == "\N{EN DASH}"
    assert "By attribute" not in page_of(tmp_path, part_of(crowd(3, 20))).headings()


def stills() -> list[VideoSection]:
    parts = []
    for i in range(3):
        counts = FaceCounts(f"photos/{i}.jpg", 0.65)
        picture = RgbPicture(np.zeros((36, 64, 3), np.uint8))
        found = Faces(
            np.zeros((i, 4), np.float32), np.ones(i, np.float32), np.full(i, 0.9, np.float32)
        )
        counts.add(Frame(picture, 0, None, "x"), found)
        parts.append(VideoSection(counts.summary(), counts=counts))
    return parts


def test_zones_in_which_only_time_is_known_are_not_said_to_count_comings(tmp_path: Path) -> None:
    counts = {"all": 2, "female": 1, "male": 1, "unsure": 0}
    zone = {"name": "door", "points": [[0, 0], [320, 0], [320, 360]], "peak": counts}
    zones = {"zones": [{**zone, "entries": None}], "lines": []}
    section = page_of(tmp_path, part_of(crowd(3, 20), zones=zones)).section("Zones and lines")
    assert "Comings and goings" not in section.text
    zones = {"zones": [{**zone, "entries": counts}], "lines": []}
    section = page_of(tmp_path, part_of(crowd(3, 20), zones=zones)).section("Zones and lines")
    assert "Comings and goings" in section.text


def test_several_videos_and_images_in_one_page(tmp_path: Path) -> None:
    loose = FaceCounts("loose.mp4", 0.65)
    picture = RgbPicture(np.zeros((36, 64, 3), np.uint8))
    for i in range(50):
        n = 2 if i < 25 else 0
        found = Faces(
            np.zeros((n, 4), np.float32), np.ones(n, np.float32), np.full(n, 0.1, np.float32)
        )
        loose.add(Frame(picture, i, i / 25, "loose.mp4"), found)
    parts = [part_of(crowd(5, 20)), VideoSection(loose.summary(), counts=loose), *stills()]
    page = page_of(tmp_path, *parts)
    assert page.all("h1")[0].text == "2 videos and 3 images"
    assert [row[0] for row in page.section("Overview").rows()] == ["a.mp4", "loose.mp4"]
    (foot,) = page.section("Overview").all("tfoot")
    last = [cell.text for cell in foot.all("td")]
    first = parts[0].summary
    seen = (
        first["on_screen"]["all"]["seconds"] + 1,
        first["on_screen"]["male"]["face_seconds"] + 2,
    )
    assert last[:3] == ["2 videos", "22.0 s", "5"]
    assert (last[6], last[8]) == tuple(map(duration, seen))
    lead = page.all("p", "lead")[0].text
    assert lead.startswith("5 appearances: 1 female, 2 male, 2 unsure. 50 faces in single frames: ")
    assert "3 faces in 3 images: " in lead
    assert f"A face is in view for {duration(seen[0])} of 22.0 s" in lead
    assert [c.text for c in page.section("Images").all("tfoot")[0].all("td")][:2] == [
        *("3 images", "3")
    ]
    images = page.section("Images")
    assert [row[:3] for row in images.rows()] == [
        ["photos/0.jpg", "0", "0"],
        ["photos/1.jpg", "1", "1"],
        ["photos/2.jpg", "2", "2"],
    ]
    assert "50 faces in 50 frames: 0 female, 50 male, 0 unsure" in page.text
    assert page.headings().count("Timeline") == 1
    assert page.headings().count("Faces at once") == 2


@pytest.mark.parametrize(
    "part",
    [
        part_of([]),
        part_of([], seconds=0.1),
        part_of([Actor([(0, 20)], female=float("nan"))], seconds=0.3),
        stills()[0],
    ],
    ids=["no faces", "one frame", "three frames", "an image"],
)
def test_little_to_tell(tmp_path: Path, part: VideoSection) -> None:
    page = page_of(tmp_path, part)
    assert "nan" not in page.all("main")[0].text
    assert "What these figures can bear" in page.headings()


def test_a_single_frame_has_no_length(tmp_path: Path) -> None:
    page = page_of(tmp_path, part_of([Actor([(0, 20)], female=0.97)], seconds=0.1))
    lead = page.all("p", "lead")[0].text
    assert lead.startswith("1 appearance: 1 female, 0 male, 0 unsure. A face is in view, at most 1")
    assert "640 by 360 px, 1 frame" in page.text
    assert "1 frames" not in page.text


def test_an_early_end_and_settings_are_told(tmp_path: Path) -> None:
    settings = with_overrides(Settings(), {"detect.long_side": 1280})
    page = page_of(tmp_path, part_of(crowd(3, 20), interrupted=True), settings=settings)
    assert "Stopped early" in page.all("p", "lead")[0].text
    rows = {row[0]: row[1:3] for row in page.section("How it was made").rows()}
    assert rows["detect.long_side"] == ["1280", "640"]
    changed = page.section("How it was made").all("td", "changed")
    assert [n.text for n in changed] == ["1280"]
    assert "1 other than the default" in page.text
