"""The listener and its connections: aiohttp's, with the limits and errors that it leaves to us."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

from aiohttp import web
from aiohttp.http import RawRequestMessage

from connectors import metrics
from connectors.formats.decoded import Decoded
from connectors.http.answers import busy, problem
from connectors.http.resources import Resources
from connectors.http.websocket import peer_of
from connectors.identity import ANYONE
from connectors.receipt import Receipt
from connectors.site import Site
from connectors.tls import server_context
from isotherm.limits import MAX_REJECT_RAW_BYTES
from isotherm.logs import Throttle
from isotherm.rejects import Rejected

KEEP_ALIVE_SECONDS = 75.0
"""A connection on which no request is complete for so long is closed, the first one's head included."""

HANDSHAKE_SECONDS = 10.0
"""How long TLS may take to begin."""

UNREAD_SECONDS = 30.0
"""A peer that does not read its answers for so long is disconnected, a WebSocket's too."""

ANSWER_BUFFER_BYTES = 16 * 1024
"""Of the kernel, for each connection: answers are short, and a peer that reads none is noticed soon."""

ABANDON_SECONDS = 1.0
"""How long a stop waits for aiohttp after all that could be answered is."""

LINGER_SECONDS = 5.0
"""How long the rest of a refused body is read, so that its sender comes to read the answer."""

MAX_HEAD_BYTES = 8190

_connections = metrics.connections.labels("http")

log = logging.getLogger(__name__)


@asynccontextmanager
async def listening(site: Site) -> AsyncIterator[str]:
    """Serve for the length of the block; yields where. At its end, requests that are being handled are answered."""
    settings = site.settings
    resources = Resources(site)
    runner = web.AppRunner(resources.application(), access_log=None, shutdown_timeout=ABANDON_SECONDS)
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
        await resources.close()  # first: aiohttp's own stop reads nothing more, neither bodies nor goodbyes
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
            self.transport.write(busy(full))
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
        response = problem(status, detail)
        response.force_close()
        return response
