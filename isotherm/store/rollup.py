"""Rollups: readings aggregated into the slots of a tier.

count = n    sum = Σ v    min, max = extremes    last = the value of greatest time; among equals, the last to arrive
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isotherm.store.layout import SLOT, Tier


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

    def records(self) -> tuple[NDArray[np.int64], NDArray[np.void]]:
        """Return the number of each slot's chunk, and the slots as they are stored; shape (n,) both."""
        per_chunk = self.tier.chunk // self.tier.step
        records = np.empty(len(self.slot), dtype=SLOT)
        records["index"] = self.slot % per_chunk
        for name in ("count", "last_at", "sum", "min", "max", "last"):
            records[name] = getattr(self, name)
        return self.slot // per_chunk, records


def roll_up(series: NDArray[np.int64], time: NDArray[np.int64], value: NDArray[np.float64], *, tier: Tier) -> Slots:
    """Aggregate readings into the slots of one tier.

    Args:
        series: Index of each reading's series, shape (n,), ascending.
        time: µs since the epoch UTC, shape (n,), ascending within a series.
        value: Samples, shape (n,), in the unit of their series.
        tier: Gives the width of a slot; not the raw one.

    Returns:
        One entry per non-empty slot, ascending by series and slot.
    """
    slot = time // tier.step
    first = np.flatnonzero((np.diff(series, prepend=-1) != 0) | (np.diff(slot, prepend=-1) != 0))
    ends = np.append(first, len(value))[1:]
    with np.errstate(over="ignore"):  # a sum of extreme values is infinite
        total = np.add.reduceat(value, first)
    return Slots(
        tier=tier,
        series=series[first],
        slot=slot[first],
        count=ends - first,
        sum=total,
        min=np.minimum.reduceat(value, first),
        max=np.maximum.reduceat(value, first),
        last=value[ends - 1],
        last_at=time[ends - 1] - slot[first] * tier.step,
    )
