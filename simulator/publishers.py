"""Publishers: how a device sends its readings and learns that they are kept.

Each sends one pack at a time and returns when the server has acknowledged it. They need the standard library and, for MQTT
and CoAP, ``gmqtt`` and ``aiocoap``: what runs here on a simulated fleet runs on a Raspberry Pi too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

ACKNOWLEDGE_SECONDS = 15.0
CONNECT_SECONDS = 10.0


class NotAcknowledged(Exception):
    """The server did not say that it has the readings; they may or may not be there."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A sample of one metric.

    Attributes:
        metric: Its name.
        time: s since the epoch.
        value: In ``unit``.
        unit: RFC 8428 §12.1.
        seq: The device's own number of the reading, so that the server knows it when it is sent again.
    """

    metric: str
    time: float
    value: float
    unit: str
    seq: int


class Publisher(Protocol):
    """One device's way to the server."""

    async def publish(self, readings: Sequence[Reading]) -> int:
        """Send readings and wait for the acknowledgement; returns how many of them the server refused.

        Raises:
            NotAcknowledged: send them again later.
        """

    async def close(self) -> None:
        """Disconnect."""


def create(
    protocol: str,
    device: str,
    host: str,
    port: int,
    *,
    mqtt_version: str = "3.1.1",
    token: str | None = None,
    user: str | None = None,
) -> Publisher:
    """Return a publisher for one device; it connects when it first publishes.

    Args:
        protocol: tcp, http, mqtt or coap.
        device: Whose readings it sends.
        host: Of the connector, or of the MQTT broker.
        port: The same.
        mqtt_version: 5 or 3.1.1; every broker speaks the latter.
        token: The device's, or its gateway's.
        user: With MQTT, whose token it is, if not the device's.

    Raises:
        ValueError: the protocol is not tcp, http, mqtt or coap.
    """
    match protocol:
        case "tcp":
            return TcpPublisher(device, host, port, token)
        case "http":
            return HttpPublisher(device, host, port, token)
        case "mqtt":
            return MqttPublisher(device, host, port, mqtt_version, user or device, token)
        case "coap":
            return CoapPublisher(device, host, port, token)
    raise ValueError(f"protocol {protocol!r}, expected tcp, http, mqtt or coap")


class TcpPublisher:
    """NDJSON SenML with acknowledgements."""

    def __init__(self, device: str, host: str, port: int, token: str | None = None) -> None:
        self._device = device
        self._address = (host, port)
        self._hello = {"ack": True} if token is None else {"device": device, "token": token, "ack": True}
        self._stream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._acknowledged = 0

    async def publish(self, readings: Sequence[Reading]) -> int:
        lines = [json.dumps(record) for record in _records(readings, self._device + "/")]
        try:
            async with asyncio.timeout(ACKNOWLEDGE_SECONDS):
                reader, writer = self._stream or await self._connect()
                writer.write(("\n".join(lines) + "\n").encode())
                await writer.drain()
                return await self._answer(reader, len(readings))
        except (OSError, TimeoutError, ValueError, KeyError) as error:
            await self.close()
            raise NotAcknowledged(f"{self._address}: {error!r}") from error

    async def close(self) -> None:
        stream, self._stream = self._stream, None
        await _close(stream)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self._stream = reader, writer = await asyncio.open_connection(*self._address)
        self._acknowledged = 0
        writer.write(json.dumps({"hello": self._hello}).encode() + b"\n")
        return reader, writer

    async def _answer(self, reader: asyncio.StreamReader, count: int) -> int:
        refused = 0
        target = self._acknowledged + count
        while self._acknowledged + refused < target:
            line = await reader.readline()
            if not line:
                raise ConnectionResetError("the server closed the connection")
            answer = json.loads(line)
            if "error" in answer:
                refused += int(answer["error"]["count"])
            else:
                self._acknowledged = int(answer["ack"])
        return refused


class HttpPublisher:
    """A POST of SenML JSON for each pack, over a connection that is kept."""

    def __init__(self, device: str, host: str, port: int, token: str | None = None) -> None:
        self._device = device
        self._address = (host, port)
        self._authorization = f"Authorization: Bearer {token}\r\n" if token else ""
        self._stream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def publish(self, readings: Sequence[Reading]) -> int:
        body = json.dumps(_records(readings, self._device + "/")).encode()
        head = (
            f"POST /api/v1/readings HTTP/1.1\r\nHost: {self._address[0]}\r\n{self._authorization}"
            f"Content-Type: application/senml+json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        try:
            async with asyncio.timeout(ACKNOWLEDGE_SECONDS):
                reader, writer = self._stream or await asyncio.open_connection(*self._address)
                self._stream = reader, writer
                writer.write(head.encode() + body)
                status, answer = await _http_answer(reader)
        except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError) as error:
            await self.close()
            raise NotAcknowledged(f"{self._address}: {error!r}") from error
        if status == 204:
            return 0
        if status == 400:
            return int(json.loads(answer)["rejected"])
        raise NotAcknowledged(f"{self._address}: {status} {answer[:200]!r}")

    async def close(self) -> None:
        stream, self._stream = self._stream, None
        await _close(stream)


