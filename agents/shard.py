"""One partition's way from the log into the store, effectively once.

The store says how far it is (`next`); Kafka's group offset is only where the worker happens to start reading. So a record
below `next` was applied before and is acknowledged, a record at `next` is the one that is wanted, and one above it means
that the store is behind what was read (it lost its last seconds): the consumer seeks back. Whatever goes wrong while a
batch is written, the same batch is offered again until the store takes it or says where it really is.

Readings that devices number are sifted before: what was stored under another offset is a repetition. The windows of
numbers that a shard remembers are those of the store at `next`; when the store is elsewhere, they are read anew.
"""

from __future__ import annotations

import asyncio
import logging
import time
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from agents.downsample import downsample
from isotherm.errors import LogConflict, Unavailable
from isotherm.pack import MalformedPack, Pack
from isotherm.store.windows import Sieve, Window
from isotherm.store.writer import Batch, Progress, Writer

MAX_BATCH_RECORDS = 64
MAX_BATCH_BYTES = 8 * 1024 * 1024
MAX_WINDOWS = 200_000
"""Series whose sequence numbers a shard remembers, some 50 MB; beyond that they are read anew."""

SEEK_SECONDS = 10.0
RETRY_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.0)

log = logging.getLogger(__name__)

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class LogRecord:
    """A record of the topic ``readings``; ``ack`` tells Kafka's group that we are past it."""

    offset: int
    value: bytes
    ack: Callable[[], object]

    @property
    def mark(self) -> str:
        """What the record is known by: a pack names the process and the µs it is from, so no two are alike."""
        return mark_of(self.value)


class Log(Protocol):
    """What a shard asks of its partition of the log."""

    async def start(self) -> int:
        """Return the first offset that Kafka still keeps."""

    async def end(self) -> int:
        """Return the offset of the next record that will be written."""

    async def mark(self, offset: int) -> str | None:
        """Return what the record at an offset is known by, or None when there is none."""

    async def seek(self, offset: int) -> None:
        """Continue reading at an offset."""

    async def quarantine(self, record: LogRecord, error: MalformedPack) -> None:
        """Put a record that is no pack on ``rejects``; returns when it is durable."""


