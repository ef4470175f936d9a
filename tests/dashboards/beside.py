"""What the store holds beside readings, written as those do who keep it: presence, alarms, events, the registry."""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from isotherm import presence
from isotherm.alarms.row import ENGINE, AlarmRow
from isotherm.analytics import Analytics
from isotherm.analytics import Status as Report
from isotherm.clock import now_us
from isotherm.events import Event
from isotherm.limits import HOUR
from isotherm.presence import INTERVALS, ROW, STATUSES, Status
from isotherm.registry import Registry
from isotherm.settings import Settings
from isotherm.store import client, layout
from isotherm.store.events import EventLog
from isotherm.topics import partition_of


async def write_presence(settings: Settings, statuses: Mapping[str, Status], *, cadence: int) -> None:
    """Say of devices that they are there, or not."""
    rows: dict[int, dict[str, bytes]] = {}
    for device, status in statuses.items():
        row = np.zeros(1, dtype=ROW)
        row["seen"] = row["arrived"] = now_us()
        row["arrivals"], row["intervals"], row["status"] = INTERVALS + 5, cadence, STATUSES.index(status)
        rows.setdefault(partition_of(device, settings.partitions), {})[device] = presence._LAYOUT + row.tobytes()
    partitions = tuple(range(settings.partitions))
    async with client.connected(settings) as redis:
        # "at" lies ahead, so that the report stays fresh for as long as a test takes.
        report = Report(name=presence.NAME, instance="test", state="running", at=now_us() + HOUR, partitions=partitions)
        await Analytics(redis).report(report)
        for partition, some in rows.items():
            await redis.hset(layout.state_key(partition, presence.NAME), mapping=some)  # type: ignore[arg-type]


async def write_alarm(settings: Settings, row: AlarmRow, events: Sequence[Event] = ()) -> None:
    """Put an alarm into the table, and events into the log."""
    async with client.connected(settings) as redis:
        key = layout.state_key(partition_of(row.device, settings.partitions), ENGINE)
        await redis.hset(key, mapping={row.key: msgspec.msgpack.encode(row)})  # type: ignore[dict-item]
        log = EventLog(redis, settings.partitions)
        for event in events:
            await log.append(event)


async def write_attribute(settings: Settings, device: str, name: str, text: str) -> None:
    """Store a string value of a device."""
    async with client.connected(settings) as redis:
        key = layout.attributes_key(partition_of(device, settings.partitions))
        record = now_us().to_bytes(8, "little", signed=True) + text.encode()
        await redis.hset(key, mapping={f"{device}/{name}": record})  # type: ignore[dict-item]


async def register(
    settings: Settings, device: str, *, type: str = "", gateway: str = "", labels: Sequence[str] = ()
) -> None:
    """Enter a device, and its gateway if it has one."""
    async with client.connected(settings) as redis:
        registry = Registry(redis)
        if gateway:
            await registry.add(gateway, is_gateway=True)
        await registry.add(device, gateway=gateway, type=type)
        if labels:
            await registry.label(device, add=labels)
