"""Commands over MQTT, with mosquitto in between."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import gmqtt
import pytest
from gmqtt.mqtt.constants import MQTTv50

from connectors import dispatch, mqtt
from isotherm.store.client import Client
from tests.contracts.commands import CommandContract, Device, dispatching, send, state
from tests.support.intake import Bench, eventually
from tests.support.mqtt_servers import Mosquitto

pytestmark = [pytest.mark.servers, pytest.mark.timeout(60)]

Come = Callable[[str], AbstractAsyncContextManager[Device]]


@pytest.fixture(scope="module")
def mosquitto(tmp_path_factory: pytest.TempPathFactory, tool: Callable[..., str]) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path_factory.mktemp("mosquitto"), tool("mosquitto")) as server:
        yield server


class MqttDevice:
    """A device at the broker."""

    def __init__(self, bench: Bench, client: gmqtt.Client, name: str) -> None:
        self._bench = bench
        self._client = client
        self._name = name
        self.heard: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def command(self) -> dict[str, Any]:
        return await self.heard.get()

    async def reply(self, reply: dict[str, Any]) -> str:
        producer, configurations = self._bench.producer, self._bench.configurations
        before, rejects = len(producer.facts) + configurations.noted, len(producer.rejects)
        self._client.publish(f"devices/{self._name}/replies", json.dumps(reply), qos=1)
        await eventually(
            lambda: len(producer.rejects) > rejects or len(producer.facts) + configurations.noted > before, 20.0
        )
        return producer.rejects[-1].reason if len(producer.rejects) > rejects else ""


@asynccontextmanager
async def device(bench: Bench, name: str, *, speaks: bool = True) -> AsyncIterator[MqttDevice]:
    """Let a device come: it subscribes, and publishes a reading if it ``speaks``."""
    client = gmqtt.Client(f"device-{name}", clean_session=True)
    found = MqttDevice(bench, client, name)
    subscribed = asyncio.Event()

    def hear(_client: gmqtt.Client, _topic: str, payload: bytes, _qos: int, _properties: Any) -> int:
        found.heard.put_nowait(json.loads(payload))
        return 0

    client.on_message = hear
    client.on_subscribe = lambda *_: subscribed.set()
    host, _, port = bench.settings.mqtt.rpartition(":")
    await client.connect(host, int(port), version=MQTTv50)
    client.subscribe(f"devices/{name}/commands/#", qos=1)
    await subscribed.wait()
    if speaks:
        client.publish(f"devices/{name}/readings", b'{"n":"t","v":1}', qos=1)
    yield found
    await client.disconnect()


class TestMqtt(CommandContract):
    """The contract."""

    version = "5"
    is_seen_to_come = False

    @pytest.fixture
    async def bench(self, redis: Client, mosquitto: Mosquitto) -> AsyncIterator[Bench]:
        settings = {"mqtt": mosquitto.address, "mqtt_version": self.version, "mqtt_client_id": f"test-{self.version}"}
        async with asyncio.timeout(60), dispatching(redis, **settings) as bench:
            yield bench

    @asynccontextmanager
    async def listening(self, bench: Bench) -> AsyncIterator[Come]:
        async with mqtt.listening(bench.site):
            yield lambda name: device(bench, name)


class TestMqtt311(TestMqtt):
    """The same with a connector that does not hear whether anybody has subscribed."""

    version = "3.1.1"

    async def test_a_device_that_was_never_heard_of_is_not_taken_to_be_there(self, bench: Bench) -> None:
        sent = await send(bench, "room-1", "blink")
        async with self.listening(bench), device(bench, "room-1", speaks=False) as silent:
            done, _ = await asyncio.wait({asyncio.create_task(silent.command())}, timeout=1.5)
            assert not done
            await state(bench.control.table, sent, "queued")


class TestMqtt5(TestMqtt):
    """What MQTT 5 makes possible."""

    async def test_a_device_that_only_listens_gets_its_commands(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(dispatch, "BACK_SECONDS", (0.2,))
        sent = await send(bench, "room-9", "blink")
        async with self.listening(bench):
            await eventually(lambda: "returned" in [fact.kind for fact in bench.producer.facts])
            await state(bench.control.table, sent, "queued")
            async with device(bench, "room-9", speaks=False) as silent:
                assert (await silent.command())["id"] == sent.id
                await state(bench.control.table, sent, "sent")
