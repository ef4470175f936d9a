"""Transmissions: the confirmable messages that we send, until they are acknowledged (RFC 7252 §4.2)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from connectors.coap.numbers import ACK
from connectors.coap.sockets import Address

ACK_TIMEOUT = 2.0
"""s until the first retransmission, at least; then twice as long each time (§4.8)."""

ACK_RANDOM_FACTOR = 1.5
MAX_RETRANSMIT = 4

MAX_OPEN = 20_000
"""Messages that wait for their acknowledgement; beyond, nothing is confirmable."""


class Transmissions:
    """Those of one socket."""

    def __init__(self, send: Callable[[bytes, Address], None]) -> None:
        self._send = send
        self._open: dict[tuple[Address, int], asyncio.TimerHandle] = {}
        self._awaited: dict[tuple[Address, int], asyncio.Future[int]] = {}

    def __len__(self) -> int:
        return len(self._open)

    @property
    def is_full(self) -> bool:
        """Whether no more may be begun."""
        return len(self._open) >= MAX_OPEN

    def begin(self, datagram: bytes, address: Address, id: int) -> None:
        """Send a confirmable message, and again until it is acknowledged, MAX_RETRANSMIT times."""
        self._transmit(datagram, address, id, ACK_TIMEOUT * random.uniform(1.0, ACK_RANDOM_FACTOR), MAX_RETRANSMIT)

    async def confirm(self, datagram: bytes, address: Address, id: int, seconds: float) -> int | None:
        """Send a confirmable message, again and again for so long; returns ACK or RST, or None when neither came."""
        self._awaited[address, id] = answered = asyncio.get_running_loop().create_future()
        self.begin(datagram, address, id)
        try:
            async with asyncio.timeout(seconds):
                kind: int = await answered
                return kind
        except TimeoutError:
            return None
        finally:
            del self._awaited[address, id]
            self.end(address, id, ACK)

    def end(self, address: Address, id: int, kind: int) -> None:
        """An acknowledgement or a reset has come."""
        if (timer := self._open.pop((address, id), None)) is not None:
            timer.cancel()
        answered = self._awaited.get((address, id))
        if answered is not None and not answered.done():
            answered.set_result(kind)

    def close(self) -> None:
        """Send nothing again."""
        for timer in self._open.values():
            timer.cancel()
        self._open.clear()

    def _transmit(self, datagram: bytes, address: Address, id: int, timeout: float, left: int) -> None:
        self._open.pop((address, id), None)
        self._send(datagram, address)
        again = (datagram, address, id, timeout * 2, left - 1)
        loop = asyncio.get_running_loop()
        if left:
            self._open[address, id] = loop.call_later(timeout, self._transmit, *again)
        else:  # wait for the last one's acknowledgement, as for the others'
            self._open[address, id] = loop.call_later(timeout, self._open.pop, (address, id), None)
