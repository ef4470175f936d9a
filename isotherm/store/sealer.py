"""Sealing: chunks whose time is over are compressed, and points rolled up, in one step; again, when something came late.

The store says what has to be sealed, so any worker can go on where another ended. Two that seal the same chunk do no harm:
the script replaces only what is still as it was read.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from redis.exceptions import RedisError

from isotherm.clock import now_us
from isotherm.errors import Unavailable
from isotherm.limits import MINUTE
from isotherm.store import layout, sealed
from isotherm.store.client import Client
from isotherm.store.layout import POINT, RAW, ROLLUPS, TIERS, Tier
from isotherm.store.rollup import roll_up
from isotherm.store.script import Script
from isotherm.store.sealed import MalformedChunk
from isotherm.store.writer import Marks

SLICE = 8
"""Chunks that are sealed at once: some 5 ms of work."""

SLACK = 1 * MINUTE
"""How much longer than LATENESS sealing waits, µs, so that every writer's clock has passed it."""

_BY_NAME = {tier.name: tier for tier in TIERS}


log = logging.getLogger(__name__)


class _Chunk(NamedTuple):
    tier: Tier
    series: str
    number: int


class Sealer:
    """Seals the chunks of one partition."""

    def __init__(self, redis: Client, partition: int) -> None:
        self._redis = redis
        self._partition = partition
        self._marks = layout.open_key(partition), layout.sweeping_key(partition)
        self._seal = Script(redis, "merge.lua", "seal.lua")

    async def sweep(self, now: int | None = None) -> AsyncIterator[int]:
        """Seal what can be sealed; yields after each slice of the work how many chunks that were.

        Args:
            now: µs since the epoch UTC; the clock's by default.

        Raises:
            Unavailable: Redis does not answer.
        """
        now = now_us() if now is None else now
        try:
            for tier in TIERS:  # the points first: they become slots
                for number in await self._due(tier, now):
                    await self._redis.smove(*self._marks, layout.open_member(tier, number))
                    async for names in _slices(self._series()):
                        yield await self._slice([_Chunk(tier, name, number) for name in names], now)
                    await self._redis.srem(self._marks[1], layout.open_member(tier, number))
            async for members in _slices(self._redis.sscan_iter(layout.late_key(self._partition), count=500)):
                yield await self._slice([_parsed(member) for member in members], now, are_late=True)
        except RedisError as error:
            raise Unavailable(f"cannot seal chunks of partition {self._partition}: {error}") from error

    async def _due(self, tier: Tier, now: int) -> list[int]:
        """Return the chunks of a tier that are not sealed and whose time is over, ascending."""
        numbers = layout.open_chunks(tier, await self._redis.sunion(self._marks))
        return sorted(number for number in numbers if number < layout.first_open(tier, now - SLACK))

    async def _series(self) -> AsyncIterator[bytes]:
        async for name, _ in self._redis.hscan_iter(layout.latest_key(self._partition), count=500):
            yield name

    async def _slice(self, chunks: Sequence[_Chunk], now: int, *, are_late: bool = False) -> int:
        """Seal those of some chunks that are open; returns how many.

        Args:
            chunks: Of this partition.
            now: µs since the epoch UTC.
            are_late: They come from the late ones, and those that are not open leave these.
        """
        values = await self._redis.mget([key for chunk in chunks for key in layout.chunk_keys(self._partition, *chunk)])
        work = _Work(self._partition, now, are_late)
        for chunk, rows, before in zip(chunks, values[::2], values[1::2], strict=True):
            if rows is None and not are_late:
                continue
            try:
                work.add(chunk, rows, before)
            except MalformedChunk as error:
                log.error("%s of %s: chunk %d stays open: %s", chunk.tier.name, chunk.series, chunk.number, error)
        return int(await self._seal(work.keys, work.arguments)) if work.count else 0


class _Work:
    """What seal.lua has to do."""

    def __init__(self, partition: int, now: int, are_late: bool) -> None:
        self.count = 0
        self._partition = partition
        self._now = now
        self._are_late = are_late
        self._marks = Marks(now - SLACK)
        self._keys: list[str] = []
        self._arguments: list[Any] = []

    @property
    def keys(self) -> list[str]:
        return [layout.open_key(self._partition), layout.late_key(self._partition), *self._keys]

    @property
    def arguments(self) -> list[Any]:
        marks = self._marks
        return [self.count, len(marks.open), len(marks.late), *self._arguments, *marks.open, *marks.late]

    def add(self, chunk: _Chunk, rows: bytes | None, before: bytes | None) -> None:
        """Seal a chunk.

        Raises:
            MalformedChunk: what was sealed of it before is no sealed chunk.
        """
        whole = sealed.seal(sealed.combine(chunk.tier, before, rows)) if rows else b""
        runs = list(self._runs(chunk, rows)) if rows and chunk.tier is RAW else []
        self.count += 1
        self._keys += (*layout.chunk_keys(self._partition, *chunk), *(key for key, _, _ in runs))
        expiry = layout.expires_at_ms(chunk.tier, chunk.number)
        self._arguments += (layout.late_member(*chunk), _sha1(rows), _sha1(before), whole, expiry, len(runs))
        for _, *run in runs:
            self._arguments += run

    def _runs(self, chunk: _Chunk, rows: bytes) -> Iterator[tuple[str, int, bytes]]:
        """Yield key, expiry (ms) and slots of the chunks that points are rolled up into."""
        points = np.frombuffer(rows, dtype=POINT)
        points = points[np.argsort(points["time"], kind="stable")]  # of one time, in order of arrival
        series = np.zeros(len(points), dtype=np.int64)
        for tier in ROLLUPS:
            numbers, records = roll_up(series, points["time"], points["value"], tier=tier).records()
            [number] = set(numbers.tolist())  # an hour lies in one chunk of every tier
            if number < layout.first_kept(tier, self._now):
                continue
            if self._are_late:
                self._marks.add(tier, chunk.series, number)
            else:
                self._marks.open.add(layout.open_member(tier, number))
            key = layout.chunk_key(self._partition, tier, chunk.series, number)
            yield key, layout.expires_at_ms(tier, number), records.tobytes()


def _sha1(data: bytes | None) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest() if data else ""


def _parsed(member: str) -> _Chunk:
    tier, number, series = member.split(":", 2)
    return _Chunk(_BY_NAME[tier], series, int(number))


async def _slices(members: AsyncIterator[bytes]) -> AsyncIterator[list[str]]:
    """Yield members SLICE at a time."""
    some: list[str] = []
    async for member in members:
        some.append(member.decode())
        if len(some) == SLICE:
            yield some
            some = []
    if some:
        yield some
