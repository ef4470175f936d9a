"""What people do to alarms, on its way to the topic ``events``: notifications follow it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from isotherm.errors import Unavailable
from isotherm.events import Event
from isotherm.kafka import Producer
from isotherm.settings import Settings
from isotherm.topics import EVENTS

DELIVER_SECONDS = 10.0


async def deliver(settings: Settings, events: Sequence[Event]) -> None:
    """Deliver events that are in the store already.

    Raises:
        Unavailable: Kafka did not take all of them in time.
    """
    producer = Producer(settings, "isotherm-alarms")
    try:
        await producer.start()
        async with asyncio.timeout(DELIVER_SECONDS):
            for event in events:
                await producer.deliver(EVENTS, event.to_json(), key=event.device)
    except (Unavailable, TimeoutError) as error:
        raise Unavailable(
            f"it is done, and among the events in the store, but the topic events has not got it: {error or 'no answer'}"
        ) from error
    finally:
        await producer.stop()
