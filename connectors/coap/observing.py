"""Commands over CoAP: a device observes ``/devices/{id}/commands`` (RFC 7641) and is notified of each, confirmably.

    GET  /devices/lamp/commands  Observe: 0          2.05 without a payload; then a 2.05 with each command, as JSON
    POST /devices/lamp/replies   {"id":…,"result":…} 2.04 when Kafka has it

A command of more than a block comes in blocks (Block2, RFC 7959 §2.6): the notification has the first one, and the device
asks for the others, without Observe. Another command waits until it has the last one, or the time is over.

The acknowledgement of a notification says that the device has the command, unless it has more blocks. An address may belong
to nobody any more, as NATs forget them: a device that was not heard of lately is pinged first, so that a command is not sent
to where nobody is. It is given when the device observes again, from whatever address; it does so when it has heard nothing
for Max-Age, a minute.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Hashable
from contextlib import suppress

import msgspec

from connectors.coap import numbers
from connectors.coap.options import Block, Fault, Target, encode_uint
from connectors.coap.parts import part_of
from connectors.coap.requests import Answer, Observer, error
from connectors.dispatch import Dispatcher, Given, payload
from isotherm.commands import Command
from isotherm.errors import Unauthorized, Unavailable

PING_SECONDS = 4.0
NOTIFY_SECONDS = 8.0
"""How long an acknowledgement may take, with two retransmissions, and with it the fetching of further blocks; both together
are less than a claim holds."""

EXPONENT = 6
"""Of the largest block, 1,024 bytes, unless the device has asked for smaller ones."""

ETAG_BYTES = 8

MAX_OBSERVATIONS = 100_000
"""Beyond, the oldest are given up."""


class Observations:
    """Who observes their commands, of all endpoints."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._known: dict[tuple[Hashable, str], Observation] = {}

    def begin(
        self, observer: Observer, device: str, admit: Callable[[], Awaitable[object]], block2: Block | None = None
    ) -> Answer:
        """Let a device observe its commands, if it does not do so; returns the answer.

        Args:
            observer: Its endpoint and token.
            device: Whose commands they are.
            admit: Looks whether it still may, else raises Unauthorized.
            block2: What it says of the size of blocks.
        """
        known = self._known.get((observer.endpoint, device))
        if known is None:
            known = self._known[observer.endpoint, device] = Observation(self, observer, device, admit)
            self._dispatcher.enter(device, known)
            while len(self._known) > MAX_OBSERVATIONS:
                self.end(*next(iter(self._known)))
        else:
            known.renew(observer, admit)
            self._dispatcher.heard(device)
        known.exponent = min(block2.exponent, EXPONENT) if block2 is not None else EXPONENT
        return Answer(numbers.CONTENT, [known.next_number()])

    def block(self, endpoint: Hashable, device: str, target: Target, room: int) -> Answer:
        """Return a further block of the command that a device was notified of last.

        Args:
            endpoint: Who asks.
            device: Whose command it is.
            target: What the request says.
            room: How many bytes an answer may have.
        """
        known = self._known.get((endpoint, device))
        if known is None or known.whole is None:
            return error(numbers.BAD_REQUEST, "this endpoint was notified of no command in blocks: expected Observe 0 or 1")
        return known.whole.block(target, room)

    def end(self, endpoint: Hashable, device: str) -> None:
        """Let it observe no longer."""
        if (known := self._known.pop((endpoint, device), None)) is not None:
            self._dispatcher.leave(device, known)


class Observation:
    """A way for commands: an endpoint that observes those of a device; of several times it does so the last one counts."""

    def __init__(
        self, observations: Observations, observer: Observer, device: str, admit: Callable[[], Awaitable[object]]
    ) -> None:
        self._device = device
        self._observations = observations
        self._observer = observer
        self._admit = admit
        self._number = 0
        self.exponent = EXPONENT
        self.whole: Whole | None = None

    def renew(self, observer: Observer, admit: Callable[[], Awaitable[object]]) -> None:
        """Note that it observes again, perhaps with another token."""
        self._observer, self._admit = observer, admit

    def next_number(self) -> tuple[int, bytes]:
        """Return the option that tells newer notifications from older ones (RFC 7641 §3.4)."""
        self._number = (self._number + 1) & 0xFFFFFF
        return numbers.OBSERVE, encode_uint(self._number)

    async def give(self, command: Command) -> Given:
        """Notify the device of a command; what is not acknowledged may have come all the same."""
        if not await self._may_and_is_there():
            self._end()
            return "returned"
        kind = numbers.CONTENT_FORMAT, encode_uint(numbers.JSON)
        data, self.whole = msgspec.json.encode(payload(command)), None
        answer = Answer(numbers.CONTENT, [self.next_number(), kind], data)
        if len(data) > 16 << self.exponent:
            self.whole = Whole(data)
            first = self.whole.block(Target(block2=Block(0, True, self.exponent)), len(data))
            answer = Answer(numbers.CONTENT, [self.next_number(), *first.options], first.payload)
        until = asyncio.get_running_loop().time() + NOTIFY_SECONDS
        heard = await self._observer.notify(answer, NOTIFY_SECONDS)
        if heard == numbers.ACK:
            return await self._fetched(until) if self.whole is not None else "delivered"
        self._end()
        return "sent" if heard is None else "returned"  # a reset says that it does not observe this (§4.5)

    async def _fetched(self, until: float) -> Given:
        """Wait until the last block was asked for: that the device has it, only its reply says."""
        assert self.whole is not None
        with suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await self.whole.was_given.wait()
        return "sent"

    def _end(self) -> None:
        self._observations.end(self._observer.endpoint, self._device)

    async def _may_and_is_there(self) -> bool:
        try:
            await self._admit()
        except Unauthorized:
            return False
        except Unavailable:
            pass  # as long as nobody can be asked, who was known still is
        return await self._observer.is_there(PING_SECONDS)


class Whole:
    """A command that goes in blocks.

    Attributes:
        was_given: Is set when the last block was.
    """

    def __init__(self, data: bytes) -> None:
        self.was_given = asyncio.Event()
        self._data = data
        self._etag = hashlib.sha256(data).digest()[:ETAG_BYTES]

    def block(self, target: Target, room: int) -> Answer:
        """Return the block that a request asks for; ``room`` is how many bytes an answer may have."""
        part = part_of(target, len(self._data), room)
        if isinstance(part, Fault):
            return error(part.code, part.text)
        assert part is not None, "who asks for no block is not answered here"
        if not part.more:
            self.was_given.set()
        options = [
            (numbers.ETAG, self._etag),
            (numbers.CONTENT_FORMAT, encode_uint(numbers.JSON)),
            (numbers.BLOCK2, part.encode()),
            (numbers.SIZE2, encode_uint(len(self._data))),
        ]
        begin = part.number * part.size
        return Answer(numbers.CONTENT, options, self._data[begin : begin + part.size])
