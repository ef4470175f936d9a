"""Kafka, as everything here uses it: the one module that knows aiokafka.

aiokafka's defaults (acks=1, no idempotence, automatic commits, reset to latest) lose and repeat records, so producers
and consumers are made here and nowhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    InvalidProducerEpoch,
    InvalidProducerIdMapping,
    InvalidReplicationFactorError,
    KafkaError,
    OutOfOrderSequenceNumber,
    ProducerFenced,
    TopicAlreadyExistsError,
    for_code,
)

from isotherm import aiokafka_mend  # noqa: F401  (teaches aiokafka a request that the embedded broker needs)
from isotherm.errors import SettingsError, Unavailable
from isotherm.limits import MILLISECOND
from isotherm.logs import Throttle
from isotherm.settings import Settings
from isotherm.topics import ALL, Topic, partition_of

MAX_RECORD_BYTES = 2 * 1024 * 1024
"""Largest record that the topics take."""

MAX_VALUE_BYTES = MAX_RECORD_BYTES * 3 // 4
"""Largest value to send: it leaves room for what a record and its batch add."""

CONNECT_SECONDS = 10.0
STOP_SECONDS = 5.0
RETRY_SECONDS = 0.5

AWAY = (KafkaError, TimeoutError, OSError)
"""What a client raises while Kafka is away."""

_SEQUENCE_LOST = (OutOfOrderSequenceNumber, InvalidProducerEpoch, InvalidProducerIdMapping, ProducerFenced)
"""The broker and the producer disagree for good on which record comes next: only a new producer can go on."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Record:
    """A record as it was read."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic as the brokers keep it.

    Attributes:
        name: Its name.
        partitions: How many it has.
        replicas: How many brokers have each partition; of the one with the fewest.
        in_sync: How many of them are up to date; of the partition with the fewest.
        min_in_sync: How many must be for Kafka to take a record.
        retention: How long it keeps its records, µs; None for ever.
    """

    name: str
    partitions: int
    replicas: int
    in_sync: int
    min_in_sync: int
    retention: int | None


class Producer:
    """An idempotent producer with acks=all and a bounded start and stop."""

    def __init__(self, settings: Settings, client_id: str) -> None:
        self._settings = settings
        self._client_id = client_id
        self._producer: AIOKafkaProducer | None = None
        self._connecting = asyncio.Lock()
        self._turns: defaultdict[tuple[str, int], asyncio.Lock] = defaultdict(asyncio.Lock)
        self._throttle = Throttle()

    async def start(self) -> None:
        """Connect, if that is not done.

        Raises:
            Unavailable: no broker answered in time.
        """
        if self._producer is None:
            async with self._connecting:
                self._producer = self._producer or await self._connect()

    async def _connect(self) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(
            bootstrap_servers=self._settings.kafka,
            client_id=self._client_id,
            acks="all",
            enable_idempotence=True,
            max_batch_size=MAX_RECORD_BYTES,
            max_request_size=2 * MAX_RECORD_BYTES,
            linger_ms=0,
            request_timeout_ms=10_000,
            retry_backoff_ms=100,
        )
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await producer.start()
        except AWAY as error:
            await _bounded_stop(producer.stop())
            raise _unavailable(self._settings, error) from error
        return producer

    async def deliver(self, topic: Topic, value: bytes, *, partition: int | None = None, key: str | None = None) -> None:
        """Offer a record until Kafka has acknowledged it, for as long as Kafka is away.

        A partition takes one record after the other, so their order holds through every retry. (The embedded broker
        acknowledges a batch of several records of an idempotent producer that it has not stored.) A caller that stops
        waiting knows nothing about the record's fate: it may still be delivered.

        Args:
            topic: Where to.
            value: The record's value, at most MAX_VALUE_BYTES.
            partition: Which one; without it, the one of the key.
            key: The record's key.
        """
        if partition is None:
            partition = partition_of(key or "", self._settings.partitions)
        async with self._turns[topic.name, partition]:
            await self._deliver(topic, value, partition, None if key is None else key.encode())

    async def _deliver(self, topic: Topic, value: bytes, partition: int, key: bytes | None) -> None:
        while True:
            producer = self._producer
            try:
                if producer is None:
                    raise Unavailable("the producer is not started")
                await (await producer.send(topic.name, value, partition=partition, key=key))
            except _SEQUENCE_LOST as error:
                await self._replace(producer, error)
            except (Unavailable, KafkaError) as error:
                if self._throttle(topic.name) is not None:
                    log.warning("Kafka did not take a record for %s: %r; trying again", topic.name, error)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return

    async def _replace(self, producer: AIOKafkaProducer | None, error: KafkaError) -> None:
        """Go on with another producer, once for all who found that this one cannot."""
        async with self._connecting:
            if self._producer is not producer:
                return
            log.warning("Kafka has lost track of this producer, a new one goes on: %r", error)
            try:
                self._producer = await self._connect()
            except Unavailable as away:
                log.warning("%s; trying again", away)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                if producer is not None:
                    await _bounded_stop(producer.stop())

    async def stop(self) -> None:
        """Flush what is handed over, for a bounded time, and disconnect."""
        if self._producer is not None:
            await _bounded_stop(self._producer.stop())
            self._producer = None


