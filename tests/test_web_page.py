"""What is served, to whom, and what is refused."""

from __future__ import annotations

import http.client
import json
import logging
import math
import re
import threading
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import NamedTuple

import pytest
from prometheus_client.parser import text_string_to_metric_families
from web_run import RUNNING, UNKNOWN, Run, ask, post, until

import videogender
from videogender.errors import OutputError
from videogender.sinks.web import WebScreen

pytestmark = pytest.mark.timed

TOKEN = "a-Token_of-some-length"
ROUTES = ("/", "/page.css", "/page.js", "/areas.js", "/chart.js", "/video.js", "/icon.svg")
NUMBERS = ("/api/stats", "/metrics", "/healthz")


class Site(NamedTuple):
    run: Run
    screen: WebScreen
    guarded: WebScreen


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """Serve one run twice, with and without a token, for all tests of this file."""
    run = Run(RUNNING, UNKNOWN)
    with WebScreen(run) as screen, WebScreen(run, token=TOKEN) as guarded:
        yield Site(run, screen, guarded)


@pytest.fixture
def run(site: Site) -> Run:
    """Return the run as it was in the beginning."""
    vars(site.run).update(vars(Run(RUNNING, UNKNOWN)))
    return site.run


@pytest.fixture
def screen(site: Site, run: Run) -> WebScreen:
    return site.screen


@pytest.fixture
def guarded(site: Site, run: Run) -> WebScreen:
    return site.guarded


def test_the_page_is_whole_and_asks_nobody_else(screen: WebScreen) -> None:
    page = ask(screen, "/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    wanted = {"/"}
    for path in ROUTES:
        answer = ask(screen, path)
        assert answer.status == 200
        text = answer.body.decode()
        assert not re.search(r"(?<!xmlns=\")\bhttps?://|url\(|@import", text), path
        if path == "/":
            assert not re.search(r"<style|<script(?![^>]*src=)| on\w+=| style=", text)
            wanted |= {"/" + name for name in re.findall(r'(?:src|href)="(\w+\.\w+)"', text)}
        if path.endswith(".js"):
            assert "innerHTML" not in text
            wanted |= {"/" + name for name in re.findall(r'from "\./([\w.]+)"', text)}
    assert wanted == set(ROUTES)


@pytest.mark.parametrize("path", [*ROUTES, *NUMBERS, "/nothing", "/api/recording"])
def test_every_answer_keeps_the_page_to_itself(screen: WebScreen, path: str) -> None:
    for answer in (ask(screen, path), ask(screen, path, host="evil.example")):
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; ")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in answer.headers
        assert "server" not in answer.headers


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/nothing",
            "/page.html",
            "/index.html",
            "/server.py",
            "/__init__.py",
            "/static/",
            "/api",
        ),
        *(
            "/../server.py",
            "/..%2fserver.py",
            "/%2e%2e/server.py",
            "/..\\server.py",
            "//etc/passwd",
        ),
        *("/page.css/", "/page.css/../server.py", "/video/", "/video/2", "/video/-1", "/video/00"),
        *("/video/1.0", "/video/" + "9" * 5000, "/api/stats/", "/icon.svg%00.html", "/./"),
    ],
)
def test_nothing_else_is_there(screen: WebScreen, path: str) -> None:
    answer = ask(screen, path)
    assert (answer.status, json.loads(answer.body)) == (404, {"error": "Not Found"})


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/"), ("PUT", "/api/stats"), ("DELETE", "/video/0"), ("GET", "/api/recording")],
)
def test_other_methods_are_refused(screen: WebScreen, method: str, path: str) -> None:
    origin = screen.url.rstrip("/")
    assert ask(screen, path, method, origin=origin).status == 405


def test_head_of_a_stream_ends(screen: WebScreen) -> None:
    parts = urllib.parse.urlsplit(screen.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=5)
    for method, path in (("HEAD", "/video/0"), ("GET", "/page.css")):
        connection.request(method, path)
        response = connection.getresponse()
        assert response.status == 200
        assert bool(response.read()) == (method == "GET")
    connection.close()


def test_stats_tell_everything_and_unknown_is_null(screen: WebScreen, run: Run) -> None:
    run.recording = True
    told = json.loads(ask(screen, "/api/stats").body)
    assert told["sources"][0] == asdict(RUNNING)
    unknown = {"latency_ms_p50": None, "latency_ms_p95": None}
    assert told["sources"][1] == asdict(UNKNOWN) | unknown
    assert (told["face_threshold"], told["recording"], told["can_record"]) == (0.5, True, True)
    assert told["version"] == videogender.__version__
    assert "history" not in told


