"""The Bokeh figures and their columns. Times on axes are milliseconds since the epoch, as Bokeh has them.

A figure takes tens of milliseconds to build, a line in it a few: so one figure shows several series, of at most two units,
and its lines are made when they are chosen. Bokeh knows no time zones: the browser writes the ticks (``isotherm.js``), in
its own zone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import NamedTuple

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
    LinearAxis,
    NoOverlap,
    PanTool,
    PlainText,
    Range1d,
    WheelZoomTool,
)
from bokeh.plotting import figure
from numpy.typing import NDArray

from dashboards.alarm_spans import Spans
from dashboards.gaps import least_silence, silences
from dashboards.window import SPAN, Change
from isotherm.limits import DAY, HOUR, MINUTE, SECOND
from isotherm.store.history import History

COLORS = ("#2f81c7", "#d9822b", "#2fa36b", "#a366d6", "#d6527a", "#2aa6b0")
"""Of the lines, in the order in which they were chosen; each stands out from a light and from a dark page."""

MAX_LINES = len(COLORS)
MAX_UNITS = 2
"""A chart has an axis on the left and one on the right."""

DOTS_UP_TO = 150
"""Points are drawn as dots too while there are at most so many; a lone one would not be seen otherwise."""

GREATEST = 1e300
"""Values beyond it, on either side of zero, are not drawn: the height of an axis with them would be no float64."""

UNDRAWN_TEXT = f"Values beyond ±{GREATEST:.0e} are not drawn".replace("e+", "e")

EDGE_MS = 2_000
"""Room to the right of the newest point."""

SIDES = ("left", "right", "above", "below")
"""Of its point, where each line's value is told while the pointer is there."""

EDGE_OF_ALARMS = 0.95
"""From where to the top of a chart, whose height is 1, an alarm is marked strongly, and told under the pointer."""

SECOND_AXIS = "second"
WHOLE = "whole"
"""A range of 0 to 1, for what is as high as the chart."""


class Quantity(NamedTuple):
    """A metric, and its unit as people write it."""

    metric: str
    unit: str


class TooMuch(ValueError):
    """What was chosen does not fit into one chart; says why."""


def check_fits(quantities: Sequence[Quantity]) -> None:
    """Check that one chart can show these.

    Raises:
        TooMuch: they have more units than a chart has axes, or are too many.
    """
    units = list(dict.fromkeys(one.unit for one in quantities))
    if len(units) > MAX_UNITS:
        shown = " and ".join(unit or "no unit" for unit in units[:MAX_UNITS])
        added = units[MAX_UNITS] or "one without a unit"
        raise TooMuch(f"A chart has two axes, and these are of {shown}: take one away before you add {added}.")
    if len(quantities) > MAX_LINES:
        raise TooMuch(f"A chart shows up to {MAX_LINES} metrics: take one away before you add another.")


@dataclass(slots=True)
class _Trace:
    """The line of one metric."""

    color: str
    source: ColumnDataSource
    glyphs: list[GlyphRenderer]
    dots: GlyphRenderer
    hover: HoverTool
    quantity: Quantity | None = None
    undrawn: float = -np.inf
    """Time of its newest value that is not drawn."""


