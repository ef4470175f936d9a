"""The WebSocket endpoint: what it promises its devices, and the Autobahn test suite's cases at the level of frames.

The Autobahn suite (github.com/crossbario/autobahn-testsuite, fuzzingclient) needs Python 2; its cases are written here with
their numbers. Ours is no echo server: what stands for an echo is the acknowledgement of a message that is a reading, and
the error that says how many bytes a message had that is none. Cases that do not apply:

| case               | what it tries                           | why not, or how                                            |
|--------------------|-----------------------------------------|------------------------------------------------------------|
| 1.1.8, 1.2.8       | 65536 bytes in many TCP writes          | here every length of 1.x comes in pieces of 997 bytes too  |
| 6.4.x              | text is refused at the first bad byte   | "non-strict" in the suite: aiohttp hands over whole        |
|                    |                                         | messages, so 1007 comes when the message is complete       |
| 7.1.6              | 256 KiB message, then close, then ping  | 7.1.3 and 9.x                                              |
| 7.13.x             | close codes 5000, 65536                 | informational in the suite: any answer passes              |
| 9.1.4 … 9.8.6      | messages of 2 to 16 MiB                 | over MAX_PACK_BYTES: 1009 by intention, see there          |
| 12.x, 13.x         | 1,000 compressed messages of each size, | 20 of each of 8 sizes, with two window sizes               |
|                    | with every window size                  |                                                            |
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import socket
import struct
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import cbor2
import pytest
from aiohttp import ClientSession, WSMsgType

from connectors import http, identity, intake, metrics
from connectors.http import server, websocket
from isotherm.limits import MAX_PACK_BYTES
from tests.support.intake import Bench, eventually

LINE = b'{"n":"a/t","v":1}'
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
FIN, RSV1, RSV2, RSV3 = 0x80, 0x40, 0x20, 0x10


def frame(opcode: int, payload: bytes = b"", *, flags: int = FIN, size: int | None = None) -> bytes:
    """Make a client's frame (RFC 6455 §5.2), which says that it has ``size`` bytes."""
    length, mask = len(payload) if size is None else size, b"\x37\xfa\x21\x3d"
    head = bytes([flags | opcode])
    if length < 126:
        head += bytes([0x80 | length])
    elif length < 2**16:
        head += b"\xfe" + struct.pack(">H", length)
    else:
        head += b"\xff" + struct.pack(">Q", length)
    key = int.from_bytes((mask * (len(payload) // 4 + 1))[: len(payload)])
    return head + mask + (int.from_bytes(payload) ^ key).to_bytes(len(payload))


def padded(size: int) -> bytes:
    """Make a reading of that many bytes."""
    return LINE + b" " * (size - len(LINE))


def fragments(opcode: int, *parts: bytes) -> list[bytes]:
    last = len(parts) - 1
    return [frame(CONTINUATION if i else opcode, part, flags=FIN * (i == last)) for i, part in enumerate(parts)]


class Peer:
    """A device's WebSocket, frame by frame."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def say(self, *frames: bytes) -> None:
        self.writer.write(b"".join(frames))
        await self.writer.drain()

    async def hear_frame(self) -> tuple[int, bytes]:
        """Return the next frame's opcode and payload, unmasked as a server's must be.

        Raises:
            EOFError: the connection has ended.
        """
        async with asyncio.timeout(30):
            first, length = await self._reader.readexactly(2)
            assert first & 0x70 == 0 and length < 127
            if length == 126:
                (length,) = struct.unpack(">H", await self._reader.readexactly(2))
            return first & 15, await self._reader.readexactly(length)

    async def hear(self) -> Any:
        """Return the next message."""
        opcode, payload = await self.hear_frame()
        assert opcode == TEXT, (opcode, payload)
        return json.loads(payload)

    async def closed(self) -> int:
        """Return the code that the server closes with, past what else it says; 1006 without one."""
        try:
            while (heard := await self.hear_frame())[0] != CLOSE:
                pass
        except (EOFError, ConnectionError):
            return 1006
        code = int.from_bytes(heard[1][:2])
        try:
            await self.say(frame(CLOSE, heard[1][:2]))
            async with asyncio.timeout(30):
                assert await self._reader.read() == b""
        except ConnectionError:
            pass
        return code


class Listener(Bench):
    """The connector, listening."""

    port: int
    session: ClientSession

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/api/v1/ws"

    async def peer(self, *headers: str, query: str = "", status: int = 101, buffer: int = 0) -> Peer:
        device = socket.create_connection(("127.0.0.1", self.port))
        if buffer:
            device.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        reader, writer = await asyncio.open_connection(sock=device)
        head = [f"GET /api/v1/ws{query} HTTP/1.1", "Host: x", "Upgrade: websocket", "Connection: Upgrade", *headers]
        head += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="] * ("Sec-WebSocket-Key" not in str(headers))
        head += ["Sec-WebSocket-Version: 13"] * ("Sec-WebSocket-Version" not in str(headers))
        writer.write("\r\n".join([*head, "", ""]).encode())
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 %d " % status), answer
        if status == 101:
            assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in answer or "Sec-WebSocket-Key" in str(headers)  # RFC 6455 §1.3
        return Peer(reader, writer)

    async def until_taken(self, count: int = 1) -> None:
        while self.intake.room.taken < count:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait long for those peers of a test that take no leave."""
    monkeypatch.setattr(websocket, "CLOSE_SECONDS", 0.2)


@asynccontextmanager
async def listening(**settings: Any) -> AsyncIterator[Listener]:
    listener = Listener(**settings)
    async with (
        asyncio.timeout(30),
        listener.intake.running(),
        ClientSession() as listener.session,
        http.listening(listener.site) as where,
    ):
        listener.port = int(where.rpartition(":")[2])
        yield listener


# Acknowledgements and errors.


async def test_acknowledgements_count_the_readings_of_the_connection() -> None:
    async with listening() as listener:
        peer = await listener.peer()
        await peer.say(frame(TEXT, LINE))
        assert await peer.hear() == {"ack": 1}
        await peer.say(frame(TEXT, LINE + b"\n" + LINE))
        assert await peer.hear() == {"ack": 3}
        await peer.say(frame(TEXT, b'[{"bn":"a/","n":"t","v":2},{"n":"fw","vs":"1.2"}]'))
        assert await peer.hear() == {"ack": 5}
    assert listener.producer.values_of("a/t") == [1, 1, 1, 2]
    assert [one.text for one in listener.producer.attributes] == ["1.2"]


async def test_messages_that_are_sent_together_are_acknowledged_in_their_order() -> None:
    async with listening() as listener:
        peer = await listener.peer()
        await peer.say(*(frame(TEXT, b'{"n":"a/t","v":%d}' % i) for i in range(500)))
        heard: list[int] = []
        while not heard or heard[-1] < 500:
            heard.append((await peer.hear())["ack"])
        assert heard == sorted(set(heard))
    assert listener.producer.values_of("a/t") == list(range(500))


async def test_a_bad_message_is_told_and_kept_and_the_others_are_taken() -> None:
    async with listening() as listener:
        peer = await listener.peer()
        await peer.say(frame(TEXT, b'{"n":"a/t","v":1}\njunk\n{"n":"a/t"}\n{"n":"a/t","v":2}'))
        told = (await peer.hear())["error"]
        assert (told["reason"], told["count"], bool(told["detail"])) == ("malformed", 2, True)
        assert await peer.hear() == {"ack": 2}
        await peer.say(frame(TEXT, LINE))
        assert await peer.hear() == {"ack": 3}
    assert [(one.reason, one.original) for one in listener.producer.rejects] == [
        ("malformed", b"junk"),
        ("no_value", b'{"n":"a/t"}'),
    ]


async def test_nothing_is_acknowledged_before_kafka_has_it() -> None:
    async with listening() as listener:
        listener.producer.on.clear()
        peer = await listener.peer()
        await peer.say(frame(TEXT, LINE))
        await listener.until_taken()
        heard = asyncio.create_task(peer.hear())
        done, _ = await asyncio.wait({heard}, timeout=0.1)
        assert not done
        listener.producer.on.set()
        assert await heard == {"ack": 1}


@pytest.mark.parametrize(
    ("opcode", "payload"),
    [
        (BINARY, cbor2.dumps([{-2: "a/", 0: "t", 2: 1.0}, {0: "t", 2: 2}])),
        (TEXT, b"t,device=a value=1\nt,device=a value=2\n"),
        (TEXT, b'\n {"n":"a/t","v":1}\n\n{"n":"a/t","v":2}'),
    ],
)
async def test_a_message_may_have_another_format(opcode: int, payload: bytes) -> None:
    async with listening() as listener:
        peer = await listener.peer()
        await peer.say(frame(opcode, payload))
        assert await peer.hear() == {"ack": 2}
    assert listener.producer.values_of("a/t") == [1, 2]


async def test_binary_that_is_no_cbor_is_refused_and_kept() -> None:
    async with listening() as listener:
        peer = await listener.peer()
        await peer.say(frame(BINARY, b"\xff\x00"))
        assert (await peer.hear())["error"]["reason"] == "malformed"
    assert [one.original for one in listener.producer.rejects] == [b"\xff\x00"]


# Who a peer is.


def hello(**fields: object) -> bytes:
    return frame(TEXT, json.dumps({"hello": fields}).encode())


BARE = frame(TEXT, b'{"n":"t","v":1}')


async def test_where_everybody_may_send_a_hello_or_the_query_names_the_device() -> None:
    async with listening() as listener:
        for peer, first in [(await listener.peer(), [hello(device="a")]), (await listener.peer(query="?device=a"), [])]:
            await peer.say(*first, BARE)
            assert await peer.hear() == {"ack": 1}
    assert listener.producer.values_of("a/t") == [1, 1]


@pytest.mark.parametrize(
    ("headers", "query", "first"),
    [
        (["Authorization: Bearer s-a"], "", []),
        ([], "?token=s-a", []),
        ([], "", [hello(token="s-a")]),
        ([], "", [hello(token="s-a", device="a", ack=True)]),
        (["Authorization: Bearer wrong"], "", [hello(token="s-a")]),
        (["Authorization: Bearer s-gw"], "", [hello(device="a")]),
        ([], "?device=a", [hello(token="s-gw")]),
        ([], "", [hello(token="wrong"), hello(token="s-a")]),
    ],
)
async def test_a_token_says_which_device_it_is(headers: list[str], query: str, first: list[bytes]) -> None:
    async with listening(auth="token") as listener:
        listener.registry.add("a")
        listener.registry.add("gw", "a")
        peer = await listener.peer(*headers, query=query)
        await peer.say(*first, BARE)
        heard = await peer.hear()
        if len(first) == 2:
            assert heard["error"]["reason"] == "auth"
            heard = await peer.hear()
        assert heard == {"ack": 1}
    assert listener.producer.values_of("a/t") == [1]


async def test_a_device_may_not_speak_for_another() -> None:
    async with listening(auth="token") as listener:
        listener.registry.add("a")
        peer = await listener.peer("Authorization: Bearer s-a")
        await peer.say(frame(TEXT, b'{"n":"t","v":1}\n{"n":"b/t","v":2}'))
        assert (await peer.hear())["error"]["reason"] == "identity"
        assert await peer.hear() == {"ack": 1}


@pytest.mark.parametrize(
    "first",
    [[], [hello()], [hello(token="wrong")], [hello(token="s-a", device="b")], [hello(token="s-a", device="no name")]],
)
async def test_a_stranger_is_told_and_closed_with_1008_and_what_it_sent_is_kept(first: list[bytes]) -> None:
    async with listening(auth="token") as listener:
        for name in ("a", "b"):
            listener.registry.add(name)
        peer = await listener.peer()
        await peer.say(*first, frame(TEXT, LINE), frame(TEXT, LINE))
        for _ in range(len(first) + 1):
            assert (await peer.hear())["error"]["reason"] == "auth"
        assert await peer.closed() == 1008
    assert [(one.reason, one.original) for one in listener.producer.rejects] == [("auth", LINE)]
    assert listener.producer.values_of("a/t") == []


@pytest.mark.parametrize("text", [b'{"hello":{"token":7}}', b'{"hello":{"unknown":1}}', b'{"hello"'])
async def test_a_hello_that_is_not_understood_is_a_reject(text: bytes) -> None:
    async with listening() as listener:
        peer = await listener.peer()
        await peer.say(frame(TEXT, text), frame(TEXT, LINE))
        assert "error" in await peer.hear()
        assert await peer.hear() == {"ack": 1}
    assert [one.original for one in listener.producer.rejects] == [text]


async def test_a_peer_that_does_not_say_who_it_is_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "HELLO_SECONDS", 0.1)
    async with listening(auth="token") as listener:
        peer = await listener.peer()
        pinging = asyncio.create_task(_keep_pinging(peer))  # signs of life do not put it off
        while (heard := await peer.hear_frame())[0] == PONG:
            pass
        assert json.loads(heard[1])["error"]["reason"] == "auth"
        pinging.cancel()
        assert await peer.closed() == 1008


async def _keep_pinging(peer: Peer) -> None:
    while True:
        await peer.say(frame(PING))
        await asyncio.sleep(0.02)


async def test_while_the_registry_is_away_a_hello_may_be_tried_again() -> None:
    async with listening(auth="token") as listener:
        listener.registry.add("a")
        peer = await listener.peer()
        listener.registry.is_away = True
        await peer.say(hello(token="s-a"))
        assert (await peer.hear())["error"]["reason"] == "unavailable"
        await listener.peer("Authorization: Bearer s-a", status=503)
        listener.registry.is_away = False
        await peer.say(hello(token="s-a"), BARE)
        assert await peer.hear() == {"ack": 1}


async def test_where_everybody_may_send_pages_of_others_may_not() -> None:
    async with listening() as listener:
        await listener.peer("Origin: https://evil.example", status=403)
        await listener.peer("Origin: http://localhost:7300", status=101)


# Messages that end the connection.


async def test_a_message_of_exactly_the_limit_is_taken() -> None:
    async with listening() as listener:
        peer = await listener.peer()
        await peer.say(frame(TEXT, padded(MAX_PACK_BYTES)))
        assert await peer.hear() == {"ack": 1}


@pytest.mark.parametrize(
    "message",
    [
        [frame(TEXT, padded(MAX_PACK_BYTES + 1))],
        fragments(TEXT, padded(MAX_PACK_BYTES), b" "),
        [frame(BINARY, size=2**62)],
        [frame(BINARY, size=2**64 - 1)],
    ],
)
async def test_a_message_that_is_too_big_is_counted_and_closed_with_1009(message: list[bytes]) -> None:
    async with listening() as listener:
        peer = await listener.peer()
        await peer.say(frame(TEXT, LINE))
        assert await peer.hear() == {"ack": 1}
        await peer.say(*message)
        assert await peer.closed() == 1009
    assert [(one.reason, one.is_whole) for one in listener.producer.rejects] == [("too_large", False)]
    assert listener.account.rejected == {"too_large": 1}


async def test_text_that_is_not_utf8_is_told_and_kept_and_closed_with_1007() -> None:
    async with listening() as listener:
        peer = await listener.peer()
        await peer.say(frame(TEXT, LINE), frame(TEXT, b'{"n":"a/\xff","v":1}'))
        assert await peer.hear() == {"ack": 1}
        assert (await peer.hear())["error"]["reason"] == "malformed"
        assert await peer.closed() == 1007
    assert [one.original for one in listener.producer.rejects] == [b'{"n":"a/\xff","v":1}']


# Back-pressure, and Kafka away.


async def test_one_socket_has_only_so_much_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "MAX_UNACKNOWLEDGED", 1_000)
    message = frame(TEXT, b"\n".join([LINE] * 500))
    async with listening() as listener:
        listener.producer.on.clear()
        peer = await listener.peer()
        sent = 0
        with pytest.raises(TimeoutError):  # the socket's buffers fill up: the device is told by not being read
            async with asyncio.timeout(0.5):
                while True:
                    await peer.say(message)
                    sent += 500
        assert 1_000 < listener.intake.room.taken <= 2_000
        listener.producer.on.set()
        acknowledged = 0
        while acknowledged < sent:
            acknowledged = (await peer.hear())["ack"]
        peer.writer.close()


async def test_a_peer_that_waits_for_kafka_is_not_taken_for_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "MAX_UNACKNOWLEDGED", 0)
    monkeypatch.setattr(websocket, "PING_SECONDS", 0.05)
    async with listening() as listener:
        listener.producer.on.clear()
        peer = await listener.peer()
        await peer.say(*[frame(TEXT, padded(60_000))] * 20)  # so many that the transport is not read, and no pong is
        await listener.until_taken()
        await asyncio.sleep(0.3)
        listener.producer.on.set()
        acknowledged = 0
        while acknowledged < 20:
            opcode, payload = await peer.hear_frame()
            acknowledged = json.loads(payload)["ack"] if opcode == TEXT else acknowledged
    assert listener.producer.values_of("a/t") == [1] * 20


