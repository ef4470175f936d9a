"""Downsample: packs in, a batch for the store out.

The store keeps points for hours. When their hour is over, it rolls them up into slots of 10 s, 1 min and 1 h, which are kept
for longer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from isotherm.pack import Attribute, Pack
from isotherm.store.layout import STORER
from isotherm.store.writer import Batch

NAME = STORER


def downsample(packs: Sequence[Pack]) -> Batch:
    """Put the packs of one partition together, in the order of their offsets; no packs give an empty batch."""
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
        received_at=max((pack.received_at for pack in packs), default=0),
        units=units,
        stored=dict(stored),
        attributes=attributes,
    )
