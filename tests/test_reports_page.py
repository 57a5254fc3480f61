"""Markup that survives any text, and the parts and charts that pages are made of."""

from __future__ import annotations

import math
import re
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pages import parse, read_page

from videogender.errors import OutputError
from videogender.render.faces import COLOURS
from videogender.reports.charts import Bar, Line, bars, lines, reliability, ticks, time_ticks
from videogender.reports.markup import Html, tag
from videogender.reports.page import Cell, Column, Row, save, section, table
from videogender.reports.timeline import lanes, strips
from videogender.reports.words import UNKNOWN, clock, duration, percent, plural

# What a parser turns into something else by the rules of HTML: carriage returns and nulls.
TEXT = st.text(st.characters(exclude_characters="\r\x00", exclude_categories=["Cs"]))


@given(TEXT, TEXT)
@example("</script><script>alert(1)</script>", "\"' onload='alert(1)")
@example("&lt;b&gt; &amp;amp;", "&quot;")
def test_any_text_is_shown_as_it_is(text: str, value: str) -> None:
    (node,) = parse(tag("p", text, title=value, data_key=value)).parts
    assert not isinstance(node, str)
    assert node.text == text
    assert node.attributes == {"title": value, "data-key": value}
    assert not list(node)


def test_elements_and_attributes() -> None:
    inner = tag("b", "x")
    assert tag("p", inner, None, 3, 0.5) == "<p><b>x</b>30.5</p>"
    assert tag("input", hidden=True, checked=False, id=None, class_="a") == (
        '<input hidden class="a">'
    )
    assert tag("rect", x=1.23456, stroke_width=2) == '<rect x="1.23" stroke-width="2"></rect>'
    assert str(Html("<i>") + "<b>") == "<i><b>"
    assert not isinstance(Html("<i>") + "<b>", Html)  # what is joined by hand is escaped again


def test_a_page_is_whole_and_has_the_colours_of_the_video(tmp_path: Path) -> None:
    path = tmp_path / "a.html"
    save(path, 'a <b> "c"', section("A", tag("p", "x")), section("nothing", None, Html()))
    page = read_page(path)
    assert page.all("title")[0].text == 'a <b> "c" · videogender'
    assert page.headings() == ["A"]
    style = page.all("style")[0].text
    for label, rgb in COLOURS.items():
        found = re.search(rf"--{label}:rgb\((\d+) (\d+) (\d+)\)", style)
        assert found is not None
        assert tuple(map(int, found.groups())) == rgb
    with pytest.raises(OutputError, match="cannot write"):
        save(tmp_path / "none" / "a.html", "a")


def test_every_class_has_a_rule(tmp_path: Path) -> None:
    """A class that is spelt otherwise in the stylesheet would go unseen."""
    folder = Path(save.__code__.co_filename).parent
    style = (folder / "page.css").read_text()
    used = set()
    for source in folder.glob("*.py"):
        for found in re.findall(r'class_="([a-z0-9 -]+)"', source.read_text()):
            used |= set(found.split())
    assert len(used) > 20
    # Rows are for the script alone.
    assert {name for name in used if f".{name}" not in style} <= {"rows"}


@pytest.mark.parametrize(("count", "folded"), [(3, 0), (60, 0), (61, 11), (500, 450)])
def test_long_tables_are_folded_but_complete(count: int, folded: int) -> None:
    rows = [Row([Cell(f"{i} px", i)], id=f"r{i}", group="a") for i in range(count)]
    page = parse(table([Column("Size")], rows, sortable=True, groups=[("a", "A")]))
    assert [row[0] for row in page.rows()] == [f"{i} px" for i in range(count)]
    assert [n.attributes["data-key"] for n in page.all("td")] == [str(i) for i in range(count)]
    details = page.all("details")
    assert sum(len(d.all("td")) for d in details) == folded
    with pytest.raises(ValueError, match="2 cells for 1 columns"):
        table([Column("a")], [[1, 2]])


