"""WebSocket (RFC 6455) on ``/api/v1/ws``: readings up, acknowledgements down.

    → {"hello":{"device":"room-1","token":"…"}}          first, where there is no Authorization header
    → {"n":"temperature","u":"Cel","v":21.5}             text: SenML JSON or NDJSON, Influx or Graphite lines
    ← {"ack":1}                                          Kafka has so many readings of this connection
    ← {"error":{"reason":…,"detail":…,"count":1}}        so many were refused; this is the first of them

    ← {"command":{"id":…,"name":…,…}}                    where the hello has "commands":true
    → {"reply":{"id":…,"result":…}}                      what came of it
    ← {"replied":…}                                      Kafka has that

A binary message is SenML CBOR. Messages are taken in one after the other and acknowledged in their order; a peer may send
further ones before it hears, up to MAX_UNACKNOWLEDGED readings. A peer whose hello is refused may send another one.

Closed with 1001 when the server stops, 1002 for what is no WebSocket frame, 1007 for text that is not UTF-8, 1008 for who
did not show who it is, 1009 for a message of more than MAX_PACK_BYTES.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any

import msgspec
from aiohttp import WebSocketError, WSCloseCode, WSMsgType, web

from connectors import metrics
from connectors.answers import Answer, Answers, error
from connectors.connections import peer_of
from connectors.dispatch import WHOSE_COMMANDS, Given, line, not_kept
from connectors.formats.catalogue import SENML_CBOR, detect_body
from connectors.formats.decoded import Decoded
from connectors.hello import hello_in
from connectors.identity import ANYONE, HELLO_SECONDS, RECHECK_SECONDS, Identity
from connectors.replies import reply_in
from connectors.site import Site
from isotherm.clock import now_us
from isotherm.commands import Command
from isotherm.errors import InvalidReading, Unauthorized, Unavailable
from isotherm.limits import MAX_PACK_BYTES
from isotherm.rejects import Rejected

PING_SECONDS = 30.0
"""A peer that is silent for so long is pinged; one that stays silent for half of it more is disconnected."""

NO_HELLO = "no Authorization header and no hello with a token"

AWAY_SECONDS = 1.0
"""How often a peer that waits may be told that Kafka is away."""

CLOSE_SECONDS = 5.0
"""How long a stop waits for Kafka, and for peers to take their answers."""

MAX_UNACKNOWLEDGED = 50_000
"""Readings of one connection that wait for Kafka; then it is not read until they are fewer."""

_sockets = metrics.connections.labels("ws")

Identify = Callable[..., Awaitable[Identity]]
"""Tells who sends a request, given what a hello says besides: the device and the token, or None."""


class WebSockets:
    """All sockets of this process."""

    def __init__(self, site: Site, identify: Identify) -> None:
        self._site = site
        self._identify = identify
        self._open: set[_Socket] = set()
        self._is_stopping = False

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        """Serve one socket until either side closes it."""
        identify = partial(self._identify, request)
        try:
            if self._is_stopping:
                raise Unavailable("the server stops")
            identity: Identity | None = await identify()
        except Unauthorized:
            identity = None  # the first message may say who it is
        except Unavailable as away:
            raise web.HTTPServiceUnavailable(text=str(away), headers={"Retry-After": "5"}) from away
        # Pings are ours: aiohttp's would cut off a peer that is not read because Kafka is away. So is the end: what is not
        # acknowledged yet can be, after the peer has said goodbye. So is UTF-8: what is refused is kept.
        ws = web.WebSocketResponse(
            autoping=False, autoclose=False, decode_text=False, max_msg_size=MAX_PACK_BYTES + 1, timeout=CLOSE_SECONDS
        )
        await ws.prepare(request)
        socket = _Socket(self._site, request, identify, ws, identity)
        self._open.add(socket)
        _sockets.set(len(self._open))
        try:
            await socket.serve()
        finally:
            socket.leave()
            self._open.discard(socket)
            _sockets.set(len(self._open))
        return ws

    async def close(self) -> None:
        """End every socket when what it sent is answered; one for which that takes too long is cut off."""
        self._is_stopping = True
        for socket in self._open:
            socket.finish()
        if self._open:
            closed = [asyncio.create_task(socket.closed.wait(), name="ws-close") for socket in self._open]
            await asyncio.wait(closed, timeout=CLOSE_SECONDS)
            for socket in tuple(self._open):
                socket.abort()
            await asyncio.wait(closed)


class _Socket:
    """One peer.

    Attributes:
        closed: Set when it is.
    """

    def __init__(
        self, site: Site, request: web.Request, identify: Identify, ws: web.WebSocketResponse, identity: Identity | None
    ) -> None:
        self._site = site
        self._request = request
        self._peer = peer_of(request.transport)
        self._identify = identify
        self._ws = ws
        self._identity = identity
        self._shown: tuple[str | None, str | None] = None, None
        self._identified_at = _now()
        self._hello_by = _now() + HELLO_SECONDS
        self._is_greeted = False  # the first message was seen
        self._commanded: str | None = None  # the device whose commands it gets
        self._answers = Answers()
        self._changed = asyncio.Event()  # a receipt is durable, or there is nothing more to come
        self._fewer = asyncio.Event()  # of the unacknowledged
        self._is_taking = False
        self._is_done = False
        self._told_away = False
        self._code: int = WSCloseCode.OK
        self._reading: asyncio.Task[None] | None = None
        self._answering: asyncio.Task[None] | None = None
        self.closed = asyncio.Event()

    async def serve(self) -> None:
        """Take in messages and answer them until either side closes the socket."""
        self._reading = asyncio.create_task(self._read(), name=f"ws-read-{self._peer}")
        self._answering = asyncio.create_task(self._answer(), name=f"ws-answer-{self._peer}")
        tasks = {self._reading, self._answering}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            self._is_done = True
            self._changed.set()
            await asyncio.wait({self._answering})
            await self._ws.close(code=self._code)
        finally:
            for task in tasks:
                task.cancel()
            self.closed.set()
        for task in tasks:
            if task.done() and not task.cancelled() and (failure := task.exception()):
                raise failure

    def finish(self) -> None:
        """Read no more; close when what was read is answered."""
        self._code = WSCloseCode.GOING_AWAY
        if self._reading is not None:
            self._reading.cancel()

    def leave(self) -> None:
        """Let no more commands come this way."""
        if self._commanded is not None:
            self._site.dispatcher.leave(self._commanded, self)
            self._commanded = None

    async def give(self, command: Command) -> Given:
        """Send a command to the peer."""
        if self._ws.closed or self._is_done:
            return "returned"
        await self._ws.send_str(line(command).decode())
        return "sent"

    def abort(self) -> None:
        """Answer nothing more."""
        if self._answering is not None:
            self._answering.cancel()

    async def _read(self) -> None:
        while (message := await self._message()) is not None:
            data, form = message
            if not await self._greet(data, form):
                await self._ask_again()
                if self._identity is None:
                    await self._refuse("auth", NO_HELLO, data, WSCloseCode.POLICY_VIOLATION)
                    return
                if self._commanded is not None and form != SENML_CBOR and (reply := reply_in(data)) is not None:
                    await self._reply(reply)
                    continue
                await self._take(self._site.catalogue.decoders[form](data, now_us()), self._identity, form)

    def _until_asked_again(self) -> float:
        """Return in how many seconds the peer has shown who it is so long ago that its token may have been revoked since."""
        if self._identity is None or self._site.doorkeeper.is_open:
            return math.inf
        return self._identified_at + RECHECK_SECONDS - _now()

    async def _ask_again(self) -> None:
        """Find out anew who the peer is, if it is time to."""
        if self._until_asked_again() > 0:
            return
        self._identified_at = _now()
        with contextlib.suppress(Unavailable):  # as long as nobody can be asked, who was known still is
            try:
                self._identity = await self._identify(*self._shown)
            except Unauthorized:
                self._identity = None

    async def _message(self) -> tuple[bytes, str] | None:
        """Return the next message and its format; None when there will be none."""
        while self._answers.unacknowledged > MAX_UNACKNOWLEDGED:
            self._fewer.clear()
            await self._fewer.wait()
        kind, data = await self._receive()
        if kind is WSMsgType.BINARY:
            return data, SENML_CBOR
        if kind is WSMsgType.TEXT:
            try:
                data.decode()
            except UnicodeDecodeError as failure:
                await self._refuse("malformed", f"text that is not UTF-8: {failure.reason}", data, WSCloseCode.INVALID_TEXT)
                return None
            return data, detect_body(data)
        if kind is WSMsgType.CLOSE and data == WSCloseCode.ABNORMAL_CLOSURE:
            self._code = WSCloseCode.PROTOCOL_ERROR  # RFC 6455 §7.4.1: nobody may say this; aiohttp lets it pass
        if kind is WSMsgType.ERROR and not isinstance(data, ConnectionError):
            code = data.code if isinstance(data, WebSocketError) else WSCloseCode.PROTOCOL_ERROR  # damaged compression
            await self._refuse("too_large" if code == WSCloseCode.MESSAGE_TOO_BIG else "malformed", str(data), b"", code)
        return None

    async def _receive(self) -> tuple[WSMsgType, Any]:
        """Return the next message that is no ping; CLOSED for a peer without life, or who does not say who it is in time."""
        is_pinged = False
        heard_at = _now()
        while True:
            silent_by = heard_at + PING_SECONDS * (1.5 if is_pinged else 1)
            if self._identity is None:
                silent_by = self._hello_by
            patience = min(silent_by - _now(), self._until_asked_again())
            try:
                message = await self._ws.receive(timeout=max(patience, 0.001))
                is_pinged, heard_at = False, _now()
                if message.type is WSMsgType.PING:
                    await self._ws.pong(message.data)
                elif message.type is not WSMsgType.PONG:
                    return message.type, message.data
            except TimeoutError:
                await self._ask_again()  # it may only wait for commands, and say nothing for long
                if self._identity is None:
                    self._code = WSCloseCode.POLICY_VIOLATION
                    await self._say(error("auth", NO_HELLO))
                    return WSMsgType.CLOSED, None
                if _now() < silent_by:
                    continue
                if is_pinged:
                    return WSMsgType.CLOSED, None
                await self._ws.ping()
                is_pinged = True

    async def _greet(self, data: bytes, form: str) -> bool:
        """Take a hello: the first message, or a further one of who is not known yet; tells whether it was one."""
        is_awaited, self._is_greeted = not self._is_greeted or self._identity is None, True
        hello = hello_in(data) if is_awaited and form != SENML_CBOR else None
        if hello is None:
            return False  # what was to be a hello becomes a reject that says what is wrong with it
        try:
            self._shown = hello.device, hello.token
            self._identity = await self._identify(*self._shown)
            self._identified_at = _now()
        except (Unauthorized, Unavailable) as failure:
            self._identity = None
            await self._say(error("auth" if isinstance(failure, Unauthorized) else "unavailable", str(failure)))
        else:
            if hello.commands:
                await self._take_commands(self._identity)
        return True

    async def _take_commands(self, identity: Identity) -> None:
        """Let the peer's commands come this way."""
        self.leave()
        if identity.device is None:
            await self._say(WHOSE_COMMANDS)
            return
        self._commanded = identity.device
        self._site.dispatcher.enter(identity.device, self)

    async def _reply(self, data: bytes) -> None:
        """Keep what the peer says of a command."""
        try:
            id = await self._site.dispatcher.reply(self._identity or ANYONE, data)
        except InvalidReading as refused:
            identity = self._identity or ANYONE
            await self._say(await self._site.refuse(refused, data, peer=self._peer, identity=identity))
        except Unavailable as away:
            await self._say(not_kept(away))
        else:
            await self._say({"replied": id})

    async def _refuse(self, reason: str, detail: str, data: bytes, code: int) -> None:
        """Keep what ends the connection as a reject."""
        self._code = code
        size = MAX_PACK_BYTES + 1 if reason == "too_large" else None
        await self._take([Decoded.nothing(Rejected(reason, detail, data, size=size))], self._identity or ANYONE, "")

    async def _take(self, pieces: Iterable[Decoded], identity: Identity, form: str) -> None:
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
                async with asyncio.timeout(AWAY_SECONDS if self._answers or self._is_taking else None):
                    await self._changed.wait()
            except TimeoutError:
                if self._request.transport is None or self._request.transport.is_closing():
                    self.finish()  # the peer has left: what it was not told of it sends again
                    return
                await self._tell_away()

    async def _tell_away(self) -> None:
        is_away = self._site.intake.is_away
        if is_away and not self._told_away:
            await self._say(error("unavailable", "Kafka is away"))
        self._told_away = is_away

    async def _say(self, *answers: Answer) -> None:
        """Send answers; a peer that has left, or was disconnected because it reads none, is not told."""
        with contextlib.suppress(ConnectionError, RuntimeError):  # what it sent is stored all the same
            for answer in answers:
                await self._ws.send_str(msgspec.json.encode(answer).decode())


def _now() -> float:
    return asyncio.get_running_loop().time()
