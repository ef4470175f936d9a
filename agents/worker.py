"""The worker: a Faust application that brings `readings` into the series store.

Faust gives membership in the consumer group, fetching and commits. Its agent only hands records on, in order and without
acknowledging them; a `Shard` per partition applies them and acknowledges what the store has taken. Settings below answer
known faults of the library: no tables, no exactly-once, no web server, no unbounded wait on revocation.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any

import faust
from faust.exceptions import ConsumerNotStarted
from faust.types import TP, EventT, StreamT
from prometheus_client import Counter, Gauge

from agents import faust_mend  # noqa: F401  (makes fetches short)
from agents.downsample import NAME
from agents.shard import MAX_BATCH_BYTES, MAX_BATCH_RECORDS, LogRecord, Shard, mark_of
from isotherm import health, kafka
from isotherm.clock import now_us
from isotherm.errors import IsothermError, Unavailable
from isotherm.logs import Throttle
from isotherm.pack import MalformedPack
from isotherm.process import done_before, end, stop_signal
from isotherm.rejects import Rejected, RejectRecord
from isotherm.settings import Settings
from isotherm.store import client
from isotherm.store.sealer import Sealer
from isotherm.store.writer import Writer
from isotherm.topics import READINGS, REJECTS

QUEUE_RECORDS = 4 * MAX_BATCH_RECORDS
REST = 4
"""How many times as long as a commit took its partition rests before the next: batches grow with load, and cost less."""

MAX_REST_SECONDS = 0.2
STALL_SECONDS = 60.0
WATCH_SECONDS = 3.0
SEAL_SECONDS = 30.0
SEAL_REST = 5
"""How many times as long as it took to seal some chunks the worker leaves the next ones alone."""

STOP_SECONDS = 3.0

log = logging.getLogger(__name__)

_stored = Counter("isotherm_stored_readings", "Readings written to the store", ["partition"])
_lag = Gauge("isotherm_lag_records", "Records on the topic that are not in the store yet", ["partition"])


class _App(faust.App):  # type: ignore[misc]
    def _create_directories(self) -> None:
        """Leave the working directory alone: there are no tables to keep in it."""


def create_app(settings: Settings) -> faust.App:
    """Return the Faust application, without agents."""
    session = settings.group_session_seconds
    app = _App(
        f"isotherm-{NAME}",
        broker=f"aiokafka://{settings.kafka}",
        store="memory://",
        cache="memory://",
        autodiscover=False,
        topic_disable_leader=True,
        topic_partitions=settings.partitions,
        topic_replication_factor=settings.replication,
        web_enabled=False,
        stream_wait_empty=False,
        processing_guarantee="at_least_once",
        consumer_auto_offset_reset="earliest",
        broker_session_timeout=session,
        broker_rebalance_timeout=session,
        broker_heartbeat_interval=session / 3,
        broker_commit_interval=3.0,
        consumer_max_fetch_size=2 * kafka.MAX_RECORD_BYTES,
        loghandlers=[],
    )
    app.boot_strategy.enable_web = False
    return app


async def run(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT.

    Raises:
        LogConflict: the store and the log contradict each other.
        Unavailable: a server did not answer at the start.
    """
    stop = stop_signal()
    async with client.connected(settings) as redis:
        producer = kafka.Producer(settings, "isotherm-worker")
        await producer.start()
        try:
            await kafka.ensure_topics(settings)
            writer = Writer(redis, NAME, await kafka.cluster_id(settings))
            sealers = [Sealer(redis, partition) for partition in range(settings.partitions)]
            await Worker(settings, writer, sealers, producer).run(stop)
        finally:
            await producer.stop()


