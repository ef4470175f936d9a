"""One connection to the broker, from CONNECT to its end: gmqtt's client, with what it leaves to us.

A new client is made for each connection, so that an acknowledgement can only leave on the connection that its message came
on, and nothing of gmqtt's reconnecting, which waits for a CONNACK for ever, is used. PUBLISH is read here: gmqtt starts a
task for each message, acknowledges out of order (MQTT-4.6.0-2 forbids it) and cannot hold back what is too much.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import struct
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import gmqtt
from gmqtt.mqtt.constants import MQTTCommands, MQTTv50, MQTTv311
from gmqtt.mqtt.handler import MQTTConnectError
from gmqtt.mqtt.utils import unpack_variable_byte_integer

from connectors.mqtt.names import client_id
from isotherm.errors import SettingsError
from isotherm.process import done_before
from isotherm.settings import Settings

RECEIVE_MAXIMUM = 4_000
"""Messages that the broker sends before the first of them is acknowledged; each takes a fraction of the linger to be so."""

KEEPALIVE_SECONDS = 15
CONNECT_SECONDS = 10.0
"""How long CONNACK and SUBACK may take together."""

CLOSE_SECONDS = 1.0

SESSION_SECONDS = 24 * 3600
"""How long a broker keeps the session of a connector that is away (MQTT 5; before, brokers decide)."""

MAX_PACKET_BYTES = 16 * 1024 * 1024
"""A broker does not send larger packets. Far more than a payload may have, so that a larger one still becomes a reject."""

SHARE = "$share/isotherm/"
"""What a filter begins with that the connectors of a group share."""

_FAILED_SUBSCRIPTION = 0x80
_NO_RECONNECTS = -2  # gmqtt takes 0 for one more
_SESSION_TAKEN_OVER = 0x8E
_NO_PROPERTIES: Mapping[str, Any] = {}

_quiet = logging.getLogger("gmqtt.connector")
_quiet.setLevel(logging.CRITICAL)  # what matters is told by `lost` and by exceptions


class Refused(Exception):
    """The broker answered, and said no; or it speaks another version."""


class Publish(NamedTuple):
    """A PUBLISH packet (MQTT 5 §3.3).

    Attributes:
        topic: As it was sent.
        payload: The application message.
        packet_id: None with QoS 0.
        is_duplicate: It is sent again, with its packet identifier.
        is_retained: It is a copy of an earlier message that is sent because of a new subscription.
        properties: MQTT 5's, each a list of values.
    """

    topic: str
    payload: bytes
    packet_id: int | None
    is_duplicate: bool
    is_retained: bool
    properties: Mapping[str, Any]


class _Gate:
    """Lets a transport be read while nobody holds it back: neither we nor asyncio's StreamReader, on which gmqtt stands, and
    which reads on when its own buffer is empty, whoever has paused the transport."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._is_held = self._is_buffered = False

    def pause_reading(self) -> None:
        """The StreamReader has enough."""
        self._is_buffered = True
        self._turn()

    def resume_reading(self) -> None:
        """The StreamReader can take more."""
        self._is_buffered = False
        self._turn()

    def hold(self, is_held: bool) -> None:
        """Hold it back, or no longer."""
        self._is_held = is_held
        self._turn()

    def _turn(self) -> None:
        if self._is_held or self._is_buffered:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()


