"""MQTT 5 and 3.1.1: a client of a broker, to which devices publish.

    mosquitto_pub -t devices/room-1/readings -q 1 -m '[{"n":"temperature","u":"Cel","v":21.5}]'
    mosquitto_pub -t devices/room-1/temperature -q 1 -m 21.5

The topic names the device: a bare name in the payload is a metric of that device, a full name must agree with it. What each
topic means is in `topics`. PUBACK is sent when Kafka has the readings; the persistent session keeps what was published while
the connector was away. Several connectors divide the devices among them (`division`), or the broker divides the messages.

    broker ─► connection ─► subscriber: batches ─► intake ─► Kafka
                  ▲              │
                  └─ PUBACK ◄────┘  in the order of the messages
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from connectors.mqtt.subscriber import Subscriber
from connectors.site import Site


@asynccontextmanager
async def listening(site: Site) -> AsyncIterator[str]:
    """Subscribe for the length of the block; yields where. At its end, what was received is acknowledged."""
    async with Subscriber(site).running() as where:
        yield where
