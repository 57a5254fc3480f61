"""Where the page is served: the flag's text, the socket, the printed address and its token."""

from __future__ import annotations

import errno
import ipaddress
import re
import secrets
import socket
import sys
import urllib.parse
from contextlib import suppress

from videogender.errors import ConfigError, OutputError

__all__ = ["DEFAULT_HOST", "bind", "generate_token", "is_loopback", "parse_serve", "url_of"]

# An address, not a name: `localhost` could lead a browser to ::1, where somebody else may listen.
DEFAULT_HOST = "127.0.0.1"

_SERVE = re.compile(r"(?:(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):)?(?P<port>[0-9]{1,5})")
_TOKEN_BYTES = 24

# What the kernel keeps of a picture for a viewer that is slow to read. Everything in there is
# older than what is on the desk, so it should be little; it still fills 20 MB/s at 10 ms.
_SEND_BUFFER_BYTES = 256 * 1024

# A documentation address (RFC 5737): asking for the way there tells which of ours faces the
# network, and sends nothing.
_ELSEWHERE = ("192.0.2.1", 9)


def parse_serve(text: str) -> tuple[str, int]:
    """Read `[HOST:]PORT`; without a host it is this machine alone.

    Args:
        text: such as `8080`, `0.0.0.0:8080` or `[::1]:8080`; port 0 takes any that is free.

    Raises:
        ConfigError: the text is of no such form.
    """
    found = _SERVE.fullmatch(text.strip())
    if found is None or int(found["port"]) > 65535:
        raise ConfigError(
            "--serve should be [HOST:]PORT such as 8080, 0.0.0.0:8080 or [::1]:8080, with a port "
            f"of 0 to 65535; got {text!r}"
        )
    return (found["host"] or DEFAULT_HOST).strip("[]"), int(found["port"])


def generate_token() -> str:
    """Return a new secret for an address that others can reach."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


def is_loopback(host: str) -> bool:
    """Tell whether a host, by name or by address, can be reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def bind(host: str, port: int) -> socket.socket:
    """Open the socket that listens.

    Raises:
        OutputError: the port is taken, or the host is not one of this machine.
    """
    shown = f"cannot serve at {_authority(host, port)}"
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"{shown}: no such host ({reason}); name one of this machine") from error
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        if sys.platform == "win32":  # where reuse would share the port with another program
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise OutputError(f"{shown}: {_reason(error)}") from error
    return listener


def _reason(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "the port is taken; choose another, or 0 for one that is free"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address; 0.0.0.0 listens at all it has"
    if error.errno == errno.EACCES:
        return "not permitted; choose a port of 1024 or above"
    return error.strerror or str(error)


def url_of(host: str, port: int, token: str | None) -> str:
    """Return the address to open, with the token if there is one."""
    with suppress(ValueError):
        if ipaddress.ip_address(host).is_unspecified:
            host = _own_address()
    query = f"?token={urllib.parse.quote(token, safe='')}" if token else ""
    return f"http://{_authority(host, port)}/{query}"


def _own_address() -> str:
    """Return this machine's address in its network, or its name where it has none."""
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(_ELSEWHERE)
        return str(probe.getsockname()[0])
    return socket.gethostname()


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
