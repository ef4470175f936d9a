"""A CoAP endpoint that the tests write themselves: bytes over a real socket, so that they can send what no library would."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from connectors import coap
from connectors.coap import message, numbers
from connectors.coap.frames import Frame, Framer, encode_frame
from connectors.coap.numbers import CON
from connectors.coap.options import Option, decode_options, encode_options
from tests.support.intake import Bench
from tests.support.ports import free_ports

SECONDS = 30.0
"""How long a test waits for an answer before it fails."""

READINGS: Sequence[Option] = [(numbers.URI_PATH, b"readings")]
SENML: Sequence[Option] = [*READINGS, (numbers.CONTENT_FORMAT, bytes((numbers.SENML_JSON,)))]


@dataclass(frozen=True, slots=True)
class Heard:
    """A message that came."""

    kind: int
    code: int
    id: int
    token: bytes
    options: Sequence[Option]
    payload: bytes = field(default=b"")

    def option(self, number: int) -> bytes | None:
        return dict(self.options).get(number)

    @property
    def dotted(self) -> str:
        return numbers.dotted(self.code)


@asynccontextmanager
async def listening(seconds: float = 60.0, **settings: Any) -> AsyncIterator[Bench]:
    """A connector on free ports over a Kafka that can be switched off; `bench.settings` says where.

    Args:
        seconds: The block must be done by then.
        settings: Of the connector.
    """
    base = free_ports(5)  # with two for a proxy
    bench = Bench(**({"coap_port": base, "coap_tcp_port": base + 1, "coap_tls_port": base + 2} | settings))
    async with asyncio.timeout(seconds), bench.intake.running(), coap.listening(bench.site):
        yield bench


class Peer:
    """An endpoint that speaks to a connector over UDP."""

    def __init__(self, bench: Bench) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.connect(("127.0.0.1", bench.settings.coap_port))
        self._id = 0

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    @property
    def port(self) -> int:
        port: int = self._socket.getsockname()[1]
        return port

    def send(self, datagram: bytes) -> None:
        self._socket.send(datagram)

    def request(
        self,
        payload: bytes = b"",
        options: Sequence[Option] = SENML,
        *,
        code: int = numbers.POST,
        kind: int = CON,
        token: bytes = b"t",
        id: int | None = None,
    ) -> bytes:
        """Return a request's bytes, with the next message id unless one is given."""
        self._id += 1
        return message.encode(kind, code, self._id if id is None else id, token, options, payload)

    async def hear(self) -> Heard:
        """Return the next message."""
        async with asyncio.timeout(SECONDS):
            return heard(await asyncio.get_running_loop().sock_recv(self._socket, 65_535))

    async def ask(self, payload: bytes = b"", options: Sequence[Option] = SENML, **fields: Any) -> Heard:
        """Send a request and return the next message."""
        self.send(self.request(payload, options, **fields))
        return await self.hear()

    async def ping(self) -> Heard:
        """Send a ping and return what comes first: a reset of this id, unless something was said before."""
        self._id += 1
        self.send(message.encode(CON, numbers.EMPTY, self._id))
        return await self.hear()


def heard(datagram: bytes) -> Heard:
    """Read a message."""
    header = message.decode_header(datagram)
    options, payload = decode_options(datagram, 4 + len(header.token))
    return Heard(header.kind, header.code, header.id, header.token, options, payload)


class StreamPeer:
    """A peer over TCP."""

    def __init__(self, bench: Bench, ssl: Any = None) -> None:
        self._ssl = ssl
        self._port = bench.settings.coap_tls_port if ssl else bench.settings.coap_tcp_port
        self._framer = Framer()
        self._frames: list[Frame] = []

    async def __aenter__(self) -> StreamPeer:
        name = "localhost" if self._ssl else None
        self.reader, self.writer = await asyncio.open_connection(
            "127.0.0.1", self._port, ssl=self._ssl, server_hostname=name
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    async def greet(self) -> Heard:
        """Send our CSM and return the server's."""
        self.send(numbers.CSM)
        return await self.hear()

    def send(self, code: int, options: Sequence[Option] = (), payload: bytes = b"", token: bytes = b"t") -> None:
        self.writer.write(encode_frame(code, token, encode_options(options, payload)))

    async def hear(self) -> Heard:
        """Return the next message.

        Raises:
            EOFError: the server closed the connection.
        """
        async with asyncio.timeout(SECONDS):
            while not self._frames:
                data = await self.reader.read(65_536)
                if not data:
                    raise EOFError
                self._frames += self._framer.feed(data)
        frame = self._frames.pop(0)
        options, payload = decode_options(frame.rest)
        return Heard(CON, frame.code, 0, frame.token, options, payload)

    async def ask(self, payload: bytes = b"", options: Sequence[Option] = SENML, code: int = numbers.POST) -> Heard:
        self.send(code, options, payload)
        return await self.hear()


def reading(name: str = "room/t", value: float = 1) -> bytes:
    """Return a payload with one reading."""
    return b'[{"n":"%s","v":%g}]' % (name.encode(), value)


def readings_kept(bench: Bench) -> int:
    """Return how many readings Kafka has."""
    return sum(len(pack.series) for packs in bench.producer.packs.values() for pack in packs)
