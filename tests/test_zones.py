"""Zones and lines: reading them, geometry against slow references, and counts of known walks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st
from numpy.typing import NDArray

from videogender.config import TrackSettings, ZoneSettings
from videogender.errors import ConfigError
from videogender.frames import Faces
from videogender.tracking.flat import frame_seconds
from videogender.tracking.settle import Settled, settle
from videogender.tracking.tape import Tape
from videogender.zones.live import LiveZones, LooseZones
from videogender.zones.plan import Plan, plan_of
from videogender.zones.settled import SettledZones
from videogender.zones.shapes import parse_line, parse_zone

ROOM = (200, 100)
Walk = Sequence[tuple[float, float]]


def plan(*zones: str, lines: Sequence[str] = (), size_wh: tuple[int, int] = ROOM) -> Plan:
    made = plan_of(ZoneSettings(zone=zones, line=tuple(lines)), size_wh)
    assert made is not None
    return made


def boxes_at(points: Walk, size: float = 20.0) -> NDArray[np.float32]:
    centres = np.array(points, np.float32).reshape(-1, 2)
    return np.concatenate([centres - size / 2, centres + size / 2], 1)


def settled_of(
    walks: Sequence[Walk],
    female: Sequence[float],
    times: Sequence[float] | None = None,
    size: float = 20.0,
) -> Settled:
    """Return a video in which face i walks through the points walks[i], one a frame."""
    tape = Tape()
    for row in range(max(map(len, walks))):
        tape.frame(row, row / 10 if times is None else times[row], looked=True)
        here = [i for i, walk in enumerate(walks) if row < len(walk)]
        faces = Faces(
            boxes_at([walks[i][row] for i in here], size),
            np.full(len(here), 0.9, np.float32),
            np.array([female[i] for i in here], np.float32),
        )
        tape.faces(faces, np.array(here, np.int64) + 1)
    return settle(tape.read(), TrackSettings(min_hits=1), 0.5)


def settled_figures(settled: Settled, places: Plan) -> dict[str, list[dict[str, object]]]:
    return SettledZones(settled, places, 0.65).figures()


# --- reading ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "pixels"),
    [
        ("door:0,0;10,0;10,10", [(0, 0), (10, 0), (10, 10)]),
        ("a b : 50%,50% ; 100% , 0.5;0,-3;", [(100, 50), (200, 0.5), (0, -3)]),
        ("ü:.5,1.%;2,2;+3,9", [(0.5, 1), (2, 2), (3, 9)]),
    ],
)
def test_zones_are_read(text: str, pixels: list[tuple[float, float]]) -> None:
    shape = parse_zone(text)
    assert shape.pixels(ROOM) == tuple(pixels)
    assert parse_zone(str(shape)) == shape


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("door", "should be NAME:x1,y1;x2,y2;x3,y3"),
        (":0,0;1,0;1,1", "should be NAME:"),
        ("door:0,0;1,1", "three corners or more"),
        ("door:0,0;1;1,1", "'1' should be x,y such as"),
        ("door:0,0;1,2,3;1,1", "'1,2,3' should be x,y such as"),
        ("door:0,0;a,1;1,1", "'a,1' should be x,y such as"),
        ("door:0,0;1e3,1;1,1", "should be x,y such as"),
        ("door:0,0;nan,1;1,1", "should be x,y such as"),
        ("door:0,0;9999999,1;1,1", "lies far outside"),
        ("door:0,0;5,5;10,10", "encloses no area"),
        ("a\nb:0,0;1,0;1,1", "name that cannot be used"),
        (f"{'x' * 41}:0,0;1,0;1,1", "name that cannot be used"),
    ],
)
def test_what_is_no_zone_is_told(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_zone(text)


def test_what_is_no_line_is_told() -> None:
    assert parse_line("a:0,0;50%,50%").pixels(ROOM) == ((0, 0), (100, 50))
    for text in ("a:0,0", "a:0,0;1,1;2,2", "a:1,1;1,1", "a"):
        with pytest.raises(ConfigError):
            parse_line(text)


def test_names_are_given_once() -> None:
    with pytest.raises(ConfigError, match="two zones are named 'a'"):
        plan("a:0,0;1,0;1,1", "a:0,0;1,0;1,1")
    assert plan_of(ZoneSettings(), ROOM) is None


def test_zones_beside_the_picture_are_named() -> None:
    places = plan(
        "in:-5,-5;5,-5;5,5", "out:200,0;300,0;300,9", lines=["up:0,-1;9,-9", "ok:0,0;9,9"]
    )
    assert places.outside(ROOM) == ["out", "up"]


# --- geometry ---------------------------------------------------------------------------------

STAR = "star:100,5;120,90;20,35;180,35;80,95"  # crosses itself; a concave arrow below
ARROW = "arrow:10,10;190,50;10,90;60,50"


@pytest.mark.parametrize("text", [STAR, ARROW, "box:20,30;180,30;180,70;20,70"])
def test_depths_agree_with_a_slow_reference(text: str) -> None:
    """Even-odd crossings counted one by one, and the distance to many points of the edge."""
    rng = np.random.default_rng(1)
    points = rng.uniform((-20, -20), (220, 120), (300, 2))
    depths = plan(text).reach(boxes_at(points.tolist())).depths[:, 0]
    corners = parse_zone(text).pixels(ROOM)
    edges = list(zip(corners, [*corners[1:], corners[0]], strict=True))
    steps = np.linspace(0, 1, 4001)[:, None]
    rim = np.concatenate([np.array(a) * (1 - steps) + np.array(b) * steps for a, b in edges])
    for (x, y), depth in zip(points.astype(np.float32).tolist(), depths.tolist(), strict=True):
        crossings = 0
        for (ax, ay), (bx, by) in edges:
            if min(ay, by) <= y < max(ay, by) and x < ax + (y - ay) / (by - ay) * (bx - ax):
                crossings += 1
        distance = float(np.hypot(*(rim - (x, y)).T).min())
        assert depth == pytest.approx(distance if crossings % 2 else -distance, abs=0.06)


def test_a_line_tells_its_right_from_its_left() -> None:
    """Upward through the middle: right is right."""
    reach = plan(lines=["up:100,100;100,0"]).reach(boxes_at([(130, 25), (70, 75), (100, -100)]))
    np.testing.assert_allclose(reach.sides[:, 0], [30, -30, 0], atol=1e-4)
    np.testing.assert_allclose(reach.shares[:, 0], [0.75, 0.25, 2], atol=1e-6)


# --- counting ---------------------------------------------------------------------------------

HALL = "hall:0,0;100,0;100,100;0,100"  # the left half of the room


def counted(area: dict[str, object]) -> dict[str, object]:
    """Return the figures of all labels."""
    return {
        key: value["all"]  # type: ignore[index]
        for key, value in area.items()
        if isinstance(value, dict)
    }


def test_a_walk_through_a_zone() -> None:
    """In at frame 3 or so (100 - 5 px), out at frame 8; ten frames a second."""
    steps = [(x, 50.0) for x in (150, 130, 110, 90, 70, 50, 70, 90, 110, 130)]
    zones = settled_figures(settled_of([steps], [0.9]), plan(HALL))["zones"]
    assert counted(zones[0]) == {
        "appearances": 1,
        "entries": 1,
        "exits": 1,
        "dwell_seconds": 0.5,
        "mean_dwell_seconds": 0.5,
        "peak": 1,
    }
    assert zones[0]["points"] == [[0, 0], [100, 0], [100, 100], [0, 100]]


@pytest.mark.parametrize("amplitude", [1.0, 3.0, 4.9])
def test_trembling_on_an_edge_counts_once(amplitude: float) -> None:
    """A face of 20 px has to pass an edge by 5."""
    rng = np.random.default_rng(0)
    on_edge = [(100 + float(rng.uniform(-amplitude, amplitude)), 50.0) for _ in range(200)]
    walk = [(160.0, 50.0), *on_edge, (60.0, 50.0), *on_edge, (160.0, 50.0)]
    figures = settled_figures(settled_of([walk], [0.9]), plan(HALL, lines=["gate:100,0;100,100"]))
    zone, line = counted(figures["zones"][0]), counted(figures["lines"][0])
    assert (zone["entries"], zone["exits"]) == (1, 1)
    assert (line["in"], line["out"]) == (1, 1), "downward: the room's left half is on the right"


def test_without_a_margin_the_same_walk_counts_many_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail."""
    monkeypatch.setattr("videogender.zones.plan._MARGIN", 0.0)
    rng = np.random.default_rng(0)
    walk = [(100 + float(rng.uniform(-3, 3)), 50.0) for _ in range(200)]
    figures = settled_figures(settled_of([walk], [0.9]), plan(HALL, lines=["gate:100,0;100,100"]))
    assert counted(figures["zones"][0])["entries"] > 20  # type: ignore[operator]
    assert counted(figures["lines"][0])["in"] > 20  # type: ignore[operator]


