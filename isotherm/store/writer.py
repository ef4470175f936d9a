"""Writing to the series store: one atomic script a batch, effectively once.

The store itself says how far an agent has come in a partition. A batch names the offset it begins at; the script applies
it only when that is the stored one, so a batch that is repeated, by whichever process, for whatever reason, is applied
once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from redis.exceptions import RedisError

from isotherm.clock import now_us
from isotherm.errors import Unavailable
from isotherm.pack import Attribute
from isotherm.store import layout
from isotherm.store.client import Client
from isotherm.store.layout import LATEST, POINT, RAW, ROLLUPS, Tier
from isotherm.store.rollup import Slots, roll_up
from isotherm.store.script import Script
from isotherm.store.windows import Window


@dataclass(frozen=True, slots=True)
class Batch:
    """What some consecutive records of one partition add to the store.

    Attributes:
        names: Distinct series.
        series: Index into ``names``, shape (n,), ascending.
        time: µs since the epoch UTC, shape (n,), ascending within a series.
        value: Samples, shape (n,).
        received_at: When the last of the records was received, µs.
        units: Series → unit, where there is news.
        stored: Connector → number of readings and attributes.
        duplicates: Connector → number of repetitions, which are not in the batch.
        windows: Series → its sequence numbers with those of the batch.
        attributes: String values in order of arrival; the newest of each is kept.
        slots: What is rolled up already, besides the readings.
    """

    names: Sequence[str]
    series: NDArray[np.int64]
    time: NDArray[np.int64]
    value: NDArray[np.float64]
    received_at: int
    units: Mapping[str, str] = field(default_factory=dict)
    stored: Mapping[str, int] = field(default_factory=dict)
    duplicates: Mapping[str, int] = field(default_factory=dict)
    windows: Mapping[str, Window] = field(default_factory=dict)
    attributes: Sequence[Attribute] = ()
    slots: Sequence[Slots] = ()


class Progress(NamedTuple):
    """How far the store is in a partition of a log.

    Attributes:
        next: Offset of the first record not applied.
        mark: What the record before it is known by, or empty.
    """

    next: int
    mark: str


@dataclass(frozen=True, slots=True)
class Conflict:
    """The store was elsewhere than the batch expected; nothing was written.

    Attributes:
        next: Offset of the first record not applied, or None when the store knows nothing of this log.
    """

    next: int | None


class Writer:
    """Applies batches of one agent from one log."""

    def __init__(self, redis: Client, agent: str, log_id: str) -> None:
        self._redis = redis
        self._agent = agent
        self._log_id = log_id
        self._commit = Script(redis, "merge.lua", "commit.lua")

    async def progress(self, partition: int) -> Progress | None:
        """Return how far the store is, or None when it knows nothing of this log.

        Raises:
            Unavailable: Redis does not answer.
        """
        try:
            found, mark = await self._redis.hmget(self.progress_key(partition), ["next", "mark"])
        except RedisError as error:
            raise Unavailable(f"cannot read progress of partition {partition}: {error}") from error
        return None if found is None else Progress(int(found), (mark or b"").decode())

    async def windows(self, partition: int, series: Sequence[str]) -> dict[str, Window]:
        """Return the sequence numbers of those series that have any.

        Raises:
            Unavailable: Redis does not answer.
        """
        try:
            found = await self._redis.hmget(layout.windows_key(partition), series) if series else []
        except RedisError as error:
            raise Unavailable(f"cannot read sequence numbers of partition {partition}: {error}") from error
        return {name: Window(data) for name, data in zip(series, found, strict=True) if data}

    async def commit(
        self, partition: int, batch: Batch, *, expected: int | None, next_offset: int, mark: str = ""
    ) -> Conflict | None:
        """Apply a batch atomically.

        Args:
            partition: The shard.
            batch: What the records [expected, next_offset) add.
            expected: The progress that the batch builds on.
            next_offset: The progress after it.
            mark: What the last of the records is known by.

        Returns:
            None when it was applied, else where the store is.

        Raises:
            Unavailable: Redis did not answer or refused. Whether the batch was applied is unknown: repeat it, the
                script finds out.
        """
        keys, arguments = _encode(partition, batch)
        head: list[Any] = ["" if expected is None else expected, next_offset, mark, layout.live_channel(partition)]
        try:
            answer = await self._commit([self.progress_key(partition), *keys], head + arguments)
        except RedisError as error:
            raise Unavailable(f"the store did not take a batch of partition {partition}: {error}") from error
        if answer[0] == 1:
            return None
        return Conflict(int(answer[1]) if answer[1] else None)

    def progress_key(self, partition: int) -> str:
        """Return the key under which the store keeps how far it is."""
        return layout.progress_key(partition, self._agent, self._log_id)


def _encode(partition: int, batch: Batch) -> tuple[list[str], list[Any]]:
    """Return the keys after the first and the arguments after the fourth, as commit.lua wants them."""
    chunks = _Chunks(partition, batch.names, now_us())
    chunks.add_points(batch)
    raws = len(chunks.keys)
    for slots in (*batch.slots, *chunks.rolled_up(batch)):
        chunks.add_slots(slots)

    newest = np.flatnonzero(np.diff(batch.series, append=-1))  # the last row of each series
    latest = np.empty(len(newest), dtype=LATEST)
    latest["time"], latest["value"] = batch.time[newest], batch.value[newest]
    latest["received_at"] = batch.received_at
    names = [batch.names[index] for index in batch.series[newest].tolist()]

    pairs: list[Any] = []
    for mapping in (batch.units, {name: window.to_bytes() for name, window in batch.windows.items()}):
        pairs += chain.from_iterable(mapping.items())
    for counts in (batch.stored, batch.duplicates):
        pairs += chain.from_iterable(counts.items())
    for name, time, text in batch.attributes:
        pairs += (name, time.to_bytes(8, "little", signed=True) + text.encode())
    marks = chunks.marks
    sizes = [raws, len(chunks.keys) - raws, len(names)]
    sizes += map(len, (batch.units, batch.windows, batch.stored, batch.duplicates, batch.attributes, marks.open, marks.late))
    keys = [key(partition) for key in _KEYS]
    return keys + chunks.keys, [*sizes, *chunks.arguments, *names, latest.tobytes(), *pairs, *marks.open, *marks.late]


_KEYS = (
    layout.latest_key,
    layout.units_key,
    layout.stored_key,
    layout.attributes_key,
    layout.windows_key,
    layout.duplicates_key,
    layout.open_key,
    layout.late_key,
)
"""Those that every batch may write, as commit.lua numbers them."""


class Marks:
    """Which chunks have to be sealed."""

    def __init__(self, now: int) -> None:
        self.open: set[str] = set()
        """When their time is over, of whichever series."""
        self.late: list[str] = []
        """Of one series, because the others' are sealed already."""
        self._now = now

    def add(self, tier: Tier, series: str, chunk: int) -> None:
        """Something comes into a chunk."""
        if chunk >= layout.first_open(tier, self._now):
            self.open.add(layout.open_member(tier, chunk))
        else:
            self.late.append(layout.late_member(tier, series, chunk))


