"""The TCP connector over real sockets, with a Kafka that is switched off and on again."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from connectors import identity, intake, metrics, tcp
from isotherm.clock import now_us
from tests.support.certificates import Authority
from tests.support.intake import Bench, eventually

HELLO = b'{"hello":{"ack":true}}\n'


class Peer:
    """A device's connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def hear(self) -> Any:
        """Return the next answer, or None at the connection's end."""
        async with asyncio.timeout(30):
            line = await self._reader.readline()
        return json.loads(line) if line else None


class Listener(Bench):
    """The connector, listening."""

    port: int
    tls_port: int

    async def peer(self) -> Peer:
        return Peer(*await asyncio.open_connection("127.0.0.1", self.port))


def reset(peer: Peer) -> None:
    linger = (1).to_bytes(4, "little") + (0).to_bytes(4, "little")
    peer.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    peer.writer.transport.abort()


def open_connections() -> int:
    return int(metrics.connections.labels("tcp")._value.get())


@asynccontextmanager
async def listening(**settings: Any) -> AsyncIterator[Listener]:
    listener = Listener(**settings)
    async with asyncio.timeout(30), listener.intake.running(), tcp.listening(listener.site) as where:
        listener.port, listener.tls_port = [int(port) for port in re.findall(r":(\d+)", where)] + [0] * ("tls" not in where)
        yield listener


async def test_acknowledgements_count_the_readings_of_the_connection() -> None:
    async with listening() as listener:
        peer = await listener.peer()
        await peer.say(HELLO + b'{"n":"a/t","v":1}\n{"n":"a/t","v":2}\n')
        assert await peer.hear() == {"ack": 2}
        await peer.say(b'[{"n":"a/t","v":3},{"n":"b/t","v":4}]\n')
        assert await peer.hear() == {"ack": 4}
    assert listener.producer.values_of("a/t") == [1, 2, 3]


@pytest.mark.parametrize("hello", [b'{ "hello" : { "ack" : true } }\r\n', b' {"hello":{"ack":true}}\n'])
async def test_a_hello_may_be_spaced_as_json_may(hello: bytes) -> None:
    async with listening() as listener:
        peer = await listener.peer()
        await peer.say(hello + b'{"n":"a/t","v":1}\n')
        assert await peer.hear() == {"ack": 1}


async def test_records_that_share_a_line_are_taken_and_a_bad_one_is_told() -> None:
    async with listening() as listener:
        peer = await listener.peer()
        await peer.say(HELLO + b'{"n":"a/t","v":1}{"n":"bad name","v":2}\n')
        assert (await peer.hear())["error"]["reason"] == "no_device"
        assert await peer.hear() == {"ack": 1}


async def test_without_a_hello_nothing_is_answered_and_all_is_taken() -> None:
    async with listening() as listener:
        peer = await listener.peer()
        await peer.say(b'{"n":"a/t","v":1}\njunk\n')
        peer.writer.write_eof()
        assert await peer.hear() is None
    assert listener.producer.values_of("a/t") == [1]
    assert listener.account.rejected == {"malformed": 1}


@pytest.mark.parametrize("hello", [b'{"hello":{"ack":"yes"}}', b'{"hello":{"unknown":1}}', b'{"hello"'])
async def test_a_hello_that_is_not_understood_is_a_reject(hello: bytes) -> None:
    async with listening() as listener:
        peer = await listener.peer()
        await peer.say(hello + b'\n{"n":"a/t","v":1}\n')
        peer.writer.write_eof()
        assert await peer.hear() is None
    assert [one.raw for one in listener.producer.rejects] == [hello.decode()]
    assert listener.producer.values_of("a/t") == [1]


@pytest.mark.parametrize("size", [1, 3, 17])
async def test_packets_may_cut_lines_anywhere(size: int) -> None:
    async with listening() as listener:
        peer = await listener.peer()
        peer.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream = HELLO + b'{"n":"a/t","v":1}\n{"n":"a/t","v":2}\n'
        for i in range(0, len(stream), size):
            await peer.say(stream[i : i + size])
        acknowledged = 0
        while acknowledged < 2:
            acknowledged = (await peer.hear())["ack"]
    assert listener.producer.values_of("a/t") == [1, 2]


