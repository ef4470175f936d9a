"""The connection to Redis or Valkey: the one module that decides how redis-py behaves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from isotherm.errors import SettingsError, Unavailable
from isotherm.settings import Settings
from isotherm.store.layout import PARTITIONS_KEY

TIMEOUT_SECONDS = 5.0


def connect(settings: Settings) -> Redis:
    """Return a client; nothing is sent yet.

    redis-py would repeat a command up to ten times after a time-out, and so apply an increment twice: here a failure is
    raised at once, and whoever repeats a write does so through a compare-and-swap.
    """
    return Redis.from_url(
        settings.redis,
        socket_timeout=TIMEOUT_SECONDS,
        socket_connect_timeout=TIMEOUT_SECONDS,
        retry=Retry(NoBackoff(), 0),
        decode_responses=False,
    )


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Redis]:
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
