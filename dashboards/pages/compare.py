"""Series of many devices in one chart, over a range; its address shows the same again."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from dataclasses import replace
from typing import Any

import panel as pn
from bokeh.events import RangesUpdate

from dashboards import shell
from dashboards.compare_chart import CompareChart, look
from dashboards.comparison import (
    LEAST_SPAN,
    POINTS,
    Figures,
    NoRange,
    Selection,
    View,
    aligned,
    common_times,
    figures,
    select,
    span_of,
)
from dashboards.components import CompareBar, CompareLegend
from dashboards.downloads import compare_address
from dashboards.feed import Feed
from dashboards.fleet import Fleet, News
from dashboards.pages.history import FOLLOW_SECONDS, zoomed
from dashboards.pages.session import Session, argument, arguments
from isotherm.clock import now_us
from isotherm.errors import Unavailable
from isotherm.store.reader import Reader

RANGES = {"1 h": "1h", "24 h": "24h", "7 d": "7d", "30 d": "30d"}
SUGGESTIONS = 30
STORE_AWAY = "The store does not answer. What is shown is what was known; it goes on by itself."


def page(feed: Feed, reader: Reader) -> pn.Template:
    """Build the page for one session."""
    return ComparePage(feed, reader).template


class ComparePage(Session):
    """One open compare page."""

    def __init__(self, feed: Feed, reader: Reader) -> None:
        super().__init__(feed)
        self._reader = reader
        self._problem = ""
        try:
            self._view = View.read(
                arguments("series"), argument("last"), argument("start"), argument("end"), arguments("hide")
            )
        except NoRange as problem:
            self._view = View.read(arguments("series"), "", "", "", arguments("hide"))
            self._problem = f"{problem}. The last 24 hours are shown."
        self._fleet: Fleet | None = None
        self._selection = Selection()
        self._figures: list[Figures] = []
        self._task: asyncio.Task[None] | None = None
        self._read_at = 0.0
        self._is_loading = True
        self._suggestions: list[str] = []
        self._range = self._view.range(now_us())
        self._chart = CompareChart(*self._range)
        self._chart.figure.on_event(RangesUpdate, self._zoomed)
        self._bar = CompareBar(ready=lambda: feed.watch_fleet(self), ask=self._ask, state=self._state())
        self._legend = CompareLegend(self._toggle)
        self.template = shell.page(
            comparebar=self._bar,
            compare=pn.pane.Bokeh(self._chart.figure, sizing_mode="stretch_width", margin=0),
            legend=self._legend,
        )

    def fleet_changed(self, fleet: Fleet, news: News) -> None:
        """Find the series that are meant; read anew what ends now."""
        self._fleet = fleet
        if news.anew:
            common = Counter(one.metric for one in fleet.latest).most_common(SUGGESTIONS)
            self._suggestions = [f"*/{metric}" for metric, _ in common]
            self._select()
        elif self._view.last and time.monotonic() - self._read_at >= FOLLOW_SECONDS:
            self._read()

    def store_changed(self, problem: str | None) -> None:
        """Say that what is shown stands still, or moves again."""
        self._problem = STORE_AWAY if problem else ""
        self._tell()
        if problem is None:
            self._read()

    def end(self) -> None:
        """Let go of everything outside the session."""
        super().end()
        if self._task is not None:
            self._task.cancel()

    def _ask(self, what: str, value: str) -> None:
        """Do what the bar asks for."""
        before = self._view
        if what == "add":
            self._view = before.with_pattern(value.strip())
        elif what == "remove":
            self._view = before.without_pattern(value)
        elif what == "last" and value in RANGES.values():
            self._view = replace(before, last=value, start=0, end=0)
        if self._view == before:
            return
        self._problem = ""
        if self._view.patterns != before.patterns:
            self._select()
        else:
            self._read()

    def _toggle(self, series: str) -> None:
        if series in self._selection.series:
            self._view = self._view.toggled(series)
            with self.rebuilding():
                self._chart.choose(self._selection.series, self._selection.units, self._view.hidden)
            self._tell()

    def _select(self) -> None:
        if self._fleet is None:
            return
        self._selection = select(self._view.patterns, self._fleet.latest)
        self._figures = []
        with self.rebuilding():
            self._chart.choose(self._selection.series, self._selection.units, self._view.hidden)
        self._read()

    def _zoomed(self, event: RangesUpdate) -> None:
        chosen = zoomed(event, self._range)
        if chosen is None:
            return
        start, end = chosen
        self._view = self._view.over(min(start, end - LEAST_SPAN), end)
        self._read()

    def _read(self) -> None:
        """Read the range that is shown; a reading of one before is of no use any more."""
        if self._task is not None:
            self._task.cancel()
        self._read_at = time.monotonic()
        self._range = self._view.range(now_us())
        with self.drawing():
            self._chart.show_range(*self._range)
        self._is_loading = bool(self._selection.series) and not self._figures
        self._tell()
        self._task = asyncio.create_task(self._show(self._selection, *self._range), name="compare")

    async def _show(self, selection: Selection, start: int, end: int) -> None:
        margin = (end - start) // 4
        try:
            found = await self._reader.query_many(selection.series, start - margin, end + margin, POINTS + POINTS // 2)
        except Unavailable:
            self._problem = STORE_AWAY
            self._read_at = 0.0
            self._tell()
            return
        times = common_times(start - margin, end + margin)
        with self.drawing():
            self._chart.show(times, [aligned(found[name], times) for name in selection.series])
        self._figures = [figures(found[name], start, end) for name in selection.series]
        self._is_loading = False
        self._tell()

    def _tell(self) -> None:
        with self.drawing():
            self._bar.state = self._state()
            self._legend.rows = [
                {
                    "series": series,
                    "unit": unit,
                    "color": look(number)[0],
                    "dash": look(number)[1],
                    "hidden": series in self._view.hidden,
                    **(_written(self._figures[number]) if number < len(self._figures) else {}),
                }
                for number, (series, unit) in enumerate(zip(self._selection.series, self._selection.units, strict=True))
            ]

    def _state(self) -> dict[str, Any]:
        """Return what compare.js draws."""
        selection = self._selection
        return {
            "known": self._fleet is not None,
            "now": now_us() / 1000,
            "patterns": [
                {"text": one, "matches": None if self._fleet is None else select([one], self._fleet.latest).matching}
                for one in self._view.patterns
            ],
            "ranges": RANGES,
            "last": self._view.last if self._view.last in RANGES.values() else "",
            "span": (span_of(self._view.last) if self._view.last else self._view.end - self._view.start) / 1000,
            "query": self._view.query(),
            "csv": compare_address(selection.series, *self._range) if selection.series else "",
            "note": selection.note,
            "problem": self._problem,
            "loading": self._is_loading,
            "lines": len(selection.series),
            "suggestions": self._suggestions,
        }


def _written(found: Figures) -> dict[str, float | None]:
    return {
        name: value if math.isfinite(value) else None
        for name, value in (("mean", found.mean), ("min", found.min), ("max", found.max), ("newest", found.last))
    }
