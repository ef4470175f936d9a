"""The fleet: every device, whether it is there, its alarms, its newest values and how they went lately."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import panel as pn

from dashboards import shell
from dashboards.components import FleetControls, FleetTable
from dashboards.feed import Feed
from dashboards.fleet import Fleet, News
from dashboards.known import Health, Known
from dashboards.pages.session import Session
from dashboards.sparks import Spark, Sparks
from dashboards.visitor import visitor
from isotherm.accounts.role import Role
from isotherm.clock import now_us
from isotherm.errors import Unavailable
from isotherm.registry import Device
from isotherm.settings import Settings
from isotherm.units import symbol

MAX_SPARKS = 200
"""Rows whose sparklines are read at once: more are not in view."""


def page(feed: Feed, settings: Settings, sparks: Sparks) -> pn.Template:
    """Build the page for one session."""
    return FleetPage(feed, settings, sparks).template


class FleetPage(Session):
    """One open fleet page."""

    def __init__(self, feed: Feed, settings: Settings, sparks: Sparks) -> None:
        super().__init__(feed)
        self._settings = settings
        self._sparks = sparks
        self._fleet: Fleet | None = None
        self._known: Known | None = None
        self._health: Health | None = None  # as it was sent
        self._entries: tuple[Device | None, ...] = ()  # as they were sent
        self._metric = ""
        self._wanted: OrderedDict[str, None] = OrderedDict()
        self._reading: asyncio.Task[None] | None = None
        self._table = FleetTable(ready=self._ready, sparks=self._ask_sparks)
        self.template = shell.page(fleet=self._table, controls=FleetControls(may=visitor().may(Role.OPERATOR)))

    def fleet_changed(self, fleet: Fleet, news: News) -> None:
        """Send columns: everything, or the rows that changed."""
        self._fleet = fleet
        with self.drawing():
            if news.anew:
                self._table.send(self._everything(fleet))
                self._health, self._entries = None, ()
                self._send_known()
            else:
                self._table.send(_changes(fleet, news))

    def known_changed(self, known: Known) -> None:
        """Send presence and alarms as a whole, a byte a device; and what is registered when it is new."""
        self._known = known
        with self.drawing():
            self._send_known()

    def store_changed(self, problem: str | None) -> None:
        """Say that what is shown is old, or no longer."""
        with self.drawing():
            self._table.send({"kind": "store", "problem": problem})

    def end(self) -> None:
        """Let go of everything outside the session."""
        super().end()
        if self._reading is not None:
            self._reading.cancel()

    def _ready(self) -> None:
        self._feed.watch_fleet(self)
        self._feed.watch_known(self)

    def _everything(self, fleet: Fleet) -> dict[str, Any]:
        place = {device: number for number, device in enumerate(fleet.names)}
        return {
            "kind": "all",
            "now": now_us() / 1000,
            "tcp_port": self._settings.tcp_port,
            "devices": list(fleet.names),
            "of": np.array([place[one.device] for one in fleet.latest], dtype=np.uint32),
            "metrics": [one.metric for one in fleet.latest],
            "units": [symbol(one.unit) for one in fleet.latest],
            "values": np.array([one.value for one in fleet.latest]),
            "seen": np.array([one.received_at / 1000 for one in fleet.latest]),
        }

    def _send_known(self) -> None:
        if self._fleet is None or self._known is None:
            return
        names, known = self._fleet.names, self._known
        health = known.health(names)
        if self._health is None or not _same(health, self._health):
            self._health = health
            self._table.send({"kind": "health", "status": health.status, "severity": health.severity})
        entries = tuple(known.devices.get(name) for name in names)
        if entries != self._entries:
            self._entries = entries
            self._table.send(
                {
                    "kind": "registry",
                    "types": [one.type if one else "" for one in entries],
                    "gateways": [one.gateway if one else "" for one in entries],
                    "labels": [" ".join(sorted(one.labels)) if one else "" for one in entries],
                }
            )

    def _ask_sparks(self, names: list[str], metric: str) -> None:
        if self._fleet is None:
            return
        if metric != self._metric:
            self._metric = metric
            self._wanted.clear()
        for name in names[:MAX_SPARKS]:
            metrics = [one.metric for one in self._fleet.device(name)]
            if metrics and (not metric or metric in metrics):
                self._wanted[f"{name}/{metric or metrics[0]}"] = None
        while len(self._wanted) > MAX_SPARKS:  # those that were asked for first are no longer in view
            self._wanted.popitem(last=False)
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._send_sparks(), name="sparks")

    async def _send_sparks(self) -> None:
        while self._wanted:
            series, metric = list(self._wanted), self._metric
            self._wanted.clear()
            try:
                found = await self._sparks.read(series)
            except Unavailable:
                return  # the page says so, and rows ask again
            with self.drawing():
                self._table.send(_sparks(found, metric))


def _sparks(found: Mapping[str, Spark], metric: str) -> dict[str, Any]:
    sparks = list(found.values())
    return {
        "kind": "sparks",
        "metric": metric,
        "devices": [name.partition("/")[0] for name in found],
        "ends": np.cumsum([len(time) for time, _ in sparks], dtype=np.uint32),
        "time": np.concatenate([time for time, _ in sparks] or [np.empty(0)]),
        "value": np.concatenate([value for _, value in sparks] or [np.empty(0, dtype=np.float32)]),
    }


def _same(one: Health, other: Health) -> bool:
    return np.array_equal(one.status, other.status) and np.array_equal(one.severity, other.severity)


def _changes(fleet: Fleet, news: News) -> dict[str, Any]:
    rows = [fleet.latest[place] for place in news.changed]
    return {
        "kind": "some",
        "places": np.array(news.changed, dtype=np.uint32),
        "values": np.array([one.value for one in rows]),
        "seen": np.array([one.received_at / 1000 for one in rows]),
    }
