"""Frames for notebooks, from a real store."""

from __future__ import annotations

import doctest
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from agents.downsample import downsample
from isotherm import notebook
from isotherm.clock import now_us
from isotherm.errors import SettingsError, Unavailable
from isotherm.limits import DAY, HOUR, MINUTE
from isotherm.notebook import frame
from isotherm.settings import Settings
from isotherm.store import client
from isotherm.store.writer import Writer
from isotherm.topics import partition_of
from tests.contracts.store import pack
from tests.support.valkey import Valkey

END = now_us() // HOUR * HOUR


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with Valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture(scope="module", autouse=True)
def _readings(server: Valkey) -> None:
    """sensor-1 at each minute of two hours, sensor-2 twice at one moment and 20 days ago."""
    import asyncio

    readings = {
        "sensor-1/temperature": [(END - n * MINUTE, float(n)) for n in range(1, 121)],
        "sensor-2/temperature": [(END - 5, 1.0), (END - 5, 2.0), (END - 20 * DAY, 7.0)],
    }

    async def write() -> None:
        async with client.connected(Settings(redis=server.url)) as redis:
            for name, some in readings.items():
                batch = downsample([replace(pack([at for at, _ in some], [value for _, value in some]), names=[name])])
                partition = partition_of(name.partition("/")[0], 8)
                assert await Writer(redis, "a", name).commit(partition, batch, expected=None, next_offset=1) is None

    asyncio.run(write())


@pytest.fixture(autouse=True)
def _settings(server: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISOTHERM_REDIS", server.url)


def test_the_example_is_true() -> None:
    failed, tried = doctest.testmod(notebook)
    assert (failed, tried) == (0, 4)


def test_a_grid_is_regular_and_aligned() -> None:
    found = frame("sensor-1/*", last="2h", every="1min", column="last", end=END)
    assert found["sensor-1/temperature"].tolist() == [float(n) for n in range(120, 0, -1)]
    assert (np.diff(found.index.asi8) == MINUTE).all()
    assert found.index[0] == pd.Timestamp((END - 2 * HOUR) * 1000, tz="UTC")
    coarse = frame("sensor-1/*", last="2h", every="7min", column=["sum", "count"], end=END)
    assert coarse[("sensor-1/temperature", "count")].sum() == 120
    assert coarse[("sensor-1/temperature", "sum")].sum() == sum(range(1, 121))
    assert (np.diff(coarse.index.asi8) == 7 * MINUTE).all()


def test_series_without_a_row_have_no_value_there() -> None:
    found = frame("sensor-?/temperature", last="1h", end=END)
    assert found.notna().sum().tolist() == [60, 1]
    assert found["sensor-2/temperature"].dropna().tolist() == [2.0]  # of two at one time the last to arrive
    assert isinstance(found.index, pd.DatetimeIndex)
    assert found.index.is_monotonic_increasing


def test_a_value_is_carried_on_as_long_as_was_asked() -> None:
    plain = frame("sensor-1/*", last="1h", every="10s", end=END)
    filled = frame("sensor-1/*", last="1h", every="10s", fill="20s", end=END)
    assert plain.notna().sum().item() == 60
    assert filled.notna().sum().item() == 180


def test_what_only_wide_rows_are_kept_of_stands_at_their_begin() -> None:
    found = frame("sensor-2/*", last="21d", every="1min", end=END)["sensor-2/temperature"].dropna()
    assert found.index[0] == pd.Timestamp((END - 20 * DAY) * 1000, tz="UTC")
    assert found.tolist() == [7.0, 1.5]


@pytest.mark.parametrize("every", [None, "1min"])
def test_an_empty_match_is_an_empty_frame_of_the_same_kind(every: str | None) -> None:
    empty, full = frame("nobody/*", every=every), frame("sensor-1/*", every=every)
    assert empty.shape == (0, 0)
    assert empty.index.dtype == full.index.dtype
    assert empty.index.name == "time"
    assert frame("nobody/*", every=every, column=["min", "max"]).columns.nlevels == 2
    silent = frame("sensor-1/*", last="1s", end=END - 30 * DAY, every=every)
    assert silent["sensor-1/temperature"].dropna().empty


async def test_it_works_where_an_event_loop_runs_already() -> None:
    assert len(frame("sensor-1/*", last="1h", end=END)) == 60
    with pytest.raises(Unavailable):
        frame("*", settings=Settings(redis="redis://127.0.0.1:1/0"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"last": "soon"}, "expected a duration"),
        ({"every": "1 month"}, "expected a duration"),
        ({"column": "median"}, "expected some of mean, min"),
        ({"column": ["mean", "median"]}, "expected some of mean, min"),
        ({"fill": "1m"}, "fill needs every"),
        ({"last": "365d", "every": "1ms"}, "widen every"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        frame("*", **arguments)  # type: ignore[arg-type]


def test_pandas_is_imported_only_when_a_frame_is_made() -> None:
    import subprocess
    import sys

    program = "import sys, isotherm.notebook; sys.exit('pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0