async def test_a_peer_that_reads_no_answers_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "UNREAD_SECONDS", 0.1)
    async with listening() as listener:
        peer = await listener.peer(buffer=4096)
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        with pytest.raises(ConnectionError):
            while True:
                await peer.say(*[frame(PING, b"x" * 125)] * 100)
        other = await listener.peer()
        await other.say(frame(TEXT, LINE))
        assert await other.hear() == {"ack": 1}


async def test_a_peer_that_shows_no_life_is_pinged_and_then_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "PING_SECONDS", 0.1)
    async with listening() as listener:
        peer = await listener.peer()
        for _ in range(3):
            assert await peer.hear_frame() == (PING, b"")
            await peer.say(frame(PONG))
        assert await peer.hear_frame() == (PING, b"")
        assert await peer.closed() == 1000


async def test_who_waits_while_kafka_is_away_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "AWAY_SECONDS", 0.1)
    monkeypatch.setattr(websocket, "AWAY_SECONDS", 0.02)
    async with listening() as listener:
        peer, quiet = await listener.peer(), await listener.peer()
        for round_ in (1, 2):
            listener.producer.on.clear()
            await peer.say(frame(TEXT, LINE))
            assert (await peer.hear())["error"]["reason"] == "unavailable"
            await peer.say(frame(TEXT, LINE))
            await asyncio.sleep(0.1)
            listener.producer.on.set()
            acknowledged = 0
            while acknowledged < 2 * round_:
                acknowledged = (await peer.hear())["ack"]
        await quiet.say(frame(TEXT, LINE))
        assert await quiet.hear() == {"ack": 1}
    assert listener.producer.values_of("a/t") == [1] * 5


