"""Silences: where a line is broken, because nothing came for much longer than usual."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

GAP = 5
"""A line is broken where points lie farther apart than this many times the usual,"""

LEAST_GAP = 1 / 50
"""and than this part of what is shown: shorter silences cannot be seen anyway."""

FEWEST = 3
"""Points from which on it can be said what is usual."""


def least_silence(time: NDArray[np.int64], span: float) -> float:
    """Return how far apart two points have to be for a silence, µs.

    Args:
        time: When there were points, shape (n,), ascending, µs.
        span: Length of time that is shown, µs.
    """
    if len(time) < FEWEST:
        return float("inf")
    return max(GAP * float(np.median(np.diff(time))), LEAST_GAP * span)


def silences(time: NDArray[np.int64], least: float | NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the places of the points before which a line is broken.

    >>> silences(np.array([0, 1, 9, 10]), 5.0).tolist()
    [2]
    """
    return np.flatnonzero(np.diff(time) > least) + 1


def insert_breaks(
    time: NDArray[np.int64], value: NDArray[np.float64], places: NDArray[np.intp]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the points with one of NaN in the middle of each silence: Bokeh draws no line to it.

    >>> time, value = insert_breaks(np.array([0, 1, 9]), np.array([5.0, 6.0, 7.0]), np.array([2]))
    >>> time.tolist(), value.tolist()
    ([0, 1, 5, 9], [5.0, 6.0, nan, 7.0])
    """
    if not len(places):
        return time, value
    return np.insert(time, places, (time[places - 1] + time[places]) // 2), np.insert(value, places, np.nan)
