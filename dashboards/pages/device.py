"""One device: its newest values, some of its metrics live, the same ones over time, its alarms and attributes."""

from __future__ import annotations

import asyncio
from typing import Any

import panel as pn

from dashboards import shell
from dashboards.alarm_spans import spans
from dashboards.charts import MAX_LINES, LiveChart, Quantity, TooMuch, alarm_columns, alarm_source, check_fits
from dashboards.components import DeviceControls, DeviceDetails, DeviceHead
from dashboards.feed import Feed
from dashboards.fleet import Fleet, News
from dashboards.known import Known
from dashboards.pages.history import HistoryPart
from dashboards.pages.session import Session, argument, arguments
from dashboards.visitor import Visitor, visitor
from dashboards.window import SPAN, Change
from isotherm.accounts.role import Role
from isotherm.alarms.table import Alarm
from isotherm.clock import now_us
from isotherm.errors import Unavailable
from isotherm.events import Event
from isotherm.names import is_device_name
from isotherm.presence import Presence
from isotherm.registry import Device
from isotherm.store.events import EventLog
from isotherm.store.reader import Latest, Reader
from isotherm.units import symbol

MAX_EVENTS = 1_000
"""Events of the device that are looked through for alarms that are over."""

SHOWN_ALARMS = 50
"""Alarms in the list below the charts, the newest."""


def page(feed: Feed, reader: Reader, events: EventLog) -> pn.Template:
    """Build the page for one session."""
    return DevicePage(feed, reader, events, device=argument("id"), metrics=arguments("metric"), who=visitor()).template


class _Line:
    """Hears of the last minutes of one metric, for a page."""

    def __init__(self, page: DevicePage, metric: str) -> None:
        self._page = page
        self._metric = metric

    def window_changed(self, change: Change) -> None:
        """Hand it on."""
        self._page.line_changed(self._metric, change)

    def is_behind(self) -> bool:
        """Tell whether the page's browser is."""
        return self._page.is_behind()

    def store_changed(self, problem: str | None) -> None:
        """Do nothing: the page hears of it itself."""


