"""The server of the page, in a thread of its own."""

from __future__ import annotations

import asyncio
import ipaddress
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from videogender.errors import ConfigError, OutputError
from videogender.sinks.web.address import DEFAULT_HOST, bind, url_of

if TYPE_CHECKING:
    import numpy as np
    import uvicorn
    from numpy.typing import NDArray

    from videogender.frames import Faces
    from videogender.live.stats import LiveControl

__all__ = ["WebScreen"]

# Connections: enough for a room full of viewers; whoever comes after them is told 503.
_MOST_CONNECTIONS = 64
# Whoever connects and asks for nothing keeps a place from others for no longer than this.
_SILENT_SECONDS, _NAP_SECONDS = 4.5, 0.5
_START_SECONDS = 10.0
# How long viewers that do not read are waited for in the end; the others leave at once.
_PATIENCE_SECONDS = 0.5
_LAST_PATIENCE_SECONDS = 1  # for whatever else may still be at work; uvicorn takes whole seconds


class WebScreen:
    """A screen for any browser: live video, counts, controls, `/metrics` and `/healthz`.

    Serves from its construction to `close`, or to the end of its `with`.

    Args:
        control: the run that is shown and controlled.
        host: the address to listen at; everything but this machine's own needs a token.
        port: 0 takes one that is free.
        token: the secret that visitors must bring (`generate_token`).

    Raises:
        OutputError: the port is taken, or the host is not one of this machine.
        ConfigError: starlette or uvicorn is missing, or the token where it is needed.
    """

    def __init__(
        self,
        control: LiveControl,
        host: str = DEFAULT_HOST,
        port: int = 0,
        token: str | None = None,
    ) -> None:
        try:
            import uvicorn

            from videogender.sinks.web import app
            from videogender.sinks.web.guard import Guard
        except ImportError as error:
            missing = (error.name or "more").partition(".")[0]
            raise ConfigError(
                f"serving a page needs {missing}: pip install 'videogender[serve]'"
            ) from error
        from videogender.sinks.web.feed import Feed
        from videogender.sinks.web.history import History

        self._listener = bind(host, port)
        address, bound_port = self._listener.getsockname()[:2]
        loopback = ipaddress.ip_address(address).is_loopback
        if not loopback and not token:
            self._listener.close()
            raise ConfigError(f"serving at {host} lets others in, so it needs a token")
        self.url = url_of(host, bound_port, token)
        self._feed = Feed(len(control.names))
        self._history = History(control)
        self._server = uvicorn.Server(
            uvicorn.Config(
                Guard(
                    app.build(control, self._feed, self._history),
                    host=host,
                    loopback=loopback,
                    token=token,
                    cookie=f"videogender_{bound_port}",
                ),
                loop="asyncio",
                http="h11",
                ws="none",
                lifespan="off",
                # Addresses hold the token, so none of them is logged.
                log_config=None,
                log_level="critical",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=_MOST_CONNECTIONS,
                timeout_graceful_shutdown=_LAST_PATIENCE_SECONDS,
            )
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._up = threading.Event()
        self._thread = threading.Thread(target=self._run, name="videogender-web", daemon=True)
        self._thread.start()
        if not self._up.wait(_START_SECONDS) or not self._thread.is_alive():
            self.close()
            raise OutputError(f"the server of {host} did not start; --debug shows more")

    def show(
        self, source: int, rgb: NDArray[np.uint8], faces: Faces, captured_seconds: float
    ) -> None:
        """Hand a frame to whoever looks; returns at once.

        Args:
            source: position of the frame's source.
            rgb: HWC uint8 **RGB**, annotated; must not be written to afterwards.
            faces: what is drawn on it.
            captured_seconds: when it was captured, on the clock of `time.monotonic`.
        """
        self._feed.offer(source, rgb, captured_seconds)

    def wants(self, source: int) -> bool:
        """Tell whether anybody looks at a source."""
        return self._feed.wanted(source)

    def lacks(self, source: int) -> bool:
        """Tell whether somebody looks who has not been shown anything of a source."""
        return self._feed.lacks(source)

    def close(self) -> None:
        """End all streams and stop listening, within two seconds. May be called twice."""
        self._feed.close()
        self._server.should_exit = True
        self._thread.join(_PATIENCE_SECONDS)
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(_abort, self._server)
        self._thread.join()
        self._listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        finally:
            self._up.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._feed.start(self._loop)
        helpers = [
            asyncio.create_task(self._history.run()),
            asyncio.create_task(self._tell_when_up()),
            asyncio.create_task(_drop_silent(self._server)),
        ]
        try:
            await self._server.serve(sockets=[self._listener])
        finally:
            for task in helpers:
                task.cancel()
            _abort(self._server)
            await asyncio.sleep(0)  # lets the connections close

    async def _tell_when_up(self) -> None:
        while not self._server.started:
            await asyncio.sleep(0.005)
        self._up.set()


async def _drop_silent(server: uvicorn.Server) -> None:
    """Drop connections that have not brought a whole request for a while."""
    since: dict[tuple[Any, Any], float] = {}  # by connection and its last request
    while True:
        now = time.monotonic()
        connections: set[Any] = server.server_state.connections
        last = [(connection, connection.cycle) for connection in connections]
        silent = [each for each in last if each[1] is None or each[1].response_complete]
        since = {each: since.get(each, now) for each in silent}
        for (connection, _), began in since.items():
            if now - began >= _SILENT_SECONDS:
                connection.transport.abort()
        await asyncio.sleep(_NAP_SECONDS)


def _abort(server: uvicorn.Server) -> None:
    """Drop the connections of viewers who have not read what was sent to them."""
    for connection in list(server.server_state.connections):
        connection.transport.abort()
