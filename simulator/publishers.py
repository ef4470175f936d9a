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
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

ACKNOWLEDGE_SECONDS = 15.0
CONNECT_SECONDS = 10.0
POLL_SECONDS = 30.0
"""How long an HTTP device waits for a command before it asks again."""

OBSERVE_SECONDS = 60.0
"""After so long a CoAP device observes anew: what it has heard is not fresh any more (Max-Age, RFC 7641 §3.3.1)."""

TURNED_AWAY = frozenset({"auth", "unavailable"})
"""Reasons that a TCP connector gives for closing: nothing of the connection is taken in any more."""

Say = Callable[[Mapping[str, Any]], None]
"""Sends a reply; there may be several to one command."""


class Controlled(Protocol):
    """What is told to a device."""

    def obey(self, command: Mapping[str, Any], say: Say) -> None:
        """Do what a command says, and reply, now or later."""

    def report(self) -> Mapping[str, Any]:
        """Return the reply that says how it is configured; it is sent when the device comes."""


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
    controlled: Controlled | None = None,
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
        controlled: Does what commands say. Without it no commands are asked for.

    Raises:
        ValueError: the protocol is not tcp, http, mqtt or coap.
    """
    match protocol:
        case "tcp":
            return TcpPublisher(device, host, port, token, controlled)
        case "http":
            return HttpPublisher(device, host, port, token, controlled)
        case "mqtt":
            return MqttPublisher(device, host, port, mqtt_version, user or device, token, controlled)
        case "coap":
            return CoapPublisher(device, host, port, token, controlled)
    raise ValueError(f"protocol {protocol!r}, expected tcp, http, mqtt or coap")


class TcpPublisher:
    """NDJSON SenML with acknowledgements; commands on the same connection."""

    def __init__(
        self, device: str, host: str, port: int, token: str | None = None, controlled: Controlled | None = None
    ) -> None:
        self._device = device
        self._address = (host, port)
        shown = {} if token is None else {"device": device, "token": token}
        self._hello = {**shown, "ack": True} | ({} if controlled is None else {"device": device, "commands": True})
        self._controlled = controlled
        self._stream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._listening: asyncio.Task[None] | None = None
        self._acknowledged = self._refused = 0
        self._heard = asyncio.Event()

    async def publish(self, readings: Sequence[Reading]) -> int:
        lines = [json.dumps(record) for record in _records(readings, self._device + "/")]
        try:
            async with asyncio.timeout(ACKNOWLEDGE_SECONDS):
                _, writer = self._stream or await self._connect()
                refused, target = self._refused, self._acknowledged + self._refused + len(readings)
                writer.write(("\n".join(lines) + "\n").encode())
                await writer.drain()
                await self._until_told(target)
                return self._refused - refused
        except (OSError, TimeoutError, ValueError, KeyError) as error:
            await self.close()
            raise NotAcknowledged(f"{self._address}: {error!r}") from error

    async def close(self) -> None:
        stream, self._stream = self._stream, None
        if self._listening is not None:
            self._listening.cancel()
        await _close(stream)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self._stream = reader, writer = await asyncio.open_connection(*self._address)
        self._acknowledged = self._refused = 0
        writer.write(_line({"hello": self._hello}))
        if self._controlled is not None:
            writer.write(_line({"reply": self._controlled.report()}))
        self._listening = asyncio.create_task(self._listen(reader, writer), name=f"listen-{self._device}")
        return reader, writer

    async def _until_told(self, target: int) -> None:
        """Return when the server has said of so many readings of the connection what became of them."""
        while self._acknowledged + self._refused < target:
            if self._listening is not None and self._listening.done():
                self._listening.result()
                raise ConnectionResetError("the server closed the connection")
            self._heard.clear()
            await self._heard.wait()

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Hear what the server says, until it says no more."""
        try:
            while line := await reader.readline():
                said = json.loads(line)
                if "error" in said:
                    if said["error"]["reason"] in TURNED_AWAY:
                        raise ConnectionRefusedError(said["error"]["detail"])
                    self._refused += int(said["error"]["count"])
                elif "ack" in said:
                    self._acknowledged = int(said["ack"])
                elif "command" in said and self._controlled is not None:
                    self._controlled.obey(said["command"], lambda reply: writer.write(_line({"reply": reply})))
                self._heard.set()
        finally:
            asyncio.get_running_loop().call_soon(self._heard.set)  # when this is done


