"""Rows of a file as a batch for the store: points, and slots of every tier that is no finer than they are. No I/O."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from isotherm.archive.rows import Rows
from isotherm.store.layout import ROLLUPS, Tier
from isotherm.store.rollup import Slots
from isotherm.store.writer import Batch, Newest


def merge(rows: Rows, chosen: NDArray[np.int64], *, connector: str, units: Mapping[str, str]) -> Batch:
    """Return what some rows add to the store.

    Raw readings are points, which the store rolls up; a slot enters the tiers whose slots are as wide or wider. What would
    expire at once is left out. Equal times keep the order of the file.

    Args:
        rows: Of which some are taken; all of them good.
        chosen: Indices of those, shape (m,), ascending.
        connector: What the ledger counts them under.
        units: Series → unit, where the store has none.
    """
    numbers: dict[str, int] = {}
    distinct, inverse = np.unique(rows.name[chosen], return_inverse=True)
    names = (rows.names[one].series for one in distinct.tolist())  # two may differ in the unit alone
    renumber = np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.int64)
    series = renumber[inverse]
    order = np.lexsort((rows.last_at[chosen], series))
    chosen, series = chosen[order], series[order]

    newest = np.flatnonzero(np.diff(series, append=-1))
    latest = rows.last_at[chosen[newest]]
    raw = rows.step[chosen] == 0
    return Batch(
        names=list(numbers),
        series=series[raw],
        time=rows.time[chosen[raw]],
        value=rows.last[chosen[raw]],
        slots=[_slots(rows, chosen[~raw], series[~raw], tier) for tier in ROLLUPS],
        received_at=0,
        units={name: units[name] for name in numbers if name in units},
        stored={connector: int(rows.count[chosen].sum())} if len(chosen) else {},
        newest=Newest(series[newest], latest, rows.last[chosen[newest]], received_at=latest),
    )


def _slots(rows: Rows, chosen: NDArray[np.int64], series: NDArray[np.int64], tier: Tier) -> Slots:
    """Aggregate rows, ascending by series and time, into the slots of one tier."""
    fitting = rows.step[chosen] <= tier.step
    at, series = chosen[fitting], series[fitting]
    slot = rows.time[at] // tier.step
    first = np.flatnonzero((np.diff(series, prepend=-1) != 0) | (np.diff(slot, prepend=-1) != 0))
    final = np.append(first, len(at))[1:] - 1
    return Slots(
        tier=tier,
        series=series[first],
        slot=slot[first],
        count=np.add.reduceat(rows.count[at], first) if len(at) else rows.count[:0],
        sum=np.add.reduceat(rows.sum[at], first) if len(at) else rows.sum[:0],
        min=np.minimum.reduceat(rows.min[at], first) if len(at) else rows.min[:0],
        max=np.maximum.reduceat(rows.max[at], first) if len(at) else rows.max[:0],
        last=rows.last[at[final]],
        last_at=rows.last_at[at[final]] - slot[first] * tier.step,
    )
