"""A shard: each record of the log is applied once, whatever the log and the store do."""

import numpy as np
import pytest

from agents import shard as module
from agents.shard import LogRecord, Shard
from isotherm.errors import LogConflict, Unavailable
from isotherm.pack import MalformedPack, Pack
from isotherm.store.writer import Batch, Conflict


class MemoryStore:
    """Keeps progress as `isotherm.store.writer.Writer` does, and fails when told to."""

    def __init__(self, at: int | None = None) -> None:
        self.at = at
        self.values: list[float] = []
        self.failures: list[bool] = []
        """For each coming commit that fails: whether it was applied all the same."""

    async def progress(self, partition: int) -> int | None:
        return self.at

    async def commit(self, partition: int, batch: Batch, *, expected: int | None, next_offset: int) -> Conflict | None:
        fails = bool(self.failures)
        applied = not fails or self.failures.pop(0)
        if applied and self.at != expected:
            return Conflict(self.at)
        if applied:
            self.values += batch.value.tolist()
            self.at = next_offset
        if fails:
            raise Unavailable("the store is away")
        return None


class MemoryLog:
    def __init__(self, begin: int = 0) -> None:
        self.begin = begin
        self.limit = 1000
        self.sought: list[int] = []
        self.quarantined: list[int] = []
        self.acknowledged: list[int] = []

    async def start(self) -> int:
        return self.begin

    async def end(self) -> int:
        return self.limit

    async def seek(self, offset: int) -> None:
        self.sought.append(offset)

    async def quarantine(self, record: LogRecord, error: MalformedPack) -> None:
        self.quarantined.append(record.offset)

    def records(self, *offsets: int) -> list[LogRecord]:
        return [self.record(offset) for offset in offsets]

    def record(self, offset: int, value: bytes | None = None) -> LogRecord:
        pack = Pack(["a/t"], np.zeros(1, np.int32), np.array([offset]), np.array([float(offset)]), "tcp/1", 0)
        return LogRecord(offset, value or pack.to_ipc(), lambda: self.acknowledged.append(offset))


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", (0.0,))


async def test_records_are_applied_and_then_acknowledged_in_order() -> None:
    store, log = MemoryStore(), MemoryLog()
    shard = Shard(0, store, log)  # type: ignore[arg-type]
    assert await shard.apply(log.records(0, 1, 2)) == 3
    assert await shard.apply(log.records(3)) == 1
    assert store.values == [0, 1, 2, 3]
    assert log.acknowledged == [0, 1, 2, 3]


async def test_records_that_come_again_are_acknowledged_and_not_applied_again() -> None:
    store, log = MemoryStore(at=2), MemoryLog()
    shard = Shard(0, store, log)  # type: ignore[arg-type]
    assert await shard.apply(log.records(0, 1, 2, 3)) == 2
    assert store.values == [2, 3]
    assert log.acknowledged == [0, 1, 2, 3]


@pytest.mark.parametrize("applied", [True, False])
async def test_a_commit_whose_answer_is_lost_is_applied_once(applied: bool) -> None:
    store, log = MemoryStore(), MemoryLog()
    shard = Shard(0, store, log)  # type: ignore[arg-type]
    store.failures = [applied, False]
    await shard.apply(log.records(0, 1))
    assert store.values == [0, 1]
    assert log.acknowledged == [0, 1]


async def test_what_another_worker_has_applied_meanwhile_is_left_out() -> None:
    store, log = MemoryStore(), MemoryLog()
    shard = Shard(0, store, log)  # type: ignore[arg-type]
    await shard.apply(log.records(0))
    store.at = 3  # a zombie's counterpart was here
    await shard.apply(log.records(1, 2, 3, 4))
    assert store.values == [0, 3, 4]


