"""Connections over TCP: the ports that are served, who is connected, and the limits on it."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Generic, TypeVar

from connectors import metrics
from connectors.tls import server_context
from isotherm.logs import Throttle
from isotherm.settings import Settings

HANDSHAKE_SECONDS = 10.0
"""How long TLS may take to begin."""

BACKLOG = 4096
"""Connections that the kernel keeps until they are accepted."""

ANSWER_BUFFER_BYTES = 16 * 1024
"""Of the kernel and of asyncio, for each connection: answers are short, and a peer that reads none is noticed soon."""

log = logging.getLogger(__name__)


@asynccontextmanager
async def served(
    settings: Settings,
    create: Callable[[], asyncio.BaseProtocol],
    *,
    plain: tuple[str, int],
    secure: tuple[str, int],
    alpn: str | None = None,
) -> AsyncIterator[str]:
    """Listen on a port, and on another with TLS where there is a certificate, for the length of the block; yields where.

    Args:
        settings: Address, certificate, and whether ports are shared.
        create: Returns the protocol object of a new connection.
        plain: URL scheme and port.
        secure: The same, with TLS.
        alpn: What the protocol is called in a TLS handshake (RFC 7301), if it must be.
    """
    listen = partial(
        asyncio.get_running_loop().create_server,
        create,
        settings.host,
        reuse_port=settings.reuse_port or None,
        backlog=BACKLOG,
    )
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    async with AsyncExitStack() as servers:
        scheme, port = plain
        server = await listen(port)
        servers.callback(server.close)
        where = f"{scheme}://{host}:{server.sockets[0].getsockname()[1]}"
        if context := server_context(settings):
            if alpn is not None:
                context.set_alpn_protocols([alpn])
            scheme, port = secure
            server = await listen(port, ssl=context, ssl_handshake_timeout=HANDSHAKE_SECONDS)
            servers.callback(server.close)
            where += f" and {scheme}://{host}:{server.sockets[0].getsockname()[1]}"
        yield where


class Census:
    """How many connections are open in this process, in all and of each peer."""

    def __init__(self, settings: Settings, protocol: str) -> None:
        self._most = settings.max_connections
        self._most_of_peer = settings.max_connections_per_peer
        self._open = 0
        self._of_peer: Counter[str] = Counter()
        self._gauge = metrics.connections.labels(protocol)
        self._throttle = Throttle()

    def enter(self, host: str) -> str | None:
        """Note an open connection; returns why it cannot be, if so."""
        self._note(host, 1)
        full = None
        if self._open > self._most:
            full = f"{self._most} connections are open"
        elif self._of_peer[host] > self._most_of_peer:
            full = f"{self._most_of_peer} connections of {host} are open"
        if full and self._throttle("full") is not None:
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
        self._gauge.set(self._open)


class Connection(asyncio.Protocol, ABC):
    """A connection that is a protocol object without tasks or timers, and is read only while it is not paused.

    Attributes:
        host: The peer's address.
        peer: Its address and port.
    """

    __slots__ = ("_heard_at", "_is_paused", "_transport", "_unread_at", "host", "peer")

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._heard_at = 0.0
        self._is_paused = False
        self._unread_at: float | None = None  # since when the peer does not read its answers
        self.host = self.peer = "?"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.host, _ = address_of(transport)
        self.peer = peer_of(transport)
        self._heard_at = time.monotonic()
        limit_answers(transport)
        transport.set_write_buffer_limits(high=ANSWER_BUFFER_BYTES)

    def pause_writing(self) -> None:
        self._unread_at = time.monotonic()
        self._pause_or_resume()

    def resume_writing(self) -> None:
        self._unread_at = None
        self._pause_or_resume()

    @abstractmethod
    def _must_pause(self) -> bool:
        """Tell whether nothing more can be taken in now."""

    def _pause_or_resume(self) -> None:
        """Read only what can be taken in."""
        pause = self._must_pause()
        if pause is not self._is_paused and self._transport is not None:
            self._is_paused = pause
            if pause:
                self._transport.pause_reading()
            else:
                self._heard_at = time.monotonic()
                self._transport.resume_reading()


_C = TypeVar("_C", bound=Connection)


class Connections(Generic[_C]):
    """The open connections of this process; iterating goes over those of that moment."""

    def __init__(self, settings: Settings, protocol: str) -> None:
        self._census = Census(settings, protocol)
        self._open: set[_C] = set()

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[_C]:
        return iter(tuple(self._open))

    def enter(self, connection: _C) -> str | None:
        """Note an open connection; returns why it cannot be, if so."""
        self._open.add(connection)
        return self._census.enter(connection.host)

    def leave(self, connection: _C) -> None:
        """Note that a connection has ended."""
        self._open.discard(connection)
        self._census.leave(connection.host)


def limit_answers(transport: asyncio.BaseTransport) -> None:
    """Let the kernel keep few answers that the peer does not read."""
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ANSWER_BUFFER_BYTES)


def address_of(transport: asyncio.BaseTransport | None) -> tuple[str, int]:
    """Return a peer's address and port."""
    host, port = ((transport.get_extra_info("peername") if transport else None) or ("?", 0))[:2]
    return host, port


def peer_of(transport: asyncio.BaseTransport | None) -> str:
    """Return a peer's address and port as text."""
    host, port = address_of(transport)
    return f"{host}:{port}"
