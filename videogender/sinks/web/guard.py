"""Who may ask: refuses strange hosts, missing tokens and requests that other pages make.

Every answer, a refusal too, carries headers that keep the page to itself: it loads nothing from
elsewhere, nobody may frame it, and no other page may embed its pictures.
"""

from __future__ import annotations

import hmac
import re
from urllib.parse import quote, unquote

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Guard"]

_POLICY = "; ".join(
    (
        "default-src 'none'",
        *(f"{kind}-src 'self'" for kind in ("script", "style", "img", "connect")),
        *(f"{what} 'none'" for what in ("base-uri", "form-action", "frame-ancestors")),
        "require-trusted-types-for 'script'",
    )
)
_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    # The first address holds the token; it must not become another site's referrer.
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
_LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::[0-9]+)?")


class Guard:
    """Wraps an application; what passes is asked by whoever may ask.

    Args:
        app: what is protected.
        host: the address that is listened at.
        loopback: it is of this machine alone. A page elsewhere can then still point a name of its
            own at it (DNS rebinding), so that only this machine's own names are served.
        token: what a request must bring: in its address (`?token=`), in the cookie that the first
            visit leaves, or as `Authorization: Bearer`. None asks for nothing.
        cookie: name of the cookie; cookies do not tell ports apart, so it should.
    """

    def __init__(
        self, app: ASGIApp, *, host: str, loopback: bool, token: str | None, cookie: str
    ) -> None:
        self._app = app
        own = f"[{host}]" if ":" in host else host
        self._hosts = _LOOPBACK_HOSTS | {own.lower()} if loopback else None
        self._token = token
        self._cookie = cookie
        left = quote(token or "", safe="")
        self._leaves = f"{cookie}={left}; Path=/; HttpOnly; SameSite=Strict"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] != "http":
            return  # there are no web sockets here
        request = Request(scope)
        refusal = self._refusal(request)
        visit = refusal is None and self._matches(request.query_params.get("token"))

        async def decorated(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                if visit:
                    headers.append("set-cookie", self._leaves)
            await send(message)

        await (refusal or self._app)(scope, receive, decorated)

    def _refusal(self, request: Request) -> Response | None:
        host = request.headers.get("host", "")
        if self._hosts is not None and _name(host) not in self._hosts:
            return _refuse(421, "This page answers to localhost alone.")
        if self._token is not None and not self._knows(request):
            said = "Open the address that videogender printed: it carries the token."
            return _refuse(401, said, {"www-authenticate": "Bearer"})
        if request.method not in _SAFE_METHODS and not _same_origin(request, host):
            return _refuse(403, "Changes are taken from this page alone (Origin must match Host).")
        return None

    def _knows(self, request: Request) -> bool:
        cookie = request.cookies.get(self._cookie)
        kind, _, credentials = request.headers.get("authorization", "").partition(" ")
        return (
            self._matches(cookie and unquote(cookie))
            or self._matches(request.query_params.get("token"))
            or (kind.lower() == "bearer" and self._matches(credentials.strip()))
        )

    def _matches(self, given: str | None) -> bool:
        if self._token is None or given is None:
            return False
        # Takes as long for a nearly right token as for a wrong one.
        return hmac.compare_digest(given.encode(errors="replace"), self._token.encode())


def _name(host: str) -> str:
    """Return the name in a Host header, without its port; empty if it is none."""
    found = _HOST.fullmatch(host)
    return found[1].lower() if found else ""


def _same_origin(request: Request, host: str) -> bool:
    # Behind a proxy that speaks TLS the scheme is not ours; host and port tell enough.
    origin = request.headers.get("origin", "").lower()
    return bool(host) and origin in (f"http://{host.lower()}", f"https://{host.lower()}")


def _refuse(status: int, said: str, headers: dict[str, str] | None = None) -> Response:
    return PlainTextResponse(f"{said}\n", status, headers)
