"""Unmodified brokers and clients that know nothing of us: mosquitto, amqtt, aedes; mosquitto_pub, paho-mqtt, npm's mqtt."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from connectors import mqtt
from connectors.decoders import Decoders, Hook
from connectors.mqtt import subscriber
from connectors.mqtt.names import client_id
from connectors.mqtt.users import Files
from isotherm.registry import Device, mosquitto_hash
from isotherm.topics import partition_of
from tests.conftest import missing
from tests.support.certificates import Authority
from tests.support.intake import Bench, eventually
from tests.support.mqtt_servers import NODE, Aedes, Amqtt, Mosquitto, MqttServer

pytestmark = pytest.mark.servers

BROKERS = ["mosquitto", "amqtt", "aedes"]
COUNT = 500


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriber, "RECONNECT_SECONDS", (0.05, 0.2))


@pytest.fixture
def node(tool: Callable[..., str]) -> str:
    found = tool("node")
    if not (NODE / "node_modules" / "aedes").exists():
        missing("npm's packages are not installed; see tests/prepare.sh")
    return found


@pytest.fixture(params=BROKERS)
def broker(request: pytest.FixtureRequest, tmp_path: Path, tool: Callable[..., str]) -> Iterator[MqttServer]:
    kinds: dict[str, Callable[[], MqttServer]] = {
        "mosquitto": lambda: Mosquitto(tmp_path / "broker", tool("mosquitto")),
        "amqtt": lambda: Amqtt(tmp_path / "broker"),
        "aedes": lambda: Aedes(tmp_path / "broker", request.getfixturevalue("node")),
    }
    with kinds[request.param]() as server:
        yield server


@asynccontextmanager
async def listening(address: str, decoders: Decoders | None = None, **settings: Any) -> AsyncIterator[Bench]:
    bench = Bench(mqtt=address, decoders=decoders, **settings)
    async with asyncio.timeout(60), bench.intake.running(), mqtt.listening(bench.site):
        yield bench


async def run(*command: str) -> str:
    """Run a client to its end; returns what it printed."""
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def mosquitto_pub(program: str, server: MqttServer) -> tuple[str, ...]:
    version = "5" if server.version == "5" else "311"
    return (program, "-h", "127.0.0.1", "-p", str(server.port), "-V", version, "-q", "1", "-i", "publisher")


@pytest.mark.parametrize("broker", BROKERS, indirect=True)
async def test_what_mosquitto_pub_publishes_is_stored(broker: MqttServer, tool: Callable[..., str], tmp_path: Path) -> None:
    lines = tmp_path / "lines"
    lines.write_text("".join(f'{{"n":"t","v":{i}}}\n' for i in range(COUNT)))
    async with listening(broker.address) as bench:
        with lines.open() as source:
            command = [*mosquitto_pub(tool("mosquitto_pub"), broker), "-t", "devices/room-1/readings", "-l"]
            await asyncio.to_thread(subprocess.run, command, stdin=source, check=True, timeout=60)
        await bench.delivered(COUNT)
    assert bench.producer.values_of("room-1/t") == list(range(COUNT))


@pytest.mark.parametrize("broker", BROKERS, indirect=True)
async def test_what_paho_publishes_is_stored(broker: MqttServer) -> None:
    version = MQTTProtocolVersion.MQTTv5 if broker.version == "5" else MQTTProtocolVersion.MQTTv311
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="paho", protocol=version)
    async with listening(broker.address, mqtt_version=broker.version) as bench:
        client.connect("127.0.0.1", broker.port)
        client.loop_start()
        published = [client.publish("devices/paho/temperature", str(i), qos=1) for i in range(COUNT)]
        for one in published:
            await asyncio.to_thread(one.wait_for_publish, 30)
        await bench.delivered(COUNT)
        client.disconnect()
        client.loop_stop()
    assert sorted(bench.producer.values_of("paho/temperature")) == list(range(COUNT))


@pytest.mark.parametrize("broker", BROKERS, indirect=True)
async def test_what_npms_mqtt_publishes_is_stored(broker: MqttServer, node: str) -> None:
    async with listening(broker.address, mqtt_version=broker.version) as bench:
        level = "5" if broker.version == "5" else "4"
        printed = await run(node, str(NODE / "publish.js"), f"mqtt://{broker.address}", str(COUNT), level)
        assert int(printed) == COUNT
        await bench.delivered(COUNT)
    assert sorted(bench.producer.values_of("npm/value")) == list(range(COUNT))


async def test_properties_of_mqtt_5_say_format_and_token(tmp_path: Path, tool: Callable[..., str]) -> None:
    with Mosquitto(tmp_path, tool("mosquitto")) as server:
        async with listening(server.address, auth="token") as bench:
            bench.registry.add("room-1")
            client = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
            client.connect("127.0.0.1", server.port)
            client.loop_start()
            properties: Any = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.ContentType = "application/senml+json"
            properties.UserProperty = [("token", "s-room-1")]
            client.publish("devices/room-1/readings", b'[{"n":"t","v":1}]', qos=1, properties=properties)
            client.publish("v1/devices/me/telemetry", b'{"t":2}', qos=1, properties=properties)
            await bench.delivered(2)
            client.disconnect()
            client.loop_stop()
    assert bench.producer.values_of("room-1/t") == [1, 2]


@pytest.mark.parametrize("broker", BROKERS, indirect=True)
async def test_a_broker_that_starts_anew_is_subscribed_to_again(broker: MqttServer, tool: Callable[..., str]) -> None:
    publish = mosquitto_pub(tool("mosquitto_pub"), broker)
    async with listening(broker.address, mqtt_version=broker.version) as bench:
        await run(*publish, "-t", "devices/room-1/t", "-m", "1")
        await bench.delivered(1)
        broker.stop()
        broker.start()
        value = 1
        while not bench.producer.values_of("room-1/u"):  # what comes before the subscription has no reader
            value += 1
            await run(*publish, "-t", "devices/room-1/u", "-m", str(value))
            await asyncio.sleep(0.1)
    assert bench.producer.values_of("room-1/t") == [1]


@pytest.mark.parametrize("broker", BROKERS, indirect=True)
async def test_what_is_published_while_the_connector_is_away_is_kept(broker: MqttServer, tool: Callable[..., str]) -> None:
    if not broker.keeps_sessions:
        pytest.skip("this broker keeps no session for a client that is away; connectors/README.md says so")
    publish = mosquitto_pub(tool("mosquitto_pub"), broker)
    async with listening(broker.address, mqtt_version=broker.version):
        pass
    for value in range(5):
        await run(*publish, "-t", "devices/room-1/t", "-m", str(value))
    async with listening(broker.address, mqtt_version=broker.version) as bench:
        await bench.delivered(5)
    assert sorted(bench.producer.values_of("room-1/t")) == list(range(5))


async def test_how_many_connectors_divide_the_devices_is_changed_as_the_readme_says_and_nothing_is_lost(
    tmp_path: Path, tool: Callable[..., str]
) -> None:
    names = [f"room-{number}" for number in range(6)]
    assert {partition_of(name, 2) for name in names} == {0, 1}
    with Mosquitto(tmp_path, tool("mosquitto")) as server:
        benches = []
        publish = mosquitto_pub(tool("mosquitto_pub"), server)

        async def send(value: int) -> None:
            for name in names:
                await run(*publish, "-t", f"devices/{name}/t", "-m", str(value))

        async with contextlib.AsyncExitStack() as new:
            async with listening(server.address) as old:
                await send(0)
                for number in range(2):
                    benches.append(
                        await new.enter_async_context(listening(server.address, mqtt_workers=2, mqtt_worker=number))
                    )
                await send(1)
                await old.delivered(2 * len(names))
            await send(2)
            for number, bench in enumerate(benches):
                await bench.delivered(2 * sum(partition_of(name, 2) == number for name in names))
        for name in names:
            stored = [value for bench in (old, *benches) for value in bench.producer.values_of(f"{name}/t")]
            assert sorted(stored) == [0, 1, 1, 2]
        # The old session has all that came since, until it is ended.
        await run(tool("mosquitto_sub"), "-p", str(server.port), "-i", client_id(old.settings), "-t", "none", "-E")
        await send(3)
        async with listening(server.address) as old:
            await send(4)
            await old.delivered(len(names))
        assert [old.producer.values_of(f"{name}/t") for name in names] == [[4]] * len(names)


# Who may connect and publish: mosquitto.


async def test_tls_and_a_client_certificate(tmp_path: Path, tool: Callable[..., str]) -> None:
    authority = Authority(tmp_path, tool("openssl"))
    own, ours = authority.sign("broker", "IP:127.0.0.1"), authority.sign("connector", "DNS:connector")
    lines = (f"cafile {authority.certificate}", f"certfile {own.certificate}", f"keyfile {own.key}")
    certified: dict[str, Any] = {"mqtt_certificate": ours.certificate, "mqtt_key": ours.key}
    trusting: dict[str, Any] = {"mqtt_tls": True, "mqtt_ca": authority.certificate}
    with Mosquitto(
        tmp_path / "broker", tool("mosquitto"), *lines, "require_certificate true", "allow_anonymous true"
    ) as server:
        async with listening(server.address, **trusting, **certified) as bench:
            await run(
                *mosquitto_pub(tool("mosquitto_pub"), server),
                *("--cafile", str(authority.certificate), "--cert", str(ours.certificate), "--key", str(ours.key)),
                *("-t", "devices/room-1/t", "-m", "1"),
            )
            await bench.delivered(1)
        for wrong in (certified | {"mqtt_tls": True}, trusting):  # an authority that we do not know; no certificate of ours
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1.5), listening(server.address, **wrong):
                    raise AssertionError("it was let in")


class Registered:
    """A registry with fixed devices."""

    def __init__(self, *devices: Device) -> None:
        self.devices = devices
        self.changes = 1

    async def version(self) -> int:
        return self.changes

    async def all(self) -> tuple[Device, ...]:
        return self.devices


def device(name: str, **more: Any) -> Device:
    return Device(name, 0, mosquitto=mosquitto_hash(f"s-{name}"), **more)


@pytest.fixture
async def guarded(tmp_path: Path, tool: Callable[..., str]) -> AsyncIterator[tuple[Mosquitto, Files, Registered]]:
    """A mosquitto with users and rights from a registry."""
    registered = Registered(
        device("room-1"), device("room-2"), device("gw", is_gateway=True, children=frozenset({"room-2"}))
    )
    files = Files(registered, tmp_path / "users", {"connector": "secret"}, ["doors/{device}/up"])  # type: ignore[arg-type]
    await files.write()
    with Mosquitto(tmp_path / "broker", tool("mosquitto"), f"include_dir {tmp_path / 'users'}") as server:
        yield server, files, registered


@pytest.mark.parametrize(
    ("user", "password", "topic", "allowed"),
    [
        ("room-1", "s-room-1", "devices/room-1/t", True),
        ("room-1", "s-room-1", "devices/room-2/t", False),
        ("room-1", "wrong", "devices/room-1/t", False),
        ("nobody", "s-room-1", "devices/room-1/t", False),
        ("gw", "s-gw", "devices/gw/t", True),
        ("gw", "s-gw", "devices/room-2/t", True),
        ("gw", "s-gw", "devices/room-1/t", False),
        ("room-1", "s-room-1", "doors/room-1/up", True),
        ("room-1", "s-room-1", "doors/room-2/up", False),
        ("gw", "s-gw", "doors/room-2/up", True),
        (None, None, "devices/room-1/t", False),
    ],
)
async def test_a_device_may_publish_below_its_own_name_alone(
    guarded: tuple[Mosquitto, Files, Registered],
    tool: Callable[..., str],
    user: str | None,
    password: str | None,
    topic: str,
    allowed: bool,
) -> None:
    server, _, _ = guarded
    publish = [*mosquitto_pub(tool("mosquitto_pub"), server)]
    door = Decoders([Hook("door", lambda payload: [{"n": "open", "v": int(payload)}], "doors/{device}/up")])
    async with listening(server.address, door, mqtt_username="connector", mqtt_password="secret") as bench:
        shown = ["-u", user, "-P", password] if user and password else []
        done = await asyncio.to_thread(
            subprocess.run, [*publish, *shown, "-t", topic, "-m", "1"], capture_output=True, text=True, timeout=30
        )
        await run(*publish, "-u", "room-1", "-P", "s-room-1", "-t", "devices/room-1/marker", "-m", "1")
        await eventually(lambda: bool(bench.producer.values_of("room-1/marker")))
        _, name, metric = topic.replace("/up", "/open").split("/")
        assert bool(bench.producer.values_of(f"{name}/{metric}")) is allowed
        assert (done.returncode == 0 and not done.stderr) is allowed


async def test_on_thingsboards_topics_a_devices_token_is_taken_and_anothers_is_not(
    guarded: tuple[Mosquitto, Files, Registered], tool: Callable[..., str]
) -> None:
    server, _, _ = guarded
    async with listening(server.address, auth="token", mqtt_username="connector", mqtt_password="secret") as bench:
        bench.registry.add("room-1")
        for token, value in (("wrong", 1), ("s-room-1", 2)):
            await run(
                *mosquitto_pub(tool("mosquitto_pub"), server),
                *("-u", "room-1", "-P", "s-room-1", "-D", "publish", "user-property", "token", token),
                *("-t", "v1/devices/me/telemetry", "-m", f'{{"t":{value}}}'),
            )
        await bench.delivered(1)
    assert bench.producer.values_of("room-1/t") == [2]


async def test_a_change_of_the_registry_reaches_the_broker(
    guarded: tuple[Mosquitto, Files, Registered], tool: Callable[..., str], tmp_path: Path
) -> None:
    server, files, registered = guarded
    (pid := tmp_path / "pid").write_text(str(server.process.pid))
    following = asyncio.create_task(files.follow(pid))
    registered.devices, registered.changes = (device("room-9"),), 2
    command = [*mosquitto_pub(tool("mosquitto_pub"), server), "-t", "devices/room-9/t", "-m", "1"]

    async def publishes(name: str) -> bool:
        shown = ["-u", name, "-P", f"s-{name}"]
        done = await asyncio.to_thread(subprocess.run, [*command, *shown], capture_output=True, timeout=30)
        return done.returncode == 0

    async with asyncio.timeout(30):
        while not await publishes("room-9"):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        assert not await publishes("room-1")
    following.cancel()


async def test_files_are_written_when_something_changed_and_are_not_for_everybody(tmp_path: Path) -> None:
    registered = Registered(device("room-1"))
    files = Files(registered, tmp_path / "users", {"connector": "secret"})  # type: ignore[arg-type]
    assert (await files.write(), await files.write()) == (True, False)
    passwords = tmp_path / "users" / "passwords"
    assert passwords.stat().st_mode & 0o007 == 0
    assert "secret" not in passwords.read_text()
    assert {line.partition(":")[0] for line in passwords.read_text().splitlines()} == {"room-1", "connector"}
