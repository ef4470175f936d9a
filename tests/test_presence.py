"""What others read of presence, out of a real store."""

from __future__ import annotations

import asyncio
import doctest
import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

import agents.presence
import isotherm.presence
from agents import loader
from agents.downsample import downsample
from agents.engine import rows_after
from isotherm.analytics import Analytics, Status
from isotherm.clock import now_us
from isotherm.presence import Presence, read
from isotherm.store.analytic import AnalyticStore, Commit
from isotherm.store.client import Client
from isotherm.store.writer import Progress, Writer
from tests.support.readings import BASE, pack_of
from tests.support.valkey import Valkey

pytestmark = pytest.mark.servers


def rows() -> dict[str, bytes]:
    """The state of the engine, after it has heard of two devices, and has lost one."""
    presence = loader.load(loader.BUILT_IN / "presence.py")
    engine = presence.build("presence", presence.parameters({}))
    engine.run([pack_of(("a/t", at, 1.0), received=at) for at in range(0, 100, 10)])
    engine.run([pack_of(("b/t", 0, 1.0), received=0)])
    for at in range(0, 140, 10):
        engine.tick(BASE + at * 1_000_000)
    return rows_after({}, engine.changes())


async def keep(redis: Client, rows: dict[str, bytes]) -> None:
    commit = Commit(Progress(1, ""), [], 0, rows, [], {}, [])
    assert await AnalyticStore(redis, "presence", "log-1").commit(2, commit, expected="", version="1")


RUNNING = Status("presence", "presence/1", "running", 0, partitions=(2, 3))


async def test_what_the_engine_keeps_is_what_others_read(redis: Client) -> None:
    await keep(redis, rows())
    await Analytics(redis).report(msgspec.structs.replace(RUNNING, at=now_us()))
    assert await read(redis, 8) == {
        "a": Presence("late", BASE + 90_000_000, 10_000_000),
        "b": Presence("online", BASE, 0),
    }


@pytest.mark.parametrize("change", [{"state": "failing"}, {"partitions": (3,)}, {"name": "presence_2"}])
async def test_where_nobody_watches_nothing_is_known(redis: Client, change: dict[str, str]) -> None:
    await keep(redis, rows())
    assert await read(redis, 8) == {}
    await Analytics(redis).report(msgspec.structs.replace(RUNNING, at=now_us(), **change))
    assert await read(redis, 8) == {}


async def test_rows_of_another_layout_are_left_out(redis: Client) -> None:
    other = {device: b"\0" + row[1:] for device, row in rows().items()} | {"c": b"short"}
    await keep(redis, other)
    await Analytics(redis).report(msgspec.structs.replace(RUNNING, at=now_us()))
    assert await read(redis, 8) == {}


@pytest.mark.parametrize("module", [isotherm.presence, agents.presence])
def test_the_examples_are_true(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]


async def test_the_list_of_devices_says_who_is_there(redis: Client, server: Valkey, tmp_path: Path) -> None:
    packs = [pack_of(("a/t", 0, 1.0), ("b/t", 0, 2.0), ("c/t", 0, 3.0))]
    assert await Writer(redis, "downsample", "log-1").commit(2, downsample(packs), expected=None, next_offset=1) is None
    await keep(redis, rows())
    await Analytics(redis).report(msgspec.structs.replace(RUNNING, at=now_us() + 60_000_000))

    async def devices(*options: str) -> str:
        command = [sys.executable, "-m", "isotherm", "devices", "--data-dir", str(tmp_path), *options]
        environment = {**os.environ, "ISOTHERM_REDIS": server.url}
        ended = await asyncio.to_thread(
            subprocess.run, command, env=environment, capture_output=True, timeout=60, check=True
        )
        return ended.stdout.decode()

    assert [(row["device"], row["status"]) for row in json.loads(await devices("--json"))] == [
        ("a", "late"),
        ("b", "online"),
        ("c", None),
    ]
    head, *lines = (line.split() for line in (await devices()).splitlines())
    assert head[:3] == ["device", "status", "metric"]
    assert [line[:3] for line in lines] == [["a", "late", "t"], ["b", "online", "t"], ["c", "t", "3"]]
