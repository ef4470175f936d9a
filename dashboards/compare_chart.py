"""The figure that compares: up to twenty lines on common times, from one source of columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from bokeh.models import ColumnDataSource, CustomJSHover, DataRange1d, GlyphRenderer, HoverTool, LinearAxis, Range1d
from numpy.typing import NDArray

from dashboards.charts import (
    GREATEST,
    SECOND_AXIS,
    UNDRAWN_TEXT,
    WHOLE,
    drawable,
    label_axis,
    let_zoom,
    missing_label,
    new_figure,
    say,
    style_axis,
)

COLORS = (
    "#2f81c7", "#d9822b", "#2fa36b", "#a366d6", "#d6527a", "#2aa6b0", "#9c7a3c", "#6b7fd7", "#c0504d", "#7f9a2f",
)  # fmt: skip
DASHES = ("solid", "dashed")
"""After all colours the next dash begins with the first."""

HEIGHT = 380


class CompareChart:
    """Lines on common times."""

    def __init__(self, start: int, end: int) -> None:
        self.figure = new_figure("compare-plot", start, end)
        self.figure.height = HEIGHT
        self._second = LinearAxis(y_range_name=SECOND_AXIS, visible=False)
        style_axis(self._second)
        self.figure.extra_y_ranges = {SECOND_AXIS: DataRange1d(only_visible=True, renderers=[])}
        self.figure.add_layout(self._second, "right")
        self.figure.y_range.renderers = []
        self._missing = missing_label(self.figure)
        self._source = ColumnDataSource({"time": np.empty(0), "level": np.empty(0)}, name="compare-points")
        self._lines: list[GlyphRenderer] = []
        # Something that is everywhere, for the pointer to hit: a line of its own may have a silence there.
        self.figure.extra_y_ranges[WHOLE] = Range1d(-1, 1)
        carrier = self.figure.line("time", "level", source=self._source, line_alpha=0, y_range_name=WHOLE)
        self._hover = HoverTool(
            renderers=[carrier], mode="vline", point_policy="follow_mouse", line_policy="nearest", visible=False
        )
        self.figure.add_tools(self._hover)
        let_zoom(self.figure)

    def choose(self, series: Sequence[str], units: Sequence[str], hidden: frozenset[str]) -> None:
        """Show these series, each with its unit, as people write it; of at most two units."""
        while len(self._lines) < len(series):
            self._another()
        axes = list(dict.fromkeys(units))
        sides: list[list[GlyphRenderer]] = [[], []]
        for number, line in enumerate(self._lines):
            line.visible = number < len(series) and series[number] not in hidden
            if number < len(series):
                side = axes.index(units[number])
                line.name = series[number]
                line.y_range_name = SECOND_AXIS if side else "default"
                sides[side].append(line)
        self.figure.y_range.renderers = sides[0]
        self.figure.extra_y_ranges[SECOND_AXIS].renderers = sides[1]
        label_axis(self.figure.yaxis[0], axes[0] if axes else "")
        self._second.visible = len(axes) > 1
        label_axis(self._second, axes[1] if len(axes) > 1 else "")
        self._explain(series, units, hidden)

    def show(self, times: NDArray[np.int64], values: Sequence[NDArray[np.float64]]) -> None:
        """Replace what is drawn: times in µs, and the values of each series that was chosen."""
        blank = np.full(len(times), np.nan)
        columns = {"time": times / 1000, "level": np.zeros(len(times))}
        for number in range(len(self._lines)):
            columns[_column(number)] = drawable(values[number]) if number < len(values) else blank
        self._source.data = columns
        if len(values) > 0 and all(np.isnan(one).all() for one in values):
            say(self._missing, "No readings in this range")
        else:
            say(self._missing, UNDRAWN_TEXT if any((np.abs(one) > GREATEST).any() for one in values) else "")

    def show_range(self, start: int, end: int) -> None:
        """Move to [start, end), µs."""
        self.figure.x_range.update(start=start / 1000, end=end / 1000)

    def _another(self) -> None:
        number = len(self._lines)
        self._source.data[_column(number)] = np.full(len(self._source.data["time"]), np.nan)
        color, dash = look(number)
        line = self.figure.line("time", _column(number), source=self._source, color=color, line_dash=dash, line_width=1.7)
        self._lines.append(line)

    def _explain(self, series: Sequence[str], units: Sequence[str], hidden: frozenset[str]) -> None:
        """Tell of all lines that are shown, in one box. Names of series have no character that means something to Bokeh."""
        code = "return window.isotherm.withUnit(value, unit)"
        numbers = {unit: CustomJSHover(args={"unit": unit}, code=code) for unit in set(units)}
        shown = [(number, name) for number, name in enumerate(series) if name not in hidden]
        self._hover.formatters = {
            "@time": CustomJSHover(code="return window.isotherm.moment(value)"),
            **{f"@{_column(number)}": numbers[units[number]] for number, _ in shown},
        }
        self._hover.tooltips = [
            ("time", "@time{custom}"),
            *((name, f"@{_column(number)}{{custom}}") for number, name in shown),
        ]


def look(number: int) -> tuple[str, str]:
    """Return colour and dash of a line.

    >>> look(0), look(10)
    (('#2f81c7', 'solid'), ('#2f81c7', 'dashed'))
    """
    return COLORS[number % len(COLORS)], DASHES[number // len(COLORS) % len(DASHES)]


def _column(number: int) -> str:
    return f"line{number}"
