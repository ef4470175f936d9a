"""Readings into the series store: the sink of the worker that stores, and its run.

Readings that devices number are sifted before: what was stored under another offset is a repetition. The windows of
numbers that are remembered are those of the store at its offset; when the store is elsewhere, they are read anew.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace

from agents.controlling import keep_commands
from agents.downsample import NAME, downsample
from agents.shard import LogRecord, until_available
from agents.worker import Assignment, Worker
from isotherm import health, kafka
from isotherm.clock import now_us
from isotherm.errors import Unavailable
from isotherm.logs import Throttle
from isotherm.pack import MalformedPack, Pack
from isotherm.process import stop_signal
from isotherm.rejects import Rejected, RejectRecord
from isotherm.settings import Settings
from isotherm.store import client
from isotherm.store.sealer import Sealer
from isotherm.store.windows import Sieve, Window
from isotherm.store.writer import Batch, Conflict, Progress, Writer
from isotherm.topics import READINGS, REJECTS

SEAL_SECONDS = 30.0
SEAL_REST = 5
"""How many times as long as it took to seal some chunks the worker leaves the next ones alone."""

MAX_COMMIT_READINGS = 20_000
"""Of one commit, or of a single record. A reading that is older than points are kept takes 17 arguments of the script, if it
has a number and its series a unit, and Redis takes a million of a command; the server does nothing else meanwhile."""

MAX_WINDOWS = 200_000
"""Series whose sequence numbers a shard remembers, some 50 MB; beyond that they are read anew."""

Quarantine = Callable[[int, LogRecord, MalformedPack], Awaitable[None]]
"""Puts a record of a partition that is no pack on ``rejects``; returns when it is durable."""


log = logging.getLogger(__name__)


async def run(settings: Settings) -> None:
    """Store readings until SIGTERM or SIGINT.

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
            quarantine = _Quarantine(producer)
            worker = Worker(
                settings, NAME, READINGS, lambda partition, _: Storing(partition, writer, quarantine), writer.progress
            )
            async with health.served(settings, worker.waiting_for):
                await worker.run(stop, keep_sealing(sealers, worker.partitions), keep_commands(settings, redis))
        finally:
            await producer.stop()


async def keep_sealing(sealers: Sequence[Sealer], partitions: Assignment) -> None:
    """Seal the chunks of the partitions that are ours, in small slices, and leave most of the time to commits."""
    failed = Throttle()
    while True:
        for partition in partitions():
            try:
                began = time.monotonic()
                async for _ in sealers[partition].sweep():
                    await asyncio.sleep(SEAL_REST * (time.monotonic() - began))
                    began = time.monotonic()
            except Unavailable as error:
                if failed("away") is not None:
                    log.warning("%s; trying again", error)
        await asyncio.sleep(SEAL_SECONDS)


class _Quarantine:
    def __init__(self, producer: kafka.Producer) -> None:
        self._producer = producer

    async def __call__(self, partition: int, record: LogRecord, error: MalformedPack) -> None:
        peer = f"{READINGS.name}/{partition}/{record.offset}"
        log.error("%s is no pack and goes to %s: %s", peer, REJECTS.name, error)
        rejected = Rejected("poison", str(error), record.value)
        reject = RejectRecord.of([rejected], protocol="kafka", peer=peer, received_at=now_us())
        await self._producer.deliver(REJECTS, reject.to_json(), key=peer)


class Storing:
    """Brings the records of one partition into the series store."""

    def __init__(self, partition: int, writer: Writer, quarantine: Quarantine) -> None:
        self._partition = partition
        self._writer = writer
        self._quarantine = quarantine
        self._windows: dict[str, Window] = {}

    @property
    def key(self) -> str:
        """The key of the progress."""
        return self._writer.progress_key(self._partition)

    async def progress(self) -> Progress | None:
        """Return how far the store is."""
        self._windows.clear()
        return await until_available(lambda: self._writer.progress(self._partition))

    async def apply(self, records: Sequence[LogRecord], expected: int | None) -> int | Conflict:
        """Store records, in as many commits as it takes."""
        count, packs, last = 0, [], len(records) - 1
        for at, record in enumerate(records):
            try:
                packs.append(Pack.from_ipc(record.value))
            except MalformedPack as error:
                await self._quarantine(self._partition, record, error)
            if at == last or sum(map(len, packs)) >= MAX_COMMIT_READINGS:
                answer = await self._commit(packs, expected, record)
                if isinstance(answer, Conflict):
                    return answer
                count, packs, expected = count + answer, [], record.offset + 1
        return count

    async def _commit(self, packs: Sequence[Pack], expected: int | None, last: LogRecord) -> int | Conflict:
        """Store what packs hold, of which the last record is the end."""
        sieve = Sieve(await self._known_windows(packs))
        batch = sifted(packs, sieve)
        following, mark = last.offset + 1, last.mark
        conflict = await until_available(
            lambda: self._writer.commit(self._partition, batch, expected=expected, next_offset=following, mark=mark)
        )
        if conflict is not None:
            self._windows.clear()
            return conflict
        self._windows |= sieve.windows
        return sum(batch.stored.values())

    async def rest(self, is_caught_up: bool) -> Conflict | None:
        """Nothing waits here."""
        return None

    async def _known_windows(self, packs: Sequence[Pack]) -> Mapping[str, Window]:
        """Return the windows of at least those series of some packs that have any."""
        names = {name for pack in packs if pack.seq is not None for name in pack.names}
        missing = list(names - self._windows.keys())
        if missing:
            if len(self._windows) > MAX_WINDOWS:
                self._windows.clear()
                missing = list(names)
            self._windows |= dict.fromkeys(missing, Window())
            self._windows |= await until_available(lambda: self._writer.windows(self._partition, missing))
        return self._windows


def sifted(packs: Sequence[Pack], sieve: Sieve) -> Batch:
    """Return what packs add to the store: the readings that are no repetitions, and how many are."""
    fresh = [sieve.sift(pack) for pack in packs]
    duplicates: Counter[str] = Counter()
    for pack, rest in zip(packs, fresh, strict=True):
        duplicates[pack.connector] += len(pack) - len(rest)
    return replace(downsample(fresh), duplicates=+duplicates, windows=sieve.windows)
