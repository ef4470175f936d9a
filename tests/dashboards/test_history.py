"""The range that a browser says somebody has zoomed to; a browser may say anything."""

from __future__ import annotations

from typing import Any

import pytest
from bokeh.events import RangesUpdate

from dashboards.pages.history import GREATEST_SPAN, LEAST_SPAN, zoomed
from isotherm.clock import now_us
from isotherm.limits import HOUR

NOW = now_us()
SHOWN = (NOW - HOUR, NOW)


HUGE = pytest.param(10**400, id="huge")


@pytest.mark.parametrize("sent", [None, "9" * 40, [1], {}, float("nan"), float("inf"), HUGE, -1e300])
def test_what_is_no_time_is_no_zoom(sent: Any) -> None:
    assert zoomed(RangesUpdate(None, x0=sent, x1=NOW / 1000), SHOWN) is None
    assert zoomed(RangesUpdate(None, x0=NOW / 1000, x1=sent), SHOWN) is None


def test_a_zoom_is_a_range_that_can_be_asked_for() -> None:
    start, end = zoomed(RangesUpdate(None, x0=NOW / 1000 - 60_000, x1=NOW / 1000), SHOWN) or (0, 0)
    assert (end - start, end) == (60_000_000, NOW)
    start, end = zoomed(RangesUpdate(None, x0=-1e14, x1=1e14), SHOWN) or (0, 0)
    assert end - start == GREATEST_SPAN
    start, end = zoomed(RangesUpdate(None, x0=NOW / 1000, x1=NOW / 1000), SHOWN) or (0, 0)
    assert end - start == LEAST_SPAN
