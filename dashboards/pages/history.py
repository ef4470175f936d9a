"""A series over hours to months, read anew at the resolution of the range that is looked at."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from bokeh.events import RangesUpdate

from dashboards.charts import history_chart, width_text
from dashboards.components import RangeBar
from isotherm.clock import now_us
from isotherm.errors import Unavailable
from isotherm.limits import DAY, HOUR, SECOND
from isotherm.store.reader import Reader

RANGES = {"1 h": HOUR, "24 h": DAY, "7 d": 7 * DAY, "30 d": 30 * DAY}
FIRST_RANGE = "1 h"

POINTS = 1_500
"""Rows read for one view: the range that is shown and a quarter of it on either side, so that a pan begins filled."""

LEAST_SPAN = 1 * SECOND
GREATEST_SPAN = 366 * DAY

FOLLOW_SECONDS = 10.0
"""How often a chart that ends now is read anew."""


class HistoryPart:
    """The history chart of one session and the buttons above it."""

    def __init__(self, reader: Reader, drawing: Callable[[], AbstractContextManager[None]]) -> None:
        self._reader = reader
        self._drawing = drawing
        self._series: str | None = None
        self._task: asyncio.Task[None] | None = None
        self._read_at = 0.0
        end = now_us()
        self._range = (end - RANGES[FIRST_RANGE], end)
        self.chart = history_chart(*self._range)
        self.bar = RangeBar(self._choose, choices=list(RANGES), chosen=FIRST_RANGE)
        self.chart.figure.on_event(RangesUpdate, self._zoomed)

    def begin(self, series: str, label: str) -> None:
        """Show a series from now on."""
        self._series = series
        with self._drawing():
            self.chart.figure.yaxis.axis_label = label
        self.read()

    def follow(self) -> None:
        """Move on to now, if the chart ends now and was not read a moment ago."""
        if self.bar.chosen and time.monotonic() - self._read_at >= FOLLOW_SECONDS:
            self._choose(self.bar.chosen)

    def end(self) -> None:
        """Read nothing more."""
        if self._task is not None:
            self._task.cancel()

    def _choose(self, name: str) -> None:
        end = now_us()
        self._range = (end - RANGES[name], end)
        with self._drawing():
            self.bar.chosen = name
            self.chart.show_range(*self._range)
        self.read()

    def _zoomed(self, event: RangesUpdate) -> None:
        if event.x0 is None or event.x1 is None:
            return
        start, end = _bounded(int(event.x0 * 1000), int(event.x1 * 1000))
        near = (self._range[1] - self._range[0]) / 1_000
        if abs(start - self._range[0]) <= near and abs(end - self._range[1]) <= near:
            return  # our own change of the range, come back from the browser
        self._range = (start, end)
        with self._drawing():
            self.bar.chosen = ""
        self.read()

    def read(self) -> None:
        """Read the range that is shown; a reading of the range before it is of no use any more."""
        self.end()
        self._read_at = time.monotonic()
        if self._series is not None:
            self._task = asyncio.create_task(self._show(self._series, *self._range), name="history")

    async def _show(self, series: str, start: int, end: int) -> None:
        margin = (end - start) // 4
        try:
            rows = await self._reader.query(series, start - margin, end + margin, POINTS)
        except Unavailable:
            with self._drawing():
                self.bar.note = "the store does not answer"
            self._read_at = 0.0
            return
        with self._drawing():
            self.chart.show(rows)
            self.bar.note = width_text(rows)


def _bounded(start: int, end: int) -> tuple[int, int]:
    """Return a range that can be asked for, whatever a browser has sent."""
    now = now_us()
    end = max(min(end, now + DAY), now - GREATEST_SPAN)
    start = max(start, end - GREATEST_SPAN)
    return min(start, end - LEAST_SPAN), end