def test_who_is_inside_from_the_first_has_not_come_in() -> None:
    walk = [(50.0, 50.0)] * 5 + [(97.0, 50.0)] * 5 + [(103.0, 50.0)] * 5
    zone = counted(settled_figures(settled_of([walk], [0.9]), plan(HALL))["zones"][0])
    assert (zone["appearances"], zone["entries"], zone["exits"]) == (1, 0, 0)
    assert zone["dwell_seconds"] == 1.5


def test_labels_and_peaks() -> None:
    """Two women and a man stand inside at different times, an unsure one outside."""
    inside, outside = (50.0, 50.0), (170.0, 50.0)
    walks = [
        [inside] * 10,
        [outside] * 4 + [inside] * 2 + [outside] * 4,
        [outside] * 5 + [inside] * 5,
        [outside] * 10,
    ]
    spread = [[(x, y + 20 * i - 30) for x, y in walk] for i, walk in enumerate(walks)]
    figures = settled_figures(settled_of(spread, [0.95, 0.95, 0.05, 0.5], size=12), plan(HALL))
    zone = figures["zones"][0]
    assert zone["appearances"] == {"all": 3, "female": 2, "male": 1, "unsure": 0}
    assert zone["entries"] == {"all": 2, "female": 1, "male": 1, "unsure": 0}
    assert zone["exits"] == {"all": 1, "female": 1, "male": 0, "unsure": 0}
    assert zone["dwell_seconds"] == {"all": 1.7, "female": 1.2, "male": 0.5, "unsure": 0}
    assert zone["mean_dwell_seconds"] == {
        "all": pytest.approx(1.7 / 3, abs=1e-3),
        "female": 0.6,
        "male": 0.5,
        "unsure": None,
    }
    assert zone["peak"] == {"all": 3, "female": 2, "male": 1, "unsure": 0}


