"""A steady load on the series store, and the account of what must be there in the end.

Shards apply packs from logs in memory to real servers, as the worker does with Kafka's, and what they wrote is sealed all
the time. Some packs come twice, under another offset. Whatever a test does to the servers meanwhile: when all is applied,
every tier, the newest values, the attributes and the ledger hold each reading once.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count

import numpy as np

from agents.shard import LogRecord, Shard, mark_of
from agents.storing import Storing
from isotherm.clock import now_us
from isotherm.errors import Unavailable
from isotherm.limits import HOUR, MINUTE
from isotherm.pack import Attribute, MalformedPack, Pack
from isotherm.process import end
from isotherm.settings import Settings
from isotherm.store import client, layout
from isotherm.store.client import Client
from isotherm.store.reader import Reader
from isotherm.store.sealer import Sealer
from isotherm.store.writer import Batch, Conflict, Writer
from isotherm.topics import partition_of

PARTITIONS = 8
LOADED = (0, 1, 3)
"""Partitions under load; in a cluster of three primaries each has one."""

SERIES = 3
REPEATED = 0.1
"""Share of packs that came before."""

BATCH_RECORDS = 4
FEED_SECONDS = 0.005
HEAL_SECONDS = 20.0


def when_the_hour_is_over() -> int:
    """Return a time at which everything of now may be sealed, µs since the epoch UTC."""
    return now_us() + HOUR + 15 * MINUTE


class Log:
    """A partition of a log, which keeps everything, and one reader's place in it.

    A batch is fetched while the one before it is applied, so after a seek one more comes from where the reader was.
    """

    def __init__(self, partition: int, told: Callable[[str, int], None]) -> None:
        self.packs: list[Pack] = []
        self.repeated: set[int] = set()
        """Offsets of packs that had come before."""
        self._told = told
        self._partition = partition
        names = (f"d{number}" for number in count())
        self._device = next(name for name in names if partition_of(name, PARTITIONS) == partition)
        self._random = random.Random(partition)
        self._times: set[int] = set()
        self._at = 0
        self._fetched: list[LogRecord] = []
        self._grown = asyncio.Event()

    def feed(self) -> None:
        """Append a pack: readings of now and some that are late, none at the time of another."""
        draw, size = self._random, self._random.randrange(1, 8)
        if self.packs and draw.random() < REPEATED:
            self.repeated.add(len(self.packs))
            self.packs.append(draw.choice(self.packs[-5:]))
            self._grown.set()
            return
        times: list[int] = []
        while len(times) < size:
            time = now_us() - (draw.randrange(30 * MINUTE) if draw.random() < 0.2 else draw.randrange(1_000))
            if time not in self._times:
                self._times.add(time)
                times.append(time)
        self.packs.append(
            Pack(
                names=[f"{self._device}/m{number}" for number in range(SERIES)],
                series=np.array([draw.randrange(SERIES) for _ in times], dtype=np.int32),
                time=np.array(times, dtype=np.int64),
                value=np.array([draw.randrange(-1000, 1000) for _ in times], dtype=np.float64),
                connector="tcp/1",
                received_at=times[-1],
                attributes=[Attribute(f"{self._device}/fw", times[0], str(len(self.packs)))],
                seq=np.arange(len(self._times) - size, len(self._times), dtype=np.uint64),
            )
        )
        self._grown.set()

    async def fetch(self) -> list[LogRecord]:
        """Return the batch that was fetched before, and fetch the next."""
        while not self._fetched:
            self._fetch()
            if not self._fetched:
                self._grown.clear()
                await self._grown.wait()
        batch = self._fetched
        self._fetch()
        return batch

    def _fetch(self) -> None:
        values = enumerate(self.packs[self._at : self._at + BATCH_RECORDS], self._at)
        self._fetched = [LogRecord(offset, pack.to_ipc(), lambda: None) for offset, pack in values]
        self._at += len(self._fetched)

    async def start(self) -> int:
        return 0

    async def end(self) -> int:
        return len(self.packs)

    async def mark(self, offset: int) -> str | None:
        return mark_of(self.packs[offset].to_ipc())

    async def seek(self, offset: int) -> None:
        self._at = offset
        self._told("sought", self._partition)

    async def quarantine(self, partition: int, record: LogRecord, error: MalformedPack) -> None:
        raise AssertionError(f"record {record.offset} is a pack") from error


class _Writer(Writer):
    """Tells what happens to commits."""

    def __init__(self, redis: Client, told: Callable[[str, int], None]) -> None:
        super().__init__(redis, "downsample", "log-1")
        self._told = told

    async def commit(
        self, partition: int, batch: Batch, *, expected: int | None, next_offset: int, mark: str = ""
    ) -> Conflict | None:
        try:
            conflict = await super().commit(partition, batch, expected=expected, next_offset=next_offset, mark=mark)
        except Unavailable as error:
            self._told(type(error.__cause__).__name__, partition)
            self._told("failed", partition)
            raise
        self._told("committed" if conflict is None else "conflict", partition)
        return conflict


class Load:
    """What a test sees of the load."""

    def __init__(self, redis: Client) -> None:
        self.redis = redis
        self.logs = {partition: Log(partition, self._tell) for partition in LOADED}
        self._seen: Counter[tuple[str, int]] = Counter()
        self._changed = asyncio.Event()
        self._running: list[asyncio.Task[None]] = []
        writer = _Writer(redis, self._tell)
        self.shards = {
            partition: Shard(partition, Storing(partition, writer, log.quarantine), log)
            for partition, log in self.logs.items()
        }

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Feed and apply for the length of the block, and apply the rest."""
        feeding = asyncio.create_task(self._feed(), name="feed")
        pumps = [asyncio.create_task(self._pump(partition), name=f"pump-{partition}") for partition in LOADED]
        sealing = asyncio.create_task(self._seal(), name="seal")
        self._running = [feeding, sealing, *pumps]
        for task in self._running:
            task.add_done_callback(lambda _: self._changed.set())
        try:
            await self.until("committed")
            yield
            await self.until("committed")
            await end([feeding])
            await self._drained()
        finally:
            await end(self._running)

    def until(self, event: str, times: int = 3, partitions: tuple[int, ...] = LOADED) -> Awaitable[None]:
        """Wait until each of the partitions has seen an event so many times more than when this is called.

        What a test sets off in a thread may be over before the thread is: call this first, await it afterwards.

        Args:
            event: ``committed``, ``conflict``, ``sought``, ``failed`` or the class of the error that a commit failed with.
            times: How many times.
            partitions: Which ones.
        """
        wanted = {(event, partition): self._seen[event, partition] + times for partition in partitions}
        return self._wait(lambda: all(self._seen[key] >= number for key, number in wanted.items()), event)

    async def _drained(self) -> None:
        """Wait until everything is applied."""
        for log in self.logs.values():
            log.feed()  # a shard compares notes with the store when it has a record
        await self._wait(
            lambda: all(self.shards[number].position == len(log.packs) for number, log in self.logs.items()), "drained"
        )

    async def _feed(self) -> None:
        """Append packs until cancelled."""
        while True:
            for log in self.logs.values():
                log.feed()
            await asyncio.sleep(FEED_SECONDS)

    async def _seal(self) -> None:
        """Seal until cancelled, as if the hour were over all the time."""
        sealers = [Sealer(self.redis, partition) for partition in LOADED]
        while True:
            for sealer in sealers:
                with contextlib.suppress(Unavailable):
                    async for _ in sealer.sweep(when_the_hour_is_over()):
                        pass
            await asyncio.sleep(FEED_SECONDS)

    async def _pump(self, partition: int) -> None:
        """Apply a partition until cancelled."""
        log, shard = self.logs[partition], self.shards[partition]
        while True:
            await shard.apply(await log.fetch())
            self._changed.set()

    def _tell(self, event: str, partition: int) -> None:
        self._seen[event, partition] += 1
        self._changed.set()

    async def _wait(self, condition: Callable[[], bool], what: str) -> None:
        try:
            async with asyncio.timeout(HEAL_SECONDS):
                while not condition():
                    for task in self._running:
                        if task.done() and not task.cancelled():
                            task.result()
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            places = {number: (shard.position, len(self.logs[number].packs)) for number, shard in self.shards.items()}
            raise AssertionError(f"no {what}: seen {dict(self._seen)}, position and end {places}") from None


