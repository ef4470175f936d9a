"""What is asked of a server before anything is given to it, and how its address is written."""

from __future__ import annotations

import asyncio
import doctest
import errno
from collections.abc import Iterator

import pytest
from redis.exceptions import ConnectionError

from isotherm.clock import now_us
from isotherm.errors import SettingsError, Unavailable
from isotherm.limits import DAY, SECOND
from isotherm.settings import Settings
from isotherm.store import client
from isotherm.store.cluster import Cluster
from tests.support.ports import free_port
from tests.support.valkey import Valkey


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with Valkey(tmp_path_factory.mktemp("store")) as server:
        yield server


async def try_out(url: str) -> None:
    async with client.connected(Settings(redis=url)):
        pass


def test_the_examples_are_true() -> None:
    assert doctest.testmod(client).failed == 0


async def test_a_server_that_evicts_keys_is_refused_with_the_mend(server: Valkey) -> None:
    server.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    await try_out(server.url)  # without a limit nothing is evicted
    server.ask("CONFIG", "SET", "maxmemory", "100mb")
    with pytest.raises(SettingsError, match=r"maxmemory-policy allkeys-lru.*`CONFIG SET maxmemory-policy noeviction`"):
        await try_out(server.url)
    server.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
    await try_out(server.url)


@pytest.mark.parametrize(
    ("ahead", "refused"),
    [
        (400 * DAY, "is 34560000 s ahead of that"),
        (-60 * SECOND, "is 60 s behind that"),
        (9 * SECOND, None),
        (-9 * SECOND, None),
    ],
)
async def test_another_clock_than_the_stores_is_refused_with_the_mend(
    server: Valkey, ahead: int, refused: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "now_us", lambda: now_us() + ahead)
    if refused is None:
        await try_out(server.url)
    else:
        with pytest.raises(SettingsError, match=f"{refused}.* `timedatectl set-ntp true`"):
            await try_out(server.url)


async def test_who_comes_while_all_connections_are_in_use_waits(server: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MAX_CONNECTIONS", 5)
    async with client.connected(Settings(redis=server.url)) as store:
        assert await asyncio.gather(*(store.get("nothing") for _ in range(500))) == [None] * 500


async def test_a_subscription_whose_connection_the_kernel_has_given_up_is_lost_and_not_silent(server: Valkey) -> None:
    async with client.connected(Settings(redis=server.url)) as store, store.pubsub() as pubsub:
        await pubsub.subscribe("news")
        assert await client.heard(pubsub, 0.1) is None
        server.ask("PUBLISH", "news", "21.5")
        message = await client.heard(pubsub, 10)
        assert message is not None and message["data"] == b"21.5"
        pubsub.connection._reader.set_exception(TimeoutError(errno.ETIMEDOUT, "Connection timed out"))
        with pytest.raises(ConnectionError, match="is lost"):
            await client.heard(pubsub, 10)


@pytest.mark.parametrize(
    ("info", "refused"),
    [
        ({"redis_version": "6.2.14"}, "is Redis 6.2.14; it must be Redis 7.0"),
        ({"redis_version": "7.2.4", "valkey_version": "7.1.9"}, "is Valkey 7.1.9"),
        ({"redis_version": "7.0.0"}, None),
        ({"redis_version": "8.2"}, None),
        ({"redis_version": 8.2}, None),  # as redis-py reads it
        ({"redis_version": "7.2.4", "valkey_version": "10.0.1"}, None),
    ],
)
def test_an_old_server_is_refused(info: dict[str, object], refused: str | None) -> None:
    if refused is None:
        client.check_server(info, "the store")
    else:
        with pytest.raises(SettingsError, match=refused):
            client.check_server(info, "the store")


@pytest.mark.parametrize("url", ["valkey.example", "redis://a:port", "redis://a:7000,b:7000/3", "redis://a,b?such=no"])
async def test_an_address_that_is_none_is_a_wrong_setting(url: str) -> None:
    with pytest.raises(SettingsError, match="ISOTHERM_REDIS is '"):
        await try_out(url)


async def test_one_server_is_no_cluster(server: Valkey) -> None:
    with pytest.raises(SettingsError, match="is no Redis Cluster; write one address"):
        await try_out(f"redis://127.0.0.1:{server.port},127.0.0.1:{server.port}")


async def test_no_message_has_the_password_in_it() -> None:
    for addresses in (f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()},127.0.0.1:{free_port()}"):
        with pytest.raises(Unavailable) as unavailable:
            await try_out(f"redis://user:secret@{addresses}")
        assert "secret" not in str(unavailable.value)


def test_every_seed_has_the_users_name_the_password_and_tls() -> None:
    redis = client.connect(Settings(redis="rediss://user:s%2Ce@a:7000,b,[::1]:7002/0?ssl_cert_reqs=none"))
    assert isinstance(redis, Cluster)
    assert [(node.host, node.port) for node in redis.startup_nodes] == [("a", 7000), ("b", 6379), ("::1", 7002)]
    for node in redis.startup_nodes:
        options = node.connection_kwargs
        assert (options["username"], options["password"], options["ssl_cert_reqs"]) == ("user", "s,e", "none")
        assert node.connection_class.__name__ == "SSLConnection"
