"""The MQTT connector against brokers that behave and brokers that do not."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import cbor2
import pytest

from connectors import intake, mqtt
from connectors.decoders import Decoders, Hook
from connectors.formats.decoded import Decoded
from connectors.mqtt import connection, subscriber
from connectors.mqtt.names import client_id
from connectors.mqtt.topics import OWN
from isotherm.limits import MAX_PACK_BYTES
from isotherm.process import end
from isotherm.registry import Device
from isotherm.settings import Settings
from isotherm.topics import Topic, partition_of
from tests.support.intake import Bench, HeldReplies, SwitchableProducer, eventually
from tests.support.mqtt_broker import Peer, Script, ScriptedBroker, scripted
from tests.support.mqtt_servers import Mosquitto

ROOM = "devices/room-1/readings"


def reading(value: float, metric: str = "t") -> bytes:
    return b'{"n":"%s","v":%g}' % (metric.encode(), value)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriber, "RECONNECT_SECONDS", (0.01, 0.05))


@asynccontextmanager
async def listening(broker: ScriptedBroker, bench: Bench | None = None, **settings: Any) -> AsyncIterator[Bench]:
    bench = bench or Bench(mqtt=f"127.0.0.1:{broker.port}", **settings)
    async with asyncio.timeout(30), bench.intake.running(), mqtt.listening(bench.site):
        yield bench


@pytest.mark.parametrize("size", [4_000, 60_000])
async def test_a_flood_of_replies_waits_at_the_broker(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriber, "MAX_WAITING", 20)
    monkeypatch.setattr(subscriber, "MAX_WAITING_BYTES", 100_000)
    replies = HeldReplies()

    async with scripted() as broker, listening(broker) as bench:
        monkeypatch.setattr(bench.dispatcher, "reply", replies)
        peer = await broker.peer()
        with pytest.raises(TimeoutError):  # the broker is told by not being read
            async with asyncio.timeout(1):
                while replies.begun * size < 10_000_000:
                    peer.writer.write(peer.packet("devices/room-1/replies", bytes(size), None) * (600_000 // size))
                    await peer.writer.drain()
                    await asyncio.sleep(0)
        assert 0 < replies.begun * size < 1_000_000
        replies.may_go.set()
        peer.publish(ROOM, reading(1), 7)
        await peer.until(lambda: peer.acknowledged == [(7, 0)])


async def test_while_kafka_is_away_only_so_much_is_read_of_the_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes at once is more than asyncio's StreamReader holds, which then pauses and resumes by itself."""
    monkeypatch.setattr(subscriber, "MAX_WAITING_BYTES", 100_000)
    monkeypatch.setattr(intake, "MAX_IN_FLIGHT", 1)
    async with scripted() as broker:
        bench = Bench(mqtt=f"127.0.0.1:{broker.port}")
        bench.producer.on.clear()
        waiting = subscriber.Subscriber(bench.site)
        async with asyncio.timeout(30), bench.intake.running(), waiting.running():
            peer = await broker.peer()
            with pytest.raises(TimeoutError):  # the broker is told by not being read
                async with asyncio.timeout(2):
                    while waiting._waiting_bytes < 10_000_000:
                        peer.writer.write(peer.packet(ROOM, reading(1).ljust(60_000), None) * 10)
                        await peer.writer.drain()
                        await asyncio.sleep(0)
            assert 0 < waiting._waiting_bytes < 1_000_000
            bench.producer.on.set()
            peer.publish(ROOM, reading(2), 7)
            await peer.until(lambda: peer.acknowledged == [(7, 0)])
    assert bench.producer.values_of("room-1/t")[-1] == 2


async def test_puback_is_sent_when_kafka_has_the_reading_and_not_before() -> None:
    async with scripted() as broker, listening(broker) as bench:
        peer = await broker.peer()
        bench.producer.on.clear()
        peer.publish(ROOM, reading(1), 7)
        await bench.taken(1)
        assert peer.acknowledged == []
        bench.producer.on.set()
        await peer.until(lambda: peer.acknowledged == [(7, 0)])
    assert bench.producer.values_of("room-1/t") == [1]


async def test_pubacks_leave_in_the_order_of_their_messages() -> None:
    """MQTT-4.6.0-2."""

    class Slow(SwitchableProducer):
        """Holds back what is of one device."""

        async def deliver(self, topic: Topic, value: bytes, *, partition: int | None = None, key: str | None = None) -> None:
            if partition == partition_of("slow", 8):
                await self.on.wait()
            self.packs[partition or 0].append(value)  # type: ignore[arg-type]

    async with scripted() as broker:
        bench = Bench(mqtt=f"127.0.0.1:{broker.port}", producer=Slow())
        assert partition_of("slow", 8) != partition_of("fast", 8)
        async with listening(broker, bench):
            peer = await broker.peer()
            bench.producer.on.clear()
            peer.publish("devices/slow/readings", reading(1), 1)
            await bench.taken(1)
            for packet_id in range(2, 6):
                peer.publish("devices/fast/readings", reading(1), packet_id)
            await bench.delivered(4)
            assert peer.acknowledged == []
            bench.producer.on.set()
            await peer.until(lambda: len(peer.acknowledged) == 5)
            assert [one for one, _ in peer.acknowledged] == [1, 2, 3, 4, 5]


