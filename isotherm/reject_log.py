"""The rejects as they lie on their topic, newest first, and which of them were taken in after all."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

import msgspec

from isotherm import kafka
from isotherm.errors import Unavailable
from isotherm.kafka import Record
from isotherm.rejects import RejectRecord
from isotherm.settings import Settings
from isotherm.store import layout
from isotherm.store.client import Client
from isotherm.store.reader import answering
from isotherm.topics import REJECTS

WINDOW = 200
"""Records of a partition that are read at a time, from the end on."""

MAX_LOOKED_AT = 20_000
"""Records that are looked at for one page; when few are meant, a page may have fewer than were asked for."""

ANSWER_SECONDS = 15.0

_decode = msgspec.json.Decoder(RejectRecord).decode


@dataclass(frozen=True, slots=True)
class Kept:
    """A reject as it lies on the topic.

    Attributes:
        id: ``PARTITION/OFFSET``.
        record: What was refused.
        is_replayed: Whether it was taken in after all.
    """

    id: str
    record: RejectRecord
    is_replayed: bool


@dataclass(frozen=True, slots=True)
class Filter:
    """Which rejects are meant; None is any.

    Attributes:
        reason, device, protocol: As the record says.
        since: When it was received at the earliest, µs since the epoch UTC.
    """

    reason: str | None = None
    device: str | None = None
    protocol: str | None = None
    since: int = 0

    def passes(self, record: RejectRecord) -> bool:
        """Tell whether a reject is meant."""
        pairs = ((self.reason, record.reason), (self.device, record.device), (self.protocol, record.protocol))
        return record.received_at >= self.since and all(wanted in (None, found) for wanted, found in pairs)


class RejectLog:
    """Reads the topic. Every method raises Unavailable when Kafka or the store does not answer."""

    def __init__(self, settings: Settings, redis: Client) -> None:
        self._settings = settings
        self._redis = redis

    async def all(self, chosen: Filter) -> list[Kept]:
        """Return the rejects that are meant, ascending by time."""
        replayed = await self._replayed()
        found = []
        async with kafka.Reader(self._settings) as reader:
            async for one in reader.follow(REJECTS, stop=True):
                record = _decode(one.value)
                if chosen.passes(record):
                    found.append(_kept(one, record, replayed))
        return sorted(found, key=lambda kept: kept.record.received_at)

    async def get(self, partition: int, offset: int) -> Kept | None:
        """Return a reject, or None when there is none at this place, or no longer."""
        if not 0 <= partition < self._settings.partitions:
            return None
        async with self._reader() as reader:
            found = await reader.record(REJECTS, partition, offset)
        return None if found is None else _kept(found, _decode(found.value), await self._replayed())

    async def newest(
        self, chosen: Filter, limit: int, before: Mapping[int, int] | None = None
    ) -> tuple[list[Kept], dict[int, int]]:
        """Return rejects that are meant, the newest of the log first, and before which offsets the next ones are.

        There are no more when there is no such offset. Each partition is read from its end, so this takes as long as what
        is asked for is far back, and not as the log is long.

        Args:
            chosen: Which are meant.
            limit: How many at most.
            before: Partition → offset, as it was returned with the page before.
        """
        replayed = await self._replayed()
        found: list[Kept] = []
        looked_at = 0
        async with self._reader() as reader:
            spans = await reader.ends(REJECTS)
            ends = {at: min(end, before.get(at, 0) if before else end) for at, (_, end) in spans.items()}
            while len(found) < limit and looked_at < MAX_LOOKED_AT:
                left = {at: end for at, end in ends.items() if end > spans[at][0]}
                if not left:
                    break
                windows = await _windows(reader, left)
                ends |= {at: max(spans[at][0], left[at] - WINDOW) for at in left if not windows[at]}
                while len(found) < limit and (at := _latest(windows)) is not None:
                    one, record = windows[at].pop()
                    ends[at] = one.offset
                    looked_at += 1
                    if chosen.passes(record):
                        found.append(_kept(one, record, replayed))
                    if not windows[at] and one.offset > spans[at][0]:
                        break  # what is behind it may be newer than what the others have
        return found, {at: end for at, end in ends.items() if end > spans[at][0]}

    async def mark_replayed(self, kept: Kept) -> None:
        """Keep that a reject was taken in after all."""
        key = layout.replayed_key(await kafka.cluster_id(self._settings))
        with answering():
            await self._redis.sadd(key, kept.id)
            await self._redis.expire(key, timedelta(microseconds=REJECTS.retention))

    async def _replayed(self) -> set[str]:
        key = layout.replayed_key(await kafka.cluster_id(self._settings))
        with answering():
            return {one.decode() for one in await self._redis.smembers(key)}

    @asynccontextmanager
    async def _reader(self) -> AsyncIterator[kafka.Reader]:
        try:
            async with asyncio.timeout(ANSWER_SECONDS), kafka.Reader(self._settings) as reader:
                yield reader
        except kafka.AWAY as error:
            raise Unavailable(f"Kafka at {self._settings.kafka} does not answer") from error


Windows = dict[int, deque[tuple[Record, RejectRecord]]]


async def _windows(reader: kafka.Reader, ends: Mapping[int, int]) -> Windows:
    """Return of each partition the last records before an offset, oldest first."""
    found: Windows = {at: deque() for at in ends}
    async for one in reader.follow(REJECTS, last=WINDOW, end=ends, stop=True):
        found[one.partition].append((one, _decode(one.value)))
    return found


def _latest(windows: Windows) -> int | None:
    """Return the partition whose last record was received last; None when there are no records."""
    held = [at for at, window in windows.items() if window]
    return max(held, key=lambda at: windows[at][-1][1].received_at, default=None)


def _kept(one: Record, record: RejectRecord, replayed: set[str]) -> Kept:
    id = f"{one.partition}/{one.offset}"
    return Kept(id, record, id in replayed)
