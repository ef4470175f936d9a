import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dashboards.window import MAX_POINTS, SPAN, Change, Window
from isotherm.limits import SECOND


def add(window: Window, *points: tuple[int, float]) -> Change | None:
    return window.add(
        np.array([time for time, _ in points], dtype=np.int64), np.array([value for _, value in points], dtype=np.float64)
    )


def points(time: NDArray[np.int64], value: NDArray[np.float64]) -> list[tuple[int, float | None]]:
    """Return the points; the value of a break is None."""
    values = [None if np.isnan(one) else float(one) for one in value]
    return list(zip(time.tolist(), values, strict=True))


def content(window: Window) -> list[tuple[int, float | None]]:
    return points(window.time, window.value)


def test_new_points_are_appended_and_old_ones_slide_out() -> None:
    window = Window()
    add(window, (0, 0.0), (SECOND, 1.0))
    change = add(window, (SPAN + SECOND // 2, 2.0))
    assert change is not None and not change.anew
    assert change.time.tolist() == [SPAN + SECOND // 2]
    assert change.keep == 2
    assert content(window) == [(SECOND, 1.0), (SPAN + SECOND // 2, 2.0)]


def test_a_late_point_goes_between_the_others() -> None:
    window = Window()
    add(window, (0, 0.0), (2 * SECOND, 2.0))
    change = add(window, (SECOND, 1.0))
    assert change is not None and change.anew
    assert change.value.tolist() == [0.0, 1.0, 2.0]


def test_a_point_older_than_the_window_changes_nothing() -> None:
    window = Window()
    add(window, (2 * SPAN, 0.0))
    assert add(window, (SPAN // 2, 1.0)) is None
    assert add(window) is None


def test_points_of_one_time_stay_in_order_of_arrival() -> None:
    window = Window()
    add(window, (5, 1.0))
    add(window, (5, 2.0))
    assert content(window) == [(5, 1.0), (5, 2.0)]


def test_a_fast_series_keeps_its_newest_points() -> None:
    window = Window()
    change = add(window, *((number, float(number)) for number in range(MAX_POINTS + 10)))
    assert change is not None
    assert change.keep == len(change.time) == len(window) == MAX_POINTS
    assert window.value[-1] == MAX_POINTS + 9


def test_a_silence_is_a_break_in_the_line() -> None:
    window = Window()
    add(window, *((number * SECOND, 1.0) for number in range(5)))
    change = add(window, (64 * SECOND, 2.0), (65 * SECOND, 2.0))
    assert change is not None and not change.anew and change.keep == 8
    assert points(change.time, change.value) == [(34 * SECOND, None), (64 * SECOND, 2.0), (65 * SECOND, 2.0)]


def test_a_late_point_in_a_silence_makes_two_of_it() -> None:
    window = Window()
    add(window, *((number * SECOND, 1.0) for number in (0, 1, 2, 3, 63, 64)))
    add(window, (33 * SECOND, 5.0))
    assert [time // SECOND for time, value in content(window) if value is None] == [18, 48]


def test_what_comes_seldom_is_no_silence() -> None:
    window = Window()
    add(window, *((number * 60 * SECOND, 1.0) for number in range(4)))
    assert not np.isnan(window.value).any()


@given(st.lists(st.lists(st.integers(0, 3 * SPAN), max_size=5), max_size=20))
def test_a_chart_that_applies_every_change_equals_the_window(batches: list[list[int]]) -> None:
    window, chart = Window(), list[tuple[int, float | None]]()
    for number, batch in enumerate(batches):
        change = add(window, *((time, float(number)) for time in batch))
        if change is not None:
            added = points(change.time, change.value)
            chart = added if change.anew else (chart + added)[-change.keep :]
        assert chart == content(window)
    assert window.time.tolist() == sorted(window.time.tolist())
    assert not len(window) or window.time[-1] - window.time[0] <= SPAN


@pytest.mark.parametrize("count", [0, 3])
def test_everything_makes_an_empty_chart_equal(count: int) -> None:
    window = Window()
    add(window, *((number, float(number)) for number in range(count)))
    change = window.everything()
    assert change.anew and change.keep == count == len(change.time)
