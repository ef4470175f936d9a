"""Import: a file into the store, effectively once.

A file is a log of its own: its identity is the SHA-256 of its content, its offsets are the numbers of its rows. For each
partition the store says up to which row it has taken the file in, in the same atomic step that stores the rows. So an import
that was killed goes on where it was, one that is repeated finds nothing to do, and two at a time do no harm. A batch is
whatever good rows of a partition lie between two offsets, so neither the size of batches nor which rows are good matters.
"""

from __future__ import annotations

import asyncio
import csv
import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from isotherm.archive.check import Checker
from isotherm.archive.merge import merge
from isotherm.archive.rows import Fault, Rows, Source
from isotherm.errors import IsothermError
from isotherm.registry import Registry
from isotherm.store.client import Client
from isotherm.store.reader import Reader
from isotherm.store.writer import Writer
from isotherm.topics import partition_of

AGENT = "import"
SHOWN_FAULTS = 10
"""Faults that are told one by one."""

_HASHED_BYTES = 1 << 20
_HASH_CHARS = 12
_NOTED_AT_ONCE = 1_000

Advance = Callable[[int], object]


@dataclass(slots=True)
class Survey:
    """What a file holds.

    Attributes:
        rows, bad: Number of rows, and of those that cannot be taken in.
        ranges: Series → first time and last time, µs.
        units: Series → unit.
        faults: The first ones, with their lines.
        reasons: Why rows are bad.
    """

    rows: int = 0
    bad: int = 0
    ranges: dict[str, tuple[int, int]] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    faults: list[tuple[int, Fault]] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Done:
    """What an import did.

    Attributes:
        rows: Rows that this call stored.
        readings: Readings that they stand for.
        before: Good rows that an earlier call had stored.
    """

    rows: int = 0
    readings: int = 0
    before: int = 0


def digest(path: Path) -> str:
    """Return the SHA-256 of a file's content, hexadecimal.

    Raises:
        IsothermError: it cannot be read.
    """
    found = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while data := file.read(_HASHED_BYTES):
                found.update(data)
    except OSError as error:
        raise IsothermError(f"{path} cannot be read: {error.strerror}") from error
    return found.hexdigest()


async def survey(source: Source, now: int, advance: Advance, rejects: Path | None = None) -> Survey:
    """Read and check a whole file; nothing is stored.

    Args:
        source: The file.
        now: What times are held against, µs since the epoch UTC.
        advance: Is told ``source.position``.
        rejects: Where bad rows are written, as CSV with their line and what is wrong; made only when there are any.

    Raises:
        IsothermError: the file is damaged, or ``rejects`` cannot be written.
    """
    found, checker = Survey(), Checker(now)
    for rows in source.blocks():
        await asyncio.sleep(0)  # Ctrl-C is heard between blocks
        good = np.flatnonzero(checker.check(rows))
        found.rows += len(rows)
        _widen(found.ranges, rows, good)
        if rows.faults:
            if rejects is not None:
                _write_rejects(rejects, source.header, rows, anew=not found.bad)
            found.bad += len(rows.faults)
            found.reasons.update(fault.reason for fault in rows.faults.values())
            some = sorted(rows.faults)[: SHOWN_FAULTS - len(found.faults)]
            found.faults += [(int(rows.line[index]), rows.faults[index]) for index in some]
        advance(source.position)
    found.units = {series: unit for series, unit in checker.units.items() if series in found.ranges}
    return found


