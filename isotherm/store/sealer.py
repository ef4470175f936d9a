"""Sealing: chunks whose time is past are compressed, those of every series in turn, and again what got late data.

The store says how far a partition is, so any worker can go on where another ended. Two that seal the same chunk do no harm:
the script replaces only what is still as it was read.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

from redis.exceptions import RedisError

from isotherm.clock import now_us
from isotherm.errors import Unavailable
from isotherm.limits import MINUTE
from isotherm.store import layout, sealed
from isotherm.store.client import Client
from isotherm.store.layout import TIERS, Tier
from isotherm.store.script import Script
from isotherm.store.sealed import MalformedChunk

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
        self._seal = Script(redis, "seal.lua")

    async def sweep(self, now: int | None = None) -> AsyncIterator[int]:
        """Seal what can be sealed; yields after each slice of the work how many chunks that were.

        Args:
            now: µs since the epoch UTC; the clock's by default.

        Raises:
            Unavailable: Redis does not answer.
        """
        now = now_us() if now is None else now
        try:
            swept = await self._redis.hgetall(layout.sweep_key(self._partition))
            for tier in TIERS:
                until = layout.first_open(tier, now - SLACK)
                oldest = (now - tier.retention) // tier.chunk - 1
                begin = max(int(swept.get(tier.name.encode(), oldest)), oldest) + 1
                for number in range(begin, until):
                    async for names in _slices(self._series()):
                        yield await self._slice([_Chunk(tier, name, number) for name in names])
                    await self._redis.hset(layout.sweep_key(self._partition), mapping={tier.name: number})
            async for members in _slices(self._redis.sscan_iter(layout.late_key(self._partition), count=500)):
                yield await self._slice([_parsed(member) for member in members], forget=True)
        except RedisError as error:
            raise Unavailable(f"cannot seal chunks of partition {self._partition}: {error}") from error

    async def _series(self) -> AsyncIterator[bytes]:
        async for name, _ in self._redis.hscan_iter(layout.latest_key(self._partition), count=500):
            yield name

    async def _slice(self, chunks: Sequence[_Chunk], *, forget: bool = False) -> int:
        """Seal those of some chunks that are open; returns how many.

        Args:
            chunks: Of this partition.
            forget: Those that are not open are no longer among the late ones.
        """
        values = await self._redis.mget([key for chunk in chunks for key in self._keys(chunk)])
        keys = [layout.late_key(self._partition)]
        arguments: list[Any] = []
        for chunk, rows, before in zip(chunks, values[::2], values[1::2], strict=True):
            if rows is None and not forget:
                continue
            try:
                arguments += _arguments(chunk, rows, before)
            except MalformedChunk as error:
                log.error("%s of %s: chunk %d stays open: %s", chunk.tier.name, chunk.series, chunk.number, error)
            else:
                keys += self._keys(chunk)
        return int(await self._seal(keys, arguments)) if arguments else 0

    def _keys(self, chunk: _Chunk) -> tuple[str, str]:
        return (
            layout.chunk_key(self._partition, chunk.tier, chunk.series, chunk.number),
            layout.sealed_key(self._partition, chunk.tier, chunk.series, chunk.number),
        )


def _arguments(chunk: _Chunk, rows: bytes | None, before: bytes | None) -> tuple[str | bytes | int, ...]:
    """Return what seal.lua wants to know of a chunk."""
    name = layout.late_member(chunk.tier, chunk.series, chunk.number)
    expiry = layout.expires_at_ms(chunk.tier, chunk.number)
    whole = sealed.seal(sealed.combine(chunk.tier, before, rows)) if rows else b""
    return name, _sha1(rows), _sha1(before), whole, expiry


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
