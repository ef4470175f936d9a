"""The last minutes of one series, ascending by time, as every live chart of it shows them.

All sessions that watch a series share one window, so a chart that opens is filled at once and a reading is read from the
store once, however many watch. A chart is kept equal to the window by small changes: an append with the number of points
to keep, or, when a late reading has to go between others, everything anew.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isotherm.limits import MINUTE

SPAN = 5 * MINUTE
"""Length of time shown, µs."""

MAX_POINTS = 2_000
"""A canvas redraws this many within a frame; a faster series shows its newest readings."""


@dataclass(frozen=True, slots=True)
class Change:
    """How a window became what it is now.

    Attributes:
        time, value: The points to append, ascending by time, µs; or all points.
        keep: How many points the window has now: those before them have slid out.
        anew: True when ``time`` and ``value`` replace what was there.
    """

    time: NDArray[np.int64]
    value: NDArray[np.float64]
    keep: int
    anew: bool


class Window:
    """A sliding window over one series."""

    def __init__(self) -> None:
        self.time: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self.value: NDArray[np.float64] = np.empty(0)

    def __len__(self) -> int:
        return len(self.time)

    def everything(self) -> Change:
        """Return the change that makes an empty chart equal to this window."""
        return Change(self.time, self.value, len(self), anew=True)

    def add(self, time: NDArray[np.int64], value: NDArray[np.float64]) -> Change | None:
        """Add points in order of arrival; equal times stay in that order.

        Returns:
            What charts have to do, or None when nothing of it falls into the window.
        """
        if not len(time):
            return None
        order = np.argsort(time, kind="stable")
        time, value = time[order], value[order]
        late = len(self.time) > 0 and bool(time[0] < self.time[-1])
        merged_time, merged_value = np.concatenate([self.time, time]), np.concatenate([self.value, value])
        if late:
            order = np.argsort(merged_time, kind="stable")
            merged_time, merged_value = merged_time[order], merged_value[order]
        first = int(np.searchsorted(merged_time, merged_time[-1] - SPAN))
        first = max(first, len(merged_time) - MAX_POINTS)
        before = self.time
        self.time, self.value = merged_time[first:], merged_value[first:]
        if late:
            return None if np.array_equal(before, self.time) else self.everything()
        added = min(len(time), len(self.time))
        return Change(self.time[-added:], self.value[-added:], len(self), anew=False)
