"""Commands over MQTT: published to ``devices/ID/commands/NAME``, of a gateway's child to whichever of both has subscribed.

A broker does not tell who is there. An MQTT 5 broker says of a message that nobody has subscribed to its topic (reason code
0x10, §3.4.2.1; the connector itself must not have, hence the fourth level): such a command has not left, and is tried again
when the device is heard of, or after a while. Of a broker that does not say so, only devices that have published something
are taken to be there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import msgspec

from connectors.dispatch import Dispatcher, Given, payload
from connectors.identity import Doorkeeper
from connectors.mqtt.connection import Connection
from isotherm.clock import now_us
from isotherm.commands import Command
from isotherm.limits import SECOND

ACKNOWLEDGE_SECONDS = 10.0
"""How long the broker may take to acknowledge a command: less than a claim holds."""

MAX_HEARD = 200_000
"""Devices that are remembered to have come this way."""

_NOBODY = 0x10
_REFUSED = 0x80

log = logging.getLogger(__name__)


class Downlink:
    """The way to the devices of a broker."""

    def __init__(self, dispatcher: Dispatcher, doorkeeper: Doorkeeper, is_own: Callable[[str], bool]) -> None:
        """Prepare; ``is_own`` tells whether a device is this connector's, where several divide them."""
        self.connection: Connection | None = None
        self._dispatcher = dispatcher
        self._doorkeeper = doorkeeper
        self._is_own = is_own
        self._heard: set[str] = set()

    def hear(self, devices: set[str]) -> None:
        """Note that devices have published something."""
        new = devices - self._heard
        if len(self._heard) > MAX_HEARD:
            self._heard.clear()
        self._heard |= new
        for device in devices:
            self._dispatcher.heard(device, is_new=device in new)

    def may_reach(self, device: str, way: str) -> bool:
        """Tell whether a command for a device can be given to it at all, by way of itself or its gateway."""
        if self.connection is None or self.connection.lost.is_set() or not self._is_own(device):
            return False
        return self.connection.is_5 or way in self._heard

    def has_heard(self, way: str) -> bool:
        """Tell whether a device or gateway has come this way before."""
        return way in self._heard

    async def give(self, command: Command) -> Given:
        """Publish a command.

        Raises:
            ConnectionError: the connection ended before the broker has said that it has it.
            TimeoutError: it did not say so in time.
        """
        gateway = await self._doorkeeper.gateway_of(command.device)
        connection = self.connection
        if connection is None or connection.lost.is_set():
            return "returned"
        if not gateway:
            ways = [command.device]
        elif connection.is_5:
            ways = [command.device, gateway]
        else:
            ways = [command.device if command.device in self._heard else gateway]
        for way in ways:
            if await self._publish(connection, way, command) == "sent":
                return "sent"
        return "returned"

    async def _publish(self, connection: Connection, way: str, command: Command) -> Given:
        message = msgspec.json.encode(payload(command))
        seconds = max(1, (command.deadline - now_us()) // SECOND)
        async with asyncio.timeout(ACKNOWLEDGE_SECONDS):
            code = await connection.publish(f"devices/{way}/commands/{command.name}", message, seconds)
        if code >= _REFUSED:
            log.warning("the MQTT broker refuses command %s for %s: reason code 0x%02x", command.id, command.device, code)
        return "returned" if code >= _REFUSED or code == _NOBODY else "sent"
