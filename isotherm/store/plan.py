"""Plans: which tiers answer a query, which chunks of them, and what is in these. No I/O."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice, pairwise

import numpy as np
from numpy.typing import NDArray

from isotherm.store import layout
from isotherm.store.history import EMPTY, History, merge, together
from isotherm.store.layout import RAW, ROLLUPS, SLOT, TIERS, Tier
from isotherm.store.sealed import combine


def tiers_for(start: int, end: int, width: int, now: int) -> list[tuple[Tier, int, int]]:
    """Choose the tiers for a range in rows of ``width``, oldest first: (tier, begin, end), without gap or overlap."""
    best = max(index for index, tier in enumerate(TIERS) if tier.step <= width)
    plan: list[tuple[Tier, int, int]] = []
    for tier in TIERS[best:]:
        kept_since = layout.first_kept(tier, now) * tier.chunk
        coarser = min((one.step for one in ROLLUPS if one.step > tier.step), default=1)
        begin = max(start, -(-kept_since // coarser) * coarser)
        if begin < end:
            plan.append((tier, begin, end))
            end = begin
        if begin <= start:
            break
    return plan[::-1]


class Wanted:
    """What to read of each series: the chunks of a plan, and points that are not rolled up yet."""

    def __init__(self, plan: Sequence[tuple[Tier, int, int]], open_points: set[int]) -> None:
        self._parts: list[tuple[Tier, int, int, range, list[int]]] = []
        for tier, begin, until in plan:
            step = max(tier.step, 1)
            start, end = begin // step * step, -(-until // step) * step  # the slots that they fall into are wanted whole
            hours = range(start // RAW.chunk, -(-end // RAW.chunk))
            pending = [] if tier is RAW else sorted(open_points.intersection(hours))
            self._parts.append((tier, start, end, range(start // tier.chunk, -(-end // tier.chunk)), pending))

    def __len__(self) -> int:
        """Keys of each series."""
        return sum(2 * len(chunks) + len(pending) for *_, chunks, pending in self._parts)

    def keys(self, partition: int, series: str) -> Iterator[str]:
        """Yield the keys of a series."""
        for tier, _, _, chunks, pending in self._parts:
            for chunk in chunks:
                yield from layout.chunk_keys(partition, tier, series, chunk)
            for chunk in pending:
                yield layout.chunk_key(partition, RAW, series, chunk)

    def decode(self, values: Sequence[bytes | None]) -> list[History]:
        """Return the rows of each part of the plan, where there are any, from what lies under the keys.

        Raises:
            MalformedChunk: something else lies there.
        """
        given = iter(values)
        parts = []
        for tier, start, end, chunks, pending in self._parts:
            pairs = [(chunk, next(given), next(given)) for chunk in chunks]
            held = [(chunk, combine(tier, before, rows)) for chunk, rows, before in pairs if rows or before]
            open_points = [combine(RAW, None, rows) for rows in islice(given, len(pending)) if rows]
            rows = (_points if tier is RAW else partial(_slots, tier))(held, start, end) if held else EMPTY
            if open_points:
                rolled = merge(_points([(0, points) for points in open_points], start, end), tier.step)
                rows = together(rows, rolled, tier.step)
            if len(rows):
                parts.append(rows)
        return parts


def by_chunk(start: int, end: int) -> list[tuple[int, int]]:
    """Cut a range where chunks of raw points meet."""
    edges = [start, *range((start // RAW.chunk + 1) * RAW.chunk, end, RAW.chunk), end]
    return list(pairwise(edges))


def _points(held: Sequence[tuple[int, NDArray[np.void]]], start: int, end: int) -> History:
    time = np.concatenate([points["time"] for _, points in held])
    value = np.concatenate([points["value"] for _, points in held])
    wanted = np.flatnonzero((time >= start) & (time < end))
    order = wanted[np.argsort(time[wanted], kind="stable")]  # of one time, the order of arrival
    time, value = time[order], value[order]
    return History(
        time=time,
        width=np.zeros(len(time), dtype=np.int64),
        count=np.ones(len(time), dtype=np.int64),
        sum=value,
        min=value,
        max=value,
        last=value,
        last_at=time,
    )


def _slots(tier: Tier, held: Sequence[tuple[int, NDArray[np.void]]], start: int, end: int) -> History:
    parts, begins = [], []
    for chunk, slots in held:
        begin = chunk * tier.chunk
        if begin < start or end < begin + tier.chunk:
            low, high = np.searchsorted(slots["index"], [(start - begin) // tier.step, -((begin - end) // tier.step)])
            slots = slots[low:high]
        parts.append(slots)
        begins.append(begin)
    column = {name: np.concatenate([slots[name] for slots in parts]) for name in SLOT.names or ()}
    time = np.repeat(np.array(begins, dtype=np.int64), [len(slots) for slots in parts])
    time += column["index"] * np.int64(tier.step)
    return History(
        time=time,
        width=np.full(len(time), tier.step, dtype=np.int64),
        count=column["count"].astype(np.int64),
        sum=column["sum"],
        min=column["min"],
        max=column["max"],
        last=column["last"],
        last_at=time + column["last_at"],
    )
