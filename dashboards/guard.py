"""What every request must satisfy before a page sees it, and the headers of every answer.

A page is reached by the browser of a person, who at the same time has other pages open: a foreign page may open a
websocket to us (browsers do not keep it from that, the Origin header is for us to check), and may have its own name
resolve to our address (DNS rebinding; then the Host header gives it away).
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from isotherm.logs import Throttle

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

log = logging.getLogger(__name__)

# Bokeh compiles the small functions that format ticks, and Panel loads our components as blobs.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob: data:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = [
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
]


class Guard:
    """Wraps the ASGI app."""

    def __init__(self, app: App, *, host: str) -> None:
        self._app = app
        self._local_only = is_loopback(host)
        self._throttle = Throttle()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, _with_headers(send, cached=_is_versioned(scope)))
            return
        if (held := self._throttle(refusal)) is not None:
            log.warning("refused a request for %s: %s (%d more since the last line)", scope["path"], refusal, held)
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": refusal})
        else:
            await _answer(_with_headers(send), 403, refusal)

    def _refusal(self, scope: Scope) -> str | None:
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if self._local_only and not is_loopback(_name(host)):
            return "this address serves this machine only; open it as localhost or 127.0.0.1"
        if scope["type"] == "websocket":
            origin = headers.get(b"origin", b"").decode("latin-1").lower()
            if urlsplit(origin).netloc != host or not host:
                return "a websocket must be opened by a page of this server"
        if b"bokeh-session-id" in headers or b"bokeh-session-id=" in scope["query_string"].replace(b"_", b"-"):
            return "sessions are named by the server"
        return None


def is_loopback(name: str) -> bool:
    """Tell whether a host name or address means this machine.

    >>> is_loopback("localhost"), is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("example.org")
    (True, True, True, False)
    """
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _name(host: str) -> str:
    """Return a Host header without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_versioned(scope: Scope) -> bool:
    """Tell whether the address changes with the content: Bokeh's and Panel's own files, at their version or hash."""
    return bool(scope["path"].startswith("/static/")) and b"v=" in scope["query_string"]


def _with_headers(send: Send, *, cached: bool = False) -> Send:
    cache = (b"cache-control", b"public, max-age=31536000, immutable" if cached else b"no-cache")

    async def send_with_headers(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *_HEADERS, cache]}
        await send(message)

    return send_with_headers


async def _answer(send: Send, status: int, text: str) -> None:
    body = text.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
