"""WebSocket (RFC 6455) on ``/api/v1/ws``: readings up, acknowledgements down.

    → {"hello":{"device":"room-1","token":"…"}}          first, where there is no Authorization header
    → {"n":"temperature","u":"Cel","v":21.5}             text: SenML JSON or NDJSON, Influx or Graphite lines
    ← {"ack":1}                                          Kafka has so many readings of this connection
    ← {"error":{"reason":…,"detail":…,"count":1}}        so many were refused; this is the first of them

A binary message is SenML CBOR. Messages are taken in one after the other and acknowledged in their order; a peer may send
further ones before it hears, up to MAX_UNACKNOWLEDGED readings.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import msgspec
from aiohttp import WSCloseCode, WSMessage, WSMsgType, web

from connectors import metrics
from connectors.answers import Answer, Answers, error
from connectors.formats.catalogue import SENML_CBOR, detect_body
from connectors.formats.decoded import Decoded
from connectors.identity import ANYONE, Identity
from connectors.site import Site
from connectors.tls import certified_device
from isotherm.clock import now_us
from isotherm.errors import Unauthorized, Unavailable
from isotherm.limits import MAX_PACK_BYTES
from isotherm.rejects import Rejected

PING_SECONDS = 30.0
"""A peer that does not answer a ping within half of it is disconnected."""

HELLO_SECONDS = 10.0
NO_HELLO = "no Authorization header and no hello with a token"
UNREAD_SECONDS = 30.0
"""A peer that does not read its answers for so long is disconnected."""

CLOSE_SECONDS = 5.0
MAX_UNACKNOWLEDGED = 50_000
"""Readings of one connection that wait for Kafka; then it is not read until they are fewer."""

_sockets = metrics.connections.labels("ws")

Identify = Callable[[web.Request], Awaitable[Identity]]


class _Hello(msgspec.Struct, forbid_unknown_fields=True):
    device: str | None = None
    token: str | None = None
    ack: bool = True


class _HelloMessage(msgspec.Struct, forbid_unknown_fields=True):
    hello: _Hello


_hello = msgspec.json.Decoder(_HelloMessage)


class WebSockets:
    """All sockets of this process."""

    def __init__(self, site: Site, identify: Identify) -> None:
        self._site = site
        self._identify = identify
        self._open: set[_Socket] = set()

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        """Serve one socket until either side closes it."""
        try:
            identity: Identity | None = await self._identify(request)
        except Unauthorized:
            identity = None  # the first message may say who it is
        except Unavailable as error:
            raise web.HTTPServiceUnavailable(text=str(error)) from error
        ws = web.WebSocketResponse(heartbeat=PING_SECONDS, max_msg_size=MAX_PACK_BYTES, timeout=CLOSE_SECONDS)
        await ws.prepare(request)
        socket = _Socket(self._site, request, ws, identity)
        self._open.add(socket)
        _sockets.set(len(self._open))
        try:
            await socket.serve()
        finally:
            self._open.discard(socket)
            _sockets.set(len(self._open))
        return ws

    async def close(self, _: web.Application) -> None:
        """End every socket when what it sent is answered."""
        if self._open:
            await asyncio.wait([asyncio.create_task(socket.close()) for socket in self._open], timeout=CLOSE_SECONDS)


class _Socket:
    """One peer."""

    def __init__(self, site: Site, request: web.Request, ws: web.WebSocketResponse, identity: Identity | None) -> None:
        self._site = site
        self._ws = ws
        self._identity = identity
        self._certified = certified_device(request.transport)
        host, port = (request.transport.get_extra_info("peername") if request.transport else None) or ("?", 0)
        self._peer = f"{host}:{port}"
        self._answers = Answers()
        self._changed = asyncio.Event()  # a receipt is durable, or there is nothing more to come
        self._fewer = asyncio.Event()  # of the unacknowledged
        self._is_taking = False
        self._is_done = False
        self._told_away = False
        self._reading: asyncio.Task[None] | None = None
        self._closed = asyncio.Event()

    async def serve(self) -> None:
        """Take in messages and answer them until either side closes the socket."""
        self._reading = asyncio.create_task(self._read(), name=f"ws-read-{self._peer}")
        answering = asyncio.create_task(self._answer(), name=f"ws-answer-{self._peer}")
        try:
            await asyncio.wait({self._reading, answering}, return_when=asyncio.FIRST_COMPLETED)
            self._is_done = True
            self._changed.set()
            if not answering.done():
                await asyncio.wait({answering})
            await self._ws.close(code=WSCloseCode.GOING_AWAY if self._reading.cancelled() else WSCloseCode.OK)
        finally:
            for task in (self._reading, answering):
                task.cancel()
            self._closed.set()
        for task in (self._reading, answering):
            if task.done() and not task.cancelled() and (failure := task.exception()):
                raise failure

    async def close(self) -> None:
        """Read no more; return when what was read is answered and the socket is closed."""
        if self._reading is not None:
            self._reading.cancel()
            await self._closed.wait()

    async def _read(self) -> None:
        is_first = True
        while (message := await self._receive()) is not None:
            data, form = message
            if is_first and b'"hello"' in data and form != SENML_CBOR and await self._greet(data):
                is_first = False
                continue
            is_first = False
            if self._identity is None:
                await self._take(iter([Decoded.nothing(Rejected("auth", NO_HELLO, data))]), ANYONE, "")
                return
            await self._take(self._site.catalogue.decoders[form](data, now_us()), self._identity, form)

    async def _receive(self) -> tuple[bytes, str] | None:
        """Return the next message and its format; None when there will be none."""
        while self._answers.unacknowledged > MAX_UNACKNOWLEDGED:
            self._fewer.clear()
            await self._fewer.wait()
        try:
            async with asyncio.timeout(None if self._identity else HELLO_SECONDS):
                message: WSMessage = await self._ws.receive()
        except TimeoutError:
            await self._say(error("auth", NO_HELLO))
            return None
        if message.type is WSMsgType.TEXT:
            data = message.data.encode()
            return data, detect_body(data)
        if message.type is WSMsgType.BINARY:
            return message.data, SENML_CBOR
        if message.type is WSMsgType.ERROR and self._ws.close_code == WSCloseCode.MESSAGE_TOO_BIG:
            too_large = Rejected("too_large", f"a message of more than {MAX_PACK_BYTES} bytes: {message.data}", b"")
            await self._take(iter([Decoded.nothing(too_large)]), self._identity or ANYONE, "")
        return None

    async def _greet(self, data: bytes) -> bool:
        """Take the hello, if the message is one."""
        try:
            hello = _hello.decode(data).hello
        except msgspec.DecodeError:
            return False  # becomes a reject that says what is wrong with it
        try:
            self._identity = await self._site.doorkeeper.identify(
                device=hello.device, token=hello.token, certified=self._certified
            )
        except (Unauthorized, Unavailable) as reason:
            self._identity = None
            await self._say(error("auth", str(reason)))
        return True

    async def _take(self, pieces: Iterator[Decoded], identity: Identity, form: str) -> None:
        self._is_taking = True
        self._changed.set()
        receipt = await self._site.intake.accept(pieces, peer=self._peer, identity=identity, form=form, patient=True)
        self._is_taking = False
        receipt.when_settled(self._changed.set)
        self._answers.expect(receipt)
        self._changed.set()

    async def _answer(self) -> None:
        """Say what became of the messages that are durable, in their order, until there are no more."""
        while self._answers or not self._is_done:
            if self._answers.is_due:
                await self._say(*self._answers.due())
                self._fewer.set()
                continue
            self._changed.clear()
            try:
                async with asyncio.timeout(1.0 if self._answers or self._is_taking else None):
                    await self._changed.wait()
            except TimeoutError:
                await self._tell_away()

    async def _tell_away(self) -> None:
        is_away = self._site.intake.is_away
        if is_away and not self._told_away:
            await self._say(error("unavailable", "Kafka is away"))
        self._told_away = is_away

    async def _say(self, *answers: Answer) -> None:
        """Send answers; a peer that does not read them is disconnected, one that has left is not told."""
        try:
            async with asyncio.timeout(UNREAD_SECONDS):
                for answer in answers:
                    await self._ws.send_str(msgspec.json.encode(answer).decode())
        except TimeoutError:
            if self._reading is not None:
                self._reading.cancel()
        except (ConnectionError, RuntimeError):
            pass  # it has left: what it sent is stored all the same
