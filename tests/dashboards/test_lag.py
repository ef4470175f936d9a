"""How far the store is behind Kafka, as web processes tell whoever scales workers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import numpy as np
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from isotherm.clock import now_us
from isotherm.kafka import Producer, ensure_topics
from isotherm.pack import Pack
from isotherm.settings import Settings
from isotherm.topics import READINGS, partition_of
from tests.dashboards.stack import Web
from tests.support.ports import free_port
from tests.support.stack import ISOTHERM
from tests.support.tansu import Tansu
from tests.support.valkey import Valkey

pytestmark = pytest.mark.servers

DEADLINE_SECONDS = 60.0
POLL_SECONDS = 0.1
DEVICES = [f"room-{number}" for number in range(20)]


@pytest.fixture
def broker() -> Iterator[Tansu]:
    with Tansu() as broker:
        yield broker


@pytest.fixture
def settings(settings: Settings, broker: Tansu) -> Settings:
    return settings.model_copy(update={"kafka": broker.bootstrap, "health_port": free_port()})


async def test_it_is_what_the_store_lacks_whatever_the_group_of_the_workers_says(
    settings: Settings, web: Web, valkey: Valkey
) -> None:
    await ensure_topics(settings)
    assert await lag(settings) == (200, {"records": 0})
    await send(settings)
    assert await lag(settings) == (200, {"records": len(DEVICES)})

    worker = await asyncio.create_subprocess_exec(*ISOTHERM, "worker", env=environment(settings))
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while await lag(settings) != (200, {"records": 0}):  # noqa: ASYNC110  # another process cannot set an event
                await asyncio.sleep(POLL_SECONDS)
    finally:
        worker.terminate()  # which commits
        await worker.wait()
    assert await committed(settings) == len(DEVICES)

    valkey.empty()
    assert await committed(settings) == len(DEVICES)
    assert await lag(settings) == (200, {"records": len(DEVICES)})


async def test_it_is_not_told_while_it_is_not_known(settings: Settings, web: Web, broker: Tansu) -> None:
    broker.__exit__()
    status, said = await lag(settings)
    assert status == 503 and str(said).startswith(f"Kafka at {settings.kafka} does not answer")


async def lag(settings: Settings) -> tuple[int, object]:
    """Return the status of the answer, and what it says."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://{settings.host}:{settings.health_port}/lag") as answer,
    ):
        return answer.status, await (answer.json() if answer.status == 200 else answer.text())


async def send(settings: Settings) -> None:
    """Put a record of each device on the log."""
    producer = Producer(settings, "test")
    await producer.start()
    try:
        for device in DEVICES:
            pack = Pack(
                names=[f"{device}/temperature"],
                series=np.zeros(1, dtype=np.int32),
                time=np.array([now_us()], dtype=np.int64),
                value=np.array([20.0]),
                connector="test/1",
                received_at=now_us(),
            )
            await producer.deliver(READINGS, pack.to_ipc(), partition=partition_of(device, settings.partitions))
    finally:
        await producer.stop()


async def committed(settings: Settings) -> int:
    """Return how many records the group of the workers says are done."""
    client = AIOKafkaAdminClient(bootstrap_servers=settings.kafka)
    await client.start()
    try:
        every = [TopicPartition(READINGS.name, partition) for partition in range(settings.partitions)]
        found = await client.list_consumer_group_offsets("isotherm-downsample", partitions=every)
        return sum(max(0, one.offset) for one in found.values())
    finally:
        await client.close()


def environment(settings: Settings) -> dict[str, str]:
    """Return what a worker of ours is told."""
    return {**settings.environment(), "ISOTHERM_HEALTH_PORT": "0", "PATH": str(Path(ISOTHERM[0]).parent)}
