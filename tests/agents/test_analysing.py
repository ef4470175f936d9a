"""Records through an engine, with a real store: effectively once, wherever its process ends."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any, TypeVar

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents import Event, Reading, per_reading
from agents import shard as shard_module
from agents.analysing import MAX_FAILURES, Analysing, Meter, Suspicion
from agents.engine import Changes, Engine, Outputs
from agents.shard import LogRecord
from isotherm.errors import AnalyticFailed, Unavailable
from isotherm.events import Event as StoredEvent
from isotherm.pack import Pack
from isotherm.rejects import RejectRecord
from isotherm.settings import Settings
from isotherm.store import client, layout
from isotherm.store.analytic import AnalyticStore, Commit, Held, Outgoing
from isotherm.store.client import Client
from isotherm.store.windows import Sieve
from isotherm.store.writer import Conflict
from isotherm.topics import EVENTS, READINGS, REJECTS
from tests.support.valkey import Valkey

PARTITION = 3
NAME = "total"
BASE = 1_790_000_000_000_000
POISON = -999.0

pytestmark = pytest.mark.servers

_Answer = TypeVar("_Answer")


@per_reading("*/t", output="total")
def total(reading: Reading, state: dict[str, float]) -> Iterator[float | Event]:
    """A total: every reading counts, and counts once, or the end is another."""
    before = state.get("total", 0.0)
    state["total"] = before + reading.value
    if reading.value % 2:
        yield state["total"]
    if before // 50 != state["total"] // 50:
        yield reading.event(f"{reading.device} is at {state['total']:g}")


class Fragile:
    """An engine that does its work and then raises, when there was poison in a pack."""

    def __init__(self) -> None:
        self._engine: Engine = total.build(NAME, total.parameters({}))
        self.load = self._engine.load
        self.tick = self._engine.tick
        self.ran = 0

    def run(self, packs: Sequence[Pack]) -> Outputs:
        self.ran += len(packs)
        outputs = self._engine.run(packs)
        if any((pack.value == POISON).any() for pack in packs):
            raise ZeroDivisionError("poison")
        return outputs

    def changes(self) -> Changes:
        return self._engine.changes()


def pack_of(*rows: tuple[str, int, float]) -> Pack:
    """Readings as device, time in s and value."""
    names = sorted({f"{device}/t" for device, _, _ in rows})
    series = np.array([names.index(f"{device}/t") for device, _, _ in rows], dtype=np.int32)
    time = np.array([BASE + time * 1_000_000 for _, time, _ in rows], dtype=np.int64)
    return Pack(names, series, time, np.array([value for *_, value in rows], dtype=np.float64), "tcp/1", BASE)


def records_of(packs: Sequence[Pack]) -> list[LogRecord]:
    return [LogRecord(offset, pack.to_ipc(), lambda: None) for offset, pack in enumerate(packs)]


def packs(seed: int = 1, count: int = 12) -> list[Pack]:
    random = Random(seed)
    ticks = itertools.count()
    return [
        pack_of(*((random.choice("ab"), next(ticks), float(random.randrange(9))) for _ in range(random.randrange(1, 6))))
        for _ in range(count)
    ]


class Killed(Exception):
    """The process has ended here."""


@dataclass
class Fate:
    """What happens at the next steps that can go wrong; after them nothing does."""

    steps: Iterator[str] = field(default_factory=lambda: iter(()))

    async def meets(self, step: Callable[[], Awaitable[_Answer]]) -> _Answer:
        what = next(self.steps, "fine")
        if what == "killed before":
            raise Killed
        answer = await step()
        if what == "killed after":
            raise Killed
        if what == "answer lost":
            raise Unavailable("the answer is lost")
        return answer


class Log:
    """Kafka: what was delivered, at the mercy of a fate."""

    def __init__(self, fate: Fate) -> None:
        self.delivered: list[Outgoing] = []
        self._fate = fate

    async def deliver(self, partition: int, outgoing: Sequence[Outgoing]) -> None:
        for one in outgoing:
            await self._fate.meets(lambda one=one: self._append(one))  # type: ignore[misc]

    async def _append(self, one: Outgoing) -> None:
        self.delivered.append(one)

    def of(self, topic: str) -> list[Outgoing]:
        return [one for one in self.delivered if one.topic == topic]

    def readings(self) -> list[tuple[str, int, float]]:
        """Return the readings as the store would take them in: each number once."""
        sieve = Sieve({})
        fresh = (sieve.sift(Pack.from_ipc(one.value)) for one in self.of(READINGS.name))
        return sorted(
            (pack.names[series], time, value)
            for pack in fresh
            for series, time, value in zip(pack.series.tolist(), pack.time.tolist(), pack.value.tolist(), strict=True)
        )

    def events(self) -> dict[str, StoredEvent]:
        """Return id → event; two that differ and have one id are an error."""
        found: dict[str, StoredEvent] = {}
        for one in self.of(EVENTS.name):
            event = StoredEvent.from_json(one.value)
            assert found.setdefault(event.id, event) == event
        return found

    def rejects(self) -> list[RejectRecord]:
        """Return what is on ``rejects``; what was delivered again is the same record."""
        return [
            msgspec.json.decode(one, type=RejectRecord) for one in dict.fromkeys(one.value for one in self.of(REJECTS.name))
        ]


class Store(AnalyticStore):
    """The store, at the mercy of a fate."""

    def __init__(self, redis: Client, fate: Fate) -> None:
        super().__init__(redis, NAME, "log-1")
        self._fate = fate

    async def commit(self, partition: int, commit: Commit, *, expected: str, version: str) -> bool:
        return await self._fate.meets(partial(super().commit, partition, commit, expected=expected, version=version))


@dataclass
class Process:
    """One life of the process: a sink, and how it takes in records."""

    sink: Analysing
    engine: Fragile
    meter: Meter

    async def work(self, records: Sequence[LogRecord], together: int) -> None:
        """Take in what is left of the records, and let time pass."""
        at = await self.position()
        while at < len(records):
            answer = await self.sink.apply(records[at : at + together], at)
            assert not isinstance(answer, Conflict)
            at += len(records[at : at + together])
        await self.sink.rest(False)

    async def position(self) -> int:
        progress = await self.sink.progress()
        assert progress is not None
        return progress.next


def process(redis: Client, log: Log, fate: Fate | None = None, suspicion: Suspicion | None = None) -> Process:
    async def end() -> int:
        return 0

    engine, meter = Fragile(), Meter()
    store = Store(redis, fate or Fate())
    suspicion = suspicion or Suspicion([-1] * 8)
    sink = Analysing(PARTITION, NAME, f"agent/{NAME}/1", engine, store, log.deliver, end, meter, suspicion)
    return Process(sink, engine, meter)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with Valkey(tmp_path_factory.mktemp("store")) as server:
        yield server


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_module, "RETRY_SECONDS", (0.0,))


def lived(server: Valkey, work: Callable[[Client], Awaitable[_Answer]]) -> _Answer:
    """Do something with an empty store."""
    server.empty()

    async def connected() -> _Answer:
        async with client.connected(Settings(redis=server.url)) as redis:
            return await work(redis)

    return asyncio.run(connected())


async def undisturbed(redis: Client, packs: Sequence[Pack]) -> Log:
    log = Log(Fate())
    await process(redis, log).work(records_of(packs), 3)
    return log


async def with_restarts(redis: Client, packs: Sequence[Pack], steps: Sequence[str], together: Sequence[int]) -> Log:
    fate = Fate(iter(steps))
    log = Log(fate)
    for some in itertools.cycle(together):
        try:
            await process(redis, log, fate).work(records_of(packs), some)
        except Killed:
            continue
        return log
    raise AssertionError


def messages(log: Log) -> list[str]:
    return sorted(event.message for event in log.events().values())


ends = st.lists(st.sampled_from(["fine", "fine", "killed before", "killed after"]), max_size=40)


@given(ends, st.lists(st.integers(1, 5), min_size=1, max_size=5), st.integers(0, 100))
@settings(max_examples=60)
def test_wherever_the_process_ends_what_is_made_is_that_of_an_undisturbed_run(
    server: Valkey, steps: list[str], together: list[int], seed: int
) -> None:
    expected = lived(server, lambda redis: undisturbed(redis, packs(seed)))

    async def scenario(redis: Client) -> tuple[Log, list[Any]]:
        log = await with_restarts(redis, packs(seed), steps, together)
        return log, await redis.xrevrange(layout.events_key(PARTITION), count=1000)

    log, stored = lived(server, scenario)
    assert log.readings() == expected.readings()
    assert expected.readings()
    assert messages(log) == messages(expected)
    assert sorted(event.number for event in log.events().values()) == list(range(len(messages(expected))))
    assert [fields[b"e"] for _, fields in reversed(stored)] == [one.to_json() for one in log.events().values()]


@pytest.mark.parametrize("lost_at", range(1, 6))
def test_a_commit_whose_answer_is_lost_is_not_done_twice(server: Valkey, lost_at: int) -> None:
    expected = lived(server, lambda redis: undisturbed(redis, packs()))

    async def scenario(redis: Client) -> Log:
        log = Log(Fate())
        fate = Fate(iter(["fine"] * lost_at + ["answer lost"]))
        await process(redis, log, fate).work(records_of(packs()), 2)
        return log

    log = lived(server, scenario)
    assert [one.value for one in log.of(READINGS.name)] != []
    assert log.readings() == expected.readings()
    assert messages(log) == messages(expected)
    assert len(log.of(EVENTS.name)) == len(log.events())


def test_what_was_committed_and_not_delivered_is_delivered_by_whoever_goes_on(server: Valkey) -> None:
    async def scenario(redis: Client) -> None:
        log = Log(Fate(iter(["killed before"])))
        with pytest.raises(Killed):
            await process(redis, log).work(records_of([pack_of(("a", 1, 3.0), ("b", 1, 5.0))]), 1)
        assert log.delivered == []
        assert await process(redis, log).position() == 1
        assert log.readings() == [("a/total", BASE + 1_000_000, 3.0), ("b/total", BASE + 1_000_000, 5.0)]

    lived(server, scenario)


def test_what_is_delivered_again_is_counted_once(server: Valkey) -> None:
    async def scenario(redis: Client) -> None:
        log = Log(Fate())
        records = records_of([pack_of(("a", 1, 3.0), ("b", 1, 5.0))])
        for _ in range(3):
            await process(redis, log).work(records, 1)
        assert len(log.of(READINGS.name)) > 1, "whoever goes on delivers the last outbox again"
        assert sum(one.readings for one in log.of(READINGS.name)) == len(log.readings())

    lived(server, scenario)


def test_an_analytic_that_was_never_there_begins_at_the_end_of_the_log(server: Valkey) -> None:
    async def scenario(redis: Client) -> None:
        async def end() -> int:
            return 41

        log = Log(Fate())
        for _ in range(2):
            sink = Analysing(
                PARTITION, NAME, "agent/total/1", Fragile(), Store(redis, Fate()), log.deliver, end, Meter(), Suspicion([-1])
            )
            progress = await sink.progress()
            assert progress is not None
            assert progress.next == 41

    lived(server, scenario)


def test_who_has_been_overtaken_writes_nothing_and_learns_where_the_store_is(server: Valkey) -> None:
    async def scenario(redis: Client) -> None:
        log, records = Log(Fate()), records_of(packs())
        slow, quick = process(redis, log), process(redis, log)
        assert await slow.position() == 0
        await quick.work(records[:6], 2)
        at = await quick.position()
        answer = await slow.sink.apply(records[:4], 0)
        assert answer == Conflict(at)
        await slow.work(records, 2)
        assert log.readings() == (await expected(redis)).readings()

    async def expected(redis: Client) -> Log:
        server.empty()
        return await undisturbed(redis, packs())

    lived(server, scenario)


@pytest.mark.parametrize(
    ("together", "careful"),
    [
        (1, False),
        (2, False),
        (12, False),
        (2, True),
        (12, True),
    ],
)
def test_a_pack_that_the_engine_fails_on_goes_to_rejects_whole_and_the_others_through(
    server: Valkey, together: int, careful: bool
) -> None:
    good = packs()
    expected = lived(server, lambda redis: undisturbed(redis, good))
    poison = pack_of(("a", 500, 7.0), ("b", 500, POISON), ("c", 500, 1.0))
    suspicion = Suspicion([-1] * 8, careful={PARTITION: 100} if careful else {})

    async def scenario(redis: Client) -> tuple[Log, Meter]:
        log = Log(Fate())
        one = process(redis, log, suspicion=suspicion)
        await one.work(records_of([*good[:4], poison, *good[4:]]), together)
        return log, one.meter

    log, meter = lived(server, scenario)
    assert log.readings() == expected.readings()
    assert messages(log) == messages(expected)
    [reject] = log.rejects()
    assert (reject.reason, reject.detail, reject.protocol) == ("analytic", "ZeroDivisionError: poison", f"agent/{NAME}")
    assert Pack.from_ipc(reject.original).value.tolist() == poison.value.tolist()
    assert meter.errors == 1
    assert "ZeroDivisionError" in meter.problem


def test_a_pack_that_is_known_to_end_the_process_is_not_given_to_the_engine(server: Valkey) -> None:
    async def scenario(redis: Client) -> None:
        log = Log(Fate())
        one = process(redis, log, suspicion=Suspicion([-1] * 8, poison={PARTITION: frozenset({1})}))
        await one.work(records_of([pack_of(("a", 1, 3.0)), pack_of(("a", 2, 5.0)), pack_of(("a", 3, 7.0))]), 3)
        assert one.engine.ran == 2
        assert [value for _, _, value in log.readings()] == [3.0, 10.0]
        [reject] = log.rejects()
        assert Pack.from_ipc(reject.original).value.tolist() == [5.0]

    lived(server, scenario)


def failing(count: int, first: int = 0) -> list[Pack]:
    return [pack_of(("a", 1000 + first + at, POISON)) for at in range(count)]


@pytest.mark.parametrize("together", [1, 4, 64])
def test_an_analytic_that_fails_on_ten_packs_in_a_row_stands_where_it_was(server: Valkey, together: int) -> None:
    async def scenario(redis: Client) -> None:
        log = Log(Fate())
        one = process(redis, log)
        await one.work(records_of([pack_of(("a", 1, 3.0))]), 1)
        with pytest.raises(AnalyticFailed, match=rf"{NAME} failed on {MAX_FAILURES} packs in a row(.|\n)*ZeroDivisionError"):
            await one.work(records_of([pack_of(("a", 1, 3.0)), *failing(MAX_FAILURES)]), together)
        at = await process(redis, log).position()
        assert 1 <= at <= MAX_FAILURES
        assert len(log.rejects()) == at - 1

    lived(server, scenario)


def test_fewer_failures_or_a_good_pack_between_do_not_stop_it(server: Valkey) -> None:
    async def scenario(redis: Client) -> None:
        log = Log(Fate())
        count = MAX_FAILURES - 1
        some = [*failing(count), pack_of(("a", 1, 3.0)), *failing(count, 100), pack_of(("a", 2, 4.0))]
        await process(redis, log).work(records_of(some), 64)
        assert len(log.rejects()) == 2 * count
        assert [value for _, _, value in log.readings()] == [3.0]

    lived(server, scenario)


def test_a_record_that_is_no_pack_is_passed_over(server: Valkey) -> None:
    async def scenario(redis: Client) -> None:
        log = Log(Fate())
        records = records_of([pack_of(("a", 1, 3.0)), pack_of(("a", 2, 1.0)), pack_of(("a", 3, 5.0))])
        records[1] = LogRecord(1, b"no pack", lambda: None)
        one = process(redis, log)
        await one.work(records, 3)
        assert [value for _, _, value in log.readings()] == [3.0, 8.0]
        assert log.rejects() == []
        assert await one.position() == 3

    lived(server, scenario)


def test_readings_that_nothing_comes_of_are_committed_when_a_second_has_passed(
    server: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(redis: Client) -> None:
        log, records = Log(Fate()), records_of([pack_of(("a", 1, 2.0)), pack_of(("a", 2, 4.0))])
        one = process(redis, log)
        await one.position()
        await one.sink.apply(records[:1], 0)
        assert await process(redis, log).position() == 0
        monkeypatch.setattr("agents.analysing.COMMIT_SECONDS", 0.0)
        await one.sink.rest(False)
        assert await process(redis, log).position() == 1
        held: Held = await Store(redis, Fate()).load(PARTITION)
        assert list(held.rows) == ["a/t"]

    lived(server, scenario)
