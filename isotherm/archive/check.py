"""What a row of a file must keep to before it may enter the store. No I/O."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isotherm.archive.rows import Fault, Name, Rows
from isotherm.limits import DAY, MAX_FUTURE_US, MAX_PAST_US, SECOND
from isotherm.names import is_device_name, is_metric_name
from isotherm.store.layout import ROLLUPS, SLOT, TIERS, first_kept

MAX_COUNT = int(np.iinfo(SLOT["count"]).max)
"""Readings of one row."""

MAX_UNIT_CHARS = 128

_STEPS = np.array([tier.step for tier in TIERS])


class Checker:
    """Checks the rows of a file, from the first to the last: a series keeps the first unit that it is given."""

    def __init__(self, now: int) -> None:
        """Begin; ``now`` is what times are held against, µs since the epoch UTC."""
        self._now = now
        self.units: dict[str, str] = {}

    def check(self, rows: Rows) -> NDArray[np.bool_]:
        """Tell which rows are good; what is wrong with the others is added to ``rows.faults``."""
        if not len(rows):
            return np.ones(0, dtype=np.bool_)
        for index in np.flatnonzero(self._bad_names(rows)).tolist():
            if index not in rows.faults:
                rows.faults[index] = self._name_fault(rows.names[rows.name[index]])
        for bad, reason, detail in self._rules(rows):
            for index in np.flatnonzero(bad).tolist():
                rows.faults.setdefault(index, Fault(reason, detail(index)))
        return _without(rows)

    def _bad_names(self, rows: Rows) -> NDArray[np.bool_]:
        for index in np.unique(rows.name[_without(rows)]).tolist():
            name = rows.names[index]
            if name.unit and _is_named(name):
                self.units.setdefault(name.series, name.unit)
        bad = np.array([not _is_named(name) or name.unit not in ("", self.units.get(name.series)) for name in rows.names])
        return bad[rows.name]

    def _name_fault(self, name: Name) -> Fault:
        if not is_device_name(name.device):
            return Fault("name", f"{name.device[:80]!r} is no device name")
        if not is_metric_name(name.metric):
            return Fault("name", f"{name.metric[:80]!r} is no metric name")
        if len(name.unit) > MAX_UNIT_CHARS:
            return Fault("unit", f"a unit of {len(name.unit)} characters, expected at most {MAX_UNIT_CHARS}")
        return Fault("unit", f"the unit is {name.unit!r}, that of a row before it {self.units[name.series]!r}")

    def _rules(self, rows: Rows) -> list[tuple[NDArray[np.bool_], str, Callable[[int], str]]]:
        """Return each rule: which rows break it, the reason, and the words for one of them."""
        now, time, step = self._now, rows.time, rows.step
        coarsest = ROLLUPS[-1]
        kept_since = first_kept(coarsest, now) * coarsest.chunk
        raw = step == 0
        too_old = np.where(raw, time < now - MAX_PAST_US, time < kept_since)
        values = (rows.sum, rows.min, rows.max, rows.last)
        slack = 1e-9 * rows.count * np.maximum(np.abs(rows.min), np.abs(rows.max))  # a sum is rounded
        with np.errstate(all="ignore"):
            outside = (rows.sum < rows.count * rows.min - slack) | (rows.sum > rows.count * rows.max + slack)
            one = (rows.count == 1) & (rows.min == rows.max) & (rows.sum == rows.last) & (rows.last_at == time)
            late = (rows.last_at < time) | (rows.last_at >= time + step)
            disorder = ~((rows.min <= rows.last) & (rows.last <= rows.max))
        # A sum of extreme values may be infinite.
        finite = np.logical_and.reduce([np.isfinite(one) for one in values[1:]])
        finite &= np.isfinite(rows.sum) | (rows.count > 1)
        steps = ", ".join(f"{tier.step / SECOND:g}" for tier in TIERS)
        return [
            (~finite, "not_finite", lambda at: f"{_brief(rows, at)}, expected finite numbers"),
            (~np.isin(step, _STEPS), "step", lambda at: f"step is {step[at] / SECOND:g} s, expected one of {steps}"),
            (too_old, "time", lambda at: f"{_days(now - time[at])} d old, at most {MAX_PAST_US // DAY} d are kept"),
            (
                time > now + MAX_FUTURE_US,
                "time",
                lambda at: f"{(time[at] - now) / SECOND:.0f} s ahead, expected at most {MAX_FUTURE_US // SECOND} s",
            ),
            (~raw & (time % np.maximum(step, 1) != 0), "time", lambda at: f"no slot of {step[at] / SECOND:g} s begins then"),
            (
                (rows.count < 1) | (rows.count > MAX_COUNT),
                "count",
                lambda at: f"count is {rows.count[at]}, expected 1 to {MAX_COUNT}",
            ),
            (raw & ~one, "malformed", lambda at: f"{_brief(rows, at)}: a row of step 0 is one reading"),
            (~raw & late, "time", lambda at: "last_at lies outside of the row"),
            (disorder | outside, "malformed", lambda at: f"{_brief(rows, at)} cannot be the aggregates of one row"),
        ]


def _without(rows: Rows) -> NDArray[np.bool_]:
    """Tell which rows have no fault yet."""
    whole = np.ones(len(rows), dtype=np.bool_)
    whole[list(rows.faults)] = False
    return whole


def _is_named(name: Name) -> bool:
    return is_device_name(name.device) and is_metric_name(name.metric) and len(name.unit) <= MAX_UNIT_CHARS


def _brief(rows: Rows, at: int) -> str:
    values: tuple[Any, ...] = (rows.count[at], rows.sum[at], rows.min[at], rows.max[at], rows.last[at])
    return "count {}, sum {:g}, min {:g}, max {:g}, last {:g}".format(*values)


def _days(span: int) -> str:
    return f"{span / DAY:.0f}"
