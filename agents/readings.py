"""Readings as an analytic's function gets them: one by one, or in columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from isotherm.events import Event, Severity


class Reading(NamedTuple):
    """One reading.

    Attributes:
        device, metric: The series.
        time: µs since the epoch UTC.
        value: The sample.
    """

    device: str
    metric: str
    time: int
    value: float

    def event(self, message: str, severity: Severity = "info") -> Event:
        """Return an event that this reading is the cause of."""
        return Event(
            kind="",
            device=self.device,
            metric=self.metric,
            time=self.time,
            value=self.value,
            message=message,
            severity=severity,
        )


@dataclass(frozen=True, slots=True)
class Readings:
    """Readings in columns, by series and then ascending by time.

    Attributes:
        names: The series, shape (k,).
        starts: Where each begins, and where the last ends, shape (k + 1,).
        time: µs since the epoch UTC, shape (n,).
        value: Samples, shape (n,).
        state: A row for each series, shape (k,), with the declared fields; what is changed in it is kept.
    """

    names: Sequence[str]
    starts: NDArray[np.int64]
    time: NDArray[np.int64]
    value: NDArray[np.float64]
    state: NDArray[np.void]

    def __len__(self) -> int:
        return len(self.time)

    def __iter__(self) -> Iterator[Series]:
        for at, name in enumerate(self.names):
            rows = slice(int(self.starts[at]), int(self.starts[at + 1]))
            yield Series(name, self.time[rows], self.value[rows], self.state[at])

    @property
    def series(self) -> NDArray[np.int64]:
        """Index into ``names`` of each reading, shape (n,)."""
        return np.repeat(np.arange(len(self.names)), np.diff(self.starts))

    def to_arrow(self) -> pa.Table:
        """Return the columns series, time and value."""
        series = pa.DictionaryArray.from_arrays(pa.array(self.series.astype(np.int32)), pa.array(list(self.names)))
        time = pa.array(self.time, pa.timestamp("us", tz="UTC"))
        return pa.table({"series": series, "time": time, "value": self.value})


class Series(NamedTuple):
    """The readings of one series: columns, and its row of the state."""

    name: str
    time: NDArray[np.int64]
    value: NDArray[np.float64]
    state: np.void

    def reading(self, at: int) -> Reading:
        """Return one of the readings."""
        device, _, metric = self.name.partition("/")
        return Reading(device, metric, int(self.time[at]), float(self.value[at]))
