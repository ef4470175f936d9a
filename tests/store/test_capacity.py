"""The formula for memory, and whether a real Valkey keeps to it."""

from __future__ import annotations

import doctest
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from isotherm.clock import now_us
from isotherm.limits import DAY, HOUR, MILLISECOND, SECOND
from isotherm.registry import Registry
from isotherm.settings import Settings
from isotherm.store import capacity as formula
from isotherm.store import client, layout
from isotherm.store import writer as writer_module
from isotherm.store.capacity import capacity
from isotherm.store.client import Client
from isotherm.store.layout import POINT, RAW, ROLLUPS, TIERS, Tier
from isotherm.store.rollup import roll_up
from isotherm.store.sealed import seal
from isotherm.store.sealer import Sealer
from isotherm.store.writer import Batch, Writer
from isotherm.topics import partition_of
from tests.support.valkey import Valkey

TOLERANCE = 0.25
NOTHING = np.empty(0, dtype=np.int64)


def test_the_examples_are_true() -> None:
    assert doctest.testmod(formula).failed == 0


def total(*arguments: Any) -> int:
    return sum(term.bytes for term in capacity(*arguments))


def test_more_series_a_higher_rate_and_a_longer_tier_take_more() -> None:
    usual = total(100, 1.0, 10)
    assert total(200, 1.0, 10) > 1.9 * usual
    assert total(100, 1.0, 20) > usual
    assert total(100, 10.0, 10) > usual > total(100, 0.01, 10) > total(100, 1e-9, 10) > formula.SERVER_BYTES
    longer = [replace(tier, retention=tier.retention + 10 * DAY) for tier in TIERS]
    assert total(100, 1.0, 10, longer) > usual
    assert total(100, 1.0, 10, TIERS[:-1]) < usual


@pytest.mark.parametrize("count", [1, 30, 360, 3_600])
def test_sealed_chunks_take_what_they_are_said_to(count: int) -> None:
    points = np.empty(count, dtype=POINT)
    points["time"], points["value"] = readings(now_us() // HOUR * HOUR, now_us() // HOUR * HOUR + HOUR, HOUR // count)
    slots = roll_up(np.zeros(count, np.int64), points["time"], points["value"], tier=ROLLUPS[0]).records()[1]
    for rows, size in ((points, formula.POINT_BYTES), (slots, formula.SLOT_BYTES)):
        assert 0.5 < len(seal(rows)) / size.sealed(len(rows)) < 2


def readings(begin: int, end: int, interval: int) -> tuple[np.ndarray[Any, np.dtype[np.int64]], np.ndarray[Any, Any]]:
    """Those of a thermometer: times, whose clock jitters by ms, and values."""
    draw = np.random.default_rng(1)
    time = np.arange(begin, end, interval)
    jitter = draw.integers(0, 7, len(time)) * MILLISECOND if interval >= 10 * MILLISECOND else 0
    return time + jitter, np.round(21.5 + np.cumsum(draw.normal(0, 0.02, len(time))), 2)


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with Valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.mark.parametrize(("series", "rate_hz"), [(20, 1.0), (40, 1 / 60), (500, 1 / 86_400)])
async def test_a_store_that_is_full_takes_what_was_said(
    server: Valkey, series: int, rate_hz: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each tier is filled with what a year of regular readings leaves in it, at the moment when most is open."""
    longest = ROLLUPS[-1].chunk
    now = (now_us() // longest + 1) * longest + layout.LATENESS - 1
    monkeypatch.setattr(writer_module, "now_us", lambda: now)
    async with client.connected(Settings(redis=server.url)) as redis:
        devices = [name for name in (f"sensor-{n:05d}" for n in range(20 * series)) if partition_of(name, 8) == 3][:series]
        await Registry(redis).note(devices)
        await _fill(redis, [f"{device}/temperature" for device in devices], rate_hz, now)
        memory = await cast(Any, redis).info("memory")
    used = memory["used_memory"] - memory["mem_aof_buffer"]
    said = total(series, rate_hz, series)
    assert abs(said / used - 1) <= TOLERANCE, f"{used:,} bytes are used, {said:,} were said"


async def _fill(redis: Client, names: list[str], rate_hz: float, now: int) -> None:
    """Write what is kept, in time's order: slots that are rolled up already, and then points; seal as time goes on."""
    writer, sealer, offset = Writer(redis, "downsample", "log"), Sealer(redis, 3), 0
    units = dict.fromkeys(names, "Cel")
    points_since = layout.first_kept(RAW, now) * RAW.chunk
    for tier in (*ROLLUPS, RAW):
        begin = points_since if tier is RAW else layout.first_kept(tier, now) * tier.chunk
        until = now if tier is RAW else points_since
        interval = round(SECOND / rate_hz)
        time, value = readings(begin - begin % interval, until, max(interval, tier.step // 10))
        for hour in np.split(np.arange(len(time)), np.flatnonzero(np.diff(time // max(tier.chunk, HOUR))) + 1):
            batch = _batch(tier, names, time[hour], value[hour], now)
            conflict = await writer.commit(3, replace(batch, units=units), expected=offset or None, next_offset=offset + 1)
            assert conflict is None
            offset, units = offset + 1, {}
    for _ in range(3):
        async for _ in sealer.sweep(now):
            pass


def _batch(tier: Tier, names: list[str], time: NDArray[np.int64], value: NDArray[np.float64], now: int) -> Batch:
    series = np.repeat(np.arange(len(names)), len(time))
    times, values = np.tile(time, len(names)), np.tile(value, len(names))
    batch = Batch(names=names, series=series, time=times, value=values, received_at=now)
    if tier is RAW:
        return batch
    slots = roll_up(series, times, values, tier=tier)
    return replace(batch, series=NOTHING, time=NOTHING, value=np.empty(0), slots=[slots])
