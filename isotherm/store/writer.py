"""Writing to the series store: one atomic script a batch, effectively once.

The store itself says how far an agent has come in a partition. A batch names the offset it begins at; the script applies
it only when that is the stored one, so a batch that is repeated, by whichever process, for whatever reason, is applied
once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray
from redis.exceptions import NoScriptError, RedisError

from isotherm.errors import Unavailable
from isotherm.pack import Attribute
from isotherm.store import layout
from isotherm.store.client import Client
from isotherm.store.layout import LATEST, POINT, RAW, SLOT, Tier

_SCRIPT = resources.files(__package__).joinpath("commit.lua").read_text()


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
class Newest:
    """The newest values of some series, in whatever tier they are kept.

    Attributes:
        series: Index of the series, shape (n,), no two alike.
        time, value: Of the newest reading, µs since the epoch UTC, shape (n,).
        received_at: When it was received, µs, shape (n,).
    """

    series: NDArray[np.int64]
    time: NDArray[np.int64]
    value: NDArray[np.float64]
    received_at: NDArray[np.int64]


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
        attributes: String values in order of arrival; the newest of each is kept.
        newest: The newest values, where they are not the last point of each series.
    """

    names: Sequence[str]
    series: NDArray[np.int64]
    time: NDArray[np.int64]
    value: NDArray[np.float64]
    slots: Sequence[Slots]
    received_at: int
    units: Mapping[str, str] = field(default_factory=dict)
    stored: Mapping[str, int] = field(default_factory=dict)
    attributes: Sequence[Attribute] = ()
    newest: Newest | None = None


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
        self._sha: str | None = None

    async def progress(self, partition: int) -> int | None:
        """Return the offset of the first record not applied, or None when the store knows nothing of this log.

        Raises:
            Unavailable: Redis does not answer.
        """
        try:
            found = await self._redis.hget(self._progress_key(partition), "next")
        except RedisError as error:
            raise Unavailable(f"cannot read progress of partition {partition}: {error}") from error
        return None if found is None else int(found)

    async def commit(self, partition: int, batch: Batch, *, expected: int | None, next_offset: int) -> Conflict | None:
        """Apply a batch atomically.

        Args:
            partition: The shard.
            batch: What the records [expected, next_offset) add.
            expected: The progress that the batch builds on.
            next_offset: The progress after it.

        Returns:
            None when it was applied, else where the store is.

        Raises:
            Unavailable: Redis did not answer or refused. Whether the batch was applied is unknown: repeat it, the
                script finds out.
        """
        keys, arguments = _encode(partition, batch)
        head: list[Any] = ["" if expected is None else expected, next_offset, layout.live_channel(partition)]
        try:
            answer = await self._run([self._progress_key(partition), *keys], head + arguments)
        except RedisError as error:
            raise Unavailable(f"the store did not take a batch of partition {partition}: {error}") from error
        if answer[0] == 1:
            return None
        return Conflict(int(answer[1]) if answer[1] else None)

    async def _run(self, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        if self._sha is None:
            self._sha = await self._redis.script_load(_SCRIPT)
        try:
            return await self._redis.evalsha(self._sha, len(keys), *keys, *arguments)
        except NoScriptError:  # the server was restarted and has forgotten it
            self._sha = await self._redis.script_load(_SCRIPT)
            return await self._redis.evalsha(self._sha, len(keys), *keys, *arguments)

    def _progress_key(self, partition: int) -> str:
        return layout.progress_key(partition, self._agent, self._log_id)


def _encode(partition: int, batch: Batch) -> tuple[list[str], list[Any]]:
    """Return the keys after the first and the arguments after the third, as commit.lua wants them."""
    keys = [key(partition) for key in (layout.latest_key, layout.units_key, layout.stored_key, layout.attributes_key)]
    named = len(keys)
    chunks: list[Any] = []
    for slots in batch.slots:
        _add_chunks(keys, chunks, partition, slots.tier, batch.names, slots.series, *_slot_records(slots))
    rollups = len(keys) - named
    points = np.empty(len(batch.time), dtype=POINT)
    points["time"], points["value"] = batch.time, batch.value
    _add_chunks(keys, chunks, partition, RAW, batch.names, batch.series, batch.time // RAW.chunk, points)
    raws = len(keys) - named - rollups

    newest = batch.newest or _newest_points(batch)
    latest = np.empty(len(newest.series), dtype=LATEST)
    latest["time"], latest["value"], latest["received_at"] = newest.time, newest.value, newest.received_at
    names = [batch.names[index] for index in newest.series.tolist()]

    units = [text for pair in batch.units.items() for text in pair]
    stored: list[Any] = [part for pair in batch.stored.items() for part in pair]
    attributes: list[Any] = []
    for name, time, text in batch.attributes:
        attributes += (name, time.to_bytes(8, "little", signed=True) + text.encode())
    counts = [rollups, raws, len(names), len(batch.units), len(batch.stored), len(batch.attributes)]
    return keys, [*counts, *chunks, *names, latest.tobytes(), *units, *stored, *attributes]


def _newest_points(batch: Batch) -> Newest:
    last = np.flatnonzero(np.diff(batch.series, append=-1))  # the last row of each series
    return Newest(batch.series[last], batch.time[last], batch.value[last], np.full(len(last), batch.received_at))


def _slot_records(slots: Slots) -> tuple[NDArray[np.int64], NDArray[np.void]]:
    """Return the chunk of each slot, and the slots as they are stored."""
    per_chunk = slots.tier.chunk // slots.tier.step
    records = np.empty(len(slots.slot), dtype=SLOT)
    records["index"] = slots.slot % per_chunk
    for name in ("count", "last_at", "sum", "min", "max", "last"):
        records[name] = getattr(slots, name)
    return slots.slot // per_chunk, records


def _add_chunks(
    keys: list[str],
    arguments: list[Any],
    partition: int,
    tier: Tier,
    names: Sequence[str],
    series: NDArray[np.int64],
    chunk: NDArray[np.int64],
    records: NDArray[np.void],
) -> None:
    """Append one key, expiry and run of bytes for each (series, chunk); rows are ascending by both."""
    begins = np.flatnonzero((np.diff(series, prepend=-1) != 0) | (np.diff(chunk, prepend=-1) != 0))
    width, data = records.dtype.itemsize, records.tobytes()
    ends = np.append(begins, len(records))[1:].tolist()
    for begin, end, which, number in zip(
        begins.tolist(), ends, series[begins].tolist(), chunk[begins].tolist(), strict=True
    ):
        keys.append(layout.chunk_key(partition, tier, names[which], number))
        arguments += (layout.expires_at_ms(tier, number), data[begin * width : end * width])