async def test_who_says_goodbye_is_still_told_what_kafka_has() -> None:
    async with listening() as listener:
        listener.producer.on.clear()
        peer = await listener.peer()
        await peer.say(frame(TEXT, LINE), frame(CLOSE, b"\x03\xe8"))
        await listener.until_taken()
        listener.producer.on.set()
        assert await peer.hear() == {"ack": 1}
        assert await peer.closed() == 1000


async def test_what_was_sent_before_the_connection_broke_is_stored() -> None:
    async with listening() as listener:
        listener.producer.on.clear()
        peer = await listener.peer()
        await peer.say(frame(TEXT, LINE))
        await listener.until_taken()
        peer.writer.transport.abort()
        listener.producer.on.set()
    assert listener.producer.values_of("a/t") == [1]


# The end.


async def test_a_stop_answers_what_was_read_and_closes_with_1001() -> None:
    async with listening() as listener:
        peer, idle = await listener.peer(), await listener.peer()
        listener.producer.on.clear()
        await peer.say(frame(TEXT, LINE))
        await listener.until_taken()
        ends = [asyncio.create_task(_last_words(peer)), asyncio.create_task(_last_words(idle))]
        asyncio.get_running_loop().call_later(0.1, listener.producer.on.set)
    assert [await end for end in ends] == [([{"ack": 1}], 1001), ([], 1001)]


