"""Derived readings as packs: each with a number of its own series, so that one which is delivered twice is stored once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from agents.engine import Derived
from agents.gather import begins
from isotherm.kafka import MAX_VALUE_BYTES
from isotherm.limits import MAX_PACK_READINGS
from isotherm.pack import Pack

_ROW_BYTES = 32
_HEAD_BYTES = 4096
"""What a reading takes in a pack, without its name, and what a pack does without readings; rather more than they do."""


class Numbering:
    """Counts the readings of each derived series."""

    def __init__(self, numbers: dict[str, int], connector: str) -> None:
        """Go on with the numbers that the store has; ``connector`` is what the ledger counts the readings by."""
        self._numbers = numbers
        self._connector = connector
        self._told: set[str] = set()
        self._changed: dict[str, None] = {}

    def changes(self) -> dict[str, int]:
        """Return the numbers that have changed since this was last asked."""
        found = {name: self._numbers[name] for name in self._changed}
        self._changed.clear()
        return found

    def packs(self, derived: Sequence[Derived], now: int) -> Iterator[Pack]:
        """Yield derived readings as packs of at most MAX_PACK_READINGS, halved for as long as names make one too large."""
        places: dict[str, int] = {}
        units: dict[str, str] = {}
        series: list[NDArray[np.int64]] = []
        for one in derived:
            place = np.fromiter((places.setdefault(name, len(places)) for name in one.names), np.int64, len(one.names))
            series.append(place[one.series])
            if one.unit:
                units |= {name: one.unit for name in one.names if name not in self._told}
        if not places:
            return
        self._told |= units.keys()
        names, which = list(places), np.concatenate(series)
        time = np.concatenate([one.time for one in derived])
        value = np.concatenate([one.value for one in derived])
        seq = self._number(names, which)
        pieces = [slice(first, first + MAX_PACK_READINGS) for first in range(0, len(which), MAX_PACK_READINGS)]
        while pieces:
            some = pieces.pop(0)
            used, codes = np.unique(which[some], return_inverse=True)
            of_these = [names[code] for code in used.tolist()]
            pack = Pack(
                names=of_these,
                series=codes.astype(np.int32),
                time=time[some],
                value=value[some],
                connector=self._connector,
                received_at=now,
                units={name: units.pop(name) for name in of_these if name in units},
                seq=seq[some],
            )
            if _most_bytes(pack) > MAX_VALUE_BYTES and len(codes) > 1:
                middle = some.start + len(codes) // 2
                pieces[:0] = [slice(some.start, middle), slice(middle, some.start + len(codes))]
                units |= pack.units
            else:
                yield pack

    def _number(self, names: Sequence[str], which: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Return the number of each reading, and count them."""
        base = np.fromiter((self._numbers.get(name, 0) for name in names), np.int64, len(names))
        order = np.argsort(which, kind="stable")
        first = begins(which[order])
        runs = np.diff(np.append(first, len(which)))
        numbers = np.empty(len(which), dtype=np.int64)
        numbers[order] = np.arange(len(which)) - np.repeat(first, runs) + base[which[order]]
        after = base + np.bincount(which, minlength=len(names))
        self._numbers |= zip(names, after.tolist(), strict=True)
        self._changed |= dict.fromkeys(names)
        return numbers.astype(np.uint64)


def _most_bytes(pack: Pack) -> int:
    """Return what a pack may have as a record, without making it one."""
    names = sum(map(len, pack.names)) + 4 * len(pack.names)
    units = sum(len(name) + 6 * len(unit) + 6 for name, unit in pack.units.items())  # as JSON, which may escape it
    return _HEAD_BYTES + _ROW_BYTES * len(pack.value) + names + units
