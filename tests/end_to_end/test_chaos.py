"""What is acknowledged is stored, whatever dies. ``make chaos`` runs the long form of these tests."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import aiohttp
import psutil
import pytest

from isotherm.topics import partition_of
from simulator.load import LINKS, Link, line
from tests.conftest import missing
from tests.support import apache_kafka
from tests.support.ports import free_port
from tests.support.stack import ISOTHERM, Stack

pytestmark = pytest.mark.servers

SECONDS = float(os.environ.get("ISOTHERM_CHAOS_SECONDS", "8"))
"""How long the disturbance lasts."""

PATIENCE_SECONDS = 30.0
"""A refusal is due after 5 s; tests on a busy machine are not the place to time it."""

MAX_GROWTH = 100 * 2**20


REFUSING = sorted(LINKS.keys() - {"mqtt"})
"""Protocols in which the sender hears from us; an MQTT broker acknowledges by itself, and keeps what we do not take."""


def part_of(protocol: str) -> str:
    return "http" if protocol == "ws" else protocol


def address_of(stack: Stack, protocol: str) -> tuple[str, int]:
    return "127.0.0.1", int(getattr(stack.ports, part_of(protocol)))


class Device:
    """Sends 0, 1, 2, … over one protocol, one after the other, and knows which were acknowledged."""

    def __init__(self, stack: Stack, protocol: str, name: str) -> None:
        self.name = name
        self.acknowledged: list[int] = []
        self.refusals = 0
        self._protocol = protocol
        self._kind = LINKS[protocol]
        self._address = address_of(stack, protocol)

    async def send(self, stop: asyncio.Event) -> None:
        number = 0
        while not stop.is_set():
            with contextlib.suppress(OSError, EOFError, aiohttp.ClientError):
                async with connected(self._kind, self._address) as link:
                    while not stop.is_set():
                        number += 1
                        await link.send(line(self.name, number, time.time()))
                        try:
                            await link.acknowledge(link.acknowledged + 1)
                        except ConnectionError:
                            self.refusals += 1
                            raise
                        self.acknowledged.append(number)
                        if self._protocol == "mqtt":
                            await asyncio.sleep(0.01)  # a broker answers at once: a query shows one reading every few ms
            await asyncio.sleep(0.05)  # the server is away: there is nothing to wait for


@contextlib.asynccontextmanager
async def connected(kind: type[Link], address: tuple[str, int]) -> AsyncIterator[Link]:
    link = kind()
    await link.open(*address)
    try:
        yield link
    finally:
        await link.close()


def stored_values(stack: Stack, device: str) -> set[int]:
    rows = stack.json("query", device, "temperature", "--last", "10m", "--points", "100000")
    return {int(row["last"]) for row in rows}


async def until_stored(stack: Stack, devices: list[Device]) -> None:
    for device in devices:
        assert len(device.acknowledged) > 20
        deadline = time.monotonic() + 60
        while lost := set(device.acknowledged) - await asyncio.to_thread(stored_values, stack, device.name):
            assert time.monotonic() < deadline, f"{device.name} lost {sorted(lost)[:10]}"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("stack"), "--no-simulator") as stack:
        yield stack


async def test_of_two_mqtt_connectors_that_divide_the_load_one_is_killed_and_mosquitto_starts_anew(tmp_path: Path) -> None:
    """The one that was killed comes again before mosquitto is away, while it is, and after it is back."""
    names = sorted((f"device-{number}" for number in range(10)), key=lambda name: partition_of(name, 2))
    names = [*names[:2], *names[-2:]]
    assert [partition_of(name, 2) for name in names] == [0, 0, 1, 1]
    with Stack(tmp_path / "stack", "--no-simulator", mqtt_workers="2") as stack:
        health_port = free_port()
        with second_connector(stack, health_port) as start:
            second = start()
            # From when on there is a session for the messages of its devices.
            assert await asyncio.to_thread(listens, second), "the second connector did not start"
            devices = [Device(stack, "mqtt", name) for name in names]
            stop = asyncio.Event()
            async with asyncio.TaskGroup() as tasks:
                for device in devices:
                    tasks.create_task(device.send(stop))
                for turn in range(max(3, int(SECONDS / 4))):
                    await asyncio.sleep(1.0)
                    second.kill()
                    second.wait()
                    if turn % 3 == 0:
                        second = start()
                    # In order: killed, it forgets what it acknowledged since it last wrote its file.
                    os.kill(stack.pid_of("mqtt-broker"), signal.SIGTERM)
                    await asyncio.to_thread(stack.wait_for, "part", part="mqtt-broker", state="backing off")
                    if turn % 3 == 1:
                        second = start()
                    await asyncio.to_thread(stack.wait_for, "part", part="mqtt-broker", state="ready")
                    if turn % 3 == 2:
                        second = start()
                await asyncio.sleep(1.0)
                stop.set()
            await until_stored(stack, devices)
            count = sum(len(device.acknowledged) for device in devices)
            for port in (stack.ports.mqtt_health, health_port):
                assert 0 < await accepted_by(port) < count, "they did not divide the load"
        assert stack.json("ledger")["total"]["lost"] == 0


@contextlib.contextmanager
def second_connector(stack: Stack, health_port: int) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts the second of two MQTT connectors, as often as it is called; all end with the block."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        environment = stack.environment | {"ISOTHERM_MQTT_WORKER": "1", "ISOTHERM_HEALTH_PORT": str(health_port)}
        process = subprocess.Popen([*ISOTHERM, "connect", "mqtt"], env=environment, stderr=subprocess.PIPE)
        started.append(process)
        return process

    try:
        yield start
    finally:
        for process in started:
            process.kill()
            process.wait()


def listens(connector: subprocess.Popen[bytes]) -> bool:
    """Tell, when it has begun or ended, whether a connector has subscribed."""
    assert connector.stderr is not None
    return any(b"listening on mqtt://" in line for line in connector.stderr)


async def accepted_by(health_port: int) -> float:
    """Return how many readings an MQTT connector that runs has brought to Kafka."""
    async with aiohttp.ClientSession() as session:
        metrics = await (await session.get(f"http://127.0.0.1:{health_port}/metrics")).text()
    [count] = re.findall(r'^isotherm_accepted_readings_total\{protocol="mqtt"\} ([\d.e+]+)', metrics, re.MULTILINE)
    return float(count)


async def test_while_kafka_is_stopped_senders_are_refused_and_memory_is_bounded(tmp_path: Path) -> None:
    if reason := apache_kafka.available():
        missing(reason)
    with (
        apache_kafka.ApacheKafka(apache_kafka.LIBS, tmp_path / "kafka") as kafka,
        Stack(tmp_path / "stack", "--no-simulator", kafka=kafka.bootstrap) as stack,
    ):
        devices = [Device(stack, protocol, f"{protocol}-{number}") for protocol in REFUSING for number in range(2)]
        connectors = [psutil.Process(stack.pid_of(part)) for part in ("tcp", "http", "coap")]
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            sending = [tasks.create_task(device.send(stop)) for device in devices]
            flooding = tasks.create_task(flood(stack))
            await asyncio.sleep(4.0)
            before = [process.memory_info().rss for process in connectors]
            await asyncio.to_thread(kafka.stop)
            stopped_at = time.monotonic()
            await refused(stack)
            most = before
            while time.monotonic() < stopped_at + SECONDS:
                most = [max(old, process.memory_info().rss) for old, process in zip(most, connectors, strict=True)]
                await asyncio.sleep(0.2)
            await asyncio.to_thread(kafka.start)
            acknowledged = [len(device.acknowledged) for device in devices]
            deadline = time.monotonic() + 60
            for device, count in zip(devices, acknowledged, strict=True):
                while len(device.acknowledged) < count + 20:  # it goes on by itself
                    assert time.monotonic() < deadline, f"{device.name} does not go on"
                    await asyncio.sleep(0.1)
            flooding.cancel()
            stop.set()
            await asyncio.wait(sending)
        growth = [after - early for early, after in zip(before, most, strict=True)]
        assert max(growth) < MAX_GROWTH, growth
        assert all(device.refusals for device in devices)
        await until_stored(stack, devices)
        total = stack.json("ledger")["total"]
        assert total["lost"] == 0
        assert total["rejected"] <= 1  # the line that the flood was in when it was ended


async def refused(stack: Stack) -> None:
    """See that every protocol refuses what comes now."""
    async with asyncio.TaskGroup() as tasks:
        for protocol in REFUSING:
            tasks.create_task(_refused(LINKS[protocol], address_of(stack, protocol), f"late-{protocol}"))


async def _refused(kind: type[Link], address: tuple[str, int], device: str) -> None:
    async with connected(kind, address) as link:
        await link.send(line(device, 1, time.time()))
        with pytest.raises(ConnectionError, match=r"503|unavailable|5\.03"):
            async with asyncio.timeout(PATIENCE_SECONDS):
                await link.acknowledge(1)


async def flood(stack: Stack) -> None:
    """Send as much as the connectors take, for ever."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_flood_tcp(*address_of(stack, "tcp")))
        for _ in range(20):
            tasks.create_task(_flood_http(*address_of(stack, "http")))


