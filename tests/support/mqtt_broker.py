"""A scripted MQTT broker: the test says what it answers, and sees what the connector sends."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

CONNECT, SUBSCRIBE, PUBACK, DISCONNECT, PINGREQ = 1, 8, 4, 14, 12


@dataclass
class Script:
    """How the broker answers.

    Attributes:
        session: Whether CONNACK says that there is a session.
        connack: Its reason code; None never answers.
        suback: Reason code of each subscription.
        versions: Protocol levels that are answered; with another one the connection is closed.
    """

    session: bool = False
    connack: int | None = 0
    suback: int = 1
    versions: tuple[int, ...] = (4, 5)


class Peer:
    """One connection of the connector, as the broker sees it.

    Attributes:
        subscribed: The topic filters.
        acknowledged: Packet identifier and reason code of each PUBACK, in their order.
    """

    def __init__(self, script: Script, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.subscribed: list[str] = []
        self.acknowledged: list[tuple[int, int]] = []
        self.closed = asyncio.Event()
        self.version = 0
        self.writer = writer
        self._script = script
        self._reader = reader
        self._changed = asyncio.Event()

    def publish(self, topic: str, payload: bytes, packet_id: int | None = 1, **options: Any) -> None:
        """Send a message; the options are those of `packet`."""
        self.writer.write(self.packet(topic, payload, packet_id, **options))

    def packet(
        self,
        topic: str,
        payload: bytes,
        packet_id: int | None = 1,
        *,
        dup: bool = False,
        retain: bool = False,
        more: bytes = b"",
    ) -> bytes:
        """Return a PUBLISH packet; ``more`` are MQTT 5 properties."""
        name = topic.encode()
        body = struct.pack("!H", len(name)) + name
        if packet_id is not None:
            body += struct.pack("!H", packet_id)
        if self.version == 5:
            body += _length(len(more)) + more
        body += payload
        return bytes([0x30 | dup << 3 | (packet_id is not None) << 1 | retain]) + _length(len(body)) + body

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return when a condition on what came holds."""
        async with asyncio.timeout(30):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def serve(self) -> None:
        """Answer until either side closes."""
        try:
            while True:
                kind, body = await self._packet()
                self._answer(kind, body)
                self._changed.set()
        except (asyncio.IncompleteReadError, ConnectionError):
            self.writer.close()
        finally:
            self.closed.set()
            self._changed.set()

    def _answer(self, kind: int, body: bytes) -> None:
        if kind == CONNECT:
            self.version = body[6]
            if self.version not in self._script.versions:
                self.writer.close()
            elif self._script.connack is not None:
                tail = b"\x00" if self.version == 5 else b""
                answer = bytes([self._script.session, self._script.connack]) + tail
                self.writer.write(b"\x20" + _length(len(answer)) + answer)
        elif kind == SUBSCRIBE:
            at = 3 + body[2] if self.version == 5 else 2
            while at < len(body):
                size = struct.unpack_from("!H", body, at)[0]
                self.subscribed.append(body[at + 2 : at + 2 + size].decode())
                at += 3 + size
            tail = b"\x00" if self.version == 5 else b""
            answer = body[:2] + tail + bytes([self._script.suback]) * len(self.subscribed)
            self.writer.write(b"\x90" + _length(len(answer)) + answer)
        elif kind == PUBACK:
            self.acknowledged.append((struct.unpack("!H", body[:2])[0], body[2] if len(body) > 2 else 0))
        elif kind == PINGREQ:
            self.writer.write(b"\xd0\x00")

    async def _packet(self) -> tuple[int, bytes]:
        [head] = await self._reader.readexactly(1)
        size, shift = 0, 0
        while True:
            [part] = await self._reader.readexactly(1)
            size |= (part & 127) << shift
            shift += 7
            if part < 128:
                return head >> 4, await self._reader.readexactly(size)


@dataclass
class ScriptedBroker:
    """The broker.

    Attributes:
        script: How it answers; may be changed between connections.
        port: Where it listens.
        peers: All connections so far.
    """

    script: Script
    port: int = 0
    peers: list[Peer] = field(default_factory=list)
    _came: asyncio.Event = field(default_factory=asyncio.Event)

    async def came(self, count: int) -> None:
        """Return when there were so many connections."""
        async with asyncio.timeout(30):
            while len(self.peers) < count:
                self._came.clear()
                await self._came.wait()

    async def peer(self, number: int = 0) -> Peer:
        """Return a connection, when it has come and subscribed."""
        await self.came(number + 1)
        await self.peers[number].until(lambda: bool(self.peers[number].subscribed))
        return self.peers[number]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(self.script, reader, writer)
        self.peers.append(peer)
        self._came.set()
        await peer.serve()


@asynccontextmanager
async def scripted(script: Script | None = None) -> AsyncIterator[ScriptedBroker]:
    """A broker on a free port, for the length of the block."""
    broker = ScriptedBroker(script or Script())
    server = await asyncio.start_server(broker._serve, "127.0.0.1", 0)
    broker.port = server.sockets[0].getsockname()[1]
    try:
        yield broker
    finally:
        server.close()
        for peer in broker.peers:
            peer.writer.close()


def _length(size: int) -> bytes:
    found = bytearray()
    while True:
        size, part = divmod(size, 128)
        found.append(part | (128 if size else 0))
        if not size:
            return bytes(found)
