"""What is compared: which series, over which range, and their values on common times. No I/O."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlencode

import numpy as np
from numpy.typing import NDArray

from dashboards.charts import MAX_UNITS
from dashboards.gaps import least_silence, silences
from isotherm.clock import iso, parse_iso
from isotherm.limits import DAY, HOUR, MINUTE
from isotherm.rules.targets import matches
from isotherm.store.history import History, merge, row_width
from isotherm.store.reader import Latest
from isotherm.units import symbol

MAX_LINES = 20
MAX_PATTERNS = 50
MAX_PATTERN_CHARS = 260

POINTS = 600
"""Common times that lines have."""

LEAST_SPAN = 1 * MINUTE
GREATEST_SPAN = 366 * DAY

_UNITS = {"m": MINUTE, "h": HOUR, "d": DAY}


class NoRange(ValueError):
    """A range of time that cannot be; says why, and what is expected."""


@dataclass(frozen=True, slots=True)
class View:
    """What an address says is to be seen.

    Attributes:
        patterns: Of series, as a shell has them: ``room-*/temperature``.
        last: Length of a range that ends now, such as ``7d``; empty when it has fixed ends.
        start, end: The fixed ends, µs since the epoch UTC; 0 where ``last`` is given.
        hidden: Series that are not drawn.
    """

    patterns: tuple[str, ...] = ()
    last: str = "24h"
    start: int = 0
    end: int = 0
    hidden: frozenset[str] = frozenset()

    def range(self, now: int) -> tuple[int, int]:
        """Return the range at a time, µs."""
        return (now - span_of(self.last), now) if self.last else (self.start, self.end)

    def query(self) -> str:
        """Return the query of the address that shows this."""
        pairs = [("series", one) for one in self.patterns]
        ends = [(name, iso(time, "seconds")) for name, time in (("start", self.start), ("end", self.end))]
        pairs += [("last", self.last)] if self.last else ends
        return urlencode(pairs + [("hide", one) for one in sorted(self.hidden)], safe="/*:[]")

    def with_pattern(self, pattern: str) -> View:
        """Return a view with one pattern more."""
        if not pattern or pattern in self.patterns or len(self.patterns) >= MAX_PATTERNS:
            return self
        return replace(self, patterns=(*self.patterns, pattern[:MAX_PATTERN_CHARS]))

    def without_pattern(self, pattern: str) -> View:
        """Return a view without a pattern."""
        return replace(self, patterns=tuple(one for one in self.patterns if one != pattern))

    def toggled(self, series: str) -> View:
        """Return a view with a line shown that was not, or the other way round."""
        return replace(self, hidden=self.hidden ^ {series})

    def over(self, start: int, end: int) -> View:
        """Return a view with fixed ends."""
        return replace(self, last="", start=start, end=end)

    @classmethod
    def read(cls, series: Sequence[str], last: str, start: str, end: str, hidden: Iterable[str]) -> View:
        """Return what an address says.

        Raises:
            NoRange: of its range.
        """
        patterns = tuple(dict.fromkeys(one[:MAX_PATTERN_CHARS] for one in series if one))[:MAX_PATTERNS]
        view = cls(patterns=patterns, hidden=frozenset(list(hidden)[:MAX_LINES]))
        if start or end:
            begin, until = _time(start), _time(end)
            if not LEAST_SPAN <= until - begin <= GREATEST_SPAN:
                raise NoRange(f"the range is from {start} to {end}, expected 1 minute to 366 days, the end after the start")
            return view.over(begin, until)
        if last:
            span_of(last)
            return replace(view, last=last)
        return view


def span_of(last: str) -> int:
    """Return the length of a range that ends now, µs.

    Raises:
        NoRange: it is none.

    >>> span_of("90m") == 90 * MINUTE
    True
    """
    found = re.fullmatch(r"(\d{1,6})([mhd])", last)
    span = int(found[1]) * _UNITS[found[2]] if found else 0
    if not LEAST_SPAN <= span <= GREATEST_SPAN:
        raise NoRange(f"last is {last[:80]!r}, expected a length such as 90m, 24h or 7d, of 1 minute to 366 days")
    return span


@dataclass(frozen=True, slots=True)
class Selection:
    """The series that patterns mean.

    Attributes:
        series: Those that are drawn.
        units: Their units, as people write them; at most two different ones.
        matching: How many there are that match.
        left_out: Units of those that are not drawn because of their unit.
    """

    series: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    matching: int = 0
    left_out: tuple[str, ...] = ()

    @property
    def note(self) -> str:
        """What people have to be told of it."""
        said = []
        if self.left_out:
            units = ", ".join(unit or "no unit" for unit in self.left_out)
            said.append(f"Two units fit into one chart: series of {units} are left out.")
        if self.matching > len(self.series) and len(self.series) == MAX_LINES:
            said.append(f"{self.matching:,} series match; the first {MAX_LINES} are shown.")
        return " ".join(said)


def select(patterns: Sequence[str], latest: Sequence[Latest]) -> Selection:
    """Return the series that match any pattern: MAX_LINES of the two units that most have, by pattern and name."""
    matching: dict[str, str] = {}
    for pattern in patterns:
        for one in latest:
            name = f"{one.device}/{one.metric}"
            if name not in matching and matches(pattern, name):
                matching[name] = symbol(one.unit)
    counts = Counter(matching.values()).most_common()
    chosen = {unit for unit, _ in counts[:MAX_UNITS]}
    shown = {name: unit for name, unit in matching.items() if unit in chosen}
    series = tuple(shown)[:MAX_LINES]
    left_out = tuple(unit for unit, _ in counts[MAX_UNITS:])
    return Selection(series, tuple(shown[name] for name in series), len(matching), left_out)


@dataclass(frozen=True, slots=True)
class Figures:
    """Of the readings of a series in a range: how many, their mean, least, greatest and last; NaN of none."""

    count: int
    mean: float
    min: float
    max: float
    last: float


def figures(rows: History, start: int, end: int) -> Figures:
    """Return the figures of the rows that begin in [start, end), µs."""
    inside = np.flatnonzero((rows.time >= start) & (rows.time < end))
    if not len(inside):
        return Figures(0, *[float("nan")] * 4)
    count = int(rows.count[inside].sum())
    mean = float(rows.sum[inside].sum()) / max(count, 1)
    return Figures(count, mean, float(rows.min[inside].min()), float(rows.max[inside].max()), float(rows.last[inside[-1]]))


def common_times(start: int, end: int) -> NDArray[np.int64]:
    """Return the times that all lines have over [start, end), µs: every row_width, counted from the epoch."""
    step = row_width(end - start, POINTS)
    return np.arange(start // step, -(-end // step), dtype=np.int64) * step


def aligned(rows: History, times: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the mean of a series at common times, shape of ``times``; NaN before, after and in its silences.

    Between two rows that are no silence apart the line goes straight, so a device that reports seldom has a line as well.
    """
    values = np.full(len(times), np.nan)
    if not len(rows) or len(times) < 2:
        return values
    merged = merge(rows, int(times[1] - times[0]))
    silent = silences(merged.time, max(least_silence(merged.time, float(times[-1] - times[0])), 2.0 * merged.width[0]))
    for first, last in zip([0, *silent], [*silent, len(merged)], strict=True):
        low, high = np.searchsorted(times, [merged.time[first], merged.time[last - 1] + 1])
        values[low:high] = np.interp(times[low:high], merged.time[first:last], merged.mean[first:last])
        if high - low <= 1:  # a reading by itself is a dash: a single point of a line is not seen
            at = low if high > low else max(0, low - 1)
            values[at : at + 2] = merged.mean[first]
    return values


def _time(text: str) -> int:
    try:
        return parse_iso(text)
    except ValueError as error:
        raise NoRange(f"{text[:80]!r} is no time, expected start and end such as 2026-11-23T08:00:00Z") from error