async def test_half_a_line_and_silence_is_refused_and_the_connection_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "LINE_SECONDS", 0.1)
    monkeypatch.setattr(tcp, "SWEEP_SECONDS", 0.05)
    async with listening() as listener:
        peer = await listener.peer()
        await peer.say(HELLO + b'{"n":"a/t","v":1}\n{"n":"a/t","v"')
        assert await peer.hear() == {"ack": 1}
        told = await peer.hear()
        assert (told["error"]["reason"], told["error"]["count"]) == ("malformed", 1)
        assert await peer.hear() is None
    assert [one.raw for one in listener.producer.rejects] == ['{"n":"a/t","v"']


async def test_silence_alone_closes_the_connection_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "IDLE_SECONDS", 0.1)
    monkeypatch.setattr(tcp, "SWEEP_SECONDS", 0.05)
    async with listening() as listener:
        peer = await listener.peer()
        assert await peer.hear() is None
    assert listener.producer.rejects == []


async def test_a_reset_in_the_middle_of_a_line_disturbs_nobody() -> None:
    async with listening() as listener:
        other, peer = await listener.peer(), await listener.peer()
        await other.say(HELLO)
        await peer.say(b'{"n":"a/t","v":1}\n{"n":"a/t",')
        reset(peer)
        await other.say(b'{"n":"b/t","v":1}\n')
        assert await other.hear() == {"ack": 1}


async def test_nothing_is_acknowledged_while_kafka_is_away_and_reading_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "MAX_UNACKNOWLEDGED", 2)
    async with listening() as listener:
        peer = await listener.peer()
        listener.producer.on.clear()
        await peer.say(HELLO + b'{"n":"a/t","v":0}\n')
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await peer.hear()
        with pytest.raises(TimeoutError):  # the socket's buffers fill up: the device is told by not being read
            async with asyncio.timeout(0.5):
                while True:
                    await peer.say(b'{"n":"a/t","v":1}\n' * 10_000)
        listener.producer.on.set()
        assert (await peer.hear())["ack"] >= 1


async def test_who_sends_while_kafka_is_away_is_told_whether_kafka_was_there_when_the_line_came_or_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(intake, "AWAY_SECONDS", 0.2)
    monkeypatch.setattr(tcp, "SWEEP_SECONDS", 0.05)
    async with listening() as listener, asyncio.timeout(20):
        early, late, silent = await listener.peer(), await listener.peer(), await listener.peer()
        listener.producer.on.clear()
        await early.say(HELLO + b'{"n":"a/t","v":0}\n')
        assert (await early.hear())["error"]["reason"] == "unavailable"
        await silent.say(HELLO)
        await late.say(HELLO + b'{"n":"a/t","v":1}\n')
        assert (await late.hear())["error"]["reason"] == "unavailable"
        listener.producer.on.set()
        assert await early.hear() == await late.hear() == {"ack": 1}
        await silent.say(b'{"n":"a/t","v":2}\n')
        assert await silent.hear() == {"ack": 1}, "who has sent nothing is told nothing"


async def test_a_peer_that_reads_no_answers_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "UNREAD_SECONDS", 0.1)
    monkeypatch.setattr(tcp, "SWEEP_SECONDS", 0.05)
    async with listening() as listener:
        device = socket.socket()
        device.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        device.connect(("127.0.0.1", listener.port))
        device.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        device.setblocking(False)
        loop = asyncio.get_running_loop()
        with pytest.raises(OSError, match=r"reset|pipe"):
            await loop.sock_sendall(device, HELLO)
            while True:
                await loop.sock_sendall(device, b"x\n")  # each is answered by some 100 bytes
                await asyncio.sleep(0.001)
        device.close()
        other = await listener.peer()
        await other.say(HELLO + b'{"n":"b/t","v":1}\n')
        assert await other.hear() == {"ack": 1}