def test_a_line_counts_who_crosses_it_and_not_who_walks_around() -> None:
    line = "gate:100,20;100,60"  # downward: in is to the left
    through = [(140.0, 40.0), (120.0, 40.0), (80.0, 40.0), (60.0, 40.0)]
    below = [(x, 80.0) for x, _ in through]
    back = [(60.0, 30.0), (140.0, 30.0)]
    slanted = [(140.0, 100.0), (104.0, 64.0), (96.0, 56.0), (60.0, 20.0)]  # meets it at y = 60
    for walk, expected in (
        (through, (1, 0)),
        (below, (0, 0)),
        (back, (0, 1)),
        (slanted, (1, 0)),
        ([*through, *below[::-1]], (1, 0)),
        ([*through, *through[::-1], *through], (2, 1)),
    ):
        figures = settled_figures(settled_of([walk], [0.1]), plan(lines=[line]))
        counts = counted(figures["lines"][0])
        assert (counts["in"], counts["out"]) == expected, walk
        assert figures["lines"][0]["in"]["male"] == expected[0]  # type: ignore[index]


def test_a_face_larger_than_a_zone_still_enters_it() -> None:
    strip = "strip:90,0;110,0;110,100;90,100"
    walk = [(x, 50.0) for x in range(20, 181, 2)]
    zone = counted(settled_figures(settled_of([walk], [0.9], size=90), plan(strip))["zones"][0])
    assert (zone["entries"], zone["exits"]) == (1, 1)


def test_what_each_frame_shows() -> None:
    walk = [(x, 50.0) for x in (150, 110, 90, 50, 90, 110, 150)]
    settled = settled_of([walk], [0.9])
    zones = SettledZones(settled, plan(HALL, lines=["gate:100,0;100,100"]), 0.65)
    seen = [zones.at(settled.faces(row), row / 10) for row in range(7)]
    assert [where.names() for where in seen] == [[x] for x in [[], [], *[["hall"]] * 3, [], []]]
    assert [where.counts for where in seen] == [[0], [0], [1], [1], [1], [0], [0]]
    assert [where.crossed.tolist() for where in seen if where.crossed is not None] == [
        *[[[0, 0]]] * 2,
        *[[[1, 0]]] * 3,
        *[[[1, 1]]] * 2,
    ]
    empty = zones.at(Faces.empty(), 99.0)
    assert (empty.counts, empty.names()) == ([0], [])


points = st.tuples(st.floats(-20, 220, width=32), st.floats(-20, 120, width=32))
walks = st.lists(st.lists(points, min_size=1, max_size=12), min_size=1, max_size=5)


