"""A worker: a Faust application that brings the records of a topic into a sink, a shard per partition.

Faust gives membership in the consumer group, fetching and commits. Its agent only hands records on, in order and without
acknowledging them; a `Shard` per partition applies them and acknowledges what the store has taken. Settings below answer
known faults of the library: no tables, no exactly-once, no web server, no unbounded wait on revocation.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import faust
from faust.exceptions import ConsumerNotStarted
from faust.types import TP, EventT, StreamT
from prometheus_client import Counter, Gauge

from agents import faust_mend  # noqa: F401  (makes fetches short)
from agents.shard import MAX_BATCH_BYTES, MAX_BATCH_RECORDS, Log, LogRecord, Shard, Sink, mark_of
from isotherm import kafka
from isotherm.errors import IsothermError, Unavailable
from isotherm.process import done_before, end
from isotherm.settings import Settings
from isotherm.store.writer import Progress
from isotherm.topics import Topic

QUEUE_RECORDS = 4 * MAX_BATCH_RECORDS
REST = 4
"""How many times as long as a commit took its partition rests before the next: batches grow with load, and cost less."""

MAX_REST_SECONDS = 0.2
IDLE_SECONDS = 0.25
"""How often a sink hears that time has passed."""

ASK_SECONDS = 1.0
STALL_SECONDS = 60.0
WATCH_SECONDS = 3.0
STOP_SECONDS = 3.0

Assignment = Callable[[], Sequence[int]]
"""Returns the partitions that are this worker's at the moment, ascending."""

log = logging.getLogger(__name__)

_applied = Counter("isotherm_stored_readings", "Readings brought into the store", ["partition"])
_lag = Gauge("isotherm_lag_records", "Records on the topic that are not applied yet", ["partition"])


class _App(faust.App):  # type: ignore[misc]
    def _create_directories(self) -> None:
        """Leave the working directory alone: there are no tables to keep in it."""


