"""Writing to the series store: one atomic script a batch, effectively once.

The store itself says how far an agent has come in a partition. A batch names the offset it begins at; the script applies
it only when that is the stored one, so a batch that is repeated, by whichever process, for whatever reason, is applied
once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from isotherm.store.layout import LATEST, POINT, RAW, SLOT, Tier
from isotherm.store.script import Script
from isotherm.store.windows import Window


@dataclass(frozen=True, slots=True)
class Slots:
    """Rollups of several series in one tier.

    Attributes:
        tier: Which one.
        series: Index of the series, shape (n,), ascending.
        slot: Number of the slot since the epoch, shape (n,), ascending within a series.
        count, sum, min, max, last: Aggregates, shape (n,).
        last_at: Time of ``last``, µs from the slot's begin, shape (n,).
    """

    tier: Tier
    series: NDArray[np.int64]
    slot: NDArray[np.int64]
    count: NDArray[np.int64]
    sum: NDArray[np.float64]
    min: NDArray[np.float64]
    max: NDArray[np.float64]
    last: NDArray[np.float64]
    last_at: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Batch:
    """What some consecutive records of one partition add to the store.

    Attributes:
        names: Distinct series.
        series: Index into ``names``, shape (n,), ascending.
        time: µs since the epoch UTC, shape (n,), ascending within a series.
        value: Samples, shape (n,).
        slots: The same readings rolled up, one entry a tier.
        received_at: When the last of the records was received, µs.
        units: Series → unit, where there is news.
        stored: Connector → number of readings and attributes.
        duplicates: Connector → number of repetitions, which are not in the batch.
        windows: Series → its sequence numbers with those of the batch.
        attributes: String values in order of arrival; the newest of each is kept.
    """

    names: Sequence[str]
    series: NDArray[np.int64]
    time: NDArray[np.int64]
    value: NDArray[np.float64]
    slots: Sequence[Slots]
    received_at: int
    units: Mapping[str, str] = field(default_factory=dict)
    stored: Mapping[str, int] = field(default_factory=dict)
    duplicates: Mapping[str, int] = field(default_factory=dict)
    windows: Mapping[str, Window] = field(default_factory=dict)
    attributes: Sequence[Attribute] = ()


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
        self._commit = Script(redis, "commit.lua")

    async def progress(self, partition: int) -> Progress | None:
        """Return how far the store is, or None when it knows nothing of this log.

        Raises:
            Unavailable: Redis does not answer.
        """
        try:
            found, mark = await self._redis.hmget(self._progress_key(partition), ["next", "mark"])
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
            answer = await self._commit([self._progress_key(partition), *keys], head + arguments)
        except RedisError as error:
            raise Unavailable(f"the store did not take a batch of partition {partition}: {error}") from error
        if answer[0] == 1:
            return None
        return Conflict(int(answer[1]) if answer[1] else None)

    def _progress_key(self, partition: int) -> str:
        return layout.progress_key(partition, self._agent, self._log_id)


def _encode(partition: int, batch: Batch) -> tuple[list[str], list[Any]]:
    """Return the keys after the first and the arguments after the fourth, as commit.lua wants them."""
    chunks = _Chunks(partition, batch.names, now_us())
    for slots in batch.slots:
        chunks.add(slots.tier, slots.series, *_slot_records(slots))
    rollups = len(chunks.keys)
    points = np.empty(len(batch.time), dtype=POINT)
    points["time"], points["value"] = batch.time, batch.value
    chunks.add(RAW, batch.series, batch.time // RAW.chunk, points)

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
    sizes = [rollups, len(chunks.keys) - rollups, len(names)]
    sizes += map(len, (batch.units, batch.windows, batch.stored, batch.duplicates, batch.attributes, chunks.late))
    keys = [key(partition) for key in _KEYS]
    return keys + chunks.keys, [*sizes, *chunks.arguments, *names, latest.tobytes(), *pairs, *chunks.late]


_KEYS = (
    layout.latest_key,
    layout.units_key,
    layout.stored_key,
    layout.attributes_key,
    layout.windows_key,
    layout.duplicates_key,
    layout.late_key,
)
"""Those that every batch may write, as commit.lua numbers them."""


def _slot_records(slots: Slots) -> tuple[NDArray[np.int64], NDArray[np.void]]:
    """Return the chunk of each slot, and the slots as they are stored."""
    per_chunk = slots.tier.chunk // slots.tier.step
    records = np.empty(len(slots.slot), dtype=SLOT)
    records["index"] = slots.slot % per_chunk
    for name in ("count", "last_at", "sum", "min", "max", "last"):
        records[name] = getattr(slots, name)
    return slots.slot // per_chunk, records


class _Chunks:
    """The chunks that a batch adds to: a key, an expiry and a run of bytes each."""

    def __init__(self, partition: int, names: Sequence[str], now: int) -> None:
        self.keys: list[str] = []
        self.arguments: list[Any] = []
        self.late: list[str] = []
        """Members of the set of chunks that have to be sealed again."""
        self._partition = partition
        self._names = names
        self._now = now

    def add(self, tier: Tier, series: NDArray[np.int64], chunk: NDArray[np.int64], records: NDArray[np.void]) -> None:
        """Add the records of a tier, rows ascending by series and chunk; those whose time to be kept is over are not."""
        begins = np.flatnonzero((np.diff(series, prepend=-1) != 0) | (np.diff(chunk, prepend=-1) != 0))
        width, data = records.dtype.itemsize, records.tobytes()
        ends = np.append(begins, len(records))[1:].tolist()
        expired = self._now // 1000
        open_from = layout.first_open(tier, self._now)
        for begin, end, which, number in zip(
            begins.tolist(), ends, series[begins].tolist(), chunk[begins].tolist(), strict=True
        ):
            expiry = layout.expires_at_ms(tier, number)
            if expiry <= expired:
                continue
            self.keys.append(layout.chunk_key(self._partition, tier, self._names[which], number))
            self.arguments += (expiry, data[begin * width : end * width])
            if number < open_from:
                self.late.append(layout.late_member(tier, self._names[which], number))
