"""CoAP over UDP (RFC 7252 §4): one socket, its messages, and what each endpoint is answered.

All datagrams that are there are read in one turn of the event loop, so that what they bring is taken in together. aiocoap
takes some 500 µs for a confirmable POST, answers new requests from its cache once message ids repeat, and bounds neither
that cache nor payloads in blocks; this server side of the protocol is small, so it is here.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Hashable

from connectors.coap import numbers
from connectors.coap.exchanges import Endpoint, Exchange, Exchanges, key_of
from connectors.coap.message import decode_header, empty_ack, encode, is_coap, reset
from connectors.coap.numbers import ACK, CON, NON, RST
from connectors.coap.options import MessageFormatError, Targets, encode_options
from connectors.coap.requests import Answer, Observer, Request, completed, error, is_unwanted
from connectors.coap.resources import Resources
from connectors.coap.sockets import Address, DatagramSocket
from connectors.coap.transmissions import Transmissions
from isotherm.logs import Throttle

MAX_DATAGRAMS_A_TURN = 256
"""Read before anything else has its turn."""

MAX_UNANSWERED = 256
"""Requests of one endpoint that wait for their answer; beyond, they are refused with 4.29."""

EXPIRE_SECONDS = 1.0
"""How often exchanges that are over are forgotten."""

MAX_AMPLIFICATION = 3
"""An answer has at most so many times the bytes of its request, headers of IP and UDP included: the sender's address may be
another's (RFC 7252 §11.3). The factor is that of QUIC (RFC 9000 §8)."""

BLOCK_BYTES = 1024
"""Of the payload of an answer to a peer that has shown who it is: the largest block there is (RFC 7959 §2.2)."""

FRESH_SECONDS = 20.0
"""An observer that was heard of so lately is there; NATs forget an address after 30 s and more (RFC 4787 §4.3)."""

MAX_WATCHED = 100_000
"""Observers of which it is known when they were heard of."""

WIRE_BYTES = 28
"""Headers of IP and UDP."""

OPTION_BYTES = 12
"""What the options of an answer take at most, and its payload's marker."""

log = logging.getLogger(__name__)


