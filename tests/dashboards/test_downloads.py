import asyncio
import csv
import io

import numpy as np
import pytest

from dashboards.downloads import Impossible, checked_range, checked_series, csv_blocks, file_name
from isotherm.clock import iso, now_us
from isotherm.limits import DAY, MINUTE, SECOND
from isotherm.store.history import History


def history(*points: tuple[int, float], width: int = 0) -> History:
    time = np.array([time for time, _ in points], dtype=np.int64)
    value = np.array([value for _, value in points])
    return History(time, np.full_like(time, width), np.ones_like(time), value, value - 1, value + 1, value, time)


def written(found: dict[str, History]) -> list[list[str]]:
    async def collect() -> bytes:
        return b"".join([block async for block in csv_blocks(found)])

    return list(csv.reader(io.StringIO(asyncio.run(collect()).decode(), newline="")))


def test_readings_have_a_column_and_times_are_utc() -> None:
    assert written({"temperature (°C)": history((0, 1.5), (SECOND, -2.0))}) == [
        ["time (UTC)", "row width (s)", "temperature (°C)"],
        ["1970-01-01T00:00:00.000000Z", "0", "1.5"],
        ["1970-01-01T00:00:01.000000Z", "0", "-2.0"],
    ]


def test_series_share_rows_where_they_share_times_and_have_empty_cells_elsewhere() -> None:
    rows = written({"a": history((0, 1.0), (2, 3.0)), "b": history((1, 7.0), (2, 8.0))})
    assert [row[2:] for row in rows[1:]] == [["1.0", ""], ["", "7.0"], ["3.0", "8.0"]]


def test_rows_that_stand_for_more_say_mean_least_and_greatest() -> None:
    rows = written({"a": history((0, 1.0), (MINUTE, 2.0), width=MINUTE)})
    assert rows[0][2:] == ["a mean", "a min", "a max"]
    assert rows[2][1:] == ["60", "2.0", "1.0", "3.0"]


def test_of_readings_at_one_time_the_last_counts() -> None:
    assert written({"a": history((5, 1.0), (5, 2.0))})[1:] == [["1970-01-01T00:00:00.000005Z", "0", "2.0"]]


def test_nothing_stored_is_a_head_alone() -> None:
    assert written({"a": history()}) == [["time (UTC)", "row width (s)", "a"]]


def test_a_value_is_written_so_that_it_is_read_as_the_same_number() -> None:
    value = 0.1 + 0.2
    assert float(written({"a": history((0, value))})[1][2]) == value


@pytest.mark.parametrize("series", [[], ["=cmd|calc/x"], ["a"], ["a/b"] * 0, [f"a/{n}" for n in range(21)], ["a/=1+1"]])
def test_what_is_no_series_is_refused(series: list[str]) -> None:
    with pytest.raises(Impossible, match="expected"):
        checked_series(series)


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("", ""),
        ("soon", "2026-01-01T00:00:00Z"),
        ("2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z"),
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
        ("2020-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
        ("9998-01-01T00:00:00Z", "9998-06-01T00:00:00Z"),
        ("0001-01-01T00:00:00Z", "0001-01-02T00:00:00Z"),
    ],
)
def test_an_impossible_range_is_refused(start: str, end: str) -> None:
    with pytest.raises(Impossible, match="expected"):
        checked_range(start, end)


def test_a_range_is_read_as_it_was_written() -> None:
    now = now_us()
    assert checked_range(iso(now - DAY, "microseconds"), iso(now, "microseconds")) == (now - DAY, now)


def test_a_file_name_has_nothing_that_a_header_or_a_shell_would_take_for_more() -> None:
    assert file_name('a";\r\n../x', 0, SECOND) == "a_.._x_19700101T000000Z_19700101T000001Z.csv"
