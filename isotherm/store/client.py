"""The connection to Redis or Valkey: the one module that decides how redis-py behaves."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any, Protocol, cast
from urllib.parse import urlsplit, urlunsplit

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import ConnectionPool, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import RedisClusterException, RedisError

from isotherm.clock import now_us
from isotherm.errors import SettingsError, Unavailable
from isotherm.limits import SECOND
from isotherm.settings import Settings
from isotherm.store.cluster import NO_CLUSTER, Cluster
from isotherm.store.layout import PARTITIONS_KEY

TIMEOUT_SECONDS = 5.0

MAX_CONNECTIONS = 200
"""Of one process to one server; whoever listens to a channel has one for as long."""

MAX_CLOCKS_APART = 10 * SECOND
"""How far a process's clock may be from the store's: less than a connector has for a command (15 s), an analytic may lag
before silence counts anew (30 s), and chunks await their writers (1 min)."""

KEEPS = "noeviction"
"""The maxmemory-policy under which a full server refuses writes; under all others it deletes keys."""


class Client(Protocol):
    """The commands that we use, with bytes for answers: redis-py's own types leave open whether they are text."""

    async def get(self, name: str) -> bytes | None: ...
    async def mget(self, keys: Sequence[str]) -> list[bytes | None]: ...
    async def getrange(self, key: str, start: int, end: int) -> bytes: ...
    async def persist(self, name: str) -> Any: ...
    async def hget(self, name: str, key: str) -> bytes | None: ...
    async def hmget(self, name: str, keys: Sequence[str]) -> list[bytes | None]: ...
    async def hgetall(self, name: str) -> dict[bytes, bytes]: ...
    async def hkeys(self, name: str) -> list[bytes]: ...
    async def hset(self, name: str, mapping: Mapping[str, str | int]) -> int: ...
    def hscan_iter(self, name: str, count: int) -> AsyncIterator[tuple[bytes, bytes]]: ...
    def sscan_iter(self, name: str, count: int) -> AsyncIterator[bytes]: ...
    async def sunion(self, keys: Sequence[str]) -> set[bytes]: ...
    async def hdel(self, name: str, *keys: str) -> int: ...
    async def getdel(self, name: str) -> bytes | None: ...
    async def delete(self, *names: str) -> int: ...
    async def publish(self, channel: str, message: str) -> int: ...
    async def xadd(self, name: str, fields: Mapping[bytes, bytes], maxlen: int, approximate: bool) -> bytes: ...
    async def xrevrange(
        self, name: str, max: str = "+", min: str = "-", count: int | None = None
    ) -> list[tuple[bytes, dict[bytes, bytes]]]: ...
    async def smove(self, src: str, dst: str, value: str) -> Any: ...
    async def srem(self, name: str, value: str) -> int: ...
    async def smembers(self, name: str) -> set[bytes]: ...
    async def exists(self, name: str) -> int: ...
    async def expire(self, name: str, time: timedelta) -> Any: ...
    async def sadd(self, name: str, *values: str) -> int: ...
    async def zadd(self, name: str, mapping: Mapping[str, float], nx: bool = False) -> int: ...
    async def zcard(self, name: str) -> int: ...
    async def zscore(self, name: str, value: str) -> float | None: ...
    async def zrange(self, name: str, start: int, end: int) -> list[bytes]: ...
    async def zrem(self, name: str, *values: bytes) -> int: ...
    async def zrangebyscore(self, name: str, min: float | str, max: float | str) -> list[bytes]: ...
    async def zremrangebyscore(self, name: str, min: float | str, max: float | str) -> int: ...
    async def script_load(self, script: str) -> str: ...
    async def evalsha(self, sha: str, numkeys: int, *keys_and_args: Any) -> Any: ...
    def scan_iter(self, match: str, count: int) -> AsyncIterator[bytes]: ...
    def pipeline(self, transaction: bool) -> Any: ...
    def pubsub(self) -> Any: ...
    async def ping(self) -> bool: ...
    async def set(self, name: str, value: int | str | bytes, nx: bool = False, ex: int | None = None) -> Any: ...
    async def aclose(self) -> None: ...