@pytest.mark.parametrize(
    ("seconds", "digits", "text"),
    [
        (0, 1, "0:00.0"),
        (59.96, 1, "1:00.0"),
        (61.25, 2, "1:01.25"),
        (3599.99, 0, "1:00:00"),
        (7325.5, 1, "2:02:05.5"),
        (-0.4, 1, "\N{MINUS SIGN}0:00.4"),
        (-0.01, 1, "0:00.0"),
        (None, 1, UNKNOWN),
        (math.nan, 1, UNKNOWN),
    ],
)
def test_clock(seconds: float | None, digits: int, text: str) -> None:
    assert clock(seconds, digits) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.6, "1 h 00 min"),
        (3720, "1 h 02 min"),
        (None, UNKNOWN),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_words() -> None:
    assert percent(0.4567, 1) == "45.7 %"
    assert percent(math.nan) == UNKNOWN
    assert (plural(1, "face"), plural(2000, "face")) == ("1 face", "2,000 faces")


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(2, 12))
def test_ticks_are_few_even_and_inside(low: float, span: float, most: int) -> None:
    for found in (ticks(low, low + span, most), time_ticks(low, low + span, most)):
        assert len(found) <= most + 1
        gaps = [b - a for a, b in pairwise(found)]
        assert all(abs(gap - gaps[0]) < 1e-6 * (1 + abs(low) + span) for gap in gaps)
        slack = 1e-6 * (1 + abs(low) + span)
        assert all(low - slack <= value <= low + span + slack for value in found)


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(1, 30))))
def test_bars_on_a_lane_do_not_touch_and_lanes_are_few(raw: list[tuple[int, int]]) -> None:
    spans = sorted((begin / 7, (begin + length) / 7) for begin, length in raw)
    chosen = lanes(spans)
    for i, (begin, _) in enumerate(spans):
        for j in range(i):
            if chosen[i] == chosen[j]:
                assert spans[j][1] <= begin + 1e-6
    at_once = max((sum(a <= t < b for a, b in spans) for t, _ in spans), default=0)
    assert max(chosen, default=-1) + 1 == at_once


@given(st.floats(0, 5000), st.floats(0.01, 20000), st.integers(0, 5000))
def test_strips_cover_the_video_once(begin: float, length: float, tracks: int) -> None:
    found = strips(begin, begin + length, tracks)
    assert found[0][0] <= begin + 1e-6
    assert found[-1][1] >= begin + length - 1e-4
    assert found[-1][0] < begin + length
    assert len(found) <= 13
    for (_, end), (start, _) in pairwise(found):
        assert start == pytest.approx(end)


def test_lines_place_their_points() -> None:
    points = [(1.0, 0.5), (2.0, None), (3.0, 0.25), (4.0, 1.0), (5.0, math.nan)]
    page = parse(
        lines(
            [Line("val", points)],
            name="n",
            title="t",
            x_title="epoch",
            y_name=lambda v: f"{v:.2f}",
        )
    )
    circles = [(float(c.attributes["cx"]), float(c.attributes["cy"])) for c in page.all("circle")]
    assert len(circles) == 3
    (x1, y1), (x2, y2), (x3, y3) = circles
    assert (x2 - x1) / (x3 - x1) == pytest.approx(2 / 3, abs=1e-2)
    assert (y1 - y2) / (y3 - y2) == pytest.approx(1 / 3, abs=1e-2)
    assert page.all("circle")[0].text == "val, epoch 1: 0.50"
    assert lines([Line("a", [])], name="n", title="t", x_title="x", y_name=str) == ""


def test_bars_are_as_long_as_their_share() -> None:
    page = parse(bars([Bar("a", 0.25, "x", (0.2, 0.4)), Bar("b", math.nan, "y")], name="n"))
    wide = float(page.all("rect", "band")[0].attributes["width"])
    (bar,) = page.all("rect", "plain")
    assert float(bar.attributes["width"]) == pytest.approx(0.25 * wide, abs=0.02)


def test_what_is_cut_off_at_a_side_is_shaded_there() -> None:
    style = files("videogender.reports").joinpath("page.css").read_text()
    (rule,) = re.findall(r"^\.scroll \{[^}]*\}", style, re.MULTILINE)
    assert "overflow-x: auto" in rule
    assert "background-attachment: local, local, scroll, scroll" in rule


def test_calibration_dots_lie_where_they_belong() -> None:
    page = parse(reliability([(0.75, 0.75, 10), (1.0, 0.5, 40), (0.6, 0.6, 0)], name="n"))
    on_line, sure = page.all("circle")
    (ideal,) = page.all("path", "ideal")
    x0, y0, x1, y1 = map(float, re.findall(r"[\d.]+", ideal.attributes["d"]))
    assert float(on_line.attributes["cx"]) == pytest.approx((x0 + x1) / 2, abs=0.1)
    assert float(on_line.attributes["cy"]) == pytest.approx((y0 + y1) / 2, abs=0.1)
    assert float(sure.attributes["cx"]) == pytest.approx(x1, abs=0.1)
    assert float(sure.attributes["cy"]) == pytest.approx(y0, abs=0.1)
    assert float(sure.attributes["r"]) > float(on_line.attributes["r"])
