"""What is known of devices besides their readings: presence, alarms, type, labels, gateway."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dashboards.alarm_spans import worst
from isotherm import presence
from isotherm.alarms.table import Alarm, Alarms
from isotherm.events import SEVERITIES, Severity
from isotherm.presence import STATUSES, Presence, Status
from isotherm.registry import Device, Registry
from isotherm.store.client import Client

STATUS_CODES: dict[Status, int] = {status: code for code, status in enumerate(STATUSES, 1)}
"""How pages are told whether a device is there; 0 when nobody knows."""

SEVERITY_CODES: dict[Severity, int] = {severity: code for code, severity in enumerate(SEVERITIES, 1)}
"""How pages are told of the worst alarm of a device, the worst first; 0 when there is none."""


@dataclass(frozen=True, slots=True)
class Health:
    """How devices are, in the order in which they were asked for.

    Attributes:
        status: STATUS_CODES, shape (n,), u1.
        severity: SEVERITY_CODES of the worst alarm that is active and not shelved, shape (n,), u1.
    """

    status: NDArray[np.uint8]
    severity: NDArray[np.uint8]


@dataclass(slots=True)
class Known:
    """What one reading of the store found.

    Attributes:
        presence: Of each device that ``presence`` watches.
        devices: The registered devices.
        alarms: Device → its alarms, newest first; of those in the table.
    """

    presence: Mapping[str, Presence] = field(default_factory=dict)
    devices: Mapping[str, Device] = field(default_factory=dict)
    alarms: Mapping[str, Sequence[Alarm]] = field(default_factory=dict)
    _health: tuple[Sequence[str], Health] | None = None

    def health(self, names: Sequence[str]) -> Health:
        """Return how these devices are; worked out once for all sessions that show the same ones."""
        if self._health is None or self._health[0] is not names:
            status = np.zeros(len(names), dtype=np.uint8)
            severity = np.zeros(len(names), dtype=np.uint8)
            for place, name in enumerate(names):
                if name in self.presence:
                    status[place] = STATUS_CODES[self.presence[name].status]
                if name in self.alarms:
                    active = (one for one in self.alarms[name] if one.row.is_active and one.shelved is None)
                    bad = worst(one.row.severity for one in active)
                    severity[place] = SEVERITY_CODES[bad] if bad else 0
            self._health = names, Health(status, severity)
        return self._health[1]


class KnownReader:
    """Reads it, for all sessions together; the registry only when it has changed."""

    def __init__(self, redis: Client, partitions: int) -> None:
        self._redis = redis
        self._partitions = partitions
        self._registry = Registry(redis)
        self._alarms = Alarms(redis, partitions)
        self._version: tuple[int, int] | None = None
        self._devices: dict[str, Device] = {}

    async def read(self) -> Known:
        """Return what is known now.

        Raises:
            Unavailable: the store does not answer.
        """
        version = await self._registry.version(), await self._registry.count()
        if version != self._version:
            self._devices = {device.name: device for device in await self._registry.all()}
            self._version = version
        alarms: dict[str, list[Alarm]] = {}
        for one in await self._alarms.list():
            alarms.setdefault(one.row.device, []).append(one)
        return Known(await presence.read(self._redis, self._partitions), self._devices, alarms)