@pytest.mark.parametrize("limit", ["max_connections", "max_connections_per_peer"])
async def test_too_many_connections_are_refused_with_a_word(limit: str) -> None:
    async with listening(**{limit: 2}) as listener:
        first, second = await listener.peer(), await listener.peer()
        for peer in (first, second):
            await peer.say(HELLO + b'{"n":"a/t","v":1}\n')
            assert await peer.hear() == {"ack": 1}
        third = await listener.peer()
        assert (await third.hear())["error"]["reason"] == "busy"
        first.writer.close()
        await first.writer.wait_closed()
        await second.say(b'{"n":"a/t","v":1}\n')
        assert await second.hear() == {"ack": 2}


async def test_a_stop_acknowledges_what_was_read() -> None:
    async with asyncio.timeout(30):
        async with listening() as listener:
            peer = await listener.peer()
            listener.producer.on.clear()
            await peer.say(HELLO + b'{"n":"a/t","v":1}\n')
            while listener.intake.room.taken < 1:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            asyncio.get_running_loop().call_later(0.2, listener.producer.on.set)
        assert await peer.hear() == {"ack": 1}
        assert await peer.hear() is None
    assert listener.producer.values_of("a/t") == [1]


# Formats: the first line shows which.


@pytest.mark.parametrize(
    ("stream", "series", "values"),
    [
        (b"temperature,device=a value=1\ntemperature,device=a value=2\n", "a/temperature", [1, 2]),
        (b"a.temperature 1 %d\na.temperature 2 %d\n", "a/temperature", [1, 2]),
        (b"junk\n\n# a comment\ntemperature,host=a value=3\n", "a/temperature", [3]),
        (b'\n\n{"n":"a/temperature","v":4}\n', "a/temperature", [4]),
    ],
)
async def test_the_first_line_that_looks_like_something_shows_the_format(
    stream: bytes, series: str, values: list[float]
) -> None:
    stream = stream.replace(b"%d", str(now_us() // 10**6).encode())
    async with listening() as listener:
        peer = await listener.peer()
        await peer.say(stream)
        peer.writer.write_eof()
        assert await peer.hear() is None
    assert listener.producer.values_of(series) == values


async def test_the_format_is_that_of_the_setting() -> None:
    async with listening(tcp_format="graphite") as listener:
        peer = await listener.peer()
        await peer.say(b'{"n":"a/t","v":1}\na.t 2 %d\n' % (now_us() // 10**6))
        peer.writer.write_eof()
        assert await peer.hear() is None
    assert listener.producer.values_of("a/t") == [2]
    assert [(one.form, one.count) for one in listener.producer.rejects] == [("graphite", 1)]


async def test_lines_of_another_format_after_a_hello_are_acknowledged() -> None:
    async with listening() as listener:
        peer = await listener.peer()
        await peer.say(HELLO + b'temperature,device=a value=1,fw="x"\nbad\n')
        assert (await peer.hear())["error"]["reason"] == "malformed"
        assert await peer.hear() == {"ack": 2}


# Who a peer is.


async def test_a_hello_names_the_device_of_bare_names() -> None:
    async with listening() as listener:
        peer = await listener.peer()
        await peer.say(b'{"hello":{"device":"a","ack":true}}\n{"n":"t","v":1}\n{"n":"b/t","v":2}\n')
        assert await peer.hear() == {"ack": 2}
    assert listener.producer.values_of("a/t") == [1]


async def test_a_token_lets_a_device_send_its_own_readings_and_no_others() -> None:
    async with listening(auth="token") as listener:
        listener.registry.add("a")
        peer = await listener.peer()
        await peer.say(b'{"hello":{"token":"s-a","ack":true}}\n{"n":"t","v":1}\n{"n":"a/t","v":2}\n{"n":"b/t","v":3}\n')
        answers = [await peer.hear(), await peer.hear()]
        assert answers[0]["error"]["reason"] == "identity"
        assert answers[1] == {"ack": 2}
    assert listener.producer.values_of("a/t") == [1, 2]
    assert listener.producer.values_of("b/t") == []


async def test_a_gateways_token_lets_it_send_for_its_children() -> None:
    async with listening(auth="token") as listener:
        listener.registry.add("gw", "child")
        peer = await listener.peer()
        await peer.say(b'{"hello":{"device":"child","token":"s-gw","ack":true}}\n{"n":"t","v":1}\n{"n":"gw/t","v":2}\n')
        assert await peer.hear() == {"ack": 2}
    assert listener.producer.values_of("child/t") == [1]


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b'{"hello":{"ack":true}}\n',
        b'{"hello":{"token":"wrong","ack":true}}\n',
        b'{"hello":{"token":"s-a","device":"b","ack":true}}\n',
        b'{"hello":{"token":"s-a","device":"no name","ack":true}}\n',
        b'{"hello":{"token":7}}\n',
    ],
)
async def test_a_stranger_is_told_and_closed_and_what_it_sent_is_kept(first: bytes) -> None:
    async with listening(auth="token") as listener:
        listener.registry.add("a")
        listener.registry.add("b")
        peer = await listener.peer()
        await peer.say(first + b'{"n":"a/t","v":1}\n')
        assert (await peer.hear())["error"]["reason"] == "auth"
        assert await peer.hear() is None
    assert listener.producer.values_of("a/t") == []
    assert [one.reason for one in listener.producer.rejects] == ["auth"]
    [kept] = listener.producer.rejects
    assert (kept.raw or "").endswith('{"n":"a/t","v":1}')
    assert kept.count == listener.account.rejected["auth"] == len((kept.raw or "").splitlines())


async def test_a_peer_that_says_nothing_of_itself_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "HELLO_SECONDS", 0.1)
    monkeypatch.setattr(tcp, "SWEEP_SECONDS", 0.05)
    async with listening(auth="token") as listener:
        peer = await listener.peer()
        assert (await peer.hear())["error"]["reason"] == "auth"
        assert await peer.hear() is None


async def test_while_the_registry_is_away_the_known_go_on_and_strangers_are_turned_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(identity, "KNOWN_SECONDS", 0.0)
    async with listening(auth="token") as listener:
        for name in ("a", "b"):
            listener.registry.add(name)
        known = await listener.peer()
        await known.say(b'{"hello":{"token":"s-a","ack":true}}\n{"n":"t","v":1}\n')
        assert await known.hear() == {"ack": 1}
        listener.registry.is_away = True
        known, unknown = await listener.peer(), await listener.peer()
        await known.say(b'{"hello":{"token":"s-a","ack":true}}\n{"n":"t","v":2}\n')
        assert await known.hear() == {"ack": 1}
        await unknown.say(b'{"hello":{"token":"s-b","ack":true}}\n{"n":"t","v":3}\n')
        assert "does not answer" in (await unknown.hear())["error"]["detail"]


async def test_a_revoked_token_works_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "KNOWN_SECONDS", 0.05)
    async with listening(auth="token") as listener:
        listener.registry.add("a")
        hello = b'{"hello":{"token":"s-a","ack":true}}\n{"n":"t","v":1}\n'
        first = await listener.peer()
        await first.say(hello)
        assert await first.hear() == {"ack": 1}
        listener.registry.tokens.clear()
        await asyncio.sleep(0.1)
        second = await listener.peer()
        await second.say(hello)
        assert (await second.hear())["error"]["reason"] == "auth"