def _unavailable(settings: Settings, error: Exception) -> Unavailable:
    """Return what a failed connection is to us; raises CancelledError when it failed because we were cancelled.

    aiokafka answers a cancellation while it connects with an error of its own.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError from error
    return Unavailable(f"Kafka at {settings.kafka} does not answer: {error!r}")


async def _bounded_stop(stopping: Any) -> None:
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await stopping
    except (TimeoutError, KafkaError) as error:
        log.warning("Kafka client did not stop cleanly: %r", error)


@contextlib.asynccontextmanager
async def admin(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    """An admin client for the length of the block.

    Raises:
        Unavailable: no broker answered in time.
    """
    client = AIOKafkaAdminClient(bootstrap_servers=settings.kafka, request_timeout_ms=10_000)
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await client.start()
        yield client
    except AWAY as error:
        raise _unavailable(settings, error) from error
    finally:
        await _bounded_stop(client.close())


async def cluster_id(settings: Settings) -> str:
    """Return the id of the cluster: with a topic's name, the identity of a log."""
    async with admin(settings) as client:
        return str((await client.describe_cluster())["cluster_id"])


async def count_brokers(settings: Settings) -> int:
    """Return how many brokers the cluster has at the moment.

    Raises:
        Unavailable: no broker answered in time.
    """
    async with admin(settings) as client:
        return len((await client.describe_cluster())["brokers"])


async def expect_topics(settings: Settings) -> None:
    """See that the topics are there, or can be made.

    Raises:
        Unavailable: no broker answered in time, or not yet as many as each topic should have replicas.
    """
    async with admin(settings) as client:
        if len(await _find_topics(client)) < len(ALL):
            brokers = len((await client.describe_cluster())["brokers"])
            if brokers < settings.replication:
                raise Unavailable(str(too_few_brokers(settings, brokers)))


def too_few_brokers(settings: Settings, brokers: int) -> SettingsError:
    """Return what is to be said where each topic should have more replicas than there are brokers."""
    return SettingsError(
        f"Kafka at {settings.kafka} has {brokers} broker{'' if brokers == 1 else 's'}, ISOTHERM_REPLICATION is "
        f"{settings.replication}; start the others, or set it to {brokers} or less"
    )


async def ensure_topics(settings: Settings) -> None:
    """Create the topics that do not exist; with replicas, most of which must have a record before it is acknowledged.

    Raises:
        SettingsError: a topic exists with another number of partitions than the settings say, and nothing was created; or
            there are fewer brokers than there should be replicas.
        Unavailable: no broker answered in time.
    """
    async with admin(settings) as client:
        found = await _find_topics(client)
        _check_partitions(settings, found)
        missing = [topic for topic in ALL if topic.name not in found]
        if not missing:
            return
        answer = await client.create_topics([_new_topic(settings, topic) for topic in missing])
        for name, code, *detail in answer.topic_errors:
            error = for_code(code)
            if error is InvalidReplicationFactorError:
                raise too_few_brokers(settings, len((await client.describe_cluster())["brokers"]))
            if code and error is not TopicAlreadyExistsError:  # another process may have been faster
                raise Unavailable(f"Kafka cannot create topic {name}: {error.__name__} {detail}")
        async with asyncio.timeout(CONNECT_SECONDS):
            while True:
                found = await _find_topics(client)
                if len(found) == len(ALL):
                    break
                await asyncio.sleep(RETRY_SECONDS)
        _check_partitions(settings, found)


