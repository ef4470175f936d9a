"""What every request must satisfy before a page sees it, and the headers of every answer.

The order is: an address that means what it says, a host and an origin that are ours (`access.origin`), a session that goes
on and a role that suffices (`access.rules`), and for a websocket a page that was made for the same session. Nothing behind
the guard asks again, but what changes something asks for the role that this needs (`Visitor.may`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from dashboards.access import cookies, identity, notices, rules
from dashboards.access.origin import Origins
from dashboards.access.sockets import CODE, Socket, Sockets
from dashboards.api import problems
from dashboards.api.rate import Rate, SharedRate
from dashboards.prometheus import problems as prometheus
from isotherm.accounts.accounts import Accounts
from isotherm.accounts.role import Role
from isotherm.accounts.sessions import Holder, hash_of
from isotherm.errors import Unavailable
from isotherm.logs import Throttle
from isotherm.settings import Settings

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
# What one user was shown must not come back from the browser's memory when they have logged out.
_KEPT, _CHECKED, _FORGOTTEN = b"public, max-age=31536000, immutable", b"no-cache", b"no-store"
_SAFE = {"GET", "HEAD"}
_ANY_HOST = {"/healthz", "/readyz"}
"""Asked by supervisors, under whatever address they know."""


class Refusal(Exception):
    """A request that is not let through.

    Attributes:
        status: Of the answer.
        text: What the person reads.
        headers: Of the answer.
    """

    def __init__(self, status: int, text: str, headers: list[tuple[bytes, bytes]] | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = headers or []


class Guard:
    """Wraps the ASGI app."""

    def __init__(self, app: App, settings: Settings, accounts: Accounts, sockets: Sockets, rate: Rate | SharedRate) -> None:
        self._app = app
        self._accounts = accounts
        self._sockets = sockets
        self._sessions = None if settings.login == "auto" else accounts.sessions
        self._origins = Origins(settings)
        self._throttle = Throttle()
        self._rate = rate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        scope["headers"] = identity.without_identity(scope["headers"])
        scope["isotherm.cookie"] = _cookie(scope)
        scope["isotherm.address"] = self._origins.address(scope.get("client"), headers)
        try:
            await self._check_address(scope, headers)
            if scope["type"] == "websocket":
                await self._websocket(scope, headers, receive, send)
                return
            holder = await self._holder(scope, headers)
        except Refusal as refusal:
            await _refuse(scope, send, refusal)
            return
        if holder is not None:
            scope["headers"] += identity.as_headers(holder, scope["isotherm.cookie"], scope["isotherm.address"])
        cache = _KEPT if _is_versioned(scope) else _CHECKED if holder is None else _FORGOTTEN
        await self._app(scope, receive, _with_headers(send, cache))

    async def _check_address(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        if not rules.is_straight(scope["path"]):
            raise await self._refused(scope, "", 400, "strange address", "this address is not one of ours")
        if len([name for name, _ in scope["headers"] if name == b"host"]) > 1:
            raise await self._refused(scope, "", 400, "two hosts", "a request has one Host")
        if scope["path"] not in _ANY_HOST or self._sessions is None:
            problem = self._origins.refuse_host(headers)
            if problem is not None:
                raise await self._refused(scope, "", 403, "foreign host", problem)
        if rules.is_api(scope["path"]) and (_bearer(headers) or self._origins.is_no_page(headers)):
            return
        changes = scope["type"] == "websocket" or scope["method"] not in _SAFE
        if changes and not self._origins.is_ours(headers):
            what = "a websocket must be opened" if scope["type"] == "websocket" else "a form must be sent"
            raise await self._refused(scope, "", 403, "foreign origin", f"{what} by a page of this server")
        if b"bokeh-session-id" in headers or b"bokeh-session-id=" in scope["query_string"].replace(b"_", b"-"):
            raise await self._refused(scope, "", 403, "named session", "sessions are named by the server")

    async def _holder(self, scope: Scope, headers: dict[bytes, bytes]) -> Holder | None:
        """Return who makes a request that they may make.

        Raises:
            Refusal: they may not.
        """
        path = scope["path"]
        least = rules.least(path)
        if least == rules.OPEN:
            return None
        if rules.is_api(path) and (token := _bearer(headers)):
            return await self._program(scope, token)
        if path == "/metrics" and self._origins.is_of_this_machine(scope.get("client"), headers):
            return None
        try:
            holder, is_false = await identity.identify(self._sessions, scope["isotherm.cookie"])
        except Unavailable as error:
            raise _away(error) from error
        if is_false:
            await self._note(scope, "", "session cookie", "a session that is over, or never was")
        if holder is None:
            if least == rules.ANYBODY:
                return None
            raise _to_log_in(scope, drop=is_false)
        if holder.must_change and not path.startswith(rules.WHILE_PASSWORD_IS_GIVEN) and least != rules.ANYBODY:
            raise Refusal(303, "choose a password first", [(b"location", b"/account")])
        if holder.role < least:
            text = f"your role, {holder.role.word}, may not do this: it needs {Role(least).word}"
            raise await self._refused(scope, holder.name, 403, "role", text)
        return holder

    async def _program(self, scope: Scope, token: str) -> Holder:
        """Return whose token a program shows, and note its scopes for the API."""
        try:
            found = await self._accounts.tokens.find(token)
            wait = await self._rate.wait(found[0].session) if found is not None else 0
        except Unavailable as error:
            raise _away(error) from error
        if found is None:
            raise await self._refused(
                scope, "", 401, "token", "this token is over, or never was", [(b"www-authenticate", b"Bearer")]
            )
        holder, scopes = found
        if wait:
            retry = [(b"retry-after", str(wait).encode())]
            raise Refusal(429, f"too many requests with this token; try again in {wait} s", retry)
        scope["headers"].append((identity.SCOPES.lower().encode(), " ".join(sorted(scopes)).encode()))
        return holder

    async def _websocket(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive, send: Send) -> None:
        if rules.is_api(scope["path"]) and (token := _bearer(headers)):
            program = await self._program(scope, token)
            scope["headers"] += identity.as_headers(program, "", scope["isotherm.address"])
            await self._app(scope, receive, send)
            return
        shown = cookies.read(scope["isotherm.cookie"], cookies.SESSION)
        session = identity.LOCAL.session if self._sessions is None else hash_of(shown)
        with self._sockets.opened(session) as socket:
            holder = await self._holder(scope, headers)
            is_page = not rules.is_api(scope["path"])
            if holder is None or (is_page and not identity.is_of(scope.get("subprotocols", ()), holder)):
                name = holder.name if holder else ""
                raise await self._refused(scope, name, 403, "foreign token", "this page was made for another session")
            scope["headers"] += identity.as_headers(holder, scope["isotherm.cookie"], scope["isotherm.address"])
            socket.role = holder.role
            ending = asyncio.create_task(_end(socket, send), name="end-websocket")
            try:
                await self._app(scope, receive, _until_ended(socket, send))
            finally:
                ending.cancel()

    async def _refused(
        self, scope: Scope, who: str, status: int, what: str, text: str, headers: Sequence[tuple[bytes, bytes]] = ()
    ) -> Refusal:
        await self._note(scope, who, what, text)
        return Refusal(status, text, list(headers))

    async def _note(self, scope: Scope, who: str, what: str, text: str) -> None:
        """Keep a refusal in the audit log, or at least in the process's."""
        if (held := self._throttle(text)) is not None:
            log.warning("refused a request for %.200r: %s (%d more since the last line)", scope["path"], text, held)
        try:
            address = scope["isotherm.address"]
            await self._accounts.audit.refuse(who, what, scope["path"], address=address, detail=text, is_shown=bool(who))
        except Unavailable as error:
            log.debug("not in the audit log: %s", error)


