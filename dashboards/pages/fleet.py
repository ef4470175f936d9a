"""The fleet: every device, its newest values, and whether it is heard of."""

from __future__ import annotations

from typing import Any

import numpy as np
import panel as pn

from dashboards import shell
from dashboards.components import FleetTable
from dashboards.feed import Feed
from dashboards.fleet import Fleet, News
from dashboards.pages.session import Session
from dashboards.units import symbol
from isotherm.clock import now_us
from isotherm.settings import Settings


def page(feed: Feed, settings: Settings) -> pn.Template:
    """Build the page for one session."""
    return FleetPage(feed, settings).template


class FleetPage(Session):
    """One open fleet page."""

    def __init__(self, feed: Feed, settings: Settings) -> None:
        super().__init__(feed)
        self._settings = settings
        self._table = FleetTable(ready=lambda: feed.watch_fleet(self))
        self.template = shell.page(fleet=self._table)

    def fleet_changed(self, fleet: Fleet, news: News) -> None:
        """Send columns: everything, or the rows that changed."""
        message = self._everything(fleet) if news.anew else _changes(fleet, news)
        with self.drawing():
            self._table.send(message)

    def store_changed(self, problem: str | None) -> None:
        """Say that what is shown is old, or no longer."""
        with self.drawing():
            self._table.send({"kind": "store", "problem": problem})

    def _everything(self, fleet: Fleet) -> dict[str, Any]:
        devices = list(dict.fromkeys(one.device for one in fleet.latest))
        place = {device: number for number, device in enumerate(devices)}
        return {
            "kind": "all",
            "now": now_us() / 1000,
            "tcp_port": self._settings.tcp_port,
            "devices": devices,
            "of": [place[one.device] for one in fleet.latest],
            "metrics": [one.metric for one in fleet.latest],
            "units": [symbol(one.unit) for one in fleet.latest],
            "values": np.array([one.value for one in fleet.latest]),
            "seen": np.array([one.received_at / 1000 for one in fleet.latest]),
        }


def _changes(fleet: Fleet, news: News) -> dict[str, Any]:
    rows = [fleet.latest[place] for place in news.changed]
    return {
        "kind": "some",
        "places": np.array(news.changed, dtype=np.uint32),
        "values": np.array([one.value for one in rows]),
        "seen": np.array([one.received_at / 1000 for one in rows]),
    }
