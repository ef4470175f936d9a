"""Exchanges: which requests have come before, so that a datagram that comes twice is taken in once (RFC 7252 §4.5).

A retransmission is the same bytes from the same endpoint. Message ids alone would not tell: they have 16 bits, so an
endpoint that sends 300 requests a second begins anew with them before EXCHANGE_LIFETIME is over, and a server that goes
by them answers its new request with what it said to an old one (aiocoap does). So a known id on other bytes is a new
message; and so are known bytes when the endpoint has sent more than half of all ids since: no sender may have a request
open for so long.

An exchange is known by a hash of its endpoint and its bytes: 64 bits, keyed anew in each process. Two datagrams are taken
for one with a probability of 10⁻¹⁴ when the table is full.
"""

from __future__ import annotations

import random
from collections import deque

import msgspec

from connectors.coap.numbers import CON, NON
from connectors.coap.sockets import Address

EXCHANGE_LIFETIME = 247.0
"""s for which a confirmable message may come again (§4.8.2)."""

NON_LIFETIME = 145.0
"""s for which a non-confirmable message may come again (§4.8.2)."""

HALF_OF_IDS = 2**15
"""Messages of an endpoint after which the same bytes are a new message."""

MAX_EXCHANGES = 250_000
"""Remembered of all endpoints, 50 to 130 MB; beyond, the oldest are forgotten. It lasts for 50 s at 5,000 requests a second,
longer than any sender repeats one (45 s, §4.8.2)."""

MAX_REPLY_BYTES = 32 * 1024 * 1024
"""Of the answers among them; beyond, the oldest are forgotten."""


class Endpoint:
    """A sender: an address and a port.

    Attributes:
        address: Where it is.
        messages: Requests that came from it.
        exchanges: Those of them that are remembered.
        unanswered: Those of them that wait for an answer.
    """

    __slots__ = ("_next_id", "address", "exchanges", "messages", "unanswered")

    def __init__(self, address: Address) -> None:
        self.address = address
        self.messages = 0
        self.exchanges = 0
        self.unanswered = 0
        self._next_id = random.getrandbits(16)  # §4.4: hard to guess

    def new_id(self) -> int:
        """Return the id of the next message that we send to it."""
        self._next_id = (self._next_id + 1) & 0xFFFF
        return self._next_id


class Exchange(msgspec.Struct, gc=False, eq=False):
    """One request that was received.

    Attributes:
        key: What it is known by.
        endpoint: Who sent it.
        number: Among its messages.
        at: When it came, s.
        reply: The code, and what follows the token, of what acknowledged it; empty until then.
    """

    key: int
    endpoint: Endpoint
    number: int
    at: float
    reply: bytes = b""


class Exchanges:
    """Those of one socket."""

    def __init__(self) -> None:
        self._known: dict[int, Exchange] = {}
        self._endpoints: dict[Address, Endpoint] = {}
        self._order: dict[int, deque[Exchange]] = {CON: deque(), NON: deque()}
        self._reply_bytes = 0

    def __len__(self) -> int:
        return len(self._known)

    def find(self, key: int) -> Exchange | None:
        """Return the exchange that a datagram repeats, or None when it is a new message."""
        known = self._known.get(key)
        if known is None or known.endpoint.messages - known.number > HALF_OF_IDS:
            return None
        return known

    def begin(self, key: int, address: Address, kind: int, now: float) -> Exchange:
        """Remember a new request of type CON or NON."""
        endpoint = self._endpoints.get(address)
        if endpoint is None:
            endpoint = self._endpoints[address] = Endpoint(address)
        endpoint.messages += 1
        endpoint.exchanges += 1
        exchange = self._known[key] = Exchange(key, endpoint, endpoint.messages, now)
        self._order[kind].append(exchange)
        if len(self._known) > MAX_EXCHANGES:
            self._forget_oldest()
        return exchange

    def settle(self, exchange: Exchange, reply: bytes) -> None:
        """Note how a request was acknowledged, for when it comes again."""
        if self._known.get(exchange.key) is not exchange:
            return  # forgotten meanwhile
        self._reply_bytes += len(reply) - len(exchange.reply)
        exchange.reply = reply
        while self._reply_bytes > MAX_REPLY_BYTES:
            self._forget_oldest()

    def expire(self, now: float) -> None:
        """Forget what cannot come again."""
        for kind, lifetime in ((CON, EXCHANGE_LIFETIME), (NON, NON_LIFETIME)):
            order = self._order[kind]
            while order and now - order[0].at > lifetime:
                self._forget(order.popleft())

    def endpoint_count(self) -> int:
        """Return how many endpoints have exchanges."""
        return len(self._endpoints)

    def _forget_oldest(self) -> None:
        order = min(filter(None, self._order.values()), key=lambda order: order[0].at)
        self._forget(order.popleft())

    def _forget(self, exchange: Exchange) -> None:
        self._reply_bytes -= len(exchange.reply)
        if self._known.get(exchange.key) is exchange:
            del self._known[exchange.key]
        exchange.reply = b""
        endpoint = exchange.endpoint
        endpoint.exchanges -= 1
        if not endpoint.exchanges and self._endpoints.get(endpoint.address) is endpoint:
            del self._endpoints[endpoint.address]


def key_of(address: Address, datagram: bytes) -> int:
    """Return what a datagram is known by."""
    return hash((address, datagram))