async def _end(socket: Socket, send: Send) -> None:
    """Close a websocket when its session ends."""
    await socket.ended.wait()
    socket.is_closed = True
    await send({"type": "websocket.close", "code": CODE, "reason": "the session has ended"})


def _until_ended(socket: Socket, send: Send) -> Send:
    """Drop what a page sends after its websocket was closed under it; it receives the end as a disconnect."""

    async def send_until_ended(message: MutableMapping[str, Any]) -> None:
        if not socket.is_closed:
            await send(message)

    return send_until_ended


def _away(error: Unavailable) -> Refusal:
    retry = str(problems.RETRY_SECONDS).encode()
    return Refusal(503, f"{error}; try again in a few seconds", [(b"retry-after", retry)])


def _to_log_in(scope: Scope, *, drop: bool) -> Refusal:
    """Return the answer for somebody who is not logged in."""
    headers = [(b"set-cookie", cookies.drop_cookie(cookies.SESSION).encode())] if drop else []
    if rules.is_api(scope["path"]) and not _wants_html(scope):
        return Refusal(
            401, "log in, or show a token: Authorization: Bearer iso_…", [*headers, (b"www-authenticate", b"Bearer")]
        )
    if scope["type"] == "websocket" or scope["method"] not in _SAFE:
        return Refusal(401, "log in first", headers)
    query = scope["query_string"].decode("latin-1")
    wanted = quote(scope["path"] + (f"?{query}" if query else ""), safe="")
    target = "/login" if scope["path"] == "/" and not query else f"/login?next={wanted}"
    return Refusal(303, "log in first", [*headers, (b"location", target.encode())])