async def test_a_client_certificate_says_which_device_it_is(tmp_path: Path, tool: Callable[..., str]) -> None:
    authority = Authority(tmp_path, tool("openssl"))
    server = authority.sign("server", "IP:127.0.0.1")
    device = authority.sign("device", "DNS:room-1")
    foreign = Authority(_made(tmp_path / "foreign"), tool("openssl")).sign("device", "DNS:room-1")
    async with listening(
        auth="token",
        tls_certificate=server.certificate,
        tls_key=server.key,
        tls_client_ca=authority.certificate,
    ) as listener:
        context = ssl.create_default_context(cafile=authority.certificate)
        context.load_cert_chain(device.certificate, device.key)
        peer = Peer(*await asyncio.open_connection("127.0.0.1", listener.tls_port, ssl=context))
        await peer.say(HELLO + b'{"n":"t","v":1}\n{"n":"room-2/t","v":2}\n')
        assert (await peer.hear())["error"]["reason"] == "identity"
        assert await peer.hear() == {"ack": 1}
        for certificate in (foreign, None):
            context = ssl.create_default_context(cafile=authority.certificate)
            if certificate:
                context.load_cert_chain(certificate.certificate, certificate.key)
            with pytest.raises((ssl.SSLError, ConnectionError, EOFError)):
                reader, _ = await asyncio.open_connection("127.0.0.1", listener.tls_port, ssl=context)
                await reader.readexactly(1)
    assert listener.producer.values_of("room-1/t") == [1]


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory


