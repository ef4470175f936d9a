"""Readings of one series → a value at each step. No I/O.

A row of the store counts where its last reading lies: at that time, with that value, and with the sum, least, greatest and
number of all of its readings. Of a single reading that is what Prometheus does. Of a row that stands for more it is exact
where steps and ranges are multiples of its width, as those of Grafana mostly are; else a window begins and ends up to a
row's width early. A window is open at its begin and closed at its end, as in Prometheus 3.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from dashboards.prometheus.language import CHANGES
from isotherm.limits import HOUR, MINUTE, SECOND
from isotherm.store.history import History

Floats = NDArray[np.float64]
Times = NDArray[np.int64]
Flags = NDArray[np.bool_]

LEAST_LOOKBACK = 5 * MINUTE
"""How long a value holds, µs, as in Prometheus;"""

LOOKBACK_INTERVALS = 2
"""longer for a series that is slower: so many times as long as its readings use to be apart,"""

MOST_LOOKBACK = 25 * HOUR
"""but no longer than this, µs."""


def usual_distance(rows: History) -> int:
    """Return how far apart rows use to be, µs; 0 when there are less than two."""
    return int(np.median(np.diff(rows.last_at))) if len(rows) > 1 else 0


def lookback(rows: History) -> int:
    """Return how long a value of this series holds, µs."""
    width = int(rows.width.max()) if len(rows) else 0
    usual = LOOKBACK_INTERVALS * max(usual_distance(rows), width)
    return min(max(LEAST_LOOKBACK, usual), MOST_LOOKBACK)


def newest(rows: History, times: Times, age: int) -> tuple[Floats, Flags]:
    """Return the newest value at each time, and whether there is one that is younger than ``age``, µs."""
    if not len(rows):
        return _nothing(times)
    place = np.searchsorted(rows.last_at, times, side="right") - 1
    known = np.maximum(place, 0)
    return rows.last[known], (place >= 0) & (rows.last_at[known] > times - age)


def edges(rows: History, times: Times, length: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return which rows lie in the ``length`` µs before each time: the first one, and the one after the last."""
    low = np.searchsorted(rows.last_at, times - length, side="right")
    return low, np.searchsorted(rows.last_at, times, side="right")


def over(function: str, rows: History, times: Times, length: int) -> tuple[Floats, Flags]:
    """Return what a range function gives at each time, and whether it gives anything.

    Where rows are wider than the range, as those of long ago are, the mean, least, greatest and last value are those of the
    row; sum and count would be wrong by as much as it is wider, and there are none.
    """
    if not len(rows):
        return _nothing(times)
    low, high = edges(rows, times, length)
    if function in CHANGES:
        return _change(function, rows, times, length, low, high)
    final = np.maximum(high - 1, 0)
    too_wide = rows.width[final] > length
    if function in _OF_WIDE_ROWS:
        holds = (high > 0) & too_wide & (rows.last_at[final] + rows.width[final] > times)
        low = np.where(holds, np.minimum(low, final), low)
        there = high > low
    else:
        there = (high > low) & ~too_wide
    with np.errstate(over="ignore", invalid="ignore"):
        return _FUNCTIONS[function](rows, low, high), there


def _nothing(times: Times) -> tuple[Floats, Flags]:
    return np.full(len(times), np.nan), np.zeros(len(times), dtype=np.bool_)


def _reduced(how: np.ufunc, values: NDArray[np.float64], low: NDArray[np.intp], high: NDArray[np.intp]) -> Floats:
    """Reduce each window; what is said of empty ones means nothing."""
    ends = np.stack([low, high], axis=1).ravel()
    found: Floats = how.reduceat(np.append(values, 0.0), ends)[::2]
    return found


def _count(rows: History, low: NDArray[np.intp], high: NDArray[np.intp]) -> Floats:
    before = np.append(0, np.cumsum(rows.count))
    found: Floats = (before[high] - before[low]).astype(np.float64)
    return found


def _mean(rows: History, low: NDArray[np.intp], high: NDArray[np.intp]) -> Floats:
    mean: Floats = _reduced(np.add, rows.sum, low, high) / np.maximum(_count(rows, low, high), 1.0)
    return mean


_FUNCTIONS: dict[str, Callable[[History, NDArray[np.intp], NDArray[np.intp]], Floats]] = {
    "avg_over_time": _mean,
    "min_over_time": lambda rows, low, high: _reduced(np.fmin, rows.min, low, high),
    "max_over_time": lambda rows, low, high: _reduced(np.fmax, rows.max, low, high),
    "sum_over_time": lambda rows, low, high: _reduced(np.add, rows.sum, low, high),
    "count_over_time": _count,
    "last_over_time": lambda rows, _, high: rows.last[np.maximum(high - 1, 0)],
}
_OF_WIDE_ROWS = ("avg_over_time", "min_over_time", "max_over_time", "last_over_time")


def _change(
    function: str, rows: History, times: Times, length: int, low: NDArray[np.intp], high: NDArray[np.intp]
) -> tuple[Floats, Flags]:
    """Return how much a value changed in each window, extrapolated to its edges as Prometheus 3 does it.

    A counter that falls has begun anew, and what it shows then has been added (``rate``, ``increase``). Of a row the last
    reading is known alone: a counter that begins anew and overtakes itself within one is not noticed.

    Source: prometheus/promql/functions.go, extrapolatedRate.
    """
    there = high - low >= 2
    first, final = np.minimum(low, len(rows) - 1), np.maximum(high - 1, 0)
    is_counter = function != "delta"
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        changed = rows.last[final] - rows.last[first]
        if is_counter:
            fallen = np.where(rows.last[1:] < rows.last[:-1], rows.last[:-1], 0.0)
            lost = np.append(0.0, np.cumsum(fallen))
            changed = changed + (lost[final] - lost[first])
        sampled = (rows.last_at[final] - rows.last_at[first]) / SECOND
        usual = sampled / np.maximum(high - low - 1, 1)
        to_begin = (rows.last_at[first] - (times - length)) / SECOND
        to_end = (times - rows.last_at[final]) / SECOND
        to_begin = np.where(to_begin >= 1.1 * usual, usual / 2, to_begin)
        to_end = np.where(to_end >= 1.1 * usual, usual / 2, to_end)
        if is_counter:
            to_zero = np.where((changed > 0) & (rows.last[first] >= 0), sampled * (rows.last[first] / changed), np.inf)
            to_begin = np.minimum(to_begin, to_zero)
        value = changed * ((sampled + to_begin + to_end) / sampled)
    return value / (length / SECOND) if function == "rate" else value, there & (sampled > 0)
