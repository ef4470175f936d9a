"""One device: its newest values, one metric live, and the same metric over time."""

from __future__ import annotations

import panel as pn

from dashboards import shell
from dashboards.charts import live_chart
from dashboards.components import DeviceHead
from dashboards.feed import Feed
from dashboards.fleet import Fleet, News
from dashboards.pages.history import HistoryPart
from dashboards.pages.session import Session, argument
from dashboards.units import axis_label, symbol
from dashboards.window import Change
from isotherm.clock import now_us
from isotherm.names import is_device_name
from isotherm.store.reader import Latest, Reader


def page(feed: Feed, reader: Reader) -> pn.Template:
    """Build the page for one session."""
    return DevicePage(feed, reader, device=argument("id"), metric=argument("metric")).template


class DevicePage(Session):
    """One open device page.

    What metrics a device has is known only when the store has answered; from then on one of them is shown.
    """

    def __init__(self, feed: Feed, reader: Reader, device: str, metric: str) -> None:
        super().__init__(feed)
        self._device = device
        self._wanted = metric
        self._shown: Latest | None = None
        self._metrics: list[Latest] = []
        self._problem: str | None = None
        self._head = DeviceHead(ready=self._ready, state=self._state())
        self._live = live_chart(now_us())
        self._history = HistoryPart(reader, self.drawing)
        self.template = shell.page(
            head=self._head,
            live=pn.pane.Bokeh(self._live.figure, sizing_mode="stretch_width", margin=0),
            ranges=self._history.bar,
            history=pn.pane.Bokeh(self._history.chart.figure, sizing_mode="stretch_width", margin=0),
        )

    def fleet_changed(self, fleet: Fleet, news: News) -> None:
        """Show the newest values; begin with the charts when the device is heard of for the first time."""
        metrics = fleet.device(self._device)
        if metrics == self._metrics and not news.anew:
            return
        self._metrics = metrics
        chosen = next((one for one in metrics if one.metric == self._wanted), metrics[0] if metrics else None)
        begins = self._shown is None and chosen is not None
        if chosen is not None:
            self._shown = chosen
        with self.drawing():
            self._head.state = self._state(known=True)
        if begins and chosen is not None:
            self._begin(chosen)

    def window_changed(self, change: Change) -> None:
        """Stream new readings into the live chart."""
        with self.drawing():
            self._live.apply(change)
        self._history.follow()

    def store_changed(self, problem: str | None) -> None:
        """Say that what is shown stands still, or moves again."""
        self._problem = problem
        with self.drawing():
            self._head.state = {**self._head.state, "problem": problem}
        if problem is None:
            self._history.read()

    def end(self) -> None:
        """Let go of everything outside the session."""
        super().end()
        self._history.end()

    def _ready(self) -> None:
        if is_device_name(self._device):
            self._feed.watch_fleet(self)
        else:
            self._head.state = self._state(known=True)

    def _begin(self, shown: Latest) -> None:
        label = axis_label(shown.metric, shown.unit)
        series = f"{shown.device}/{shown.metric}"
        with self.drawing():
            self._live.figure.yaxis.axis_label = label
        self._history.begin(series, label)
        self._feed.watch_series(series, self)

    def _state(self, known: bool = False) -> dict[str, object]:
        """Return what device.js draws."""
        return {
            "device": self._device[:200],
            "known": known,
            "now": now_us() / 1000,
            "wanted": self._wanted[:200],
            "shown": self._shown.metric if self._shown else "",
            "problem": self._problem,
            "metrics": [
                {"name": one.metric, "unit": symbol(one.unit), "value": one.value, "seen": one.received_at / 1000}
                for one in self._metrics
            ],
        }
