"""Load for `isotherm bench`: as many readings as the server acknowledges, a steady rate of them, or many connections.

The generator must be cheaper than what it measures: requests are written and answers read as bytes. A link is one connection
of a protocol; it sends a payload of NDJSON and tells how many of its readings are acknowledged.
"""

from __future__ import annotations

import asyncio
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from simulator.coap_sender import CoapSender, array_of

MOST_UNACKNOWLEDGED = 400_000
"""Readings on their way: enough to keep every process busy, few enough to show the server's pace and not the socket's."""


class Link(ABC):
    """One connection."""

    is_stream: ClassVar[bool]
    """Whether a payload can be sent before the last one is acknowledged."""

    def __init__(self) -> None:
        self.acknowledged = 0
        self.heard = asyncio.Event()

    @abstractmethod
    async def open(self, host: str, port: int) -> None:
        """Connect."""

    @abstractmethod
    async def send(self, payload: bytes) -> None:
        """Send NDJSON."""

    @abstractmethod
    async def close(self) -> None:
        """Disconnect."""

    async def acknowledge(self, readings: int) -> None:
        """Return when so many readings are acknowledged in all.

        Raises:
            ConnectionError: the server refused one, or left.
        """
        while self.acknowledged < readings:
            self.heard.clear()
            await self.heard.wait()


class TcpLink(Link):
    """Lines over TCP, with acknowledgements."""

    is_stream = True

    async def open(self, host: str, port: int) -> None:
        self._reader, self._writer = await asyncio.open_connection(host, port)
        self._writer.write(b'{"hello":{"ack":true}}\n')

    async def send(self, payload: bytes) -> None:
        self._writer.write(payload)
        await self._writer.drain()

    async def acknowledge(self, readings: int) -> None:
        while self.acknowledged < readings:
            self.acknowledged = _acknowledged(await self._reader.readline())

    async def close(self) -> None:
        self._writer.close()


class HttpLink(Link):
    """A POST for each payload, over a connection that is kept."""

    is_stream = False

    async def open(self, host: str, port: int) -> None:
        self._reader, self._writer = await asyncio.open_connection(host, port)
        self._head = b"POST /api/v1/readings HTTP/1.1\r\nHost: %s\r\nContent-Type: application/x-ndjson\r\n" % host.encode()
        self._open = 0

    async def send(self, payload: bytes) -> None:
        self._open = payload.count(b"\n")
        self._writer.write(b"%sContent-Length: %d\r\n\r\n%s" % (self._head, len(payload), payload))

    async def acknowledge(self, readings: int) -> None:
        answer = await self._reader.readuntil(b"\r\n\r\n")
        if b" 204 " not in answer[:16]:
            raise ConnectionError(f"the server answered {answer.splitlines()[0].decode(errors='replace')}")
        self.acknowledged += self._open

    async def close(self) -> None:
        self._writer.close()


class WebSocketLink(Link):
    """A text message for each payload."""

    is_stream = True

    async def open(self, host: str, port: int) -> None:
        import aiohttp

        self._session = aiohttp.ClientSession()
        self._socket = await self._session.ws_connect(f"http://{host}:{port}/api/v1/ws")

    async def send(self, payload: bytes) -> None:
        await self._socket.send_str(payload.decode())

    async def acknowledge(self, readings: int) -> None:
        while self.acknowledged < readings:
            message = await self._socket.receive()
            self.acknowledged = _acknowledged(message.data if isinstance(message.data, str) else b"")

    async def close(self) -> None:
        await self._socket.close()
        await self._session.close()