@settings_of_hypothesis(max_examples=120, deadline=None)
@given(walks, st.lists(st.sampled_from([0.02, 0.5, 0.98]), min_size=5, max_size=5), st.data())
def test_frame_by_frame_gives_the_same_as_all_at_once(
    routes: list[list[tuple[float, float]]], female: list[float], data: st.DataObject
) -> None:
    frames = max(map(len, routes))
    gaps = data.draw(st.lists(st.floats(0.01, 0.4), min_size=frames, max_size=frames))
    times = np.cumsum(gaps)
    settled = settled_of(routes, female, times.tolist(), size=data.draw(st.floats(2, 60)))
    places = plan(HALL, ARROW, STAR, lines=["gate:100,20;100,60", "slope:0,10;60%,90%"])
    whole = SettledZones(settled, places, 0.65)
    live = LiveZones(places, 0.65, forget_seconds=data.draw(st.sampled_from([5.0, 60.0])))
    for row, seconds in enumerate(settled.seconds.tolist()):
        faces = settled.faces(row)
        a, b = whole.at(faces, seconds), live.at(faces, seconds)
        np.testing.assert_array_equal(a.inside, b.inside)
        np.testing.assert_array_equal(a.crossed, b.crossed)
    end = float(settled.seconds[-1] + frame_seconds(settled.seconds)[-1])
    figures = live.figures(end)
    assert whole.figures() == approximately(figures)
    assert live.happened().figures() == approximately(figures), "no label changed"


def approximately(figures: dict[str, list[dict[str, object]]]) -> dict[str, object]:
    """Allow for the order in which times were added up and rounded."""
    return {
        kind: [
            {
                key: pytest.approx(value, abs=1.5e-3) if key.endswith("seconds") else value
                for key, value in area.items()
            }
            for area in areas
        ]
        for kind, areas in figures.items()
    }


def test_live_tracks_take_their_counts_along_when_the_label_changes() -> None:
    live = LiveZones(plan(HALL), 0.65)
    for row, verdict in enumerate([0, 0, 1, 1]):
        faces = Faces(
            boxes_at([(150 - 30 * row, 50)]),
            np.ones(1, np.float32),
            np.full(1, 0.5, np.float32),
            tracks=np.array([7]),
            verdicts=np.array([verdict], np.int8),
        )
        live.at(faces, row * 0.1)
    [zone] = live.figures(0.4)["zones"]
    assert zone["entries"] == {"all": 1, "female": 1, "male": 0, "unsure": 0}
    assert zone["dwell_seconds"]["female"] == 0.2


def test_live_memory_holds_no_tracks_of_long_ago() -> None:
    live = LiveZones(plan(HALL), 0.65, forget_seconds=2)
    for row in range(300):
        faces = Faces(
            boxes_at([(50, 50)]),
            np.ones(1, np.float32),
            np.full(1, 0.9, np.float32),
            tracks=np.array([row // 3]),
        )
        live.at(faces, row * 0.1)
    assert len(live._lives) < 12
    assert live.figures()["zones"][0]["appearances"]["all"] == 100


def test_a_stream_that_stands_still_does_not_add_to_the_time() -> None:
    live = LiveZones(plan(HALL), 0.65, longest_seconds=1.0)
    faces = Faces(
        boxes_at([(50, 50)]),
        np.ones(1, np.float32),
        np.full(1, 0.9, np.float32),
        tracks=np.array([1]),
    )
    for seconds in (0.0, 0.5, 30.5):
        live.at(faces, seconds)
    assert live.figures()["zones"][0]["dwell_seconds"]["all"] == 1.5


def test_faces_that_are_not_followed_count_by_frame() -> None:
    loose = LooseZones(plan(HALL, lines=["gate:100,0;100,100"]), 0.65)
    for row, xs in enumerate([(50, 60), (60, 150), (150, 160)]):
        faces = Faces(
            boxes_at([(x, 50) for x in xs]),
            np.ones(2, np.float32),
            np.array([0.9, 0.1], np.float32),
        )
        where = loose.at(faces, row / 10)
        assert where.crossed is None
        assert where.counts == [sum(x < 100 for x in xs)]
    figures = loose.figures()
    [zone], [line] = figures["zones"], figures["lines"]
    assert zone["dwell_seconds"] == pytest.approx(
        {"all": 0.3, "female": 0.2, "male": 0.1, "unsure": 0}
    )
    assert zone["peak"] == {"all": 2, "female": 1, "male": 1, "unsure": 0}
    assert (zone["entries"], zone["appearances"], line["in"]) == (None, None, None)
    assert math.isclose(loose.figures()["zones"][0]["dwell_seconds"]["all"], 0.3), "asked twice"
