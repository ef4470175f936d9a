"""How wide the rows of a query are, how they are merged, and which tiers are read: pure functions."""

import doctest
import warnings
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotherm.limits import DAY, HOUR, MINUTE, SECOND
from isotherm.store import history
from isotherm.store.history import WIDTHS, History, coarsen, on_grid, row_width
from isotherm.store.layout import ROLLUPS, TIERS
from isotherm.store.plan import tiers_for

NOW = 1_790_000_000_000_000


def test_the_example_is_true() -> None:
    assert doctest.testmod(history).failed == 0


@given(st.integers(1, 400 * DAY), st.integers(1, 100_000), st.integers(0, DAY))
def test_rows_of_that_width_cover_the_span_wherever_it_lies(span: int, points: int, start: int) -> None:
    width = row_width(span, points)
    rows = (start + span - 1) // width - start // width + 1
    assert rows <= max(points, 2)
    narrower = [one for one in WIDTHS if one < width]
    if points > 1 and width in WIDTHS and narrower:
        assert span / narrower[-1] > points - 1


def test_each_tier_divides_every_wider_row() -> None:
    for tier in ROLLUPS:
        assert tier.step in WIDTHS
        assert all(width % tier.step == 0 for width in WIDTHS if width >= tier.step)


@given(st.integers(0, 400 * DAY), st.integers(1, 400 * DAY), st.sampled_from([1, SECOND, 10 * SECOND, MINUTE, HOUR, DAY]))
def test_a_plan_covers_the_range_without_gap_or_overlap_by_tiers_that_are_kept(age: int, span: int, width: int) -> None:
    start, end = NOW - age, NOW - age + span
    plan = tiers_for(start, end, width, NOW)
    for (_, _, until), (_, begin, _) in pairwise(plan):
        assert until == begin
    assert plan == [] or plan[-1][2] == end
    for tier, begin, _ in plan:
        assert begin >= (NOW - tier.retention) // tier.chunk * tier.chunk
    if age <= TIERS[-1].retention:
        assert plan[0][1] == start


def rows(*readings: tuple[int, float], width: int = 0) -> History:
    """One row a reading, which is the last one of its width."""
    time = np.array([time for time, _ in readings], dtype=np.int64)
    value = np.array([value for _, value in readings], dtype=np.float64)
    count = np.ones(len(time), dtype=np.int64)
    return History(time, np.full(len(time), width, dtype=np.int64), count, value, value, value, value, time + width // 2)


EVENTS = st.lists(st.tuples(st.integers(0, 5000), st.integers(-100, 100).map(float)), unique_by=lambda one: one[0])


@given(EVENTS.map(sorted), st.integers(1, 700), st.integers(0, 3000), st.integers(0, 3000))
def test_a_grid_has_every_cell_once_and_every_reading_in_its_own(
    readings: list[tuple[int, float]], step: int, start: int, span: int
) -> None:
    grid = on_grid(rows(*readings), start, start + span, step)
    cells = list(range(start // step * step, start + span, step)) if span else []
    cells = cells or list(range(start // step * step, -(-start // step) * step, step))
    assert grid.time.tolist() == cells
    for cell, count, low, high, last, last_at in zip(
        cells, grid.count.tolist(), grid.min, grid.max, grid.last, grid.last_at, strict=True
    ):
        inside = [(time, value) for time, value in readings if cell <= time < cell + step]
        assert count == len(inside)
        if inside:
            values = [value for _, value in inside]
            assert (low, high) == (min(values), max(values))
            assert (last_at, last) == inside[-1]
        else:
            assert np.isnan([low, high, last]).all()


@given(EVENTS.map(sorted), st.integers(1, 700), st.integers(0, 2000))
def test_a_value_is_carried_on_for_as_long_as_was_asked(readings: list[tuple[int, float]], step: int, max_age: int) -> None:
    plain, grid = (on_grid(rows(*readings), 0, 5001, step, age) for age in (0, max_age))
    assert grid.count.tolist() == plain.count.tolist()
    for cell, count, last, mean in zip(grid.time.tolist(), grid.count.tolist(), grid.last, grid.mean, strict=True):
        before = [(time, value) for time, value in readings if time < cell]
        if count:
            continue
        if before and max_age and cell - before[-1][0] <= max_age:
            assert last == mean == before[-1][1]
        else:
            assert np.isnan([last, mean]).all()


def test_a_grid_of_nothing_is_empty_cells_and_says_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        grid = on_grid(rows(), 0, 3 * SECOND, SECOND, SECOND)
        assert np.isnan(grid.mean).all()
    assert grid.count.tolist() == [0, 0, 0]
    assert len(on_grid(rows((0, 1.0)), 0, 0, SECOND)) == 0
    for start, end, step in ((0, 1, 0), (1, 0, 1)):
        with pytest.raises(ValueError, match="expected step > 0"):
            on_grid(rows(), start, end, step)


def test_a_row_that_is_wider_than_the_grid_is_not_spread() -> None:
    wide, fine = rows((0, 1.0), (HOUR, 2.0), width=HOUR), rows((HOUR + MINUTE, 3.0))
    grid = on_grid(wide, 0, 2 * HOUR, MINUTE)
    assert np.flatnonzero(grid.count).tolist() == [0, 60]
    assert grid.width.tolist() == [MINUTE] * 120
    mixed = History(*(np.append(getattr(wide, name), getattr(fine, name)) for name in History.__dataclass_fields__))
    assert np.flatnonzero(on_grid(mixed, 0, 2 * HOUR, MINUTE).count).tolist() == [0, 60, 61]


@given(EVENTS.map(sorted), st.integers(1, 700), st.integers(1, 10))
def test_merging_twice_is_merging_once(readings: list[tuple[int, float]], width: int, times: int) -> None:
    once = coarsen(rows(*readings), width * times)
    twice = coarsen(coarsen(rows(*readings), width), width * times)
    assert (once.time.tolist(), once.last.tolist(), once.last_at.tolist()) == (
        (twice.time.tolist(), twice.last.tolist(), twice.last_at.tolist())
    )
