"""The Bokeh figures and their columns. Times on axes are milliseconds since the epoch, as Bokeh has them.

Bokeh knows no time zones: the browser writes the ticks (``isotherm.js``), in its own zone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from bokeh.models import (
    BoxZoomTool,
    ColumnDataSource,
    CustomJSHover,
    CustomJSTickFormatter,
    DataRange1d,
    GlyphRenderer,
    HoverTool,
    Label,
    PanTool,
    Range1d,
    WheelZoomTool,
)
from bokeh.plotting import figure
from numpy.typing import NDArray

from dashboards.window import SPAN, Change
from isotherm.limits import DAY, HOUR, MINUTE, SECOND
from isotherm.store.history import History

COLOR = "#2f81c7"
DOTS_UP_TO = 150
"""Points are drawn as dots too while there are at most so many; a lone one would not be seen otherwise."""

EDGE_MS = 2_000
"""Room to the right of the newest point."""

GAP = 5
"""A line is broken where rows lie farther apart than this many times the usual,"""

LEAST_GAP = 1 / 50
"""and than this part of the range: shorter silences cannot be seen anyway."""


@dataclass(frozen=True, slots=True)
class LiveChart:
    """The last minutes of a series."""

    figure: figure
    source: ColumnDataSource
    dots: GlyphRenderer
    nothing: Label

    def apply(self, change: Change) -> None:
        """Make the chart equal to the window that changed."""
        columns = {"time": change.time / 1000, "value": change.value}
        if change.anew:
            self.source.data = columns
        else:
            self.source.stream(columns, rollover=change.keep)
        self.dots.visible = change.keep <= DOTS_UP_TO
        self.nothing.visible = change.keep == 0
        if len(change.time):
            end = float(change.time[-1]) / 1000
            self.figure.x_range.update(start=end - SPAN / 1000, end=end + EDGE_MS)


def live_chart(now: int) -> LiveChart:
    """Return an empty live chart."""
    source = ColumnDataSource({"time": np.empty(0), "value": np.empty(0)}, name="live-points")
    plot = _figure("live-plot", now - SPAN, now)
    line = plot.line("time", "value", source=source, color=COLOR, line_width=1.8)
    dots = plot.scatter("time", "value", source=source, color=COLOR, size=4)
    plot.add_tools(_hover(line, value="value"))
    plot.toolbar_location = None
    return LiveChart(plot, source, dots, _nothing(plot, "No readings in the last 5 minutes"))


@dataclass(frozen=True, slots=True)
class HistoryChart:
    """A series over hours to months: the mean as a line, the extremes as a band."""

    figure: figure
    source: ColumnDataSource
    dots: GlyphRenderer
    nothing: Label

    def show(self, rows: History) -> None:
        """Replace what is drawn; the range shown is left as it is."""
        self.source.data = history_columns(rows)
        self.dots.visible = len(rows) <= DOTS_UP_TO
        self.nothing.visible = len(rows) == 0

    def show_range(self, start: int, end: int) -> None:
        """Move to [start, end), µs."""
        self.figure.x_range.update(start=start / 1000, end=end / 1000)


def history_chart(start: int, end: int) -> HistoryChart:
    """Return an empty history chart of [start, end), µs."""
    source = ColumnDataSource({name: np.empty(0) for name in ("time", "mean", "min", "max")}, name="history-points")
    plot = _figure("history-plot", start, end)
    plot.varea("time", "min", "max", source=source, color=COLOR, alpha=0.22)
    line = plot.line("time", "mean", source=source, color=COLOR, line_width=1.6)
    dots = plot.scatter("time", "mean", source=source, color=COLOR, size=3)
    zoom = BoxZoomTool(dimensions="width")
    plot.add_tools(
        zoom,
        PanTool(dimensions="width"),
        WheelZoomTool(dimensions="width"),
        _hover(line, max="max", mean="mean", min="min"),
    )
    plot.toolbar.active_drag = zoom
    plot.toolbar.active_scroll = None  # a wheel over the chart scrolls the page until it is chosen
    plot.toolbar.logo = None
    plot.toolbar_location = "right"
    return HistoryChart(plot, source, dots, _nothing(plot, "No readings in this range"))


def history_columns(rows: History) -> dict[str, NDArray[np.float64]]:
    """Return the columns of the history chart, with a row of NaN in each gap so that no line crosses it."""
    time = (rows.time + rows.width // 2) / 1000
    columns = {"time": time, "mean": rows.mean, "min": rows.min, "max": rows.max}
    if len(rows) < 3:
        return columns
    steps = np.diff(rows.time)
    least = max(GAP * float(np.median(steps)), LEAST_GAP * float(rows.time[-1] - rows.time[0]))
    gaps = np.flatnonzero(steps > np.maximum(least, 2 * rows.width[1:])) + 1
    middle = (time[gaps - 1] + time[gaps]) / 2
    return {
        name: np.insert(column, gaps, middle if name == "time" else np.full(len(gaps), np.nan))
        for name, column in columns.items()
    }


def width_text(rows: History) -> str:
    """Say what one point of the chart stands for.

    The widest row counts: a range may reach from one tier of the store into the next.
    """
    if not len(rows):
        return "no readings"
    width = int(rows.width.max())
    if width == 0:
        return "every reading"
    for length, name in ((DAY, "d"), (HOUR, "h"), (MINUTE, "min"), (SECOND, "s")):
        if width >= length and width % length == 0:
            return f"{width // length} {name} per point"
    return f"{width / SECOND:g} s per point"


def _figure(name: str, start: int, end: int) -> figure:
    plot = figure(
        name=name,
        sizing_mode="stretch_width",
        height=300,
        min_width=200,
        x_range=Range1d(start / 1000, end / 1000),
        y_range=DataRange1d(only_visible=True),
        x_axis_type="datetime",
        y_axis_label=" ",  # keeps the place of the label that is to come
        tools="",
        output_backend="canvas",
        background_fill_color=None,
        border_fill_color=None,
        outline_line_color=None,
        min_border_left=64,  # else the chart moves when a label grows by a digit
        min_border_right=12,
    )
    plot.xaxis.formatter = CustomJSTickFormatter(code="return window.isotherm.tick(tick, index, ticks)")
    plot.xaxis.ticker.desired_num_ticks = 6
    plot.xgrid.visible = False
    plot.axis.axis_line_color = None
    plot.axis.minor_tick_line_color = None
    plot.axis.major_tick_line_color = None
    plot.yaxis.axis_label_text_font_style = "normal"
    return plot


def _nothing(plot: figure, text: str) -> Label:
    """Return what is said where there is nothing to draw; hidden until that is known."""
    label = Label(x=16, y=16, x_units="screen", y_units="screen", text=text, text_font_size="14px", visible=False)
    plot.add_layout(label)
    return label


def _hover(line: GlyphRenderer, **columns: str) -> HoverTool:
    """Return a tool that tells time and columns (label=column) of the point nearest to the pointer."""
    moment = CustomJSHover(code="return window.isotherm.moment(value)")
    number = CustomJSHover(code="return window.isotherm.number(value)")
    return HoverTool(
        renderers=[line],
        mode="vline",
        tooltips=[("time", "@time{custom}"), *((label, f"@{{{column}}}{{custom}}") for label, column in columns.items())],
        formatters={"@time": moment, **{f"@{{{column}}}": number for column in columns.values()}},
        point_policy="snap_to_data",
        line_policy="nearest",
        visible=False,
    )