@pytest.fixture
def fresh(run: Run) -> Iterator[WebScreen]:
    with WebScreen(run) as screen:
        yield screen


def test_history_is_kept_and_asked_for_by_its_time(fresh: WebScreen, run: Run) -> None:
    def history(since: str) -> list[list[object]]:
        found: list[list[object]] = json.loads(ask(fresh, f"/api/stats?since={since}").body)[
            "history"
        ]
        return found

    until(lambda: len(history("-1")) == 1)
    [first] = history("-1")
    assert first[1:] == [[3, 2, 1], [0, 0, 0]]
    run.now[0] = replace(RUNNING, female=0, male=9)
    until(lambda: history(str(first[0])))
    [second] = history(str(first[0]))
    assert second[1:] == [[0, 9, 1], [0, 0, 0]]
    assert float(str(second[0])) - float(str(first[0])) == pytest.approx(1, abs=0.4)
    assert history("-1") == [first, second]
    for wrong in ("x", "nan", ""):
        assert ask(fresh, f"/api/stats?since={wrong}").status == 422


def test_health_is_told_with_its_reason(screen: WebScreen, run: Run) -> None:
    sick = ask(screen, "/healthz")
    said = b"rtsp://door.example/a: starting: waiting for a picture\n"
    assert (sick.status, sick.body) == (503, said)
    run.now = [RUNNING, replace(UNKNOWN, state="running")]
    well = ask(screen, "/healthz")
    assert (well.status, well.body) == (200, b"ok\n")
    run.now = [replace(RUNNING, state="failed", message="")] * 2
    assert ask(screen, "/healthz").body == b"camera 0: failed\n" * 2


def test_a_recording_that_died_is_no_health(screen: WebScreen, run: Run) -> None:
    run.now = [RUNNING]
    run.recording_trouble = "day.mkv: the disk is full"
    sick = ask(screen, "/healthz")
    assert (sick.status, sick.body) == (503, b"recording stopped: day.mkv: the disk is full\n")
    told = json.loads(ask(screen, "/api/stats").body)
    assert told["recording_trouble"] == run.recording_trouble


