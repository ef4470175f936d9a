"""Queries over the series store: the caller names a series and a range of time, never a tier."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray
from redis.exceptions import RedisError

from isotherm.clock import now_us
from isotherm.errors import Unavailable
from isotherm.limits import MAX_FUTURE_US, MINUTE
from isotherm.pack import Attribute
from isotherm.store import layout
from isotherm.store.client import Client
from isotherm.store.history import History, concatenate, fit, row_width
from isotherm.store.layout import LATEST, POINT, RAW, Tier
from isotherm.store.plan import Wanted, by_chunk, tiers_for
from isotherm.store.script import Script
from isotherm.store.sealed import MalformedChunk, combine
from isotherm.topics import partition_of

DEFAULT_POINTS = 1_000

MAX_CHUNKS_AT_ONCE = 512
"""Keys that one command reads: more would keep the store from its other work for too long."""

OPEN_KNOWN_US = 1 * MINUTE
"""How long a reader remembers which points are not rolled up yet."""

SERIES_AT_ONCE = 16
"""Series whose rollups :meth:`Reader.stored` reads together; raw points are read one series and chunk at a time."""

EXPIRY_MARGIN = 1 * MINUTE
"""How long before its expiry a chunk is no longer relied on by a reading that takes a while."""


@dataclass(frozen=True, slots=True)
class Latest:
    """The newest value of a series.

    Attributes:
        device, metric: The series.
        time: µs since the epoch UTC, as the device says.
        value: The sample.
        unit: RFC 8428 unit, or empty.
        received_at: When its pack was received, µs since the epoch UTC.
    """

    device: str
    metric: str
    time: int
    value: float
    unit: str
    received_at: int


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far the points of a series were read: bytes of each chunk, in order of arrival."""

    read: tuple[tuple[int, int], ...]