async def test_a_store_that_lost_its_last_seconds_is_caught_up_from_the_log() -> None:
    store, log = MemoryStore(at=5), MemoryLog()
    shard = Shard(0, store, log)  # type: ignore[arg-type]
    await shard.apply(log.records(5, 6))
    store.at, store.values = 5, []  # rolled back
    assert await shard.apply(log.records(7, 8)) == 0
    assert await shard.apply(log.records(9)) == 0  # was on its way already
    assert log.sought == [5]
    await shard.apply(log.records(5, 6, 7, 8, 9))
    assert store.values == [5, 6, 7, 8, 9]


async def test_a_store_that_falls_back_to_the_same_place_again_is_caught_up_again() -> None:
    store, log = MemoryStore(at=5), MemoryLog()
    shard = Shard(0, store, log)  # type: ignore[arg-type]
    for _ in range(2):
        await shard.apply(log.records(5, 6))
        store.at, store.values = 5, []
        await shard.apply(log.records(7))
    assert log.sought == [5, 5]


async def test_a_partition_that_another_worker_had_meanwhile_goes_on_where_that_one_ended() -> None:
    store, log = MemoryStore(), MemoryLog()
    shard = Shard(0, store, log)  # type: ignore[arg-type]
    await shard.apply(log.records(0, 1))
    store.at = 50
    await shard.apply(log.records(50, 51))
    assert store.values == [0, 1, 50, 51]
    assert log.sought == []


async def test_a_log_that_ends_before_what_was_applied_halts_loudly() -> None:
    store, log = MemoryStore(at=50), MemoryLog()
    log.limit = 3
    shard = Shard(0, store, log)  # type: ignore[arg-type]
    with pytest.raises(LogConflict, match="created anew"):
        await shard.apply(log.records(0, 1, 2))
    assert log.acknowledged == []


async def test_a_gap_in_one_batch_is_not_jumped_over() -> None:
    store, log = MemoryStore(at=0), MemoryLog()
    shard = Shard(0, store, log)  # type: ignore[arg-type]
    await shard.apply(log.records(0, 1, 5, 6))
    assert store.values == [0, 1]
    assert log.sought == [2]
    assert log.acknowledged == [0, 1]


async def test_a_store_without_progress_begins_where_the_log_begins() -> None:
    store, log = MemoryStore(), MemoryLog(begin=7)
    shard = Shard(0, store, log)  # type: ignore[arg-type]
    await shard.apply(log.records(7, 8))
    assert store.values == [7, 8]


async def test_an_emptied_store_is_filled_again_from_a_log_that_is_complete() -> None:
    store, log = MemoryStore(), MemoryLog(begin=0)
    shard = Shard(0, store, log)  # type: ignore[arg-type]
    await shard.apply(log.records(4, 5))
    assert (store.values, log.sought) == ([], [0])
    await shard.apply(log.records(0, 1, 2, 3, 4, 5))
    assert store.values == [0, 1, 2, 3, 4, 5]


async def test_an_emptied_store_halts_loudly_when_the_log_has_lost_its_begin() -> None:
    store, log = MemoryStore(), MemoryLog(begin=2)
    shard = Shard(0, store, log)  # type: ignore[arg-type]
    with pytest.raises(LogConflict, match="knows nothing of this log"):
        await shard.apply(log.records(4, 5))
    assert log.acknowledged == []


async def test_records_deleted_before_they_were_stored_halt_loudly() -> None:
    store, log = MemoryStore(at=3), MemoryLog(begin=10)
    shard = Shard(0, store, log)  # type: ignore[arg-type]
    with pytest.raises(LogConflict, match="3 to 9 were deleted"):
        await shard.apply(log.records(10, 11))


async def test_a_record_that_is_no_pack_is_quarantined_and_passed() -> None:
    store, log = MemoryStore(), MemoryLog()
    shard = Shard(0, store, log)  # type: ignore[arg-type]
    await shard.apply([log.record(0), log.record(1, b"poison"), log.record(2)])
    assert store.values == [0, 2]
    assert log.quarantined == [1]
    assert (store.at, log.acknowledged) == (3, [0, 1, 2])
    await shard.apply([log.record(3, b"poison")])
    assert (store.at, log.quarantined) == (4, [1, 3])
