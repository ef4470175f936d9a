"""The formula for memory, and whether a real Valkey keeps to it."""

from __future__ import annotations

import doctest
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

from isotherm.clock import now_us
from isotherm.limits import DAY, SECOND
from isotherm.registry import Registry
from isotherm.settings import Settings
from isotherm.store import capacity as formula
from isotherm.store import client
from isotherm.store.capacity import RecordBytes, capacity
from isotherm.store.client import Client
from isotherm.store.layout import RAW, TIERS, Tier
from isotherm.store.rollup import Slots
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


def test_sealed_chunks_take_what_they_are_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    [open_] = [term for term in capacity(1, 1.0, 1) if term.name == "1m"]
    monkeypatch.setattr(formula, "SLOT_BYTES", RecordBytes(open=44, sealed=4.4))
    [sealed] = [term for term in capacity(1, 1.0, 1) if term.name == "1m"]
    assert (sealed.keys, sealed.records) == (open_.keys, open_.records)
    assert sealed.bytes < open_.bytes / 4


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with Valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.mark.parametrize(("series", "rate_hz"), [(20, 1.0), (40, 1 / 60), (500, 1 / 86_400)])
async def test_a_store_that_is_full_takes_what_was_said(server: Valkey, series: int, rate_hz: float) -> None:
    """Each tier is filled with what a year of regular readings leaves in it.

    Chunks are written by the real script in the pieces between which a string that grows is given more room, so that it
    ends with the room that it has when records are appended one by one.
    """
    async with client.connected(Settings(redis=server.url)) as redis:
        devices = [name for name in (f"sensor-{n:05d}" for n in range(20 * series)) if partition_of(name, 8) == 3][:series]
        await Registry(redis).note(devices)
        await _fill(redis, [f"{device}/temperature" for device in devices], rate_hz)
        memory = await cast(Any, redis).info("memory")
    used = memory["used_memory"] - memory["mem_aof_buffer"]
    said = total(series, rate_hz, series)
    assert abs(said / used - 1) <= TOLERANCE, f"{used:,} bytes are used, {said:,} were said"


async def _fill(redis: Client, names: list[str], rate_hz: float) -> None:
    now, writer, offset = now_us(), Writer(redis, "downsample", "log"), 0
    units = dict.fromkeys(names, "Cel")
    for tier in TIERS:
        step = max(tier.step, round(SECOND / rate_hz))
        times = np.arange((now - tier.retention) // tier.chunk * tier.chunk, now, step)
        for chunk in np.split(times, np.flatnonzero(np.diff(times // tier.chunk)) + 1):
            rooms = [n for k in range(20) for n in (3 * 2**k - 2, 3 * 2**k - 1)]
            for some in np.split(chunk, [n for n in rooms if n < len(chunk)]):
                batch = _batch(tier, names, some, units, now)
                conflict = await writer.commit(3, batch, expected=offset or None, next_offset=offset + 1)
                assert conflict is None
                offset, units = offset + 1, {}


def _batch(tier: Tier, names: list[str], times: np.ndarray[Any, Any], units: dict[str, str], now: int) -> Batch:
    series = np.repeat(np.arange(len(names)), len(times))
    time = np.tile(times, len(names))
    value = np.zeros(len(time))
    batch = Batch(names=names, series=series, time=time, value=value, slots=[], received_at=now, units=units)
    if tier is RAW:
        return batch
    ones = np.ones(len(time), dtype=np.int64)
    slots = Slots(tier, series, time // tier.step, ones, value, value, value, value, 0 * ones)
    return replace(batch, series=NOTHING, time=NOTHING, value=np.empty(0), slots=[slots])
