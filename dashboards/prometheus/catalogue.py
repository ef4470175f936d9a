"""Which series there are, with their labels, and which of them a selector means."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dashboards.prometheus.language import Matcher
from dashboards.prometheus.names import NAME, labels
from isotherm.registry import Registry
from isotherm.store.client import Client
from isotherm.store.reader import Reader

KNOWN_SECONDS = 5.0
"""How long it is relied on: a dashboard asks twenty times at once, and each time it is read whole."""


@dataclass(frozen=True, slots=True)
class Known:
    """A series.

    Attributes:
        series: Its name, ``device/metric``.
        labels: What it is called in Prometheus, ascending by name.
        newest: Time of its newest reading, µs since the epoch UTC.
    """

    series: str
    labels: Mapping[str, str]
    newest: int


class Catalogue:
    """Reads the store's series and the registry's devices. Methods raise Unavailable when the store does not answer."""

    def __init__(self, redis: Client, reader: Reader) -> None:
        self._registry = Registry(redis)
        self._reader = reader
        self._lock = asyncio.Lock()
        self._read_at = -KNOWN_SECONDS
        self._by_metric: dict[str, list[Known]] = {}

    async def select(self, matchers: Iterable[Matcher], since: int = 0) -> list[Known]:
        """Return the series that a selector means, and that have a reading since a time, ascending by their labels."""
        by_metric = await self._all()
        others = []
        metrics = set(by_metric)
        for one in matchers:
            if one.name == NAME:
                metrics = one.of(metrics)
            else:
                others.append(one)
        found = [known for metric in metrics for known in by_metric[metric] if known.newest >= since]
        for one in others:
            passing = one.of({known.labels.get(one.name, "") for known in found})
            found = [known for known in found if known.labels.get(one.name, "") in passing]
        return sorted(found, key=lambda known: tuple(known.labels.items()))

    async def units(self) -> dict[str, list[str]]:
        """Return metric → the units that it comes in, ascending."""
        by_metric = await self._all()
        return {metric: sorted({one.labels.get("unit", "") for one in some}) for metric, some in sorted(by_metric.items())}

    async def _all(self) -> dict[str, list[Known]]:
        async with self._lock:
            if time.monotonic() - self._read_at >= KNOWN_SECONDS:
                self._by_metric = await self._read()
                self._read_at = time.monotonic()
        return self._by_metric

    async def _read(self) -> dict[str, list[Known]]:
        devices = {device.name: device for device in await self._registry.all()}
        found: dict[str, list[Known]] = {}
        for one in await self._reader.latest():
            device = devices.get(one.device)
            own = {
                NAME: one.metric,
                "device": one.device,
                "unit": one.unit,
                "type": device.type if device else "",
                "gateway": device.gateway if device else "",
            }
            known = Known(f"{one.device}/{one.metric}", labels(own, device.labels if device else ()), one.time)
            found.setdefault(one.metric, []).append(known)
        return found
