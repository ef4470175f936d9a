"""The resources: what each path does with a request."""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from aiohttp import hdrs, web

import isotherm
from connectors.connections import peer_of
from connectors.formats.decoded import Decoded
from connectors.http import firmware
from connectors.http.answers import (
    INFLUX_HEADERS,
    accepted,
    influx_error,
    influx_refusals,
    problem,
    refusals,
)
from connectors.http.bodies import Bodies, Refused, form_of, influx_form_of, unpacked
from connectors.http.polls import Polls, refusal
from connectors.http.together import Together
from connectors.http.websocket import WebSockets
from connectors.identity import ANYONE, Identity
from connectors.receipt import Receipt
from connectors.site import Site
from connectors.tls import certified_device
from isotherm.clock import now_us
from isotherm.errors import InvalidReading, Unauthorized, Unavailable
from isotherm.limits import MAX_PACK_BYTES
from isotherm.rejects import Rejected
from isotherm.settings import is_loopback

STOP_SECONDS = 8.0
"""How long a stop waits for requests that are being answered."""

MAX_QUERY_BYTES = 8 * 1024

MAX_REPLY_BYTES = 64 * 1024

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

log = logging.getLogger(__name__)


class Resources:
    """The resources."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._websockets = WebSockets(site, self._identify)
        self._polls = Polls(site.dispatcher)
        self._bodies = Bodies()
        self._together = Together(site.intake)
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
                web.get("/api/v1/commands", self._commands),
                web.post("/api/v1/replies", self._reply, expect_handler=_later),
                web.get("/api/v1/firmware/{name}/{version}", self._firmware),
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
        self._polls.close()
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
            self._bodies.release(request)
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
        if origin is not None and self._site.doorkeeper.is_open and not is_loopback(_host_of(origin)):
            return problem(403, f"a page of {origin[:80]!r}, expected one of this machine while everybody may send")
        try:
            return await handler(request)
        except web.HTTPException as error:
            if error.status < 400:
                raise
            kept = {str(name): error.headers[name] for name in (hdrs.ALLOW, hdrs.RETRY_AFTER) if name in error.headers}
            return problem(error.status, f"{request.method} {request.path}: {error.text}", headers=kept)

    async def _readings(self, request: web.Request) -> web.Response:
        try:
            receipt = await self._take_in(request, form_of)
        except Refused as refused:
            return problem(refused.status, refused.rejected.detail, reason=refused.rejected.reason)
        except Unavailable as error:
            return problem(503, str(error), reason="unavailable")
        if not receipt.rejected:
            return accepted(receipt)
        return refusals(receipt)

    async def _firmware(self, request: web.Request) -> web.StreamResponse:
        try:
            await self._identify(request)
        except Unauthorized as error:
            return problem(401, str(error), reason="auth")
        except Unavailable as error:
            return problem(503, str(error), reason="unavailable")
        return await firmware.serve(request, self._site.firmware)

    async def _commands(self, request: web.Request) -> web.StreamResponse:
        try:
            identity = await self._identify(request)
        except Unauthorized as error:
            return problem(401, str(error), reason="auth")
        except Unavailable as error:
            return problem(503, str(error), reason="unavailable")
        return await self._polls.serve(request, identity)

    async def _reply(self, request: web.Request) -> web.Response:
        try:
            identity = await self._admitted(request)
            body = unpacked(await self._bodies.read(request, MAX_REPLY_BYTES), request)
            await self._replied(identity, body, peer_of(request.transport))
        except Refused as refused:
            return problem(refused.status, refused.rejected.detail, reason=refused.rejected.reason)
        except InvalidReading as error:
            return refusal(error.reason, error.detail)
        except Unavailable as error:
            return problem(503, str(error), reason="unavailable")
        return web.Response(status=204)

    async def _replied(self, identity: Identity, body: bytes, peer: str) -> None:
        """Keep a reply; one that is refused is kept as a reject."""
        try:
            await self._site.dispatcher.reply(identity, body)
        except InvalidReading as refused:
            rejected = Rejected(refused.reason, refused.detail, body, identity.device)
            await self._site.intake.store([Decoded.nothing(rejected)], peer=peer, identity=identity)
            raise

    async def _influx(self, request: web.Request) -> web.Response:
        try:
            receipt = await self._take_in(request, influx_form_of)
        except Refused as refused:
            return influx_error(refused.status, refused.rejected.detail)
        except Unavailable as error:
            return influx_error(503, str(error))
        if not receipt.rejected:
            return accepted(receipt)
        return influx_refusals(receipt)

    async def _influx_query(self, request: web.Request) -> web.Response:
        """Answer what clients of Influx 1 ask before they write: that their database exists."""
        try:
            form = parse_qs((await self._bodies.read(request, MAX_QUERY_BYTES)).decode(errors="replace"))
        except Refused as refused:
            return influx_error(refused.status, refused.rejected.detail)
        asked = request.query.get("q") or "".join(form.get("q", []))
        if asked.strip().upper().startswith("CREATE DATABASE"):
            return web.json_response({"results": [{"statement_id": 0}]}, headers=INFLUX_HEADERS)
        return influx_error(400, "queries are not answered here; see `isotherm query`")

    async def _take_in(self, request: web.Request, form_of: Callable[[web.Request, bytes], str]) -> Receipt:
        """Read a request, and return when Kafka has what is in it.

        Raises:
            Refused: it is refused as a whole.
            Unavailable: Kafka or the registry is away.
        """
        peer, identity = peer_of(request.transport), ANYONE
        try:
            identity = await self._admitted(request)
            body = unpacked(await self._bodies.read(request, MAX_PACK_BYTES), request)
            form = form_of(request, body)
        except Refused as refused:
            await self._site.intake.store([Decoded.nothing(refused.rejected)], peer=peer, identity=identity)
            raise
        if await self._together.store(body, form, identity):
            return Receipt()
        pieces = self._site.catalogue.decoders[form](body, now_us())
        return await self._site.intake.store(pieces, peer=peer, identity=identity, form=form)

    async def _admitted(self, request: web.Request) -> Identity:
        """Return who sends a request whose body may come; of a stranger's body the head is kept as a reject.

        A client may ask before it sends the body (``Expect: 100-continue``, RFC 9110 §10.1.1).
        """
        expected = request.headers.get(hdrs.EXPECT, "").lower()
        size = request.content_length
        if expected not in ("", "100-continue"):
            raise Refused(417, "malformed", f"Expect: {expected[:80]!r}, expected 100-continue", size=size)
        try:
            identity = await self._identify(request)
        except Unauthorized as error:
            body = b"" if expected else await self._bodies.head(request)
            raise Refused(401, "auth", str(error), body, size) from error
        if size is not None and size > MAX_PACK_BYTES and expected:
            raise Refused(413, "too_large", f"a body of {size} bytes, expected at most {MAX_PACK_BYTES}", size=size)
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


def _host_of(origin: str) -> str:
    try:
        return urlsplit(origin).hostname or ""
    except ValueError:
        return ""


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


async def _influx_ping(_: web.Request) -> web.Response:
    return web.Response(status=204, headers=INFLUX_HEADERS)


async def _influx_health(_: web.Request) -> web.Response:
    answer = {"name": "isotherm", "message": "ready for writes", "status": "pass", "version": isotherm.__version__}
    return web.json_response(answer, headers=INFLUX_HEADERS)
