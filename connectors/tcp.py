"""TCP: NDJSON SenML, one record or array a line.

    {"n":"room-1/temperature","u":"Cel","v":21.5,"t":1790000000.25}

A connection may begin with a line that asks for acknowledgements:

    {"hello":{"ack":true}}

and is then answered: ``{"ack":n}`` when Kafka has n readings of this connection, ``{"error":{…}}`` for each input that was
refused (with ``count`` and the first of them when there were several in one chunk). A bad line costs that line and nothing
else; after one that is too long, the next newline begins anew.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

import msgspec

from connectors.formats.decoded import Decoded
from connectors.formats.lines import MAX_CHUNK_BYTES, LineFramer
from connectors.formats.senml import decode_lines
from connectors.intake import Intake, Receipt
from isotherm.clock import now_us
from isotherm.logs import Throttle
from isotherm.rejects import Rejected
from isotherm.settings import Settings

IDLE_SECONDS = 600.0
"""A connection that sends nothing for so long is closed."""

HALF_LINE_SECONDS = 30.0
"""A line that has begun must have ended by then, else it is refused and the connection closed."""

UNREAD_SECONDS = 30.0
"""A peer that asks for acknowledgements and does not read them for so long is disconnected."""

ANSWER_BUFFER_BYTES = 16 * 1024
"""Of the kernel, for each connection: answers are short, and a peer that does not read them is noticed soon."""

CLOSE_SECONDS = 5.0
"""How long a stop waits for peers to take their answers."""

MAX_CONNECTIONS = 10_000
MAX_UNACKNOWLEDGED = 100
"""Chunks of one connection that wait for Kafka; then it is not read until one is through."""

log = logging.getLogger(__name__)


class _Hello(msgspec.Struct, forbid_unknown_fields=True):
    ack: bool = False


class _HelloLine(msgspec.Struct, forbid_unknown_fields=True):
    hello: _Hello


_hello = msgspec.json.Decoder(_HelloLine)


@asynccontextmanager
async def listening(settings: Settings, intake: Intake) -> AsyncIterator[str]:
    """Serve for the length of the block; yields where. At its end, what was read is taken in and acknowledged."""
    connections: set[_Connection] = set()
    throttle = Throttle()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(connections) >= MAX_CONNECTIONS:
            if throttle("full") is not None:
                log.warning("refused a connection: %d are open", MAX_CONNECTIONS)
            writer.write(b'{"error":{"reason":"busy","detail":"too many connections","count":0}}\n')
            writer.close()
            return
        connection = _Connection(intake, reader, writer)
        connections.add(connection)
        try:
            await connection.serve()
        finally:
            connections.discard(connection)

    server = await asyncio.start_server(serve, settings.host, settings.tcp_port, limit=MAX_CHUNK_BYTES, backlog=1024)
    try:
        host, port = server.sockets[0].getsockname()[:2]
        yield f"tcp://{host}:{port}"
    finally:
        server.close()
        await _close(connections)


async def _close(connections: Collection[_Connection]) -> None:
    """End every connection when what it sent is answered; one that takes too long is cut off."""
    closing = {asyncio.create_task(connection.close()) for connection in connections}
    if closing:
        await asyncio.wait(closing, timeout=CLOSE_SECONDS)
        for connection in connections:
            connection.abort()
        await asyncio.wait(closing)


class _Connection:
    """One peer."""

    def __init__(self, intake: Intake, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._intake = intake
        self._reader = reader
        self._writer = writer
        self._framer = LineFramer()
        self._began = False
        self._acknowledges = False
        self._acknowledged = 0
        self._unacknowledged: asyncio.Queue[Receipt | None] = asyncio.Queue(MAX_UNACKNOWLEDGED)
        self._reading: asyncio.Task[None] | None = None
        self._closed = asyncio.Event()
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ANSWER_BUFFER_BYTES)
        writer.transport.set_write_buffer_limits(high=0)
        host, port = (writer.get_extra_info("peername") or ("?", 0))[:2]
        self._peer = f"{host}:{port}"

    async def serve(self) -> None:
        """Read until the peer, a time-out or :meth:`close` ends it; then answer what was read."""
        self._reading = asyncio.create_task(self._read(), name=f"tcp-read-{self._peer}")
        answering = asyncio.create_task(self._answer(), name=f"tcp-answer-{self._peer}")
        try:
            await asyncio.wait({self._reading})
            await self._unacknowledged.put(None)
            await answering
        finally:
            self._writer.close()
            self._closed.set()
        if not self._reading.cancelled() and (error := self._reading.exception()):
            if not isinstance(error, OSError):
                raise error
            log.debug("%s went away: %s", self._peer, error)

    def abort(self) -> None:
        """Answer nothing more."""
        self._acknowledges = False
        self._writer.transport.abort()

    async def close(self) -> None:
        """Read no more; return when what was read is answered."""
        if self._reading is not None:
            self._reading.cancel()
        await self._closed.wait()

    async def _read(self) -> None:
        while True:
            patience = HALF_LINE_SECONDS if self._framer.is_inside_line else IDLE_SECONDS
            try:
                async with asyncio.timeout(patience):
                    chunk = await self._reader.read(MAX_CHUNK_BYTES)
            except TimeoutError:
                await self._time_out()
                return
            lines, rejects = self._framer.feed(chunk) if chunk else self._framer.finish()
            if lines and not self._began:
                lines = self._begin(lines)
            if lines or rejects:
                await self._take(lines, rejects)
            if not chunk:
                return

    def _begin(self, lines: bytes) -> bytes:
        """Take the hello, if the first line is one; returns the lines after it."""
        self._began = True
        first, _, rest = lines.partition(b"\n")
        if b'"hello"' not in first:
            return lines
        try:
            self._acknowledges = _hello.decode(first).hello.ack
        except msgspec.DecodeError:
            return lines  # becomes a reject that says what is wrong with it
        return rest

    async def _take(self, lines: bytes, rejects: list[Rejected]) -> None:
        if rejects:
            await self._keep(Decoded.nothing(*rejects))
        if lines:
            await self._keep(decode_lines(lines, now_us()))

    async def _keep(self, decoded: Decoded) -> None:
        if decoded or decoded.rejects:
            receipt = await self._intake.accept(decoded, peer=self._peer)
            await self._unacknowledged.put(receipt)

    async def _time_out(self) -> None:
        half, rejects = self._framer.finish()
        if half:
            rejects.append(Rejected("malformed", f"half a line, and nothing for {HALF_LINE_SECONDS:.0f} s", half))
        if rejects:
            await self._keep(Decoded.nothing(*rejects))

    async def _answer(self) -> None:
        """Wait for each input in its order, and say what became of it."""
        while (receipt := await self._unacknowledged.get()) is not None:
            await receipt.durable()
            self._acknowledged += receipt.accepted
            if self._acknowledges:
                await self._write(receipt)

    async def _write(self, receipt: Receipt) -> None:
        lines = []
        if receipt.rejects:
            first = receipt.rejects[0]
            error = {"reason": first.reason, "detail": first.detail, "count": len(receipt.rejects)}
            lines.append(msgspec.json.encode({"error": error}))
        if receipt.accepted:
            lines.append(msgspec.json.encode({"ack": self._acknowledged}))
        self._writer.write(b"".join(line + b"\n" for line in lines))
        try:
            async with asyncio.timeout(UNREAD_SECONDS):
                await self._writer.drain()
        except TimeoutError:
            self.abort()  # asks for answers and reads none
        except OSError:
            self._acknowledges = False  # the peer left; what it sent is stored all the same