def _new_topic(settings: Settings, topic: Topic) -> NewTopic:
    configuration = {"retention.ms": str(topic.retention // 1000), "max.message.bytes": str(MAX_RECORD_BYTES)}
    if settings.replication > 1:
        configuration["min.insync.replicas"] = str(settings.replication - 1)
    return NewTopic(topic.name, settings.partitions, settings.replication, topic_configs=configuration)


async def _find_topics(client: AIOKafkaAdminClient) -> dict[str, Sequence[Mapping[str, Any]]]:
    """Return topic's name → its partitions; one that was created a moment ago has none yet, and is left out.

    All topics are asked for: a broker creates one that it is asked for by its name.
    """
    ours = {topic.name for topic in ALL}
    every = await client.describe_topics()
    return {one["topic"]: one["partitions"] for one in every if one["topic"] in ours and one["partitions"]}


def _check_partitions(settings: Settings, found: Mapping[str, Sequence[object]]) -> None:
    for topic in ALL:
        if topic.name in found and (count := len(found[topic.name])) != settings.partitions:
            raise SettingsError(
                f"topic {topic.name} has {count} partitions, ISOTHERM_PARTITIONS is {settings.partitions}; "
                "set it to the topic's number"
            )


async def describe_topics(settings: Settings) -> list[TopicState]:
    """Return the topics of ours that there are.

    Raises:
        Unavailable: no broker answered in time.
    """
    async with admin(settings) as client:
        found = await _find_topics(client)
        # All of its configuration: the embedded broker hangs up on who asks for a part.
        asked = [ConfigResource(ConfigResourceType.TOPIC, name) for name in found]
        answers = await client.describe_configs(asked) if asked else []
    told = {
        name: {entry[0]: entry[1] for entry in entries} for answer in answers for _, _, _, name, entries in answer.resources
    }
    states = []
    for topic in ALL:
        if (partitions := found.get(topic.name)) is not None:
            configuration = told.get(topic.name, {})
            retention = int(configuration.get("retention.ms", -1))
            states.append(
                TopicState(
                    topic.name,
                    len(partitions),
                    min(len(one["replicas"]) for one in partitions),
                    min(len(one["isr"]) for one in partitions),
                    int(configuration.get("min.insync.replicas", 1)),
                    None if retention < 0 else retention * MILLISECOND,
                )
            )
    return states


class Reader:
    """Reads topics without a group and without commits, for people and for progress checks."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._consumer: AIOKafkaConsumer | None = None

    async def __aenter__(self) -> Reader:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._settings.kafka,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=MAX_RECORD_BYTES,
        )
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await consumer.start()
        except AWAY as error:
            await _bounded_stop(consumer.stop())
            raise _unavailable(self._settings, error) from error
        self._consumer = consumer
        return self

    async def __aexit__(self, *_: object) -> None:
        await _bounded_stop(self._assigned.stop())

    @property
    def _assigned(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            raise Unavailable("the reader is not started")
        return self._consumer

    async def ends(self, topic: Topic) -> dict[int, tuple[int, int]]:
        """Return partition → (first offset kept, offset of the next record)."""
        partitions = self._partitions(topic)
        starts = await self._assigned.beginning_offsets(partitions)
        ends = await self._assigned.end_offsets(partitions)
        return {at.partition: (starts[at], ends[at]) for at in partitions}

    async def record(self, topic: Topic, partition: int, offset: int) -> Record | None:
        """Return the record at an offset, or None when the log no longer has it.

        Raises:
            Unavailable: Kafka does not answer.
        """
        at = TopicPartition(topic.name, partition)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                start = (await self._assigned.beginning_offsets([at]))[at]
                end = (await self._assigned.end_offsets([at]))[at]
                if not start <= offset < end:
                    return None
                self._assigned.assign([at])
                self._assigned.seek(at, offset)
                message = await self._assigned.getone()
        except (KafkaError, TimeoutError) as error:
            raise _unavailable(self._settings, error) from error
        return _record(message) if message.offset == offset else None

    async def follow(
        self,
        topic: Topic,
        *,
        last: int | None = None,
        begin: Mapping[int, int] | None = None,
        end: Mapping[int, int] | None = None,
        stop: bool = False,
    ) -> AsyncIterator[Record]:
        """Yield records as they come.

        Args:
            topic: What to read.
            last: Begin at most so many records per partition before the end; None begins at the start.
            begin: Partition → offset of its first record, where that is not so.
            end: Partition → offset before which its end is taken to be; others are not read.
            stop: End at what was the end when reading began.
        """
        consumer = self._assigned
        ends = await self.ends(topic)
        if end is not None:
            ends = {at: (start, min(ends[at][1], end[at])) for at, (start, _) in ends.items() if at in end}
        consumer.assign([TopicPartition(topic.name, at) for at in ends])
        starts = {p: start if last is None else max(start, end - last) for p, (start, end) in ends.items()}
        starts.update(begin or {})
        for partition, start in starts.items():
            consumer.seek(TopicPartition(topic.name, partition), start)
        open_ends = {partition: end for partition, (_, end) in ends.items() if end > starts[partition]}
        while open_ends or not stop:
            for at, messages in (await consumer.getmany(timeout_ms=500)).items():
                for message in messages:
                    if not stop or message.offset < ends[at.partition][1]:
                        yield _record(message)
                if messages and messages[-1].offset + 1 >= open_ends.get(at.partition, 0):
                    open_ends.pop(at.partition, None)

    def _partitions(self, topic: Topic) -> Sequence[TopicPartition]:
        return [TopicPartition(topic.name, partition) for partition in range(self._settings.partitions)]


def _record(message: Any) -> Record:
    return Record(
        message.topic, message.partition, message.offset, message.timestamp, message.key, bytes(message.value or b"")
    )
