"""The last minutes of one series, ascending by time, as every live chart of it shows them.

All sessions that watch a series share one window, so a chart that opens is filled at once and a reading is read from the
store once, however many watch. A chart is kept equal to the window by small changes: an append with the number of points
to keep, or, when a late reading has to go between others, everything anew.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dashboards.gaps import insert_breaks, least_silence, silences
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
    """A sliding window over one series.

    Attributes:
        time, value: The points, and one of NaN in each silence, so that no line crosses it.
    """

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
        heard = ~np.isnan(self.value)
        before, values = self.time[heard], self.value[heard]
        if len(before) and time[0] < before[-1]:
            return self._add_late(before, np.concatenate([before, time]), np.concatenate([values, value]))
        known = len(before[-1:])
        time, value = np.concatenate([before[-1:], time]), np.concatenate([values[-1:], value])
        least = least_silence(np.concatenate([before[:-1], time]), SPAN)
        time, value = insert_breaks(time, value, silences(time, least))
        added = len(time) - known
        self._keep(np.concatenate([self.time, time[known:]]), np.concatenate([self.value, value[known:]]))
        added = min(added, len(self))
        return Change(self.time[-added:], self.value[-added:], len(self), anew=False)

    def _add_late(self, before: NDArray[np.int64], time: NDArray[np.int64], value: NDArray[np.float64]) -> Change | None:
        order = np.argsort(time, kind="stable")
        self._keep(time[order], value[order])
        if np.array_equal(before, self.time):
            self.time, self.value = insert_breaks(self.time, self.value, self._silences())
            return None
        self._keep(*insert_breaks(self.time, self.value, self._silences()))
        return self.everything()

    def _silences(self) -> NDArray[np.intp]:
        return silences(self.time, least_silence(self.time, SPAN))

    def _keep(self, time: NDArray[np.int64], value: NDArray[np.float64]) -> None:
        """Keep what has not slid out; a break that comes first keeps nothing apart."""
        first = max(int(np.searchsorted(time, time[-1] - SPAN)), len(time) - MAX_POINTS)
        first += int(np.isnan(value[first]))
        self.time, self.value = time[first:], value[first:]
