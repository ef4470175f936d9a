"""``isotherm bench store``: the series store by itself, on a Valkey of its own."""

from __future__ import annotations

import contextlib
import socket
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from isotherm.clock import now_us
from isotherm.errors import StackError
from isotherm.limits import DAY, HOUR, MILLISECOND, MINUTE, SECOND
from isotherm.pack import Pack
from isotherm.settings import Settings
from isotherm.store import client, layout, sealed
from isotherm.store.client import Client
from isotherm.store.reader import Reader
from isotherm.store.sealer import Sealer
from isotherm.store.writer import Writer
from isotherm.topics import partition_of

START_SECONDS = 10.0
POLL_SECONDS = 0.02
COMMIT_READINGS = 200_000
PER_COMMIT = 5_000
RUNS = 30
"""How often a query is repeated; the median counts."""

SMALL, LARGE = 2_000, 100_000
"""Numbers of series between which costs are compared."""


async def measure() -> dict[str, Any]:
    """Return the figures of the store.

    The data is that of thermometers: a random walk in steps of 0.01, with clocks that jitter by ms. Bytes are those that
    the server says a key takes, with its name, by the rows in it; a sorted set of the same points is weighed beside it.
    """
    with tempfile.TemporaryDirectory(prefix="isotherm-bench-") as directory, _valkey(Path(directory)) as (url, server):
        async with client.connected(Settings(redis=url)) as redis:
            store = _Store(redis, psutil.Process(server))
            with Progress(console=Console(stderr=True), transient=True) as bar:
                steps = (store.fill, store.weigh, store.seal, store.weigh, store.queries, store.commits)
                for step in bar.track(steps, description="measuring"):
                    await step()
    return store.figures