async def _flood_tcp(host: str, port: int) -> None:
    _, writer = await asyncio.open_connection(host, port)
    payload = b"".join(line(f"flood-{number % 500}", number, time.time()) for number in range(5_000))
    while True:
        writer.write(payload)
        await writer.drain()


async def _flood_http(host: str, port: int) -> None:
    body = b"".join(line(f"flood-{number % 500}", number, time.time()) for number in range(5_000))
    limit = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(timeout=limit) as session:
        while True:
            async with session.post(f"http://{host}:{port}/api/v1/readings", data=body) as answer:
                assert answer.status in (204, 503), await answer.text()
            if answer.status == 503:
                assert answer.headers["Retry-After"]
                await asyncio.sleep(0.2)


def bytes_in(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.iterdir())


async def test_a_store_that_falls_back_while_nothing_comes_is_filled_again(stack: Stack, tmp_path: Path) -> None:
    device = Device(stack, "http", "quiet")
    data, copy = stack.data_dir / "store" / "appendonlydir", tmp_path / "copy"
    for numbers in (range(1, 101), range(101, 201)):
        async with connected(LINKS["http"], address_of(stack, "http")) as link:
            for number in numbers:
                await link.send(line(device.name, number, time.time()))
                await link.acknowledge(link.acknowledged + 1)
                device.acknowledged.append(number)
        await until_stored(stack, [device])
        if not copy.exists():
            shutil.copytree(data, copy)
    os.kill(stack.pid_of("store"), signal.SIGSTOP)
    assert bytes_in(copy) < bytes_in(data), "what is put back has less; it may be filled again before one can look"
    shutil.rmtree(data)
    shutil.copytree(copy, data)
    os.kill(stack.pid_of("store"), signal.SIGKILL)
    await asyncio.to_thread(stack.wait_for, "part", part="store", state="ready")
    await until_stored(stack, [device])
