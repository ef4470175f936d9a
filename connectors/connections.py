"""Connections over TCP: the ports that are served, who is connected, and the limits on it."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from connectors import metrics
from connectors.tls import server_context
from isotherm.logs import Throttle
from isotherm.settings import Settings

HANDSHAKE_SECONDS = 10.0
"""How long TLS may take to begin."""

BACKLOG = 4096
"""Connections that the kernel keeps until they are accepted."""

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


def address_of(transport: asyncio.BaseTransport | None) -> tuple[str, int]:
    """Return a peer's address and port."""
    host, port = ((transport.get_extra_info("peername") if transport else None) or ("?", 0))[:2]
    return host, port


def peer_of(transport: asyncio.BaseTransport | None) -> str:
    """Return a peer's address and port as text."""
    host, port = address_of(transport)
    return f"{host}:{port}"
