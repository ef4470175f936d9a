import numpy as np

from dashboards.charts import history_columns, width_text
from dashboards.units import axis_label, symbol
from isotherm.limits import HOUR, MINUTE, SECOND
from isotherm.store.history import History


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
    assert width_text(rows([], 0)) == "no readings"
    assert width_text(rows([1], 0)) == "every reading"
    assert width_text(rows([1], MINUTE)) == "1 min per point"
    assert width_text(rows([1], 6 * HOUR)) == "6 h per point"
    assert width_text(rows([1], SECOND // 5)) == "0.2 s per point"


def test_units_are_written_as_people_write_them() -> None:
    assert [symbol(unit) for unit in ("Cel", "%RH", "K", "Pa", "lx", "/", "made up")] == [
        "°C", "% RH", "K", "Pa", "lx", "", "made up",
    ]  # fmt: skip
    assert axis_label("temperature", "Cel") == "temperature, °C"
    assert axis_label("door", "") == "door"