class Worker:
    """Feeds one shard per partition from Faust, and watches that they move."""

    def __init__(self, settings: Settings, writer: Writer, sealers: Sequence[Sealer], producer: kafka.Producer) -> None:
        self._settings = settings
        self._sealers = sealers
        self._writer = writer
        self._producer = producer
        self._shards: dict[int, Shard] = {}
        self._queues: dict[int, asyncio.Queue[LogRecord]] = {}
        self._running: list[asyncio.Task[None]] = []  # records may come before the start has returned
        self._app = create_app(settings)
        topic = self._app.topic(READINGS.name, value_type=bytes, value_serializer="raw", key_serializer="raw")
        self._app.agent(topic, concurrency=1, name=NAME)(self._read)

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop`` is set.

        Raises:
            LogConflict: the store and the log contradict each other.
            IsothermError: Faust stopped by itself, or a partition stood still.
        """
        async with health.served(self._settings, self._waiting_for), asyncio.TaskGroup() as self._tasks:
            self._app.finalize()
            try:
                if await done_before(stop, self._app.start()):  # which waits for Kafka for as long as it is away
                    self._running += [
                        self._tasks.create_task(self._watch_faust(), name="faust"),
                        self._tasks.create_task(self._watch_progress(), name="progress"),
                        self._tasks.create_task(self._keep_sealing(), name="sealing"),
                    ]
                    await stop.wait()
            finally:
                await end(self._running)  # before Faust: they ask its thread for offsets
                await asyncio.wait([asyncio.create_task(self._app.stop(), name="stop-faust")], timeout=STOP_SECONDS)
                await end(self._running)  # what a last record began

    def _waiting_for(self) -> str | None:
        return None if self._assignment() else "waiting for partitions"

    def _assignment(self) -> set[TP]:
        try:
            return set(self._app.consumer.assignment())
        except ConsumerNotStarted:
            return set()

    async def _read(self, stream: StreamT[bytes]) -> None:
        async for event in stream.noack().events():
            partition = event.message.partition
            if partition not in self._queues:
                self._open(partition)
            await self._queues[partition].put(_log_record(event))

    def _open(self, partition: int) -> None:
        self._queues[partition] = asyncio.Queue(QUEUE_RECORDS)
        self._shards[partition] = Shard(
            partition, self._writer, _FaustLog(self._settings, self._app, self._producer, partition)
        )
        self._running.append(self._tasks.create_task(self._pump(partition), name=f"shard-{partition}"))

    async def _pump(self, partition: int) -> None:
        queue, shard = self._queues[partition], self._shards[partition]
        stored = _stored.labels(partition)
        while True:
            batch = await _batch(queue)
            began = time.monotonic()
            stored.inc(await shard.apply(batch))
            # The more there is to do, the longer a commit takes, and the more records shall share the next one.
            await asyncio.sleep(min(REST * (time.monotonic() - began), MAX_REST_SECONDS))

    async def _watch_faust(self) -> None:
        await self._app.wait_until_stopped()
        raise IsothermError(f"the Faust application stopped by itself: {self._app.crash_reason!r}")

    async def _watch_progress(self) -> None:
        """See to partitions that have records and stand still.

        One whose store fell back while nothing came is read again from where the store is. What does not help after a while
        ends the process: a restart mends what Faust hangs on.
        """
        moved: dict[int, tuple[int, float]] = {}
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            now = time.monotonic()
            for at in self._assignment():
                position = await self._position(at.partition)
                lag = max(0, (self._app.consumer.highwater(at) or 0) - position)
                _lag.labels(at.partition).set(lag)
                known, since = moved.get(at.partition, (-1, now))
                if lag == 0 or position != known:
                    moved[at.partition] = (position, now)
                elif now - since > STALL_SECONDS:
                    raise IsothermError(f"partition {at.partition} has {lag} records and stands still at {position}")
                elif now - since < 2 * WATCH_SECONDS and position >= (await self._app.consumer.earliest_offsets(at))[at]:
                    if at.partition in self._shards:
                        self._shards[at.partition].doubt()
                    await self._app.consumer.seek(at, position)

    async def _keep_sealing(self) -> None:
        """Seal the chunks of the partitions that are ours, in small slices, and leave most of the time to commits."""
        failed = Throttle()
        while True:
            for partition in sorted(at.partition for at in self._assignment()):
                try:
                    began = time.monotonic()
                    async for _ in self._sealers[partition].sweep():
                        await asyncio.sleep(SEAL_REST * (time.monotonic() - began))
                        began = time.monotonic()
                except Unavailable as error:
                    if failed("away") is not None:
                        log.warning("%s; trying again", error)
            await asyncio.sleep(SEAL_SECONDS)

    async def _position(self, partition: int) -> int:
        """Return how far the store is."""
        try:
            progress = await self._writer.progress(partition)
            return progress.next if progress else 0
        except Unavailable:
            return self._app.consumer.highwater(TP(READINGS.name, partition)) or 0  # nothing can be said: all is well


class _FaustLog:
    """A shard's log, by way of Faust's consumer."""

    def __init__(self, settings: Settings, app: faust.App, producer: kafka.Producer, partition: int) -> None:
        self._settings = settings
        self._app = app
        self._producer = producer
        self._at = TP(READINGS.name, partition)

    async def start(self) -> int:
        return int((await self._app.consumer.earliest_offsets(self._at))[self._at])

    async def end(self) -> int:
        return int((await self._app.consumer.highwaters(self._at))[self._at])

    async def mark(self, offset: int) -> str | None:
        async with kafka.Reader(self._settings) as reader:
            record = await reader.record(READINGS, self._at.partition, offset)
        return None if record is None else mark_of(record.value)

    async def seek(self, offset: int) -> None:
        await self._app.consumer.seek(self._at, offset)

    async def quarantine(self, record: LogRecord, error: MalformedPack) -> None:
        peer = f"{READINGS.name}/{self._at.partition}/{record.offset}"
        log.error("%s is no pack and goes to %s: %s", peer, REJECTS.name, error)
        rejected = Rejected("poison", str(error), record.value)
        reject = RejectRecord.of([rejected], protocol="kafka", peer=peer, received_at=now_us())
        await self._producer.deliver(REJECTS, reject.to_json(), key=peer)


def _log_record(event: EventT[bytes]) -> LogRecord:
    message: Any = event.message
    return LogRecord(message.offset, message.value, event.ack)


async def _batch(queue: asyncio.Queue[LogRecord]) -> Sequence[LogRecord]:
    """Wait for a record and take what is there with it, up to a batch."""
    records = [await queue.get()]
    size = len(records[0].value)
    while not queue.empty() and len(records) < MAX_BATCH_RECORDS and size < MAX_BATCH_BYTES:
        records.append(queue.get_nowait())
        size += len(records[-1].value)
    return records