def _cookie(scope: Scope) -> str:
    return "; ".join(value.decode("latin-1") for name, value in scope["headers"] if name == b"cookie")


def _is_versioned(scope: Scope) -> bool:
    """Tell whether the address changes with the content: Bokeh's and Panel's own files, at their version or hash."""
    return bool(scope["path"].startswith("/static/")) and b"v=" in scope["query_string"]


def _with_headers(send: Send, cache: bytes) -> Send:
    async def send_with_headers(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            own = [*message.get("headers", ()), *_HEADERS]
            if all(name.lower() != b"cache-control" for name, _ in own):
                is_missing = cache == _KEPT and message["status"] >= HTTPStatus.BAD_REQUEST
                own.append((b"cache-control", _CHECKED if is_missing else cache))
            message = {**message, "headers": own}
        await send(message)

    return send_with_headers


def _wants_html(scope: Scope) -> bool:
    return notices.wants_html([value.decode("latin-1") for name, value in scope["headers"] if name == b"accept"])


def _bearer(headers: Mapping[bytes, bytes]) -> str:
    """Return the token of a request (RFC 6750 §2.1), or an empty text."""
    kind, _, token = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""


async def _refuse(scope: Scope, send: Send, refusal: Refusal) -> None:
    response = "http.response"
    if scope["type"] == "websocket":
        if not rules.is_api(scope["path"]) or "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": 1008, "reason": refusal.text})
            return
        response = "websocket.http.response"
    kind, body = b"text/plain; charset=utf-8", refusal.text.encode()
    if _wants_html(scope):
        kind, body = b"text/html; charset=utf-8", notices.html(refusal.status, refusal.text)
    elif rules.is_prometheus(scope["path"]):
        kind, body = prometheus.MEDIA_TYPE.encode(), prometheus.body(refusal.status, refusal.text)
    elif rules.is_api(scope["path"]):
        kind, body = problems.MEDIA_TYPE.encode(), problems.body(refusal.status, refusal.text)
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    answer = _with_headers(send, _FORGOTTEN)
    await answer({"type": f"{response}.start", "status": refusal.status, "headers": headers + refusal.headers})
    await answer({"type": f"{response}.body", "body": body})
