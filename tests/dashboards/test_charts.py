import numpy as np
from bokeh.models import Label

from dashboards.charts import UNDRAWN_TEXT, HistoryChart, LiveChart, Quantity, alarm_source, history_columns, width_text
from dashboards.window import Change
from isotherm.limits import HOUR, MINUTE, SECOND
from isotherm.store.history import History
from isotherm.units import symbol


def rows(time: list[int], width: int) -> History:
    values = np.arange(len(time), dtype=np.float64)
    return History(
        time=np.array(time, dtype=np.int64),
        width=np.full(len(time), width, dtype=np.int64),
        count=np.ones(len(time), dtype=np.int64),
        sum=values,
        min=values - 1,
        max=values + 1,
        last=values,
        last_at=np.array(time, dtype=np.int64) + width // 2,
    )


def test_a_row_is_drawn_in_its_middle() -> None:
    assert history_columns(rows([0, MINUTE], MINUTE))["time"].tolist() == [30_000, 90_000]


def test_a_line_is_broken_where_a_device_was_silent() -> None:
    columns = history_columns(rows([0, MINUTE, 2 * MINUTE, HOUR, HOUR + MINUTE], MINUTE))
    assert np.isnan(columns["mean"]).tolist() == [False, False, False, True, False, False]
    assert np.all(np.diff(columns["time"]) > 0)


def test_a_device_that_reports_seldom_is_not_silent() -> None:
    columns = history_columns(rows([number * HOUR for number in range(24)], MINUTE))
    assert not np.isnan(columns["mean"]).any()


def test_no_rows_make_empty_columns() -> None:
    assert all(len(column) == 0 for column in history_columns(rows([], 0)).values())


def test_the_width_of_a_row_is_said() -> None:
    assert width_text([rows([], 0)]) == "no readings"
    assert width_text([rows([1], 0)]) == "every reading"
    assert width_text([rows([1], MINUTE)]) == "1 min per point"
    assert width_text([rows([1], 6 * HOUR)]) == "6 h per point"
    assert width_text([rows([1], SECOND // 5)]) == "0.2 s per point"


def test_what_no_axis_has_room_for_is_not_drawn_and_that_is_said() -> None:
    live = LiveChart(0, MINUTE, alarm_source())
    live.choose([Quantity("power", "W")])
    live.apply("power", Change(np.array([SECOND, 2 * SECOND]), np.array([1.7e308, 20.0]), 2, anew=True))
    assert (live.figure.y_range.renderers[0].data_source.data["value"]).tolist()[1:] == [20.0]
    assert said(live) == [UNDRAWN_TEXT]
    live.apply("power", Change(np.array([HOUR]), np.array([21.0]), 3, anew=False))  # it has left the range
    assert said(live) == []


def test_extremes_that_no_axis_has_room_for_leave_the_means() -> None:
    found = rows([0, MINUTE], MINUTE)
    found.max[1] = np.inf
    history = HistoryChart(0, HOUR, alarm_source())
    history.choose([Quantity("power", "W")])
    history.show({"power": found})
    columns = history.figure.y_range.renderers[0].data_source.data
    assert np.isnan(columns["max"]).tolist() == [False, True]
    assert columns["mean"].tolist() == [0, 1]
    assert said(history) == [UNDRAWN_TEXT]
    history.show({"power": rows([], 0)})
    assert said(history) == ["No readings in this range"]


def said(chart: HistoryChart | LiveChart) -> list[str]:
    return [label.text for label in chart.figure.select(Label) if label.visible]


def test_units_are_written_as_people_write_them() -> None:
    assert [symbol(unit) for unit in ("Cel", "%RH", "K", "Pa", "lx", "/", "made up")] == [
        "°C", "% RH", "K", "Pa", "lx", "", "made up",
    ]  # fmt: skip