async def test_what_is_sent_again_after_a_lost_connection_is_stored_once() -> None:
    async with scripted() as broker, listening(broker) as bench:
        first = await broker.peer()
        bench.producer.on.clear()
        first.publish(ROOM, reading(1), 1)
        first.publish(ROOM, reading(2), 2)
        await bench.taken(2)
        broker.script.session = True
        first.writer.close()
        second = await broker.peer(1)
        second.publish(ROOM, reading(1), 1, dup=True)
        second.publish(ROOM, reading(2), 2, dup=True)
        second.publish(ROOM, reading(3), 3)
        await bench.taken(3)
        bench.producer.on.set()
        await second.until(lambda: len(second.acknowledged) == 3)
        assert second.acknowledged == [(1, 0), (2, 0), (3, 0)]
    assert bench.producer.values_of("room-1/t") == [1, 2, 3]


async def test_what_was_acknowledged_and_is_sent_again_is_acknowledged_again_and_not_stored_twice() -> None:
    async with scripted() as broker, listening(broker) as bench:
        first = await broker.peer()
        first.publish(ROOM, reading(1), 1)
        await first.until(lambda: first.acknowledged == [(1, 0)])
        broker.script.session = True
        first.writer.close()
        second = await broker.peer(1)
        second.publish(ROOM, reading(1), 1, dup=True)
        await second.until(lambda: second.acknowledged == [(1, 0)])
        second.publish(ROOM, reading(1), 1)  # the same content without DUP is another message
        await second.until(lambda: len(second.acknowledged) == 2)
    assert bench.producer.values_of("room-1/t") == [1, 1]


async def test_an_acknowledgement_never_leaves_on_another_connection() -> None:
    """After a lost session the same packet identifier is another message's."""
    async with scripted() as broker, listening(broker) as bench:
        first = await broker.peer()
        bench.producer.on.clear()
        first.publish(ROOM, reading(1), 1)
        await bench.taken(1)
        first.writer.close()
        second = await broker.peer(1)
        bench.producer.on.set()
        second.publish(ROOM, reading(2), 2)
        await second.until(lambda: bool(second.acknowledged))
        assert second.acknowledged == [(2, 0)]
    assert bench.producer.values_of("room-1/t") == [1, 2]


async def test_with_a_lost_session_identifiers_begin_anew() -> None:
    async with scripted() as broker, listening(broker) as bench:
        first = await broker.peer()
        first.publish(ROOM, reading(1), 1)
        await first.until(lambda: bool(first.acknowledged))
        first.writer.close()
        second = await broker.peer(1)
        second.publish(ROOM, reading(1), 1, dup=True)  # a broker that lost the session cannot mean that one
        await second.until(lambda: bool(second.acknowledged))
    assert bench.producer.values_of("room-1/t") == [1, 1]


async def test_a_connection_dropped_within_a_packet_is_made_anew_and_subscribed() -> None:
    async with scripted() as broker, listening(broker) as bench:
        first = await broker.peer()
        first.writer.write(first.packet(ROOM, reading(1))[:10])
        first.writer.close()
        second = await broker.peer(1)
        assert second.subscribed == first.subscribed
        second.publish(ROOM, reading(1))
        await second.until(lambda: bool(second.acknowledged))
    assert bench.producer.values_of("room-1/t") == [1]


@pytest.mark.parametrize(
    "junk",
    [
        b"\x32\x04\xff\xffab",  # a topic longer than the packet
        b"\x32\x03\x00\x01a",  # no packet identifier
        b"\x32\x06\x00\x01a\x00\x01\x7f",  # properties that are cut off
        b"\x32\x07\x00\x02\xff\xfe\x00\x01\x00",  # a topic that is not UTF-8
        b"\x32\xff\xff\xff\xff\xff\xff",  # a length of more than four bytes
        b"\x00\x00",  # packet type 0 is reserved
    ],
)
async def test_a_malformed_packet_costs_its_connection_and_nothing_else(
    junk: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "KEEPALIVE_SECONDS", 1)  # such a length looks like a large packet for as long as that
    async with scripted() as broker, listening(broker) as bench:
        first = await broker.peer()
        first.writer.write(junk)
        if junk[0]:
            await first.closed.wait()
            peer = await broker.peer(1)
        else:
            peer = first  # gmqtt passes over what it does not know
        peer.publish(ROOM, reading(1), 1)
        await peer.until(lambda: bool(peer.acknowledged))
    assert bench.producer.values_of("room-1/t") == [1]


