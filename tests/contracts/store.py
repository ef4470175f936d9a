"""What every server that the series store runs on must keep. A test class inherits this and provides ``server``."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import pytest

from agents.downsample import downsample
from isotherm.clock import now_us
from isotherm.errors import SettingsError, Unavailable
from isotherm.limits import DAY, HOUR, MINUTE, SECOND
from isotherm.pack import Attribute, Pack
from isotherm.registry import Registry
from isotherm.settings import Settings
from isotherm.store import client, layout
from isotherm.store.client import Client
from isotherm.store.history import History
from isotherm.store.reader import Reader
from isotherm.store.rollup import roll_up
from isotherm.store.sealed import MalformedChunk
from isotherm.store.sealer import Sealer
from isotherm.store.writer import Conflict, Newest, Progress, Writer
from isotherm.topics import partition_of

SERIES = "room-1/temperature"
PARTITION = partition_of("room-1", 8)
LOG = "log-1"


class Server(Protocol):
    """Real servers. They can be killed and started again on the same data: of a cluster, the primary of PARTITION."""

    @property
    def url(self) -> str: ...
    def start(self) -> None: ...
    def kill(self) -> None: ...
    def empty(self) -> None: ...


def pack(times: list[int], values: list[float], received_at: int = 0, unit: str = "") -> Pack:
    count = len(times)
    return Pack(
        names=[SERIES],
        series=np.zeros(count, dtype=np.int32),
        time=np.array(times, dtype=np.int64),
        value=np.array(values, dtype=np.float64),
        connector="tcp/1",
        received_at=received_at,
        units={SERIES: unit} if unit else {},
    )


class Log:
    """A partition of a log, written into the store pack by pack."""

    def __init__(self, redis: Client, log_id: str = LOG) -> None:
        self.writer = Writer(redis, "downsample", log_id)
        self.next: int | None = None

    async def append(self, *packs: Pack) -> None:
        following = (self.next or 0) + len(packs)
        conflict = await self.writer.commit(PARTITION, downsample(packs), expected=self.next, next_offset=following)
        assert conflict is None
        self.next = following


def rows(found: History) -> list[tuple[int, int, float, float, float, float]]:
    columns = (found.time, found.count, found.sum, found.min, found.max, found.last)
    return list(zip(*(column.tolist() for column in columns), strict=True))


async def answers(reader: Reader, now: int) -> list[list[tuple[int, int, float, float, float, float]]]:
    """Return the last two hours, in every tier."""
    return [
        rows(await reader.query(SERIES, now - 2 * HOUR, now + 1, points))
        for points in (1_000_000, 2 * 360 + 2, 2 * 60 + 2, 4)
    ]


async def seal_all(redis: Client, now: int) -> int:
    """Seal every chunk of raw points and of 10 s that has something from the last two hours; returns how many those were."""
    sealer = Sealer(redis, PARTITION)
    return sum([count for later in (0, HOUR + 15 * MINUTE) async for count in sealer.sweep(now + later)])


class Meddler:
    """A client beside which something happens once, between reading and writing."""

    def __init__(self, redis: Client, then: Callable[[], Awaitable[None]]) -> None:
        self._redis = redis
        self._then: Callable[[], Awaitable[None]] | None = then

    async def mget(self, keys: Sequence[str]) -> list[bytes | None]:
        values = await self._redis.mget(keys)
        if any(values) and self._then is not None:
            then, self._then = self._then, None
            await then()
        return values

    def __getattr__(self, name: str) -> Any:
        return getattr(self._redis, name)


async def bytes_of(redis: Client, pattern: str) -> int:
    """Return how much memory the keys that match take."""
    usage = await redis.script_load("return redis.call('MEMORY', 'USAGE', KEYS[1])")
    return sum([await redis.evalsha(usage, 1, key.decode()) async for key in redis.scan_iter(match=pattern, count=100)])


class StoreContract:
    """The promises."""

    @pytest.fixture
    async def redis(self, server: Server) -> AsyncIterator[Client]:
        server.empty()
        async with client.connected(Settings(redis=server.url)) as redis:
            yield redis

    @pytest.fixture
    def reader(self, redis: Client) -> Reader:
        return Reader(redis, 8)

    async def test_a_point_is_there_in_every_tier(self, redis: Client, reader: Reader) -> None:
        at = (now_us() // HOUR) * HOUR - 10 * SECOND
        await Log(redis).append(pack([at], [21.5], received_at=at + 5, unit="Cel"))
        assert rows(await reader.query(SERIES, at - SECOND, at + SECOND, 10)) == [(at, 1, 21.5, 21.5, 21.5, 21.5)]
        for points, span in ((24 * 360, DAY), (1440 * 5, 5 * DAY), (24 * 30, 30 * DAY)):
            found = await reader.query(SERIES, at - span, at + span, 2 * points)
            assert [row[1:] for row in rows(found)] == [(1, 21.5, 21.5, 21.5, 21.5)]
        [latest] = await reader.latest()
        assert (latest.device, latest.metric, latest.time, latest.value, latest.unit, latest.received_at) == (
            ("room-1", "temperature", at, 21.5, "Cel", at + 5)
        )

    async def test_a_batch_that_is_repeated_is_applied_once(self, redis: Client, reader: Reader) -> None:
        writer = Writer(redis, "downsample", LOG)
        at = now_us()
        batch = downsample([pack([at], [1.0])])
        assert await writer.commit(PARTITION, batch, expected=None, next_offset=1) is None
        for _ in range(3):
            assert await writer.commit(PARTITION, batch, expected=None, next_offset=1) == Conflict(1)
        assert (await reader.query(SERIES, at - SECOND, at + SECOND)).count.tolist() == [1]
        assert await writer.progress(PARTITION) == Progress(1, "")
        assert await redis.hgetall(layout.stored_key(PARTITION)) == {b"tcp/1": b"1"}

    async def test_two_writers_cannot_both_apply_the_same_records(self, redis: Client) -> None:
        at = now_us()
        first, zombie = Writer(redis, "downsample", LOG), Writer(redis, "downsample", LOG)
        assert await first.commit(PARTITION, downsample([pack([at], [1.0])]), expected=None, next_offset=1) is None
        assert await first.commit(PARTITION, downsample([pack([at], [2.0])]), expected=1, next_offset=2) is None
        assert await zombie.commit(PARTITION, downsample([pack([at], [2.0])]), expected=1, next_offset=3) == Conflict(2)

    async def test_another_log_begins_with_no_progress_and_keeps_the_history(self, redis: Client, reader: Reader) -> None:
        at = now_us()
        await Log(redis, "log-1").append(pack([at], [1.0]))
        assert await Writer(redis, "downsample", "log-2").progress(PARTITION) is None
        await Log(redis, "log-2").append(pack([at + 1], [2.0]))
        assert (await reader.query(SERIES, at - SECOND, at + SECOND)).last.tolist() == [1.0, 2.0]

    async def test_readings_of_one_microsecond_do_not_overwrite_each_other(self, redis: Client, reader: Reader) -> None:
        at = now_us()
        await Log(redis).append(pack([at, at], [1.0, 2.0]), pack([at], [3.0]))
        assert (await reader.query(SERIES, at, at + 1)).last.tolist() == [1.0, 2.0, 3.0]

    @pytest.mark.parametrize("seed", range(3))
    async def test_order_and_batching_do_not_change_a_bit(self, redis: Client, reader: Reader, seed: int) -> None:
        draw = random.Random(seed)
        now = now_us()
        readings = [(now - draw.randrange(90 * MINUTE), float(draw.randrange(-1000, 1000))) for _ in range(500)]
        newest = dict(sorted(readings))  # one value a time
        arrivals = draw.sample(list(newest.items()), len(newest))
        log = Log(redis)
        while arrivals:
            size = draw.randrange(1, 60)
            await log.append(pack([t for t, _ in arrivals[:size]], [v for _, v in arrivals[:size]]))
            arrivals = arrivals[size:]

        raw = await reader.query(SERIES, now - 2 * HOUR, now + 1, 100_000)
        assert rows(raw) == [(t, 1, v, v, v, v) for t, v in sorted(newest.items())]
        for points, step in ((2 * 360, 10 * SECOND), (2 * 60, MINUTE), (2, HOUR)):
            found = await reader.query(SERIES, now - 2 * HOUR, now + 1, points)
            merged: dict[int, list[float]] = {}
            width = int(found.width[0])
            assert width % step == 0
            for time, value in sorted(newest.items()):
                merged.setdefault(time // width * width, []).append(value)
            assert rows(found) == [
                (begin, len(values), sum(values), min(values), max(values), values[-1])
                for begin, values in sorted(merged.items())
            ]

    async def test_a_tier_that_has_expired_is_continued_by_the_next(self, redis: Client, reader: Reader) -> None:
        now = now_us()
        times = [now - hours * HOUR for hours in (0, 1, 5, 20, 100, 300, 1000, 5000)]
        await Log(redis).append(pack(times, [1.0] * len(times)))
        for points in (100_000, 1_000, 100):
            found = await reader.query(SERIES, now - 5001 * HOUR, now + 1, points)
            assert found.count.sum() == len(times)
            assert (np.diff(found.time) > 0).all()
        # The finest tier that is kept answers for each age.
        found = await reader.query(SERIES, now - 5001 * HOUR, now + 1, 10_000_000_000)
        assert set(found.width.tolist()) == {0, 10 * SECOND, MINUTE, HOUR}
        # So it is when everything is read, piece by piece.
        parts = [part async for _, part in reader.stored([SERIES], now - 5001 * HOUR, now + 1)]
        assert [row for part in parts for row in rows(part)] == rows(found)
        assert [at for part in parts for at in part.last_at.tolist()] == sorted(times)

    async def test_series_of_every_partition_are_read_together_as_each_is_alone(
        self, redis: Client, reader: Reader, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = now_us()
        names = [f"d{number}/t" for number in range(20)]
        draw = random.Random(1)
        for name in names[:-1]:
            times = sorted(now - draw.randrange(40 * DAY) for _ in range(200))
            values = [float(draw.randrange(-1000, 1000)) for _ in times]
            partition = partition_of(name.split("/")[0], 8)
            batch = downsample([replace(pack(times, values), names=[name])])
            writer = Writer(redis, "downsample", name)
            assert await writer.commit(partition, batch, expected=None, next_offset=1) is None
        for at_once in (512, 7):
            monkeypatch.setattr("isotherm.store.reader.MAX_CHUNKS_AT_ONCE", at_once)
            for span, points in ((40 * DAY, 100_000), (40 * DAY, 50), (HOUR, 10), (41 * DAY, 1)):
                found = await reader.query_many(names, now - span, now + 1, points)
                assert list(found) == names
                for name, one in found.items():
                    alone = await reader.query(name, now - span, now + 1, points)
                    assert (rows(one), one.last_at.tolist()) == (rows(alone), alone.last_at.tolist())
                assert len(found[names[-1]]) == 0
        assert await reader.query_many([], now - DAY, now) == {}

    async def test_the_last_value_of_a_row_is_that_of_greatest_time_and_says_when(
        self, redis: Client, reader: Reader
    ) -> None:
        now = now_us()
        begin = now // HOUR * HOUR - 20 * DAY  # only the tier of an hour is kept
        for times in ([begin + 7, begin + 5], [begin + 6, begin + HOUR - 1], [begin + HOUR - 2]):
            await Log(redis, str(times)).append(pack(times, [float(time - begin) for time in times]))
        for width in (HOUR, 30 * DAY):
            found = await reader.query(SERIES, begin, begin + HOUR, 1 if width == HOUR else 10)
            assert (found.last.tolist(), found.last_at.tolist()) == ([float(HOUR - 1)], [begin + HOUR - 1])
        raw = [now - 3, now - 1, now - 2]
        await Log(redis, "raw").append(pack(raw, [1.0, 2.0, 3.0]))
        found = await reader.query(SERIES, begin, now + 1, 10)
        assert (found.last[-1], found.last_at[-1]) == (2.0, now - 1)
        assert (await reader.query(SERIES, now - 3, now)).last_at.tolist() == sorted(raw)

    async def test_series_are_found_by_a_pattern(self, redis: Client, reader: Reader) -> None:
        now = now_us()
        for name in ("sensor-2/temperature", "sensor-1/temperature", "sensor-1/humidity", "Sensor-1/temperature"):
            batch = downsample([replace(pack([now], [1.0]), names=[name])])
            partition = partition_of(name.split("/")[0], 8)
            assert await Writer(redis, "downsample", name).commit(partition, batch, expected=None, next_offset=1) is None
        assert await reader.series("sensor-*/temperature") == ["sensor-1/temperature", "sensor-2/temperature"]
        assert await reader.series("sensor-[2-9]/*") == ["sensor-2/temperature"]
        assert await reader.series("sensor-1") == []
        assert len(await reader.series()) == 4

    async def test_the_tail_gives_each_point_once_in_order_of_arrival(self, redis: Client, reader: Reader) -> None:
        now = now_us()
        log = Log(redis)
        points, cursor = await reader.tail(SERIES, now - HOUR)
        seen: list[float] = points["value"].tolist()
        for step in range(10):
            late = now - HOUR // 2 + step
            await log.append(pack([now + step], [float(step)]), pack([late], [100.0 + step]))
            points, cursor = await reader.tail(SERIES, now - HOUR, cursor)
            seen += points["value"].tolist()
        assert sorted(seen) == [*map(float, range(10)), *(100.0 + step for step in range(10))]

    async def test_an_older_reading_does_not_become_the_latest(self, redis: Client, reader: Reader) -> None:
        now = now_us()
        log = Log(redis)
        await log.append(pack([now], [2.0]))
        await log.append(pack([now - SECOND], [1.0]))
        assert [latest.value for latest in await reader.latest()] == [2.0]

    async def test_a_batch_may_name_newest_values_that_are_not_among_its_points(self, redis: Client, reader: Reader) -> None:
        at = now_us() - 30 * DAY
        batch = downsample([pack([at], [1.0], unit="Cel")])
        slots = [roll_up(batch.series, batch.time, batch.value, tier=tier) for tier in layout.ROLLUPS]
        one = np.zeros(1, dtype=np.int64)
        for value, time in ((3.0, at + 2), (2.0, at + 1)):
            newest = Newest(series=one, time=one + time, value=np.full(1, value), received_at=one + 7)
            writer = Writer(redis, "import", "log")
            progress = await writer.progress(PARTITION)
            batch = replace(batch, series=one[:0], time=one[:0], value=np.empty(0), newest=newest, slots=slots)
            known = progress.next if progress else None
            conflict = await writer.commit(PARTITION, batch, expected=known, next_offset=int(value))
            assert conflict is None
        [latest] = await reader.latest()
        assert (latest.time, latest.value, latest.received_at) == (at + 2, 3.0, 7)
        assert (await reader.query(SERIES, at, at + 1, 1)).count.tolist() == [2]

    async def test_chunks_expire_but_not_before_they_are_rolled_up(self, redis: Client) -> None:
        at = now_us()
        await Log(redis).append(pack([at], [1.0]))
        ttl = await redis.script_load("return redis.call('PTTL', KEYS[1])")
        points = layout.chunk_key(PARTITION, layout.RAW, SERIES, at // layout.RAW.chunk)
        assert await redis.evalsha(ttl, 1, points) == -1
        await seal_all(redis, at)
        assert await redis.evalsha(ttl, 1, points) == -2
        for tier in layout.TIERS:
            keys = [key(PARTITION, tier, SERIES, at // tier.chunk) for key in (layout.chunk_key, layout.sealed_key)]
            left = max([await redis.evalsha(ttl, 1, key) for key in keys])
            assert tier.retention - MINUTE < left * 1000 <= tier.retention + tier.chunk

    async def test_what_is_older_than_points_are_kept_is_rolled_up_at_once(self, redis: Client, reader: Reader) -> None:
        now = now_us()
        times = [now - 4 * HOUR - i * SECOND for i in range(100)]
        await Log(redis).append(pack([now - 100 * DAY, *times, now], [7.0, *map(float, range(100)), 5.0]))
        assert await bytes_of(redis, f"iso:{{{PARTITION}}}:raw:*") > 0
        assert [key async for key in redis.scan_iter(match=f"iso:{{{PARTITION}}}:raw:*", count=100)] == [
            layout.chunk_key(PARTITION, layout.RAW, SERIES, now // layout.RAW.chunk).encode()
        ]
        found = await reader.query(SERIES, now - 101 * DAY, now + 1, 10_000_000_000)
        assert (found.count.sum(), found.sum.sum(), found.last[-1]) == (102, 7 + 99 * 50 + 5, 5)
        async for _ in Sealer(redis, PARTITION).sweep():
            pass
        again = await reader.query(SERIES, now - 101 * DAY, now + 1, 10_000_000_000)
        assert rows(again) == rows(found)
        assert await bytes_of(redis, f"iso:{{{PARTITION}}}:late") == 0

    async def test_points_that_nobody_rolled_up_for_a_day_are_still_there(self, redis: Client, reader: Reader) -> None:
        """As when the worker was away: written in time, and first seen to much later."""
        now = now_us()
        log = Log(redis)
        await log.append(pack([now], [1.0]))
        chunk, old = now // layout.RAW.chunk, now // layout.RAW.chunk - 20
        point = np.array([(now - 20 * HOUR, 1.0)], dtype=layout.POINT).tobytes()
        pipeline = redis.pipeline(transaction=False)
        pipeline.set(layout.chunk_key(PARTITION, layout.RAW, SERIES, old), point)
        pipeline.delete(layout.chunk_key(PARTITION, layout.RAW, SERIES, chunk))
        pipeline.sadd(layout.open_key(PARTITION), layout.open_member(layout.RAW, old))
        await pipeline.execute()
        for _ in range(2):
            found = await Reader(redis, 8).query(SERIES, now - DAY, now + 1)
            assert (found.time.tolist(), found.sum.tolist()) == ([(now - 20 * HOUR) // MINUTE * MINUTE], [1.0])
            await seal_all(redis, now)
        assert await bytes_of(redis, f"iso:{{{PARTITION}}}:raw:*") == 0

    async def test_a_chunk_that_is_damaged_is_said_to_be(self, redis: Client, reader: Reader) -> None:
        at = now_us()
        await Log(redis).append(pack([at], [1.0]))
        damage = await redis.script_load("return redis.call('APPEND', KEYS[1], 'x')")
        await redis.evalsha(damage, 1, layout.chunk_key(PARTITION, layout.RAW, SERIES, at // layout.RAW.chunk))
        for points in (10, 1_000_000):
            with pytest.raises(MalformedChunk, match=f"chunks of {SERIES} are damaged: 17 bytes of raw"):
                await reader.query(SERIES, at - DAY, at + 1, points)

    async def test_an_unknown_series_and_an_empty_range_have_no_rows(self, redis: Client, reader: Reader) -> None:
        now = now_us()
        assert len(await reader.query("nobody/nothing", now - DAY, now)) == 0
        await Log(redis).append(pack([now], [1.0]))
        assert len(await reader.query(SERIES, now - 2 * DAY, now - DAY)) == 0
        assert await Reader(redis, 8).latest() != []

    async def test_thousands_of_series_fit_in_one_batch(self, redis: Client, reader: Reader) -> None:
        count, now = 5_000, now_us()
        devices = [f"d{i}" for i in range(50 * count) if partition_of(f"d{i}", 8) == PARTITION][:count]
        many = Pack(
            names=[f"{device}/t" for device in devices],
            series=np.arange(count, dtype=np.int32),
            time=np.full(count, now),
            value=np.arange(count, dtype=np.float64),
            connector="tcp/1",
            received_at=now,
        )
        await Log(redis).append(many)
        found = {latest.device: latest.value for latest in await reader.latest()}
        assert found == {device: float(i) for i, device in enumerate(devices)}

    async def test_sealing_changes_no_answer_and_takes_less_memory(self, redis: Client, reader: Reader) -> None:
        now = now_us()
        times = [now - 100 * MINUTE + i * SECOND for i in range(100 * 60)]
        await Log(redis).append(pack(times, [round(20 + i % 77 / 100, 2) for i in range(len(times))]))
        before = await answers(reader, now)
        some = [(now - 95 * MINUTE + 7, now - 85 * MINUTE - 3, points) for points in (5, 50, 500, 5_000)]
        parts = [rows(await reader.query(SERIES, *one)) for one in some]
        open_bytes = await bytes_of(redis, f"iso:{{{PARTITION}}}:raw:*")
        assert await seal_all(redis, now) >= 2 * 2  # raw and 10 s, of two hours at least
        assert await bytes_of(redis, f"iso:{{{PARTITION}}}:raw:*") == 0
        assert 0 < await bytes_of(redis, f"iso:{{{PARTITION}}}:sealed:raw:*") < open_bytes / 5
        assert await answers(reader, now) == before
        assert [rows(await reader.query(SERIES, *one)) for one in some] == parts
        ttl = await redis.script_load("return redis.call('PTTL', KEYS[1])")
        chunk = now // layout.RAW.chunk
        left = await redis.evalsha(ttl, 1, layout.sealed_key(PARTITION, layout.RAW, SERIES, chunk))
        assert layout.RAW.retention - MINUTE < left * 1000 <= layout.RAW.retention + layout.RAW.chunk
        assert await seal_all(redis, now) == 0

    async def test_what_comes_late_is_merged_with_what_is_sealed_and_sealed_again(
        self, redis: Client, reader: Reader
    ) -> None:
        now = now_us()
        log, sealer = Log(redis), Sealer(redis, PARTITION)
        at = (now - 11 * MINUTE) // HOUR * HOUR - MINUTE  # its hour is over, and may be sealed
        await log.append(pack([at, at + 20 * SECOND], [1.0, 3.0]))
        async for _ in sealer.sweep():
            pass
        late = pack([at + 20 * SECOND, at - 5 * MINUTE, at + SECOND], [2.0, 5.0, 4.0])
        await log.append(late)
        before = await answers(reader, now)
        assert before[0] == [
            (at - 5 * MINUTE, 1, 5.0, 5.0, 5.0, 5.0),
            *((at + s * SECOND, 1, v, v, v, v) for s, v in ((0, 1.0), (1, 4.0), (20, 3.0), (20, 2.0))),
        ]
        assert before[2][-1][1:] == (4, 10.0, 1.0, 4.0, 2.0)
        sealed = [[count async for count in sealer.sweep() if count] for _ in range(3)]
        assert (sealed[0] != [], sealed[2]) == (True, [])  # first the points, and after that what they were rolled up into
        assert await answers(reader, now) == before
        assert await bytes_of(redis, f"iso:{{{PARTITION}}}:late") == 0

    async def test_what_comes_while_a_chunk_is_sealed_is_not_lost(self, redis: Client, reader: Reader) -> None:
        now = now_us()
        log = Log(redis)
        await log.append(pack([now - 2, now - 1], [1.0, 2.0]))
        meddler: Any = Meddler(redis, lambda: log.append(pack([now], [3.0])))
        assert await seal_all(meddler, now) == 0
        assert [row[2] for row in (await answers(reader, now + 1))[0]] == [1.0, 2.0, 3.0]

    async def test_the_tail_goes_on_over_sealing(self, redis: Client, reader: Reader) -> None:
        now = now_us()
        log = Log(redis)
        await log.append(pack([now - 1, now], [0.0, 1.0]))
        points, cursor = await reader.tail(SERIES, now - HOUR)
        paused = cursor
        seen = points["value"].tolist()
        for step in range(2, 8):
            await log.append(pack([now - step], [float(step)]))
            if step % 2:
                await seal_all(redis, now)
                await log.append(pack([now - step], [100.0 + step]))
            points, cursor = await reader.tail(SERIES, now - HOUR, cursor)
            seen += points["value"].tolist()
        assert seen == [0, 1, 2, 3, 103, 4, 5, 105, 6, 7, 107]
        points, after = await reader.tail(SERIES, now - HOUR, paused)
        assert (points["value"].tolist(), after) == (seen[2:], cursor)

    async def test_after_kill_9_the_store_says_what_it_has(self, redis: Client, reader: Reader, server: Server) -> None:
        """Nearly always all of it; while the disk is busy, what came in the last two seconds may be gone."""
        at = now_us()
        log = Log(redis)
        await log.append(pack([at], [1.0]))
        server.kill()
        with pytest.raises(Unavailable):
            await log.writer.commit(PARTITION, downsample([pack([at + 1], [2.0])]), expected=1, next_offset=2)
        server.start()
        if await log.writer.progress(PARTITION) is None:
            log.next = None
            await log.append(pack([at], [1.0]))
        await log.append(pack([at + 1], [2.0]))  # NOSCRIPT: the server has forgotten the script
        assert (await reader.query(SERIES, at, at + 2)).last.tolist() == [1.0, 2.0]

    async def test_another_number_of_partitions_is_refused(self, redis: Client, server: Server) -> None:
        with pytest.raises(SettingsError, match="holds 8 partitions, ISOTHERM_PARTITIONS is 4"):
            async with client.connected(Settings(redis=server.url, partitions=4)):
                raise AssertionError("unreachable")

    async def test_the_newest_string_value_is_kept_whatever_the_order(self, redis: Client) -> None:
        log = Log(redis)
        now = now_us()
        await log.append(_attributes(("room-1/fw", now, "2"), ("room-1/fw", now - 1, "1"), ("room-10/fw", now, "other")))
        await log.append(_attributes(("room-1/fw", now - 5, "0"), ("room-1/größe", now, "Ä|\x00,")))
        found = await Reader(redis, 8).attributes("room-1")
        assert found == [Attribute("room-1/fw", now, "2"), Attribute("room-1/größe", now, "Ä|\x00,")]
        stored = await redis.hgetall(layout.stored_key(PARTITION))
        assert stored == {b"tcp/1": b"5"}

    async def test_the_registry_knows_who_a_token_belongs_to(self, redis: Client) -> None:
        registry = Registry(redis)
        await registry.add("a")
        first = await registry.new_token("a")
        assert (await registry.by_token(first)) == await registry.get("a")
        assert await registry.by_token("guess") is None
        second, third = await registry.new_token("a"), await registry.new_token("a")
        valid = [await registry.by_token(token) is not None for token in (first, second, third)]
        assert valid == [False, True, True]  # two at a time
        assert await registry.revoke_tokens("a", but_newest=True) == 1
        assert [await registry.by_token(token) is not None for token in (second, third)] == [False, True]
        assert await registry.revoke_tokens("a") == 1
        assert await registry.by_token(third) is None
        assert not [key async for key in redis.scan_iter(match="*token*", count=100)]

    async def test_tokens_that_are_made_at_the_same_time_are_all_known_of(self, redis: Client) -> None:
        registry = Registry(redis)
        await registry.add("a")
        made = await asyncio.gather(*(registry.new_token("a") for _ in range(5)))
        assert sum([await registry.by_token(token) is not None for token in made]) == 2
        await registry.revoke_tokens("a")
        assert [token for token in made if await registry.by_token(token)] == []
        assert not [key async for key in redis.scan_iter(match="*token*", count=100)]

    async def test_a_token_that_is_revoked_or_whose_device_is_removed_while_another_is_made_stays_so(
        self, redis: Client
    ) -> None:
        registry = Registry(redis)
        for end in (registry.revoke_tokens, registry.remove):
            await registry.add("a")
            leaked = await registry.new_token("a")
            meanwhile = _Between(redis, lambda end=end: end("a"))  # type: ignore[misc]
            with suppress(SettingsError):  # there is no such device any more
                await Registry(meanwhile).new_token("a")
            await registry.note(["a"])
            assert await registry.by_token(leaked) is None
        assert not [key async for key in redis.scan_iter(match="*token*", count=100)]

    async def test_labels_that_are_given_at_the_same_time_are_all_there(self, redis: Client) -> None:
        registry = Registry(redis)
        await registry.add("a")
        await asyncio.gather(*(registry.label("a", add=[f"label-{n}"]) for n in range(5)))
        device = await registry.get("a")
        assert device is not None
        assert device.labels == {f"label-{n}" for n in range(5)}

    async def test_no_token_is_kept_as_it_is(self, redis: Client) -> None:
        registry = Registry(redis)
        await registry.add("a")
        token = await registry.new_token("a")
        async for key in redis.scan_iter(match="*", count=100):
            assert token.encode() not in key

    async def test_a_gateway_has_the_children_that_were_added_behind_it(self, redis: Client) -> None:
        registry = Registry(redis)
        with pytest.raises(SettingsError, match="is no gateway"):
            await registry.add("child", gateway="gw")
        await registry.add("gw", is_gateway=True)
        await registry.add("other", is_gateway=True)
        for child in ("child", "second"):
            await registry.add(child, gateway="gw")
        await registry.add("second", gateway="other")
        gateway = await registry.get("gw")
        assert gateway is not None
        assert gateway.children == {"child"}
        await registry.remove("child")
        gateway = await registry.get("gw")
        assert gateway is not None
        assert gateway.children == frozenset()
        assert await registry.names() == ["gw", "other", "second"]

    async def test_a_type_is_kept_until_another_is_said(self, redis: Client) -> None:
        registry = Registry(redis)
        with pytest.raises(SettingsError, match="is no type of a device"):
            await registry.add("a", type="no type")
        types = []
        for said in ("elsys-ers", None, "door", ""):
            await registry.add("a", type=said)
            device = await registry.get("a")
            assert device is not None
            types.append(device.type)
        assert types == ["elsys-ers", "elsys-ers", "door", ""]

    async def test_devices_that_were_seen_are_entered_once(self, redis: Client) -> None:
        registry = Registry(redis)
        await registry.note(["a", "b"])
        before = await registry.get("a")
        await registry.note(["a", "c"])
        assert await registry.names() == ["a", "b", "c"]
        assert await registry.get("a") == before

    async def test_what_the_registry_does_not_know_is_said(self, redis: Client) -> None:
        registry = Registry(redis)
        assert await registry.get("nobody") is None
        for call in (registry.new_token, registry.remove, registry.revoke_tokens):
            with pytest.raises(SettingsError, match="no device 'nobody'"):
                await call("nobody")
        with pytest.raises(SettingsError, match="is no device name"):
            await registry.add("no name")


class _Between:
    """A client beside which something happens once, between reading a device and changing it."""

    def __init__(self, redis: Client, then: Callable[[], Awaitable[object]]) -> None:
        self._redis = redis
        self._then: Callable[[], Awaitable[object]] | None = then

    async def hgetall(self, name: str) -> dict[bytes, bytes]:
        found = await self._redis.hgetall(name)
        if self._then is not None:
            then, self._then = self._then, None
            await then()
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._redis, name)


def _attributes(*attributes: tuple[str, int, str]) -> Pack:
    return replace(pack([], []), attributes=[Attribute(*one) for one in attributes])
