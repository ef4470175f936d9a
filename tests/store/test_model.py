"""Whatever is done to the store in whatever order, it answers as a list of readings would."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from redis.exceptions import RedisError

from agents.shard import LogRecord, Shard
from agents.storing import Storing
from isotherm.clock import now_us
from isotherm.limits import HOUR, MINUTE, SECOND
from isotherm.pack import NO_SEQ, Pack
from isotherm.settings import Settings
from isotherm.store import client, layout
from isotherm.store.history import History
from isotherm.store.reader import Reader
from isotherm.store.sealer import Sealer
from isotherm.store.writer import Writer
from isotherm.topics import partition_of
from tests.store.test_windows import Naive
from tests.support.valkey import Valkey

DEVICE = "room-1"
SERIES = [f"{DEVICE}/temperature", f"{DEVICE}/humidity"]
PARTITION = partition_of(DEVICE, 8)
WIDTHS = {0: 1_000_000, 10 * SECOND: 2 * 360 + 2, MINUTE: 2 * 60 + 2, HOUR: 4}
"""Width of a row → points that give it over two hours."""


@dataclass(frozen=True)
class Reading:
    """One reading of the model."""

    series: int
    time: int
    value: float


class _Log:
    """A partition of a log that keeps everything."""

    def __init__(self) -> None:
        self.values: list[bytes] = []
        self.position = 0

    async def start(self) -> int:
        return 0

    async def end(self) -> int:
        return len(self.values)

    async def mark(self, offset: int) -> str | None:
        return LogRecord(offset, self.values[offset], int).mark

    async def seek(self, offset: int) -> None:
        self.position = offset

    async def quarantine(self, partition: int, record: LogRecord, error: Exception) -> None:
        raise AssertionError(error)


AGES = st.one_of(st.integers(0, 5 * SECOND), st.integers(0, 90 * MINUTE), st.integers(0, 90).map(lambda n: n * MINUTE))
READING = st.tuples(st.integers(0, 1), AGES, st.integers(-100, 100), st.one_of(st.none(), st.integers(0, 12)))


class StoreModel(RuleBasedStateMachine):
    """The real store beside a list."""

    server: Valkey
    packs = Bundle("packs")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.now = now_us()
        self.readings: list[Reading] = []
        self.numbers = [Naive(), Naive()]
        self.duplicates = 0
        self.log = _Log()

    @initialize()
    def begin(self) -> None:
        async def connect() -> client.Client:
            redis = client.connect(Settings(redis=self.server.url))
            await redis.evalsha(await redis.script_load("return redis.call('FLUSHALL')"), 0)
            return redis

        self.redis = self.runner.run(connect())
        self.reader = Reader(self.redis, 8)
        self.sealer = Sealer(self.redis, PARTITION)
        self.start_worker()

    def teardown(self) -> None:
        self.runner.run(self.redis.aclose())
        self.runner.close()

    @rule()
    def start_worker(self) -> None:
        """A worker knows nothing but what the store says, and begins to read wherever the group's offset is."""
        self.shard = Shard(
            PARTITION, Storing(PARTITION, Writer(self.redis, "downsample", "log-1"), self.log.quarantine), self.log
        )

    @rule(target=packs, readings=st.lists(READING, min_size=1, max_size=12))
    def new_pack(self, readings: list[tuple[int, int, int, int | None]]) -> Pack:
        seq = [NO_SEQ if number is None else number for *_, number in readings]
        return Pack(
            names=SERIES,
            series=np.array([series for series, *_ in readings], dtype=np.int32),
            time=np.array([self.now - age for _, age, _, _ in readings], dtype=np.int64),
            value=np.array([value for _, _, value, _ in readings], dtype=np.float64),
            connector="tcp/1",
            received_at=self.now,
            seq=np.array(seq, dtype=np.uint64),
        )

    @rule(pack=packs)
    def send(self, pack: Pack) -> None:
        """A pack comes to the log, and perhaps not for the first time: devices repeat themselves."""
        assert pack.seq is not None
        columns = zip(pack.series.tolist(), pack.time.tolist(), pack.value.tolist(), pack.seq.tolist(), strict=True)
        readings = list(columns)
        new = [seq == NO_SEQ for *_, seq in readings]
        for i in sorted(range(len(readings)), key=lambda i: readings[i][-1]):
            series, time, _, seq = readings[i]
            new[i] = new[i] or self.numbers[series].admit(seq, time, False)
        self.readings += [Reading(*one[:3]) for one, is_new in zip(readings, new, strict=True) if is_new]
        self.duplicates += new.count(False)
        self.log.values.append(pack.to_ipc())

    @rule(back=st.integers(0, 3), batch=st.integers(1, 5))
    def work(self, back: int, batch: int) -> None:
        """The worker reads to the end, perhaps some records again."""
        self.log.position = max(0, self.log.position - back)
        while self.log.position < len(self.log.values):
            begin = self.log.position
            self.log.position = end = min(begin + batch, len(self.log.values))
            records = [LogRecord(offset, self.log.values[offset], int) for offset in range(begin, end)]
            self.runner.run(self.shard.apply(records))

    @rule(later=st.sampled_from([0, HOUR + 15 * MINUTE]))
    def seal(self, later: int) -> None:
        async def sweep() -> None:
            async for _ in self.sealer.sweep(self.now + later):
                pass

        self.runner.run(sweep())

    @rule()
    def restart_server(self) -> None:
        self.server.kill()
        self.server.start()
        with contextlib.suppress(RedisError):  # the connection that is gone
            self.runner.run(self.redis.ping())
        # A killed server may have lost its last seconds; the worker looks when the store is behind the log.
        self.shard.doubt()
        self.log.position = 0

    @rule()
    def lose_scripts(self) -> None:
        async def flush() -> None:
            await self.redis.evalsha(await self.redis.script_load("return redis.call('PING')"), 0)
            pipeline = self.redis.pipeline(transaction=False)
            pipeline.script_flush()
            await pipeline.execute()

        self.runner.run(flush())

    @invariant()
    def answers_are_those_of_the_list(self) -> None:
        if self.log.position < len(self.log.values):
            return
        for series, name in enumerate(SERIES):
            mine = [one for one in self.readings if one.series == series]
            for width, points in WIDTHS.items():
                found = self.runner.run(self.reader.query(name, self.now - 2 * HOUR, self.now + 1, points))
                assert _rows(found) == _expected(mine, width), width
        stored = self.runner.run(self.redis.hgetall(layout.stored_key(PARTITION)))
        assert int(stored.get(b"tcp/1", 0)) == len(self.readings)
        duplicates = self.runner.run(self.redis.hgetall(layout.duplicates_key(PARTITION)))
        assert int(duplicates.get(b"tcp/1", 0)) == self.duplicates
        latest = {f"{one.device}/{one.metric}": (one.time, one.value) for one in self.runner.run(self.reader.latest())}
        assert latest == {
            name: max(((one.time, i, one.value) for i, one in enumerate(mine)), key=lambda row: row[:2])[::2]
            for name, mine in ((n, [one for one in self.readings if one.series == s]) for s, n in enumerate(SERIES))
            if mine
        }


_Row = tuple[int, int, float, float, float, float, int]


def _rows(found: History) -> list[_Row]:
    columns = (found.time, found.count, found.sum, found.min, found.max, found.last, found.last_at)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def _expected(readings: list[Reading], width: int) -> list[_Row]:
    ordered = sorted(readings, key=lambda one: one.time)  # stable: of one time, in order of arrival
    if not width:
        return [(one.time, 1, one.value, one.value, one.value, one.value, one.time) for one in ordered]
    buckets: dict[int, list[Reading]] = {}
    for one in ordered:
        buckets.setdefault(one.time // width * width, []).append(one)
    return [
        (begin, len(some), sum(v), min(v), max(v), v[-1], some[-1].time)
        for begin, some in sorted(buckets.items())
        for v in [[one.value for one in some]]
    ]


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with Valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


def test_the_store_answers_as_a_list_would(server: Valkey) -> None:
    StoreModel.server = server
    run_state_machine_as_test(
        StoreModel,
        settings=settings(max_examples=25, stateful_step_count=25, suppress_health_check=list(HealthCheck), print_blob=True),
    )
