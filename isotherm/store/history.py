"""History: rows of a series, and what can be done with them. Pure functions over columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from isotherm.limits import DAY, HOUR, MILLISECOND, MINUTE, SECOND

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
    return merge(rows, max(width, int(rows.width.max()))) if len(rows) else rows


def merge(rows: History, width: int) -> History:
    """Merge the rows that begin in the same ``width`` µs, counted from the epoch."""
    if not len(rows):
        return rows
    bucket = rows.time // width
    first = np.append(0, np.flatnonzero(bucket[1:] != bucket[:-1]) + 1)
    with np.errstate(over="ignore", invalid="ignore"):  # a sum of extreme values is infinite
        total = np.add.reduceat(rows.sum, first)
    final = np.append(first[1:], len(rows)) - 1  # the rows ascend: each bucket's last one has its greatest time
    return History(
        time=bucket[first] * width,
        width=np.full(len(first), width, dtype=np.int64),
        count=np.add.reduceat(rows.count, first),
        sum=total,
        min=np.minimum.reduceat(rows.min, first),
        max=np.maximum.reduceat(rows.max, first),
        last=rows.last[final],
        last_at=rows.last_at[final],
    )


def select(rows: History, wanted: NDArray[np.bool_]) -> History:
    """Return the rows that are wanted, shape (n,)."""
    return History(**{name: getattr(rows, name)[wanted] for name in _COLUMNS})


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
    merged = merge(rows, step)
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


def together(stored: History, rolled: History, width: int) -> History:
    """Merge two histories whose rows are of one width; of equal times of ``last``, the second one's counts."""
    if not len(stored):
        return rolled
    both = concatenate([stored, rolled])
    order = np.lexsort((both.last_at, both.time))
    return merge(History(**{name: getattr(both, name)[order] for name in _COLUMNS}), width)


def fit(parts: Sequence[History], points: int, width: int) -> History:
    """Join the parts of a plan to at most ``points`` rows: merged to ``width`` where they are more."""
    rows = concatenate(parts)
    if len(rows) > points:
        rows = concatenate([coarsen(part, width) for part in parts])
    return rows if len(rows) <= points else coarsen(rows, width)


_COLUMNS = tuple(field.name for field in fields(History))
_AGGREGATES = ("count", "sum", "min", "max", "last", "last_at")


EMPTY = History(*(np.empty(0, dtype=np.int64),) * 3, *(np.empty(0),) * 4, np.empty(0, dtype=np.int64))
"""No rows."""


def concatenate(parts: Sequence[History]) -> History:
    if not parts:
        return EMPTY
    if len(parts) == 1:
        return parts[0]
    return History(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS})
