"""Metrics over hours to months, read anew at the resolution of the range that is looked at."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from bokeh.events import RangesUpdate
from bokeh.models import ColumnDataSource

from dashboards.charts import HistoryChart, Quantity, width_text
from dashboards.components import RangeBar
from dashboards.downloads import address
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

MOST_MS = 1e15
"""Greater than any time on an axis."""

FOLLOW_SECONDS = 10.0
"""How often a chart that ends now is read anew."""


class HistoryPart:
    """The history chart of one session and the buttons above it."""

    def __init__(
        self,
        reader: Reader,
        device: str,
        alarms: ColumnDataSource,
        drawing: Callable[[], AbstractContextManager[None]],
        lines: int = 1,
    ) -> None:
        self._reader = reader
        self._device = device
        self._drawing = drawing
        self._quantities: Sequence[Quantity] = ()
        self._task: asyncio.Task[None] | None = None
        self._read_at = 0.0
        end = now_us()
        self._range = (end - RANGES[FIRST_RANGE], end)
        self.chart = HistoryChart(*self._range, alarms, lines)
        self.bar = RangeBar(self._choose, choices=list(RANGES), chosen=FIRST_RANGE)
        self.chart.figure.on_event(RangesUpdate, self._zoomed)

    def choose(self, quantities: Sequence[Quantity]) -> None:
        """Show these metrics from now on; the caller lets models be changed."""
        self._quantities = quantities
        self.chart.choose(quantities)
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
        chosen = zoomed(event, self._range)
        if chosen is None:
            return
        self._range = chosen
        with self._drawing():
            self.bar.chosen = ""
        self.read()

    def read(self) -> None:
        """Read the range that is shown; a reading of the range before it is of no use any more."""
        self.end()
        self._read_at = time.monotonic()
        if self._quantities:
            self._task = asyncio.create_task(self._show(self._quantities, *self._range), name="history")

    async def _show(self, quantities: Sequence[Quantity], start: int, end: int) -> None:
        margin = (end - start) // 4
        names = [f"{self._device}/{one.metric}" for one in quantities]
        try:
            found = await self._reader.query_many(names, start - margin, end + margin, POINTS)
        except Unavailable:
            with self._drawing():
                self.bar.note = "the store does not answer"
            self._read_at = 0.0
            return
        with self._drawing():
            self.chart.show({one.metric: found[name] for one, name in zip(quantities, names, strict=True)})
            self.bar.note = width_text(list(found.values()))
            self.bar.csv = address(self._device, [one.metric for one in quantities], start, end)


def zoomed(event: RangesUpdate, shown: tuple[int, int]) -> tuple[int, int] | None:
    """Return the range that somebody has zoomed or panned to, µs; None when it is the one that is shown.

    Our own change of a range comes back from the browser, a pixel beside it.
    """
    if not (_is_time(event.x0) and _is_time(event.x1)):
        return None
    start, end = _bounded(int(event.x0 * 1000), int(event.x1 * 1000))
    near = (shown[1] - shown[0]) / 1_000
    return None if abs(start - shown[0]) <= near and abs(end - shown[1]) <= near else (start, end)


def _is_time(sent: object) -> bool:
    """Tell whether what a browser has sent, which may be anything, is a number that can be a time, ms."""
    return isinstance(sent, (int, float)) and abs(sent) < MOST_MS


def _bounded(start: int, end: int) -> tuple[int, int]:
    """Return a range that can be asked for, whatever a browser has sent."""
    now = now_us()
    end = max(min(end, now + DAY), now - GREATEST_SPAN)
    start = max(start, end - GREATEST_SPAN)
    return min(start, end - LEAST_SPAN), end
