"""The router: which channel hears of which event, and a queue of that which survives everything. One a partition, pure.

Its state, as rows of msgpack:

    ``source:SOURCE``    Source     the greatest number of an event that was taken: one that comes again is known
    ``message:ID``       Message    what a channel has still to be told, see `message`
    ``delivery:ID``      Bound      a delivery that was put together and has not been taken by the far end
    ``left:CHANNEL``     times      when deliveries left for a channel within the last hour, by their ids
    ``failed:ID``        GivenUp    what a channel was not told in the end

The framework stores the rows that `changes` returns together with the offset after the last event that `take` was given: so
either an event was taken and its messages are queued, or it comes again.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

import msgspec

from agents.engine import Changes
from agents.notifications.message import Message, fold
from agents.notifications.quiet import gets_through, quiet_until
from agents.notifications.text import summary
from isotherm.channels import Channel
from isotherm.events import SEVERITIES, Event
from isotherm.limits import DAY, HOUR

FOLDED_ABOVE = 4
"""State changes of one subject that await their turn each by itself; more than this are folded into one message."""

SOURCE_KEPT = 32 * DAY
"""How long a source is known after its last event, µs: longer than the topic keeps that."""

FAILED_KEPT = 30 * DAY
MAX_FAILED = 1_000
"""Deliveries that were given up which a partition keeps for `isotherm notify failed`: the newest."""

log = logging.getLogger(__name__)


class Source(msgspec.Struct, frozen=True, array_like=True):
    """Of a source of events.

    Attributes:
        number: The greatest that was taken.
        at: When it was, µs.
    """

    number: int
    at: int


class Bound(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A delivery, as far as this partition has part in it.

    Attributes:
        id: Of the delivery.
        channel: Who gets it.
        at: When it was put together, µs.
        size: Messages of all partitions in it.
        attempts: How often sending it failed.
        retry_at: When it is tried again, µs; 0 for at once.
        error: Why it failed the last time, without secrets.
    """

    id: str
    channel: str
    at: int
    size: int
    attempts: int = 0
    retry_at: int = 0
    error: str = ""


class GivenUp(msgspec.Struct, frozen=True, kw_only=True):
    """What a channel was not told in the end.

    Attributes:
        delivery: Its id.
        channel: Who should have heard of it.
        at: When it was put together, µs.
        given_up: When nobody tried any longer, µs.
        attempts: How often it was tried.
        error: Why it failed the last time.
        lines: What it says, the worst first; not more than a digest shows.
        messages: How many it was.
    """

    delivery: str
    channel: str
    at: int
    given_up: int
    attempts: int
    error: str
    lines: list[str]
    messages: int


_encode = msgspec.msgpack.encode


