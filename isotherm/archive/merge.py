"""Rows of a file as a batch for the store: merged into every tier that is no finer than they are. No I/O."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from isotherm.archive.rows import Rows
from isotherm.store.layout import RAW, ROLLUPS, Tier
from isotherm.store.writer import Batch, Newest, Slots


def merge(rows: Rows, chosen: NDArray[np.int64], *, connector: str, units: Mapping[str, str], now: int) -> Batch:
    """Return what some rows add to the store.

    A raw reading enters every tier; a slot those whose slots are as wide or wider. What would expire at once is left out.
    Equal times keep the order of the file.

    Args:
        rows: Of which some are taken; all of them good.
        chosen: Indices of those, shape (m,), ascending.
        connector: What the ledger counts them under.
        units: Series → unit, where the store has none.
        now: µs since the epoch UTC.
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
    raw = (rows.step[chosen] == 0) & _is_kept(rows.time[chosen], RAW, now)
    return Batch(
        names=list(numbers),
        series=series[raw],
        time=rows.time[chosen[raw]],
        value=rows.last[chosen[raw]],
        slots=[_slots(rows, chosen, series, tier, now) for tier in ROLLUPS],
        received_at=0,
        units={name: units[name] for name in numbers if name in units},
        stored={connector: int(rows.count[chosen].sum())} if len(chosen) else {},
        newest=Newest(series[newest], latest, rows.last[chosen[newest]], received_at=latest),
    )


def _slots(rows: Rows, chosen: NDArray[np.int64], series: NDArray[np.int64], tier: Tier, now: int) -> Slots:
    """Aggregate rows, ascending by series and time, into the slots of one tier."""
    fitting = (rows.step[chosen] <= tier.step) & _is_kept(rows.time[chosen], tier, now)
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


def _is_kept(time: NDArray[np.int64], tier: Tier, now: int) -> NDArray[np.bool_]:
    kept: NDArray[np.bool_] = (time // tier.chunk + 1) * tier.chunk + tier.retention > now
    return kept