async def _last_words(peer: Peer) -> tuple[list[Any], int]:
    said = []
    while (heard := await peer.hear_frame())[0] == TEXT:
        said.append(json.loads(heard[1]))
    assert heard[0] == CLOSE
    await peer.say(frame(CLOSE, heard[1]))
    with pytest.raises(EOFError):
        await peer.hear_frame()
    return said, int.from_bytes(heard[1])


async def test_a_stop_waits_neither_for_kafka_nor_for_peers_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "DRAIN_SECONDS", 0.1)
    async with listening() as listener:
        peer, mute = await listener.peer(), await listener.peer()
        listener.producer.on.clear()
        await peer.say(frame(TEXT, LINE))
        await listener.until_taken()
    assert await peer.closed() == 1001
    assert await mute.hear_frame() == (CLOSE, b"\x03\xe9")


async def test_no_socket_is_opened_during_a_stop() -> None:
    async with listening() as listener:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        listener.producer.on.clear()
        post = b"POST /api/v1/readings HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(LINE)
        writer.write(post + LINE)
        await listener.until_taken()
        upgrade = b"GET /api/v1/ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
        writer.write(upgrade)
        asyncio.get_running_loop().call_later(0.1, listener.producer.on.set)
    heard = await reader.read()
    assert heard.startswith(b"HTTP/1.1 204") and b"101" not in heard


# permessage-deflate (RFC 7692) by aiohttp's client. Autobahn 12.x and 13.x.


