"""What happens to commands, as JSON on the topics ``commands`` (what people ask for) and ``replies`` (what comes of it).

    kind        what has happened                                                  state then
    ----------  -----------------------------------------------------------------  ----------------------------
    queued      somebody asks for it; with the whole command                       queued
    cancelled   somebody does not want it any more, before it was taken up         failed
    claimed     a connector is about to give it to the device                      queued
    returned    it did not get to the device: it may be given again                queued
    sent        it was written to the device's connection, or the broker has it    sent
    delivered   the device has it                                                  delivered
    answered    the device has replied                                             answered
    refused     the device has replied that it cannot                              failed

Both logs together are what is true; the table in the store (`table`) follows them. What time alone brings about, expiry and
the end of a connector's claim, is no fact of its own: it follows from the others.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from isotherm.commands.command import Command, State
from isotherm.topics import COMMANDS, REPLIES, Topic

Kind = Literal["queued", "cancelled", "claimed", "returned", "sent", "delivered", "answered", "refused"]

END = 1_000_000_000
"""Position of a command that has ended; what the device says stands above it."""

_STEPS = {"claimed": 1, "sent": 3, "delivered": 4, "returned": 5}
_STATES: dict[Kind, State] = {
    "queued": "queued",
    "cancelled": "failed",
    "claimed": "queued",
    "returned": "queued",
    "sent": "sent",
    "delivered": "delivered",
    "answered": "answered",
    "refused": "failed",
}


class Fact(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that has happened to a command.

    Attributes:
        kind: See the table above.
        id, device: Of the command.
        time: When, µs since the epoch UTC.
        attempt: The how manieth taking up it belongs to.
        via: The connector.
        result: What the device answered, JSON.
        error: Why it cannot, or who has cancelled it.
        command: Of a ``queued``, the command.
    """

    kind: Kind
    id: str
    device: str
    time: int
    attempt: int = 0
    via: str = ""
    result: str = ""
    error: str = ""
    command: Command | None = None

    @property
    def position(self) -> int:
        """How much is known with it: what is known of a command is the greatest position that any fact has."""
        if self.kind == "queued":
            return 0
        if self.kind in _STEPS:
            return 10 * self.attempt + _STEPS[self.kind]
        return END if self.kind == "cancelled" else END + 1

    @property
    def state(self) -> State:
        """The state that a command has by it."""
        return _STATES[self.kind]

    @property
    def topic(self) -> Topic:
        """Where it is told."""
        return COMMANDS if self.kind in ("queued", "cancelled") else REPLIES

    def to_json(self) -> bytes:
        """Encode for the topic."""
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, data: bytes) -> Fact:
        """Decode a record of a topic.

        Raises:
            msgspec.DecodeError: it is no fact.
        """
        return msgspec.json.decode(data, type=cls)


def fact_of(command: Command, kind: Kind, time: int, **fields: Any) -> Fact:
    """Return a fact about a command, of its present attempt."""
    return Fact(kind=kind, id=command.id, device=command.device, time=time, attempt=command.attempt, **fields)
