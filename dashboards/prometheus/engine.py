"""A query from its text to its answer, within limits.

What a query selects is read some series at a time and at once made into a value for each step, so memory is bounded by the
answer's size and not by how many readings there are. The store's tier is chosen by step and range.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import numpy as np

from dashboards.prometheus import windows
from dashboards.prometheus.catalogue import Catalogue, Known
from dashboards.prometheus.evaluation import Labels, Value, Vector, evaluate, without_name
from dashboards.prometheus.language import CHANGES, Expression, Leaf, Selector, leaves
from dashboards.prometheus.problems import TooMuch, TooSlow
from dashboards.prometheus.windows import Flags, Floats, Times
from isotherm.clock import now_us
from isotherm.limits import HOUR, MINUTE
from isotherm.store.history import History, concatenate, select
from isotherm.store.layout import ROLLUPS
from isotherm.store.reader import Reader

MAX_SERIES = 1_000
"""Series of an answer."""

MAX_SELECTED = 10_000
"""Series that a selector may mean: an aggregation makes few of many."""

MAX_CELLS = 4_000_000
"""Series that a selector means, times steps."""

MAX_ROWS = 10_000_000
"""Rows of the store that a query may read."""

MAX_WINDOW_ROWS = 200_000_000
"""Rows in all windows of a query; those that overlap count as often as they do."""

MAX_SECONDS = 30.0
"""How long a query may take."""

AT_ONCE = 2
"""Queries that a process works on; others wait for their turn, within their time."""

ROWS_AT_ONCE = 100_000
SERIES_AT_ONCE = 64
"""Rows, about, and series, at most, that are read in one go."""

EDGE = 1 / 20
"""A range is read in rows of at most this part of it,"""

FINE = 1 / 500
"""and not in finer ones than this part of it, however near to each other the steps are."""

EARLIER = 2 * windows.MOST_LOOKBACK
EARLIER_WIDTH = 1 * MINUTE
"""How far back, µs, and how fine is looked for readings of a series that has few, to know how long its values hold."""

AHEAD = 1 * HOUR
"""Nothing is stored of times further ahead, µs."""

Readings = tuple[Labels, Times, Floats]


@dataclass(slots=True)
class _Work:
    """What a query has done so far."""

    rows: int = 0
    window_rows: int = 0

    def add(self, rows: int, window_rows: int) -> None:
        self.rows += rows
        self.window_rows += window_rows
        if self.rows > MAX_ROWS:
            raise TooMuch(f"the query reads more than {MAX_ROWS:,} rows: ask for fewer series, less time, or longer steps")
        if self.window_rows > MAX_WINDOW_ROWS:
            raise TooMuch("the query's ranges overlap too much: ask for fewer series, shorter ranges, or longer steps")


@dataclass(frozen=True, slots=True)
class Engine:
    """Answers queries. Its methods raise BadQuery, TooMuch, TooSlow, and Unavailable when the store does not answer."""

    catalogue: Catalogue
    reader: Reader
    _turn: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))

    async def value(self, tree: Expression, times: Sequence[int], step: int, seconds: float = MAX_SECONDS) -> Value:
        """Return what a query is at each time.

        Args:
            tree: The query; no range selector by itself.
            times: µs since the epoch UTC, ascending by ``step``.
            step: µs; 0 for a single time.
            seconds: How long it may take; at most MAX_SECONDS.
        """
        at = np.array(times, dtype=np.int64)
        async with self._working(seconds):
            work = _Work()
            read = {leaf: await self._read(leaf, at, step, work) for leaf in dict.fromkeys(leaves(tree))}
            found = await asyncio.to_thread(evaluate, tree, read, len(at))
        if isinstance(found, Vector):
            _check_series(len(found.labels))
        return found

    async def readings(self, selector: Selector, time: int, seconds: float = MAX_SECONDS) -> list[Readings]:
        """Return what a range selector means at a time, µs since the epoch UTC: every reading, while it is kept."""
        times = np.array([time], dtype=np.int64) - selector.offset
        found: list[Readings] = []
        async with self._working(seconds):
            selected = await self._select(selector, times)
            _check_series(len(selected))
            async for known, rows in self._rows(selected, int(times[0]) - selector.range, int(times[0]) + 1, 0, _Work()):
                low, high = (int(edge[0]) for edge in windows.edges(rows, times, selector.range))
                if high > low:
                    found.append((known.labels, rows.last_at[low:high], rows.last[low:high]))
        return found

    @asynccontextmanager
    async def _working(self, seconds: float) -> AsyncIterator[None]:
        limit = min(seconds, MAX_SECONDS)
        try:
            async with asyncio.timeout(limit), self._turn:
                yield
        except TimeoutError as error:
            raise TooSlow(f"the query was not answered within {limit:g} s") from error

    async def _select(self, selector: Selector, times: Times) -> list[Known]:
        oldest = windows.MOST_LOOKBACK if not selector.range else selector.range
        found = await self.catalogue.select(selector.matchers, int(times[0]) - oldest)
        if len(found) > MAX_SELECTED:
            raise TooMuch(f"the query selects {len(found):,} series, expected at most {MAX_SELECTED:,}: select fewer")
        if len(found) * len(times) > MAX_CELLS:
            raise TooMuch(
                f"the query selects {len(found):,} series at {len(times):,} steps, "
                f"expected at most {MAX_CELLS:,} values: select fewer, or ask for longer steps"
            )
        return found

    async def _read(self, leaf: Leaf, times: Times, step: int, work: _Work) -> Vector:
        """Return a leaf of a query at each step."""
        selector = leaf if isinstance(leaf, Selector) else leaf.selector
        shifted = times - selector.offset
        function = "" if isinstance(leaf, Selector) else leaf.function
        width = row_width(function, selector.range, int(shifted[0]), step)
        back = selector.range or max(windows.LEAST_LOOKBACK, windows.LOOKBACK_INTERVALS * width)
        start, end = int(shifted[0]) - back, int(shifted[-1]) + 1
        labels: list[Labels] = []
        columns: list[tuple[Floats, Flags]] = []
        rows_of = self._rows(await self._select(selector, shifted), start, end, width, work, holds=not function)
        async for known, rows in rows_of:
            if function:
                low, high = windows.edges(rows, shifted, selector.range)
                work.add(0, int((high - low).sum()))
                values, there = await asyncio.to_thread(windows.over, function, rows, shifted, selector.range)
            else:
                values, there = windows.newest(rows, shifted, windows.lookback(rows))
            if there.any():
                labels.append(known.labels)
                columns.append((values, there))
        shape = (len(labels), len(times))
        found = Vector(
            labels,
            np.array([values for values, _ in columns], dtype=np.float64).reshape(shape),
            np.array([there for _, there in columns], dtype=np.bool_).reshape(shape),
        )
        return without_name(found) if function not in ("", "last_over_time") else found

    async def _rows(
        self, selected: Sequence[Known], start: int, end: int, width: int, work: _Work, *, holds: bool = False
    ) -> AsyncIterator[tuple[Known, History]]:
        """Yield the rows of each series over [start, end), some series being read at once.

        Args:
            selected: The series.
            start, end: µs since the epoch UTC.
            width: µs, of a tier; 0 for readings.
            work: Counts what is read.
            holds: Earlier readings are wanted, too, of series that have few: their values hold longer.
        """
        end = min(end, now_us() + AHEAD)
        place, at_once = 0, 1  # how many rows a series has, the first one tells
        while place < len(selected) and start < end:
            some = selected[place : place + at_once]
            found = await self.reader.rows([one.series for one in some], start, end, width)
            if holds:
                found |= await self._earlier(found, start)
            count = sum(map(len, found.values()))
            work.add(count, 0)
            for one in some:
                yield one, found[one.series]
            await asyncio.sleep(0)
            place += len(some)
            at_once = max(1, min(SERIES_AT_ONCE, ROWS_AT_ONCE * len(some) // max(1, count)))

    async def _earlier(self, found: dict[str, History], start: int) -> dict[str, History]:
        """Return the slow ones of some series with the rows before ``start``, µs, too."""
        slow = [name for name, rows in found.items() if is_slow(rows)]
        earlier = await self.reader.rows(slow, start - EARLIER, start, EARLIER_WIDTH) if slow else {}
        return {name: concatenate([before(rows, found[name]), found[name]]) for name, rows in earlier.items()}


def is_slow(rows: History) -> bool:
    """Tell whether a series has so few rows that its values may hold for longer than LEAST_LOOKBACK."""
    return len(rows) < 2 or windows.LOOKBACK_INTERVALS * windows.usual_distance(rows) > windows.LEAST_LOOKBACK


def before(rows: History, following: History) -> History:
    """Return the rows that do not reach into those that follow."""
    return select(rows, rows.last_at < following.time[0]) if len(following) else rows


def row_width(function: str, length: int, start: int, step: int) -> int:
    """Return how wide rows may be for a query, µs: the step of a tier, or 0 for readings.

    Args:
        function: Of the range; empty for a vector.
        length: Of the range, µs; 0 for a vector.
        start, step: The first step and how far apart they are, µs; 0 for a single one.

    >>> row_width("", 0, 0, 30_000_000), row_width("avg_over_time", 5 * MINUTE, 0, HOUR)
    (10000000, 60000000)
    """
    widest = step
    if length:
        widest = max(min(step or length, int(length * EDGE)), int(length * FINE))
    fitting = [0]
    for tier in ROLLUPS:
        divides = function not in CHANGES and step and not any(one % tier.step for one in (length, start, step))
        if tier.step <= widest or (length >= tier.step and divides):
            fitting.append(tier.step)
    return max(fitting)


def _check_series(count: int) -> None:
    if count > MAX_SERIES:
        raise TooMuch(f"the answer has {count:,} series, expected at most {MAX_SERIES:,}: select fewer, or aggregate")
