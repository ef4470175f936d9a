"""The broker the other tests lean on: a killed Apache Kafka comes back with its data and its cluster id."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests.support.apache_kafka import LIBS, ApacheKafka, available

TOPIC = "readings"
PARTITIONS = 8

pytestmark = [pytest.mark.servers, pytest.mark.skipif(available() is not None, reason=available() or "")]


@asynccontextmanager
async def admin_of(kafka: ApacheKafka) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def cluster_id(kafka: ApacheKafka) -> str:
    async with admin_of(kafka) as admin:
        return str((await admin.describe_cluster())["cluster_id"])


async def produce(kafka: ApacheKafka, text: str) -> None:
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, acks="all", enable_idempotence=True) as producer:
        for partition in range(PARTITIONS):
            await producer.send_and_wait(TOPIC, f"{text} {partition}".encode(), partition=partition)


async def consume(kafka: ApacheKafka, group: str) -> dict[int, list[str]]:
    """Read as the group until every partition is read to its end, commit, and give the texts by partition."""
    texts: dict[int, list[str]] = {}
    async with AIOKafkaConsumer(
        TOPIC, bootstrap_servers=kafka.bootstrap, group_id=group, auto_offset_reset="earliest", enable_auto_commit=False
    ) as consumer:
        ends = await consumer.end_offsets(consumer.assignment())
        assert len(ends) == PARTITIONS
        while any([await consumer.position(partition) < end for partition, end in ends.items()]):
            for partition, records in (await consumer.getmany(timeout_ms=100)).items():
                texts.setdefault(partition.partition, []).extend(record.value.decode() for record in records)
        await consumer.commit()
    return texts


async def test_data_and_cluster_id_survive_a_kill(tmp_path: Path) -> None:
    first = {partition: [f"first {partition}"] for partition in range(PARTITIONS)}
    second = {partition: [f"second {partition}"] for partition in range(PARTITIONS)}
    with ApacheKafka(LIBS, tmp_path) as kafka:
        async with admin_of(kafka) as admin:
            await admin.create_topics([NewTopic(TOPIC, PARTITIONS, 1)])
        await produce(kafka, "first")
        assert await consume(kafka, "before") == first
        old_pid, old_bootstrap, old_cluster_id = kafka.pid, kafka.bootstrap, await cluster_id(kafka)

        kafka.kill()
        kafka.start()

        assert kafka.pid != old_pid
        assert kafka.bootstrap == old_bootstrap
        assert await cluster_id(kafka) == old_cluster_id
        assert await consume(kafka, "after") == first
        await produce(kafka, "second")
        assert await consume(kafka, "before") == second, "the group's offsets are kept too"


def test_failed_start_shows_the_log(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "meta.properties").write_text("version=1\n")
    with pytest.raises(RuntimeError, match=r"ended with code(.|\n)*node\.id"):
        ApacheKafka(LIBS, tmp_path).start()