@pytest.mark.parametrize("size", [0, 16, 64, 256, 1024, 4096, 8192, 131_072])  # 12.1.1 … 12.1.10 and 12.2.x in one
@pytest.mark.parametrize("window", [9, 15])  # 13.x
async def test_autobahn_12_13_compressed_messages_are_taken(size: int, window: int) -> None:
    async with listening() as listener, listener.session.ws_connect(listener.url, compress=window) as ws:
        assert ws.compress
        message = padded(size) if size > len(LINE) else LINE
        for i in range(20):
            await ws.send_str(message.decode())
            assert json.loads(await ws.receive_str(timeout=10)) == {"ack": i + 1}
        await ws.send_bytes(cbor2.dumps([{0: "a/t", 2: 1}]))
        assert json.loads(await ws.receive_str(timeout=10)) == {"ack": 21}


DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate"


async def test_autobahn_13_offers_that_are_not_understood_are_declined() -> None:
    async with listening() as listener:
        peer = await listener.peer("Sec-WebSocket-Extensions: x-unknown; a=b")
        await peer.say(frame(TEXT, LINE))
        assert await peer.hear() == {"ack": 1}


async def test_a_bomb_is_closed_with_1009_and_damage_closed() -> None:
    squeeze = zlib.compressobj(wbits=-15)
    bomb = (squeeze.compress(bytes(10_000_000)) + squeeze.flush(zlib.Z_SYNC_FLUSH))[:-4]
    async with listening() as listener:
        peer = await listener.peer(DEFLATE)
        await peer.say(frame(TEXT, bomb, flags=FIN | RSV1))
        assert await peer.closed() == 1009
        peer = await listener.peer(DEFLATE)
        await peer.say(frame(TEXT, b"\xff" * 20, flags=FIN | RSV1))
        assert await peer.closed() in (1000, 1002, 1007)
        other = await listener.peer()
        await other.say(frame(TEXT, LINE))
        assert await other.hear() == {"ack": 1}
    assert listener.account.rejected == {"too_large": 1, "malformed": 1}


# The Autobahn test suite, with its case numbers. `ACK` is the answer to a good message.

ACK = (TEXT, b'{"ack":1}')


async def talk(*frames: bytes, cut: int = 0) -> tuple[list[tuple[int, bytes]], int]:
    """Say frames, all at once or in pieces of ``cut`` bytes, and goodbye; return what is heard and the close code."""
    async with listening() as listener:
        peer = await listener.peer()
        sock = peer.writer.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream = b"".join(frames) + frame(CLOSE, b"\x03\xe8")
        for i in range(0, len(stream), cut or len(stream)):
            try:
                await peer.say(stream[i : i + (cut or len(stream))])
                await asyncio.sleep(0)
            except ConnectionError:
                break
        heard = []
        try:
            while (one := await peer.hear_frame())[0] != CLOSE:
                heard.append(one)
        except (EOFError, ConnectionError):
            return heard, 1006
        assert len(one[1]) != 1  # RFC 6455 §5.5.1
        return heard, int.from_bytes(one[1][:2])


@pytest.mark.parametrize("cut", [0, 997])
@pytest.mark.parametrize(
    ("case", "size"), [(2, 125), (3, 126), (4, 127), (5, 128), (6, 65535), (7, 65536), (0, 124), (0, 65534), (0, 65537)]
)
async def test_autobahn_1_messages_of_every_kind_of_length(case: int, size: int, cut: int) -> None:
    assert await talk(frame(TEXT, padded(size)), cut=cut) == ([ACK], 1000)
    cbor = cbor2.dumps([{0: "a/t", 2: 1}])
    filled = cbor2.dumps([{0: "a/t", 2: 1, "x": ""}])
    room = size - len(filled)
    filled = cbor2.dumps([{0: "a/t", 2: 1, "x": "x" * (room - (1 if room < 256 else 2 if room < 65538 else 4))}])
    assert await talk(frame(BINARY, filled), frame(BINARY, cbor), cut=cut) in (
        ([(TEXT, b'{"ack":1}'), (TEXT, b'{"ack":2}')], 1000),
        ([(TEXT, b'{"ack":2}')], 1000),
    )


async def test_autobahn_1_1_1_and_1_2_1_an_empty_message_is_nothing() -> None:
    assert await talk(frame(TEXT), frame(TEXT, LINE)) == ([ACK], 1000)
    heard, code = await talk(frame(BINARY))
    assert (json.loads(heard[0][1])["error"]["reason"], code) == ("malformed", 1000)