class MqttLink(Link):
    """A PUBLISH with QoS 1 for each line, on the topic of its device (MQTT 3.1.1); the broker acknowledges it."""

    is_stream = True

    async def open(self, host: str, port: int) -> None:
        self._reader, self._writer = await asyncio.open_connection(host, port)
        name = f"load-{id(self):x}".encode()
        self._writer.write(b"\x10%c\x00\x04MQTT\x04\x02\x00\x00\x00%c%s" % (12 + len(name), len(name), name))
        if await self._reader.readexactly(4) != b"\x20\x02\x00\x00":
            raise ConnectionError("the broker refused the connection")
        self._packet_id = 0

    async def send(self, payload: bytes) -> None:
        packets = []
        for line in payload.splitlines():
            device, _, rest = line[6:].partition(b"/")  # {"n":"DEVICE/METRIC", …}
            topic, message = b"devices/%s/readings" % device, b'{"n":"' + rest
            self._packet_id = self._packet_id % 0xFFFF + 1
            size = 4 + len(topic) + len(message)
            length = b"%c" % size if size < 128 else b"%c%c" % (128 | size & 127, size >> 7)
            packets.append(
                b"\x32%s%c%c%s%c%c%s"
                % (length, len(topic) >> 8, len(topic) & 255, topic, self._packet_id >> 8, self._packet_id & 255, message)
            )
        self._writer.write(b"".join(packets))
        await self._writer.drain()

    async def acknowledge(self, readings: int) -> None:
        while self.acknowledged < readings:
            packet = await self._reader.readexactly(4)
            if packet[0] != 0x40:
                raise ConnectionError(f"the broker sent {packet!r}")
            self.acknowledged += 1

    async def close(self) -> None:
        self._writer.write(b"\xe0\x00")
        self._writer.close()


