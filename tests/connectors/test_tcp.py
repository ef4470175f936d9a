"""The TCP connector over real sockets, with a Kafka that is switched off and on again."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

from connectors import tcp
from tests.support.intake import Bench

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
        async with asyncio.timeout(10):
            line = await self._reader.readline()
        return json.loads(line) if line else None


class Listener(Bench):
    """The connector, listening."""

    port: int

    async def peer(self) -> Peer:
        return Peer(*await asyncio.open_connection("127.0.0.1", self.port))


@asynccontextmanager
async def listening(**settings: Any) -> AsyncIterator[Listener]:
    listener = Listener(**settings)
    async with asyncio.timeout(30), listener.intake.running(), tcp.listening(listener.site) as where:
        listener.port = urlsplit(where).port or 0
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
        linger = (1).to_bytes(4, "little") + (0).to_bytes(4, "little")
        peer.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        peer.writer.transport.abort()
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
    async with asyncio.timeout(20):
        async with listening() as listener:
            peer = await listener.peer()
            listener.producer.on.clear()
            await peer.say(HELLO + b'{"n":"a/t","v":1}\n')
            while listener.intake._room.taken < 1:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            asyncio.get_running_loop().call_later(0.2, listener.producer.on.set)
        assert await peer.hear() == {"ack": 1}
        assert await peer.hear() is None
    assert listener.producer.values_of("a/t") == [1]