@pytest.mark.parametrize(
    ("case", "payload"),
    [("2.1", b""), ("2.2", b"Hello, world!"), ("2.3", b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff"), ("2.4", b"\xfe" * 125)],
)
@pytest.mark.parametrize("cut", [0, 1])  # 2.6: octet-wise
async def test_autobahn_2_a_ping_is_answered_with_its_payload(case: str, payload: bytes, cut: int) -> None:
    assert await talk(frame(PING, payload), cut=cut) == ([(PONG, payload)], 1000)


async def test_autobahn_2_5_a_ping_that_is_too_long_is_an_error() -> None:
    assert await talk(frame(PING, b"\xfe" * 126)) == ([], 1002)


@pytest.mark.parametrize("payload", [b"", b"unsolicited"])  # 2.7, 2.8
async def test_autobahn_2_7_to_2_9_a_pong_that_nobody_asked_for_is_passed_over(payload: bytes) -> None:
    assert await talk(frame(PONG, payload)) == ([], 1000)
    assert await talk(frame(PONG, payload), frame(PING, b"ping")) == ([(PONG, b"ping")], 1000)


@pytest.mark.parametrize("cut", [0, 1])  # 2.11: octet-wise
async def test_autobahn_2_10_many_pings_are_answered_in_their_order(cut: int) -> None:
    payloads = [b"payload-%d" % i for i in range(10)]
    assert await talk(*(frame(PING, one) for one in payloads), cut=cut) == ([(PONG, one) for one in payloads], 1000)


@pytest.mark.parametrize("flags", [RSV1, RSV2, RSV1 | RSV2, RSV3, RSV1 | RSV3, RSV2 | RSV3, RSV1 | RSV2 | RSV3])
@pytest.mark.parametrize("opcode", [TEXT, BINARY, PING, CLOSE])
async def test_autobahn_3_reserved_bits_are_an_error(flags: int, opcode: int) -> None:
    assert (await talk(frame(opcode, b"", flags=FIN | flags)))[1] == 1002
    heard, code = await talk(frame(TEXT, LINE), frame(opcode, b"", flags=FIN | flags))  # 3.2 to 3.4
    assert (heard in ([], [ACK]), code) == (True, 1002)


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])  # 4.1.1 … 4.1.5, 4.2.1 … 4.2.5
@pytest.mark.parametrize("payload", [b"", b"reserved"])
async def test_autobahn_4_reserved_opcodes_are_an_error(opcode: int, payload: bytes) -> None:
    assert await talk(frame(opcode, payload), frame(PING)) == ([], 1002)


@pytest.mark.parametrize("cut", [0, 1])
@pytest.mark.parametrize(
    ("case", "frames", "expected"),
    [
        ("5.1", fragments(PING, b"frag", b"ment"), ([], 1002)),
        ("5.2", fragments(PONG, b"frag", b"ment"), ([], 1002)),
        ("5.3", fragments(TEXT, LINE[:5], LINE[5:]), ([ACK], 1000)),
        ("5.6", [fragments(TEXT, LINE[:5], LINE[5:])[0], frame(PING, b"p"), fragments(TEXT, LINE[:5], LINE[5:])[1]],
         ([(PONG, b"p"), ACK], 1000)),
        ("5.9", [*fragments(CONTINUATION, b"x"), frame(TEXT, LINE)], ([], 1002)),
        ("5.12", [frame(CONTINUATION, b"x", flags=0), frame(TEXT, LINE)], ([], 1002)),
        ("5.15", [*fragments(TEXT, LINE[:5], LINE[5:]), frame(CONTINUATION, b"x", flags=0), frame(TEXT, LINE)],
         (None, 1002)),
        ("5.16", [frame(CONTINUATION, b"x", flags=0), frame(TEXT, b"y"), frame(CONTINUATION, b"z")] * 2, ([], 1002)),
        ("5.17", [frame(CONTINUATION, b"x"), frame(TEXT, b"y"), frame(CONTINUATION, b"z")] * 2, ([], 1002)),
        ("5.18", [frame(TEXT, b"x", flags=0), frame(TEXT, b"y")], ([], 1002)),
        ("5.19", [frame(TEXT, LINE[:4], flags=0), frame(CONTINUATION, LINE[4:8], flags=0), frame(PING, b"1"),
                  frame(CONTINUATION, LINE[8:12], flags=0), frame(CONTINUATION, LINE[12:], flags=0), frame(PING, b"2"),
                  frame(CONTINUATION)], ([(PONG, b"1"), (PONG, b"2"), ACK], 1000)),
        ("6.1.2", fragments(TEXT, b"", LINE, b""), ([ACK], 1000)),
        ("6.1.3", fragments(TEXT, b"", b"", LINE), ([ACK], 1000)),
    ],
)  # fmt: skip
async def test_autobahn_5_fragments(
    case: str, frames: list[bytes], expected: tuple[list[tuple[int, bytes]] | None, int], cut: int
) -> None:
    heard, code = await talk(*frames, cut=cut)
    if cut and expected[1] == 1002 and code == 1006:
        code = 1002  # our next write has met a closed connection: the suite has "requireClean": False here
    assert (heard if expected[0] is not None else None, code) == expected


_KOSME = "\u03ba\u1f79\u03c3\u03bc\u03b5".encode()


@pytest.mark.parametrize(
    ("case", "text"),
    [
        ("6.2.1", "Hello-µ@ßöäüàá-UTF-8!!".encode()),
        ("6.5.1", _KOSME),
        *((f"6.6.{i}", _KOSME[:i]) for i in (2, 5, 7, 9, 11)),
        ("6.7", b"\x00"), ("6.7", b"\xc2\x80"), ("6.7", b"\xe0\xa0\x80"), ("6.7", b"\xf0\x90\x80\x80"),
        ("6.9", b"\x7f"), ("6.9", b"\xdf\xbf"), ("6.9", b"\xef\xbf\xbf"), ("6.9", b"\xf4\x8f\xbf\xbf"),
        ("6.11", b"\xed\x9f\xbf"), ("6.11", b"\xee\x80\x80"), ("6.11", b"\xef\xbf\xbd"), ("6.11", b"\xf4\x8f\xbf\xbf"),
        ("6.22", b"\xef\xbf\xbe"), ("6.22", b"\xf0\x9f\xbf\xbf"), ("6.23", b"\xef\xbf\xbe"), ("6.23", b"\xef\xbf\xbf"),
    ],
)  # fmt: skip
async def test_autobahn_6_valid_utf8_is_text(case: str, text: bytes) -> None:
    expected = (["malformed"], 1000)  # it is text, and no reading
    for frames in ([frame(TEXT, text)], fragments(TEXT, *(text[i : i + 1] for i in range(len(text))))):
        heard, code = await talk(*frames)
        assert ([json.loads(payload)["error"]["reason"] for _, payload in heard], code) == expected


