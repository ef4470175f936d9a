"""One partition's way from the log into a sink in the store, effectively once.

The store says how far it is (`next`); Kafka's group offset is only where the worker happens to start reading. So a record
below `next` was applied before and is acknowledged, a record at `next` is the one that is wanted, and one above it means
that the store is behind what was read (it lost its last seconds): the consumer seeks back. Whatever goes wrong while a
batch is written, the same batch is offered again until the store takes it or says where it really is.
"""

from __future__ import annotations

import asyncio
import logging
import time
import zlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from isotherm.errors import LogConflict, Unavailable
from isotherm.store.writer import Conflict, Progress

MAX_BATCH_RECORDS = 64
MAX_BATCH_BYTES = 8 * 1024 * 1024

FAR_RECORDS = 1000
"""Records that were applied before and are not worth reading once more: the rest is skipped."""

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


class Sink(Protocol):
    """Where a shard brings its records: what they become in the store, and how far the store is.

    Its methods wait for a store that is away, see `until_available`.
    """

    @property
    def key(self) -> str:
        """The key under which the store keeps how far it is."""

    async def progress(self) -> Progress | None:
        """Look at the store anew and return how far it is, or None when it knows nothing of this log.

        What is remembered of it is forgotten: the store may have fallen back.
        """

    async def apply(self, records: Sequence[LogRecord], expected: int | None) -> int | Conflict:
        """Bring records that follow each other into the store.

        Args:
            records: The first has the offset ``expected``, unless that is None.
            expected: The progress that they build on.

        Returns:
            How many readings were applied, or where the store is instead.
        """

    async def rest(self, is_caught_up: bool) -> Conflict | None:
        """Nothing comes at the moment, or a second has passed; returns where the store is if it is elsewhere.

        Args:
            is_caught_up: Everything that is on the log has been applied.
        """


class Shard:
    """Applies the records of one partition in the order of their offsets."""

    def __init__(self, partition: int, sink: Sink, source: Log) -> None:
        self.partition = partition
        self._sink = sink
        self._log = source
        self._next: int | None = None
        self._known = False
        self._has_applied = False
        self._sought = -1
        self._sought_at = 0.0

    @property
    def position(self) -> int:
        """Offset of the first record that is not in the store, as far as it is known."""
        return self._next or 0

    @property
    def is_located(self) -> bool:
        """Whether it is known where the store is: from then on everything that comes is applied."""
        return self._known

    def doubt(self) -> None:
        """Ask the store anew where it is, before the next record: it may have fallen back while nothing came."""
        self._known = False

    async def apply(self, records: Sequence[LogRecord]) -> int:
        """Bring records, in the order they were read, into the store and acknowledge them.

        Returns:
            Readings applied by this call.

        Raises:
            LogConflict: the store and the log contradict each other.
        """
        count = 0
        while records:
            expected = await self._locate(records[0])
            run = _run(records)
            if expected is not None and run[0].offset > expected:
                if not await self._go_back(expected):
                    continue
            elif expected is not None and run[0].offset < expected:
                run = [record for record in run if record.offset < expected]
                _acknowledge(run)
                if expected - run[-1].offset > FAR_RECORDS:
                    await self._log.seek(expected)
            else:
                answer = await self._sink.apply(run, expected)
                if isinstance(answer, Conflict):
                    self._next = answer.next
                    continue  # look again at the same records
                count += answer
                self._next, self._sought, self._has_applied = run[-1].offset + 1, -1, True
                _acknowledge(run)
            records = records[len(run) :]
        return count

    async def rest(self, end: int | None) -> None:
        """Let the sink do what it does when time passes.

        Args:
            end: Offset of the next record that will be written, if it is known.

        Raises:
            LogConflict: the store and the log contradict each other.
        """
        await self._look()
        conflict = await self._sink.rest(end is not None and self.position >= end)
        if conflict is not None:
            self._next = conflict.next

    async def _locate(self, first: LogRecord) -> int | None:
        """Return the offset that the store wants next; None when any will do: it has nothing of this log yet.

        A store that knows nothing of a log which is there from its very first record wants offset 0: whatever was read
        before, nothing of it is stored.
        """
        await self._look()
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

    async def _look(self) -> None:
        if not self._known:
            await self._compare(await self._sink.progress())
            self._known = True

    async def _compare(self, progress: Progress | None) -> None:
        """See that the log is the one that the store has followed.

        Raises:
            LogConflict: it is not.
        """
        if progress is None:
            self._next = None
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
        self._next = progress.next

    def _command(self, name: str, arguments: str = "") -> str:
        """Return what changes the store's progress by hand."""
        return f"redis-cli -u $ISOTHERM_REDIS {name} '{self._sink.key}' {arguments}".rstrip()

    async def _go_back(self, expected: int) -> bool:
        """Read again from ``expected``; False when the store turns out to be elsewhere."""
        if self._sought == expected and time.monotonic() - self._sought_at < SEEK_SECONDS:
            return True  # records that were on their way when we sought; they come again
        progress = await self._sink.progress()
        actual = None if progress is None else progress.next
        if (actual or 0) != expected:  # another worker had the partition meanwhile
            self._next = actual
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
        elif not self._has_applied:
            log.debug("partition %d: the store is at offset %d, the group further", self.partition, expected)
        else:
            log.warning("partition %d: the store fell back to offset %d; reading again from there", self.partition, expected)
        self._sought, self._sought_at = expected, time.monotonic()
        await self._log.seek(expected)
        return True


async def until_available(call: Callable[[], Awaitable[_Answer]]) -> _Answer:
    """Do something with the store for as long as it takes."""
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


def _run(records: Sequence[LogRecord]) -> Sequence[LogRecord]:
    """Return the leading records whose offsets follow each other: a seek may lie between the others."""
    first = records[0].offset
    length = next((i for i, record in enumerate(records) if record.offset != first + i), len(records))
    return records[:length]


def _acknowledge(records: Sequence[LogRecord]) -> None:
    for record in records:
        record.ack()