@asynccontextmanager
async def steady_load(url: str) -> AsyncIterator[Load]:
    """Load on the store at ``url`` for the length of the block; then all must be there, once."""
    async with client.connected(Settings(redis=url, partitions=PARTITIONS)) as redis:
        load = Load(redis)
        async with load.running():
            yield load
        for partition, log in load.logs.items():
            await _compare(redis, partition, log)
            async for _ in Sealer(redis, partition).sweep(when_the_hour_is_over()):
                pass
            await _compare(redis, partition, log)


async def _compare(redis: Client, partition: int, log: Log) -> None:
    """Compare what the store has of a partition with what its log has."""
    reader = Reader(redis, PARTITIONS)
    sent = [pack for offset, pack in enumerate(log.packs) if offset not in log.repeated]
    readings = sum(len(pack.time) for pack in sent)
    repeated = sum(len(log.packs[offset].time) for offset in log.repeated)
    assert await redis.hgetall(layout.duplicates_key(partition)) == {b"tcp/1": b"%d" % repeated}
    attributes = [one for pack in log.packs for one in pack.attributes]
    assert await redis.hgetall(layout.stored_key(partition)) == {b"tcp/1": b"%d" % (readings + len(attributes))}
    assert await reader.attributes(attributes[0].series.partition("/")[0]) == [max(attributes, key=lambda one: one.time)]

    begin = (now_us() - HOUR) // HOUR * HOUR
    end = begin + 3 * HOUR
    newest = {f"{one.device}/{one.metric}": (one.time, one.value) for one in await reader.latest()}
    for number, name in enumerate(log.packs[0].names):
        found = [
            (time, value)
            for pack in sent
            for series, time, value in zip(pack.series.tolist(), pack.time.tolist(), pack.value.tolist(), strict=True)
            if series == number
        ]
        found.sort()
        assert newest[name] == found[-1]
        for tier in layout.TIERS:
            step = tier.step or 1
            slots: dict[int, list[float]] = {}
            for time, value in found:
                slots.setdefault(time // step * step, []).append(value)
            expected = [(slot, len(v), sum(v), min(v), max(v), v[-1]) for slot, v in slots.items()]
            rows = await reader.query(name, begin, end, (end - begin) // step + 1)
            columns = (rows.time, rows.count, rows.sum, rows.min, rows.max, rows.last)
            assert list(zip(*(column.tolist() for column in columns), strict=True)) == expected, (tier.name, name)