def test_metrics_are_what_prometheus_reads(run: Run) -> None:
    odd = 'a "quoted" \\ name\nof two lines, ünïcode={}'
    run.now = [RUNNING, replace(UNKNOWN, source=odd), RUNNING]  # one name may stand twice
    run.face_threshold = 0.35
    with WebScreen(run) as screen:
        answer = ask(screen, "/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = list(text_string_to_metric_families(answer.body.decode()))
    assert all(family.documentation for family in families)
    samples = [sample for family in families for sample in family.samples]
    keys = [(sample.name, frozenset(sample.labels.items())) for sample in samples]
    assert len(set(keys)) == len(keys)
    assert {sample.labels["source"] for sample in samples if "source" in sample.labels} == {
        *("camera 0", odd)
    }

    def value(name: str, **labels: str) -> float:
        [found] = [
            sample.value
            for sample in samples
            if sample.name == f"videogender_{name}" and labels.items() <= sample.labels.items()
        ]
        return float(found)

    assert value("info", version=videogender.__version__) == 1
    assert value("input_frames_per_second", index="0") == 29.97
    assert value("output_frames_per_second", index="2") == 14.5
    assert value("latency_p50_seconds", index="0") == 0.04625
    assert value("latency_p95_seconds", index="0") == 0.0715
    assert math.isnan(value("latency_p50_seconds", index="1"))
    assert value("frames_total", index="0") == 3456
    assert value("dropped_frames_total", index="0") == 12
    assert value("reconnects_total", index="0") == 4
    assert [value("faces", index="0", label=n) for n in ("female", "male", "unsure")] == [3, 2, 1]
    assert value("source_state", index="0", state="running") == 1
    assert value("source_state", index="1", state="running") == 0
    assert value("source_state", index="1", state="starting") == 1
    assert value("face_threshold") == 0.35
    assert (value("recording"), value("web_viewers")) == (0, 0)
    counters = {family.name for family in families if family.type == "counter"}
    assert counters == {
        f"videogender_{name}" for name in ("frames", "dropped_frames", "reconnects")
    }


def test_metrics_of_zones_are_counters_that_never_fall(run: Run) -> None:
    def zone(name: str, **counts: int) -> dict[str, object]:
        split = {"all": sum(counts.values()), **counts}
        keys = ("appearances", "entries", "exits", "dwell_seconds", "now")
        return {"name": name, **dict.fromkeys(keys, split)}

    told = {"zones": [zone("a", female=5, male=0)], "lines": []}
    events = {
        "zones": [zone("a", female=3, male=2)],
        "lines": [{"name": 'to "x"', "in": {"all": 1, "female": 1}, "out": {"all": 2, "male": 2}}],
    }
    run.now = [RUNNING, replace(RUNNING, zones=told, zone_events=events)]
    with WebScreen(run) as screen:
        text = ask(screen, "/metrics").body.decode()
        assert json.loads(ask(screen, "/api/stats").body)["sources"][1]["zones"] == told
    samples = {
        (sample.name, sample.labels.get("label"), sample.labels.get("way")): sample
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "_zone_" in sample.name or "_line_" in sample.name
    }
    assert {sample.labels["index"] for sample in samples.values()} == {"1"}
    assert samples["videogender_zone_faces", "female", None].value == 5
    for name in ("appearances", "entries", "exits", "dwell_seconds"):
        assert samples[f"videogender_zone_{name}_total", "female", None].value == 3
        assert samples[f"videogender_zone_{name}_total", "male", None].value == 2
    crossed = samples["videogender_line_crossings_total", "male", "out"]
    assert (crossed.value, crossed.labels["line"]) == (2, 'to "x"')
    assert len(samples) == 5 * 2 + 2  # no sum stands beside its parts


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "localhost:9999", "[::1]:80"])
def test_names_of_this_machine_are_answered(screen: WebScreen, host: str) -> None:
    assert ask(screen, "/api/stats", host=host).status == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example"),
        *("evil.example@localhost", "localhost evil", "[::1", "localhost:1:2", "10.0.0.1"),
    ],
)
def test_a_name_that_was_pointed_here_is_not(screen: WebScreen, host: str) -> None:
    for path in ("/", "/api/stats", "/video/0", "/metrics"):
        assert ask(screen, path, host=host).status == 421
    body = b'{"value": 0.9}'
    assert (
        post(screen, "/api/face_threshold", body, host=host, origin=f"http://{host}").status == 421
    )


@pytest.mark.parametrize("path", [*ROUTES, *NUMBERS, "/video", "/video/0", "/nothing"])
def test_without_the_token_there_is_nothing(guarded: WebScreen, path: str) -> None:
    for more in ("", "?token=", f"?token={TOKEN[:-1]}", f"?token={TOKEN}x", "?token=%ff%00"):
        answer = ask(guarded, path + more)
        assert answer.status == 401
        assert "set-cookie" not in answer.headers
    assert ask(guarded, path, cookie=f"token={TOKEN}").status == 401
    assert ask(guarded, path, authorization=f"Basic {TOKEN}").status == 401
    assert ask(guarded, path, authorization="Bearer é").status == 401


def test_the_first_visit_leaves_a_cookie_that_opens_the_rest(guarded: WebScreen, run: Run) -> None:
    assert guarded.url.endswith(f"/?token={TOKEN}")
    first = ask(guarded, f"/?token={TOKEN}")
    assert first.status == 200
    cookie, *attributes = first.headers["set-cookie"].split("; ")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(attributes)
    assert re.fullmatch(rf"videogender_\d+={TOKEN}", cookie)  # two runs on one machine differ
    for path in (*ROUTES, *NUMBERS[:2]):
        answer = ask(guarded, path, cookie=f"other=1; {cookie}")
        assert answer.status == 200
        assert TOKEN not in str(answer.headers) + answer.body.decode()
    changed = post(guarded, "/api/face_threshold", b'{"value": 0.25}', cookie=cookie)
    assert (changed.status, run.face_threshold) == (200, 0.25)


@pytest.mark.parametrize("token", ["two words;x", "a,b", "grüße", "€", 'a"b', "x\r\ny: z", "a%20b"])
def test_any_token_opens_the_page(run: Run, token: str) -> None:
    with WebScreen(run, token=token) as screen:
        first = ask(screen, f"/?{urllib.parse.urlsplit(screen.url).query}")
        assert first.status == 200
        assert "y" not in first.headers
        cookie = first.headers["set-cookie"].partition(";")[0]
        assert ask(screen, "/page.js", cookie=cookie).status == 200
        assert ask(screen, "/page.js", cookie=f"{cookie}x").status == 401


