"""Addresses of streams: which are taken, how they are opened, and what may be shown of them."""

from __future__ import annotations

import re

from videogender.errors import ConfigError

__all__ = ["SCHEMES", "options_for", "redacted", "scheme_of"]

SCHEMES = ("http", "https", "rtmp", "rtmps", "rtp", "rtsp", "rtsps", "srt", "tcp", "udp")

# What a playlist or a description may lead to: other servers, never files of this machine.
_MAY_LEAD_TO = (
    "http,https,tls,tcp,udp,rtp,rtsp,rtsps,rtmp,rtmps,rtmpt,srt,hls,crypto,data,httpproxy"
)
# A user or password in the path, which cameras separate by & or _ from what follows: so a value
# may hold a _ itself, where no further name stands behind it.
_SECRET = re.compile(
    r"(?P<name>user(?:name)?|usr|login|pass(?:w(?:or)?d|phrase)?|pwd|token)="
    r"(?:(?!_[a-z][a-z\d]*=)[^&/;?#])*",
    re.IGNORECASE,
)

# Enough to recognise a stream, but not the seconds that libav would otherwise collect.
_ANALYSE_MICROSECONDS = "1500000"


def scheme_of(address: str) -> str:
    """Return the lower-case scheme of a stream's address.

    Raises:
        ConfigError: it is none that can be opened here; the message shows no credentials.
    """
    scheme, separator, rest = address.strip().partition("://")
    scheme = scheme.lower()
    if not separator or not rest:
        raise ConfigError("--url should be an address such as rtsp://host/path")
    if scheme not in SCHEMES:
        shown = scheme if scheme.isalnum() else "this kind of address"
        raise ConfigError(f"--url does not take {shown}; it takes {', '.join(SCHEMES)}")
    return scheme


def redacted(address: str) -> str:
    """Return an address without what may be secret: user, password, query and fragment.

    Passwords hold any mark, escaped or not, so whatever stands before the last @ goes. Of a user
    and password that are written into the path the names stay, and all that follows them.
    """
    scheme, _, whole = address.strip().partition("://")
    before, at, rest = whole.rpartition("@")
    if at and any(mark in before for mark in "/?#"):
        # The @ may be one of the path's, and the host gone with the rest.
        begun = [found.end() for found in _SECRET.finditer(whole) if found.start() < len(before)]
        rest = f"...{whole[max([len(before) + 1, *begun]) :]}"
    cut = min((rest.find(mark) for mark in "?#" if mark in rest), default=len(rest))
    return f"{scheme}://{_SECRET.sub(_hidden, rest[:cut])}{'?...' if rest[cut:] else ''}"


def _hidden(found: re.Match[str]) -> str:
    return f"{found['name']}=..."


def options_for(scheme: str, timeout_seconds: float) -> dict[str, str]:
    """Return libav's options for a stream: no buffers that add latency, and time-outs."""
    micros = str(max(1, round(timeout_seconds * 1e6)))
    options = {
        # What is read to recognise a stream is old by then; of a whole file it is the beginning.
        "fflags": "discardcorrupt" if scheme.startswith("http") else "nobuffer+discardcorrupt",
        "analyzeduration": _ANALYSE_MICROSECONDS,
        "protocol_whitelist": _MAY_LEAD_TO,
    }
    if scheme.startswith("rtsp"):
        options |= {"rtsp_transport": "tcp", "timeout": micros, "max_delay": "0"}
    elif scheme == "udp":
        options |= {"timeout": micros, "overrun_nonfatal": "1", "fifo_size": "28672"}
    elif scheme.startswith("rtmp"):
        options |= {"rtmp_live": "live", "rw_timeout": micros}
    else:
        options |= {"rw_timeout": micros}
    return options
