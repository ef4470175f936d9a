"""The readings that an analytic wants, out of packs: grouped by what it keeps a state for, in order, each once.

Names become small numbers, its codes, the first time they are seen; from then on nothing is looked at but columns. A reading
that is not newer than those of its code in earlier packs is left out: it is late, or sent again, and would turn time back
for a state. Several of one time that came in one pack all count.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import translate

import numpy as np
from numpy.typing import NDArray

from isotherm.pack import Pack

NEVER = np.iinfo(np.int64).min
"""The newest time of what was never heard of."""

_RADIX = 2**15  # codes below this sort in linear time, as 16-bit integers


def matcher(globs: str | Sequence[str]) -> Callable[[str], bool]:
    """Return what tells whether a series matches one of some patterns; ``*`` also matches slashes.

    >>> matches = matcher("room-*/temperature, boiler/*")
    >>> matches("room-1/temperature"), matches("boiler/flow/temperature"), matches("room-1/humidity")
    (True, True, False)
    """
    parts = [part.strip() for part in globs.split(",")] if isinstance(globs, str) else list(globs)
    pattern = re.compile("|".join(translate(part) for part in parts))
    return lambda name: pattern.match(name) is not None


def wanted(inputs: str, output: str) -> Callable[[str], bool]:
    """Return what tells whether an analytic reads a series: one that matches its inputs, and is not what it makes itself.

    >>> is_wanted = wanted("*", "{metric}_score")
    >>> is_wanted("room-1/temperature"), is_wanted("room-1/temperature_score")
    (True, False)
    """
    matches = matcher(inputs)
    if not output:
        return matches
    own = re.compile("/" + re.escape(output).replace(re.escape("{metric}"), ".+") + "$")
    return lambda name: matches(name) and own.search(name) is None


class Codes(dict[str, int]):
    """Series → code, or -1 for one that is not wanted; a new name is asked about once."""

    def __init__(self, code_of: Callable[[str], int]) -> None:
        super().__init__()
        self._code_of = code_of

    def __missing__(self, name: str) -> int:
        code = self[name] = self._code_of(name)
        return code


@dataclass(frozen=True, slots=True)
class Rows:
    """Some readings in columns, each of shape (n,).

    Attributes:
        code: What a state is kept for.
        series: Index into ``names``.
        time: µs since the epoch UTC.
        value: Samples.
        pack: Number of the pack it came in, ascending in order of arrival.
        names: Series of these readings.
    """

    code: NDArray[np.int64]
    series: NDArray[np.int64]
    time: NDArray[np.int64]
    value: NDArray[np.float64]
    pack: NDArray[np.int64]
    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.time)

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Rows:
        """Return some of the rows."""
        return Rows(self.code[rows], self.series[rows], self.time[rows], self.value[rows], self.pack[rows], self.names)

    def to_pack(self, connector: str) -> Pack:
        """Return the readings as a pack."""
        used, series = np.unique(self.series, return_inverse=True)
        names = [self.names[i] for i in used.tolist()]
        return Pack(names, series.astype(np.int32), self.time, self.value, connector, 0)


def gather(packs: Sequence[Pack], codes: Codes) -> Rows:
    """Return the readings whose series are wanted, in order of arrival."""
    numbers: dict[str, int] = {}
    parts: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], int]] = []
    for at, pack in enumerate(packs):
        count = len(pack.names)
        wanted = np.fromiter(map(codes.__getitem__, pack.names), np.int64, count)
        if not count or wanted.max() < 0:
            continue
        series = np.fromiter((numbers.setdefault(name, len(numbers)) for name in pack.names), np.int64, count)
        code = wanted[pack.series]
        if wanted.min() >= 0:
            parts.append((code, series[pack.series], pack.time, pack.value, at))
        else:
            rows = code >= 0
            parts.append((code[rows], series[pack.series[rows]], pack.time[rows], pack.value[rows], at))
    if not parts:
        none = np.empty(0, dtype=np.int64)
        return Rows(none, none, none, np.empty(0), none, ())
    code, row_series, time, value = (np.concatenate(column) for column in list(zip(*parts, strict=True))[:4])
    pack_number = np.repeat([part[4] for part in parts], [len(part[0]) for part in parts])
    return Rows(code, row_series, time, value, pack_number, list(numbers))


def in_order(rows: Rows, newest: NDArray[np.int64]) -> Rows:
    """Return rows grouped by code, ascending by time within one, without those that come late.

    Which packs come together does not matter: of each code, a reading stays if it is newer than all in the packs before its
    own.

    Args:
        rows: In order of arrival.
        newest: Code → the newest time before, µs since the epoch UTC.
    """
    if not len(rows):
        return rows
    small = rows.code.astype(np.int16) if len(newest) < _RADIX else rows.code
    ordered = rows.take(np.argsort(small, kind="stable"))
    fresh = _is_fresh(ordered, newest)
    if fresh.all():
        return ordered
    ordered = rows.take(np.lexsort((rows.time, rows.pack, rows.code)))
    return ordered.take(_newer_than_all_before(ordered, newest))


def begins(column: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where runs of equal values begin."""
    return np.flatnonzero(np.diff(column, prepend=column[:1] - 1))


def _is_fresh(rows: Rows, newest: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell of each row whether it may follow the one before it: it is newer, or as old and of the same pack."""
    before = np.empty_like(rows.time)
    before[1:] = rows.time[:-1]
    first = begins(rows.code)
    before[first] = newest[rows.code[first]]
    is_beside = np.zeros(len(rows), dtype=np.bool_)
    is_beside[1:] = rows.pack[1:] == rows.pack[:-1]
    is_beside[first] = False
    fresh: NDArray[np.bool_] = np.where(is_beside, rows.time >= before, rows.time > before)
    return fresh


def _newer_than_all_before(rows: Rows, newest: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell the same of rows in order of code, pack and time, where all in earlier packs count, not only the row before."""
    fresh = _is_fresh(rows, newest)
    first = begins(rows.code)
    ends = np.append(first[1:], len(rows))
    for run in np.unique(np.searchsorted(first, np.flatnonzero(~fresh), side="right") - 1).tolist():
        mine = slice(first[run], ends[run])
        time = rows.time[mine]
        packs = begins(rows.pack[mine])
        before = np.maximum.accumulate(np.append(newest[rows.code[first[run]]], time))[packs]
        fresh[mine] = time > np.repeat(before, np.diff(np.append(packs, len(time))))
    return fresh
