import numpy as np
import pytest

from dashboards.comparison import MAX_LINES, NoRange, View, aligned, common_times, figures, select, span_of
from isotherm.limits import DAY, HOUR, MINUTE, SECOND
from isotherm.store.history import History
from isotherm.store.reader import Latest


def latest(series: str, unit: str = "Cel") -> Latest:
    device, _, metric = series.partition("/")
    return Latest(device, metric, 0, 1.0, unit, 0)


def readings(*points: tuple[int, float]) -> History:
    time = np.array([time for time, _ in points], dtype=np.int64)
    value = np.array([value for _, value in points])
    return History(time, np.zeros_like(time), np.ones_like(time), value, value, value, value, time)


@pytest.mark.parametrize(
    "view",
    [
        View(),
        View(patterns=("room-*/temperature", "pump-[12]/current"), last="7d", hidden=frozenset({"room-1/temperature"})),
        View(patterns=("a/b",)).over(HOUR, 2 * HOUR),
    ],
)
def test_an_address_shows_the_same_view_again(view: View) -> None:
    from urllib.parse import parse_qs

    found = parse_qs(view.query())
    first = {name: found.get(name, [""])[0] for name in ("last", "start", "end")}
    assert View.read(found.get("series", []), **first, hidden=found.get("hide", [])) == view


@pytest.mark.parametrize(
    ("last", "start", "end"),
    [
        ("7", "", ""),
        ("0d", "", ""),
        ("400d", "", ""),
        ("1w", "", ""),
        ("", "yesterday", "2026-01-01T00:00:00Z"),
        ("", "2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z"),
        ("", "2026-01-01T00:00:00Z", ""),
        ("", "2020-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
    ],
)
def test_a_range_that_cannot_be_is_said_to_be_none(last: str, start: str, end: str) -> None:
    with pytest.raises(NoRange, match="expected"):
        View.read([], last, start, end, [])


def test_a_length_is_minutes_hours_or_days() -> None:
    assert [span_of(text) for text in ("90m", "24h", "30d")] == [90 * MINUTE, DAY, 30 * DAY]


def test_series_of_the_first_pattern_come_first_and_each_once() -> None:
    stored = [latest("a/t"), latest("b/t"), latest("b/u")]
    found = select(["b/*", "*/t"], stored)
    assert found.series == ("b/t", "b/u", "a/t")
    assert found.units == ("°C",) * 3
    assert found.note == ""


def test_a_third_unit_is_left_out_and_said_so() -> None:
    stored = [latest("a/h", "%RH"), latest("a/p", "hPa"), latest("a/t")]
    found = select(["*/t", "*/h", "*/p"], stored)
    assert found.series == ("a/t", "a/h")
    assert "hPa" in found.note


def test_more_lines_than_fit_are_said_to_be_more() -> None:
    found = select(["*"], [latest(f"room-{number:02d}/t") for number in range(34)])
    assert len(found.series) == MAX_LINES
    assert found.note == "34 series match; the first 20 are shown."


def test_nothing_is_chosen_by_no_pattern() -> None:
    assert select([], [latest("a/t")]).series == ()


def test_lines_lie_on_the_same_times_whatever_the_devices_clocks_say() -> None:
    times = common_times(0, HOUR)
    one = readings(*((number * 60 * SECOND + 7, float(number)) for number in range(60)))
    values = aligned(one, times)
    assert values.shape == times.shape
    known = ~np.isnan(values)
    assert known[: -(60 * SECOND) // int(times[1])].all()
    assert np.all(np.diff(values[known]) >= 0)


def test_a_silence_stays_a_gap_and_a_slow_device_has_a_line() -> None:
    times = common_times(0, DAY)
    slow = aligned(readings(*((number * HOUR, 1.0) for number in range(24))), times)
    assert not np.isnan(slow[: np.searchsorted(times, 23 * HOUR)]).any()
    gone = aligned(readings(*((number * HOUR // 4, 1.0) for number in (*range(20), *range(60, 90)))), times)
    assert np.isnan(gone[np.searchsorted(times, 10 * HOUR)])
    assert not np.isnan(gone[np.searchsorted(times, 2 * HOUR)])


def test_nothing_stored_is_no_line() -> None:
    assert np.isnan(aligned(readings(), common_times(0, HOUR))).all()


def test_figures_are_of_the_range_alone() -> None:
    rows = readings((0, 100.0), (10, 1.0), (20, 3.0), (30, -100.0))
    found = figures(rows, 10, 30)
    assert (found.count, found.mean, found.min, found.max, found.last) == (2, 2.0, 1.0, 3.0, 3.0)
    assert figures(rows, 40, 50).count == 0


def test_the_units_that_most_series_have_are_drawn() -> None:
    odd = [latest(f"a{number}/temperature", unit) for number, unit in enumerate(("K", "V"))]
    usual = [latest(f"room-{number}/temperature") for number in range(3)]
    found = select(["*/temperature"], [*odd, *usual])
    assert set(found.units) == {"°C", "K"}
    assert found.left_out == ("V",)
    assert "V are left out" in found.note


def test_a_reading_by_itself_is_a_dash() -> None:
    times = common_times(0, HOUR)
    one = readings((int(times[7]) + 1, 21.5))
    values = aligned(one, times)
    assert np.flatnonzero(~np.isnan(values)).tolist() == [7, 8]
    assert values[7] == 21.5
