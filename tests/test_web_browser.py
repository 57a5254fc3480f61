"""The page in a real browser; needs `pip install playwright` and Chromium, else it is skipped."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from web_run import RUNNING, UNKNOWN, Run, grey, show, until

from videogender.sinks.web import WebScreen

playwright = pytest.importorskip("playwright.sync_api")

NONE = "\N{EN DASH}"

pytestmark = pytest.mark.slow  # a browser takes seconds to start


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    own = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    with playwright.sync_playwright() as started:
        try:
            opened = started.chromium.launch(executable_path=own, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"no Chromium: {error.message.splitlines()[0]}")
        yield opened
        opened.close()


class Visit:
    """A page that is open, with everything it complained about and asked for."""

    def __init__(self, browser: Any, url: str, **context: Any) -> None:
        self.page = browser.new_context(**context).new_page()
        self.page.set_default_timeout(10_000)
        self.complaints: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(url)

    def text(self, selector: str) -> str:
        return str(self.page.locator(selector).first.inner_text())

    def colour(self, tile: int) -> list[int]:
        """Return the red, green and blue of the middle of a tile's video."""
        found: list[int] = self.page.evaluate(
            """(tile) => {
                const video = document.querySelectorAll(".view canvas")[tile];
                const pen = new OffscreenCanvas(1, 1).getContext("2d");
                pen.drawImage(video, -video.width / 2, -video.height / 2);
                return Array.from(pen.getImageData(0, 0, 1, 1).data.slice(0, 3));
            }""",
            tile,
        )
        return found


@pytest.fixture
def playing() -> Iterator[tuple[Run, WebScreen]]:
    """Serve seven sources, more than a browser opens connections for; one still starts."""
    run = Run(*[replace(RUNNING, source=f"camera {i}") for i in range(6)], UNKNOWN)
    stop = threading.Event()
    with WebScreen(run, token="a-secret") as screen:

        def play() -> None:
            while not stop.wait(0.05):
                for source in range(6):
                    if screen.wants(source):
                        show(screen, grey(40 + 30 * source), source)

        playing = threading.Thread(target=play)
        playing.start()
        yield run, screen
        stop.set()
        playing.join()


@pytest.mark.parametrize(
    "context",
    [
        {"viewport": {"width": 1440, "height": 900}, "color_scheme": "light"},
        {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark", "has_touch": True},
    ],
    ids=["desktop", "phone"],
)
def test_the_page_lives(browser: Any, playing: tuple[Run, WebScreen], context: Any) -> None:
    run, screen = playing
    visit = Visit(browser, screen.url, **context)
    page = visit.page
    page.wait_for_selector(".tile")
    home = screen.url.partition("?")[0]
    assert page.url == home  # the token is gone from where others could read it

    def seen(source: int, expected: list[int]) -> bool:
        return visit.colour(source) == pytest.approx(expected, abs=3)

    # Seven tiles, each with its own picture, and the one without says why.
    assert page.locator(".tile").count() == 7
    for source in range(6):
        expected = [40 + 30 * source] * 3
        until(partial(seen, source, expected), 10)
    assert not page.locator(".cover").first.is_visible()
    assert page.locator(".cover").last.inner_text() == "waiting for a picture"

    # Numbers, and how they change.
    assert visit.text("h2") == "camera 0"
    assert visit.text(".badge") == "running"
    assert [visit.text(f'[data-label="{n}"] dd') for n in ("female", "male", "unsure")] == [
        *("3", "2", "1")
    ]
    assert visit.text('[data-of="latency"]') == "46 · 72 ms"
    assert visit.page.locator('[data-of="latency"]').last.inner_text() == f"{NONE} · {NONE} ms"
    assert "36 faces in view: 18 female, 12 male, 6 unsure" in visit.text("#summary")
    run.now[0] = replace(RUNNING, state="reconnecting", message="the stream was lost", female=8)
    until(lambda: page.wait_for_timeout(50) or visit.text(".counts dd") == "8")
    assert visit.text(".badge") == "reconnecting"
    assert visit.text(".cover") == "the stream was lost"

    # Zones and lines, by label; a tile without any has no table.
    assert page.locator(".areas:visible").count() == 0
    split = {"all": 3, "female": 2, "male": 1, "unsure": 0}
    times = {"all": 75.2, "female": 71.2, "male": 4.0, "unsure": 0.0}
    zone = {"name": "<b>door", "now": split, "appearances": split, "entries": split, "exits": None}
    told = {
        "zones": [{**zone, "dwell_seconds": times}],
        "lines": [{"name": "gate", "in": split, "out": split}],
    }
    run.now[1] = replace(RUNNING, source="camera 1", zones=told)
    page.wait_for_selector(".areas:visible")
    rows = [row.split() for row in page.locator(".areas:visible tr").all_inner_texts()]
    assert rows[0] == ["<b>door", "inside", "ever", "came", "in", "went", "out", "time"]
    assert rows[1] == ["all", "3", "3", "3", NONE, "1:15", "min"]
    assert rows[3] == ["male", "1", "1", "1", NONE, "4.0", "s"]
    assert rows[5] == ["gate", "in", "out"]
    assert rows[7] == ["female", "2", "2"]
    assert len(rows) == 10

    # A recording that died is told, and the threshold keeps to its limit.
    run.recording_trouble, run.most_threshold = "day.mkv: the disk is full", 0.8
    until(lambda: page.wait_for_timeout(50) or "the disk is full" in visit.text("#summary"))
    assert page.locator("#threshold input").get_attribute("max") == "0.8"

    # Controls.
    page.locator("#threshold input").fill("0.8")
    until(lambda: page.wait_for_timeout(50) or run.face_threshold == 0.8)
    page.locator("#record").click()
    page.wait_for_selector("#record.on")
    assert run.recording
    page.locator("#record").click()
    page.wait_for_selector("#record:not(.on)")
    until(lambda: not run.recording)

    assert not page.evaluate("document.documentElement.scrollWidth > innerWidth")
    assert visit.complaints == []
    assert all(url.startswith(home) for url in visit.asked)

    # The end is told.
    screen.close()
    page.wait_for_selector("#notice:visible")
    assert "does not answer" in visit.text("#notice")
    page.context.close()


def test_the_page_comes_back_with_its_server(browser: Any) -> None:
    run = Run()
    with WebScreen(run) as first:
        visit = Visit(browser, first.url)
        visit.page.wait_for_selector(".tile")
        port = int(first.url.rstrip("/").rpartition(":")[2])
    visit.page.wait_for_selector("#notice:visible")
    with WebScreen(run, port=port) as second:
        until(lambda: visit.page.wait_for_timeout(50) or second.wants(0), 10)
        visit.page.wait_for_selector("#notice", state="hidden")
        show(second, grey(180))
        until(lambda: visit.colour(0) == pytest.approx([180] * 3, abs=3), 10)
    visit.page.context.close()