class Connection:
    """One connection.

    Attributes:
        lost: Set when it has ended, by either side.
        reason: Why, as far as the broker said so.
        has_session: Whether the broker still had the session of the connection before.
    """

    def __init__(
        self,
        settings: Settings,
        is_5: bool,
        begin: Callable[[Connection], None],
        receive: Callable[[Connection, Publish], None],
    ) -> None:
        """Prepare.

        Args:
            settings: The broker's address and who we are to it.
            is_5: Speak MQTT 5, else 3.1.1.
            begin: Called when the broker has accepted the connection, before any message.
            receive: Called with each message.
        """
        self.lost = asyncio.Event()
        self.reason = ""
        self.has_session = False
        self.is_5 = is_5
        self._settings = settings
        self._begin = begin
        self._receive = receive
        self._host, _, port = settings.mqtt.rpartition(":")
        self._port = int(port)
        self._subscribed: asyncio.Future[Sequence[int]] = asyncio.get_running_loop().create_future()
        self._is_paused = False
        self._gate: _Gate | None = None
        options = {"receive_maximum": RECEIVE_MAXIMUM, "session_expiry_interval": SESSION_SECONDS}
        options["maximum_packet_size"] = MAX_PACKET_BYTES
        self._client = gmqtt.Client(client_id(settings), clean_session=False, logger=_quiet, **(options if is_5 else {}))
        self._client.set_config({"reconnect_retries": _NO_RECONNECTS})
        if settings.mqtt_username is not None:
            self._client.set_auth_credentials(settings.mqtt_username, settings.mqtt_password)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_disconnect = self._on_disconnect
        self._handler = self._client._package_handler
        self._handler._handler_cache[MQTTCommands.PUBLISH] = self._on_publish
        self._handler._handler_cache[MQTTCommands.PUBACK] = self._on_puback
        self._unacknowledged: dict[int, asyncio.Future[int]] = {}

    async def open(self, topics: Sequence[str]) -> None:
        """Connect and subscribe; with MQTT 5 so that connectors share the messages (§4.8.2), where that is set.

        A session may have the other kind of subscription from before; that would send each message twice.

        Raises:
            OSError: there is no broker, or its certificate is not trusted.
            Refused: there is one, and it refuses or does not answer.
            SettingsError: a certificate cannot be used.
        """
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                context = client_context(self._settings)
                await self._unless_lost(
                    self._client.connect(
                        self._host,
                        self._port,
                        ssl=context or False,
                        keepalive=KEEPALIVE_SECONDS,
                        version=MQTTv50 if self.is_5 else MQTTv311,
                    )
                )
                transport = self._client._connection._transport
                self._protocol._read_loop_future.add_done_callback(lambda _: transport.close())  # which is not read any more
                shared = [SHARE + topic for topic in topics]
                wanted, other = (shared, topics) if self._settings.mqtt_shared and self.is_5 else (topics, shared)
                if self.has_session and self.is_5:
                    self._client._connection.unsubscribe(list(other))
                # No retained messages: they were taken in when they were published (MQTT 5 §3.8.3.1).
                retained = {"retain_handling_options": 2} if wanted is topics and self.is_5 else {}
                self._client.subscribe([gmqtt.Subscription(topic, qos=1, **retained) for topic in wanted])
                granted = await self._subscribed
        except TimeoutError:
            raise Refused(f"it did not answer within {CONNECT_SECONDS:.0f} s") from None
        except MQTTConnectError as error:
            raise Refused(str(error)) from error
        if refused := [topic for topic, code in zip(topics, granted, strict=True) if code >= _FAILED_SUBSCRIPTION]:
            raise Refused(f"it refused the subscription to {', '.join(refused)}")

    async def close(self) -> None:
        """Say goodbye; the broker keeps the session."""
        with contextlib.suppress(Exception):  # it may be in any state
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._client.disconnect()
        self.lost.set()

    def acknowledge(self, packet_ids: Iterable[tuple[int, int]]) -> None:
        """Send PUBACK packets: packet identifier and reason code (MQTT 5 §3.4.2.1) of each."""
        if self.lost.is_set() or self._client._connection.is_closing():
            return
        if self.is_5:
            packets = b"".join(
                b"\x40\x03%c%c%c" % (one >> 8, one & 255, code) if code else b"\x40\x02%c%c" % (one >> 8, one & 255)
                for one, code in packet_ids
            )
        else:
            packets = b"".join(b"\x40\x02%c%c" % (one >> 8, one & 255) for one, _ in packet_ids)
        self._protocol.write_data(packets)

    async def publish(self, topic: str, payload: bytes, seconds: int) -> int:
        """Publish JSON with QoS 1; returns the reason code of the broker's acknowledgement (MQTT 5 §3.4.2.1), before that 0.

        Args:
            topic: Where to.
            payload: The message.
            seconds: For how long the broker keeps it for who is away (MQTT 5).

        Raises:
            ConnectionError: the connection ended before it.
        """
        options = {"message_expiry_interval": seconds, "content_type": "application/json"} if self.is_5 else {}
        packet_id, _ = self._client._connection.publish(gmqtt.Message(topic, payload, qos=1, **options))
        self._unacknowledged[packet_id] = acknowledged = asyncio.get_running_loop().create_future()
        try:
            code: int = await acknowledged
            return code
        finally:
            del self._unacknowledged[packet_id]

    def pause(self) -> None:
        """Read no more for now; the broker keeps what does not fit, as TCP tells it to."""
        if not self._is_paused and self._gate is not None and not self.lost.is_set():
            self._is_paused = True
            self._gate.hold(True)
            self._excuse()

    def resume(self) -> None:
        """Read again."""
        if self._is_paused and self._gate is not None and not self.lost.is_set():
            self._is_paused = False
            self._gate.hold(False)

    @property
    def _protocol(self) -> Any:
        return self._client._connection._protocol

    async def _unless_lost(self, connecting: Coroutine[Any, Any, None]) -> None:
        """Wait for CONNACK, which gmqtt does for ever when the broker closes the connection instead.

        Raises:
            Refused: it did.
        """
        if not await done_before(self.lost, connecting):
            raise Refused("it closed the connection instead of answering CONNECT")

    def _excuse(self) -> None:
        """Keep gmqtt from taking a broker for dead that we do not listen to."""
        if self._is_paused and not self.lost.is_set():
            self._client._connection._last_data_in = time.monotonic()
            asyncio.get_running_loop().call_later(KEEPALIVE_SECONDS / 2, self._excuse)

    def _on_connect(self, client: gmqtt.Client, flags: int, code: int, properties: Any) -> None:
        self.has_session = bool(flags & 1)
        reader = self._protocol._hard_reader
        reader._transport = self._gate = _Gate(reader._transport)
        self._begin(self)

    def _on_subscribe(self, client: gmqtt.Client, packet_id: int, granted: Sequence[int], properties: Any) -> None:
        if not self._subscribed.done():
            self._subscribed.set_result(granted)

    def _on_disconnect(self, client: gmqtt.Client, packet: Any, error: Exception | None = None) -> None:
        if isinstance(packet, bytes) and packet:
            taken = "another connector uses this client id" if packet[0] == _SESSION_TAKEN_OVER else ""
            self.reason = taken or f"reason code 0x{packet[0]:02x}"
        self.lost.set()
        for waiting in self._unacknowledged.values():
            if not waiting.done():
                waiting.set_exception(ConnectionError("the connection to the MQTT broker ended"))
        if not self._subscribed.done():
            self._subscribed.set_exception(Refused("it closed the connection"))
            self._subscribed.exception()  # nobody may wait for it

    def _on_publish(self, command: int, packet: bytes) -> None:
        try:
            publish = self._parsed(command, packet)
        except (IndexError, TypeError, ValueError, struct.error) as error:
            self.reason = f"it sent a malformed PUBLISH: {error!r}"
            self._protocol._transport.close()
        else:
            self._receive(self, publish)

    def _on_puback(self, command: int, packet: bytes) -> None:
        self._handler._handle_puback_packet(command, packet)
        waiting = self._unacknowledged.get(packet[0] << 8 | packet[1])
        if waiting is not None and not waiting.done():
            waiting.set_result(packet[2] if len(packet) > 2 else 0)

    def _parsed(self, command: int, packet: bytes) -> Publish:
        qos, end = command >> 1 & 3, 2 + (packet[0] << 8 | packet[1])
        topic, packet_id = packet[2:end], None
        if end > len(packet):
            raise ValueError("its topic is cut off")
        if qos:
            packet_id = packet[end] << 8 | packet[end + 1]
            end += 2
        properties, payload = _NO_PROPERTIES, b""
        if not self.is_5:
            payload = packet[end:]
        elif packet[end] == 0:
            payload = packet[end + 1 :]
        else:
            size, rest = unpack_variable_byte_integer(packet[end:])
            properties, payload = self._handler._parse_properties(packet[end:])
            if properties is None or size > len(rest):
                raise ValueError("its properties cannot be read")
        return Publish(topic.decode(), payload, packet_id, bool(command & 8), bool(command & 1), properties)


def client_context(settings: Settings) -> ssl.SSLContext | None:
    """Return what a TLS connection to the broker needs, or None when it is to be a plain one.

    Raises:
        SettingsError: a file cannot be read, or certificate and key do not belong together.
    """
    if not settings.mqtt_tls:
        return None
    try:
        context = ssl.create_default_context(cafile=settings.mqtt_ca)
        if settings.mqtt_certificate is not None:
            context.load_cert_chain(settings.mqtt_certificate, settings.mqtt_key)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"the MQTT certificate, key or authority cannot be used: {error}") from error
    return context
