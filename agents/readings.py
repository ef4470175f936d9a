"""Readings as an analytic's function gets them: one by one, or in columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

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
        """Return an event that this reading is the cause of.

        Raises:
            ValueError: the message is longer than MAX_MESSAGE_CHARS, or the severity is none.
        """
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

    def reading(self, at: int) -> Reading:
        """Return one of the readings."""
        name = self.names[int(np.searchsorted(self.starts, at, side="right")) - 1]
        device, _, metric = name.partition("/")
        return Reading(device, metric, int(self.time[at]), float(self.value[at]))

    @property
    def series(self) -> NDArray[np.int64]:
        """Index into ``names`` of each reading, shape (n,)."""
        return np.repeat(np.arange(len(self.names)), np.diff(self.starts))

    def rounds(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Yield the first reading of every series, then the second of those that have one, and so on.

        For what depends on the reading before, many series at once: index into ``names`` and index of the reading, both of
        shape (series that have one,).
        """
        counts = np.diff(self.starts)
        longest_first = np.argsort(-counts, kind="stable")
        first = self.starts[:-1][longest_first]
        have = len(counts) - np.searchsorted(np.sort(counts), np.arange(counts.max(initial=0)), side="right")
        for at, how_many in enumerate(have.tolist()):
            yield longest_first[:how_many], first[:how_many] + at

    def running_sum(self, begin: NDArray[np.float64], added: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return for each reading what its series has come to: ``begin``, and all that was added up to and with it.

        Added one after the other, so it is the same to the last bit whichever readings come together.

        Args:
            begin: Of each series, shape (k,).
            added: Of each reading, shape (n,).
        """
        sums = np.empty(len(added))
        if len(self.names) < np.diff(self.starts).max(initial=0):
            for which, one in enumerate(begin.tolist()):
                rows = slice(int(self.starts[which]), int(self.starts[which + 1]))
                sums[rows] = np.add.accumulate(np.append(one, added[rows]))[1:]
        else:
            so_far = begin.copy()
            for series, at in self.rounds():
                so_far[series] += added[at]
                sums[at] = so_far[series]
        return sums

    def before(self, column: NDArray[Any], begin: NDArray[Any]) -> NDArray[Any]:
        """Return for each reading what a column says of the reading of its series before it.

        Args:
            column: Of each reading, shape (n,).
            begin: What was before the first of each series, shape (k,).
        """
        shifted = np.empty_like(column)
        shifted[1:] = column[:-1]
        shifted[self.starts[:-1]] = begin
        return shifted

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
