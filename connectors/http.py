"""HTTP: ``POST /api/v1/readings``, what InfluxDB's clients speak, and a WebSocket.

    curl -d '{"n":"room-1/temperature","u":"Cel","v":21.5}' http://127.0.0.1:7310/api/v1/readings

    | path                              | body                                         | answer                             |
    |-----------------------------------|----------------------------------------------|------------------------------------|
    | POST /api/v1/readings             | SenML JSON or CBOR, NDJSON, Influx, Graphite | 204, or problem+json (RFC 9457)    |
    | POST /write, /api/v2/write        | Influx lines; ?precision=                    | 204, or Influx's own error         |
    | GET /ping, /health; POST /query   | what Influx clients ask first                | 204; 200; 200 for CREATE DATABASE  |
    | GET /api/v1/ws                    | a WebSocket, see `connectors.websocket`      |                                    |

204 is sent when Kafka has every reading. 400 names the readings that were refused; the good ones beside them are kept. 401
without a valid token, 408 for a body that does not come, 413 for one that is too large, also unpacked, 415 for another
format, 503 with Retry-After when Kafka is away or too much is on its way. A body may be compressed (gzip, deflate). Who is
answered before the body has come is disconnected.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import re
import socket
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
from aiohttp import hdrs, web
from aiohttp.http import RawRequestMessage

import isotherm
from connectors import metrics
from connectors.formats.catalogue import MEDIA_TYPES, UNTYPED, detect_body, influx_form
from connectors.formats.decoded import Decoded
from connectors.formats.influx import PRECISIONS
from connectors.identity import ANYONE, Identity
from connectors.intake import REFUSE_SECONDS
from connectors.receipt import Receipt
from connectors.site import Site
from connectors.tls import certified_device, server_context
from connectors.websocket import WebSockets, peer_of
from isotherm.clock import now_us
from isotherm.errors import Unauthorized, Unavailable
from isotherm.limits import MAX_PACK_BYTES, MAX_REJECT_RAW_BYTES
from isotherm.logs import Throttle
from isotherm.rejects import Rejected
from isotherm.settings import is_loopback

BODY_SECONDS = 30.0
"""How long a request's body may take to come."""

KEEP_ALIVE_SECONDS = 75.0
"""A connection on which no request is complete for so long is closed, the first one's head included."""

HANDSHAKE_SECONDS = 10.0
"""How long TLS may take to begin."""

UNREAD_SECONDS = 30.0
"""A peer that does not read its answers for so long is disconnected, a WebSocket's too."""

ANSWER_BUFFER_BYTES = 16 * 1024
"""Of the kernel, for each connection: answers are short, and a peer that reads none is noticed soon."""

STOP_SECONDS = 8.0
"""How long a stop waits for requests that are being answered."""

ABANDON_SECONDS = 1.0
"""How long it then waits for those that are still not."""

LINGER_SECONDS = 5.0
"""How long the rest of a refused body is read, so that its sender comes to read the answer."""

RETRY_AFTER_SECONDS = 5
MAX_HEAD_BYTES = 8190
MAX_QUOTED_BYTES = 200
"""How much of a refused reading an answer quotes."""

MAX_HELD_BYTES = 64 * 1024 * 1024
"""Bodies of all connections that are being read or wait for Kafka."""

MAX_GZIP_MEMBERS = 64
"""Each costs some work, however little is in it."""

_RETRY_LATER: dict[str, str] = {hdrs.RETRY_AFTER: str(RETRY_AFTER_SECONDS)}
_CODINGS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_HELD = web.RequestKey("held", int)

_connections = metrics.connections.labels("http")

log = logging.getLogger(__name__)


