"""Every numbered reading is stored once, whatever is killed. ``make chaos`` runs the long form, a million readings a run."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from isotherm.clock import now_us
from isotherm.limits import DAY, HOUR, MINUTE
from isotherm.settings import Settings
from isotherm.store import client
from isotherm.store.reader import Reader
from isotherm.store.sealer import Sealer
from simulator.load import LINKS
from tests.conftest import missing
from tests.support import apache_kafka
from tests.support.numbered import BATCHES, NumberedDevice
from tests.support.stack import ISOTHERM, Stack

pytestmark = [pytest.mark.servers, pytest.mark.timeout(1200)]

LONG = "ISOTHERM_CHAOS_SECONDS" in os.environ
READINGS = 1_000_000 if LONG else 30_000
"""How many must be acknowledged at least."""

SECONDS = 120.0 if LONG else 15.0
"""How long the disturbance lasts at least."""

ZOMBIE_SECONDS = 90.0 if LONG else 10.0
SEEDS = (1, 2, 3) if LONG else (1,)
DEVICES = 4
"""Devices a protocol."""

QUIET_SECONDS = (0.3, 3.0)
"""Between two blows."""

DRAIN_SECONDS = 120.0

Blow = Callable[[], Awaitable[None]]


class Workers:
    """Workers beside the stack's own, which share its partitions."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._process = self._start()
        self._stopped: list[subprocess.Popen[bytes]] = []

    def _start(self) -> subprocess.Popen[bytes]:
        with (self._stack.data_dir / "logs" / "second-worker.log").open("ab") as log:
            return subprocess.Popen([*ISOTHERM, "worker"], env=self._stack.environment, stdout=log, stderr=log)

    async def kill(self) -> None:
        """Kill it, and start another."""
        self._process.kill()
        await asyncio.to_thread(self._process.wait)
        self._process = self._start()

    async def replace(self) -> None:
        """Stop it in order, and start another: a rolling restart."""
        self._process.terminate()
        await asyncio.to_thread(self._process.wait)
        self._process = self._start()

    async def stun(self) -> None:
        """Stop it in the middle of what it does, let others take over, and wake it up."""
        zombie, self._process = self._process, self._start()
        self._stopped.append(zombie)
        zombie.send_signal(signal.SIGSTOP)
        await asyncio.sleep(ZOMBIE_SECONDS)
        zombie.send_signal(signal.SIGCONT)

    def end(self) -> None:
        """End all of them."""
        for process in (*self._stopped, self._process):
            process.kill()
            process.wait()


