"""Commands over CoAP: a device observes ``/devices/{id}/commands`` (RFC 7641) and is notified of each, confirmably.

    GET  /devices/lamp/commands  Observe: 0          2.05 without a payload; then a 2.05 with each command, as JSON
    POST /devices/lamp/replies   {"id":…,"result":…} 2.04 when Kafka has it

The acknowledgement of a notification says that the device has the command. An address may belong to nobody any more, as
NATs forget them: a device that was not heard of lately is pinged first, so that a command is not sent to where nobody is. It
is given when the device observes again, from whatever address; it does so when it has heard nothing for Max-Age, a minute.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable

import msgspec

from connectors.coap import numbers
from connectors.coap.options import encode_uint
from connectors.coap.requests import Answer, Observer
from connectors.dispatch import Dispatcher, Given, payload
from isotherm.commands import Command
from isotherm.errors import Unauthorized, Unavailable

PING_SECONDS = 4.0
NOTIFY_SECONDS = 8.0
"""How long an acknowledgement may take, with two retransmissions; both together are less than a claim holds."""

MAX_OBSERVATIONS = 100_000
"""Beyond, the oldest are given up."""


class Observations:
    """Who observes their commands, of all endpoints."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._known: dict[tuple[Hashable, str], Observation] = {}

    def begin(self, observer: Observer, device: str, admit: Callable[[], Awaitable[object]]) -> Answer:
        """Let a device observe its commands, if it does not do so; returns the answer.

        Args:
            observer: Its endpoint and token.
            device: Whose commands they are.
            admit: Looks whether it still may, else raises Unauthorized.
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
        return Answer(numbers.CONTENT, [known.next_number()])

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
        answer = Answer(numbers.CONTENT, [self.next_number(), kind], msgspec.json.encode(payload(command)))
        heard = await self._observer.notify(answer, NOTIFY_SECONDS)
        if heard == numbers.ACK:
            return "delivered"
        self._end()
        return "sent" if heard is None else "returned"  # a reset says that it does not observe this (§4.5)

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
