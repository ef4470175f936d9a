"""The device's client in Python over MQTT, with mosquitto and a connector behind it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from connectors import mqtt
from isotherm.device import device as module
from isotherm.device.device import Device
from isotherm.store.client import Client
from tests.contracts.commands import configured, dispatching, send, state
from tests.support.intake import Bench, eventually
from tests.support.mqtt_servers import Mosquitto

pytestmark = [pytest.mark.servers, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def mosquitto(tmp_path_factory: pytest.TempPathFactory, tool: Callable[..., str]) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path_factory.mktemp("mosquitto"), tool("mosquitto")) as server:
        yield server


@pytest.fixture
async def bench(redis: Client, mosquitto: Mosquitto) -> AsyncIterator[Bench]:
    async with (
        asyncio.timeout(100),
        dispatching(redis, mqtt=mosquitto.address, mqtt_version="5") as bench,
        mqtt.listening(bench.site),
    ):
        yield bench


async def test_readings_arrive_each_with_its_number_also_over_broken_connections(
    bench: Bench, mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MESSAGE_BYTES", 2_000)
    device = Device("127.0.0.1", "pump-7", mosquitto.port, mqtt=True)
    device.start()
    for number in range(3_000):
        device.send("t", number)
        if number in (500, 1_500):
            await asyncio.to_thread(broken, device)
    assert await asyncio.to_thread(device.close, 60.0)
    assert device.counts.acknowledged == 3_000
    assert device.counts.connections >= 3
    await eventually(lambda: len({*values(bench)}) == 3_000, 30.0)
    assert {*values(bench)} == {float(number) for number in range(3_000)}
    assert set(numbered(bench).values()) == {1}, "what came twice has the same number"


async def test_it_obeys_commands_and_says_what_it_has(bench: Bench, mosquitto: Mosquitto) -> None:
    device = Device("127.0.0.1", "valve", mosquitto.port, mqtt=True)
    device.on_command("open", lambda parameters: {"opened": parameters["to"]})
    device.on_command("configure", lambda parameters: parameters["values"])
    device.start()
    try:
        for number in range(20):
            sent = await send(bench, "valve", "open", {"to": number, "text": "x" * (number * 500)})
            assert (await state(bench.control.table, sent, "answered")).result == f'{{"opened":{number}}}'
        await bench.configurations.change("valve", {"interval": 5}, "eve")
        await configured(bench.configurations, "valve", "applied")
    finally:
        assert await asyncio.to_thread(device.close)
    assert bench.producer.rejects == []


async def test_a_device_that_the_broker_does_not_let_in_says_so(
    tmp_path_factory: pytest.TempPathFactory, tool: Callable[..., str]
) -> None:
    directory = tmp_path_factory.mktemp("closed")
    with Mosquitto(directory, tool("mosquitto"), "allow_anonymous false") as closed:
        device = Device("127.0.0.1", "pump-7", closed.port, token="wrong", mqtt=True)
        device.start()
        device.send("t", 1)
        await eventually(lambda: (device.problem or "").startswith("auth"), 30.0)
        assert not await asyncio.to_thread(device.close, 0.0)
        assert device.counts.pending == 1


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152])
def test_packets_of_any_size_are_read_as_they_were_written(size: int) -> None:
    packet = module._packet(0x32, b"x" * size)
    assert module._packet_in(packet + b"more") == (0x32, b"x" * size, len(packet))
    for cut in {1, 2, len(packet) - 1} - {len(packet)}:
        assert module._packet_in(packet[:cut]) is None


def broken(device: Device) -> None:
    """Break the connection of a device that has one."""
    before = device.counts.connections
    while device.counts.connections == 0:
        threading.Event().wait(0.01)
    way = device._way
    assert way is not None
    way.shutdown(2)
    while device.counts.connections <= max(1, before):
        threading.Event().wait(0.01)


def values(bench: Bench) -> list[float]:
    return bench.producer.values_of("pump-7/t")


def numbered(bench: Bench) -> dict[int, int]:
    """Return number -> how many values have it."""
    found: dict[int, set[float]] = {}
    for packs in bench.producer.packs.values():
        for pack in packs:
            assert pack.seq is not None
            for number, value in zip(pack.seq, pack.value, strict=True):
                found.setdefault(int(number), set()).add(float(value))
    return {number: len(several) for number, several in found.items()}
