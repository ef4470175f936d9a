"""A shard: each record of the log is applied once, whatever the log and the store do."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from agents import shard as module
from agents import storing
from agents.shard import LogRecord, Shard
from agents.storing import Storing
from isotherm.clock import now_us
from isotherm.errors import LogConflict, Unavailable
from isotherm.limits import HOUR, MAX_PACK_READINGS
from isotherm.pack import MalformedPack, Pack
from isotherm.store.windows import Sieve, Window
from isotherm.store.writer import Batch, Conflict, Progress, _encode


class MemoryStore:
    """Keeps progress as `isotherm.store.writer.Writer` does, and fails when told to."""

    def __init__(self, at: int | None = None) -> None:
        self.at = at
        self.mark = ""
        self.held: dict[str, Window] = {}
        self.asked: list[list[str]] = []
        self.duplicates = 0
        self.values: list[float] = []
        self.ends: list[int] = []
        self.failures: list[bool] = []
        """For each coming commit that fails: whether it was applied all the same."""

    async def progress(self, partition: int) -> Progress | None:
        return None if self.at is None else Progress(self.at, self.mark)

    def progress_key(self, partition: int) -> str:
        return f"progress-{partition}"

    async def windows(self, partition: int, series: Sequence[str]) -> dict[str, Window]:
        self.asked.append(sorted(series))
        return {name: self.held[name].copy() for name in series if name in self.held}

    async def commit(
        self, partition: int, batch: Batch, *, expected: int | None, next_offset: int, mark: str = ""
    ) -> Conflict | None:
        fails = bool(self.failures)
        applied = not fails or self.failures.pop(0)
        if applied and self.at != expected:
            return Conflict(self.at)
        if applied:
            self.values += batch.value.tolist()
            self.at, self.mark = next_offset, mark
            self.ends.append(next_offset)
            self.held |= batch.windows
            self.duplicates += sum(batch.duplicates.values())
        if fails:
            raise Unavailable("the store is away")
        return None


class MemoryLog:
    def __init__(self, begin: int = 0) -> None:
        self.begin = begin
        self.limit = 1000
        self.marks: dict[int, str] = {}
        self.sought: list[int] = []
        self.quarantined: list[int] = []
        self.acknowledged: list[int] = []

    async def start(self) -> int:
        return self.begin

    async def end(self) -> int:
        return self.limit

    async def mark(self, offset: int) -> str | None:
        return self.marks.get(offset)

    async def seek(self, offset: int) -> None:
        self.sought.append(offset)

    async def quarantine(self, partition: int, record: LogRecord, error: MalformedPack) -> None:
        self.quarantined.append(record.offset)

    def records(self, *offsets: int) -> list[LogRecord]:
        return [self.record(offset) for offset in offsets]

    def record(self, offset: int, value: bytes | None = None) -> LogRecord:
        return LogRecord(offset, value or pack_of([offset]).to_ipc(), lambda: self.acknowledged.append(offset))


def pack_of(numbers: Sequence[int], *, numbered: bool = False) -> Pack:
    """A pack with a reading of one series for each number, which is its time, its value and, if you like, its own number."""
    time = np.array(numbers, dtype=np.int64)
    seq = time.astype(np.uint64) if numbered else None
    return Pack(["a/t"], np.zeros(len(numbers), np.int32), time, time.astype(np.float64), "tcp/1", 0, seq=seq)


def shard_of(store: Any, log: MemoryLog) -> Shard:
    return Shard(0, Storing(0, store, log.quarantine), log)


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", (0.0,))


async def test_records_are_applied_and_then_acknowledged_in_order() -> None:
    store, log = MemoryStore(), MemoryLog()
    shard = shard_of(store, log)
    assert await shard.apply(log.records(0, 1, 2)) == 3
    assert await shard.apply(log.records(3)) == 1
    assert store.values == [0, 1, 2, 3]
    assert log.acknowledged == [0, 1, 2, 3]


async def test_records_that_come_again_are_acknowledged_and_not_applied_again() -> None:
    store, log = MemoryStore(at=2), MemoryLog()
    shard = shard_of(store, log)
    assert await shard.apply(log.records(0, 1, 2, 3)) == 2
    assert store.values == [2, 3]
    assert log.acknowledged == [0, 1, 2, 3]


@pytest.mark.parametrize("applied", [True, False])
async def test_records_of_many_readings_are_applied_in_several_commits(
    applied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storing, "MAX_COMMIT_READINGS", 2)
    store, log = MemoryStore(), MemoryLog()
    records = [log.record(n, b"junk" if n == 4 else pack_of([n], numbered=True).to_ipc()) for n in range(5)]
    store.failures = [applied]
    assert await shard_of(store, log).apply(records) == (2 if applied else 4)  # those of whose commit it was told
    assert store.values == [0, 1, 2, 3]
    assert store.ends == [2, 4, 5]
    assert store.at == 5
    assert log.acknowledged == [0, 1, 2, 3, 4]


def test_no_commit_has_more_arguments_than_redis_takes() -> None:
    """Readings that are older than points are kept, each of a series of its own, with a number and a unit."""
    count = storing.MAX_COMMIT_READINGS + MAX_PACK_READINGS
    names = [f"a/{n}" for n in range(count)]
    numbers = np.arange(count)
    old = np.full(count, now_us() - 5 * HOUR)
    pack = Pack(
        names,
        numbers.astype(np.int32),
        old,
        numbers.astype(np.float64),
        "tcp/1",
        0,
        dict.fromkeys(names, "Cel"),
        numbers.astype(np.uint64),
    )
    keys, arguments = _encode(0, storing.sifted([pack], Sieve({})))
    assert 15 * count < len(keys) + len(arguments) < 2**20 - 100


@pytest.mark.parametrize("applied", [True, False])
async def test_a_commit_whose_answer_is_lost_is_applied_once(applied: bool) -> None:
    store, log = MemoryStore(), MemoryLog()
    shard = shard_of(store, log)
    store.failures = [applied, False]
    await shard.apply(log.records(0, 1))
    assert store.values == [0, 1]
    assert log.acknowledged == [0, 1]


async def test_what_another_worker_has_applied_meanwhile_is_left_out() -> None:
    store, log = MemoryStore(), MemoryLog()
    shard = shard_of(store, log)
    await shard.apply(log.records(0))
    store.at = 3  # a zombie's counterpart was here
    await shard.apply(log.records(1, 2, 3, 4))
    assert store.values == [0, 3, 4]


async def test_a_store_that_lost_its_last_seconds_is_caught_up_from_the_log() -> None:
    store, log = MemoryStore(at=5), MemoryLog()
    shard = shard_of(store, log)
    await shard.apply(log.records(5, 6))
    store.at, store.values = 5, []  # rolled back
    assert await shard.apply(log.records(7, 8)) == 0
    assert await shard.apply(log.records(9)) == 0  # was on its way already
    assert log.sought == [5]
    await shard.apply(log.records(5, 6, 7, 8, 9))
    assert store.values == [5, 6, 7, 8, 9]


async def test_a_store_that_falls_back_to_the_same_place_again_is_caught_up_again() -> None:
    store, log = MemoryStore(at=5), MemoryLog()
    shard = shard_of(store, log)
    for _ in range(2):
        await shard.apply(log.records(5, 6))
        store.at, store.values = 5, []
        await shard.apply(log.records(7))
    assert log.sought == [5, 5]


async def test_a_partition_that_another_worker_had_meanwhile_goes_on_where_that_one_ended() -> None:
    store, log = MemoryStore(), MemoryLog()
    shard = shard_of(store, log)
    await shard.apply(log.records(0, 1))
    store.at = 50
    await shard.apply(log.records(50, 51))
    assert store.values == [0, 1, 50, 51]
    assert log.sought == []


async def test_a_log_that_ends_before_what_was_applied_halts_loudly() -> None:
    store, log = MemoryStore(at=50), MemoryLog()
    log.limit = 3
    shard = shard_of(store, log)
    with pytest.raises(LogConflict, match=r"created anew.*type: redis-cli -u .ISOTHERM_REDIS DEL 'progress-0'$"):
        await shard.apply(log.records(0, 1, 2))
    assert log.acknowledged == []


async def test_a_gap_in_one_batch_is_not_jumped_over() -> None:
    store, log = MemoryStore(at=0), MemoryLog()
    shard = shard_of(store, log)
    await shard.apply(log.records(0, 1, 5, 6))
    assert store.values == [0, 1]
    assert log.sought == [2]
    assert log.acknowledged == [0, 1]


async def test_a_store_without_progress_begins_where_the_log_begins() -> None:
    store, log = MemoryStore(), MemoryLog(begin=7)
    shard = shard_of(store, log)
    await shard.apply(log.records(7, 8))
    assert store.values == [7, 8]


async def test_an_emptied_store_is_filled_again_from_a_log_that_is_complete() -> None:
    store, log = MemoryStore(), MemoryLog(begin=0)
    shard = shard_of(store, log)
    await shard.apply(log.records(4, 5))
    assert (store.values, log.sought) == ([], [0])
    await shard.apply(log.records(0, 1, 2, 3, 4, 5))
    assert store.values == [0, 1, 2, 3, 4, 5]


async def test_an_emptied_store_halts_loudly_when_the_log_has_lost_its_begin() -> None:
    store, log = MemoryStore(), MemoryLog(begin=2)
    shard = shard_of(store, log)
    with pytest.raises(LogConflict, match=r"knows nothing of this log.*type: redis-cli .* HSET 'progress-0' next 2$"):
        await shard.apply(log.records(4, 5))
    assert log.acknowledged == []


async def test_records_deleted_before_they_were_stored_halt_loudly() -> None:
    store, log = MemoryStore(at=3), MemoryLog(begin=10)
    shard = shard_of(store, log)
    with pytest.raises(LogConflict, match=r"3 to 9 were deleted.*type: redis-cli .* HSET 'progress-0' next 10$"):
        await shard.apply(log.records(10, 11))


async def test_a_record_that_is_no_pack_is_quarantined_and_passed() -> None:
    store, log = MemoryStore(), MemoryLog()
    shard = shard_of(store, log)
    await shard.apply([log.record(0), log.record(1, b"poison"), log.record(2)])
    assert store.values == [0, 2]
    assert log.quarantined == [1]
    assert (store.at, log.acknowledged) == (3, [0, 1, 2])
    await shard.apply([log.record(3, b"poison")])
    assert (store.at, log.quarantined) == (4, [1, 3])


async def test_a_reading_that_comes_again_under_another_offset_is_stored_once() -> None:
    store, log = MemoryStore(), MemoryLog()
    shard = shard_of(store, log)
    first, again, more = (pack_of(numbers, numbered=True).to_ipc() for numbers in ([1, 2, 3], [2, 3], [3, 4]))
    assert await shard.apply([log.record(0, first), log.record(1, again)]) == 3
    assert await shard.apply([log.record(2, more)]) == 1
    assert store.values == [1, 2, 3, 4]
    assert store.duplicates == 3
    assert store.asked == [["a/t"]]
    assert await shard_of(store, log).apply([log.record(3, more)]) == 0


async def test_numbers_are_read_anew_when_the_store_was_elsewhere() -> None:
    store, log = MemoryStore(), MemoryLog()
    shard = shard_of(store, log)
    packs = [pack_of([number], numbered=True).to_ipc() for number in range(4)]
    await shard.apply([log.record(0, packs[0])])
    await shard_of(store, log).apply([log.record(1, packs[1])])  # another worker
    assert await shard.apply([log.record(1, packs[1]), log.record(2, packs[1]), log.record(3, packs[2])]) == 1
    assert store.values == [0, 1, 2]
    store.at, store.values, store.held = 1, [0], {"a/t": _window(0)}  # the store lost what came last
    await shard.apply([log.record(4, packs[3])])
    assert log.sought == [1]
    await shard.apply([log.record(1, packs[1]), log.record(2, packs[1]), log.record(3, packs[2]), log.record(4, packs[3])])
    assert store.values == [0, 1, 2, 3]


def _window(*numbers: int) -> Window:
    window = Window()
    for number in numbers:
        window.admit(number, number, False)
    return window


@pytest.mark.parametrize("kept", [True, False])
async def test_a_topic_that_was_created_anew_and_is_longer_halts_loudly(kept: bool) -> None:
    store, log = MemoryStore(at=3), MemoryLog()
    store.mark = log.record(2).mark
    log.marks = {2: log.record(9).mark} if kept else {}
    shard = shard_of(store, log)
    if kept:
        with pytest.raises(LogConflict, match=r"offset 2 is not the one.*type: .* DEL 'progress-0'$"):
            await shard.apply(log.records(3))
    else:  # deleted by now: nothing can be said
        assert await shard.apply(log.records(3)) == 1
    log.marks = {2: store.mark}
    assert await shard_of(store, log).apply(log.records(store.at or 0)) == 1


async def test_a_store_that_fell_back_while_nothing_came_is_caught_up_when_it_is_doubted() -> None:
    store, log = MemoryStore(), MemoryLog()
    shard = shard_of(store, log)
    await shard.apply(log.records(0, 1, 2, 3))
    store.at, store.values = 2, [0, 1]
    log.marks = {1: log.record(1).mark}
    store.mark = log.marks[1]
    shard.doubt()
    await shard.apply(log.records(2, 3))
    assert store.values == [0, 1, 2, 3]