class HttpPublisher:
    """A POST of SenML JSON for each pack, over a connection that is kept; commands are polled over another (RFC 6202)."""

    def __init__(
        self, device: str, host: str, port: int, token: str | None = None, controlled: Controlled | None = None
    ) -> None:
        self._device = device
        self._controlled = controlled
        self._polling: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._address = (host, port)
        self._authorization = f"Authorization: Bearer {token}\r\n" if token else ""
        self._stream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def publish(self, readings: Sequence[Reading]) -> int:
        if self._controlled is not None and self._polling is None:
            self._polling = asyncio.create_task(self._poll(self._controlled), name=f"poll-{self._device}")
        body = json.dumps(_records(readings, self._device + "/")).encode()
        try:
            async with asyncio.timeout(ACKNOWLEDGE_SECONDS):
                reader, writer = self._stream or await asyncio.open_connection(*self._address)
                self._stream = reader, writer
                writer.write(self._request("POST", "readings", "application/senml+json", body))
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
        for task in filter(None, (self._polling, *self._tasks)):
            task.cancel()
        stream, self._stream = self._stream, None
        await _close(stream)

    def _request(self, method: str, path: str, kind: str, body: bytes) -> bytes:
        head = (
            f"{method} /api/v1/{path} HTTP/1.1\r\nHost: {self._address[0]}\r\n{self._authorization}"
            f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    async def _poll(self, controlled: Controlled) -> None:
        """Say how it is configured, and ask for commands until cancelled."""
        await self._reply(controlled.report())
        while True:
            try:
                async with asyncio.timeout(POLL_SECONDS + ACKNOWLEDGE_SECONDS):
                    path = f"commands?device={self._device}&wait={POLL_SECONDS:g}"
                    status, answer = await self._ask("GET", path, b"")
            except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError):
                status = 503
            if status == 200:
                controlled.obey(json.loads(answer), self._reply_soon)
            elif status != 204:
                await asyncio.sleep(1.0)

    def _reply_soon(self, reply: Mapping[str, Any]) -> None:
        task = asyncio.create_task(self._reply(reply), name=f"reply-{self._device}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reply(self, reply: Mapping[str, Any]) -> None:
        with contextlib.suppress(OSError, ValueError, asyncio.IncompleteReadError):  # it is asked again, or expires
            await self._ask("POST", f"replies?device={self._device}", json.dumps(reply).encode())

    async def _ask(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        """Send a request over a connection of its own."""
        stream = await asyncio.open_connection(*self._address)
        try:
            stream[1].write(self._request(method, path, "application/json", body))
            return await _http_answer(stream[0])
        finally:
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
    """SenML JSON on ``devices/{id}/readings``, QoS 1; commands on ``devices/{id}/commands/+``."""

    def __init__(
        self,
        device: str,
        host: str,
        port: int,
        version: str,
        user: str | None = None,
        token: str | None = None,
        controlled: Controlled | None = None,
    ) -> None:
        self._controlled = controlled
        self._device = device
        self._user = user
        self._token = token
        self._address = (host, port)
        self._version = version
        self._client: Any = None
        self._unacknowledged: Any = None
        self._is_given_up = False

    async def publish(self, readings: Sequence[Reading]) -> int:
        try:
            if self._client is None:
                async with asyncio.timeout(CONNECT_SECONDS):
                    await self._connect()
            async with asyncio.timeout(ACKNOWLEDGE_SECONDS):
                self._client.publish(f"devices/{self._device}/readings", json.dumps(_records(readings)), qos=1)
                await self._unacknowledged.wait_empty()
            if self._is_given_up:
                raise ConnectionError("the connection was lost before the broker acknowledged")
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
        self._is_given_up = False
        forget = self._unacknowledged.clear

        def give_up() -> None:
            # When it connects again to a broker that knows no session of it, and then who waits is told that all is well.
            self._is_given_up |= not self._unacknowledged.is_empty
            forget()

        self._unacknowledged.clear = give_up
        quiet = logging.getLogger("gmqtt.publisher")
        quiet.setLevel(logging.CRITICAL)
        client = gmqtt.Client(
            f"isotherm-{self._device}", persistent_storage=self._unacknowledged, logger=quiet, clean_session=True
        )
        self._client = client
        if self._token is not None:
            client.set_auth_credentials(self._user, self._token)
        client.on_message = self._on_message
        await client.connect(*self._address, keepalive=30, version=MQTTv50 if self._version == "5" else MQTTv311)
        if self._controlled is not None:
            client.subscribe(f"devices/{self._device}/commands/+", qos=1)
            client.publish(f"devices/{self._device}/replies", json.dumps(self._controlled.report()), qos=1)

    def _on_message(self, client: Any, topic: str, payload: bytes, qos: int, properties: Any) -> int:
        if self._controlled is not None:
            topic = f"devices/{self._device}/replies"
            self._controlled.obey(json.loads(payload), lambda reply: client.publish(topic, json.dumps(reply), qos=1))
        return 0


class CoapPublisher:
    """Confirmable POST of SenML JSON to ``/readings``, from a socket of the device's own; commands are observed.

    Devices that shared one would mix up their blocks: an endpoint may send one blockwise payload to a resource at a time
    (RFC 7959 §2.5).
    """

    def __init__(
        self, device: str, host: str, port: int, token: str | None = None, controlled: Controlled | None = None
    ) -> None:
        self._device = device
        self._controlled = controlled
        query = f"?token={token}" if token else ""
        self._shown = f"coap://{host}:{port}/readings"  # without the token
        self._uri = self._shown + query
        self._own = f"coap://{host}:{port}/devices/{device}/{{}}{query}"
        self._context: Any = None
        self._tasks: set[asyncio.Task[Any]] = set()

    async def publish(self, readings: Sequence[Reading]) -> int:
        import aiocoap
        from aiocoap import error as coap_error

        if self._context is None:
            self._context = await aiocoap.Context.create_client_context(transports=["udp6"])
            if self._controlled is not None:
                self._start(self._observe(self._context, self._controlled))
        payload = json.dumps(_records(readings, self._device + "/")).encode()
        request = aiocoap.Message(code=aiocoap.POST, uri=self._uri, payload=payload, content_format=110)
        try:
            async with asyncio.timeout(ACKNOWLEDGE_SECONDS):
                response = await self._context.request(request).response
        except (OSError, TimeoutError, coap_error.Error) as error:
            raise NotAcknowledged(f"{self._shown}: {error!r}") from error
        if response.code.is_successful():
            return 0
        if response.code == aiocoap.BAD_REQUEST:
            kept = re.search(rb"refused, (\d+) kept", response.payload)
            return len(readings) - (int(kept[1]) if kept else 0)
        raise NotAcknowledged(f"{self._shown}: {response.code} {response.payload[:200]!r}")

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._context is not None:
            context, self._context = self._context, None
            await context.shutdown()

    def _start(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work, name=f"coap-{self._device}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _observe(self, context: Any, controlled: Controlled) -> None:
        """Observe our commands (RFC 7641), and anew after a while without a word: our address may have changed."""
        import aiocoap
        from aiocoap import error as coap_error

        self._start(self._reply(context, controlled.report()))
        while True:
            asked = context.request(aiocoap.Message(code=aiocoap.GET, uri=self._own.format("commands"), observe=0))
            try:
                async with asyncio.timeout(OBSERVE_SECONDS):
                    await asked.response
                    async for notification in asked.observation:
                        controlled.obey(
                            json.loads(notification.payload), lambda reply: self._start(self._reply(context, reply))
                        )
            except (OSError, TimeoutError, ValueError, coap_error.Error):
                await asyncio.sleep(0 if asked.response.done() else 1.0)
            finally:
                if asked.observation is not None and not asked.observation.cancelled:
                    asked.observation.cancel()

    async def _reply(self, context: Any, reply: Mapping[str, Any]) -> None:
        import aiocoap
        from aiocoap import error as coap_error

        message = aiocoap.Message(
            code=aiocoap.POST, uri=self._own.format("replies"), payload=json.dumps(reply).encode(), content_format=50
        )
        with contextlib.suppress(OSError, coap_error.Error):  # it is asked again, or the command expires
            await context.request(message).response


def _records(readings: Sequence[Reading], base: str = "") -> list[dict[str, str | float]]:
    """Return SenML records (RFC 8428 §5)."""
    return [{"n": base + r.metric, "u": r.unit, "v": r.value, "t": r.time, "seq": r.seq} for r in readings]


def _line(message: object) -> bytes:
    return json.dumps(message).encode() + b"\n"


def first_number() -> int:
    """Return a number to count readings from that was not used before: the ms since the epoch."""
    return int(time.time() * 1000)
