"""How wide the rows of a query are, and which tiers are read: pure functions of the reader."""

import doctest
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from isotherm.limits import DAY, HOUR, MINUTE, SECOND
from isotherm.store import reader
from isotherm.store.layout import ROLLUPS, TIERS
from isotherm.store.reader import WIDTHS, _plan, row_width

NOW = 1_790_000_000_000_000


def test_the_example_is_true() -> None:
    assert doctest.testmod(reader).failed == 0


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
    plan = _plan(start, end, width, NOW)
    for (_, _, until), (_, begin, _) in pairwise(plan):
        assert until == begin
    assert plan == [] or plan[-1][2] == end
    for tier, begin, _ in plan:
        assert begin >= (NOW - tier.retention) // tier.chunk * tier.chunk
    if age <= TIERS[-1].retention:
        assert plan[0][1] == start