class CoapLink(Link):
    """A confirmable POST for each payload, from an endpoint of its own."""

    is_stream = True

    async def open(self, host: str, port: int) -> None:
        self._sender = CoapSender(host, port)
        self._problem: str | None = None
        self._resending = asyncio.create_task(self._resend(), name="coap-resend")
        self.waits: list[float] = []
        self.resent = 0

    async def send(self, payload: bytes) -> None:
        count = payload.count(b"\n")

        def heard(seconds: float, problem: str | None) -> None:
            self._problem = self._problem or problem
            self.acknowledged += count
            self.waits.append(seconds)
            self.heard.set()

        self._sender.post(array_of(payload), heard)

    async def acknowledge(self, readings: int) -> None:
        await super().acknowledge(readings)
        if self._problem:
            raise ConnectionError(f"the server answered {self._problem}")

    async def close(self) -> None:
        self._resending.cancel()
        self._sender.close()

    def flood(self, work: Iterator[bytes], window: int, answered: Callable[[], None]) -> asyncio.Future[None]:
        """Send payloads, so many at a time; the future is done when all are acknowledged.

        Requests follow answers without a task in between: one costs less than to switch to a task and back.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        is_open = 0

        def post() -> None:
            nonlocal is_open
            if (payload := next(work, None)) is not None:
                is_open += 1
                self._sender.post(array_of(payload), heard)
            elif not is_open and not done.done():
                done.set_result(None)

        def heard(seconds: float, problem: str | None) -> None:
            nonlocal is_open
            is_open -= 1
            self.waits.append(seconds)
            if problem is None:
                answered()
                post()
            elif not done.done():
                done.set_exception(ConnectionError(f"the server answered {problem}"))

        for _ in range(window):
            post()
        return done

    async def _resend(self) -> None:
        while True:
            await asyncio.sleep(RESEND_SECONDS)
            self.resent += self._sender.send_again()


RESEND_SECONDS = 0.5

LINKS: dict[str, type[Link]] = {"tcp": TcpLink, "http": HttpLink, "ws": WebSocketLink, "mqtt": MqttLink, "coap": CoapLink}


def _acknowledged(answer: str | bytes) -> int:
    if not answer:
        raise ConnectionError("the server closed the connection")
    heard: dict[str, Any] = json.loads(answer)
    if "ack" not in heard:
        raise ConnectionError(f"the server answered {answer!r}")
    return int(heard["ack"])


@dataclass(frozen=True, slots=True)
class Sent:
    """What a run sent.

    Attributes:
        readings: Sent and acknowledged.
        seconds: From the first byte to the last acknowledgement.
        payload_bytes: Of all lines.
        waits: From sending a payload to its acknowledgement, s.
        resent: Payloads that were sent again, because no acknowledgement came in time.
    """

    readings: int
    seconds: float
    payload_bytes: int
    waits: Sequence[float]
    resent: int = 0


def lines(readings: int, devices: int, end: float) -> Iterator[bytes]:
    """Yield lines of NDJSON: reading i is of device i mod ``devices``, each at 1 Hz up to ``end``, s since the epoch."""
    rounds = -(-readings // devices)
    for i in range(readings):
        turn, device = divmod(i, devices)
        yield line(f"load-{device}", 15.5 + turn % 10, end - rounds + turn)


def line(device: str, value: float, moment: float) -> bytes:
    """Return one reading."""
    return b'{"n":"%s/temperature","u":"Cel","v":%s,"t":%.3f}\n' % (device.encode(), str(value).encode(), moment)


def payloads(lines: Iterator[bytes], batch: int) -> list[bytes]:
    """Put lines together, ``batch`` to a payload."""
    found: list[bytes] = []
    group: list[bytes] = []
    for one in lines:
        group.append(one)
        if len(group) == batch:
            found.append(b"".join(group))
            group.clear()
    if group:
        found.append(b"".join(group))
    return found


async def send(
    kind: type[Link], host: str, port: int, work: Sequence[bytes], connections: int, progress: Callable[[int], None]
) -> Sent:
    """Send payloads over connections that share the work, and wait until all is acknowledged.

    Raises:
        ConnectionError: the server closed a connection or refused a reading.
    """
    links = [kind() for _ in range(connections)]
    for link in links:
        await link.open(host, port)
    remaining = iter(work)
    waits: list[float] = []
    done = 0

    async def drive(link: Link) -> None:
        nonlocal done
        sent = 0
        window = max(1, MOST_UNACKNOWLEDGED // (work[0].count(b"\n") * connections)) if link.is_stream else 1
        room = asyncio.Semaphore(window)
        on_the_way: asyncio.Queue[tuple[int, float] | None] = asyncio.Queue()

        async def hear() -> None:
            nonlocal done
            while (expected := await on_the_way.get()) is not None:
                goal, since = expected
                before = link.acknowledged
                await link.acknowledge(goal)
                waits.append(time.monotonic() - since)
                done += link.acknowledged - before
                progress(done)
                room.release()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(hear())
            for payload in remaining:
                await room.acquire()
                sent += payload.count(b"\n")
                await link.send(payload)
                on_the_way.put_nowait((sent, time.monotonic()))
            on_the_way.put_nowait(None)

    began = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        for link in links:
            tasks.create_task(drive(link))
    seconds = time.monotonic() - began
    for link in links:
        await link.close()
    return Sent(sum(payload.count(b"\n") for payload in work), seconds, sum(map(len, work)), waits)


async def flood(host: str, port: int, work: Sequence[bytes], endpoints: int, progress: Callable[[int], None]) -> Sent:
    """Send payloads over CoAP from endpoints that share the work, and wait until all are acknowledged.

    Raises:
        ConnectionError: the server refused one.
    """
    links = [CoapLink() for _ in range(endpoints)]
    for link in links:
        await link.open(host, port)
    remaining = iter(work)
    done = 0

    def answered() -> None:
        nonlocal done
        done += 1
        if done % PROGRESS_EVERY == 0:
            progress(done)

    began = time.monotonic()
    try:
        await asyncio.gather(*(link.flood(remaining, COAP_WINDOW, answered) for link in links))
        seconds = time.monotonic() - began
    finally:
        for link in links:
            await link.close()
    waits = [wait for link in links for wait in link.waits]
    readings = sum(payload.count(b"\n") for payload in work)
    return Sent(readings, seconds, sum(map(len, work)), waits, sum(link.resent for link in links))


COAP_WINDOW = 16
"""Requests of one endpoint that are open at a time."""

PROGRESS_EVERY = 1_000


async def keep_rate(kind: type[Link], host: str, port: int, rate: float, devices: int, stop: asyncio.Event) -> int:
    """Send readings that are made now at a steady rate until ``stop``; returns how many were sent.

    A tick that the server holds up is made up for: the rate is that of the devices, not of the server.
    """
    links = [kind() for _ in range(1 if kind.is_stream else RATE_CONNECTIONS)]
    for link in links:
        await link.open(host, port)
    began = time.monotonic()
    sent = 0

    async def drive(link: Link) -> None:
        nonlocal sent
        own = 0
        while not stop.is_set():
            due = int((time.monotonic() - began) * rate) - sent
            count = min(due, MAX_TICK)
            if count > 0:
                now = time.time()
                first, sent, own = sent, sent + count, own + count
                await link.send(b"".join(line(f"load-{i % devices}", i % 10, now) for i in range(first, first + count)))
                if not kind.is_stream:
                    await link.acknowledge(own)
            await asyncio.sleep(TICK_SECONDS)

    async with asyncio.TaskGroup() as tasks:
        for link in links:
            tasks.create_task(drive(link))
            if kind.is_stream:
                tasks.create_task(_hear(link, stop))
    for link in links:
        await link.close()
    return sent


TICK_SECONDS = 0.01
MAX_TICK = 2_000
RATE_CONNECTIONS = 8


async def _hear(link: Link, stop: asyncio.Event) -> None:
    """Read acknowledgements until ``stop``: a server whose answers are not read stops reading."""
    stopping = asyncio.create_task(stop.wait())
    while not stop.is_set():
        hearing = asyncio.create_task(link.acknowledge(link.acknowledged + 1))
        await asyncio.wait({stopping, hearing}, return_when=asyncio.FIRST_COMPLETED)
        if hearing.done():
            hearing.result()
        else:
            hearing.cancel()


async def visit(kind: type[Link], host: str, port: int, connections: int, seconds: float) -> list[float]:
    """Be many devices that send a reading when the last is acknowledged; returns how long each one waited for that, s."""
    links = [kind() for _ in range(connections)]
    waits: list[float] = []
    end = time.monotonic() + seconds

    async def drive(number: int, link: Link) -> None:
        await link.open(host, port)
        while time.monotonic() < end:
            began = time.monotonic()
            await link.send(line(f"visitor-{number}", len(waits), time.time()))
            await link.acknowledge(link.acknowledged + 1)
            waits.append(time.monotonic() - began)
        await link.close()

    async with asyncio.TaskGroup() as tasks:
        for number, link in enumerate(links):
            tasks.create_task(drive(number, link))
    return waits


async def misbehave(how: str, host: str, port: int) -> None:
    """Be one bad neighbour of a TCP listener, until cancelled.

    Args:
        how: ``flood``: as many readings as are taken. ``garbage``: as many lines that are none. ``unread``: the same,
            asking for answers and reading none. ``half``: a thousand connections that begin a line and do not end it.
        host, port: Of the listener.
    """
    if how == "half":
        streams = [await asyncio.open_connection(host, port) for _ in range(1_000)]
        while True:
            for _, writer in streams:
                writer.write(b"x")
            await asyncio.sleep(1.0)
    payload = b"".join(lines(4_000, 500, time.time())) if how == "flood" else b"x\n" * 30_000
    while True:
        _, writer = await asyncio.open_connection(host, port)
        if how == "unread":
            writer.write(b'{"hello":{"ack":true}}\n')
        try:
            while True:
                writer.write(payload)
                await writer.drain()
        except ConnectionError:
            await asyncio.sleep(0.1)  # it was disconnected, and comes again


MISBEHAVIOURS = ("flood", "garbage", "unread", "half")