async def test_a_broker_that_does_not_answer_connect_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 0.2)
    async with scripted(Script(connack=None)) as broker, asyncio.TaskGroup() as tasks:

        async def later() -> None:
            await broker.came(2)
            broker.script.connack = 0

        tasks.create_task(later())
        async with listening(broker) as bench:
            peer = await broker.peer(len(broker.peers) - 1)
            peer.publish(ROOM, reading(1))
            await peer.until(lambda: bool(peer.acknowledged))
    assert bench.producer.values_of("room-1/t") == [1]


@pytest.mark.parametrize("script", [Script(connack=0x87), Script(connack=5, versions=(4,)), Script(suback=0x80)])
async def test_a_refusal_is_said_and_tried_again(script: Script, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with scripted(script) as broker:

        async def relent() -> None:
            await broker.came(2)
            script.connack, script.suback = 0, 1

        relenting = asyncio.create_task(relent())
        async with listening(broker):
            await relenting
    assert "the MQTT broker at" in caplog.text


async def test_a_broker_that_speaks_only_3_1_1_is_spoken_to_so() -> None:
    async with scripted(Script(versions=(4,))) as broker, listening(broker) as bench:
        peer = await broker.peer(len(broker.peers) - 1)
        assert peer.version == 4
        assert not any(topic.startswith("$share") for topic in peer.subscribed)
        peer.publish(ROOM, b"junk", 1)
        peer.publish(ROOM, reading(1), 2)
        await peer.until(lambda: len(peer.acknowledged) == 2)
    assert bench.producer.values_of("room-1/t") == [1]
    assert [one.reason for one in bench.producer.rejects] == ["malformed"]


# Several connectors that divide the devices.


def dividing(broker: ScriptedBroker, number: int, **more: Any) -> Bench:
    return Bench(mqtt=f"127.0.0.1:{broker.port}", mqtt_workers=2, mqtt_worker=number, mqtt_version="5", **more)


def device_of(number: int) -> str:
    """Return the name of a device that is connector ``number``'s, of two."""
    return next(name for name in map("room-{}".format, itertools.count()) if partition_of(name, 2) == number)


async def test_what_is_another_connectors_is_acknowledged_and_not_looked_at() -> None:
    ours, theirs = device_of(0), device_of(1)
    async with scripted() as broker:
        bench = dividing(broker, 0)
        async with listening(broker, bench):
            peer = await broker.peer()
            assert "devices/+/+" in peer.subscribed
            for packet_id, (device, payload) in enumerate(
                ((theirs, b"1"), (ours, b"2"), (theirs, b"junk"), (ours, b"junk"), (theirs, b"x" * (MAX_PACK_BYTES + 1))), 1
            ):
                peer.publish(f"devices/{device}/t", payload, packet_id)
            await peer.until(lambda: len(peer.acknowledged) == 5)
        assert peer.acknowledged == [(1, 0), (2, 0), (3, 0), (4, 0x99), (5, 0)]
    assert (bench.producer.values_of(f"{ours}/t"), bench.producer.values_of(f"{theirs}/t")) == ([2], [])
    assert [one.original for one in bench.producer.rejects] == [b"junk"]
    assert (bench.account.accepted, bench.account.rejected.total()) == (1, 1)


async def test_what_is_another_connectors_is_acknowledged_in_its_order() -> None:
    """MQTT-4.6.0-2."""
    ours, theirs = (f"devices/{device_of(number)}/t" for number in (0, 1))
    async with scripted() as broker:
        async with listening(broker, bench := dividing(broker, 0)):
            peer = await broker.peer()
            peer.publish(theirs, b"1", 1)
            await peer.until(lambda: peer.acknowledged == [(1, 0)])
            bench.producer.on.clear()
            peer.publish(ours, b"1", 2)
            await bench.taken(1)
            for packet_id in (3, 4, 5):
                peer.publish(theirs, b"1", packet_id)
            peer.publish(ours, b"2", 6)
            await bench.taken(2)
            assert peer.acknowledged == [(1, 0)]
            bench.producer.on.set()
            await peer.until(lambda: len(peer.acknowledged) == 6)
        assert [one for one, _ in peer.acknowledged] == [1, 2, 3, 4, 5, 6]


async def test_what_is_another_connectors_and_is_sent_again_is_acknowledged_again() -> None:
    ours, theirs = (f"devices/{device_of(number)}/t" for number in (0, 1))
    async with scripted() as broker, listening(broker, bench := dividing(broker, 0)):
        first = await broker.peer()
        bench.producer.on.clear()
        first.publish(theirs, b"0", 1)
        await first.until(lambda: first.acknowledged == [(1, 0)])
        first.publish(ours, b"1", 2)
        await bench.taken(1)
        first.publish(theirs, b"2", 3)  # waits for the one before
        broker.script.session = True
        first.writer.close()
        second = await broker.peer(1)
        for packet_id, topic in enumerate((theirs, ours, theirs), 1):
            second.publish(topic, b"%d" % (packet_id - 1), packet_id, dup=True)
        await second.until(lambda: second.acknowledged == [(1, 0)])
        bench.producer.on.set()
        await second.until(lambda: second.acknowledged == [(1, 0), (2, 0), (3, 0)])
    assert bench.producer.values_of(f"{device_of(0)}/t") == [1]


async def test_another_connectors_message_ends_what_is_known_of_its_packet_identifier() -> None:
    """Else a message of ours with content and identifier of an earlier one, first heard of with DUP, would be lost."""
    ours, theirs = (f"devices/{device_of(number)}/t" for number in (0, 1))
    async with scripted() as broker, listening(broker, bench := dividing(broker, 0)):
        first = await broker.peer()
        for topic in (ours, theirs):
            first.publish(topic, b"1", 7)
        await first.until(lambda: len(first.acknowledged) == 2)
        broker.script.session = True
        first.writer.close()
        second = await broker.peer(1)
        second.publish(ours, b"1", 7, dup=True)
        await second.until(lambda: second.acknowledged == [(7, 0)])
    assert bench.producer.values_of(f"{device_of(0)}/t") == [1, 1]


async def test_an_odd_reading_beside_others_messages_goes_alone() -> None:
    """Messages that are taken in together are halved until it is; halves may be others' alone."""
    ours, theirs = (f"devices/{device_of(number)}/readings" for number in (0, 1))
    async with scripted() as broker:
        async with listening(broker, bench := dividing(broker, 0)):
            peer = await broker.peer()
            plan = [theirs, theirs, theirs, ours, ours, theirs, ours, theirs]
            packets = [peer.packet(topic, reading(at), at) for at, topic in enumerate(plan, 1)]
            packets[4] = peer.packet(ours, b'{"n":"t","v":1,"t":99999999999}', 5)
            peer.writer.write(b"".join(packets))
            await peer.until(lambda: len(peer.acknowledged) == 8)
        assert peer.acknowledged == [(at, 0x99 if at == 5 else 0) for at in range(1, 9)]
    assert bench.producer.values_of(f"{device_of(0)}/t") == [4, 7]
    assert [one.reason for one in bench.producer.rejects] == ["time"]


@pytest.mark.parametrize(
    ("version", "spoken"), [("5", (5, 5, 5)), ("3.1.1", (4, 4, 4)), ("auto", (5, 4, 5))], ids=["5", "3.1.1", "mixed"]
)
async def test_each_message_is_taken_in_by_exactly_one_connector(version: str, spoken: tuple[int, ...]) -> None:
    """Each payload is one that is refused wherever it is taken in, so its bytes tell where."""
    names = [f"room-{number}" for number in range(20)]
    lasts = ("readings", "t", "telemetry", "gateway", "<b>")
    refusing = Decoders([Hook("door", lambda payload: [{"n": "no name"}], "doors/{device}/up")])
    plan = [(topic, b"") for name in names for topic in (f"doors/{name}/up", *(f"devices/{name}/{last}" for last in lasts))]
    plan += [(topic, b"") for topic in ("devices/room 1/readings", "devices//t", "elsewhere", "doors/no name/up")]
    said = [user_property(*one) for name in names for one in (("device", name), ("token", f"s-{name}"), ("of", name))]
    plan += [(topic, more) for topic in OWN for more in (b"", *said)]
    taken: list[set[int]] = []
    for number, protocol_level in enumerate(spoken):
        async with scripted(Script(versions=(protocol_level,))) as broker:
            bench = Bench(
                mqtt=f"127.0.0.1:{broker.port}",
                decoders=refusing,
                auth="token",
                mqtt_workers=len(spoken),
                mqtt_worker=number,
                mqtt_version=version,
            )
            async with listening(broker, bench):
                peer = await broker.peer(len(broker.peers) - 1)
                for packet_id, (topic, more) in enumerate(plan, 1):
                    more = more if peer.version == 5 else b""
                    peer.publish(topic, b"\xff%d" % packet_id, packet_id, more=more)
                await peer.until(lambda peer=peer: len(peer.acknowledged) == len(plan))  # type: ignore[misc]
            assert [one for one, _ in peer.acknowledged] == list(range(1, len(plan) + 1))
        taken.append({int(one.original[1:]) for one in bench.producer.rejects})
        assert len(bench.producer.rejects) == len(taken[-1]) > 0
    assert sorted(one for share in taken for one in share) == list(range(1, len(plan) + 1))
    numbers = {message: number for number, share in enumerate(taken) for message in share}
    for message, (topic, more) in enumerate(plan, 1):
        for name in names:
            if f"/{name}/" in topic or (version == "5" and more == user_property("device", name)):
                assert numbers[message] == partition_of(name, len(spoken))
    if version == "5":
        assert len({numbers[message] for message, (topic, more) in enumerate(plan, 1) if topic in OWN and more}) == 3


def test_each_connector_that_divides_has_a_session_of_its_own_and_of_their_count() -> None:
    ids = {
        client_id(Settings(mqtt_workers=workers, mqtt_worker=number)) for workers in range(1, 5) for number in range(workers)
    }
    assert len(ids) == 10
    assert {"isotherm-connector", "isotherm-connector-0-of-2", "isotherm-connector-1-of-2"} <= ids
    assert client_id(Settings(mqtt_client_id="mine", mqtt_workers=3, mqtt_worker=1)) == "mine-1-of-3"


async def test_of_two_connectors_that_share_one_dies_and_gets_what_it_had_not_acknowledged_when_it_comes_again(
    tmp_path: Path, tool: Callable[..., str]
) -> None:
    total = 40
    with Mosquitto(tmp_path, tool("mosquitto")) as server:

        def bench(name: str) -> Bench:
            return Bench(mqtt=server.address, mqtt_shared=True, mqtt_client_id=name)

        first, second, again = bench("first"), bench("second"), bench("second")
        second.producer.on.clear()
        began = asyncio.Event()

        async def die() -> None:
            async with second.intake.running(), mqtt.listening(second.site):
                began.set()
                await asyncio.Event().wait()

        async with asyncio.timeout(30), first.intake.running(), mqtt.listening(first.site):
            dying = asyncio.create_task(die())
            await began.wait()
            lines = b"".join(b"%d\n" % value for value in range(total))
            publish = (tool("mosquitto_pub"), "-p", str(server.port), "-q", "1", "-t", "devices/a/t", "-l")
            await asyncio.to_thread(subprocess.run, publish, input=lines, check=True)
            await eventually(lambda: first.account.accepted + second.intake.room.taken == total)
            assert 0 < first.account.accepted < total
            await end([dying])
            async with again.intake.running(), mqtt.listening(again.site):
                await again.delivered(total - first.account.accepted)
    assert second.producer.values_of("a/t") == []
    assert sorted(first.producer.values_of("a/t") + again.producer.values_of("a/t")) == list(range(total))


async def test_with_mqtt_5_connectors_of_a_group_share_a_subscription() -> None:
    async with scripted() as broker, listening(broker, mqtt_shared=True):
        assert "$share/isotherm/devices/+/+" in (await broker.peer()).subscribed


async def test_a_session_that_was_shared_and_is_not_any_more_gets_each_message_once(
    tmp_path: Path, tool: Callable[..., str]
) -> None:
    with Mosquitto(tmp_path, tool("mosquitto")) as server:
        for shared in (True, False, True, False):
            bench = Bench(mqtt=server.address, mqtt_shared=shared)
            async with asyncio.timeout(20), bench.intake.running(), mqtt.listening(bench.site):
                publish = (tool("mosquitto_pub"), "-p", str(server.port), "-q", "1", "-t")
                for metric in ("t", "end"):
                    await asyncio.to_thread(subprocess.run, [*publish, f"devices/a/{metric}", "-m", "1"], check=True)
                await eventually(lambda bench=bench: bool(bench.producer.values_of("a/end")))  # type: ignore[misc]
            assert bench.producer.values_of("a/t") == [1]


async def test_a_retained_copy_is_acknowledged_and_not_stored() -> None:
    async with scripted() as broker, listening(broker) as bench:
        peer = await broker.peer()
        peer.publish(ROOM, reading(1), 1, retain=True)
        peer.publish(ROOM, reading(2), 2)
        await peer.until(lambda: len(peer.acknowledged) == 2)
    assert bench.producer.values_of("room-1/t") == [2]


async def test_what_is_bad_gets_a_reason_code_and_a_reject_and_others_go_on() -> None:
    far = b'{"n":"t","v":1,"t":99999999999}'
    async with scripted() as broker, listening(broker) as bench:
        peer = await broker.peer()
        packets = [reading(1), b"junk", far, reading(2), b'{"n":"room-2/t","v":1}', reading(3)]
        peer.writer.write(b"".join(peer.packet(ROOM, payload, at) for at, payload in enumerate(packets, 1)))
        await peer.until(lambda: len(peer.acknowledged) == 6)
        assert peer.acknowledged == [(1, 0), (2, 0x99), (3, 0x99), (4, 0), (5, 0x87), (6, 0)]
    assert bench.producer.values_of("room-1/t") == [1, 2, 3]
    kept = {one.reason: one for one in bench.producer.rejects}
    assert set(kept) == {"malformed", "time", "identity"}
    assert (kept["malformed"].original, kept["time"].original) == (b"junk", far)
    assert {one.peer for one in bench.producer.rejects} == {ROOM}
    assert kept["malformed"].device == "room-1"


async def test_what_does_not_fit_waits_in_the_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages with QoS 0 have no receive maximum: what is too much is not read."""
    monkeypatch.setattr(intake, "MAX_IN_FLIGHT", 10)
    monkeypatch.setattr(subscriber, "MAX_WAITING", 50)
    count = 200_000
    async with scripted() as broker, listening(broker) as bench:
        peer = await broker.peer()
        bench.producer.on.clear()
        sent = asyncio.Event()

        async def flood() -> None:
            for at in range(0, count, 1000):
                peer.writer.write(b"".join(peer.packet(ROOM, reading(i), None) for i in range(at, at + 1000)))
                await peer.writer.drain()
            sent.set()

        flooding = asyncio.create_task(flood())
        await bench.taken(1)
        done, _ = await asyncio.wait({flooding}, timeout=0.5)
        assert not done
        bench.producer.on.set()
        await flooding
        await bench.delivered(count)
    assert bench.producer.values_of("room-1/t") == list(range(count))


async def test_a_stop_acknowledges_what_was_received() -> None:
    async with scripted() as broker:
        async with listening(broker) as bench:
            peer = await broker.peer()
            bench.producer.on.clear()
            for packet_id in range(1, 101):
                peer.publish(ROOM, reading(packet_id), packet_id)
            await bench.taken(100)
            asyncio.get_running_loop().call_later(0.2, bench.producer.on.set)
        await peer.closed.wait()
    assert [one for one, _ in peer.acknowledged] == list(range(1, 101))


async def test_a_session_that_the_broker_lost_is_said(caplog: pytest.LogCaptureFixture) -> None:
    async with scripted() as broker, listening(broker):
        peer = await broker.peer()
        assert "lost our session" not in caplog.text  # at the start there is none
        broker.script.session = True
        peer.writer.close()
        peer = await broker.peer(1)
        assert "lost our session" not in caplog.text
        broker.script.session = False
        peer.writer.close()
        await broker.peer(2)
    assert "lost our session" in caplog.text


def test_a_client_id_cannot_be_guessed_where_there_is_a_password_and_stays_where_it_is_set() -> None:
    plain, secret = Settings(), Settings(mqtt_password="secret")
    assert client_id(plain) == "isotherm-connector"
    assert client_id(secret).startswith("isotherm-connector-")
    assert client_id(secret) != client_id(Settings(mqtt_password="another"))
    assert client_id(Settings(mqtt_client_id="mine", mqtt_password="secret")) == "mine"


async def test_an_empty_payload_clears_a_retained_message_and_is_passed_over() -> None:
    async with scripted() as broker, listening(broker) as bench:
        peer = await broker.peer()
        for packet_id, topic in enumerate((ROOM, "devices/room-1/t", "devices/room-1/telemetry"), 1):
            peer.publish(topic, b"", packet_id)
        await peer.until(lambda: len(peer.acknowledged) == 3)
        assert {code for _, code in peer.acknowledged} == {0}
    assert bench.producer.rejects == []


async def test_a_payload_that_is_too_large_is_said_to_be() -> None:
    async with scripted() as broker, listening(broker) as bench:
        peer = await broker.peer()
        peer.publish(ROOM, b"x" * (MAX_PACK_BYTES + 1))
        await peer.until(lambda: peer.acknowledged == [(1, 0x99)])
    assert [one.reason for one in bench.producer.rejects] == ["too_large"]


async def test_a_session_taken_over_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with scripted() as broker, listening(broker):
        peer = await broker.peer()
        peer.writer.write(b"\xe0\x02\x8e\x00")
        peer.writer.close()
        await broker.peer(1)
    assert "another connector uses this client id" in caplog.text


# What topics mean.


@pytest.mark.parametrize(
    ("topic", "payload", "series", "value"),
    [
        ("devices/room-1/temperature", b"21.5", "room-1/temperature", 21.5),
        ("devices/room-1/temperature", b" -3 ", "room-1/temperature", -3),
        ("devices/room-1/power:L1", b"4", "room-1/power_3AL1", 4),
        ("devices/room-1/power:L1", b" 4 ", "room-1/power_3AL1", 4),
        (ROOM, b'[{"bn":"room-1/","n":"t","v":4}]', "room-1/t", 4),
        (ROOM, cbor2.dumps([{0: "t", 2: 5}]), "room-1/t", 5),
        (ROOM, b"climate,device=room-1 t=6", "room-1/climate/t", 6),
        ("devices/urn:dev:ow:10e2073a01080063/readings", reading(7), "urn:dev:ow:10e2073a01080063/t", 7),
        ("devices/room-1/telemetry", b'{"ts":1000,"values":{"t":8}}', None, 8),
        ("devices/room-1/telemetry", b'{"t":8}', "room-1/t", 8),
    ],
)
async def test_payloads_of_topics(topic: str, payload: bytes, series: str | None, value: float) -> None:
    async with scripted() as broker, listening(broker) as bench:
        peer = await broker.peer()
        peer.publish(topic, payload)
        await peer.until(lambda: bool(peer.acknowledged))
    if series is None:
        assert [one.reason for one in bench.producer.rejects] == ["time"]  # 1970
    else:
        assert bench.producer.values_of(series) == [value]
        assert bench.producer.rejects == []


@pytest.mark.parametrize("topic", ["devices/room 1/readings", "devices/room-1/<b>", "devices//readings", "elsewhere"])
async def test_a_topic_that_means_nothing_is_rejected(topic: str) -> None:
    async with scripted() as broker, listening(broker) as bench:
        peer = await broker.peer()
        peer.publish(topic, reading(1))
        await peer.until(lambda: peer.acknowledged == [(1, 0x99)])
    assert [(one.reason, one.peer) for one in bench.producer.rejects] == [("name", topic)]


async def test_commands_and_attributes_are_passed_over() -> None:
    async with scripted() as broker, listening(broker) as bench:
        peer = await broker.peer()
        peer.publish("devices/room-1/commands", b"on", 1)
        peer.publish("devices/room-1/attributes", b"done", 2)
        await peer.until(lambda: len(peer.acknowledged) == 2)
    assert (bench.producer.rejects, dict(bench.producer.packs)) == ([], {})


async def test_a_gateway_may_speak_for_its_children() -> None:
    async with scripted() as broker:
        bench = Bench(mqtt=f"127.0.0.1:{broker.port}", auth="token")
        bench.registry.add("gw", "room-1")
        async with listening(broker, bench):
            peer = await broker.peer()
            peer.publish("devices/gw/readings", b'[{"n":"room-1/t","v":1},{"n":"room-2/t","v":1},{"n":"own","v":2}]', 1)
            peer.publish("devices/gw/gateway", b'{"room-1":[{"x":5}],"room-2":[{"x":5}]}', 2)
            await peer.until(lambda: len(peer.acknowledged) == 2)
    assert bench.producer.values_of("room-1/t") == [1]
    assert bench.producer.values_of("gw/own") == [2]
    assert bench.producer.values_of("room-1/x") == [5]
    assert [one.reason for one in bench.producer.rejects] == ["identity", "identity"]


def user_property(name: str, value: str) -> bytes:
    return b"\x26" + b"".join(len(one).to_bytes(2, "big") + one.encode() for one in (name, value))


async def test_on_thingsboards_topics_a_user_property_says_who_it_is() -> None:
    async with scripted() as broker:
        bench = Bench(mqtt=f"127.0.0.1:{broker.port}", auth="token")
        bench.registry.add("room-1")
        async with listening(broker, bench):
            peer = await broker.peer()
            topic, payload = "v1/devices/me/telemetry", b'{"t":1}'
            peer.publish(topic, payload, 1, more=user_property("token", "s-room-1"))
            peer.publish(topic, payload, 2, more=user_property("token", "wrong"))
            peer.publish(topic, payload, 3, more=user_property("device", "room-1"))
            peer.publish(topic, payload, 4)
            await peer.until(lambda: len(peer.acknowledged) == 4)
    assert [code for _, code in peer.acknowledged] == [0, 0x87, 0x87, 0x87]
    assert bench.producer.values_of("room-1/t") == [1]


async def test_when_the_registry_is_away_a_topic_still_says_who_it_is_and_a_token_does_not() -> None:
    async with scripted() as broker, listening(broker, auth="token") as bench:
        bench.registry.is_away = True
        peer = await broker.peer()
        peer.publish(ROOM, b'[{"bn":"room-1/","n":"t","v":1}]', 1)
        peer.publish("v1/gateway/telemetry", b'{"room-1":[{"t":2}]}', 2, more=user_property("token", "any"))
        await peer.until(lambda: peer.acknowledged == [(1, 0), (2, 0x99)])
    assert bench.producer.values_of("room-1/t") == [1]
    assert [one.reason for one in bench.producer.rejects] == ["unavailable"]


async def test_a_message_that_a_decoder_of_ours_fails_at_is_kept_and_others_go_on() -> None:
    def fails(data: bytes, now: int) -> Iterator[Decoded]:
        raise KeyboardInterrupt if data == b"[]" else RuntimeError("never thought of that")

    async with scripted() as broker:
        bench = Bench(mqtt=f"127.0.0.1:{broker.port}")
        bench.site.catalogue.decoders["thingsboard"] = fails  # type: ignore[index]
        async with listening(broker, bench):
            peer = await broker.peer()
            peer.publish("devices/room-1/telemetry", b"{}", 1)
            peer.publish("devices/room-1/telemetry", b"[]", 2)
            peer.publish(ROOM, reading(1), 3)
            await peer.until(lambda: peer.acknowledged == [(1, 0x99), (2, 0x99), (3, 0)])
    assert [(one.reason, one.original) for one in bench.producer.rejects] == [("malformed", b"{}"), ("malformed", b"[]")]


async def test_the_password_of_a_broker_is_not_shown() -> None:
    assert "hunter2" not in repr(Bench(mqtt_username="me", mqtt_password="hunter2").settings)


# Decoders of one's own.

DOOR = Decoders([Hook("door", lambda payload: [{"n": "open", "vb": payload[0] == 1}], "doors/{device}/up")])


async def test_a_decoder_of_ones_own_is_asked_about_its_topic_and_about_devices_of_its_type() -> None:
    async with scripted() as broker:
        bench = Bench(mqtt=f"127.0.0.1:{broker.port}", decoders=DOOR)
        bench.registry.devices["side"] = Device("side", 0, type="door")
        async with listening(broker, bench):
            peer = await broker.peer()
            assert "doors/+/up" in peer.subscribed
            peer.publish("doors/front/up", b"\x01", 1)
            peer.publish("devices/side/readings", b"\x00", 2)
            peer.publish("devices/side/readings", reading(3), 3)
            peer.publish("doors/front/up", b"", 4)  # at which it raises
            peer.publish("doors/not a name/up", b"\x01", 5)
            await peer.until(lambda: len(peer.acknowledged) == 5)
        assert [code for _, code in peer.acknowledged] == [0, 0, 0, 0x99, 0x99]
    assert (bench.producer.values_of("front/open"), bench.producer.values_of("side/open")) == ([1], [0])
    assert bench.producer.values_of("side/t") == [3]  # plain SenML stays what it is
    assert [(one.reason, one.form) for one in bench.producer.rejects] == [("malformed", "decoder:door"), ("name", "")]


# Packets that nobody would send.

SEEDS = 40
PACKETS = 25


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_a_broker_sends_the_connector_goes_on(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packets of all kinds with bytes changed, left out and added, over real sockets."""
    monkeypatch.setattr(connection, "KEEPALIVE_SECONDS", 1)
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 2.0)
    chance = random.Random(seed)
    async with scripted(Script(versions=(4, 5)[seed % 2 :][:1])) as broker, listening(broker) as bench:
        for _ in range(SEEDS // 4):
            count = len(broker.peers)
            peer = await broker.peer(count - 1) if not broker.peers[-1].closed.is_set() else await broker.peer(count)
            for _ in range(PACKETS):
                peer.writer.write(damaged(chance, peer))
            peer.writer.close()
            await broker.peer(len(broker.peers))
        while broker.peers[-1].closed.is_set():
            await broker.came(len(broker.peers) + 1)
        peer = await broker.peer(len(broker.peers) - 1)
        peer.publish("devices/alive/t", b"1", 999)
        await peer.until(lambda: (999, 0) in peer.acknowledged)
    assert bench.producer.values_of("alive/t") == [1]


def damaged(chance: random.Random, peer: Peer) -> bytes:
    """Return a packet that a broker may send, with something wrong with it, or with nothing."""
    whole = bytearray(
        chance.choice(
            [
                peer.packet(ROOM, reading(chance.random()), chance.randrange(1, 0xFFFF), dup=chance.random() < 0.3),
                peer.packet(ROOM, chance.randbytes(chance.randrange(200)), None),
                peer.packet("devices/room-1/t", b"1", 5, more=user_property("token", "x") if peer.version == 5 else b""),
                b"\x20\x02\x00\x00",
                b"\x90\x03\x00\x01\x01",
                b"\xb0\x02\x00\x01",
                b"\x40\x02\x00\x01",
                b"\x62\x02\x00\x01",
                b"\xd0\x00",
                b"\xe0\x00",
                b"\xf0\x00",
            ]
        )
    )
    for _ in range(chance.choice((0, 1, 1, 3))):
        at = chance.randrange(len(whole))
        match chance.randrange(3):
            case 0:
                whole[at] = chance.randrange(256)
            case 1 if len(whole) > 2:
                del whole[at]
            case _:
                whole.insert(at, chance.randrange(256))
    return bytes(whole)
