"""The subscriber: keeps a connection to the broker, takes in what comes, and acknowledges it in its order.

Messages are taken in together, as many as have come since the last time. Nearly all are plain: one or a few readings of the
topic's device, all good. These are put together into one piece; whatever else goes alone, with its own rejects.

Of several connectors that divide the devices each gets every message. What is another's takes its turn among our own, with
nothing in it: so it is acknowledged in its order and known when it is sent again, and its payload is not looked at.

A connection that ends does not end the session: the broker sends again what was not acknowledged, with the same packet
identifiers (MQTT-4.4.0-1). What was taken in already is then acknowledged and not taken in twice.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from prometheus_client import Counter

from connectors import metrics
from connectors.formats.acceptable import check_size
from connectors.formats.catalogue import HOOK, THINGSBOARD_GATEWAY
from connectors.formats.decoded import Decoded
from connectors.identity import ANYONE, Identity, only
from connectors.mqtt.connection import RECEIVE_MAXIMUM, Connection, Publish, Refused
from connectors.mqtt.division import Division
from connectors.mqtt.downlink import Downlink
from connectors.mqtt.topics import REPLY, Route, Routes, form_of
from connectors.plain import PlainRecord, plain_records, take
from connectors.receipt import Receipt
from connectors.site import Site
from isotherm.clock import now_us
from isotherm.errors import InvalidReading, Unauthorized, Unavailable
from isotherm.logs import Throttle
from isotherm.process import end
from isotherm.rejects import Rejected

MAX_BATCH = 2_000
"""Messages that are taken in together."""

MAX_WAITING_BYTES = 16 * 1024 * 1024
"""Payloads that wait to be taken in; with more, the broker is not read."""

MAX_WAITING = 2 * RECEIVE_MAXIMUM
"""Messages that wait to be taken in, and replies that wait to be kept; those with QoS 0 know no receive maximum."""

RECONNECT_SECONDS = (0.2, 30.0)
"""The first and the longest pause before connecting again; each is twice the one before, less some chance."""

SETTLED_SECONDS = 10.0
"""A connection that lasted for so long begins with the first pause again."""

STOP_SECONDS = 10.0
"""How long a stop waits for Kafka to take what was received."""

_NUMBER = re.compile(rb"-?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")  # others go alone, through their decoder

_BAD_PAYLOAD, _NOT_AUTHORIZED = 0x99, 0x87
_CODES = {"auth": _NOT_AUTHORIZED, "identity": _NOT_AUTHORIZED}

_connections = metrics.connections.labels("mqtt")

_sessions_lost = Counter("isotherm_mqtt_sessions_lost", "Times that the broker had lost the connector's session")

log = logging.getLogger(__name__)


class _Message:
    """A message that is not acknowledged yet, or was acknowledged lately."""

    __slots__ = ("code", "connection", "content", "is_answered", "packet_id", "publish")

    def __init__(self, publish: Publish, connection: Connection) -> None:
        self.publish: Publish | None = publish  # None once it is taken in, or when it is another connector's
        self.packet_id = publish.packet_id
        self.connection = connection  # the last one that it came on
        self.content = hash((publish.topic, publish.payload))
        self.code = 0
        self.is_answered = False


_Plain = tuple[_Message, list[PlainRecord]]


class Subscriber:
    """Brings messages from the broker to intake."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._settings = site.settings
        self._routes = Routes(site.decoders.topics, site.decoders.by_topic)
        self._division = Division(site.settings, self._routes) if site.settings.mqtt_workers > 1 else None
        is_own = self._division.is_for_us if self._division is not None else lambda _: True
        self._downlink = Downlink(site.dispatcher, site.doorkeeper, is_own)
        self._replying: set[asyncio.Task[None]] = set()
        self._is_5 = site.settings.mqtt_version != "3.1.1"
        self._connection: Connection | None = None
        self._waiting: deque[_Message] = deque()
        self._waiting_bytes = 0
        self._came = asyncio.Event()
        self._owed: deque[tuple[Receipt, Sequence[_Message]]] = deque()  # what is acknowledged next
        self._answered = asyncio.Event()
        self._is_taking = self._is_stopping = False
        self._known: OrderedDict[int, _Message] = OrderedDict()  # by packet identifier, of this session
        self._ready = asyncio.Event()
        self._throttle = Throttle()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Subscribe for the length of the block; yields where, when the broker has agreed."""
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(self._keep_connected(), name="mqtt-connection"),
                tasks.create_task(self._work(), name="mqtt-intake"),
            ]
            try:
                await self._ready.wait()
                yield f"{'mqtts' if self._settings.mqtt_tls else 'mqtt'}://{self._settings.mqtt}"
                await self._finish()
            finally:
                await end(running)

    async def _finish(self) -> None:
        """Read no more, and acknowledge what was received."""
        self._is_stopping = True
        self._hold_back()
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                while self._waiting or self._is_taking or self._owed:
                    self._answered.clear()
                    await self._answered.wait()
        if left := len(self._waiting) + sum(len(messages) for _, messages in self._owed):
            log.warning("%d messages stay unacknowledged; the broker delivers them again", left)

    # The connection.

    async def _keep_connected(self) -> None:
        """Connect, and again when the connection ends, with growing pauses."""
        first, longest = RECONNECT_SECONDS
        pause = first
        while True:
            connection = Connection(self._settings, self._is_5, self._begin, self._receive)
            began = time.monotonic()
            try:
                await connection.open(self._routes.filters)
            except (OSError, Refused) as error:
                if self._throttle("away") is not None:
                    log.warning("the MQTT broker at %s: %s; trying again", self._settings.mqtt, error)
                # One that is to share does not fall back on a version that cannot: it would take in everything.
                if isinstance(error, Refused) and self._settings.mqtt_version == "auto" and not self._settings.mqtt_shared:
                    self._is_5 = not self._is_5
            else:
                version = "5" if self._is_5 else "3.1.1"
                log.info("connected to the MQTT broker at %s, MQTT %s%s", self._settings.mqtt, version, self._part())
                self._ready.set()
                _connections.set(1)
                self._downlink.connection = connection
                self._site.dispatcher.set_broker(self._downlink)
                await connection.lost.wait()
                log.info("the connection to the MQTT broker ended%s", f": {connection.reason}" * bool(connection.reason))
            finally:
                self._connection = None
                _connections.set(0)
                await connection.close()
            if time.monotonic() - began > SETTLED_SECONDS:
                pause = first
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, longest)

    def _part(self) -> str:
        """Say whose messages are taken in, where that is not all of them."""
        count = self._settings.mqtt_workers
        return f", as number {self._settings.mqtt_worker} of {count} that divide the devices" if count > 1 else ""

    def _begin(self, connection: Connection) -> None:
        if not connection.has_session:
            self._known.clear()  # the broker numbers anew
            if self._ready.is_set():
                log.error("the MQTT broker has lost our session, and with it what it had acknowledged and not sent us")
                _sessions_lost.inc()
        self._connection = connection

    def _receive(self, connection: Connection, publish: Publish) -> None:
        if publish.is_retained:  # a copy for a new subscription: it was taken in when it was published
            if publish.packet_id is not None:
                connection.acknowledge([(publish.packet_id, 0)])
            return
        message = _Message(publish, connection)
        if publish.packet_id is not None and self._is_known(publish.packet_id, message, publish.is_duplicate):
            return
        if self._division is None or self._division.is_own(publish):
            self._waiting_bytes += len(publish.payload)
        elif publish.packet_id is None:
            return
        else:
            message.publish = None
        self._waiting.append(message)
        self._came.set()
        self._hold_back()

    def _is_known(self, packet_id: int, message: _Message, is_duplicate: bool) -> bool:
        """Tell whether a message is one that was received already, and have that acknowledged on the new connection."""
        before = self._known.pop(packet_id, None)
        if before is not None and is_duplicate and before.content == message.content:
            self._known[packet_id] = before
            before.connection = message.connection
            if before.is_answered:
                before.connection.acknowledge([(packet_id, before.code)])
            return True
        self._known[packet_id] = message
        while len(self._known) > 2 * RECEIVE_MAXIMUM:
            self._known.popitem(last=False)
        return False

    def _hold_back(self) -> None:
        """Read only as much as can be taken in."""
        if self._connection is None:
            return
        waiting = len(self._waiting) + len(self._replying)
        if self._is_stopping or self._waiting_bytes > MAX_WAITING_BYTES or waiting > MAX_WAITING:
            self._connection.pause()
        else:
            self._connection.resume()

    # Taking in.

    async def _work(self) -> None:
        """Take in what waits, for ever."""
        while True:
            await self._came.wait()
            self._is_taking = True
            await self._take([self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_BATCH))])
            self._is_taking = False
            if not self._waiting:
                self._came.clear()
            self._answered.set()
            self._hold_back()
            await asyncio.sleep(0)

    async def _take(self, batch: Sequence[_Message]) -> None:
        """Take messages in, in their order, as many together as can be."""
        routes = (self._routes[message.publish.topic] for message in batch if message.publish is not None)
        self._downlink.hear({route.device for route in routes if route.device is not None})
        together: list[_Plain] = []
        for message in batch:
            records = self._plain(message.publish) if message.publish is not None else []
            if records is None:
                await self._take_together(together)
                together = []
                await self._take_alone(message)
            else:
                together.append((message, records))
        await self._take_together(together)

    def _plain(self, publish: Publish) -> list[PlainRecord] | None:
        """Return the records of a message that can be taken in together with others."""
        route = self._routes[publish.topic]
        if not publish.payload or route.device is None or route.error or route.is_passed_over or publish.properties:
            return None
        if route.metric:
            is_plain = _NUMBER.fullmatch(publish.payload) is not None and not route.device.startswith("urn:")
            return [PlainRecord(f"{route.device}/{route.metric}", float(publish.payload))] if is_plain else None
        return plain_records(publish.payload, only(route.device)) if route.form is None else None

    async def _take_together(self, plain: Sequence[_Plain]) -> None:
        """Take in several messages, as many together as can be."""
        if not any(records for _, records in plain):  # all are others'
            if plain:
                self._owe(Receipt(), [message for message, _ in plain])
            return
        for receipt, taken in take(self._site.intake, plain):
            if receipt is not None:
                self._owe(receipt, taken)
                continue
            for message in taken:
                await self._take_alone(message)

    async def _take_alone(self, message: _Message) -> None:
        publish = message.publish
        if publish is None:
            self._owe(Receipt(), [message])
            return
        route = self._routes[publish.topic]
        if route.is_passed_over or (not publish.payload and not (route.form or "").startswith(HOOK)):
            # An empty payload clears a retained message (§3.3.1.3).
            self._owe(Receipt(), [message])
            return
        if route.form == REPLY and route.device is not None:
            self._take_reply(route.device, publish, message)
            return
        try:
            receipt = await self._accept(route, publish)
        except InvalidReading as error:
            receipt = await self._refuse(route, publish, error.reason, error.detail)
        except Unauthorized as error:
            receipt = await self._refuse(route, publish, "auth", str(error))
        except Unavailable as error:
            receipt = await self._refuse(route, publish, "unavailable", str(error))
        except (Exception, KeyboardInterrupt) as error:
            # A decoder's fault, for Ctrl-C comes as a signal. The broker would send the message again for ever.
            log.error("failed at a message on %s", publish.topic, exc_info=error)
            receipt = await self._refuse(route, publish, "malformed", f"the connector failed at it: {error!r}")
        if receipt.refusals:
            message.code = _CODES.get(receipt.refusals[0].reason, _BAD_PAYLOAD)
        self._owe(receipt, [message])

    def _take_reply(self, device: str, publish: Publish, message: _Message) -> None:
        """Keep what a device says of a command, beside what else comes; it is acknowledged in its turn."""
        receipt = Receipt()
        receipt.expect()
        replying = asyncio.create_task(self._reply(device, publish, message), name=f"mqtt-reply-{device}")
        self._replying.add(replying)

        def kept(_: object) -> None:
            self._replying.discard(replying)
            self._waiting_bytes -= len(publish.payload)
            self._hold_back()
            receipt.settle()

        replying.add_done_callback(kept)
        self._owe(receipt, [message])
        self._waiting_bytes += len(publish.payload)  # it still waits, though nothing behind it does

    async def _reply(self, device: str, publish: Publish, message: _Message) -> None:
        doorkeeper, dispatcher = self._site.doorkeeper, self._site.dispatcher
        while True:
            try:
                await dispatcher.reply(await doorkeeper.identify(certified=device), publish.payload)
            except Unavailable as away:  # it is not acknowledged before
                if self._throttle("reply") is not None:
                    log.warning("a reply of %s waits: %s", device, away)
                await asyncio.sleep(RECONNECT_SECONDS[0])
                continue
            except InvalidReading as error:
                message.code = _CODES.get(error.reason, _BAD_PAYLOAD)
                refused = await self._refuse(self._routes[publish.topic], publish, error.reason, error.detail)
                await refused.durable()
            return

    async def _accept(self, route: Route, publish: Publish) -> Receipt:
        """Take in one message.

        Raises:
            InvalidReading: its topic means nothing, or it is too large.
            Unauthorized: it does not say who sent it.
            Unavailable: it shows a token, and the registry is away.
        """
        if route.error:
            raise InvalidReading("name", route.error)
        check_size(publish.payload)
        identity = await self._identity(route, publish)
        form = route.form or await self._form(route, publish)
        pieces = self._site.catalogue.decoder(form)(publish.payload, now_us())
        return await self._site.intake.accept(pieces, peer=publish.topic, identity=identity, form=form, patient=True)

    async def _refuse(self, route: Route, publish: Publish, reason: str, detail: str) -> Receipt:
        """Keep a message as a reject."""
        rejected = Rejected(reason, detail, publish.payload, route.device)
        return await self._site.intake.accept([Decoded.nothing(rejected)], peer=publish.topic, patient=True)

    async def _identity(self, route: Route, publish: Publish) -> Identity:
        """Return for whom a message may speak: the topic's device, as the broker lets nobody else publish there.

        Raises:
            Unauthorized: the topic names no device, and the message does not either.
            Unavailable: it shows a token, and the registry is away.
        """
        doorkeeper = self._site.doorkeeper
        if route.device is not None:
            try:
                return await doorkeeper.identify(certified=route.device)
            except Unavailable:  # whether it is a gateway is not known; itself it is
                return only(route.device)
        said = dict(publish.properties.get("user_property", ()))
        device, token = said.get("device"), said.get("token")
        if doorkeeper.is_open and device is None and route.form == THINGSBOARD_GATEWAY:
            return ANYONE
        if device is None and token is None:
            raise Unauthorized(
                f"who sends on {publish.topic} must say so in a user property, token or device; "
                "MQTT 3.1.1 has none: publish to devices/ID/telemetry"
            )
        return await doorkeeper.identify(device=device, token=token)

    async def _form(self, route: Route, publish: Publish) -> str:
        """Return the format of a payload: what the device's type says, else its content type, else what it looks like."""
        if self._site.decoders.forms and route.device is not None:
            with suppress(Unavailable):
                type_of_device = await self._site.doorkeeper.type_of(route.device)
                if (form := self._site.decoders.by_type(type_of_device)) is not None:
                    return form
        return form_of(publish.payload, *publish.properties.get("content_type", ())[:1])

    # Answering.

    def _owe(self, receipt: Receipt, messages: Sequence[_Message]) -> None:
        """Acknowledge messages when Kafka has what is in them, and those before."""
        for message in messages:
            if message.publish is not None:
                self._waiting_bytes -= len(message.publish.payload)
                message.publish = None
        self._owed.append((receipt, messages))
        if receipt.is_durable:
            self._answer()
        else:
            receipt.when_settled(self._answer)

    def _answer(self) -> None:
        answers: dict[Connection, list[tuple[int, int]]] = {}
        while self._owed and self._owed[0][0].is_durable:
            for message in self._owed.popleft()[1]:
                message.is_answered = True
                if message.packet_id is not None:
                    answers.setdefault(message.connection, []).append((message.packet_id, message.code))
        for connection, packets in answers.items():
            connection.acknowledge(packets)
        self._answered.set()