class Chart:
    """Several metrics in one figure."""

    name: str
    columns: tuple[str, ...]
    nothing_text: str
    tooltips: Mapping[str, str]

    def __init__(self, start: int, end: int, alarms: ColumnDataSource, lines: int = 1) -> None:
        """Begin empty, with the range [start, end), µs.

        ``lines`` are made at once and travel with the page, which is cheaper than adding them.
        """
        self.figure = new_figure(f"{self.name}-plot", start, end)
        self._second = LinearAxis(y_range_name=SECOND_AXIS, visible=False)
        style_axis(self._second)
        self.figure.extra_y_ranges = {SECOND_AXIS: DataRange1d(only_visible=True, renderers=[])}
        self.figure.add_layout(self._second, "right")
        self.figure.y_range.renderers = []
        self._traces: list[_Trace] = []
        self._missing = missing_label(self.figure)
        self.figure.extra_y_ranges[WHOLE] = Range1d(0, 1)
        strips = self.figure.quad(
            "start", "end", top=1, bottom=0, source=alarms, y_range_name=WHOLE,
            fill_color="color", fill_alpha=0.13, line_color="color", line_alpha=0.75,
        )  # fmt: skip
        strips.level = "underlay"
        # It is told at the upper edge alone: elsewhere what is told of the lines would lie over it.
        edges = self.figure.quad(
            "start", "end", top=1, bottom=EDGE_OF_ALARMS, source=alarms, y_range_name=WHOLE,
            fill_color="color", line_color=None,
        )  # fmt: skip
        edges.level = "underlay"
        self.figure.add_tools(_alarm_hover(edges))
        for _ in range(lines):
            self._another()

    def choose(self, quantities: Sequence[Quantity]) -> dict[str, str]:
        """Show these metrics, as many as fit, and no others; who stays keeps its colour.

        Returns:
            Metric → colour.
        """
        check_fits(quantities)
        for trace in self._traces:
            if trace.quantity is not None and trace.quantity not in quantities:
                trace.quantity, trace.undrawn = None, -np.inf
                trace.source.data = {name: np.empty(0) for name in self.columns}
        for quantity in quantities:
            if all(trace.quantity != quantity for trace in self._traces):
                free = next((trace for trace in self._traces if trace.quantity is None), None) or self._another()
                free.quantity = quantity
        self._arrange(quantities)
        return {trace.quantity.metric: trace.color for trace in self._traces if trace.quantity is not None}

    def _arrange(self, quantities: Sequence[Quantity]) -> None:
        """Put each line on the axis of its unit."""
        units = list(dict.fromkeys(one.unit for one in quantities))
        renderers: list[list[GlyphRenderer]] = [[], []]
        for trace in self._traces:
            there = trace.quantity is not None
            side = units.index(trace.quantity.unit) if trace.quantity is not None else 0
            for glyph in trace.glyphs:
                glyph.visible = there
                glyph.y_range_name = SECOND_AXIS if side else "default"
                glyph.name = trace.quantity.metric if trace.quantity is not None else None
            trace.dots.visible = False
            renderers[side] += trace.glyphs if there else []
        self.figure.y_range.renderers = renderers[0]
        self.figure.extra_y_ranges[SECOND_AXIS].renderers = renderers[1]
        shown = [trace for trace in self._traces if trace.quantity is not None]
        for trace, place in zip(shown, cycle(SIDES), strict=False):  # each tells of itself: they must not cover each other
            trace.hover.attachment = place if len(shown) > 1 else "horizontal"
        label_axis(self.figure.yaxis[0], _label(quantities, units[0]) if units else "")
        self._second.visible = len(units) > 1
        label_axis(self._second, _label(quantities, units[1]) if len(units) > 1 else "")

    def _another(self) -> _Trace:
        number = len(self._traces)
        name = f"{self.name}-points" + (f"-{number + 1}" if number else "")
        source = ColumnDataSource({column: np.empty(0) for column in self.columns}, name=name)
        glyphs = self._draw(source, COLORS[number])
        hover = _hover(glyphs[0], self.tooltips)
        self.figure.add_tools(hover)
        trace = _Trace(COLORS[number], source, glyphs, glyphs[-1], hover)
        self._traces.append(trace)
        return trace

    def _draw(self, source: ColumnDataSource, color: str) -> list[GlyphRenderer]:
        """Draw one metric: what the pointer hits first, dots last."""
        raise NotImplementedError

    def _trace(self, metric: str) -> _Trace | None:
        return next((one for one in self._traces if one.quantity is not None and one.quantity.metric == metric), None)

    def _say_what_is_missing(self) -> None:
        shown = [one for one in self._traces if one.quantity is not None]
        if all(len(one.source.data["time"]) == 0 for one in shown):
            say(self._missing, self.nothing_text)
        else:
            is_whole = all(one.undrawn < self.figure.x_range.start for one in shown)
            say(self._missing, "" if is_whole else UNDRAWN_TEXT)