class DevicePage(Session):
    """One open device page.

    What metrics a device has is known only when the store has answered; from then on some of them are shown.
    """

    def __init__(self, feed: Feed, reader: Reader, events: EventLog, device: str, metrics: list[str], who: Visitor) -> None:
        super().__init__(feed)
        self._reader = reader
        self._log = events
        self._device = device
        self._wanted = metrics
        self._note = ""
        self._metrics: list[Latest] = []
        self._colors: dict[str, str] = {}
        self._lines: dict[str, _Line] = {}
        self._problem: str | None = None
        self._presence: Presence | None = None
        self._entry: Device | None = None
        self._alarms: list[Alarm] = []
        self._events: list[Event] = []
        self._details_task: asyncio.Task[None] | None = None
        self._alarm_source = alarm_source()
        self._head = DeviceHead(ready=self._ready, choose=self._choose, state=self._state())
        self._details = DeviceDetails()
        self._controls = DeviceControls(may=who.may(Role.OPERATOR))
        now, lines = now_us(), min(max(1, len(metrics)), MAX_LINES)
        self._live = LiveChart(now - SPAN, now, self._alarm_source, lines)
        self._history = HistoryPart(reader, device, self._alarm_source, self.drawing, lines)
        self.template = shell.page(
            head=self._head,
            live=pn.pane.Bokeh(self._live.figure, sizing_mode="stretch_width", margin=0),
            ranges=self._history.bar,
            history=pn.pane.Bokeh(self._history.chart.figure, sizing_mode="stretch_width", margin=0),
            details=self._details,
            controls=self._controls,
        )

    def fleet_changed(self, fleet: Fleet, news: News) -> None:
        """Show the newest values; begin with the charts when the device is heard of for the first time."""
        metrics = fleet.device(self._device)
        if metrics == self._metrics and not news.anew:
            return
        self._metrics = metrics
        if metrics and not self._lines:
            self._show(self._first())
        with self.drawing():
            self._head.state = self._state(known=True)

    def known_changed(self, known: Known) -> None:
        """Show presence, what is registered, and the alarms."""
        before = self._presence, self._entry, self._alarms
        self._presence, self._entry = known.presence.get(self._device), known.devices.get(self._device)
        self._alarms = list(known.alarms.get(self._device, ()))
        if before[:2] != (self._presence, self._entry):
            with self.drawing():
                self._head.state = self._state(known=bool(self._head.state["known"]))
                self._controls.device = "" if self._entry is None else self._device
        if before[2] != self._alarms:
            self._show_alarms()

    def line_changed(self, metric: str, change: Change) -> None:
        """Stream new readings into the live chart."""
        with self.drawing():
            self._live.apply(metric, change)
        self._history.follow()

    def store_changed(self, problem: str | None) -> None:
        """Say that what is shown stands still, or moves again."""
        self._problem = problem
        with self.drawing():
            self._head.state = {**self._head.state, "problem": problem}
        if problem is None:
            self._history.read()
            self._read_details()

    def end(self) -> None:
        """Let go of everything outside the session."""
        super().end()
        self._history.end()
        for line in self._lines.values():
            self._feed.release(line)
        if self._details_task is not None:
            self._details_task.cancel()

    def _ready(self) -> None:
        if is_device_name(self._device):
            self._feed.watch_fleet(self)
            self._feed.watch_known(self)
            self._read_details()
        else:
            self._head.state = self._state(known=True)

    def _first(self) -> list[Quantity]:
        """Return what to show at first: what the address asks for, as far as there is such a thing and it fits."""
        shown: list[Quantity] = []
        for one in (one for name in self._wanted for one in self._metrics if one.metric == name):
            if (quantity := _quantity(one)) not in shown:
                try:
                    check_fits([*shown, quantity])
                except TooMuch as problem:
                    self._note = str(problem)
                    break
                shown.append(quantity)
        missing = [name for name in self._wanted if all(one.metric != name for one in self._metrics)]
        shown = shown or [_quantity(self._metrics[0])]
        if missing:
            self._note = f"No reading of “{missing[0][:200]}” has been stored; this is {shown[0].metric}."
        return shown

    def _choose(self, metric: str) -> None:
        """Add a metric to the charts, or take it away."""
        latest = next((one for one in self._metrics if one.metric == metric), None)
        if latest is None:
            return
        quantity = _quantity(latest)
        shown = [_quantity(one) for name in self._lines for one in self._metrics if one.metric == name]
        chosen = [one for one in shown if one.metric != metric] if metric in self._lines else [*shown, quantity]
        try:
            check_fits(chosen)
            self._note = "" if chosen else "A chart shows at least one metric."
            if chosen:
                self._show(chosen)
        except TooMuch as problem:
            self._note = str(problem)
        with self.drawing():
            self._head.state = self._state(known=True)

    def _show(self, quantities: list[Quantity]) -> None:
        with self.rebuilding():
            self._colors = self._live.choose(quantities)
            self._history.choose(quantities)
        before, self._lines = self._lines, {}
        for one in quantities:
            if one.metric in before:
                self._lines[one.metric] = before.pop(one.metric)
            else:
                self._begin(one.metric)
        for line in before.values():
            self._feed.release(line)

    def _begin(self, metric: str) -> None:
        line = self._lines[metric] = _Line(self, metric)
        self._feed.watch_series(f"{self._device}/{metric}", line)

    def _read_details(self) -> None:
        """Read the attributes, and which alarms there were."""
        if self._details_task is not None:
            self._details_task.cancel()
        self._details_task = asyncio.create_task(self._show_details(), name="device-details")

    async def _show_details(self) -> None:
        try:
            attributes = await self._reader.attributes(self._device)
            self._events = await self._log.newest(MAX_EVENTS, device=self._device)
        except Unavailable:
            return  # the head says so, and it is read again when the store is back
        with self.drawing():
            self._details.texts = [
                {"name": one.series.partition("/")[2], "text": one.text, "time": one.time / 1000} for one in attributes
            ]
        self._show_alarms()

    def _show_alarms(self) -> None:
        found = spans(self._events, self._alarms, now_us())
        status = {(one.row.key, one.row.since): one.status for one in self._alarms}
        with self.drawing():
            self._alarm_source.data = alarm_columns(found)
            self._details.alarms = [
                {
                    "severity": one.severity,
                    "message": one.message,
                    "start": one.start / 1000,
                    "end": None if one.is_active else one.end / 1000,
                    "status": status.get((one.alarm, one.start), "active" if one.is_active else "cleared"),
                }
                for one in found[:SHOWN_ALARMS]
            ]

    def _state(self, known: bool = False) -> dict[str, Any]:
        """Return what device.js draws."""
        presence, entry = self._presence, self._entry
        return {
            "device": self._device[:200],
            "known": known,
            "now": now_us() / 1000,
            "shown": {metric: self._colors[metric] for metric in self._lines},
            "note": self._note,
            "problem": self._problem,
            "presence": presence
            and {"status": presence.status, "cadence": presence.cadence / 1000, "seen": presence.seen / 1000},
            "type": entry.type if entry else "",
            "gateway": entry.gateway if entry else "",
            "labels": sorted(entry.labels) if entry else [],
            "metrics": [
                {"name": one.metric, "unit": symbol(one.unit), "value": one.value, "seen": one.received_at / 1000}
                for one in self._metrics
            ],
        }


def _quantity(one: Latest) -> Quantity:
    return Quantity(one.metric, symbol(one.unit))
