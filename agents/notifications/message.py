"""Messages: what a channel is going to say of one alarm, or of one other subject of events.

Ordinarily a message is one state change. Those of one alarm that pile up are folded into one that counts them: so a queue
is no longer than there are alarms, however long a channel is dead and however much an alarm flaps.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from isotherm.events import SEVERITIES, Event, Severity

RAISED, CLEARED, ACKNOWLEDGED = "alarm.raised", "alarm.cleared", "alarm.acknowledged"


class Message(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One state change for one channel, or several of one subject.

    Attributes:
        id: Channel and event, ``ops|alarms/3/18c2/17``: the first event where several were folded.
        channel: Who hears of it.
        at: When the first event was taken, µs; messages are told in the order of ``at`` and ``order``.
        order: Counts up within a router.
        event: The last event.
        severity: The worst one.
        since: When the first event happened, µs.
        counts: How often each kind of event came; in all, how many events this is.
        held: It had to await the end of quiet hours.
        delivery: Of which delivery it is part, or empty.
    """

    id: str
    channel: str
    at: int
    order: int
    event: Event
    severity: Severity
    since: int
    counts: dict[str, int]
    held: bool = False
    delivery: str = ""

    @classmethod
    def of(cls, channel: str, event: Event, *, at: int, order: int) -> Message:
        """Make one of an event."""
        return cls(
            id=f"{channel}|{identity(event)}" + ("" if event.source else f"/{order}"),
            channel=channel,
            at=at,
            order=order,
            event=event,
            severity=event.severity,
            since=event.time,
            counts={event.kind: 1},
        )

    @property
    def subject(self) -> str:
        """What it is about: the alarm, or what else the event is of."""
        return subject(self.event)

    @property
    def rank(self) -> int:
        """How bad it is, 0 is the worst."""
        return SEVERITIES.index(self.severity)

    @property
    def total(self) -> int:
        """How many events it tells of."""
        return sum(self.counts.values())


class Delivery(NamedTuple):
    """What leaves at once.

    Attributes:
        id: Stable: the same messages have the same one.
        channel: Who gets it.
        messages: In the order that they came.
        time: When it was put together, µs.
    """

    id: str
    channel: str
    messages: Sequence[Message]
    time: int


def identity(event: Event) -> str:
    """Return what an event is known by; one without a source by what it says."""
    return event.id if event.source else f"{event.kind}/{event.device}/{event.alarm}/{event.time}"


def subject(event: Event) -> str:
    """Return what an event is about: its alarm, its device's presence, or its kind for its device."""
    if event.alarm:
        return event.alarm
    family, dot, _ = event.kind.partition(".")
    return f"{event.device} {family if dot else event.kind}"


def fold(messages: Sequence[Message]) -> Message:
    """Make one of several messages of the same subject and channel, which are not empty and in their order."""
    first, last = messages[0], messages[-1]
    counts: dict[str, int] = {}
    for one in messages:
        for kind, count in one.counts.items():
            counts[kind] = counts.get(kind, 0) + count
    return msgspec.structs.replace(
        first,
        event=last.event,
        severity=min(messages, key=lambda one: one.rank).severity,
        counts=counts,
        held=any(one.held for one in messages),
    )


def delivery_id(messages: Iterable[Message]) -> str:
    """Return the id of a delivery of these messages: it depends on nothing but what they tell."""
    digest = hashlib.sha256()
    for one in sorted(messages, key=lambda one: one.id):
        digest.update(f"{one.id}|{identity(one.event)}|{one.total}\n".encode())
    return digest.hexdigest()[:32]