@pytest.mark.parametrize(
    ("case", "text"),
    [
        ("6.3.1", _KOSME + b"\xed\xa0\x80edited"),
        *((f"6.6.{i}", _KOSME[:i]) for i in (1, 3, 4, 6, 8, 10)),
        ("6.8", b"\xf8\x88\x80\x80\x80"), ("6.8", b"\xfc\x84\x80\x80\x80\x80"),
        ("6.10", b"\xf7\xbf\xbf\xbf"), ("6.10", b"\xfb\xbf\xbf\xbf\xbf"), ("6.10", b"\xfd\xbf\xbf\xbf\xbf\xbf"),
        ("6.11.5", b"\xf4\x90\x80\x80"),
        *(("6.12", bytes([0x80 + i % 64] * i)) for i in (1, 2, 3, 4, 5, 6, 7)), ("6.12.8", bytes(range(0x80, 0xBF))),
        ("6.13.1", b" ".join(bytes([i]) for i in range(0xC0, 0xE0))), ("6.13.5", b"\xfc \xfd "),
        ("6.14", b"\xc0"), ("6.14", b"\xe0\x80"), ("6.14", b"\xf0\x80\x80"), ("6.14", b"\xdf"), ("6.14", b"\xef\xbf"),
        ("6.15", b"\xc0\xe0\x80\xf0\x80\x80\xf8\x80\x80\x80"),
        ("6.16", b"\xfe"), ("6.16", b"\xff"), ("6.16", b"\xfe\xfe\xff\xff"),
        ("6.17", b"\xc0\xaf"), ("6.17", b"\xe0\x80\xaf"), ("6.17", b"\xf0\x80\x80\xaf"),
        ("6.18", b"\xc1\xbf"), ("6.18", b"\xe0\x9f\xbf"), ("6.18", b"\xf0\x8f\xbf\xbf"),
        ("6.19", b"\xc0\x80"), ("6.19", b"\xe0\x80\x80"), ("6.19", b"\xf0\x80\x80\x80"),
        ("6.20", b"\xed\xa0\x80"), ("6.20", b"\xed\xad\xbf"), ("6.20", b"\xed\xbf\xbf"),
        ("6.21", b"\xed\xa0\x80\xed\xb0\x80"), ("6.21", b"\xed\xaf\xbf\xed\xbf\xbf"),
    ],
)  # fmt: skip
async def test_autobahn_6_text_that_is_not_utf8_is_closed_with_1007(case: str, text: bytes) -> None:
    for frames in ([frame(TEXT, text)], fragments(TEXT, *(text[i : i + 1] for i in range(len(text))))):
        assert (await talk(*frames, frame(TEXT, LINE)))[1] == 1007


@pytest.mark.parametrize(
    ("case", "frames", "code"),
    [
        ("7.1.1", [frame(TEXT, LINE), frame(CLOSE, b"\x03\xe8")], 1000),
        ("7.1.2", [frame(CLOSE, b"\x03\xe8")] * 2, 1000),
        ("7.1.3", [frame(CLOSE, b"\x03\xe8"), frame(PING)], 1000),
        ("7.1.4", [frame(CLOSE, b"\x03\xe8"), frame(TEXT, LINE)], 1000),
        ("7.1.5", [frame(TEXT, LINE, flags=0), frame(CLOSE, b"\x03\xe8"), frame(CONTINUATION)], 1000),
        ("7.3.1", [frame(CLOSE)], 1000),
        ("7.3.2", [frame(CLOSE, b"a")], 1002),
        ("7.3.3", [frame(CLOSE, b"\x03\xe8")], 1000),
        ("7.3.4", [frame(CLOSE, b"\x03\xe8Hello World!")], 1000),
        ("7.3.5", [frame(CLOSE, b"\x03\xe8" + b"*" * 123)], 1000),
        ("7.3.6", [frame(CLOSE, b"\x03\xe8" + b"*" * 124)], 1002),
        ("7.5.1", [frame(CLOSE, b"\x03\xe8\xce\xba\xed\xa0\x80")], 1007),
        *((f"7.7.{i}", [frame(CLOSE, code.to_bytes(2))], 1000) for i, code in enumerate(
            [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999], 1)),
        *((f"7.9.{i}", [frame(CLOSE, code.to_bytes(2))], 1002) for i, code in enumerate(
            [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999], 1)),
    ],
)  # fmt: skip
async def test_autobahn_7_goodbyes_are_answered(case: str, frames: list[bytes], code: int) -> None:
    async with listening() as listener:
        peer = await listener.peer()
        await peer.say(*frames)
        heard = []
        while (one := await peer.hear_frame())[0] != CLOSE:
            heard.append(one)
        assert int.from_bytes(one[1][:2]) == code
        with pytest.raises((EOFError, ConnectionError)):  # and closes the connection itself (RFC 6455 §7.1.1)
            await peer.hear_frame()
        assert heard == [ACK] * (case == "7.1.1")


@pytest.mark.parametrize(
    "headers",
    [
        ["Sec-WebSocket-Key: short"],
        ["Sec-WebSocket-Key: "],
        ["Sec-WebSocket-Version: 12"],
        ["Sec-WebSocket-Version: x"],
    ],
)
async def test_autobahn_7_a_handshake_that_is_none_is_refused(headers: list[str]) -> None:
    async with listening() as listener:
        await listener.peer(*headers, status=400)


