"""The last half hour of many series in a few points each, as the rows of the fleet show it.

Rows ask when they come into view. Sessions share what was read, so that a series is read once in KEPT_SECONDS, however
many look at it.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dashboards.charts import history_columns
from isotherm.clock import now_us
from isotherm.limits import MINUTE
from isotherm.store.reader import Reader

SPAN = 30 * MINUTE
POINTS = 60
KEPT_SECONDS = 15.0
MAX_KEPT = 5_000

Spark = tuple[NDArray[np.float64], NDArray[np.float32]]
"""Times in ms since the epoch, ascending, and means; NaN where the line is broken."""


class Sparks:
    """Reads sparklines for all sessions of this process."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._kept: OrderedDict[str, tuple[float, Spark]] = OrderedDict()

    async def read(self, series: Sequence[str]) -> dict[str, Spark]:
        """Return the sparklines of distinct series.

        Raises:
            Unavailable: the store does not answer.
        """
        now = time.monotonic()
        missing = [name for name in series if name not in self._kept or now - self._kept[name][0] > KEPT_SECONDS]
        if missing:
            end = now_us()
            for name, rows in (await self._reader.query_many(missing, end - SPAN, end, POINTS)).items():
                columns = history_columns(rows)
                with np.errstate(over="ignore"):  # what is beyond single precision is not drawn
                    self._kept[name] = now, (columns["time"], columns["mean"].astype(np.float32))
                self._kept.move_to_end(name)
        found = {name: self._kept[name][1] for name in series}
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        return found