async def _close(stream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None) -> None:
    if stream is not None:
        stream[1].close()
        with contextlib.suppress(OSError):
            await stream[1].wait_closed()


async def _http_answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Read an answer: its status and its body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    length = re.search(r"(?i)\r\ncontent-length: *(\d+)", head)
    return int(head.split(" ", 2)[1]), await reader.readexactly(int(length[1]) if length else 0)


class MqttPublisher:
    """SenML JSON on ``devices/{id}/readings``, QoS 1."""

    def __init__(
        self, device: str, host: str, port: int, version: str, user: str | None = None, token: str | None = None
    ) -> None:
        self._device = device
        self._user = user
        self._token = token
        self._address = (host, port)
        self._version = version
        self._client: Any = None
        self._unacknowledged: Any = None

    async def publish(self, readings: Sequence[Reading]) -> int:
        try:
            if self._client is None:
                async with asyncio.timeout(CONNECT_SECONDS):
                    await self._connect()
            async with asyncio.timeout(ACKNOWLEDGE_SECONDS):
                self._client.publish(f"devices/{self._device}/readings", json.dumps(_records(readings)), qos=1)
                await self._unacknowledged.wait_empty()
        except Exception as error:  # gmqtt raises what the broker's refusal makes it stumble on
            await self.close()
            raise NotAcknowledged(f"{self._address}: {error!r}") from error
        return 0

    async def close(self) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            with contextlib.suppress(Exception):  # the connection may be gone in any way
                async with asyncio.timeout(1.0):
                    await client.disconnect()

    async def _connect(self) -> None:
        import gmqtt
        from gmqtt.mqtt.constants import MQTTv50, MQTTv311
        from gmqtt.storage import PersistentStorage

        self._unacknowledged = PersistentStorage()
        quiet = logging.getLogger("gmqtt.publisher")
        quiet.setLevel(logging.CRITICAL)
        client = gmqtt.Client(
            f"isotherm-{self._device}", persistent_storage=self._unacknowledged, logger=quiet, clean_session=True
        )
        self._client = client
        if self._token is not None:
            client.set_auth_credentials(self._user, self._token)
        await client.connect(*self._address, keepalive=30, version=MQTTv50 if self._version == "5" else MQTTv311)


class CoapPublisher:
    """Confirmable POST of SenML JSON to ``/readings``, from a socket of the device's own.

    Devices that shared one would mix up their blocks: an endpoint may send one blockwise payload to a resource at a time
    (RFC 7959 §2.5).
    """

    def __init__(self, device: str, host: str, port: int, token: str | None = None) -> None:
        self._device = device
        self._uri = f"coap://{host}:{port}/readings" + (f"?token={token}" if token else "")
        self._context: Any = None

    async def publish(self, readings: Sequence[Reading]) -> int:
        import aiocoap
        from aiocoap import error as coap_error

        if self._context is None:
            self._context = await aiocoap.Context.create_client_context(transports=["udp6"])
        payload = json.dumps(_records(readings, self._device + "/")).encode()
        request = aiocoap.Message(code=aiocoap.POST, uri=self._uri, payload=payload, content_format=110)
        try:
            async with asyncio.timeout(ACKNOWLEDGE_SECONDS):
                response = await self._context.request(request).response
        except (OSError, TimeoutError, coap_error.Error) as error:
            raise NotAcknowledged(f"{self._uri}: {error!r}") from error
        if response.code.is_successful():
            return 0
        if response.code == aiocoap.BAD_REQUEST:
            kept = re.search(rb"refused, (\d+) kept", response.payload)
            return len(readings) - (int(kept[1]) if kept else 0)
        raise NotAcknowledged(f"{self._uri}: {response.code} {response.payload[:200]!r}")

    async def close(self) -> None:
        if self._context is not None:
            context, self._context = self._context, None
            await context.shutdown()


def _records(readings: Sequence[Reading], base: str = "") -> list[dict[str, str | float]]:
    """Return SenML records (RFC 8428 §5)."""
    return [{"n": base + r.metric, "u": r.unit, "v": r.value, "t": r.time, "seq": r.seq} for r in readings]


def first_number() -> int:
    """Return a number to count readings from that was not used before: the ms since the epoch."""
    return int(time.time() * 1000)