async def test_a_strangers_line_that_is_too_long_is_counted_too() -> None:
    async with listening(auth="token") as listener:
        peer = await listener.peer()
        await peer.say(b"x" * 70_000 + b'\n{"n":"a/t","v":1}\n')
        told = [(await peer.hear())["error"]["reason"] for _ in range(2)]
        assert sorted(told) == ["auth", "line_too_long"]
    assert listener.account.rejected == {"auth": 1, "line_too_long": 1}


async def test_a_token_that_was_revoked_ends_an_open_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "KNOWN_SECONDS", 0.0)
    monkeypatch.setattr(tcp, "RECHECK_SECONDS", 0.1)
    monkeypatch.setattr(tcp, "SWEEP_SECONDS", 0.05)
    async with listening(auth="token") as listener:
        listener.registry.add("a")
        peer = await listener.peer()
        await peer.say(b'{"hello":{"token":"s-a","ack":true}}\n{"n":"t","v":1}\n')
        assert await peer.hear() == {"ack": 1}
        listener.registry.is_away = True
        await asyncio.sleep(0.3)  # as long as nobody can be asked, who was known still is
        await peer.say(b'{"n":"t","v":2}\n')
        assert await peer.hear() == {"ack": 2}
        listener.registry.is_away = False
        listener.registry.tokens.clear()
        assert (await peer.hear())["error"]["reason"] == "auth"
        assert await peer.hear() is None


async def test_what_was_read_before_a_token_was_revoked_names_nobody_elses_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "KNOWN_SECONDS", 0.0)
    monkeypatch.setattr(tcp, "RECHECK_SECONDS", 0.1)
    monkeypatch.setattr(tcp, "SWEEP_SECONDS", 0.05)
    monkeypatch.setattr(intake, "MAX_IN_FLIGHT", 1)
    async with listening(auth="token") as listener:
        listener.registry.add("a")
        listener.producer.on.clear()
        peer = await listener.peer()
        await peer.say(b'{"hello":{"token":"s-a","ack":true}}\n{"n":"t","v":1}\n')
        await listener.taken(1)
        await peer.say(b'{"n":"b/t","v":666}\n')  # waits for room, decoded
        await asyncio.sleep(0.05)
        listener.registry.tokens.clear()
        assert (await peer.hear())["error"]["reason"] == "auth"
        listener.producer.on.set()
        told = []
        while (answer := await peer.hear()) is not None:
            told += [answer["error"]["reason"]] if "error" in answer else []
    assert listener.producer.values_of("a/t") == [1]
    assert listener.producer.values_of("b/t") == []
    assert told == ["identity"]


# One peer and the others.


async def test_connections_that_break_while_kafka_is_away_are_bounded_as_open_ones_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(intake, "AWAY_SECONDS", 0.05)
    monkeypatch.setattr(tcp, "SWEEP_SECONDS", 0.05)
    async with listening(max_connections_per_peer=3) as listener:
        listener.producer.on.clear()
        first = await listener.peer()
        await first.say(HELLO + b'{"n":"a/t","v":0}\n')
        await eventually(lambda: listener.intake.is_away)
        for value in (1, 2):
            gone = await listener.peer()
            await gone.say(b'{"n":"a/t","v":%d}\n' % value)
            await eventually(lambda value=value: len(listener.intake.room._waiting) == value)  # type: ignore[misc]
            reset(gone)
        await asyncio.sleep(0.3)  # until it is noticed, when they are told that Kafka is away
        late = await listener.peer()
        assert (await late.hear())["error"]["reason"] == "busy"
        listener.producer.on.set()
        await listener.delivered(3)
        assert (await first.hear())["error"]["reason"] == "unavailable"
        assert await first.hear() == {"ack": 1}
        await eventually(lambda: open_connections() == 1)
    assert listener.producer.values_of("a/t") == [0, 1, 2]


