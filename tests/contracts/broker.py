"""What every broker that the pipeline runs on must keep. A test class inherits this and provides ``bootstrap``."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka import TopicPartition

from isotherm import kafka
from isotherm.errors import SettingsError
from isotherm.kafka import Producer, Reader, Record
from isotherm.settings import Settings
from isotherm.topics import ALL, READINGS, REJECTS, Topic


class BrokerContract:
    """The promises."""

    @pytest.fixture
    async def settings(self, bootstrap: str) -> Settings:
        settings = Settings(kafka=bootstrap)
        await kafka.ensure_topics(settings)
        return settings

    async def read_all(self, settings: Settings, topic: Topic, last: int | None = None) -> list[Record]:
        async with asyncio.timeout(30), Reader(settings) as reader:
            return [record async for record in reader.follow(topic, last=last, stop=True)]

    async def test_topics_can_be_ensured_again(self, settings: Settings) -> None:
        await kafka.ensure_topics(settings)
        async with Reader(settings) as reader:
            for topic in ALL:
                assert len(await reader.ends(topic)) == settings.partitions

    async def test_another_number_of_partitions_is_refused(self, settings: Settings, bootstrap: str) -> None:
        with pytest.raises(SettingsError, match="readings has 8 partitions, ISOTHERM_PARTITIONS is 4"):
            await kafka.ensure_topics(Settings(kafka=bootstrap, partitions=4))

    async def test_an_idempotent_producer_delivers_in_order_to_the_partition_it_names(self, settings: Settings) -> None:
        before = {record.offset for record in await self.read_all(settings, READINGS) if record.partition == 5}
        producer = Producer(settings, "contract")
        await producer.start()
        for i in range(100):
            await producer.deliver(READINGS, b"%d" % i, partition=5)
        await producer.stop()
        after = [record for record in await self.read_all(settings, READINGS) if record.partition == 5]
        assert [record.value for record in after[len(before) :]] == [b"%d" % i for i in range(100)]
        offsets = [record.offset for record in after]
        assert offsets == list(range(offsets[0], offsets[0] + len(offsets)))  # without holes: the shard counts on it

    async def test_the_last_records_of_each_partition_can_be_read(self, settings: Settings) -> None:
        producer = Producer(settings, "contract")
        await producer.start()
        for i in range(10):
            await producer.deliver(REJECTS, b"%d" % i, key="device")
        await producer.stop()
        assert [record.value for record in await self.read_all(settings, REJECTS, last=3)] == [b"7", b"8", b"9"]
        assert await self.read_all(settings, REJECTS, last=0) == []

    async def test_one_record_can_be_read_by_its_offset(self, settings: Settings) -> None:
        producer = Producer(settings, "contract")
        await producer.start()
        for i in range(5):
            await producer.deliver(READINGS, b"%d" % i, partition=6)
        await producer.stop()
        async with asyncio.timeout(30):
            for back in (1, 5):
                async with Reader(settings) as reader:
                    _, end = (await reader.ends(READINGS))[6]
                    record = await reader.record(READINGS, 6, end - back)
                    assert record is not None
                    assert (record.offset, record.value) == (end - back, b"%d" % (5 - back))
            async with Reader(settings) as reader:
                assert await reader.record(READINGS, 6, end) is None

    async def test_the_cluster_id_stays(self, settings: Settings) -> None:
        assert await kafka.cluster_id(settings) == await kafka.cluster_id(settings) != ""

    async def test_a_producer_whose_sequence_is_lost_is_replaced(self, settings: Settings) -> None:
        before = len([record for record in await self.read_all(settings, READINGS) if record.partition == 3])
        producer = Producer(settings, "contract")
        await producer.start()
        await producer.deliver(READINGS, b"first", partition=3)
        inner = producer._producer
        assert inner is not None
        inner._txn_manager.increment_sequence_number(TopicPartition(READINGS.name, 3), 5)
        async with asyncio.timeout(30):
            await asyncio.gather(*(producer.deliver(READINGS, b"%d" % i, partition=3) for i in range(10)))
        await producer.stop()
        after = [record.value for record in await self.read_all(settings, READINGS) if record.partition == 3][before:]
        assert after[0] == b"first"
        assert set(after[1:]) == {b"%d" % i for i in range(10)}, after

    async def test_what_is_delivered_at_once_is_all_there_in_its_order(self, settings: Settings) -> None:
        before = len([record for record in await self.read_all(settings, REJECTS) if record.partition == 2])
        producer = Producer(settings, "contract")
        await producer.start()
        for _ in range(5):
            await asyncio.gather(*(producer.deliver(REJECTS, b"%d" % i, partition=2) for i in range(10)))
        await producer.stop()
        after = [record.value for record in await self.read_all(settings, REJECTS) if record.partition == 2][before:]
        assert after == [b"%d" % i for i in range(10)] * 5
