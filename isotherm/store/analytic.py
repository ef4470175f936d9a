"""An analytic's place in the store: how far it is in a log, the rows of its state, and what it has still to deliver.

    iso:{p}:agent:NAME          version   a name of the last commit: what every commit compares and swaps
                                log       identity of the log that ``next`` is an offset of
                                next      offset of the first record that is not in the state
                                mark      what the record before it is known by
                                outbox    what came of the last commit, to be delivered to Kafka before the next one
                                event     number of the next event
                                born      when the state began, µs: an event's number counts from there
    iso:{p}:agent:NAME:state    key → row
    iso:{p}:agent:NAME:numbers  derived series → number of its next reading

One script writes all of it, so a state is never ahead of its offset or behind what was made of it. Whoever finds another
version than the one it knows has been overtaken, and reads everything anew. The outbox is delivered after its commit, and
again by whoever takes over: readings are numbered and events too, so what comes twice is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple

import msgspec

from isotherm.clock import now_us
from isotherm.store import layout
from isotherm.store.client import Client
from isotherm.store.events import MAX_EVENTS
from isotherm.store.reader import answering
from isotherm.store.script import Script, pairs
from isotherm.store.writer import Progress


class Outgoing(NamedTuple):
    """A record that waits for its delivery, and how many readings it holds."""

    topic: str
    key: str
    value: bytes
    readings: int = 0


@dataclass(slots=True)
class Held:
    """What the store holds of an analytic in a partition.

    Attributes:
        version: Name of the last commit, or empty when there was none.
        progress: How far it is in this log, or None when it has read nothing of it.
        outbox: What was made last; it may not be delivered yet.
        born: When the state began, µs since the epoch UTC.
        next_event: Number of the next event.
        rows: Key → row of the state.
        numbers: Derived series → number of its next reading.
    """

    version: str = ""
    progress: Progress | None = None
    outbox: Sequence[Outgoing] = ()
    born: int = 0
    next_event: int = 0
    rows: dict[str, bytes] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Commit:
    """What is written at once; see `Held`.

    Attributes:
        rows, gone: Of the state: rows that are new, and keys that are gone.
        events: JSON of each event, for the store's own list.
    """

    progress: Progress | None
    outbox: Sequence[Outgoing]
    next_event: int
    rows: Mapping[str, bytes]
    gone: Sequence[str]
    numbers: Mapping[str, int]
    events: Sequence[bytes]


class AnalyticStore:
    """Reads and commits the state of one analytic. Every method raises Unavailable when the store does not answer."""

    def __init__(self, redis: Client, name: str, log_id: str) -> None:
        self._redis = redis
        self._name = name
        self._log_id = log_id
        self._commit = Script(redis, "analytic.lua")
        self._load = Script(redis, "load.lua")

    def key(self, partition: int) -> str:
        """Return the key of the progress."""
        return layout.analytic_key(partition, self._name)

    async def progress(self, partition: int) -> Progress | None:
        """Return how far it is, or None when it has read nothing of this log."""
        with answering():
            log, following, mark = await self._redis.hmget(self.key(partition), ["log", "next", "mark"])
        return self._progress(log, following, mark)

    def _progress(self, log: bytes | None, following: bytes | None, mark: bytes | None) -> Progress | None:
        if log is None or log.decode() != self._log_id or not following:
            return None
        return Progress(int(following), (mark or b"").decode())

    async def load(self, partition: int) -> Held:
        """Return everything, as of one moment."""
        with answering():
            own, state, numbers = await self._load(self._keys(partition)[:3], [now_us()])
        fields = pairs(own)
        return Held(
            version=fields.get(b"version", b"").decode(),
            progress=self._progress(fields.get(b"log"), fields.get(b"next"), fields.get(b"mark")),
            outbox=msgspec.msgpack.decode(fields[b"outbox"], type=list[Outgoing]) if fields.get(b"outbox") else (),
            born=int(fields[b"born"]),
            next_event=int(fields.get(b"event", 0)),
            rows={key.decode(): row for key, row in pairs(state).items()},
            numbers={series.decode(): int(number) for series, number in pairs(numbers).items()},
        )

    async def commit(self, partition: int, commit: Commit, *, expected: str, version: str) -> bool:
        """Write everything, or nothing when the store has another version than the expected one.

        Args:
            partition: The shard.
            commit: What to write.
            expected: The version that the commit builds on.
            version: The version after it. A commit that is repeated, because its answer was lost, has the same.

        Returns:
            Whether it was written.
        """
        progress = commit.progress
        arguments: list[Any] = [
            expected,
            version,
            self._log_id,
            "" if progress is None else progress.next,
            "" if progress is None else progress.mark,
            msgspec.msgpack.encode(commit.outbox) if commit.outbox else b"",
            commit.next_event,
            MAX_EVENTS,
            *map(len, (commit.rows, commit.gone, commit.numbers, commit.events)),
            *chain.from_iterable(commit.rows.items()),
            *commit.gone,
            *chain.from_iterable(commit.numbers.items()),
            *commit.events,
        ]
        with answering():
            return bool((await self._commit(self._keys(partition), arguments))[0])

    async def forget(self, partition: int) -> None:
        """Forget the state and the progress, so that the analytic begins anew."""
        with answering():
            async with self._redis.pipeline(transaction=True) as change:
                change.delete(*self._keys(partition)[:3])
                await change.execute()

    def _keys(self, partition: int) -> list[str]:
        return [
            self.key(partition),
            layout.state_key(partition, self._name),
            layout.numbers_key(partition, self._name),
            layout.events_key(partition),
        ]