@pytest.mark.parametrize("line", [b"t,device=a value=21.5", b"a.t 21.5 1790000000"])
async def test_a_last_line_that_may_have_been_cut_is_refused(line: bytes) -> None:
    async with listening() as listener:
        peer = await listener.peer()
        line = line.replace(b"1790000000", b"%d" % (now_us() // 10**6))
        await peer.say(HELLO + line + b"\n" + line[:-2])
        peer.writer.write_eof()
        told: set[str] = set()
        while (answer := await peer.hear()) is not None:
            told |= set(answer)
        assert told == {"ack", "error"}
    assert listener.producer.values_of("a/t") == [21.5]
    assert listener.account.rejected == {"malformed": 1}


async def test_a_last_json_line_needs_no_newline() -> None:
    async with listening() as listener:
        peer = await listener.peer()
        await peer.say(b'{"n":"a/t","v":1}')
        peer.writer.write_eof()
        assert await peer.hear() is None
    assert listener.producer.values_of("a/t") == [1]


async def test_a_line_that_trickles_in_is_refused_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "LINE_SECONDS", 0.3)
    monkeypatch.setattr(tcp, "SWEEP_SECONDS", 0.05)
    async with listening() as listener:
        peer = await listener.peer()
        with pytest.raises(ConnectionError):
            for _ in range(100):
                await peer.say(b"x")
                await asyncio.sleep(0.05)
    assert [one.reason for one in listener.producer.rejects] == ["malformed"]


async def test_garbage_of_one_peer_leaves_the_others_their_turns() -> None:
    async with listening() as listener:
        flood, other = await listener.peer(), await listener.peer()
        await other.say(HELLO)
        flooding = asyncio.create_task(_flood(flood))
        acknowledged = 0
        while acknowledged < 50:
            await other.say(b'{"n":"b/t","v":%d}\n' % acknowledged)
            acknowledged = (await other.hear())["ack"]
        flooding.cancel()
    assert listener.producer.values_of("b/t") == list(range(50))
    assert listener.account.rejected["malformed"] > 1_000


async def _flood(peer: Peer) -> None:
    while True:
        await peer.say(b"x\n" * 30_000)


async def test_one_connection_has_only_so_much_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp, "MAX_UNACKNOWLEDGED", 1_000)
    async with listening() as listener:
        listener.producer.on.clear()
        peer = await listener.peer()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                while True:
                    await peer.say(b'{"n":"a/t","v":1}\n' * 10_000)
        assert 1_000 < listener.intake.room.taken < 20_000
        listener.producer.on.set()


async def test_who_waits_while_kafka_is_away_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "AWAY_SECONDS", 0.1)
    monkeypatch.setattr(tcp, "SWEEP_SECONDS", 0.05)
    async with listening() as listener:
        listener.producer.on.clear()
        peer, quiet = await listener.peer(), await listener.peer()
        await peer.say(HELLO + b'{"n":"a/t","v":1}\n')
        await quiet.say(HELLO)
        assert (await peer.hear())["error"]["reason"] == "unavailable"
        await peer.say(b'{"n":"a/t","v":2}\n')
        await asyncio.sleep(0.3)
        listener.producer.on.set()
        acknowledged = 0
        while acknowledged < 2:
            acknowledged = (await peer.hear())["ack"]
        await quiet.say(b'{"n":"b/t","v":1}\n')
        assert await quiet.hear() == {"ack": 1}
    assert listener.producer.values_of("a/t") == [1, 2]


async def test_a_clock_that_is_ahead_is_told_with_the_acknowledgement() -> None:
    async with listening() as listener:
        peer = await listener.peer()
        await peer.say(HELLO + b'{"n":"a/t","v":1,"t":%d}\n' % (now_us() // 10**6 + 60))
        assert await peer.hear() == {"ack": 1, "skewed": 1}