class DatagramEndpoint:
    """The server's own endpoint."""

    def __init__(self, resources: Resources, listening: DatagramSocket) -> None:
        self._resources = resources
        self._socket = listening
        self._exchanges = Exchanges()
        self._targets = Targets()
        self._transmissions = Transmissions(self.send)
        self._throttle = Throttle()
        self._expired_at = 0.0
        self._heard: dict[Address, float] = {}  # of those that observe something

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._socket.port

    def start(self) -> None:
        """Begin to read."""
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._read)

    def stop_reading(self) -> None:
        """Take no new requests; those that have come are still answered."""
        self._read()
        asyncio.get_running_loop().remove_reader(self._socket.fileno())

    def close(self) -> None:
        """Answer nothing more."""
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._transmissions.close()
        self._socket.close()

    def send(self, datagram: bytes, address: Address) -> None:
        """Send a datagram; one that the kernel does not take counts as lost on the way, for which the protocol is made."""
        try:
            self._socket.send(datagram, address)
        except OSError as problem:
            if self._throttle("send") is not None:
                log.warning("an answer to %s was not sent: %s", address, problem)

    def acknowledge(self, exchange: Exchange, id: int) -> None:
        """Say that a confirmable request has come (RFC 7252 §5.2.2)."""
        self._exchanges.settle(exchange, bytes((numbers.EMPTY,)))
        self.send(empty_ack(id), exchange.endpoint.address)

    def piggyback(self, exchange: Exchange, head: bytes, reply: bytes) -> None:
        """Answer a confirmable request with its acknowledgement (§5.2.1).

        Args:
            exchange: The request's.
            head: Its message id and token.
            reply: The answer's code, and what follows the token.
        """
        self._exchanges.settle(exchange, reply)
        self.send(_acknowledgement(head, reply), exchange.endpoint.address)

    def answer_separately(self, endpoint: Endpoint, token: bytes, answer: Answer, kind: int) -> None:
        """Answer a request with a message of its own (§5.2.2, §5.2.3)."""
        id = endpoint.new_id()
        if kind == CON and self._transmissions.is_full:
            kind = NON
        datagram = encode(kind, answer.code, id, token, answer.options, answer.payload)
        if kind == CON:
            self._transmissions.begin(datagram, endpoint.address, id)
        else:
            self.send(datagram, endpoint.address)

    async def notify(self, endpoint: Endpoint, token: bytes, answer: Answer, seconds: float) -> int | None:
        """Send a notification (RFC 7641 §3.2); returns ACK or RST, or None when neither came in so many seconds."""
        id = endpoint.new_id()
        datagram = encode(CON, answer.code, id, token, answer.options, answer.payload)
        return await self._transmissions.confirm(datagram, endpoint.address, id, seconds)

    async def ping(self, endpoint: Endpoint, seconds: float) -> bool:
        """Tell whether an endpoint answers (RFC 7252 §4.3), if it was not heard of just now."""
        if time.monotonic() - self._heard.get(endpoint.address, 0.0) < FRESH_SECONDS:
            return True
        id = endpoint.new_id()
        empty = encode(CON, numbers.EMPTY, id, b"", (), b"")
        return await self._transmissions.confirm(empty, endpoint.address, id, seconds) is not None

    def watch(self, endpoint: Endpoint) -> None:
        """Note from now on when an endpoint was heard of."""
        self._heard[endpoint.address] = time.monotonic()
        while len(self._heard) > MAX_WATCHED:
            del self._heard[next(iter(self._heard))]

    def _read(self) -> None:
        """Read what is there, a turn's worth."""
        now = time.monotonic()
        for _ in range(MAX_DATAGRAMS_A_TURN):
            try:
                received = self._socket.receive()
            except BlockingIOError:
                break
            except OSError as problem:  # such as an answer's address that cannot be reached
                log.debug("receiving: %s", problem)
                continue
            if received is not None:
                self._receive(*received, now)
        self._resources.flush()
        if now - self._expired_at > EXPIRE_SECONDS:
            self._expired_at = now
            self._exchanges.expire(now)

    def _receive(self, datagram: bytes, address: Address, now: float) -> None:
        if not is_coap(datagram):
            self._resources.garbage(str(address), "a datagram that is no message of CoAP version 1", datagram)
            return
        kind, code = datagram[0] >> 4 & 3, datagram[1]
        if address in self._heard:
            self._heard[address] = now
        try:
            if kind in (CON, NON) and numbers.EMPTY < code <= numbers.LAST_METHOD:
                self._receive_request(kind, code, datagram, address, now)
            else:
                self._receive_other(datagram, address)
        except MessageFormatError as problem:
            if kind == CON:
                self.send(reset(datagram[2] << 8 | datagram[3]), address)
            self._resources.garbage(str(address), f"no CoAP message: {problem}", datagram)

    def _receive_other(self, datagram: bytes, address: Address) -> None:
        """Receive what is no request: an acknowledgement or reset, a ping, a response that nobody awaits."""
        header = decode_header(datagram)
        if header.kind in (ACK, RST):
            self._transmissions.end(address, header.id, header.kind)
        elif header.kind == CON:
            self.send(reset(header.id), address)

    def _receive_request(self, kind: int, code: int, datagram: bytes, address: Address, now: float) -> None:
        key = key_of(address, datagram)
        if (known := self._exchanges.find(key)) is not None:
            if kind == CON and known.reply:
                self.send(_acknowledgement(datagram[2 : 4 + (datagram[0] & 15)], known.reply), address)
            return
        header = decode_header(datagram)
        target, payload = self._targets.read(datagram, 4 + len(header.token))
        if kind == NON and target.fault is not None and target.fault.code == numbers.BAD_OPTION:
            self._resources.garbage(str(address), target.fault.text, payload)  # to be rejected: §5.4.1
            return
        exchange = self._exchanges.begin(key, address, kind, now)
        endpoint = exchange.endpoint
        request = DatagramRequest(self, exchange, kind, datagram)
        request.code, request.target, request.payload = code, target, payload
        endpoint.unanswered += 1
        if endpoint.unanswered > MAX_UNANSWERED:
            request.answer(error(numbers.TOO_MANY_REQUESTS, f"{MAX_UNANSWERED} requests wait for their answer"))
        else:
            self._resources.handle(request)