class Reader:
    """Answers queries from Redis."""

    def __init__(self, redis: Client, partitions: int) -> None:
        self._redis = redis
        self._partitions = partitions
        self._tail = Script(redis, "tail.lua")
        self._open: dict[int, tuple[int, set[int]]] = {}

    async def query(self, series: str, start: int, end: int, points: int = DEFAULT_POINTS) -> History:
        """Return a series over [start, end); see :meth:`query_many`."""
        return (await self.query_many([series], start, end, points))[series]

    async def query_many(
        self, series: Sequence[str], start: int, end: int, points: int = DEFAULT_POINTS
    ) -> dict[str, History]:
        """Return several series over [start, end), each in at most ``points`` rows, as wide as people count in: 5 s, 1 h.

        The coarsest tier that is no coarser than that is read; where it has expired, the next coarser one that has not.
        When every reading fits, every reading is returned. An unknown series gives no rows. All series of a partition are
        read in one round trip, or in a few when they are very many.

        Args:
            series: Distinct names, ``device/metric``.
            start, end: µs since the epoch UTC.
            points: Greatest number of rows of each series, > 0.

        Returns:
            Series → rows, in the order of ``series``.

        Raises:
            ValueError: points <= 0 or end < start.
            Unavailable: Redis does not answer.
            MalformedChunk: what it has of a series is damaged.
        """
        if points <= 0 or end < start:
            raise ValueError(f"expected points > 0 and start <= end, got points={points}, start={start}, end={end}")
        width = row_width(end - start, points)
        rows = await self._rows(series, tiers_for(start, end, width, now_us()))
        return {name: fit(parts, points, width) for name, parts in rows.items()}

    async def rows(self, series: Sequence[str], start: int, end: int, width: int) -> dict[str, History]:
        """Return several series over [start, end) as they are stored: in the coarsest tier no coarser than ``width``.

        Where that has expired, in the next coarser one that has not. A row that ``start`` or ``end`` falls into is whole.
        An unknown series gives no rows.

        Args:
            series: Distinct names, ``device/metric``.
            start, end: µs since the epoch UTC.
            width: µs, >= 0; 0 is every reading.

        Raises:
            ValueError: end < start.
            Unavailable: Redis does not answer.
            MalformedChunk: what it has of a series is damaged.
        """
        if end < start:
            raise ValueError(f"expected start <= end, got start={start}, end={end}")
        found = await self._rows(series, tiers_for(start, end, width, now_us()))
        return {name: concatenate(parts) for name, parts in found.items()}

    async def series(self, pattern: str = "*") -> list[str]:
        """Return the series whose name matches a pattern such as ``sensor-*/temperature``, ascending.

        Args:
            pattern: Of a shell: ``*`` any text, ``?`` any character, ``[ab]`` one of these; upper and lower case differ.
                ``*`` also matches slashes.

        Raises:
            Unavailable: Redis does not answer.
        """
        found: list[str] = []
        with answering():
            for partition in range(self._partitions):
                names = await self._redis.hkeys(layout.latest_key(partition))
                found += (text for name in names if fnmatchcase(text := name.decode(), pattern))
        return sorted(found)

    async def stored(self, series: Sequence[str], start: int, end: int) -> AsyncIterator[tuple[str, History]]:
        """Yield everything of [start, end) that is kept, each reading once, at the finest resolution kept for its age.

        The rows of a series ascend, over one or several histories. A row that ``start`` or ``end`` falls into is whole.
        What arrives while this runs may be there or not. Memory is bounded by one chunk of raw points, or the rollups of
        ``SERIES_AT_ONCE`` series.

        Raises:
            Unavailable: Redis does not answer.
        """
        for first in range(0, len(series), SERIES_AT_ONCE):
            some = series[first : first + SERIES_AT_ONCE]
            plan = tiers_for(start, end, 0, now_us() + EXPIRY_MARGIN)
            rollups = [part for part in plan if part[0] is not RAW]
            raw = [part for part in plan if part[0] is RAW]
            older = await self._rows(some, rollups)
            for name in some:
                if len(rows := concatenate(older.pop(name))):
                    yield name, rows
                for begin, until in ((b, u) for _, low, high in raw for b, u in by_chunk(low, high)):
                    for rows in (await self._rows([name], [(RAW, begin, until)]))[name]:
                        yield name, rows

    async def latest(self) -> list[Latest]:
        """Return the newest value of every series, ascending by device and metric.

        Raises:
            Unavailable: Redis does not answer.
        """
        found: list[Latest] = []
        with answering():
            for partition in range(self._partitions):
                values = await self._redis.hgetall(layout.latest_key(partition))
                units = await self._redis.hgetall(layout.units_key(partition))
                found += (_latest(series, record, units.get(series, b"")) for series, record in values.items())
        return sorted(found, key=lambda one: (one.device, one.metric))

    async def units(self) -> dict[str, str]:
        """Return series → unit, where it is known.

        Raises:
            Unavailable: Redis does not answer.
        """
        found: dict[str, str] = {}
        with answering():
            for partition in range(self._partitions):
                held = await self._redis.hgetall(layout.units_key(partition))
                found |= {series.decode(): unit.decode() for series, unit in held.items()}
        return found

    async def attributes(self, device: str) -> list[Attribute]:
        """Return the string values of a device, ascending by name.

        Raises:
            Unavailable: Redis does not answer.
        """
        with answering():
            held = await self._redis.hgetall(layout.attributes_key(self._partition(device)))
        found = [
            Attribute(name.decode(), int.from_bytes(record[:8], "little", signed=True), record[8:].decode())
            for name, record in held.items()
            if name.startswith(device.encode() + b"/")
        ]
        return sorted(found)

    async def tail(self, series: str, since: int, cursor: Cursor | None = None) -> tuple[NDArray[np.void], Cursor]:
        """Return the raw points that arrived after ``cursor``, and the cursor after them; see :meth:`tails`."""
        return (await self.tails({series: cursor}, since))[series]

    async def tails(self, cursors: Mapping[str, Cursor | None], since: int) -> dict[str, tuple[NDArray[np.void], Cursor]]:
        """Return the raw points of several series that arrived after their cursors, in one round trip.

        A reader that always passes the last cursor back sees every point once, late ones included, for as long as
        their chunk is kept.

        Args:
            cursors: Series → what was read before; None reads everything since ``since``.
            since: Chunks that end before this time are passed over, µs since the epoch UTC.

        Returns:
            Series → its points in order of arrival, dtype ``layout.POINT``, shape (n,), and the cursor after them.

        Raises:
            Unavailable: Redis does not answer.
        """
        chunks = range(since // RAW.chunk, now_us() // RAW.chunk + 2)  # + 2: a device's clock may be ahead
        found = dict.fromkeys(cursors, (np.empty(0, dtype=POINT), Cursor(())))
        for partition, names in self._by_partition(list(cursors)).items():
            read = [dict(cursor.read) if (cursor := cursors[name]) else {} for name in names]
            keys = [key for name in names for chunk in chunks for key in layout.chunk_keys(partition, RAW, name, chunk)]
            lengths = [one.get(chunk, 0) for one in read for chunk in chunks]
            with answering():
                answers = iter(await self._tail(keys, lengths))
            for name, one in zip(names, read, strict=True):
                parts = [_unread(answer, one.get(chunk, 0)) for chunk, answer in zip(chunks, answers, strict=False)]
                ends = (one.get(chunk, 0) + points.nbytes for chunk, points in zip(chunks, parts, strict=True))
                found[name] = np.concatenate(parts), Cursor(tuple(zip(chunks, ends, strict=True)))
        return found

    async def _rows(self, series: Sequence[str], plan: Sequence[tuple[Tier, int, int]]) -> dict[str, list[History]]:
        """Return for each series the rows of each part of a plan where there are any."""
        now = now_us()
        found: dict[str, list[History]] = {name: [] for name in series}
        for partition, names in self._by_partition(series).items():
            wanted = Wanted(plan, await self._not_rolled_up(partition, now))
            at_once = max(1, MAX_CHUNKS_AT_ONCE // max(1, len(wanted)))
            for first in range(0, len(names), at_once):
                some = names[first : first + at_once]
                # One command for all of a series: an hour that is rolled up meanwhile is seen before or after.
                values = await self._get([key for name in some for key in wanted.keys(partition, name)])
                for number, name in enumerate(some):
                    try:
                        found[name] = wanted.decode(values[number * len(wanted) : (number + 1) * len(wanted)])
                    except MalformedChunk as error:
                        raise MalformedChunk(f"the store's chunks of {name} are damaged: {error}") from error
        return found

    async def _not_rolled_up(self, partition: int, now: int) -> set[int]:
        """Return the chunks of points that may be open, for some series.

        Recent ones may be for many reasons. Of older ones the store knows, and there are none to come: what is measured
        then is rolled up at once. So it is asked every minute.
        """
        known = self._open.get(partition)
        if known is None or now - known[0] > OPEN_KNOWN_US:
            marks = layout.open_key(partition), layout.sweeping_key(partition)
            with answering():
                members = await self._redis.sunion(marks)
            known = now, layout.open_chunks(RAW, members)
            self._open[partition] = known
        recent = range(layout.first_kept(RAW, known[0]), (now + MAX_FUTURE_US) // RAW.chunk + 1)
        return known[1].union(recent)

    async def _get(self, keys: Sequence[str]) -> list[bytes | None]:
        with answering():
            return await self._redis.mget(keys) if keys else []

    def _by_partition(self, series: Sequence[str]) -> dict[int, list[str]]:
        found: dict[int, list[str]] = {}
        for name in series:
            found.setdefault(self._partition(name), []).append(name)
        return found

    def _partition(self, series: str) -> int:
        return partition_of(series.partition("/")[0], self._partitions)


@contextmanager
def answering() -> Iterator[None]:
    """Say so when the store does not answer."""
    try:
        yield
    except RedisError as error:
        raise Unavailable(f"the store does not answer: {error}") from error


def _unread(answer: tuple[bytes, bytes], read: int) -> NDArray[np.void]:
    """Return the points of a chunk after the first ``read`` bytes of them, from what tail.lua says."""
    sealed, rows = answer
    if not sealed:
        return np.frombuffer(rows, dtype=POINT)
    return combine(RAW, sealed, rows)[read // POINT.itemsize :]


def _latest(series: bytes, record: bytes, unit: bytes) -> Latest:
    device, _, metric = series.decode().partition("/")
    time, value, received_at = np.frombuffer(record, dtype=LATEST)[0].item()
    return Latest(device, metric, time, value, unit.decode(), received_at)
