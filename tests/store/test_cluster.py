"""The client of a cluster, when a primary is lost; see also the contract and the faults."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from redis.asyncio.connection import Connection
from redis.exceptions import RedisError

from isotherm.clock import now_us
from isotherm.errors import SettingsError, Unavailable
from isotherm.limits import HOUR
from isotherm.registry import Registry
from isotherm.settings import Settings
from isotherm.store import client, layout
from isotherm.store.client import Client
from isotherm.store.reader import Reader
from isotherm.topics import partition_of
from tests.support.ports import free_port
from tests.support.redis_cluster import RedisCluster

pytestmark = pytest.mark.servers

POLL_SECONDS = 0.05
DEVICES = ("room-1", "room-2", "room-3", "room-4", "room-5")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, tool: Callable[[str], str]) -> Iterator[RedisCluster]:
    with RedisCluster(tmp_path_factory.mktemp("cluster"), tool("redis-server"), partition_of(DEVICES[0], 8)) as cluster:
        yield cluster


@pytest.fixture
async def redis(cluster: RedisCluster) -> AsyncIterator[Client]:
    async with client.connected(Settings(redis=cluster.url)) as redis:
        yield redis


@pytest.fixture
def lost(cluster: RedisCluster, redis: Client) -> Iterator[None]:
    """A primary is lost, and comes back in the end."""
    cluster.kill()
    yield
    cluster.start()


async def read_pipelined(redis: Client) -> None:
    await Reader(redis, 8).tails({f"{device}/t": None for device in DEVICES}, now_us() - HOUR)


async def read_newest(redis: Client) -> None:
    await Reader(redis, 8).latest()


async def subscribe(redis: Client) -> None:
    async with redis.pubsub() as pubsub:
        await pubsub.subscribe(layout.live_channel(partition_of(DEVICES[0], 8)))
        async with asyncio.timeout(5):
            await pubsub.get_message(timeout=None)


async def change_the_registry(redis: Client) -> None:
    await Registry(redis).add("a")


@pytest.mark.parametrize("call", [read_pipelined, read_newest, subscribe, change_the_registry])
@pytest.mark.usefixtures("lost")
async def test_each_use_by_itself_finds_the_new_primary(redis: Client, call: Callable[[Client], object]) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                await call(redis)  # type: ignore[misc]
                break
            except (RedisError, Unavailable):  # and nothing else
                await asyncio.sleep(POLL_SECONDS)


async def test_a_connection_that_is_closed_under_a_command_is_a_lost_one(
    redis: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def closed(self: Connection, *args: object) -> None:
        raise AttributeError("'NoneType' object has no attribute 'writelines'")  # as redis-py 8.1 does

    with monkeypatch.context() as patch:
        patch.setattr(Connection, "send_packed_command", closed)
        with pytest.raises(Unavailable):
            await read_newest(redis)
    await read_newest(redis)


async def test_a_client_that_has_asked_nothing_yet_can_subscribe(cluster: RedisCluster) -> None:
    redis = client.connect(Settings(redis=cluster.url))
    try:
        await subscribe(redis)
    finally:
        await redis.aclose()


async def test_a_seed_that_is_away_does_not_matter(cluster: RedisCluster) -> None:
    url = f"redis://127.0.0.1:{free_port()},{cluster.nodes[0].address},127.0.0.1:{free_port()}"
    async with client.connected(Settings(redis=url)) as redis:
        await read_newest(redis)


async def test_no_seed_answers() -> None:
    url = f"redis://127.0.0.1:{free_port()},127.0.0.1:{free_port()}"
    with pytest.raises(Unavailable, match="does not answer"):
        async with client.connected(Settings(redis=url)):
            raise AssertionError("unreachable")


async def test_one_address_of_a_cluster_is_refused_with_what_to_write(cluster: RedisCluster) -> None:
    with pytest.raises(SettingsError, match=r"name several of its nodes.*ISOTHERM_REDIS=redis://127") as refused:
        async with client.connected(Settings(redis=f"redis://{cluster.nodes[0].address}")):
            raise AssertionError("unreachable")
    async with client.connected(Settings(redis=str(refused.value).partition("ISOTHERM_REDIS=")[2])):
        pass


async def test_every_primary_must_keep_what_it_has(cluster: RedisCluster) -> None:
    node = cluster.primaries()[-1]
    node.ask("CONFIG", "SET", "maxmemory", "1gb", "maxmemory-policy", "volatile-ttl")
    try:
        with pytest.raises(SettingsError, match=f"node {node.address}, has maxmemory-policy volatile-ttl"):
            async with client.connected(Settings(redis=cluster.url)):
                raise AssertionError("unreachable")
    finally:
        node.ask("CONFIG", "SET", "maxmemory", "0", "maxmemory-policy", "noeviction")