class Router:
    """Takes the events of one partition. When a method raises, begin anew with a new router and `load`."""

    def __init__(self) -> None:
        self._channels: dict[str, Channel] | None = None
        self._shelved: Collection[str] = ()
        self._clear()

    def _clear(self) -> None:
        self._sources: dict[str, Source] = {}
        self._queued: dict[str, dict[str, Message]] = {}  # channel → id → message that is in no delivery
        self._alike: dict[tuple[str, str], list[str]] = {}  # channel and subject → ids of those
        self._bound: dict[str, Bound] = {}
        self._parts: dict[str, list[Message]] = {}  # delivery → messages
        self._left: dict[str, dict[str, int]] = {}  # channel → delivery → when it left
        self._failed: dict[str, GivenUp] = {}
        self._order = 0
        self._rows: dict[str, bytes | None] = {}

    def load(self, rows: Mapping[str, bytes]) -> None:
        """Begin with a state: everything that `changes` ever told and that was not taken back."""
        self._clear()
        messages = []
        for key, row in rows.items():
            kind, _, name = key.partition(":")
            if kind == "source":
                self._sources[name] = msgspec.msgpack.decode(row, type=Source)
            elif kind == "message":
                messages.append(msgspec.msgpack.decode(row, type=Message))
            elif kind == "delivery":
                self._bound[name] = msgspec.msgpack.decode(row, type=Bound)
            elif kind == "left":
                self._left[name] = msgspec.msgpack.decode(row, type=dict[str, int])
            elif kind == "failed":
                self._failed[name] = msgspec.msgpack.decode(row, type=GivenUp)
            else:
                raise ValueError(f"a row {key!r} is none of a router's: another version wrote it")
        for one in sorted(messages, key=lambda one: one.order):
            self._order = max(self._order, one.order + 1)
            if one.delivery:
                self._parts.setdefault(one.delivery, []).append(one)
            else:
                self._enqueue(one)

    def refresh(self, channels: Iterable[Channel], shelved: Collection[str] = ()) -> None:
        """Take in which channels there are and which alarms are shelved, as keys.

        What was for a channel that is gone is dropped, and logged. Call it before the first `take`, and whenever one of
        both has changed.
        """
        self._channels = {one.id: one for one in channels}
        self._shelved = shelved
        for name in [one for one in self._queued if one not in self._channels]:
            gone = list(self._queued[name].values())
            for one in gone:
                self._dequeue(one)
                self._rows[f"message:{one.id}"] = None
            del self._queued[name]
            if gone:
                log.warning("channel %s is gone: %d messages for it are told no more", name, len(gone))
        for bound in [one for one in self._bound.values() if one.channel not in self._channels]:
            log.warning("channel %s is gone: delivery %s is sent no more", bound.channel, bound.id)
            self._end(bound)
        for name in [one for one in self._left if one not in self._channels]:
            del self._left[name]
            self._rows[f"left:{name}"] = None

    def take(self, events: Sequence[Event], now: int) -> None:
        """Queue what channels are to hear of some events; those that were taken before are passed over.

        Raises:
            RuntimeError: `refresh` has not said yet which channels there are: everything would be told to nobody.
        """
        if self._channels is None:
            raise RuntimeError("a router was given events before it was told which channels there are: call refresh() first")
        for event in events:
            if not self._is_new(event, now) or event.alarm in self._shelved or event.rule in self._shelved:
                continue
            for channel in self._channels.values():
                if passes(channel, event):
                    message = Message.of(channel.id, event, at=now, order=self._order)
                    self._order += 1
                    self._enqueue(message)
                    self._keep(message)
                    self._fold((message.channel, message.subject))

    def due(self, now: int) -> list[Message]:
        """Return what awaits its turn and no quiet hours hold back, in its order; it stays here until `bind`.

        What they hold back is marked: it is told as one digest when they are over.
        """
        found: list[Message] = []
        for name, queue in self._queued.items():
            channel = (self._channels or {}).get(name)
            if channel is None:
                continue
            is_quiet = quiet_until(channel, now) is not None
            for one in list(queue.values()):
                if not is_quiet or gets_through(channel, one):
                    found.append(one)
                elif not one.held:
                    queue[one.id] = held = msgspec.structs.replace(one, held=True)
                    self._keep(held)
        return sorted(found, key=lambda one: (one.at, one.order))

    def bind(self, delivery: str, messages: Sequence[Message], size: int, now: int) -> None:
        """Make messages part of a delivery: they change no more, and are due no more.

        Args:
            delivery: Its id.
            messages: Some that `due` returned, of one channel.
            size: Messages of all partitions in the delivery.
            now: µs since the epoch UTC.
        """
        channel = messages[0].channel
        for one in messages:
            self._dequeue(one)
            bound = msgspec.structs.replace(one, delivery=delivery)
            self._parts.setdefault(delivery, []).append(bound)
            self._keep(bound)
        self._keep_bound(Bound(id=delivery, channel=channel, at=now, size=size))
        self._leave(channel, delivery, now)

    def rebind(self, delivery: str, new: str, size: int) -> None:
        """Make the part of a delivery that is here part of another one, because the others are not to be found.

        Args:
            delivery: Its id.
            new: That of the other.
            size: Messages of all partitions in that.
        """
        bound = self._bound.pop(delivery)
        self._rows[f"delivery:{delivery}"] = None
        self._parts[new] = [msgspec.structs.replace(one, delivery=new) for one in self._parts.pop(delivery)]
        for one in self._parts[new]:
            self._keep(one)
        self._keep_bound(msgspec.structs.replace(bound, id=new, size=size))
        self._leave(bound.channel, new, bound.at)

    def deliveries(self) -> list[tuple[Bound, Sequence[Message]]]:
        """Return the deliveries that have not been taken by the far end, with the messages that are of this partition."""
        return [(one, self._parts.get(name, ())) for name, one in self._bound.items()]

    def left(self, channel: str) -> Mapping[str, int]:
        """Return when deliveries left for a channel, by their ids: at least those of the last hour."""
        return self._left.get(channel, {})

    def outcome(self, channel: str, delivery: str) -> str | None:
        """Return what came of a delivery that this partition had part in: "" when it was taken, else why it was given up.

        None when that is not known: it is not over, or was never here, or is long ago.
        """
        if delivery in self._failed:
            return self._failed[delivery].error
        return "" if delivery in self._left.get(channel, {}) and delivery not in self._bound else None

    def sent(self, ids: Iterable[str], now: int) -> None:
        """Take in that the far end has taken some deliveries; those that are not here are passed over."""
        for name in ids:
            if bound := self._bound.get(name):
                self._leave(bound.channel, name, now)
                self._end(bound)

    def failed(self, id: str, error: str, now: int, *, retry_at: int | None) -> None:
        """Take in that a delivery could not be sent.

        Args:
            id: Of the delivery; one that is not here is passed over.
            error: Why, without secrets.
            now: µs since the epoch UTC.
            retry_at: When it is tried again, µs; None when it is given up.
        """
        bound = self._bound.get(id)
        if bound is None:
            return
        bound = msgspec.structs.replace(bound, attempts=bound.attempts + 1, error=error, retry_at=retry_at or 0)
        if retry_at is not None:
            self._keep_bound(bound)
            return
        messages = self._parts.get(id, [])
        self._failed[id] = GivenUp(
            delivery=id,
            channel=bound.channel,
            at=bound.at,
            given_up=now,
            attempts=bound.attempts,
            error=error,
            lines=summary(messages, self._zone(bound.channel)).lines,
            messages=len(messages),
        )
        self._rows[f"failed:{id}"] = _encode(self._failed[id])
        self._end(bound)
        self._forget_failed(now)

    def changes(self) -> Changes:
        """Return what has changed since this was last asked."""
        rows = {key: row for key, row in self._rows.items() if row is not None}
        gone = [key for key, row in self._rows.items() if row is None]
        self._rows = {}
        return Changes(rows, gone)

    def _is_new(self, event: Event, now: int) -> bool:
        """Note an event's number; tells whether it is greater than any before. One without a source is always new."""
        if not event.source:
            return True
        known = self._sources.get(event.source)
        if known is None:
            for name in [one for one, source in self._sources.items() if source.at < now - SOURCE_KEPT]:
                del self._sources[name]
                self._rows[f"source:{name}"] = None
        elif event.number <= known.number:
            return False
        self._sources[event.source] = Source(event.number, now)
        self._rows[f"source:{event.source}"] = _encode(self._sources[event.source])
        return True

    def _fold(self, alike: tuple[str, str]) -> None:
        ids = self._alike[alike]
        if len(ids) <= FOLDED_ABOVE:
            return
        queue = self._queued[alike[0]]
        messages = [queue[id] for id in ids]
        for one in messages:
            self._dequeue(one)
            self._rows[f"message:{one.id}"] = None
        folded = fold(messages)
        self._enqueue(folded)
        self._keep(folded)

    def _enqueue(self, message: Message) -> None:
        self._queued.setdefault(message.channel, {})[message.id] = message
        self._alike.setdefault((message.channel, message.subject), []).append(message.id)

    def _dequeue(self, message: Message) -> None:
        del self._queued[message.channel][message.id]
        alike = self._alike[message.channel, message.subject]
        alike.remove(message.id)
        if not alike:
            del self._alike[message.channel, message.subject]

    def _keep(self, message: Message) -> None:
        self._rows[f"message:{message.id}"] = _encode(message)

    def _keep_bound(self, bound: Bound) -> None:
        self._bound[bound.id] = bound
        self._rows[f"delivery:{bound.id}"] = _encode(bound)

    def _end(self, bound: Bound) -> None:
        for one in self._parts.pop(bound.id, ()):
            self._rows[f"message:{one.id}"] = None
        del self._bound[bound.id]
        self._rows[f"delivery:{bound.id}"] = None

    def _leave(self, channel: str, delivery: str, now: int) -> None:
        kept = {name: time for name, time in self._left.get(channel, {}).items() if time > now - HOUR}
        self._left[channel] = kept | {delivery: now}
        self._rows[f"left:{channel}"] = _encode(self._left[channel])

    def _forget_failed(self, now: int) -> None:
        newest = sorted(self._failed.values(), key=lambda one: one.given_up, reverse=True)
        for one in [*newest[MAX_FAILED:], *(one for one in newest[:MAX_FAILED] if one.given_up < now - FAILED_KEPT)]:
            del self._failed[one.delivery]
            self._rows[f"failed:{one.delivery}"] = None

    def _zone(self, channel: str) -> str:
        known = (self._channels or {}).get(channel)
        return known.zone if known else "UTC"


def passes(channel: Channel, event: Event) -> bool:
    """Tell whether a channel wants to hear of an event."""
    return (
        SEVERITIES.index(event.severity) <= channel.rank
        and any(fnmatchcase(event.kind, kind) for kind in channel.kinds)
        and fnmatchcase(event.device, channel.devices)
        and (not channel.rules or any(fnmatchcase(event.rule, rule) for rule in channel.rules))
    )