def test_programs_bring_the_token_in_a_header(guarded: WebScreen) -> None:
    assert ask(guarded, "/metrics", authorization=f"Bearer {TOKEN}").status == 200


def test_the_token_is_never_logged(
    run: Run, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    with WebScreen(run, token=TOKEN) as screen:
        for path in ("/", "/nothing", "/video/x"):
            ask(screen, f"{path}?token={TOKEN}")
    out, err = capfd.readouterr()
    assert TOKEN not in out + err + caplog.text


def test_threshold_is_changed(screen: WebScreen, run: Run) -> None:
    answer = post(screen, "/api/face_threshold", b'{"value": 0.7}')
    assert (answer.status, json.loads(answer.body)) == (200, {"face_threshold": 0.7})
    assert run.face_threshold == 0.7
    assert post(screen, "/api/face_threshold", b'{"value": 1}').status == 200


def test_a_threshold_that_would_show_faces_is_refused(screen: WebScreen, run: Run) -> None:
    run.most_threshold = 0.6
    assert json.loads(ask(screen, "/api/stats").body)["most_threshold"] == 0.6
    answer = post(screen, "/api/face_threshold", b'{"value": 0.7}')
    assert (answer.status, json.loads(answer.body)) == (409, {"error": "faces would be seen"})
    assert run.face_threshold == 0.5


def test_recording_starts_and_stops(screen: WebScreen, run: Run) -> None:
    for value, text in ((True, b"true"), (True, b"true"), (False, b"false")):
        answer = post(screen, "/api/recording", b'{"value": %s}' % text)
        assert (answer.status, json.loads(answer.body)) == (200, {"recording": value})
        assert run.recording is value


def test_recording_that_cannot_be_says_why(screen: WebScreen, run: Run) -> None:
    run.trouble = OutputError("out.mkv: the disk is full; make room or name another place")
    answer = post(screen, "/api/recording", b'{"value": true}')
    assert (answer.status, json.loads(answer.body)) == (409, {"error": str(run.trouble)})
    run.can_record = False
    answer = post(screen, "/api/recording", b'{"value": true}')
    assert answer.status == 409
    assert b"--record FILE" in answer.body


@pytest.mark.parametrize(
    ("body", "status"),
    [
        *[(b'{"value": %s}' % v, 422) for v in (b"1.01", b"-0.1", b'"0.5"', b"true", b"null")],
        *[(b'{"value": %s}' % v, 422) for v in (b"NaN", b"Infinity", b"[0.5]", b"1e999")],
        *[(b, 400) for b in (b"", b"0.5", b"[]", b"{", b"\xff", b"[" * 1000)],
        (b"{}", 422),
        (b'{"value": 0.5, "pad": "%s"}' % (b"x" * 2000), 413),
    ],
)
def test_a_change_that_makes_no_sense_is_refused(
    screen: WebScreen, run: Run, body: bytes, status: int
) -> None:
    run.face_threshold = 0.123
    answer = post(screen, "/api/face_threshold", body)
    assert answer.status == status
    assert json.loads(answer.body)["error"]
    assert run.face_threshold == 0.123


def test_changes_come_from_the_page_alone(screen: WebScreen, run: Run) -> None:
    body = b'{"value": true}'
    own = screen.url.rstrip("/")
    for origin in ("", "null", "http://evil.example", own + "1", own + ".evil.example", "file://"):
        assert post(screen, "/api/recording", body, origin=origin).status == 403
    assert post(screen, "/api/recording", body, content_type="text/plain").status == 415
    assert not run.recording
    # A proxy that adds TLS keeps host and port.
    assert post(screen, "/api/recording", body, origin=own.replace("http", "https")).status == 200


def test_a_slow_change_does_not_hold_up_the_page(
    screen: WebScreen, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go = threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        assert go.wait(10)

    monkeypatch.setattr(run, "start_recording", slow)
    asking = threading.Thread(target=post, args=(screen, "/api/recording", b'{"value": true}'))
    asking.start()
    assert begun.wait(5)
    before = time.monotonic()
    assert ask(screen, "/api/stats").status == 200
    assert time.monotonic() - before < 2
    go.set()
    asking.join()
