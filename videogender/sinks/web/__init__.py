"""The web page of a live run: video, counts, controls and metrics for any browser."""

from __future__ import annotations

from videogender.sinks.web.address import generate_token, is_loopback, parse_serve
from videogender.sinks.web.server import WebScreen

__all__ = ["WebScreen", "generate_token", "is_loopback", "parse_serve"]
