"""Which messages are a connector's own, where several divide the devices among them.

Each of them subscribes to everything, plainly, and takes in what its number is for; what is another's it acknowledges and
forgets. This needs nothing of the broker but what every broker has, and a plain subscription outlives a restart of brokers
that forget shared ones. It costs that the broker sends each message to each connector.

Two connectors must never find different keys for a message, or nobody takes it. So the sender that a message names counts
only where MQTT 5 is set, and not where a connector may happen to speak 3.1.1, which does not carry it.
"""

from __future__ import annotations

from connectors.mqtt.connection import Publish
from connectors.mqtt.topics import MAX_KNOWN, Routes
from isotherm.settings import Settings
from isotherm.topics import partition_of


class Division:
    """Tells a connector's own messages from those of the others."""

    def __init__(self, settings: Settings, routes: Routes) -> None:
        """Prepare.

        Args:
            settings: How many connectors there are, and which one this is.
            routes: What topics mean, to all of them alike.
        """
        self._count, self._number = settings.mqtt_workers, settings.mqtt_worker
        self._has_senders = settings.mqtt_version == "5"
        self._routes = routes
        self._known: dict[str, bool] = {}  # by topic

    def is_own(self, publish: Publish) -> bool:
        """Tell whether a message is to be taken in here; its payload does not matter."""
        is_own = self._known.get(publish.topic)
        return self._decide(publish) if is_own is None else is_own

    def _decide(self, publish: Publish) -> bool:
        route = self._routes[publish.topic]
        if route.device is None and not route.error and self._has_senders:
            said = dict(publish.properties.get("user_property", ()))
            return self.is_for_us(said.get("device") or said.get("token") or publish.topic)
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        self._known[publish.topic] = is_own = self.is_for_us(route.device or publish.topic)
        return is_own

    def is_for_us(self, key: str) -> bool:
        """Tell whether a device is this connector's."""
        return partition_of(key, self._count) == self._number
