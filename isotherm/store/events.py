"""The newest events, kept in the store for people and pages; the topic ``events`` has all of 30 days."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from isotherm.events import Event
from isotherm.store import layout
from isotherm.store.client import Client
from isotherm.store.reader import answering
from isotherm.topics import partition_of

MAX_EVENTS = 10_000
"""Events that a partition keeps in the store."""


Places = dict[int, str]
"""Partition → id of the next event, in those that have one."""


class EventLog:
    """Reads the newest events, and adds what people do. Every method raises Unavailable when the store does not answer."""

    def __init__(self, redis: Client, partitions: int) -> None:
        self._redis = redis
        self._partitions = partitions

    async def append(self, event: Event) -> None:
        """Add an event that no analytic has made."""
        key = layout.events_key(partition_of(event.device, self._partitions))
        with answering():
            await self._redis.xadd(key, {b"e": event.to_json()}, maxlen=MAX_EVENTS, approximate=True)

    async def ends(self) -> tuple[bytes, ...]:
        """Return what changes with every event: the id of each partition's newest, empty where there is none."""
        with answering():
            async with self._redis.pipeline(transaction=False) as look:
                for partition in range(self._partitions):
                    look.xrevrange(layout.events_key(partition), count=1)
                return tuple(rows[0][0] if rows else b"" for rows in await look.execute())

    async def newest(self, count: int = 100, *, device: str = "") -> list[Event]:
        """Return the newest events, newest first; see `page`."""
        return (await self.page(count, device=device))[0]

    async def page(self, count: int, *, device: str = "", before: Places | None = None) -> tuple[list[Event], Places]:
        """Return some events, newest first, and where the next ones begin; empty when there are none.

        The order of a partition is that in which its events came to be known; partitions are merged by when they happened.

        Args:
            count: How many at most.
            device: Only those of this device; of the others in its partition, too, MAX_EVENTS are looked through.
            before: Where to go on, as it was returned; None to begin.
        """
        wanted = [partition_of(device, self._partitions)] if device else list(range(self._partitions))
        places = dict.fromkeys(wanted, "+") if before is None else dict(before)
        rows: list[Iterable[_Row]] = []
        for partition in (one for one in wanted if one in places):
            most = MAX_EVENTS if device else count + 1
            with answering():
                found = await self._redis.xrevrange(layout.events_key(partition), places[partition], count=most)
            rows.append(_rows(partition, found, device))
        events: list[Event] = []
        left: Places = {}
        for row in heapq.merge(*rows, key=lambda row: row.event.time, reverse=True):
            if len(events) < count:
                events.append(row.event)
            else:
                left.setdefault(row.partition, row.id)
        return events, left


class _Row(NamedTuple):
    partition: int
    id: str
    event: Event


def _rows(partition: int, found: Iterable[tuple[bytes, dict[bytes, bytes]]], device: str) -> list[_Row]:
    read = ((id.decode(), msgspec.json.decode(fields[b"e"], type=Event)) for id, fields in found)
    return [_Row(partition, id, event) for id, event in read if not device or event.device == device]