class Chaos:
    """Strikes at random, and counts its blows."""

    def __init__(self, stack: Stack, workers: Workers, brokers: list[apache_kafka.ApacheKafka], seed: int) -> None:
        self.blows: Counter[str] = Counter()
        self._stack = stack
        self._brokers = brokers
        self._random = random.Random(seed)
        self._choices: dict[str, Blow] = {
            "worker": lambda: self._signal("worker", signal.SIGKILL),
            "worker restarted": lambda: self._signal("worker", signal.SIGTERM),
            "second worker": workers.kill,
            "second worker restarted": workers.replace,
            "store": lambda: self._signal("store", signal.SIGKILL),
            "mqtt broker restarted": lambda: self._signal("mqtt-broker", signal.SIGTERM),
            "kafka": self._kill_broker,
            **{part: lambda part=part: self._signal(part, signal.SIGKILL) for part in ("tcp", "http", "coap", "mqtt")},  # type: ignore[misc]
        }

    async def run(self, is_enough: Callable[[], bool]) -> None:
        """Strike until it is enough; each kind of blow at least once, in the order of chance."""
        names = self._random.sample(list(self._choices), len(self._choices))
        while names or not is_enough():
            name = names.pop() if names else self._random.choice(list(self._choices))
            await self._choices[name]()
            self.blows[name] += 1
            await asyncio.sleep(self._random.uniform(*QUIET_SECONDS))

    async def _signal(self, part: str, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has not been started again
            os.kill(self._stack.pid_of(part), number)

    async def _kill_broker(self) -> None:
        broker = self._random.choice(self._brokers)
        await asyncio.to_thread(broker.kill)
        await asyncio.to_thread(broker.start)


@pytest.mark.parametrize("seed", SEEDS)
async def test_numbered_readings_are_stored_once(tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    _needs_kafka()
    with apache_kafka.ApacheKafka(apache_kafka.LIBS, tmp_path / "kafka") as kafka:
        await _wreak(tmp_path, [kafka], seed, capsys)


@pytest.mark.skipif(not LONG, reason="three brokers take half a minute to start: make chaos")
async def test_with_three_brokers_of_which_one_is_killed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _needs_kafka()
    with apache_kafka.ApacheKafkaCluster(apache_kafka.LIBS, tmp_path / "kafka") as kafka:
        await _wreak(tmp_path, kafka.nodes, 1, capsys)


def _needs_kafka() -> None:
    if reason := apache_kafka.available():
        missing(reason)


async def _wreak(
    tmp_path: Path, brokers: list[apache_kafka.ApacheKafka], seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {
        "kafka": ",".join(broker.bootstrap for broker in brokers),
        "replication": str(len(brokers)),
        "group_session_seconds": "6",
    }
    with ExitStack() as cleaning:
        stack = cleaning.enter_context(Stack(tmp_path / "stack", "--no-simulator", **settings))
        workers = Workers(stack)
        cleaning.callback(workers.end)
        chaos = Chaos(stack, workers, brokers, seed)
        fleet = list(_fleet(stack))
        await _disturb(fleet, chaos, workers)
        report = await _judged(stack, fleet)
        with capsys.disabled():
            print("\n" + json.dumps({"seed": seed, "brokers": len(brokers), "blows": chaos.blows, **report}))
        assert report["acknowledged"] >= READINGS
        assert (report["lost"], report["duplicated"]) == (0, 0), report
        assert report["stored"] == report["acknowledged"] == report["in_rollups"] == report["in_ledger"], report


def _fleet(stack: Stack) -> Iterator[NumberedDevice]:
    for protocol, link in LINKS.items():
        port = getattr(stack.ports, "http" if protocol == "ws" else protocol)
        for number in range(DEVICES):
            yield NumberedDevice(f"{protocol}-{number}", link, ("127.0.0.1", port), BATCHES[protocol])


async def _disturb(fleet: list[NumberedDevice], chaos: Chaos, workers: Workers) -> None:
    """Let the fleet send, and strike, until both have had enough."""
    stop, began = asyncio.Event(), time.monotonic()
    share = 2 * READINGS / SECONDS / sum(device.batch for device in fleet)  # twice what must be: it is hindered

    def is_enough() -> bool:
        return time.monotonic() - began >= SECONDS and sum(device.acknowledged for device in fleet) >= READINGS

    async with asyncio.TaskGroup() as tasks:
        for device in fleet:
            tasks.create_task(device.send(device.batch * share, stop), name=device.name)
        zombie = tasks.create_task(workers.stun(), name="zombie")
        await chaos.run(is_enough)
        await zombie
        stop.set()


async def _judged(stack: Stack, fleet: list[NumberedDevice]) -> dict[str, int]:
    """Compare what is stored with what was acknowledged, once it is all there or nothing more comes."""
    settings = Settings(redis=f"redis://127.0.0.1:{stack.ports.redis}/0")
    acknowledged = sum(device.acknowledged for device in fleet)
    async with client.connected(settings) as redis:
        reader = Reader(redis, settings.partitions)
        deadline = time.monotonic() + DRAIN_SECONDS
        while time.monotonic() < deadline:
            found = {device.name: await _stored(reader, device) for device in fleet}
            if sum(map(len, found.values())) >= acknowledged and stack.json("ledger")["total"]["in_flight"] == 0:
                break
            await asyncio.sleep(0.5)  # another process's progress
        distinct = {name: np.unique(numbers) for name, numbers in found.items()}
        total = stack.json("ledger")["total"]
        for partition in range(settings.partitions):  # and again as it will be when the hour is over
            for later in (0, HOUR + 15 * MINUTE):
                async for _ in Sealer(redis, partition).sweep(now_us() + later):
                    pass
        rows = await reader.query_many([f"{device.name}/temperature" for device in fleet], now_us() - DAY, now_us() + HOUR)
    return {
        "acknowledged": acknowledged,
        "sent_again": sum(device.resent for device in fleet),
        "stored": sum(map(len, found.values())),
        "lost": sum(
            device.acknowledged - int(np.isin(np.arange(1, device.acknowledged + 1), distinct[device.name]).sum())
            for device in fleet
        ),
        "duplicated": sum(len(numbers) - len(distinct[name]) for name, numbers in found.items()),
        "in_rollups": int(sum(history.count.sum() for history in rows.values())),
        "in_ledger": total["stored"],
        "duplicates_refused": total["duplicates"],
    }


async def _stored(reader: Reader, device: NumberedDevice) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    series = f"{device.name}/temperature"
    return (await reader.query(series, now_us() - 2 * HOUR, now_us() + HOUR, 100_000_000)).last
