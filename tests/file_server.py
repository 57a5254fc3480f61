"""A web server on loopback that hands out one file, as well or as badly as a test asks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


@dataclass
class Site:
    """What is served, how, and what was asked for.

    Attributes:
        content: the file.
        ranges: honour `Range`; otherwise send everything.
        etag: the validator, which `If-Range` must match.
        sends_length: announce the length of the body.
        breaks: for each request in turn, after how many bytes of the body the line goes dead.
        statuses: for each request in turn, a status to answer with instead of the file.
        shift: bytes by which a range starts too late.
        asked: the headers of each request.
    """

    content: bytes
    ranges: bool = True
    etag: str = '"one"'
    sends_length: bool = True
    breaks: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    shift: int = 0
    asked: list[dict[str, str]] = field(default_factory=list)
    address: str = ""

    @property
    def ranges_asked(self) -> list[str | None]:
        """The `Range` of each request."""
        return [headers.get("Range") for headers in self.asked]


@contextmanager
def serve(content: bytes, **how: object) -> Iterator[Site]:
    """Serve a file at any path; `Site.address` is the root, with a slash at its end."""
    site = Site(content, **how)  # type: ignore[arg-type]

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            site.asked.append(dict(self.headers))
            status = site.statuses.pop(0) if site.statuses else 0
            if status:
                self.send_error(status)
                return
            start, wanted = 0, re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            if site.ranges and wanted and self.headers.get("If-Range", site.etag) == site.etag:
                start = int(wanted[1]) + site.shift
                if start >= len(site.content):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(site.content)}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(206)
                last = len(site.content) - 1
                self.send_header("Content-Range", f"bytes {start}-{last}/{len(site.content)}")
            else:
                self.send_response(200)
            body = site.content[start:]
            if site.sends_length:
                self.send_header("Content-Length", str(len(body)))
            if site.etag:
                self.send_header("ETag", site.etag)
            self.end_headers()
            self.wfile.write(body[: site.breaks.pop(0)] if site.breaks else body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site.address = f"http://127.0.0.1:{server.server_address[1]}/"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
