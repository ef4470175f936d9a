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
format, 503 with Retry-After when Kafka is away. A body may be compressed (gzip, deflate).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

import msgspec
from aiohttp import hdrs, web

import isotherm
from connectors.formats.catalogue import MEDIA_TYPES, UNTYPED, detect_body, influx_form
from connectors.formats.decoded import Decoded
from connectors.formats.influx import PRECISIONS
from connectors.identity import ANYONE, Identity
from connectors.intake import REFUSE_SECONDS
from connectors.receipt import Receipt
from connectors.site import Site
from connectors.tls import certified_device, server_context
from connectors.websocket import WebSockets
from isotherm.clock import now_us
from isotherm.errors import Unauthorized, Unavailable
from isotherm.limits import MAX_PACK_BYTES
from isotherm.rejects import Rejected

BODY_SECONDS = 30.0
"""How long a request's body may take to come."""

KEEP_ALIVE_SECONDS = 75.0
"""A connection on which no request is complete for so long is closed, the first one's head included."""

STOP_SECONDS = 10.0
"""How long a stop waits for requests that are being answered."""

RETRY_AFTER_SECONDS = 5
MAX_HEAD_BYTES = 8190
MAX_QUOTED_BYTES = 200
"""How much of a refused reading an answer quotes."""

_RETRY_LATER: dict[str, str] = {hdrs.RETRY_AFTER: str(RETRY_AFTER_SECONDS)}
_CODINGS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


