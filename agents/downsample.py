"""Downsample: raw points kept for hours, rolled up into slots of 10 s, 1 min and 1 h that are kept for longer.

    count = n    sum = Σ v    min, max = extremes    last = the value of greatest time; among equals, the last to arrive

Pure functions over columns: packs in, a batch for the store out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from isotherm.pack import Attribute, Pack
from isotherm.store.layout import ROLLUPS, Tier
from isotherm.store.writer import Batch, Slots

NAME = "downsample"


def downsample(packs: Sequence[Pack]) -> Batch:
    """Aggregate the packs of one partition, in the order of their offsets; no packs give an empty batch."""
    numbers: dict[str, int] = {}
    columns = [np.empty(0, dtype=np.int64)]
    stored: Counter[str] = Counter()
    units: dict[str, str] = {}
    attributes: list[Attribute] = []
    for pack in packs:
        renumber = np.fromiter((numbers.setdefault(n, len(numbers)) for n in pack.names), np.int64, len(pack.names))
        columns.append(renumber[pack.series])
        stored[pack.connector] += len(pack)
        units.update(pack.units)
        attributes += pack.attributes
    series = np.concatenate(columns)
    time = np.concatenate([np.empty(0, dtype=np.int64), *(pack.time for pack in packs)])
    value = np.concatenate([np.empty(0), *(pack.value for pack in packs)])
    order = np.lexsort((time, series))  # stable: equal times stay in order of arrival
    series, time, value = series[order], time[order], value[order]
    return Batch(
        names=list(numbers),
        series=series,
        time=time,
        value=value,
        slots=[roll_up(series, time, value, tier=tier) for tier in ROLLUPS],
        received_at=max((pack.received_at for pack in packs), default=0),
        units=units,
        stored=dict(stored),
        attributes=attributes,
    )


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
    return Slots(
        tier=tier,
        series=series[first],
        slot=slot[first],
        count=ends - first,
        sum=np.add.reduceat(value, first),
        min=np.minimum.reduceat(value, first),
        max=np.maximum.reduceat(value, first),
        last=value[ends - 1],
        last_at=time[ends - 1] - slot[first] * tier.step,
    )