def create_app(settings: Settings, name: str) -> faust.App:
    """Return the Faust application of a consumer group, without agents."""
    session = settings.group_session_seconds
    app = _App(
        f"isotherm-{name}",
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


class Worker:
    """Feeds one shard per partition from Faust, and watches that they move."""

    def __init__(
        self,
        settings: Settings,
        name: str,
        topic: Topic,
        open_sink: Callable[[int, Log], Sink],
        progress: Callable[[int], Awaitable[Progress | None]],
        least_rest: float = 0.0,
    ) -> None:
        """Prepare.

        Args:
            settings: Where Kafka is.
            name: Of the consumer group.
            topic: What is read.
            open_sink: Makes the sink of a partition.
            progress: Says how far the store is in a partition; raises Unavailable when it does not answer.
            least_rest: How long a partition rests after each batch at least, s: the more comes together, the less it costs.
        """
        self._settings = settings
        self._topic = topic
        self._open_sink = open_sink
        self._progress = progress
        self._least_rest = least_rest
        self._shards: dict[int, Shard] = {}
        self._queues: dict[int, asyncio.Queue[LogRecord]] = {}
        self._ends: dict[TP, int] = {}
        self._asked_at = -math.inf
        self.lag: dict[int, int] = {}
        """Partition → records that are not applied yet, of those that are ours."""
        self._running: list[asyncio.Task[None]] = []  # records may come before the start has returned
        self._app = create_app(settings, name)
        read = self._app.topic(topic.name, value_type=bytes, value_serializer="raw", key_serializer="raw")
        self._app.agent(read, concurrency=1, name=name)(self._read)

    async def run(self, stop: asyncio.Event, *beside: Coroutine[Any, Any, None]) -> None:
        """Work until ``stop`` is set, and let other work run beside it.

        Raises:
            LogConflict: the store and the log contradict each other.
            IsothermError: Faust stopped by itself, or a partition stood still.
        """
        async with asyncio.TaskGroup() as self._tasks:
            self._app.finalize()
            others = list(beside)
            try:
                if await done_before(stop, self._app.start()):  # which waits for Kafka for as long as it is away
                    self._running += [
                        self._tasks.create_task(self._watch_faust(), name="faust"),
                        self._tasks.create_task(self._open_assigned(), name="open"),
                        self._tasks.create_task(self._ask_for_ends(), name="ends"),
                        self._tasks.create_task(self._watch_progress(), name="progress"),
                    ]
                    while others:
                        self._running.append(self._tasks.create_task(others.pop()))
                    await stop.wait()
            finally:
                for other in others:
                    other.close()
                await end(self._running)  # before Faust: they ask its thread for offsets
                await asyncio.wait([asyncio.create_task(self._app.stop(), name="stop-faust")], timeout=STOP_SECONDS)
                await end(self._running)  # what a last record began

    def waiting_for(self) -> str | None:
        """Return None when it works, else what it waits for."""
        return None if self._assignment() else "waiting for partitions"

    def partitions(self) -> list[int]:
        """Return the partitions that are ours at the moment, ascending."""
        return sorted(at.partition for at in self._assignment())

    def is_located(self) -> bool:
        """Tell whether of each of them it is known where to go on: from then on nothing that comes is missed."""
        ours = self.partitions()
        return bool(ours) and all(at in self._shards and self._shards[at].is_located for at in ours)

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

    async def _open_assigned(self) -> None:
        """Open the partitions that are ours, also those that nothing comes on."""
        while True:
            for partition in self.partitions():
                if partition not in self._shards:
                    self._open(partition)
            await asyncio.sleep(IDLE_SECONDS)

    def _open(self, partition: int) -> None:
        self._queues[partition] = asyncio.Queue(QUEUE_RECORDS)
        source = _FaustLog(self._settings, self._app, self._topic, partition)
        self._shards[partition] = Shard(partition, self._open_sink(partition, source), source)
        self._running.append(self._tasks.create_task(self._pump(partition), name=f"shard-{partition}"))

    async def _pump(self, partition: int) -> None:
        queue, shard, at = self._queues[partition], self._shards[partition], TP(self._topic.name, partition)
        applied = _applied.labels(partition)
        idle_at = time.monotonic()
        while True:
            batch = await _batch(queue)
            began = time.monotonic()
            applied.inc(await shard.apply(batch) if batch else 0)
            if began - idle_at >= IDLE_SECONDS and at in self._assignment():
                await shard.rest(self._end(at) if queue.empty() else None)
                idle_at = began
            # The more there is to do, the longer a commit takes, and the more records shall share the next one.
            rest = min(REST * (time.monotonic() - began), MAX_REST_SECONDS)
            await asyncio.sleep(max(rest, self._least_rest) if batch else 0)

    async def _ask_for_ends(self) -> None:
        """Keep asking where the log ends: as long as Kafka does not answer, nobody is caught up."""
        while True:
            ours = self._assignment()
            try:
                async with asyncio.timeout(ASK_SECONDS):
                    self._ends = await self._app.consumer.highwaters(*ours) if ours else {}
                self._asked_at = time.monotonic()
            except (*kafka.AWAY, ConsumerNotStarted) as error:
                log.debug("Kafka does not say where the log ends: %r", error)
            await asyncio.sleep(ASK_SECONDS)

    def _end(self, at: TP) -> int | None:
        """Return where a partition ends, as Kafka said a moment ago, or None."""
        return self._ends.get(at) if time.monotonic() - self._asked_at < 3 * ASK_SECONDS else None

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
            ours = self._assignment()
            self.lag = {partition: lag for partition, lag in self.lag.items() if partition in self.partitions()}
            for at in ours:
                position = await self._position(at.partition)
                if (end := self._highwater(at)) is None:
                    continue
                lag = max(0, end - position)
                _lag.labels(at.partition).set(lag)
                self.lag[at.partition] = lag
                known, since = moved.get(at.partition, (-1, now))
                if lag == 0 or position != known:
                    moved[at.partition] = (position, now)
                elif now - since > STALL_SECONDS:
                    raise IsothermError(f"partition {at.partition} has {lag} records and stands still at {position}")
                elif now - since < 2 * WATCH_SECONDS:
                    await self._read_again(at, position)

    async def _read_again(self, at: TP, position: int) -> None:
        """Read a partition from there on; without an answer of Faust's in time all stays as it is."""
        try:
            async with asyncio.timeout(WATCH_SECONDS):
                if position >= (await self._app.consumer.earliest_offsets(at))[at]:
                    if at.partition in self._shards:
                        self._shards[at.partition].doubt()
                    await self._app.consumer.seek(at, position)
        except kafka.AWAY as error:
            log.warning("partition %d stands still at %d, and is not read again: %r", at.partition, position, error)

    def _highwater(self, at: TP) -> int | None:
        """Return where a partition ends as far as has been heard, or None when it was taken from us a moment ago."""
        try:
            return self._app.consumer.highwater(at) or 0
        except AssertionError:  # aiokafka says so
            return None

    async def _position(self, partition: int) -> int:
        """Return how far the store is."""
        try:
            progress = await self._progress(partition)
            return progress.next if progress else 0
        except Unavailable:
            return self._highwater(TP(self._topic.name, partition)) or 0  # nothing can be said: all is well


class _FaustLog:
    """A shard's log, by way of Faust's consumer."""

    def __init__(self, settings: Settings, app: faust.App, topic: Topic, partition: int) -> None:
        self._settings = settings
        self._app = app
        self._topic = topic
        self._at = TP(topic.name, partition)

    async def start(self) -> int:
        return int((await self._app.consumer.earliest_offsets(self._at))[self._at])

    async def end(self) -> int:
        return int((await self._app.consumer.highwaters(self._at))[self._at])

    async def mark(self, offset: int) -> str | None:
        async with kafka.Reader(self._settings) as reader:
            record = await reader.record(self._topic, self._at.partition, offset)
        return None if record is None else mark_of(record.value)

    async def seek(self, offset: int) -> None:
        await self._app.consumer.seek(self._at, offset)


def _log_record(event: EventT[bytes]) -> LogRecord:
    message: Any = event.message
    return LogRecord(message.offset, message.value, event.ack)


async def _batch(queue: asyncio.Queue[LogRecord]) -> Sequence[LogRecord]:
    """Wait for a record, but not for ever, and take what is there with it, up to a batch."""
    try:
        async with asyncio.timeout(IDLE_SECONDS):
            records = [await queue.get()]
    except TimeoutError:
        return []
    size = len(records[0].value)
    while not queue.empty() and len(records) < MAX_BATCH_RECORDS and size < MAX_BATCH_BYTES:
        records.append(queue.get_nowait())
        size += len(records[-1].value)
    return records