class _Refused(Exception):
    """A request as a whole is answered with an error.

    Attributes:
        status: The HTTP status.
        rejected: What goes to `rejects`, or None when nothing was sent.
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
    runner = web.AppRunner(
        handlers.application(),
        access_log=None,
        auto_decompress=False,
        keepalive_timeout=KEEP_ALIVE_SECONDS,
        shutdown_timeout=STOP_SECONDS,
        max_line_size=MAX_HEAD_BYTES,
        max_field_size=MAX_HEAD_BYTES,
    )
    await runner.setup()
    try:
        shared: dict[str, Any] = {"reuse_port": settings.reuse_port or None, "backlog": 4096}
        await web.TCPSite(runner, settings.host, settings.http_port, **shared).start()
        where = f"http://{settings.host}:{runner.addresses[0][1]}"
        if context := server_context(settings):
            await web.TCPSite(runner, settings.host, settings.http_tls_port, ssl_context=context, **shared).start()
            where += f" and https://{settings.host}:{runner.addresses[1][1]}"
        yield where
    finally:
        await runner.cleanup()


class _Handlers:
    """The resources."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._websockets = WebSockets(site, self._identify)

    def application(self) -> web.Application:
        """Return the application that serves them."""
        application = web.Application(middlewares=[self._bounded], client_max_size=0)
        application.add_routes(
            [
                web.post("/api/v1/readings", self._readings, expect_handler=self._before_body),
                web.get("/api/v1/ws", self._websockets.serve),
                web.post("/write", self._influx, expect_handler=self._before_body),
                web.post("/api/v2/write", self._influx, expect_handler=self._before_body),
                web.post("/query", _influx_query),
                web.get("/query", _influx_query),
                web.get("/ping", _influx_ping),
                web.get("/health", _influx_health),
            ]
        )
        application.on_shutdown.append(self._websockets.close)
        return application

    @web.middleware
    async def _bounded(self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Any:
        """Refuse when too many connections are open; answer in the way of the API what aiohttp finds wrong."""
        server = request.protocol._manager
        if server is not None and len(server._connections) > self._site.settings.max_connections:
            response = _problem(503, "too many connections are open")
            response.force_close()
            return response
        try:
            return await handler(request)
        except web.HTTPException as error:
            if error.status < 400:
                raise
            allowed: dict[str, str] = {hdrs.ALLOW: error.headers[hdrs.ALLOW]} if hdrs.ALLOW in error.headers else {}
            return _problem(error.status, f"{request.method} {request.path}: {error.reason}", headers=allowed)

    async def _before_body(self, request: web.Request) -> web.StreamResponse | None:
        """Answer ``Expect: 100-continue`` (RFC 9110 §10.1.1): what will be refused need not be sent."""
        if request.headers.get(hdrs.EXPECT, "").lower() != "100-continue":
            return _problem(417, f"Expect: {request.headers[hdrs.EXPECT]}, expected 100-continue")
        try:
            await self._identify(request)
        except (Unauthorized, Unavailable) as error:
            response = _problem(401 if isinstance(error, Unauthorized) else 503, str(error))
            response.force_close()
            return response
        if (request.content_length or 0) > MAX_PACK_BYTES:
            response = _problem(413, f"a body of {request.content_length} bytes, expected at most {MAX_PACK_BYTES}")
            response.force_close()
            return response
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return None

    async def _readings(self, request: web.Request) -> web.Response:
        try:
            receipt = await self._take_in(request, _form_of)
        except _Refused as refused:
            return _problem(refused.status, refused.rejected.detail, reason=refused.rejected.reason)
        except Unavailable as error:
            return _problem(503, str(error), reason="unavailable", headers=_RETRY_LATER)
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

    async def _take_in(self, request: web.Request, form_of: Callable[[web.Request, bytes], str]) -> Receipt:
        """Read a request, and return when Kafka has what is in it.

        Raises:
            _Refused: it is refused as a whole.
            Unavailable: Kafka or the registry is away.
        """
        identity = ANYONE
        try:
            body = await _body(request)
            identity = await self._authorized(request, body)
            form = form_of(request, body)
        except _Refused as refused:
            await self._within_patience(request, [Decoded.nothing(refused.rejected)], identity, "")
            raise
        return await self._within_patience(request, self._site.catalogue.decoders[form](body, now_us()), identity, form)

    async def _within_patience(
        self, request: web.Request, pieces: Iterable[Decoded], identity: Identity, form: str
    ) -> Receipt:
        try:
            async with asyncio.timeout(REFUSE_SECONDS):
                receipt = await self._site.intake.accept(pieces, peer=_peer(request), identity=identity, form=form)
                await receipt.durable()
        except TimeoutError:
            raise Unavailable(f"Kafka did not acknowledge within {REFUSE_SECONDS} s; send it again later") from None
        return receipt

    async def _authorized(self, request: web.Request, body: bytes) -> Identity:
        try:
            return await self._identify(request)
        except Unauthorized as error:
            raise _Refused(401, "auth", str(error), body) from error

    async def _identify(self, request: web.Request) -> Identity:
        """Return who sends a request: by certificate, ``Authorization`` or, as browsers and Influx 1 do it, by its query."""
        return await self._site.doorkeeper.identify(
            device=request.query.get("device"),
            token=_token(request),
            certified=certified_device(request.transport),
        )


def _token(request: web.Request) -> str | None:
    """Return the token in ``Authorization: Bearer``, ``Token`` (Influx 2) or ``Basic`` (as password), or in the query."""
    scheme, _, credentials = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    match scheme.lower():
        case "bearer" | "token":
            return credentials.strip()
        case "basic":
            try:
                return base64.b64decode(credentials).decode().partition(":")[2]
            except (binascii.Error, UnicodeDecodeError):
                return credentials
    return request.query.get("token") or request.query.get("p")


async def _body(request: web.Request) -> bytes:
    """Return a request's body, unpacked.

    Raises:
        _Refused: it is too large, does not come, or cannot be unpacked.
    """
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.content.iter_any():
                parts.append(part)
                size += len(part)
                if size > MAX_PACK_BYTES:
                    detail = f"a body of more than {MAX_PACK_BYTES} bytes"
                    raise _Refused(413, "too_large", detail, b"".join(parts), max(size, request.content_length or 0))
    except TimeoutError:
        detail = f"the body did not come within {BODY_SECONDS:.0f} s"
        raise _Refused(408, "malformed", detail, b"".join(parts)) from None
    body = b"".join(parts)
    coding = request.headers.get(hdrs.CONTENT_ENCODING, "identity").strip().lower()
    if coding in ("identity", ""):
        return body
    if coding not in _CODINGS:
        raise _Refused(415, "format", f"Content-Encoding {coding!r}, expected gzip or deflate", body)
    return _unpacked(body, _CODINGS[coding])


def _unpacked(body: bytes, window: int) -> bytes:
    """Decompress, as far as the limit lets it; several gzip members follow one another (RFC 1952 §2.2).

    Raises:
        _Refused: it is damaged, or more than MAX_PACK_BYTES comes out.
    """
    unpacked, rest = b"", body
    while rest:
        unpacker = zlib.decompressobj(window)
        try:
            unpacked += unpacker.decompress(rest, MAX_PACK_BYTES + 1 - len(unpacked))
        except zlib.error as error:
            raise _Refused(400, "malformed", f"the body cannot be unpacked: {error}", body) from error
        if len(unpacked) > MAX_PACK_BYTES:
            raise _Refused(413, "too_large", f"a body that unpacks to more than {MAX_PACK_BYTES} bytes", body)
        if not unpacker.eof:
            raise _Refused(400, "malformed", "the body's compressed data ends early", body)
        rest = unpacker.unused_data
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


async def _influx_query(request: web.Request) -> web.Response:
    """Answer what clients of Influx 1 ask before they write: that their database exists."""
    asked = request.query.get("q") or str((await request.post()).get("q", ""))
    if asked.strip().upper().startswith("CREATE DATABASE"):
        return web.json_response({"results": [{"statement_id": 0}]}, headers=_INFLUX_HEADERS)
    return _influx_error(400, "queries are not answered here; see `isotherm query`")


_INFLUX_HEADERS = {"X-Influxdb-Version": f"isotherm-{isotherm.__version__}", "X-Influxdb-Build": "isotherm"}
_INFLUX_CODES = {
    400: "invalid",
    401: "unauthorized",
    408: "invalid",
    413: "request too large",
    415: "invalid",
    503: "unavailable",
}


def _influx_error(status: int, message: str, **more: object) -> web.Response:
    """Answer as InfluxDB 2 (code, message) and 1 (error) do."""
    body = {"code": _INFLUX_CODES[status], "message": message, "error": message, **more}
    headers = {"X-Influxdb-Error": message.encode("ascii", "replace").decode().replace("\n", " ")[:500]}
    if status == 503:
        headers |= _RETRY_LATER
    return web.Response(status=status, body=msgspec.json.encode(body), content_type="application/json", headers=headers)


def _accepted(receipt: Receipt) -> web.Response:
    headers = {"Isotherm-Skewed": str(receipt.skewed)} if receipt.skewed else {}
    return web.Response(status=204, headers=headers)


def _problem(
    status: int, detail: str, *, headers: dict[str, str] | None = None, title: str = "", **more: object
) -> web.Response:
    """Answer with problem details (RFC 9457)."""
    body = {"type": "about:blank", "title": title or HTTPStatus(status).phrase, "status": status, "detail": detail, **more}
    headers = {**(headers or {})}
    if status == 401:
        headers[hdrs.WWW_AUTHENTICATE] = 'Bearer realm="isotherm"'
    return web.Response(
        status=status, body=msgspec.json.encode(body), content_type="application/problem+json", headers=headers
    )


def _quoted(raw: bytes) -> str:
    text = raw[:MAX_QUOTED_BYTES].decode(errors="replace")
    return text if len(raw) <= MAX_QUOTED_BYTES else text + "…"


def _peer(request: web.Request) -> str:
    host, port = (request.transport.get_extra_info("peername") if request.transport else None) or ("?", 0)
    return f"{host}:{port}"
