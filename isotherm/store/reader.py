"""Queries over the series store: the caller names a series and a range of time, never a tier."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from redis.exceptions import RedisError

from isotherm.clock import now_us
from isotherm.errors import Unavailable
from isotherm.limits import DAY, HOUR, MAX_FUTURE_US, MILLISECOND, MINUTE, SECOND
from isotherm.pack import Attribute
from isotherm.store import layout
from isotherm.store.client import Client
from isotherm.store.layout import LATEST, POINT, RAW, ROLLUPS, SLOT, TIERS, Tier
from isotherm.store.script import Script
from isotherm.store.sealed import combine
from isotherm.topics import partition_of

DEFAULT_POINTS = 1_000

MAX_CHUNKS_AT_ONCE = 512
"""Keys that one command reads: more would keep the store from its other work for too long."""

OPEN_KNOWN_US = 1 * MINUTE
"""How long a reader remembers which points are not rolled up yet."""

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
        last_at: Time of ``last``, µs since the epoch UTC, shape (n,).
    """

    time: NDArray[np.int64]
    width: NDArray[np.int64]
    count: NDArray[np.int64]
    sum: NDArray[np.float64]
    min: NDArray[np.float64]
    max: NDArray[np.float64]
    last: NDArray[np.float64]
    last_at: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.time)

    @property
    def mean(self) -> NDArray[np.float64]:
        """Arithmetic mean of the readings of each row, shape (n,); where a value was carried on, that value."""
        mean: NDArray[np.float64] = self.sum / np.maximum(self.count, 1)
        return mean

    def on_grid(self, start: int, end: int, step: int, max_age: int = 0) -> History:
        """Return these rows on a regular grid; see :func:`on_grid`."""
        return on_grid(self, start, end, step, max_age)


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
        """
        if points <= 0 or end < start:
            raise ValueError(f"expected points > 0 and start <= end, got points={points}, start={start}, end={end}")
        width = row_width(end - start, points)
        now = now_us()
        plan = _plan(start, end, width, now)
        found = dict.fromkeys(series, _EMPTY)
        for partition, names in self._by_partition(series).items():
            wanted = _Wanted(plan, await self._not_rolled_up(partition, now))
            at_once = max(1, MAX_CHUNKS_AT_ONCE // max(1, len(wanted)))
            for first in range(0, len(names), at_once):
                some = names[first : first + at_once]
                # One command for all of a series: an hour that is rolled up meanwhile is seen before or after.
                values = await self._get([key for name in some for key in wanted.keys(partition, name)])
                for number, name in enumerate(some):
                    mine = values[number * len(wanted) : (number + 1) * len(wanted)]
                    found[name] = _fit(wanted.decode(mine), points, width)
        return found

    async def series(self, pattern: str = "*") -> list[str]:
        """Return the series whose name matches a pattern such as ``sensor-*/temperature``, ascending.

        Args:
            pattern: Of a shell: ``*`` any text, ``?`` any character, ``[ab]`` one of these; upper and lower case differ.
                ``*`` also matches slashes.

        Raises:
            Unavailable: Redis does not answer.
        """
        matches = re.compile(fnmatch.translate(pattern)).match
        found: list[str] = []
        try:
            for partition in range(self._partitions):
                names = await self._redis.hkeys(layout.latest_key(partition))
                found += filter(matches, (name.decode() for name in names))
        except RedisError as error:
            raise Unavailable(f"the store does not answer: {error}") from error
        return sorted(found)

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
        found = dict.fromkeys(cursors, (np.empty(0, dtype=POINT), Cursor(())))
        for partition, names in self._by_partition(list(cursors)).items():
            read = [dict(cursor.read) if (cursor := cursors[name]) else {} for name in names]
            keys = [key for name in names for chunk in chunks for key in _both(partition, RAW, name, chunk)]
            lengths = [one.get(chunk, 0) for one in read for chunk in chunks]
            try:
                answers = iter(await self._tail(keys, lengths))
            except RedisError as error:
                raise Unavailable(f"the store does not answer: {error}") from error
            for name, one in zip(names, read, strict=True):
                parts = [_unread(answer, one.get(chunk, 0)) for chunk, answer in zip(chunks, answers, strict=False)]
                ends = (one.get(chunk, 0) + points.nbytes for chunk, points in zip(chunks, parts, strict=True))
                found[name] = np.concatenate(parts), Cursor(tuple(zip(chunks, ends, strict=True)))
        return found

    async def _not_rolled_up(self, partition: int, now: int) -> set[int]:
        """Return the chunks of points that may be open, for some series.

        Recent ones may be for many reasons. Of older ones the store knows, and there are none to come: what is measured
        then is rolled up at once. So it is asked every minute.
        """
        known = self._open.get(partition)
        if known is None or now - known[0] > OPEN_KNOWN_US:
            marks = layout.open_key(partition), layout.sweeping_key(partition)
            try:
                members = await self._redis.sunion(marks)
            except RedisError as error:
                raise Unavailable(f"the store does not answer: {error}") from error
            chunks = [member.split(b":") for member in members]
            known = now, {int(number) for tier, number in chunks if tier == RAW.name.encode()}
            self._open[partition] = known
        recent = range(layout.first_kept(RAW, known[0]), (now + MAX_FUTURE_US) // RAW.chunk + 1)
        return known[1].union(recent)

    async def _get(self, keys: Sequence[str]) -> list[bytes | None]:
        try:
            return await self._redis.mget(keys) if keys else []
        except RedisError as error:
            raise Unavailable(f"the store does not answer: {error}") from error

    def _by_partition(self, series: Sequence[str]) -> dict[int, list[str]]:
        found: dict[int, list[str]] = {}
        for name in series:
            found.setdefault(self._partition(name), []).append(name)
        return found

    def _partition(self, series: str) -> int:
        return partition_of(series.partition("/")[0], self._partitions)


def _both(partition: int, tier: Tier, series: str, chunk: int) -> tuple[str, str]:
    """Return the keys of a chunk: of what is open of it, and of what is sealed."""
    return layout.chunk_key(partition, tier, series, chunk), layout.sealed_key(partition, tier, series, chunk)


def _unread(answer: tuple[bytes, bytes], read: int) -> NDArray[np.void]:
    """Return the points of a chunk after the first ``read`` bytes of them, from what tail.lua says."""
    sealed, rows = answer
    if not sealed:
        return np.frombuffer(rows, dtype=POINT)
    return combine(RAW, sealed, rows)[read // POINT.itemsize :]


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
    return _merge(rows, max(width, int(rows.width.max()))) if len(rows) else rows


def _merge(rows: History, width: int) -> History:
    """Merge the rows that begin in the same ``width`` µs, counted from the epoch."""
    if not len(rows):
        return rows
    bucket = rows.time // width
    first = np.append(0, np.flatnonzero(bucket[1:] != bucket[:-1]) + 1)
    final = np.append(first[1:], len(rows)) - 1  # the rows ascend: each bucket's last one has its greatest time
    return History(
        time=bucket[first] * width,
        width=np.full(len(first), width, dtype=np.int64),
        count=np.add.reduceat(rows.count, first),
        sum=np.add.reduceat(rows.sum, first),
        min=np.minimum.reduceat(rows.min, first),
        max=np.maximum.reduceat(rows.max, first),
        last=rows.last[final],
        last_at=rows.last_at[final],
    )


def on_grid(rows: History, start: int, end: int, step: int, max_age: int = 0) -> History:
    """Put rows on a regular grid over [start, end): one row every ``step`` µs, counted from the epoch.

    A row lies where it begins; one that is wider than a step is not spread. Where there is nothing, count is 0, the
    aggregates are NaN and last_at is 0, unless the last value is carried on: then the aggregates are that value, last_at
    says when it was measured, and count is still 0.

    Args:
        rows: What to put there; what begins outside of the grid is left out.
        start, end: µs since the epoch UTC; the grid begins with the cell that ``start`` falls into.
        step: Width of a cell, µs, > 0.
        max_age: How long after its measurement a value is carried on, µs, measured at a cell's begin; 0: not at all.

    Raises:
        ValueError: step <= 0 or end < start.

    >>> at = np.array([0, 3 * SECOND]); one = np.array([1.0, 4.0]); width = np.full(2, SECOND)
    >>> rows = History(at, width, np.ones(2, dtype=np.int64), one, one, one, one, at)
    >>> on_grid(rows, 0, 5 * SECOND, SECOND).last.tolist()
    [1.0, nan, nan, 4.0, nan]
    >>> on_grid(rows, 0, 5 * SECOND, SECOND, max_age=1 * SECOND).last.tolist()
    [1.0, 1.0, nan, 4.0, 4.0]
    """
    if step <= 0 or end < start:
        raise ValueError(f"expected step > 0 and start <= end, got step={step}, start={start}, end={end}")
    low, high = start // step, -(-end // step)
    cells = high - low
    merged = _merge(rows, step)
    place = merged.time // step - low
    inside = (place >= 0) & (place < cells)
    place = place[inside]
    grid = {column: np.full(cells, 0 if getattr(merged, column).dtype.kind == "i" else np.nan) for column in _AGGREGATES}
    for column, values in grid.items():
        values[place] = getattr(merged, column)[inside]
    time = np.arange(low, high, dtype=np.int64) * step
    if max_age > 0 and cells:
        newest = np.maximum.accumulate(np.where(grid["count"] > 0, np.arange(cells), -1))
        carried = (grid["count"] == 0) & (newest >= 0)
        carried &= time - grid["last_at"][newest] <= max_age
        for column in ("sum", "min", "max", "last"):
            grid[column][carried] = grid["last"][newest[carried]]
        grid["last_at"][carried] = grid["last_at"][newest[carried]]
    return History(time=time, width=np.full(cells, step, dtype=np.int64), **grid)


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


class _Wanted:
    """What to read of each series: the chunks of a plan, and points that are not rolled up yet."""

    def __init__(self, plan: Sequence[tuple[Tier, int, int]], open_points: set[int]) -> None:
        self._parts: list[tuple[Tier, int, int, range, list[int]]] = []
        for tier, begin, end in plan:
            start = begin - begin % max(tier.step, 1)  # the slot that it falls into is wanted
            hours = range(start // RAW.chunk, -(-end // RAW.chunk))
            pending = [] if tier is RAW else sorted(open_points.intersection(hours))
            self._parts.append((tier, start, end, range(start // tier.chunk, -(-end // tier.chunk)), pending))

    def __len__(self) -> int:
        """Keys of each series."""
        return sum(2 * len(chunks) + len(pending) for *_, chunks, pending in self._parts)

    def keys(self, partition: int, series: str) -> Iterator[str]:
        """Yield the keys of a series."""
        for tier, _, _, chunks, pending in self._parts:
            for chunk in chunks:
                yield from _both(partition, tier, series, chunk)
            for chunk in pending:
                yield layout.chunk_key(partition, RAW, series, chunk)

    def decode(self, values: Sequence[bytes | None]) -> list[History]:
        """Return the rows of each part of the plan, where there are any, from what lies under the keys."""
        given = iter(values)
        parts = []
        for tier, start, end, chunks, pending in self._parts:
            pairs = [(chunk, next(given), next(given)) for chunk in chunks]
            held = [(chunk, combine(tier, before, rows)) for chunk, rows, before in pairs if rows or before]
            points = b"".join(rows for rows in islice(given, len(pending)) if rows)
            rows = (_points if tier is RAW else partial(_slots, tier))(held, start, end) if held else _EMPTY
            if points:
                rolled = _merge(_points([(0, np.frombuffer(points, dtype=POINT))], start, end), tier.step)
                rows = _together(rows, rolled, tier.step)
            if len(rows):
                parts.append(rows)
        return parts


def _together(stored: History, rolled: History, width: int) -> History:
    """Merge two histories whose rows are of one width; of equal times of ``last``, the second one's counts."""
    if not len(stored):
        return rolled
    both = _concatenate([stored, rolled])
    order = np.lexsort((both.last_at, both.time))
    return _merge(History(**{name: getattr(both, name)[order] for name in _COLUMNS}), width)


