"""No fault of the store loses a reading or counts one twice, once it is over."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agents import shard
from isotherm.store import client
from tests.support.load import LOADED, steady_load
from tests.support.lossy import lossy_way
from tests.support.ports import free_port
from tests.support.redis_cluster import RedisCluster
from tests.support.valkey import Valkey

pytestmark = pytest.mark.servers


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard, "RETRY_SECONDS", (0.02, 0.05))
    monkeypatch.setattr(client, "TIMEOUT_SECONDS", 0.5)


@pytest.fixture(params=["valkey", "redis-server"])
def server(request: pytest.FixtureRequest, tmp_path: Path, tool: Callable[[str], str]) -> Iterator[Valkey]:
    binary = None if request.param == "valkey" else tool(request.param)
    with Valkey(tmp_path / "store", binary) as server:
        yield server


async def test_memory_is_full(server: Valkey) -> None:
    async with steady_load(server.url) as load:
        used = (await load.redis.info())["used_memory"]  # type: ignore[attr-defined]
        server.ask("CONFIG", "SET", "maxmemory", used + 50_000)
        await load.until("OutOfMemoryError")
        server.ask("CONFIG", "SET", "maxmemory", 0)


async def test_it_becomes_a_replica_and_a_primary_again(server: Valkey) -> None:
    async with steady_load(server.url) as load:
        server.ask("REPLICAOF", "127.0.0.1", free_port())
        await load.until("ReadOnlyError")
        server.ask("REPLICAOF", "NO", "ONE")


async def test_it_loads_its_data(server: Valkey) -> None:
    async with steady_load(server.url) as load:
        server.ask("EVAL", "for key = 1, 50000 do redis.call('SET', 'other:' .. key, '') end", 0)
        server.kill()
        server.options = ("--key-load-delay", "30")  # µs; each 1024 keys it answers that it is loading
        starting = asyncio.create_task(asyncio.to_thread(server.start), name="start")
        await load.until("BusyLoadingError", 1)
        server.ask("CONFIG", "SET", "key-load-delay", 0)
        await starting


async def test_scripts_are_forgotten(server: Valkey) -> None:
    async with steady_load(server.url) as load:
        for _ in range(10):
            server.ask("SCRIPT", "FLUSH")
            await load.until("committed", 1)


async def test_it_is_killed(server: Valkey) -> None:
    async with steady_load(server.url) as load:
        for _ in range(3):
            server.kill()
            await load.until("ConnectionError", 1)
            await asyncio.to_thread(server.start)
            await load.until("committed")


async def test_it_stands_still(server: Valkey) -> None:
    """What was sent meanwhile is carried out when nobody waits for the answer any more."""
    async with steady_load(server.url) as load:
        os.kill(server.pid, signal.SIGSTOP)
        await load.until("TimeoutError", 2)
        os.kill(server.pid, signal.SIGCONT)


async def test_it_comes_back_as_it_was_some_time_ago(server: Valkey, tmp_path: Path) -> None:
    data, copy = server.data_dir / "appendonlydir", tmp_path / "copy"
    async with steady_load(server.url) as load:
        await asyncio.to_thread(shutil.copytree, data, copy)
        for _ in range(2):  # the second time it is back where it was before
            await load.until("committed", 20)
            server.kill()
            shutil.rmtree(data)
            shutil.copytree(copy, data)
            sought = load.until("sought", 1)
            await asyncio.to_thread(server.start)
            await sought


async def test_it_is_emptied(server: Valkey) -> None:
    async with steady_load(server.url) as load:
        await load.until("committed", 10)
        server.ask("FLUSHALL")
        await load.until("sought", 1)


@pytest.mark.parametrize("closes", [True, False])
async def test_an_answer_is_lost(server: Valkey, closes: bool) -> None:
    async with lossy_way(server.port, closes=closes) as way, steady_load(f"redis://127.0.0.1:{way.port}/0") as load:
        way.lose = {b"iso:{%d}:progress" % partition for partition in LOADED}
        await load.until("conflict", 1)


@pytest.fixture(scope="module")
def one_cluster(tmp_path_factory: pytest.TempPathFactory, tool: Callable[[str], str]) -> Iterator[RedisCluster]:
    with RedisCluster(tmp_path_factory.mktemp("cluster"), tool("redis-server")) as cluster:
        yield cluster


@pytest.fixture
def cluster(one_cluster: RedisCluster) -> RedisCluster:
    one_cluster.start()
    one_cluster.empty()
    return one_cluster


async def test_a_replica_takes_over(cluster: RedisCluster) -> None:
    async with steady_load(cluster.url) as load:
        for partition in LOADED[:2]:
            cluster.primary_of(partition).kill()
            await load.until("committed", 1)
            await asyncio.to_thread(cluster.start)  # the old primary comes back as a replica


async def test_a_replica_takes_over_that_lacks_the_last_commits(cluster: RedisCluster) -> None:
    async with steady_load(cluster.url) as load:
        partition = LOADED[0]
        primary = cluster.primary_of(partition)
        cluster.cut_off(cluster.replica_of(primary))
        await load.until("committed", 20, (partition,))
        primary.kill()
        await load.until("sought", 1, (partition,))


async def test_primaries_change_places_with_their_replicas(cluster: RedisCluster) -> None:
    async with steady_load(cluster.url) as load:
        for partition in LOADED:
            replica = cluster.replica_of(cluster.primary_of(partition))
            await asyncio.to_thread(cluster.exchange, replica)
            await load.until("committed")


async def test_a_partition_is_away_with_its_replica(cluster: RedisCluster) -> None:
    """The cluster is down as a whole then, and so are the other partitions."""
    async with steady_load(cluster.url) as load:
        primary = cluster.primary_of(LOADED[0])
        replica = cluster.replica_of(primary)
        replica.kill()
        primary.kill()
        await load.until("failed", 3)
        primary.start()
        replica.start()
