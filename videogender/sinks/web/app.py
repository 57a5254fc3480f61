"""What is served: the page, its video, its numbers and its two controls, each under one name."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from videogender import __version__
from videogender.errors import VideogenderError
from videogender.live.stats import LiveControl
from videogender.sinks.rows import plain
from videogender.sinks.web.feed import Feed, Picture, Viewer
from videogender.sinks.web.history import History
from videogender.sinks.web.metrics import CONTENT_TYPE, metrics_text

__all__ = ["build"]

# Everything of the page, by its address. Nothing else is read from the disk.
_ASSETS = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/chart.js": ("chart.js", "text/javascript"),
    "/areas.js": ("areas.js", "text/javascript"),
    "/video.js": ("video.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_BOUNDARY = b"--frame\r\n"
_LARGEST_BODY_BYTES = 1024


def build(control: LiveControl, feed: Feed, history: History) -> Starlette:
    """Return the application: the page under `/`, and 404 for whatever is not listed here."""
    routes = [Route(path, _asset(*of)) for path, of in _ASSETS.items()]
    answers = _Answers(control, feed, history)
    routes += [
        Route("/video", answers.video),
        Route("/video/{source}", answers.video),
        Route("/api/stats", answers.stats),
        Route("/api/face_threshold", answers.face_threshold, methods=["POST"]),
        Route("/api/recording", answers.recording, methods=["POST"]),
        Route("/metrics", answers.metrics),
        Route("/healthz", answers.healthz),
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _explain})
    app.router.redirect_slashes = False
    return app


def _asset(name: str, media_type: str) -> Callable[[Request], Response]:
    content = files(__package__).joinpath(name).read_bytes()

    def answer(request: Request) -> Response:
        return Response(content, media_type=media_type)

    return answer


def _explain(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


class _Answers:
    """The routes that tell of a run or change it."""

    def __init__(self, control: LiveControl, feed: Feed, history: History) -> None:
        self._control = control
        self._feed = feed
        self._history = history

    async def video(self, request: Request) -> Response:
        """Stream one source, or all of them, each part saying whose it is."""
        sources = {str(i): i for i in range(len(self._control.names))}
        if (name := request.path_params.get("source")) is None:
            return _Stream(self._feed, sources.values())
        if name not in sources:
            raise HTTPException(404)
        return _Stream(self._feed, [sources[name]])

    async def stats(self, request: Request) -> Response:
        """Tell all numbers; `?since=SECONDS` adds the counts after that `uptime_s`."""
        control = self._control
        told: dict[str, Any] = {
            "version": __version__,
            "uptime_s": round(self._history.seconds, 3),
            "viewers": self._feed.viewers,
            "face_threshold": control.face_threshold,
            "most_threshold": control.most_threshold,
            "can_record": control.can_record,
            "recording": control.recording,
            "recording_trouble": control.recording_trouble,
            "sources": [plain(asdict(one)) for one in control.stats()],
        }
        if (since := request.query_params.get("since")) is not None:
            samples = self._history.since(_seconds(since))
            told["history"] = [[sample.seconds, *sample.counts] for sample in samples]
        return JSONResponse(told)

    async def metrics(self, request: Request) -> Response:
        """Tell the numbers to Prometheus."""
        text = metrics_text(self._control, self._feed.viewers, __version__)
        return Response(text, headers={"content-type": CONTENT_TYPE})

    async def healthz(self, request: Request) -> Response:
        """Tell whether every source runs and no recording failed, and if not, which and why."""
        troubles = [
            ": ".join(filter(None, (one.source, one.state, one.message)))
            for one in self._control.stats()
            if one.state != "running"
        ]
        if trouble := self._control.recording_trouble:
            troubles.append(f"recording stopped: {trouble}")
        if troubles:
            return PlainTextResponse("\n".join(troubles) + "\n", 503)
        return PlainTextResponse("ok\n")

    async def face_threshold(self, request: Request) -> Response:
        """Take `{"value": 0.5}`."""
        value = (await _body(request)).get("value")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise HTTPException(422, "value should be a number of 0 to 1")
        with _conflicts():
            await run_in_threadpool(self._control.set_face_threshold, float(value))
        return JSONResponse({"face_threshold": self._control.face_threshold})

    async def recording(self, request: Request) -> Response:
        """Take `{"value": true}` or `{"value": false}`."""
        value = (await _body(request)).get("value")
        if not isinstance(value, bool):
            raise HTTPException(422, "value should be true or false")
        control = self._control
        if not control.can_record:
            raise HTTPException(409, "no file was named to record to: start with --record FILE")
        with _conflicts():
            # It opens or completes a file, for which the other viewers should not wait.
            await run_in_threadpool(control.start_recording if value else control.stop_recording)
        return JSONResponse({"recording": control.recording})


@contextmanager
def _conflicts() -> Iterator[None]:
    """Answer 409 with what a run refuses."""
    try:
        yield
    except VideogenderError as error:
        raise HTTPException(409, str(error)) from error


async def _body(request: Request) -> dict[str, Any]:
    """Read a small JSON object."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise HTTPException(415, "the body should be application/json")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LARGEST_BODY_BYTES:
            raise HTTPException(413, "the body is too large")
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        raise HTTPException(400, "the body should be a JSON object")
    return told


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise HTTPException(422, "since should be a number of seconds")
    return value


class _Stream(Response):
    """Motion JPEG: parts that replace each other, as fast as this viewer reads them."""

    media_type = f"multipart/x-mixed-replace; boundary={_BOUNDARY[2:-2].decode()}"

    def __init__(self, feed: Feed, sources: Iterable[int]) -> None:
        super().__init__()
        del self.headers["content-length"]
        self._feed = feed
        self._sources = sources

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the viewer or the run ends."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body"})
            return
        with Viewer(self._feed, self._sources) as viewer:
            tasks = [
                asyncio.ensure_future(_send_pictures(viewer, send)),
                asyncio.ensure_future(_disconnected(receive)),
            ]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)


async def _send_pictures(viewer: Viewer, send: Send) -> None:
    await send({"type": "http.response.body", "body": _BOUNDARY, "more_body": True})
    while (picture := await viewer.next()) is not None:
        await send({"type": "http.response.body", "body": _part(picture), "more_body": True})
    await send({"type": "http.response.body"})


def _part(picture: Picture) -> bytes:
    captured_unix = time.time() - (time.monotonic() - picture.captured_seconds)
    head = (
        f"Content-Type: image/jpeg\r\nContent-Length: {len(picture.jpeg)}\r\n"
        f"X-Source: {picture.source}\r\nX-Timestamp: {captured_unix:.3f}\r\n\r\n"
    )
    # The boundary after it, not before the next: until it comes, viewers wait for more of this.
    return head.encode() + picture.jpeg + b"\r\n" + _BOUNDARY


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