class _Chunks:
    """The chunks that a batch adds to: a key and a run of bytes each, of slots with their expiry."""

    def __init__(self, partition: int, names: Sequence[str], now: int) -> None:
        self.keys: list[str] = []
        self.arguments: list[Any] = []
        self.marks = Marks(now)
        self._partition = partition
        self._names = names
        self._now = now

    def add_points(self, batch: Batch) -> None:
        """Add the readings that are kept as points."""
        points = np.empty(len(batch.time), dtype=POINT)
        points["time"], points["value"] = batch.time, batch.value
        for key, data, _ in self._runs(RAW, batch.series, batch.time // RAW.chunk, points):
            self.keys.append(key)
            self.arguments.append(data)

    def rolled_up(self, batch: Batch) -> Iterator[Slots]:
        """Yield the slots of the readings that are not, in each tier."""
        old = batch.time < layout.first_kept(RAW, self._now) * RAW.chunk
        if old.any():
            for tier in ROLLUPS:
                yield roll_up(batch.series[old], batch.time[old], batch.value[old], tier=tier)

    def add_slots(self, slots: Slots) -> None:
        """Add slots."""
        for key, data, expiry in self._runs(slots.tier, slots.series, *slots.records()):
            self.keys.append(key)
            self.arguments += (expiry, data)

    def _runs(
        self, tier: Tier, series: NDArray[np.int64], chunk: NDArray[np.int64], records: NDArray[np.void]
    ) -> Iterator[tuple[str, bytes, int]]:
        """Yield key, bytes and expiry (ms) of the records of each chunk that is kept; rows ascend by series and chunk."""
        begins = np.flatnonzero((np.diff(series, prepend=-1) != 0) | (np.diff(chunk, prepend=-1) != 0))
        width, data = records.dtype.itemsize, records.tobytes()
        ends = np.append(begins, len(records))[1:].tolist()
        kept = layout.first_kept(tier, self._now)
        for begin, end, which, number in zip(
            begins.tolist(), ends, series[begins].tolist(), chunk[begins].tolist(), strict=True
        ):
            if number >= kept:
                name = self._names[which]
                self.marks.add(tier, name, number)
                key = layout.chunk_key(self._partition, tier, name, number)
                yield key, data[begin * width : end * width], layout.expires_at_ms(tier, number)
