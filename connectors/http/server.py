"""The listener and its connections: aiohttp's, with the limits and errors that it leaves to us."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from aiohttp.http import RawRequestMessage

from connectors.connections import Census, address_of, limit_answers, peer_of, served
from connectors.formats.decoded import Decoded
from connectors.http.answers import busy, problem
from connectors.http.resources import Resources
from connectors.identity import ANYONE
from connectors.receipt import Receipt
from connectors.site import Site
from isotherm.limits import MAX_REJECT_RAW_BYTES
from isotherm.rejects import Rejected

KEEP_ALIVE_SECONDS = 75.0
"""A connection on which no request is complete for so long is closed, the first one's head included."""

UNREAD_SECONDS = 30.0
"""A peer that does not read its answers for so long is disconnected, a WebSocket's too."""

ABANDON_SECONDS = 1.0
"""How long a stop waits for aiohttp after all that could be answered is."""

LINGER_SECONDS = 5.0
"""How long the rest of a refused body is read, so that its sender comes to read the answer."""

MAX_HEAD_BYTES = 8190

log = logging.getLogger(__name__)


@asynccontextmanager
async def listening(site: Site) -> AsyncIterator[str]:
    """Serve for the length of the block; yields where. At its end, requests that are being handled are answered."""
    settings = site.settings
    resources = Resources(site)
    runner = web.AppRunner(resources.application(), access_log=None, shutdown_timeout=ABANDON_SECONDS)
    await runner.setup()
    listener = _Listener(site, runner)
    plain, secure = ("http", settings.http_port), ("https", settings.http_tls_port)
    try:
        async with served(settings, listener.connection, plain=plain, secure=secure) as where:
            yield where
    finally:
        await resources.close()  # first: aiohttp's own stop reads nothing more, neither bodies nor goodbyes
        await runner.cleanup()


class _Listener:
    """All connections of this process."""

    def __init__(self, site: Site, runner: web.AppRunner) -> None:
        self._site = site
        self._runner = runner
        self.census = Census(site.settings, "http")

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
        self._host, _ = address_of(transport)
        self._peer = peer_of(transport)
        limit_answers(transport)
        if (full := self._listener.census.enter(self._host)) is not None:
            assert self.transport is not None
            self.transport.write(busy(full))
            self.force_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._listener.census.leave(self._host)
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