class LiveChart(Chart):
    """The last minutes."""

    name, columns = "live", ("time", "value")
    nothing_text = "No readings in the last 5 minutes"
    tooltips = {"value": "value"}  # noqa: RUF012

    def apply(self, metric: str, change: Change) -> None:
        """Make a line equal to the window that changed."""
        trace = self._trace(metric)
        if trace is None:
            return
        columns = {"time": change.time / 1000, "value": drawable(change.value)}
        undrawn = _newest_undrawn(columns["time"], change.value)
        trace.undrawn = undrawn if change.anew else max(undrawn, trace.undrawn)
        if change.anew:
            trace.source.data = columns
        else:
            trace.source.stream(columns, rollover=change.keep)
        trace.dots.visible = change.keep <= DOTS_UP_TO
        newest = [float(one.source.data["time"][-1]) for one in self._traces if len(one.source.data["time"])]
        if newest:
            end = max(newest)
            self.figure.x_range.update(start=end - SPAN / 1000, end=end + EDGE_MS)
        self._say_what_is_missing()

    def _draw(self, source: ColumnDataSource, color: str) -> list[GlyphRenderer]:
        line = self.figure.line("time", "value", source=source, color=color, line_width=1.8)
        dots = self.figure.scatter("time", "value", source=source, color=color, size=4)
        return [line, dots]


class HistoryChart(Chart):
    """Hours to months: the mean as a line, the extremes as a band."""

    name, columns = "history", ("time", "mean", "min", "max")
    nothing_text = "No readings in this range"
    tooltips = {"max": "max", "mean": "mean", "min": "min"}  # noqa: RUF012

    def __init__(self, start: int, end: int, alarms: ColumnDataSource, lines: int = 1) -> None:
        super().__init__(start, end, alarms, lines)
        let_zoom(self.figure)

    def show(self, found: Mapping[str, History]) -> None:
        """Replace what is drawn of each metric; the range shown is left as it is."""
        for metric, rows in found.items():
            if (trace := self._trace(metric)) is not None:
                trace.source.data = history_columns(rows)
                trace.undrawn = _newest_undrawn(rows.time / 1000, rows.mean, rows.min, rows.max)
                trace.dots.visible = len(rows) <= DOTS_UP_TO
        self._say_what_is_missing()

    def show_range(self, start: int, end: int) -> None:
        """Move to [start, end), µs."""
        self.figure.x_range.update(start=start / 1000, end=end / 1000)

    def _draw(self, source: ColumnDataSource, color: str) -> list[GlyphRenderer]:
        band = self.figure.varea("time", "min", "max", source=source, color=color, alpha=0.2)
        line = self.figure.line("time", "mean", source=source, color=color, line_width=1.6)
        dots = self.figure.scatter("time", "mean", source=source, color=color, size=3)
        return [line, band, dots]


def history_columns(rows: History) -> dict[str, NDArray[np.float64]]:
    """Return the columns of the history chart, with a row of NaN in each gap so that no line crosses it."""
    time = (rows.time + rows.width // 2) / 1000
    columns = {"time": time, "mean": drawable(rows.mean), "min": drawable(rows.min), "max": drawable(rows.max)}
    if not len(rows):
        return columns
    least = least_silence(rows.time, float(rows.time[-1] - rows.time[0]))
    gaps = silences(rows.time, np.maximum(least, 2.0 * rows.width[1:]))
    middle = (time[gaps - 1] + time[gaps]) / 2
    return {
        name: np.insert(column, gaps, middle if name == "time" else np.full(len(gaps), np.nan))
        for name, column in columns.items()
    }


def alarm_columns(spans: Spans) -> dict[str, list[object]]:
    """Return the columns of the alarms that are marked in both charts."""
    return {
        "start": [one.start / 1000 for one in spans],
        "end": [one.end / 1000 for one in spans],
        "color": [one.color for one in spans],
        "message": [one.message for one in spans],
        "severity": [one.severity for one in spans],
        "state": ["still active" if one.is_active else "cleared" for one in spans],
    }


def alarm_source() -> ColumnDataSource:
    """Return the source of the marks, empty."""
    return ColumnDataSource(alarm_columns([]), name="alarms")


def width_text(found: Sequence[History]) -> str:
    """Say what one point of the chart stands for.

    The widest row counts: a range may reach from one tier of the store into the next.
    """
    width = max((int(rows.width.max()) for rows in found if len(rows)), default=-1)
    if width < 0:
        return "no readings"
    if width == 0:
        return "every reading"
    for length, name in ((DAY, "d"), (HOUR, "h"), (MINUTE, "min"), (SECOND, "s")):
        if width >= length and width % length == 0:
            return f"{width // length} {name} per point"
    return f"{width / SECOND:g} s per point"


def _label(quantities: Sequence[Quantity], unit: str) -> str:
    """Return the label of an axis: of one metric its name and unit, of several the unit that they share."""
    metrics = [one.metric for one in quantities if one.unit == unit]
    if len(metrics) > 1:
        return unit or ", ".join(metrics)
    return f"{metrics[0]}, {unit}" if unit else metrics[0]


def new_figure(name: str, start: int, end: int) -> figure:
    """Return an empty figure in our style, with the range [start, end), µs."""
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
        toolbar_location=None,
        min_border_left=64,  # else the chart moves when a label grows by a digit
        min_border_right=12,
    )
    plot.xaxis.formatter = CustomJSTickFormatter(code="return window.isotherm.tick(tick, index, ticks)")
    plot.xaxis.ticker.desired_num_ticks = 6
    plot.xaxis.major_label_policy = NoOverlap()  # on a phone there is not always room for six
    plot.xgrid.visible = False
    for axis in plot.axis:
        style_axis(axis)
    return plot


