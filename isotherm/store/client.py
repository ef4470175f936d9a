"""The connection to Redis or Valkey: the one module that decides how redis-py behaves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Protocol, cast

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from isotherm.errors import SettingsError, Unavailable
from isotherm.settings import Settings
from isotherm.store.layout import PARTITIONS_KEY

TIMEOUT_SECONDS = 5.0


class Client(Protocol):
    """The commands that we use, with bytes for answers: redis-py's own types leave open whether they are text."""

    async def get(self, name: str) -> bytes | None: ...
    async def mget(self, keys: Sequence[str]) -> list[bytes | None]: ...
    async def hget(self, name: str, key: str) -> bytes | None: ...
    async def hmget(self, name: str, keys: Sequence[str]) -> list[bytes | None]: ...
    async def hgetall(self, name: str) -> dict[bytes, bytes]: ...
    async def hkeys(self, name: str) -> list[bytes]: ...
    async def hset(self, name: str, mapping: Mapping[str, str | int]) -> int: ...
    def hscan_iter(self, name: str, count: int) -> AsyncIterator[tuple[bytes, bytes]]: ...
    def sscan_iter(self, name: str, count: int) -> AsyncIterator[bytes]: ...
    async def sunion(self, keys: Sequence[str]) -> set[bytes]: ...
    async def smove(self, src: str, dst: str, value: str) -> Any: ...
    async def srem(self, name: str, value: str) -> int: ...
    async def smembers(self, name: str) -> set[bytes]: ...
    async def expire(self, name: str, time: timedelta) -> Any: ...
    async def sadd(self, name: str, *values: str) -> int: ...
    async def zadd(self, name: str, mapping: Mapping[str, float], nx: bool) -> int: ...
    async def zscore(self, name: str, value: str) -> float | None: ...
    async def zrange(self, name: str, start: int, end: int) -> list[bytes]: ...
    async def script_load(self, script: str) -> str: ...
    async def evalsha(self, sha: str, numkeys: int, *keys_and_args: Any) -> Any: ...
    def scan_iter(self, match: str, count: int) -> AsyncIterator[bytes]: ...
    def pipeline(self, transaction: bool) -> Any: ...
    def pubsub(self) -> Any: ...
    async def ping(self) -> bool: ...
    async def set(self, name: str, value: int, nx: bool) -> Any: ...
    async def aclose(self) -> None: ...


def connect(settings: Settings) -> Client:
    """Return a client; nothing is sent yet.

    redis-py would repeat a command up to ten times after a time-out, and so apply an increment twice: here a failure is
    raised at once, and whoever repeats a write does so through a compare-and-swap.
    """
    redis: Any = Redis.from_url(
        settings.redis,
        socket_timeout=TIMEOUT_SECONDS,
        socket_connect_timeout=TIMEOUT_SECONDS,
        retry=Retry(NoBackoff(), 0),
        decode_responses=False,
    )
    return cast(Client, redis)


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Client]:
    """A client whose server answers, for the length of the block.

    Raises:
        Unavailable: the server does not answer.
        SettingsError: the data there was stored with another number of partitions.
    """
    client = connect(settings)
    try:
        try:
            await client.set(PARTITIONS_KEY, settings.partitions, nx=True)
            stored = int(await client.get(PARTITIONS_KEY) or 0)
        except RedisError as error:
            raise Unavailable(f"the store at {settings.redis} does not answer: {error}") from error
        if stored != settings.partitions:
            raise SettingsError(
                f"the store at {settings.redis} holds {stored} partitions, ISOTHERM_PARTITIONS is "
                f"{settings.partitions}; set it to the store's number"
            )
        yield client
    finally:
        await client.aclose()
