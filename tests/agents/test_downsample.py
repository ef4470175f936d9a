"""Packs put together, and rolled up, against a naive model."""

import random
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.downsample import downsample
from isotherm.pack import Pack
from isotherm.store.layout import ROLLUPS
from isotherm.store.rollup import roll_up
from isotherm.store.writer import Batch

NAMES = ("a/t", "b/t", "c/t")
BASE = 1_790_000_000_000_000
readings = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3 * 3600 * 10**6), st.integers(-1000, 1000)), max_size=60)
Row = tuple[int, int, int]


def pack(rows: list[Row], connector: str = "tcp/1") -> Pack:
    return Pack(
        names=NAMES,
        series=np.array([row[0] for row in rows], dtype=np.int32),
        time=np.array([BASE + row[1] for row in rows], dtype=np.int64),
        value=np.array([row[2] for row in rows], dtype=np.float64),
        connector=connector,
        received_at=BASE,
    )


def slots_of(batch: Batch) -> dict[tuple[str, str, int], tuple[float, ...]]:
    found = {}
    for tier in ROLLUPS:
        slots = roll_up(batch.series, batch.time, batch.value, tier=tier)
        for i in range(len(slots.slot)):
            key = (slots.tier.name, batch.names[slots.series[i]], int(slots.slot[i]))
            found[key] = tuple(float(getattr(slots, name)[i]) for name in ("count", "sum", "min", "max", "last", "last_at"))
    return found


def naive(rows: list[Row]) -> dict[tuple[str, str, int], tuple[float, ...]]:
    groups = defaultdict(list)
    for tier in ROLLUPS:
        for series, offset, value in rows:
            groups[tier.name, NAMES[series], (BASE + offset) // tier.step].append((BASE + offset, value, tier.step))
    found: dict[tuple[str, str, int], tuple[float, ...]] = {}
    for key, members in groups.items():
        values = [value for _, value, _ in members]
        newest = max(time for time, _, _ in members)
        last = [value for time, value, _ in members if time == newest][-1]
        found[key] = (len(values), sum(values), min(values), max(values), last, newest % members[0][2])
    return found


@given(readings, st.integers(1, 5))
def test_rollups_are_those_of_the_naive_model_however_readings_are_packed(rows: list[Row], packs: int) -> None:
    size = -(-len(rows) // packs) or 1
    parts = [rows[i : i + size] for i in range(0, len(rows), size)]
    assert slots_of(downsample([pack(part) for part in parts])) == naive(rows)


@given(readings)
def test_points_are_all_there_ascending_by_series_and_time(rows: list[Row]) -> None:
    batch = downsample([pack(rows)])
    found = [
        (batch.names[series], time - BASE, value)
        for series, time, value in zip(batch.series.tolist(), batch.time.tolist(), batch.value.tolist(), strict=True)
    ]
    assert sorted(found) == sorted((NAMES[series], offset, value) for series, offset, value in rows)
    assert [row[:2] for row in found] == sorted([row[:2] for row in found], key=lambda row: (NAMES.index(row[0]), row[1]))


def test_order_of_arrival_does_not_matter() -> None:
    rows = [(i % 3, i * 1_234_567, i) for i in range(1000)]
    shuffled = random.Random(1).sample(rows, len(rows))
    assert slots_of(downsample([pack(rows)])) == slots_of(downsample([pack(shuffled)]))


def test_stored_readings_are_counted_by_connector() -> None:
    batch = downsample([pack([(0, 0, 1)] * 3, "tcp/1"), pack([(1, 0, 1)] * 2, "mqtt/2"), pack([(1, 0, 1)], "tcp/1")])
    assert batch.stored == {"tcp/1": 4, "mqtt/2": 2}


@pytest.mark.parametrize("packs", [[], [pack([])]])
def test_nothing_gives_an_empty_batch(packs: list[Pack]) -> None:
    batch = downsample(packs)
    assert len(batch.time) == 0
    assert slots_of(batch) == {}
