"""Queries over the series store: the caller names a series and a range of time, never a tier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from redis.exceptions import RedisError

from isotherm.clock import now_us
from isotherm.errors import Unavailable
from isotherm.limits import DAY, HOUR, MILLISECOND, MINUTE, SECOND
from isotherm.pack import Attribute
from isotherm.store import layout
from isotherm.store.client import Client
from isotherm.store.layout import LATEST, POINT, RAW, ROLLUPS, SLOT, TIERS, Tier
from isotherm.topics import partition_of

DEFAULT_POINTS = 1_000

WIDTHS = tuple(
    count * unit
    for unit, counts in (
        (MILLISECOND, (1, 2, 5, 10, 20, 50, 100, 200, 500)),
        (SECOND, (1, 2, 5, 10, 20, 30)),
        (MINUTE, (1, 2, 5, 10, 20, 30)),
        (HOUR, (1, 2, 3, 6, 12)),
        (DAY, (1, 2, 5, 10, 30)),
    )
    for count in counts
)
"""Widths of a row that people count in, µs; each tier's step divides every greater one."""


@dataclass(frozen=True, slots=True)
class History:
    """One series over a range of time, in rows of equal or growing width, ascending by time.

    Attributes:
        time: Begin of each row, µs since the epoch UTC, shape (n,); of a raw point, its own time.
        width: Length of time each row stands for, µs, shape (n,); 0 for a raw point.
        count, sum, min, max, last: Aggregates of the row, shape (n,).
    """

    time: NDArray[np.int64]
    width: NDArray[np.int64]
    count: NDArray[np.int64]
    sum: NDArray[np.float64]
    min: NDArray[np.float64]
    max: NDArray[np.float64]
    last: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.time)

    @property
    def mean(self) -> NDArray[np.float64]:
        """Arithmetic mean of the readings of each row, shape (n,)."""
        return self.sum / self.count


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

    async def query(self, series: str, start: int, end: int, points: int = DEFAULT_POINTS) -> History:
        """Return a series over [start, end) in at most ``points`` rows, as wide as people count in: 5 s, 2 min, 1 h.

        The coarsest tier that is no coarser than that is read; where it has expired, the next coarser one that has not.
        When every reading fits, every reading is returned. An unknown series gives no rows.

        Args:
            series: ``device/metric``.
            start, end: µs since the epoch UTC.
            points: Greatest number of rows, > 0.

        Raises:
            ValueError: points <= 0 or end < start.
            Unavailable: Redis does not answer.
        """
        if points <= 0 or end < start:
            raise ValueError(f"expected points > 0 and start <= end, got points={points}, start={start}, end={end}")
        width = row_width(end - start, points)
        parts = [await self._read(series, tier, begin, until) for tier, begin, until in _plan(start, end, width, now_us())]
        rows = _concatenate(parts)
        if len(rows) > points:
            rows = _concatenate([coarsen(part, width) for part in parts])
        return rows if len(rows) <= points else coarsen(rows, width)

    async def latest(self) -> list[Latest]:
        """Return the newest value of every series, ascending by device and metric.

        Raises:
            Unavailable: Redis does not answer.
        """
        found: list[Latest] = []
        try:
            for partition in range(self._partitions):
                values = await self._redis.hgetall(layout.latest_key(partition))
                units = await self._redis.hgetall(layout.units_key(partition))
                found += (_latest(series, record, units.get(series, b"")) for series, record in values.items())
        except RedisError as error:
            raise Unavailable(f"the store does not answer: {error}") from error
        return sorted(found, key=lambda one: (one.device, one.metric))

    async def attributes(self, device: str) -> list[Attribute]:
        """Return the string values of a device, ascending by name.

        Raises:
            Unavailable: Redis does not answer.
        """
        try:
            held = await self._redis.hgetall(layout.attributes_key(self._partition(device)))
        except RedisError as error:
            raise Unavailable(f"the store does not answer: {error}") from error
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
        read = {series: dict(cursor.read) if cursor else {} for series, cursor in cursors.items()}
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for series, lengths in read.items():
                    partition = self._partition(series)
                    for chunk in chunks:
                        pipeline.getrange(layout.chunk_key(partition, RAW, series, chunk), lengths.get(chunk, 0), -1)
                answers: list[bytes] = await pipeline.execute()
        except RedisError as error:
            raise Unavailable(f"the store does not answer: {error}") from error
        found = {}
        for number, (series, lengths) in enumerate(read.items()):
            parts = answers[number * len(chunks) : (number + 1) * len(chunks)]
            after = tuple((chunk, lengths.get(chunk, 0) + len(part)) for chunk, part in zip(chunks, parts, strict=True))
            found[series] = np.frombuffer(b"".join(parts), dtype=POINT), Cursor(after)
        return found

    async def _read(self, series: str, tier: Tier, start: int, end: int) -> History:
        """Return the rows of one tier that lie in [start, end), the one that ``start`` falls into included."""
        start -= start % max(tier.step, 1)
        chunks = range(start // tier.chunk, -(-end // tier.chunk))
        partition = self._partition(series)
        keys = [layout.chunk_key(partition, tier, series, chunk) for chunk in chunks]
        try:
            values = await self._redis.mget(keys) if keys else []
        except RedisError as error:
            raise Unavailable(f"the store does not answer: {error}") from error
        held = [(chunk, value) for chunk, value in zip(chunks, values, strict=True) if value]
        found = _points(held) if tier is RAW else _slots(held, tier)
        return _between(found, start, end)

    def _partition(self, series: str) -> int:
        return partition_of(series.partition("/")[0], self._partitions)


def row_width(span: int, points: int) -> int:
    """Return the least of WIDTHS, µs, at which ``points`` rows cover ``span`` µs wherever it lies.

    >>> row_width(HOUR, 1000) == 5 * SECOND
    True
    """
    least = span / max(points - 1, 1)
    return next((width for width in WIDTHS if width >= least), -(-span // DAY) * DAY)


def coarsen(rows: History, width: int) -> History:
    """Merge rows into buckets of ``width`` µs, or as wide as the widest row.

    Buckets are counted from the epoch and hold whole rows, so a chart that moves along redraws the same ones.
    """
    if not len(rows):
        return rows
    width = max(width, int(rows.width.max()))
    bucket = rows.time // width
    first = np.flatnonzero(np.diff(bucket, prepend=bucket[0] - 1))
    return History(
        time=bucket[first] * width,
        width=np.full(len(first), width, dtype=np.int64),
        count=np.add.reduceat(rows.count, first),
        sum=np.add.reduceat(rows.sum, first),
        min=np.minimum.reduceat(rows.min, first),
        max=np.maximum.reduceat(rows.max, first),
        last=rows.last[np.append(first, len(rows))[1:] - 1],
    )


def _plan(start: int, end: int, width: int, now: int) -> list[tuple[Tier, int, int]]:
    """Choose the tiers for a range in rows of ``width``, oldest first: (tier, begin, end), without gap or overlap."""
    best = max(index for index, tier in enumerate(TIERS) if tier.step <= width)
    plan: list[tuple[Tier, int, int]] = []
    for tier in TIERS[best:]:
        kept_since = (now - tier.retention) // tier.chunk * tier.chunk  # chunks expire as a whole
        coarser = min((one.step for one in ROLLUPS if one.step > tier.step), default=1)
        begin = max(start, -(-kept_since // coarser) * coarser)
        if begin < end:
            plan.append((tier, begin, end))
            end = begin
        if begin <= start:
            break
    return plan[::-1]


def _points(chunks: Sequence[tuple[int, bytes]]) -> History:
    points = np.frombuffer(b"".join(data for _, data in chunks), dtype=POINT)
    points = points[np.argsort(points["time"], kind="stable")]
    value = points["value"].copy()
    return History(
        time=points["time"].copy(),
        width=np.zeros(len(points), dtype=np.int64),
        count=np.ones(len(points), dtype=np.int64),
        sum=value,
        min=value,
        max=value,
        last=value,
    )


def _slots(chunks: Sequence[tuple[int, bytes]], tier: Tier) -> History:
    slots = np.frombuffer(b"".join(data for _, data in chunks), dtype=SLOT)
    counts = [len(data) // SLOT.itemsize for _, data in chunks]
    begins = np.repeat(np.array([chunk for chunk, _ in chunks], dtype=np.int64) * tier.chunk, counts)
    return History(
        time=begins + slots["index"].astype(np.int64) * tier.step,
        width=np.full(len(slots), tier.step, dtype=np.int64),
        count=slots["count"].astype(np.int64),
        sum=slots["sum"].copy(),
        min=slots["min"].copy(),
        max=slots["max"].copy(),
        last=slots["last"].copy(),
    )


_COLUMNS = ("time", "width", "count", "sum", "min", "max", "last")
_EMPTY = _points([])


def _between(rows: History, start: int, end: int) -> History:
    low, high = np.searchsorted(rows.time, [start, end])
    return replace(rows, **{name: getattr(rows, name)[low:high] for name in _COLUMNS})


def _concatenate(parts: Sequence[History]) -> History:
    if not parts:
        return _EMPTY
    return History(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS})


def _latest(series: bytes, record: bytes, unit: bytes) -> Latest:
    device, _, metric = series.decode().partition("/")
    time, value, received_at = np.frombuffer(record, dtype=LATEST)[0].item()
    return Latest(device, metric, time, value, unit.decode(), received_at)
