"""The newest events, kept in the store for people and pages; the topic ``events`` has all of 30 days."""

from __future__ import annotations

import heapq
from collections.abc import Iterable

import msgspec

from isotherm.events import Event
from isotherm.store import layout
from isotherm.store.client import Client
from isotherm.store.reader import answering
from isotherm.topics import partition_of

MAX_EVENTS = 10_000
"""Events that a partition keeps in the store."""


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
        """Return the newest events, newest first.

        Args:
            count: How many at most.
            device: Only those of this device; of the others in its partition, too, MAX_EVENTS are looked through.
        """
        partitions = [partition_of(device, self._partitions)] if device else range(self._partitions)
        found: list[Event] = []
        with answering():
            for partition in partitions:
                rows = await self._redis.xrevrange(layout.events_key(partition), count=MAX_EVENTS if device else count)
                found += _events(rows)
        if device:
            found = [event for event in found if event.device == device]
        return heapq.nlargest(count, found, key=lambda event: event.time)


def _events(rows: Iterable[tuple[bytes, dict[bytes, bytes]]]) -> list[Event]:
    return [msgspec.json.decode(fields[b"e"], type=Event) for _, fields in rows]