class _Refused(Exception):
    """A request as a whole is answered with an error.

    Attributes:
        status: The HTTP status.
        rejected: What goes to `rejects`.
    """

    def __init__(self, status: int, reason: str, detail: str, raw: bytes = b"", size: int | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.rejected = Rejected(reason, detail, raw, size=size)


@asynccontextmanager
async def listening(site: Site) -> AsyncIterator[str]:
    """Serve for the length of the block; yields where. At its end, requests that are being handled are answered."""
    settings = site.settings
    handlers = _Handlers(site)
    runner = web.AppRunner(handlers.application(), access_log=None, shutdown_timeout=ABANDON_SECONDS)
    await runner.setup()
    listener = _Listener(site, runner)
    loop = asyncio.get_running_loop()
    create = partial(
        loop.create_server, listener.connection, settings.host, reuse_port=settings.reuse_port or None, backlog=4096
    )
    try:
        async with AsyncExitStack() as servers:
            server = await create(settings.http_port)
            servers.callback(server.close)
            host = f"[{settings.host}]" if ":" in settings.host else settings.host
            where = f"http://{host}:{server.sockets[0].getsockname()[1]}"
            if context := server_context(settings):
                secure = await create(settings.http_tls_port, ssl=context, ssl_handshake_timeout=HANDSHAKE_SECONDS)
                servers.callback(secure.close)
                where += f" and https://{host}:{secure.sockets[0].getsockname()[1]}"
            yield where
    finally:
        await handlers.close()  # first: aiohttp's own stop reads nothing more, neither bodies nor goodbyes
        await runner.cleanup()


class _Listener:
    """All connections of this process."""

    def __init__(self, site: Site, runner: web.AppRunner) -> None:
        self._site = site
        self._runner = runner
        self._open = 0
        self._of_peer: Counter[str] = Counter()
        self.throttle = Throttle()

    def connection(self) -> _Connection:
        """Return the protocol object of a new connection."""
        return _Connection(
            self,
            self._runner.server,
            loop=asyncio.get_running_loop(),
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=KEEP_ALIVE_SECONDS,
            lingering_time=LINGER_SECONDS,
            max_line_size=MAX_HEAD_BYTES,
            max_field_size=MAX_HEAD_BYTES,
        )

    def enter(self, host: str) -> str | None:
        """Note an open connection; returns why it cannot be, if so."""
        limits = self._site.settings
        self._note(host, 1)
        full = None
        if self._open > limits.max_connections:
            full = f"{limits.max_connections} connections are open"
        elif self._of_peer[host] > limits.max_connections_per_peer:
            full = f"{limits.max_connections_per_peer} connections of {host} are open"
        if full and self.throttle("full") is not None:
            log.warning("refused a connection of %s: %s", host, full)
        return full

    def leave(self, host: str) -> None:
        """Note that a connection has ended."""
        self._note(host, -1)
        if not self._of_peer[host]:
            del self._of_peer[host]

    def _note(self, host: str, change: int) -> None:
        self._open += change
        self._of_peer[host] += change
        _connections.set(self._open)

    def reject(self, rejected: Rejected, peer: str) -> None:
        """Count what never became a request, as far as there is room for it."""
        self._site.intake.take(Decoded.nothing(rejected), Receipt(), peer=peer, identity=ANYONE, form="")


class _Connection(web.RequestHandler):
    """A connection as aiohttp serves it, with what it leaves out: limits, an end for who reads no answer, our errors."""

    __slots__ = ("_garbage", "_host", "_listener", "_peer", "_unread")

    def __init__(self, listener: _Listener, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._listener = listener
        self._host = self._peer = "?"
        self._garbage = b""
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._peer = peer_of(transport)
        self._host = self._peer.rpartition(":")[0]
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ANSWER_BUFFER_BYTES)
        if (full := self._listener.enter(self._host)) is not None:
            assert self.transport is not None
            self.transport.write(_busy(full))
            self.force_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._listener.leave(self._host)
        if self._unread is not None:
            self._unread.cancel()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._messages and not isinstance(refused := self._messages[-1][0], RawRequestMessage):
            self._garbage = data
            if self._current_request is not None and not (body := self._current_request.content).is_eof():
                self._messages.pop()  # it is the request's body that is damaged, which aiohttp does not tell it
                body.set_exception(web.RequestPayloadError(refused.message))
                body.feed_eof()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.transport is not None:
            self._unread = self._loop.call_later(UNREAD_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Answer what is no request, and what a handler failed at."""
        if isinstance(exc, ConnectionError):
            raise exc  # the peer has left
        detail = message or "the server failed at this request"
        if status >= 500:
            log.error("failed at a request of %s", self._peer, exc_info=exc)
        else:
            detail = f"no HTTP request: {' '.join(detail.split())}"
            self._listener.reject(Rejected("malformed", detail, self._garbage[:MAX_REJECT_RAW_BYTES]), self._peer)
        if request.writer.output_size > 0:
            raise ConnectionError("an answer was begun already")
        response = _problem(status, detail)
        response.force_close()
        return response


class _Handlers:
    """The resources."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._websockets = WebSockets(site, self._identify)
        self._held = 0  # bytes of bodies
        self._active = 0  # requests
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_stopping = False

    def application(self) -> web.Application:
        """Return the application that serves them."""
        application = web.Application(middlewares=[self._framed])
        application.add_routes(
            [
                web.post("/api/v1/readings", self._readings, expect_handler=_later),
                web.get("/api/v1/ws", self._websockets.serve),
                web.post("/write", self._influx, expect_handler=_later),
                web.post("/api/v2/write", self._influx, expect_handler=_later),
                web.post("/query", self._influx_query),
                web.get("/query", self._influx_query),
                web.get("/ping", _influx_ping),
                web.get("/health", _influx_health),
            ]
        )
        return application

    async def close(self) -> None:
        """End every WebSocket when what it sent is answered, and return when every request is, for a bounded time."""
        self._is_stopping = True
        await self._websockets.close()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._idle.wait()
        except TimeoutError:
            log.warning("stopped while %d requests were not answered", self._active)

    @web.middleware
    async def _framed(self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Any:
        """See to what all requests have in common."""
        self._active += 1
        self._idle.clear()
        try:
            response = await self._answered(request, handler)
        finally:
            self._active -= 1
            self._held -= request.get(_HELD, 0)
            if not self._active:
                self._idle.set()
        body = request.content
        if not response.prepared and (self._is_stopping or not body.is_eof() or body.exception() is not None):
            response.force_close()
        return response

    async def _answered(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Keep foreign pages out where there are no tokens; answer in the way of the API what aiohttp finds wrong."""
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is not None and self._site.doorkeeper.is_open and not is_loopback(urlsplit(origin).hostname or ""):
            return _problem(403, f"a page of {origin[:80]!r}, expected one of this machine while everybody may send")
        try:
            return await handler(request)
        except web.HTTPException as error:
            if error.status < 400:
                raise
            kept = {str(name): error.headers[name] for name in (hdrs.ALLOW, hdrs.RETRY_AFTER) if name in error.headers}
            return _problem(error.status, f"{request.method} {request.path}: {error.text}", headers=kept)

    async def _readings(self, request: web.Request) -> web.Response:
        try:
            receipt = await self._take_in(request, _form_of)
        except _Refused as refused:
            return _problem(refused.status, refused.rejected.detail, reason=refused.rejected.reason)
        except Unavailable as error:
            return _problem(503, str(error), reason="unavailable")
        if not receipt.rejected:
            return _accepted(receipt)
        return _problem(
            400,
            f"{receipt.rejected} refused, {receipt.accepted} kept; first: {receipt.refusals[0].detail}",
            title="Readings were refused",
            reason=receipt.refusals[0].reason,
            accepted=receipt.accepted,
            rejected=receipt.rejected,
            errors=[
                {"reason": one.reason, "detail": one.detail, "at": one.at, "reading": _quoted(one.raw)}
                for one in receipt.refusals
            ],
        )

    async def _influx(self, request: web.Request) -> web.Response:
        try:
            receipt = await self._take_in(request, _influx_form_of)
        except _Refused as refused:
            return _influx_error(refused.status, refused.rejected.detail)
        except Unavailable as error:
            return _influx_error(503, str(error))
        if not receipt.rejected:
            return _accepted(receipt)
        first = receipt.refusals[0]
        return _influx_error(
            400,
            f"partial write: line {first.at}: {first.reason}: {first.detail}; dropped={receipt.rejected}",
            line=first.at,
        )

    async def _influx_query(self, request: web.Request) -> web.Response:
        """Answer what clients of Influx 1 ask before they write: that their database exists."""
        try:
            form = parse_qs((await self._body(request, MAX_HEAD_BYTES)).decode(errors="replace"))
        except _Refused as refused:
            return _influx_error(refused.status, refused.rejected.detail)
        asked = request.query.get("q") or "".join(form.get("q", []))
        if asked.strip().upper().startswith("CREATE DATABASE"):
            return web.json_response({"results": [{"statement_id": 0}]}, headers=_INFLUX_HEADERS)
        return _influx_error(400, "queries are not answered here; see `isotherm query`")

    async def _take_in(self, request: web.Request, form_of: Callable[[web.Request, bytes], str]) -> Receipt:
        """Read a request, and return when Kafka has what is in it.

        Raises:
            _Refused: it is refused as a whole.
            Unavailable: Kafka or the registry is away.
        """
        peer, identity = peer_of(request.transport), ANYONE
        try:
            identity = await self._admitted(request)
            body = _unpacked(await self._body(request, MAX_PACK_BYTES), request)
            form = form_of(request, body)
        except _Refused as refused:
            await self._within_patience([Decoded.nothing(refused.rejected)], peer, identity, "")
            raise
        return await self._within_patience(self._site.catalogue.decoders[form](body, now_us()), peer, identity, form)

    async def _within_patience(self, pieces: Iterable[Decoded], peer: str, identity: Identity, form: str) -> Receipt:
        try:
            async with asyncio.timeout(REFUSE_SECONDS):
                while self._site.intake.room.is_full:  # what waits is not decoded yet: it is smaller so
                    if self._site.intake.is_away:
                        raise Unavailable("Kafka is away; send it again later")
                    await self._site.intake.room.given()
                receipt = await self._site.intake.accept(pieces, peer=peer, identity=identity, form=form)
                await receipt.durable()
        except TimeoutError:
            raise Unavailable(f"Kafka did not acknowledge within {REFUSE_SECONDS} s; send it again later") from None
        return receipt

    async def _admitted(self, request: web.Request) -> Identity:
        """Return who sends a request whose body may come; of a stranger's body the head is kept as a reject.

        A client may ask before it sends the body (``Expect: 100-continue``, RFC 9110 §10.1.1).
        """
        expected = request.headers.get(hdrs.EXPECT, "").lower()
        size = request.content_length
        if expected not in ("", "100-continue"):
            raise _Refused(417, "malformed", f"Expect: {expected[:80]!r}, expected 100-continue", size=size)
        try:
            identity = await self._identify(request)
        except Unauthorized as error:
            body = b"" if expected else await self._head_of_body(request)
            raise _Refused(401, "auth", str(error), body, size) from error
        if size is not None and size > MAX_PACK_BYTES and expected:
            raise _Refused(413, "too_large", f"a body of {size} bytes, expected at most {MAX_PACK_BYTES}", size=size)
        if expected:
            await request.writer.write(_CONTINUE)
        return identity

    async def _identify(self, request: web.Request, device: str | None = None, token: str | None = None) -> Identity:
        """Return who sends a request: by a hello, a certificate, ``Authorization`` or, as browsers do it, by its query."""
        return await self._site.doorkeeper.identify(
            device=device or request.query.get("device"),
            token=token or _token(request),
            certified=certified_device(request.transport),
        )

    async def _head_of_body(self, request: web.Request) -> bytes:
        try:
            return await self._body(request, MAX_REJECT_RAW_BYTES)
        except _Refused as refused:
            return refused.rejected.raw

    async def _body(self, request: web.Request, limit: int) -> bytes:
        """Return a request's body as it was sent.

        Raises:
            _Refused: it has more bytes than the limit, or does not come.
            Unavailable: too much is held already.
        """
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for part in request.content.iter_any():
                    parts.append(part)
                    size += len(part)
                    self._held += len(part)
                    request[_HELD] = size
                    if size > limit:
                        detail = (
                            f"a body of {request.content_length or f'more than {limit}'} bytes, expected at most {limit}"
                        )
                        raise _Refused(413, "too_large", detail, b"".join(parts), max(size, request.content_length or 0))
                    if self._held > MAX_HELD_BYTES:
                        raise Unavailable(f"requests of {MAX_HELD_BYTES} bytes are on their way; send it again later")
        except TimeoutError:
            detail = f"the body did not come within {BODY_SECONDS:.0f} s"
            raise _Refused(408, "malformed", detail, b"".join(parts)) from None
        except (ConnectionError, web.RequestPayloadError, ValueError) as error:
            raise _Refused(
                400, "malformed", f"the body broke off: {' '.join(str(error).split())}", b"".join(parts)
            ) from error
        return b"".join(parts)


async def _later(_: web.Request) -> None:
    """Leave ``Expect`` to the handler, which knows more."""


def _token(request: web.Request) -> str | None:
    """Return the token in ``Authorization: Bearer``, ``Token`` (Influx 2) or ``Basic`` (as password), or in the query."""
    scheme, _, credentials = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    match scheme.lower():
        case "bearer" | "token":
            return credentials.strip().encode(errors="replace").decode()
        case "basic":
            try:
                return base64.b64decode(credentials).decode().partition(":")[2]
            except (binascii.Error, ValueError):
                return "not Base64"
    return request.query.get("token") or request.query.get("p")


def _unpacked(body: bytes, request: web.Request) -> bytes:
    """Decompress a body, as far as the limit lets it; several gzip members follow one another (RFC 1952 §2.2).

    Raises:
        _Refused: it is damaged, more than MAX_PACK_BYTES comes out, or the coding is unknown.
    """
    coding = request.headers.get(hdrs.CONTENT_ENCODING, "").strip().lower()
    if coding in ("identity", ""):
        return body
    if coding not in _CODINGS:
        raise _Refused(415, "format", f"Content-Encoding {coding[:80]!r}, expected gzip or deflate", body)
    unpacked, rest, members = b"", body, 0
    while rest:
        unpacker = zlib.decompressobj(_CODINGS[coding])
        members += 1
        try:
            unpacked += unpacker.decompress(rest, MAX_PACK_BYTES + 1 - len(unpacked))
        except zlib.error as error:
            raise _Refused(400, "malformed", f"the body cannot be unpacked: {error}", body) from error
        if len(unpacked) > MAX_PACK_BYTES:
            raise _Refused(413, "too_large", f"a body that unpacks to more than {MAX_PACK_BYTES} bytes", body)
        if not unpacker.eof:
            raise _Refused(400, "malformed", "the body's compressed data ends early", body)
        rest = unpacker.unused_data
        if rest and members == MAX_GZIP_MEMBERS:
            raise _Refused(400, "malformed", f"more than {MAX_GZIP_MEMBERS} gzip members, expected at most so many", body)
    return unpacked


def _form_of(request: web.Request, body: bytes) -> str:
    media_type = request.headers.get(hdrs.CONTENT_TYPE, "").partition(";")[0].strip().lower()
    if media_type in UNTYPED:
        return detect_body(body)
    try:
        return MEDIA_TYPES[media_type]
    except KeyError:
        detail = f"Content-Type {media_type[:80]!r}, expected one of {', '.join(MEDIA_TYPES)} or text/plain"
        raise _Refused(415, "format", detail, body) from None


def _influx_form_of(request: web.Request, body: bytes) -> str:
    precision = request.query.get("precision", "ns")
    if precision not in PRECISIONS:
        detail = f"precision {precision[:20]!r}, expected one of {', '.join(PRECISIONS)}"
        raise _Refused(400, "malformed", detail, body)
    return influx_form(precision)


async def _influx_ping(_: web.Request) -> web.Response:
    return web.Response(status=204, headers=_INFLUX_HEADERS)


async def _influx_health(_: web.Request) -> web.Response:
    answer = {"name": "isotherm", "message": "ready for writes", "status": "pass", "version": isotherm.__version__}
    return web.json_response(answer, headers=_INFLUX_HEADERS)


_INFLUX_HEADERS = {"X-Influxdb-Version": f"isotherm-{isotherm.__version__}", "X-Influxdb-Build": "isotherm"}
_INFLUX_CODES = {
    400: "invalid",
    401: "unauthorized",
    408: "invalid",
    413: "request too large",
    415: "invalid",
    417: "invalid",
    503: "unavailable",
}


def _influx_error(status: int, message: str, **more: object) -> web.Response:
    """Answer as InfluxDB 2 (code, message) and 1 (error) do."""
    body = {"code": _INFLUX_CODES[status], "message": message, "error": message, **more}
    headers = {"X-Influxdb-Error": re.sub(r"[^ -~]", "?", message)[:500], **_headers_of(status)}
    return web.Response(status=status, body=msgspec.json.encode(body), content_type="application/json", headers=headers)


def _accepted(receipt: Receipt) -> web.Response:
    headers = {"Isotherm-Skewed": str(receipt.skewed)} if receipt.skewed else {}
    return web.Response(status=204, headers=headers)


def _problem(
    status: int, detail: str, *, headers: dict[str, str] | None = None, title: str = "", **more: object
) -> web.Response:
    """Answer with problem details (RFC 9457)."""
    body = {"type": "about:blank", "title": title or HTTPStatus(status).phrase, "status": status, "detail": detail, **more}
    headers = {**_headers_of(status), **(headers or {})}
    return web.Response(
        status=status, body=msgspec.json.encode(body), content_type="application/problem+json", headers=headers
    )


def _headers_of(status: int) -> dict[str, str]:
    """Return what an answer of that status must say."""
    if status == 401:
        return {hdrs.WWW_AUTHENTICATE: 'Bearer realm="isotherm"'}
    return _RETRY_LATER if status == 503 else {}


def _busy(detail: str) -> bytes:
    """Return a whole answer, for who is not let in."""
    response = _problem(503, detail)
    head = f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: {response.content_type}\r\nConnection: close\r\n"
    head += f"Retry-After: {RETRY_AFTER_SECONDS}\r\nContent-Length: {response.content_length}\r\n\r\n"
    assert isinstance(response.body, bytes)
    return head.encode() + response.body


def _quoted(raw: bytes) -> str:
    text = raw[:MAX_QUOTED_BYTES].decode(errors="replace")
    return text if len(raw) <= MAX_QUOTED_BYTES else text + "…"