@pytest.mark.parametrize(("case", "size"), [("9.1.1", 64 << 10), ("9.1.2", 256 << 10), ("9.1.3", 1 << 20)])
async def test_autobahn_9_1_large_messages(case: str, size: int) -> None:
    assert await talk(frame(TEXT, padded(size))) == ([ACK], 1000)


@pytest.mark.parametrize(("case", "part"), [("9.3.2", 256), ("9.3.3", 1024), ("9.3.5", 16 << 10), ("9.3.9", 1 << 20)])
async def test_autobahn_9_3_large_messages_in_fragments(case: str, part: int) -> None:
    whole = padded(1 << 20)
    parts = [whole[i : i + part] for i in range(0, len(whole), part)]
    assert await talk(*fragments(TEXT, *parts)) == ([ACK], 1000)


@pytest.mark.parametrize(("case", "cut"), [("9.5.1", 64), ("9.5.3", 256), ("9.5.6", 2048)])
async def test_autobahn_9_5_large_messages_in_small_packets(case: str, cut: int) -> None:
    assert await talk(frame(TEXT, padded(128 << 10)), cut=cut) == ([ACK], 1000)


@pytest.mark.parametrize("size", [17, 64, 256])  # 9.7, 9.8: a thousand messages
async def test_autobahn_9_7_many_messages(size: int) -> None:
    async with listening() as listener:
        peer = await listener.peer()
        await peer.say(*[frame(TEXT, padded(size))] * 1_000)
        acknowledged = 0
        while acknowledged < 1_000:
            acknowledged = (await peer.hear())["ack"]


async def test_autobahn_10_1_1_a_message_in_uneven_fragments() -> None:
    whole = padded(65_536)
    assert await talk(*fragments(TEXT, *(whole[i : i + 1300] for i in range(0, 65_536, 1300)))) == ([ACK], 1000)


async def test_noise_is_closed_and_disturbs_nobody() -> None:
    async with listening() as listener:
        other = await listener.peer()
        for _ in range(20):
            peer = await listener.peer()
            await peer.say(os.urandom(2_000), frame(CLOSE))
            peer.writer.close()
        for count in itertools.islice(itertools.count(1), 3):
            await other.say(frame(TEXT, LINE))
            assert await other.hear() == {"ack": count}


async def test_an_unmasked_frame_is_taken_as_aiohttp_does() -> None:
    """RFC 6455 §5.1 would have it closed; Autobahn has no case for it. The mask protects proxies, not servers."""
    async with listening() as listener:
        peer = await listener.peer()
        await peer.say(bytes([FIN | TEXT, len(LINE)]) + LINE)
        assert await peer.hear() == {"ack": 1}


def test_every_message_type_that_is_heard_is_known() -> None:
    assert {WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.PING} == {TEXT, BINARY, PING}


async def test_a_token_that_was_revoked_ends_an_open_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "KNOWN_SECONDS", 0.0)
    monkeypatch.setattr(websocket, "RECHECK_SECONDS", 0.0)
    async with listening(auth="token") as listener:
        listener.registry.add("a")
        peer = await listener.peer()
        await peer.say(frame(TEXT, b'{"hello":{"token":"s-a"}}'), frame(TEXT, b'{"n":"t","v":1}'))
        assert await peer.hear() == {"ack": 1}
        listener.registry.is_away = True
        await peer.say(frame(TEXT, b'{"n":"t","v":2}'))
        assert await peer.hear() == {"ack": 2}
        listener.registry.is_away = False
        listener.registry.tokens.clear()
        await peer.say(frame(TEXT, b'{"n":"t","v":3}'))
        assert (await peer.hear())["error"]["reason"] == "auth"
    assert listener.producer.values_of("a/t") == [1, 2]


async def test_a_token_that_was_revoked_ends_a_socket_that_only_waits_for_commands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(identity, "KNOWN_SECONDS", 0.0)
    monkeypatch.setattr(websocket, "RECHECK_SECONDS", 0.1)
    async with listening(auth="token") as listener:
        monkeypatch.setattr(listener.dispatcher, "_wake", lambda _: None)  # there is no store here
        listener.registry.add("a")
        peer = await listener.peer()
        await peer.say(frame(TEXT, b'{"hello":{"token":"s-a","commands":true}}'))
        await eventually(lambda: "a" in listener.dispatcher._outlets)
        listener.registry.tokens.clear()
        assert await peer.closed() == 1008
        assert "a" not in listener.dispatcher._outlets


async def test_a_peer_that_leaves_while_kafka_is_away_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "AWAY_SECONDS", 0.05)
    monkeypatch.setattr(websocket, "AWAY_SECONDS", 0.05)
    async with listening() as listener:
        listener.producer.on.clear()
        first = await listener.peer()
        await first.say(frame(TEXT, LINE))
        await eventually(lambda: listener.intake.is_away)
        for _ in range(3):
            peer = await listener.peer()
            await peer.say(frame(TEXT, LINE))
            assert (await peer.hear())["error"]["reason"] == "unavailable"
            peer.writer.close()
        await eventually(lambda: metrics.connections.labels("ws")._value.get() == 1, 20.0)
        listener.producer.on.set()
        assert (await first.hear())["error"]["reason"] == "unavailable"
        assert await first.hear() == {"ack": 1}
    assert listener.producer.values_of("a/t") == [1], "what was not acknowledged the device sends again"