class _Pool(ConnectionPool):
    """Connections to one server. Who comes while all are in use waits, where redis-py's raises; its own one that waits takes
    15 µs more of a command."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._free = asyncio.Semaphore(self.max_connections)

    async def get_connection(self, *args: Any, **kwargs: Any) -> Any:
        """Return a connection; raises ConnectionError when none becomes free in time."""
        if self._free.locked():
            try:
                async with asyncio.timeout(TIMEOUT_SECONDS):
                    await self._free.acquire()
            except TimeoutError:
                raise NoConnection(f"all {self.max_connections} connections are in use") from None
        else:
            await self._free.acquire()
        try:
            return await super().get_connection(*args, **kwargs)  # type: ignore[no-untyped-call]
        except BaseException:
            self._free.release()
            raise

    async def release(self, connection: Any) -> None:
        """Take a connection back."""
        try:
            await super().release(connection)
        finally:
            self._free.release()


def connect(settings: Settings) -> Client:
    """Return a client; nothing is sent yet.

    redis-py would repeat a command up to ten times after a time-out, and so apply an increment twice: here a failure is
    raised at once, and whoever repeats a write does so through a compare-and-swap.

    Raises:
        SettingsError: the URL is none.
    """
    options: dict[str, Any] = {
        "socket_timeout": TIMEOUT_SECONDS,
        "socket_connect_timeout": TIMEOUT_SECONDS,
        "retry": Retry(NoBackoff(), 0),
        "decode_responses": False,
    }
    try:
        seeds = seed_urls(settings.redis)
        redis: Any = _single(seeds[0], options) if len(seeds) == 1 else _cluster(seeds, options)
    except (ValueError, TypeError, RedisClusterException) as error:
        raise SettingsError(f"ISOTHERM_REDIS is {without_secrets(settings.redis)!r}: {error}") from error
    return cast(Client, redis)


async def heard(pubsub: Any, seconds: float) -> Mapping[str, Any] | None:
    """Return the next message of a subscription, or None when none came in so many seconds.

    redis-py's own time-out takes a connection that the kernel has given up (ETIMEDOUT) for silence, and returns at once:
    whoever asks again lets nothing else run.

    Raises:
        redis.exceptions.ConnectionError: the connection is lost; announcements may be.
    """
    try:
        async with asyncio.timeout(seconds) as silence:
            while (message := await pubsub.get_message(timeout=None)) is not None:
                if message["type"] == "message":
                    return cast(Mapping[str, Any], message)
    except TimeoutError:
        if silence.expired():
            return None
    raise NoConnection("the connection that was listened on is lost")


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Client]:
    """A client whose server answers and keeps what it is given, for the length of the block.

    Raises:
        Unavailable: the server does not answer.
        SettingsError: it is too old, evicts keys, has another time than this machine, or is a cluster or none where the
            other was said; or the data there was stored with another number of partitions.
    """
    client = connect(settings)
    where = f"the store at {without_secrets(settings.redis)}"
    try:
        try:
            await _check_servers(client, where)
            await client.set(PARTITIONS_KEY, settings.partitions, nx=True)
            stored = int(await client.get(PARTITIONS_KEY) or 0)
        except RedisError as error:
            if NO_CLUSTER in str(error):
                raise SettingsError(f"{where} is no Redis Cluster; write one address, not several") from error
            raise Unavailable(f"{where} does not answer: {error}") from error
        if stored != settings.partitions:
            raise SettingsError(
                f"{where} holds {stored} partitions, ISOTHERM_PARTITIONS is {settings.partitions}; "
                "set it to the store's number"
            )
        yield client
    finally:
        await client.aclose()


def seed_urls(url: str) -> list[str]:
    """Return one URL for each address in ``url``.

    >>> seed_urls("redis://:secret@a:7000,b:7001/0")
    ['redis://:secret@a:7000/0', 'redis://:secret@b:7001/0']
    """
    parts = urlsplit(url)
    user, at, addresses = parts.netloc.rpartition("@")
    return [urlunsplit(parts._replace(netloc=user + at + one.strip())) for one in addresses.split(",")]


def without_secrets(url: str) -> str:
    """Return a URL as it may be shown.

    >>> without_secrets("rediss://admin:secret@a:7000,b:7001/0?password=secret")
    'rediss://a:7000,b:7001/0'
    """
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=""))


def _single(url: str, options: dict[str, Any]) -> Redis:
    """Return a client of one server."""
    return Redis.from_pool(_Pool.from_url(url, max_connections=MAX_CONNECTIONS, **options))


def _cluster(seeds: Sequence[str], options: dict[str, Any]) -> Cluster:
    """Return a client of a cluster; it always begins at the seeds, for the addresses that nodes tell may pass away."""
    each = [parse_url(seed) for seed in seeds]
    nodes = [ClusterNode(one.get("host", "localhost"), one.get("port", 6379)) for one in each]
    common: dict[str, Any] = {name: value for name, value in each[0].items() if name not in ("host", "port")}
    if common.pop("connection_class", None) is SSLConnection:
        common["ssl"] = True
    # With reinitialize_steps every so many redirections would end all connections; a redirection says enough by itself.
    return Cluster(startup_nodes=nodes, dynamic_startup_nodes=False, reinitialize_steps=0, **common, **options)


async def _check_servers(redis: Any, where: str) -> None:
    """Refuse servers that would lose what they are given.

    Raises:
        SettingsError: a server is too old, evicts keys, has another time, or is a node of a cluster that was taken for a
            single one.
        RedisError: it does not answer.
    """
    if not isinstance(redis, Cluster):
        info = await redis.info()
        if info.get("cluster_enabled"):
            slots = await redis.execute_command("CLUSTER SLOTS")
            nodes = sorted({f"{host.decode()}:{port}" for _, _, (host, port, *_), *_ in slots})
            raise SettingsError(
                f"{where} is a node of a Redis Cluster; name several of its nodes, so that one may fail: "
                f"ISOTHERM_REDIS=redis://{','.join(nodes) or 'HOST:PORT,HOST:PORT'}"
            )
        check_server(info, where)
        await _check_clock(redis.time, where)
        return
    await redis.initialize()
    for node in redis.get_primaries():
        what = f"{where}, node {node.name},"
        check_server(await redis.info(target_nodes=node), what)
        await _check_clock(partial(redis.time, target_nodes=node), what)


async def _check_clock(ask: Callable[[], Awaitable[tuple[int, int]]], where: str) -> None:
    """Refuse to work by another clock than the store's.

    Args:
        ask: Asks a server for its time, s and µs.
        where: The server.

    Raises:
        SettingsError: they are too far apart.
        RedisError: it does not answer.
    """
    before = now_us()
    seconds, micros = await ask()
    store, after = seconds * SECOND + micros, now_us()
    ahead = min(0, after - store) + max(0, before - store)
    if abs(ahead) > MAX_CLOCKS_APART:
        which = "ahead of" if ahead > 0 else "behind"
        raise SettingsError(
            f"the clock of this machine is {abs(ahead) / SECOND:.0f} s {which} that of {where}: readings would be kept too "
            "short, and silence and commands misjudged. Have both set by NTP, such as with `timedatectl set-ntp true`"
        )


def check_server(info: Mapping[str, Any], where: str) -> None:
    """Refuse a server by what it says of itself (INFO).

    Raises:
        SettingsError: it is too old or evicts keys.
    """
    for name, field, least in (("Valkey", "valkey_version", (7, 2)), ("Redis", "redis_version", (7, 0))):
        if field in info:
            found = str(info[field])
            if tuple(int(part) for part in re.findall(r"\d+", found)[:2]) < least:
                raise SettingsError(f"{where} is {name} {found}; it must be Redis 7.0 or Valkey 7.2, or later")
            break
    policy = info.get("maxmemory_policy", KEEPS)
    if info.get("maxmemory") and policy != KEEPS:
        raise SettingsError(
            f"{where} has maxmemory-policy {policy}: when its memory is full it would delete history and progress unseen. "
            f"Type `CONFIG SET maxmemory-policy {KEEPS}` in redis-cli, and write it into its configuration"
        )