class DatagramRequest(Request):
    """A request that came in a datagram."""

    __slots__ = ("_exchange", "_head", "_is_acknowledged", "_is_trusted", "_kind", "_server", "_size")

    is_datagram = True

    def __init__(self, server: DatagramEndpoint, exchange: Exchange, kind: int, datagram: bytes) -> None:
        self._server = server
        self._exchange = exchange
        self._kind = kind
        self._head = datagram[2 : 4 + (datagram[0] & 15)]  # message id and token
        self._size = len(datagram)
        self._is_acknowledged = False
        self._is_trusted = False

    @property
    def peer(self) -> str:
        return str(self._exchange.endpoint.address)

    @property
    def sender(self) -> Hashable:
        return self._exchange.endpoint.address

    def acknowledge(self) -> None:
        if self._kind == CON and not self._is_acknowledged:
            self._is_acknowledged = True
            self._server.acknowledge(self._exchange, self._id)

    def answer(self, answer: Answer) -> None:
        server, endpoint = self._server, self._exchange.endpoint
        endpoint.unanswered -= 1
        if self.target.no_response and is_unwanted(self.target, answer.code):
            self.acknowledge()
            return
        answer = completed(answer, self.target)
        if len(answer.payload) > (room := self.room_for_payload()):
            answer = answer._replace(payload=answer.payload[:room].decode(errors="ignore").encode())
        if self._kind == NON or self._is_acknowledged:
            server.answer_separately(endpoint, self._head[2:], answer, self._kind)
        else:
            reply = bytes((answer.code,)) + encode_options(answer.options, answer.payload)
            server.piggyback(self._exchange, self._head, reply)

    def trust(self) -> None:
        self._is_trusted = True

    def room_for_payload(self) -> int:
        if self._is_trusted:
            return BLOCK_BYTES
        most = MAX_AMPLIFICATION * (self._size + WIRE_BYTES) - WIRE_BYTES
        return max(0, most - 2 - len(self._head) - OPTION_BYTES)

    def observer(self) -> Observer:
        self._server.watch(self._exchange.endpoint)
        return DatagramObserver(self._server, self._exchange.endpoint, self._head[2:])

    @property
    def _id(self) -> int:
        return self._head[0] << 8 | self._head[1]


class DatagramObserver(Observer):
    """An endpoint that observes something."""

    def __init__(self, server: DatagramEndpoint, endpoint: Endpoint, token: bytes) -> None:
        self._server = server
        self._endpoint = endpoint
        self._token = token

    @property
    def endpoint(self) -> Hashable:
        return self._endpoint.address

    async def is_there(self, seconds: float) -> bool:
        return await self._server.ping(self._endpoint, seconds)

    async def notify(self, answer: Answer, seconds: float) -> int | None:
        return await self._server.notify(self._endpoint, self._token, answer, seconds)


_ACKNOWLEDGES = [bytes((0x40 | ACK << 4 | length,)) for length in range(numbers.MAX_TOKEN_BYTES + 1)]
_EMPTY = bytes((numbers.EMPTY,))


def _acknowledgement(head: bytes, reply: bytes) -> bytes:
    """Return an acknowledgement's bytes.

    Args:
        head: The request's message id and token.
        reply: The answer's code, and what follows the token.
    """
    if reply == _EMPTY:
        return _ACKNOWLEDGES[0] + _EMPTY + head[:2]
    return _ACKNOWLEDGES[len(head) - 2] + reply[:1] + head + reply[1:]