class Shard:
    """Applies the records of one partition in the order of their offsets."""

    def __init__(self, partition: int, writer: Writer, source: Log) -> None:
        self.partition = partition
        self._writer = writer
        self._log = source
        self._next: int | None = None
        self._known = False
        self._windows: dict[str, Window] = {}
        self._sought = -1
        self._sought_at = 0.0

    @property
    def position(self) -> int:
        """Offset of the first record that is not in the store, as far as it is known."""
        return self._next or 0

    def doubt(self) -> None:
        """Ask the store anew where it is, before the next record: it may have fallen back while nothing came."""
        self._known = False

    async def apply(self, records: Sequence[LogRecord]) -> int:
        """Bring records, in the order they were read, into the store and acknowledge them.

        Returns:
            Readings stored by this call.

        Raises:
            LogConflict: the store and the log contradict each other.
        """
        stored = 0
        while records:
            expected = await self._locate(records[0])
            run = _run(records)
            if expected is not None and run[0].offset > expected:
                if not await self._go_back(expected):
                    continue
            elif expected is not None and run[0].offset < expected:
                run = [record for record in run if record.offset < expected]
                _acknowledge(run)
            elif (count := await self._commit(run)) is not None:
                stored += count
                _acknowledge(run)
            else:
                continue  # the store was elsewhere: look again at the same records
            records = records[len(run) :]
        return stored

    async def _locate(self, first: LogRecord) -> int | None:
        """Return the offset that the store wants next; None when any will do: it has nothing of this log yet.

        A store that knows nothing of a log which is there from its very first record wants offset 0: whatever was read
        before, nothing of it is stored.
        """
        if not self._known:
            await self._compare(await self._progress())
            self._known = True
        if self._next is None and first.offset > 0:
            start = await self._log.start()
            if start == 0:
                return 0
            if first.offset > start:
                raise LogConflict(
                    f"partition {self.partition} was read up to offset {first.offset}, but the store knows nothing of "
                    f"this log, which begins at {start}. The store was emptied or is another one. Restore it; or, to read "
                    f"again what the log still has, type: {self._command('HSET', f'next {start}')}"
                )
        return self._next

    async def _compare(self, progress: Progress | None) -> None:
        """See that the log is the one that the store has followed.

        Raises:
            LogConflict: it is not.
        """
        if progress is None:
            self._move(None)
            return
        end = await self._log.end()
        if progress.next > end:
            raise LogConflict(
                f"partition {self.partition}: the store has applied records up to offset {progress.next}, the log ends at "
                f"{end}. The topic was created anew or has lost its end. Restore it; or, to read this log from its begin, "
                f"type: {self._command('DEL')}"
            )
        mark = await self._log.mark(progress.next - 1) if progress.mark else None
        if mark is not None and mark != progress.mark:
            raise LogConflict(
                f"partition {self.partition}: the record at offset {progress.next - 1} is not the one that the store has "
                f"applied. The topic was created anew. Restore it; or, to read this log from its begin, type: "
                f"{self._command('DEL')}"
            )
        self._move(progress.next)

    def _command(self, name: str, arguments: str = "") -> str:
        """Return what changes the store's progress by hand."""
        return f"redis-cli -u $ISOTHERM_REDIS {name} '{self._writer.progress_key(self.partition)}' {arguments}".rstrip()

    def _move(self, next_offset: int | None) -> None:
        """The store turned out to be elsewhere than we thought."""
        self._next = next_offset
        self._windows.clear()

    async def _go_back(self, expected: int) -> bool:
        """Read again from ``expected``; False when the store turns out to be elsewhere."""
        if self._sought == expected and time.monotonic() - self._sought_at < SEEK_SECONDS:
            return True  # records that were on their way when we sought; they come again
        progress = await self._progress()
        actual = None if progress is None else progress.next
        if (actual or 0) != expected:  # another worker had the partition meanwhile
            self._move(actual)
            return False
        start = await self._log.start()
        if start > expected:
            raise LogConflict(
                f"partition {self.partition}: the store needs offset {expected}, Kafka keeps only those from {start} on. "
                f"Records {expected} to {start - 1} were deleted before they were stored. Restore them; or, to accept the "
                f"loss, type: {self._command('HSET', f'next {start}')}"
            )
        if actual is None:
            log.warning(
                "partition %d: the store knows nothing of this log, which is complete: reading it again from its begin. "
                "What the store had of older logs is not in it, and readings without numbers that it still has count twice",
                self.partition,
            )
        else:
            log.warning("partition %d: the store fell back to offset %d; reading again from there", self.partition, expected)
        self._sought, self._sought_at = expected, time.monotonic()
        await self._log.seek(expected)
        return True

    async def _progress(self) -> Progress | None:
        return await self._until_available(lambda: self._writer.progress(self.partition))

    async def _commit(self, records: Sequence[LogRecord]) -> int | None:
        """Write a batch; None means that the store was elsewhere, and ``self._next`` now knows where."""
        packs = []
        for record in records:
            try:
                packs.append(Pack.from_ipc(record.value))
            except MalformedPack as error:
                await self._log.quarantine(record, error)
        sieve = Sieve(await self._known_windows(packs))
        batch = sifted(packs, sieve)
        next_offset, mark = records[-1].offset + 1, records[-1].mark
        conflict = await self._until_available(
            lambda: self._writer.commit(self.partition, batch, expected=self._next, next_offset=next_offset, mark=mark)
        )
        if conflict is not None:
            self._move(conflict.next)
            return None
        self._next, self._sought = next_offset, -1
        self._windows |= sieve.windows
        return sum(batch.stored.values())

    async def _known_windows(self, packs: Sequence[Pack]) -> Mapping[str, Window]:
        """Return the windows of at least those series of some packs that have any."""
        names = {name for pack in packs if pack.seq is not None for name in pack.names}
        missing = list(names - self._windows.keys())
        if missing:
            if len(self._windows) > MAX_WINDOWS:
                self._windows.clear()
                missing = list(names)
            self._windows |= dict.fromkeys(missing, Window())
            self._windows |= await self._until_available(lambda: self._writer.windows(self.partition, missing))
        return self._windows

    async def _until_available(self, call: Callable[[], Awaitable[_Answer]]) -> _Answer:
        failures = 0
        while True:
            try:
                return await call()
            except Unavailable as error:
                log.log(logging.WARNING if failures == 0 else logging.DEBUG, "%s; trying again", error)
                await asyncio.sleep(RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)])
                failures += 1


def mark_of(value: bytes) -> str:
    """Return what a record is known by."""
    return f"{zlib.crc32(value):08x}{len(value):x}"


def sifted(packs: Sequence[Pack], sieve: Sieve) -> Batch:
    """Return what packs add to the store: the readings that are no repetitions, and how many are."""
    fresh = [sieve.sift(pack) for pack in packs]
    duplicates: Counter[str] = Counter()
    for pack, rest in zip(packs, fresh, strict=True):
        duplicates[pack.connector] += len(pack) - len(rest)
    return replace(downsample(fresh), duplicates=+duplicates, windows=sieve.windows)


def _run(records: Sequence[LogRecord]) -> Sequence[LogRecord]:
    """Return the leading records whose offsets follow each other: a seek may lie between the others."""
    first = records[0].offset
    length = next((i for i, record in enumerate(records) if record.offset != first + i), len(records))
    return records[:length]


def _acknowledge(records: Sequence[LogRecord]) -> None:
    for record in records:
        record.ack()