def _widen(ranges: dict[str, tuple[int, int]], rows: Rows, good: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
    order = good[np.argsort(rows.name[good], kind="stable")]
    if not len(order):
        return
    first = np.flatnonzero(np.diff(rows.name[order], prepend=-1))
    lows, highs = np.minimum.reduceat(rows.time[order], first), np.maximum.reduceat(rows.last_at[order], first)
    for name, low, high in zip(rows.name[order[first]].tolist(), lows.tolist(), highs.tolist(), strict=True):
        series = rows.names[name].series
        before = ranges.get(series, (low, high))
        ranges[series] = min(low, before[0]), max(high, before[1])


def _write_rejects(path: Path, header: Sequence[str], rows: Rows, *, anew: bool) -> None:
    try:
        with path.open("w" if anew else "a", encoding="utf-8", errors="surrogateescape", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            if anew:
                writer.writerow(("line", "reason", "detail", *header))
            for index, fault in sorted(rows.faults.items()):
                writer.writerow((int(rows.line[index]), *fault, *rows.text(index)))
    except OSError as error:
        raise IsothermError(f"{path} cannot be written: {error.strerror}") from error


class Import:
    """Brings one file into the store; every method raises Unavailable when that does not answer, and may be repeated."""

    def __init__(self, redis: Client, partitions: int, log_id: str, now: int) -> None:
        """Prepare.

        Args:
            redis: The store.
            partitions: Number of shards.
            log_id: The file's :func:`digest`.
            now: What times were held against in the survey, µs since the epoch UTC.
        """
        self._redis = redis
        self._reader = Reader(redis, partitions)
        self._partitions = partitions
        self._writer = Writer(redis, AGENT, log_id)
        self.connector = f"{AGENT}/{log_id[:_HASH_CHARS]}"
        self._now = now
        self._next: dict[int, int | None] = {}
        self._of_device: dict[str, int] = {}

    async def begin(self) -> bool:
        """Ask the store how far it is; tell whether it has rows of this file."""
        for partition in range(self._partitions):
            progress = await self._writer.progress(partition)
            self._next[partition] = None if progress is None else progress.next
        return any(found is not None for found in self._next.values())

    async def overlaps(self, ranges: Mapping[str, tuple[int, int]], advance: Advance) -> list[str]:
        """Return the series, ascending, of which the store has readings in the given ranges of time."""
        known = set(await self._reader.series())
        found = []
        for number, series in enumerate(sorted(known & ranges.keys())):
            low, high = ranges[series]
            if len(await self._reader.query(series, low, high + 1, 1)) and await self._has_readings(series, low, high):
                found.append(series)
            advance(number)
        return found

    async def _has_readings(self, series: str, low: int, high: int) -> bool:
        """Tell it as exactly as what is kept allows: of the row that ``low`` falls into its last reading counts."""
        async for _, rows in self._reader.stored([series], low, high + 1):
            if len(rows) and int(rows.last_at[-1]) >= low:
                return True
        return False

    async def other_units(self, units: Mapping[str, str]) -> dict[str, tuple[str, str]]:
        """Return the series whose unit in the store is another: series → unit here, unit there."""
        there = await self._units()
        return {name: (unit, there[name]) for name, unit in sorted(units.items()) if there.get(name, unit) != unit}

    async def apply(self, source: Source, units: Mapping[str, str], advance: Advance) -> Done:
        """Store the good rows that the store has not taken in yet, and enter their devices into the registry."""
        done, checker = Done(), Checker(self._now)
        there = await self._units()
        units = {name: unit for name, unit in units.items() if name not in there}
        registry, noted = Registry(self._redis), set[str]()
        for rows in source.blocks():
            good = np.flatnonzero(checker.check(rows))
            devices = {rows.names[name].device for name in np.unique(rows.name[good]).tolist()} - noted
            for first in range(0, len(devices), _NOTED_AT_ONCE):
                await registry.note(sorted(devices)[first : first + _NOTED_AT_ONCE])
            noted |= devices
            partition_of_row = np.array([self._partition(name.device) for name in rows.names])[rows.name]
            for partition in np.unique(partition_of_row[good]).tolist():
                await self._commit(partition, rows, good[partition_of_row[good] == partition], units, done)
            advance(source.position)
        return done

    async def _commit(
        self,
        partition: int,
        rows: Rows,
        chosen: np.ndarray[tuple[int], np.dtype[np.int64]],
        units: Mapping[str, str],
        done: Done,
    ) -> None:
        """Store rows of one partition, but for those that are stored."""
        while True:
            expected = self._next[partition]
            wanted = chosen[rows.first + chosen >= (expected or 0)]
            if not len(wanted):
                done.before += len(chosen)
                return
            batch = merge(rows, wanted, connector=self.connector, units=units)
            next_offset = rows.first + len(rows)
            conflict = await self._writer.commit(partition, batch, expected=expected, next_offset=next_offset)
            if conflict is None:
                self._next[partition] = next_offset
                done.rows += len(wanted)
                done.readings += sum(batch.stored.values())
                done.before += len(chosen) - len(wanted)
                return
            if (conflict.next or 0) < (expected or 0):
                raise IsothermError(
                    f"the store has lost rows of partition {partition} that it had taken in; import the file again"
                )
            self._next[partition] = conflict.next  # the same file is being imported twice at a time

    async def _units(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for one in await self._reader.latest():
            if one.unit:
                found[f"{one.device}/{one.metric}"] = one.unit
        return found

    def _partition(self, device: str) -> int:
        if device not in self._of_device:
            self._of_device[device] = partition_of(device, self._partitions)
        return self._of_device[device]