class _Store:
    """A store with a day of a hundred series and a year of one."""

    def __init__(self, redis: Client, server: psutil.Process) -> None:
        self.figures: dict[str, Any] = {}
        self._redis = redis
        self._server = server
        self._partitions = Settings.model_fields["partitions"].default
        self._reader = Reader(redis, self._partitions)
        self._now = now_us()
        self._next: dict[int, int] = defaultdict(int)
        self._random = np.random.default_rng(1)
        self._day = [f"day-{number}/temperature" for number in range(100)]

    async def fill(self) -> None:
        """A year at 1 / min; a day of ten series at 1 Hz, and of ninety at 0.1 Hz; the last hours of one in a sorted set."""
        await self._write("year/temperature", *self._readings(365 * DAY, MINUTE))
        for number, name in enumerate(self._day):
            time, value = self._readings(DAY, SECOND if number < 10 else 10 * SECOND)
            await self._write(name, time, value)
        recent = time >= (layout.first_open(layout.RAW, self._now) - 1) * layout.RAW.chunk
        members = {
            f"{at}:{number}": float(at) for at, number in zip(time[recent].tolist(), value[recent].tolist(), strict=True)
        }
        await self._redis.zadd("sorted-set", members, nx=False)
        used = await self._usage("sorted-set")
        self.figures["sorted_set_bytes_per_point"] = round(used / len(members), 1)

    async def weigh(self) -> None:
        """What a point and a slot take, open and sealed; called before and after sealing."""
        used: dict[str, int] = defaultdict(int)
        rows: dict[str, int] = defaultdict(int)
        async for key in self._redis.scan_iter(match="iso:{*}:*:day-?/*", count=1000):  # those with 1 Hz
            _, _, *kind, _, _ = key.decode().split(":")
            name = ".".join(kind)
            data = await self._redis.get(key.decode()) or b""
            width = sealed.row_of(next(tier for tier in layout.TIERS if tier.name == kind[-1])).itemsize
            rows[name] += sealed.count_of(data) if kind[0] == "sealed" else len(data) // width
            used[name] += await self._usage(key.decode())
        found = self.figures.setdefault("bytes_per_row", {})
        for name in sorted(used):
            if name.startswith("sealed.") or f"open.{name}" not in found:
                found[name if name.startswith("sealed.") else f"open.{name}"] = round(used[name] / rows[name], 2)

    async def seal(self) -> None:
        """Seal everything whose time is over."""
        count = 0
        began = time.process_time(), self._server_cpu()
        for partition in range(self._partitions):
            for _ in range(3):  # points, what they are rolled up into, and what was late
                count += sum([done async for done in Sealer(self._redis, partition).sweep(self._now)])
        self.figures["sealed_chunks"] = count
        self.figures["seal_us_per_chunk"] = {
            "worker": round((time.process_time() - began[0]) / count * 1e6),
            "server": round((self._server_cpu() - began[1]) / count * 1e6),
        }

    async def queries(self) -> None:
        """Ask for 1,000 points of a year of one series, and of a day of a hundred."""
        now = self._now
        year = ["year/temperature"]
        self.figures["query_ms"] = {
            "year_of_1": await _timed(lambda: self._reader.query_many(year, now - 365 * DAY, now)),
            "day_of_100": await _timed(lambda: self._reader.query_many(self._day, now - DAY, now)),
            "hour_of_1_every_point": await _timed(lambda: self._reader.query_many(self._day[:1], now - HOUR, now, 4_000)),
        }

    async def commits(self) -> None:
        """Write readings of few and of many series, in commits of PER_COMMIT."""
        found = {}
        for count in (SMALL, LARGE):
            names = [f"many-{count}-{number}/temperature" for number in range(count // self._partitions)]
            writer = Writer(self._redis, "bench", f"many-{count}")
            began = time.process_time(), self._server_cpu()
            for first in range(0, COMMIT_READINGS, PER_COMMIT):
                which, series = np.unique(np.arange(first, first + PER_COMMIT) % len(names), return_inverse=True)
                at = np.full(PER_COMMIT, self._now + first)
                pack = Pack(
                    [names[i] for i in which], series.astype(np.int32), at, at.astype(np.float64), "bench/1", self._now
                )
                await self._commit(writer, 0, pack, first // PER_COMMIT)
            found[str(count)] = {
                "worker": round((time.process_time() - began[0]) / COMMIT_READINGS * 1e6, 2),
                "server": round((self._server_cpu() - began[1]) / COMMIT_READINGS * 1e6, 2),
            }
        self.figures["commit_us_per_reading_by_series"] = found

    def _readings(self, span: int, interval: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        count = span // interval
        jitter = self._random.integers(-3, 4, count) * MILLISECOND
        time = self._now - span + np.arange(count, dtype=np.int64) * interval + jitter
        return time, np.round(21.5 + np.cumsum(self._random.normal(0, 0.02, count)), 2)

    async def _write(self, series: str, time: NDArray[np.int64], value: NDArray[np.float64]) -> None:
        partition = partition_of(series.partition("/")[0], self._partitions)
        pack = Pack([series], np.zeros(len(time), dtype=np.int32), time, value, "bench/1", self._now)
        await self._commit(Writer(self._redis, "bench", "fill"), partition, pack, self._next[partition])
        self._next[partition] += 1

    async def _commit(self, writer: Writer, partition: int, pack: Pack, offset: int) -> None:
        from agents.downsample import downsample

        expected = offset if offset else None
        if await writer.commit(partition, downsample([pack]), expected=expected, next_offset=offset + 1) is not None:
            raise StackError("something else writes to the store of the measurement")

    async def _usage(self, key: str) -> int:
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.memory_usage(key, samples=0)
        [used] = await pipeline.execute()
        return int(used or 0)

    def _server_cpu(self) -> float:
        return float(sum(self._server.cpu_times()[:2]))


async def _timed(query: Callable[[], Awaitable[Any]]) -> dict[str, float]:
    await query()
    took = []
    for _ in range(RUNS):
        began = time.perf_counter()
        await query()
        took.append((time.perf_counter() - began) * 1e3)
    return {"p50": round(statistics.median(took), 2), "max": round(max(took), 2)}


@contextlib.contextmanager
def _valkey(directory: Path) -> Iterator[tuple[str, int]]:
    """A Valkey as the local stack starts it: its address and process id, for the length of the block."""
    from isotherm.local.parts import valkey_command

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = valkey_command(Settings(data_dir=directory), port)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _accepts(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise StackError("a Valkey for the measurement did not start")
            time.sleep(POLL_SECONDS)
        yield f"redis://127.0.0.1:{port}/0", process.pid
    finally:
        process.kill()
        process.wait()


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:
        return False
    return True