def style_axis(axis: LinearAxis) -> None:
    """Make an axis look as ours do."""
    axis.update(
        axis_line_color=None,
        minor_tick_line_color=None,
        major_tick_line_color=None,
        axis_label_text_font_style="normal",
        axis_label_standoff=6,
    )


def label_axis(axis: LinearAxis, text: str) -> None:
    """Write beside an axis; a unit is what a device has sent, and none of it is TeX."""
    axis.axis_label = PlainText(text=text or " ")


def drawable(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the values with NaN for those that no axis has room for.

    >>> drawable(np.array([-1.7e308, 20.5, np.inf]))
    array([ nan, 20.5,  nan])
    """
    return np.where(np.abs(values) <= GREATEST, values, np.nan)


def _newest_undrawn(time: NDArray[np.float64], *values: NDArray[np.float64]) -> float:
    """Return the newest of the times, in order, at which one of the values is not drawn; -inf when all are."""
    found = np.flatnonzero(np.any([np.abs(one) > GREATEST for one in values], axis=0))
    return float(time[found[-1]]) if len(found) else -np.inf


def missing_label(plot: figure) -> Label:
    """Return what is said in a chart where not all, or nothing, can be drawn; hidden until that is known."""
    label = Label(x=16, y=16, x_units="screen", y_units="screen", text="", text_font_size="14px", visible=False)
    plot.add_layout(label)
    return label


def say(label: Label, text: str) -> None:
    """Show a text; an empty one hides the label."""
    label.update(text=text, visible=bool(text))


def let_zoom(plot: figure) -> None:
    """Let people choose a range of time in a figure."""
    zoom = BoxZoomTool(dimensions="width")
    plot.add_tools(zoom, PanTool(dimensions="width"), WheelZoomTool(dimensions="width"))
    plot.toolbar.active_drag = zoom
    plot.toolbar.active_scroll = None  # a wheel over the chart scrolls the page until it is chosen
    plot.toolbar.logo = None
    plot.toolbar_location = "above"


def _hover(line: GlyphRenderer, columns: Mapping[str, str]) -> HoverTool:
    """Return a tool that tells time and columns (label → column) of the point nearest to the pointer."""
    moment = CustomJSHover(code="return window.isotherm.moment(value)")
    measured = CustomJSHover(code="return window.isotherm.measured(value, special_vars.name)")
    return HoverTool(
        renderers=[line],
        mode="vline",
        tooltips=[
            ("", "$name"),
            ("time", "@time{custom}"),
            *((label, f"@{{{column}}}{{custom}}") for label, column in columns.items()),
        ],
        formatters={"@time": moment, **{f"@{{{column}}}": measured for column in columns.values()}},
        point_policy="snap_to_data",
        line_policy="nearest",
        visible=False,
    )


def _alarm_hover(edges: GlyphRenderer) -> HoverTool:
    moment = CustomJSHover(code="return window.isotherm.moment(value)")
    return HoverTool(
        renderers=[edges],
        mode="mouse",
        tooltips=[("alarm", "@message"), ("severity", "@severity, @state"), ("raised", "@start{custom}")],
        formatters={"@start": moment},
        point_policy="follow_mouse",  # the middle of a mark may be out of sight
        attachment="above",
        visible=False,
    )