def _points(held: Sequence[tuple[int, NDArray[np.void]]], start: int, end: int) -> History:
    time = np.concatenate([points["time"] for _, points in held])
    value = np.concatenate([points["value"] for _, points in held])
    wanted = np.flatnonzero((time >= start) & (time < end))
    order = wanted[np.argsort(time[wanted], kind="stable")]  # of one time, the order of arrival
    time, value = time[order], value[order]
    return History(
        time=time,
        width=np.zeros(len(time), dtype=np.int64),
        count=np.ones(len(time), dtype=np.int64),
        sum=value,
        min=value,
        max=value,
        last=value,
        last_at=time,
    )


def _slots(tier: Tier, held: Sequence[tuple[int, NDArray[np.void]]], start: int, end: int) -> History:
    parts, begins = [], []
    for chunk, slots in held:
        begin = chunk * tier.chunk
        if begin < start or end < begin + tier.chunk:
            low, high = np.searchsorted(slots["index"], [(start - begin) // tier.step, -((begin - end) // tier.step)])
            slots = slots[low:high]
        parts.append(slots)
        begins.append(begin)
    column = {name: np.concatenate([slots[name] for slots in parts]) for name in SLOT.names or ()}
    time = np.repeat(np.array(begins, dtype=np.int64), [len(slots) for slots in parts])
    time += column["index"] * np.int64(tier.step)
    return History(
        time=time,
        width=np.full(len(time), tier.step, dtype=np.int64),
        count=column["count"].astype(np.int64),
        sum=column["sum"],
        min=column["min"],
        max=column["max"],
        last=column["last"],
        last_at=time + column["last_at"],
    )


def _fit(parts: Sequence[History], points: int, width: int) -> History:
    """Join the parts of a plan to at most ``points`` rows: merged to ``width`` where they are more."""
    rows = _concatenate(parts)
    if len(rows) > points:
        rows = _concatenate([coarsen(part, width) for part in parts])
    return rows if len(rows) <= points else coarsen(rows, width)


_COLUMNS = tuple(field.name for field in fields(History))
_AGGREGATES = ("count", "sum", "min", "max", "last", "last_at")
_EMPTY = _points([(0, np.empty(0, dtype=POINT))], 0, 0)


def _concatenate(parts: Sequence[History]) -> History:
    if not parts:
        return _EMPTY
    if len(parts) == 1:
        return parts[0]
    return History(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS})


def _latest(series: bytes, record: bytes, unit: bytes) -> Latest:
    device, _, metric = series.decode().partition("/")
    time, value, received_at = np.frombuffer(record, dtype=LATEST)[0].item()
    return Latest(device, metric, time, value, unit.decode(), received_at)
