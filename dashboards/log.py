"""The Kafka log as all sessions of this process see it: which one it is, and how far the store is behind its end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from dashboards.source import Source
from isotherm import kafka
from isotherm.errors import Unavailable
from isotherm.settings import Settings
from isotherm.store import layout
from isotherm.store.client import Client
from isotherm.store.reader import answering
from isotherm.topics import READINGS

LOOK_SECONDS = 10.0
ANSWER_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Log:
    """The log at one moment.

    Attributes:
        id: Identity of the cluster, and so of the log.
        lag: Records of each partition of ``readings`` that are not stored yet.
    """

    id: str
    lag: Sequence[int]


class LogSource(Source[Log]):
    """Asks Kafka for all sessions of this process."""

    def __init__(self, redis: Client, settings: Settings) -> None:
        super().__init__("Kafka", lambda: look_at(redis, settings), seconds=LOOK_SECONDS)


async def look_at(redis: Client, settings: Settings) -> Log:
    """Ask Kafka and the store how the log is now.

    Raises:
        Unavailable: one of them does not answer.
    """
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            id = await kafka.cluster_id(settings)
            async with kafka.Reader(settings) as reader:
                ends = await reader.ends(READINGS)
    except kafka.AWAY as error:
        raise Unavailable(f"Kafka at {settings.kafka} does not answer") from error
    # After the ends: what is stored meanwhile makes the lag smaller, never greater than it was.
    with answering():
        async with redis.pipeline(transaction=False) as look:
            for partition in ends:
                look.hget(layout.progress_key(partition, layout.STORER, id), "next")
            applied = await look.execute()
    lag = [max(0, end - int(at or start)) for (start, end), at in zip(ends.values(), applied, strict=True)]
    return Log(id, lag)
