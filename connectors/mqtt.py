"""MQTT: SenML JSON on ``devices/{id}/readings``.

    mosquitto_pub -t devices/room-1/readings -q 1 -m '[{"n":"temperature","u":"Cel","v":21.5}]'

The topic names the device: a bare name in the payload is a metric of that device, a full name must agree with it. PUBACK is
sent when Kafka has the readings; the persistent session keeps what was published while the connector was away.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import gmqtt
from gmqtt.mqtt.constants import MQTTv50, MQTTv311

from connectors.formats.catalogue import SENML_JSON
from connectors.formats.decoded import Decoded, Decoder
from connectors.identity import ANYONE, only
from connectors.intake import Intake
from connectors.receipt import Receipt
from connectors.site import Site
from isotherm.clock import now_us
from isotherm.names import is_device_name
from isotherm.rejects import Rejected
from isotherm.settings import Settings

TOPIC = "devices/+/readings"
SHARE = "$share/isotherm/"
"""MQTT 5 brokers divide the messages among the connectors that subscribe in one group."""

RECEIVE_MAXIMUM = 500
KEEPALIVE_SECONDS = 15
CONNECT_SECONDS = 10.0
SESSION_SECONDS = 24 * 3600

_TOPIC = re.compile(r"devices/([^/]*)/readings")

log = logging.getLogger(__name__)


@asynccontextmanager
async def listening(site: Site) -> AsyncIterator[str]:
    """Subscribe for the length of the block; yields where. At its end, what was received is acknowledged."""
    asyncio.get_running_loop().set_exception_handler(_without_missing_acknowledgements)
    subscriber = _Subscriber(site.settings, site.intake, site.catalogue.decoders[SENML_JSON])
    await subscriber.connect()
    try:
        yield f"mqtt://{site.settings.mqtt}"
    finally:
        await subscriber.disconnect()


class _Subscriber:
    """The connection to the broker, kept for as long as it lives."""

    def __init__(self, settings: Settings, intake: Intake, decode: Decoder) -> None:
        self._intake = intake
        self._decode = decode
        self._host, _, port = settings.mqtt.rpartition(":")
        self._port = int(port)
        self._is_5 = settings.mqtt_version == "5"
        self._connection = 0
        self._handling = 0
        self._idle = asyncio.Event()
        self._idle.set()
        options: dict[str, Any] = {"optimistic_acknowledgement": False, "logger": logging.getLogger("gmqtt.connector")}
        if self._is_5:
            options |= {"receive_maximum": RECEIVE_MAXIMUM, "session_expiry_interval": SESSION_SECONDS}
        self._client = gmqtt.Client(settings.mqtt_client_id, clean_session=False, **options)
        self._client.set_config({"reconnect_retries": gmqtt.constants.UNLIMITED_RECONNECTS, "reconnect_delay": 1})
        self._client.on_connect = self._on_connect
        self._client.on_message = self._on_message
        self._client.on_disconnect = self._on_disconnect

    async def connect(self) -> None:
        """Connect, and again with a growing pause until it succeeds."""
        pause = 0.5
        while True:
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    await self._client.connect(
                        self._host,
                        self._port,
                        keepalive=KEEPALIVE_SECONDS,
                        version=MQTTv50 if self._is_5 else MQTTv311,
                    )
            except (OSError, TimeoutError, gmqtt.mqtt.handler.MQTTConnectError) as error:
                log.warning("the MQTT broker at %s:%d does not answer: %r", self._host, self._port, error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, 30.0)
            else:
                return

    async def disconnect(self) -> None:
        """Take nothing more in, acknowledge what is being handled, and leave; the broker keeps the session."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._idle.wait()
        except TimeoutError:
            log.warning("%d messages stay unacknowledged; the broker delivers them again", self._handling)
        await self._client.disconnect()

    def _on_connect(self, client: gmqtt.Client, flags: int, code: int, properties: Any) -> None:
        self._connection += 1
        client.subscribe(SHARE + TOPIC if self._is_5 else TOPIC, qos=1)
        log.info("connected to the MQTT broker at %s:%d", self._host, self._port)

    def _on_disconnect(self, client: gmqtt.Client, packet: Any, error: Exception | None = None) -> None:
        self._connection += 1
        log.info("the connection to the MQTT broker ended%s", f": {error!r}" if error else "")

    async def _on_message(self, client: gmqtt.Client, topic: str, payload: bytes, qos: int, properties: Any) -> int | None:
        """Take in one message; returns 0 to acknowledge it, None to leave it to be delivered again."""
        if properties.get("retain"):
            return 0  # a copy that the broker hands out on subscribing: it was taken in when it was published
        connection = self._connection
        self._handling += 1
        self._idle.clear()
        try:
            receipt = await self._accept(topic, payload)
            await receipt.durable()
        except Exception:
            log.exception("a message on %s could not be handled and stays unacknowledged", topic)
            return None
        finally:
            self._handling -= 1
            if not self._handling:
                self._idle.set()
        # On another connection the same packet identifier is another message's.
        return 0 if connection == self._connection else None

    async def _accept(self, topic: str, payload: bytes) -> Receipt:
        match = _TOPIC.fullmatch(topic)
        if match is None or not is_device_name(match[1]):
            detail = f"topic {topic[:200]!r}, expected devices/ID/readings with a device name for ID"
            pieces, identity = iter([Decoded.nothing(Rejected("name", detail, payload))]), ANYONE
        else:
            pieces, identity = self._decode(payload, now_us()), only(match[1])
        return await self._intake.accept(pieces, peer=topic, identity=identity, form=SENML_JSON, patient=True)


def _without_missing_acknowledgements(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Report what nobody caught, except that a message stays unacknowledged: gmqtt 0.8 knows no quiet way for that."""
    if str(context.get("exception")) != "Invalid PUBREC reason code None":
        loop.default_exception_handler(context)
