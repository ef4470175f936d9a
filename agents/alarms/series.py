"""The series of a partition in numbers, and readings sorted by them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from isotherm.pack import Pack


class Column:
    """An array that grows at its end."""

    def __init__(self, dtype: DTypeLike) -> None:
        self._room = np.zeros(64, dtype=dtype)
        self.values: NDArray[Any] = self._room[:0]
        """What is in it, shape (n,); a view, good until the next `extend`."""

    def extend(self, values: Sequence[Any]) -> None:
        """Add values at the end."""
        count, more = len(self.values), len(values)
        if count + more > len(self._room):
            grown = np.zeros(2 * (count + more), dtype=self._room.dtype)
            grown[:count] = self.values
            self._room = grown
        self._room[count : count + more] = values
        self.values = self._room[: count + more]


class Series(dict[str, int]):
    """Name → number of each series, ``device/metric``, and of each device, ``device``; what is not there is entered.

    Attributes:
        names: By number.
        newest: Time of the newest reading, µs, shape (n,); 0 before there is one.
        last: Its value, shape (n,).
        heard: When a reading was last received, µs, shape (n,); 0 before there is one, 1 if that is all that is known.
        is_followed: Whether a rule looks at its readings, shape (n,); of others the newest is not kept.
        device: Number of its device, shape (n,).
    """

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self._newest, self._last = Column(np.int64), Column(np.float64)
        self._heard, self._device = Column(np.int64), Column(np.int64)
        self._is_followed = Column(np.bool_)

    def __missing__(self, name: str) -> int:
        device, slash, _ = name.partition("/")
        of = self[device] if slash else len(self.names)
        number = self[name] = len(self.names)
        self.names.append(name)
        for column, value in (
            (self._newest, 0),
            (self._last, 0.0),
            (self._heard, 0),
            (self._device, of),
            (self._is_followed, False),
        ):
            column.extend((value,))
        return number

    @property
    def newest(self) -> NDArray[np.int64]:
        return self._newest.values

    @property
    def last(self) -> NDArray[np.float64]:
        return self._last.values

    @property
    def heard(self) -> NDArray[np.int64]:
        return self._heard.values

    @property
    def device(self) -> NDArray[np.int64]:
        return self._device.values

    @property
    def is_followed(self) -> NDArray[np.bool_]:
        return self._is_followed.values

    def metric(self, number: int) -> str:
        """Return the metric of a series."""
        return self.names[number].partition("/")[2]

    def forget_unfollowed(self) -> None:
        """Let the past of a series count from when a rule follows it."""
        self.newest[~self.is_followed] = 0

    def hear(self, number: int) -> None:
        """Take in that a series was heard of, some time."""
        self.heard[number] = max(1, self.heard[number])

    def remember(self, number: int, time: int, value: float) -> None:
        """Take in what its newest reading was."""
        self.hear(number)
        self.newest[number], self.last[number] = time, value


@dataclass(slots=True)
class Arrived:
    """Which series had readings, all of them counted.

    Attributes:
        series: Numbers, ascending, shape (k,).
        first: Place of the first reading in the order of arrival, shape (k,).
        received_at: Of the newest pack, µs, shape (k,).
        first_received_at: Of the pack of the first reading, µs, shape (k,).
    """

    series: NDArray[np.int64]
    first: NDArray[np.int64]
    received_at: NDArray[np.int64]
    first_received_at: NDArray[np.int64]


@dataclass(slots=True)
class Readings:
    """Readings that count: newer than all in earlier packs, and not older than those before them in their own.

    They are sorted by series, and within each in the order of arrival.

    Attributes:
        series: Numbers, ascending, shape (k,).
        starts, ends: Where the readings of each begin and end, shape (k,).
        place: Place of each reading in the order of arrival, shape (n,).
        time, value: Of each reading, shape (n,).
    """

    series: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    place: NDArray[np.int64]
    time: NDArray[np.int64]
    value: NDArray[np.float64]


def gather(packs: Sequence[Pack], known: Series) -> tuple[Arrived, Readings]:
    """Put packs together, and leave out what is not newer than ``known`` has it; new series are entered there."""
    numbers = np.concatenate(
        [np.fromiter(map(known.__getitem__, pack.names), np.int64, len(pack.names))[pack.series] for pack in packs]
    )
    time = np.concatenate([pack.time for pack in packs])
    value = np.concatenate([pack.value for pack in packs])
    which = np.repeat(np.arange(len(packs)), [len(pack.value) for pack in packs])
    place = np.argsort(numbers, kind="stable")
    numbers, time, value, which = numbers[place], time[place], value[place], which[place]
    received = np.array([pack.received_at for pack in packs])[which]
    starts = _starts(numbers)
    series = numbers[starts]
    latest = np.maximum.reduceat(received, starts) if len(starts) else received
    arrived = Arrived(series, place[starts], latest, received[starts])
    fresh = np.empty(len(time), dtype=np.bool_)
    fresh[1:] = (time[1:] > time[:-1]) | ((time[1:] == time[:-1]) & (which[1:] == which[:-1]))
    fresh[starts] = time[starts] > known.newest[series]
    if not fresh.all():
        fresh = _fresh(starts, time, which, fresh, known.newest[series])
        numbers, time, value, place = numbers[fresh], time[fresh], value[fresh], place[fresh]
        starts = _starts(numbers)
    ends = np.append(starts[1:], len(numbers))[: len(starts)]
    return arrived, Readings(numbers[starts], starts, ends, place, time, value)


def _starts(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where each run of equal numbers begins."""
    return np.flatnonzero(np.concatenate([numbers[:1] == numbers[:1], numbers[1:] != numbers[:-1]]))


def _fresh(
    starts: NDArray[np.int64],
    time: NDArray[np.int64],
    which: NDArray[np.int64],
    steps: NDArray[np.bool_],
    newest: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """Return which readings count: newer than all in earlier packs and ``newest``, and not older than those before them.

    Args:
        starts: Where each run begins.
        time: Of each reading.
        which: Number of the pack of each reading, ascending within a run.
        steps: Which count beside the one before.
        newest: Time that each run has to be newer than.
    """
    fresh = steps.copy()
    ends = np.append(starts[1:], len(time))
    suspect = np.flatnonzero(~np.logical_and.reduceat(steps, starts))
    for start, end, after in zip(starts[suspect].tolist(), ends[suspect].tolist(), newest[suspect].tolist(), strict=True):
        mine = slice(start, end)
        before = np.maximum.accumulate(np.concatenate([[after], time[start : end - 1]]))
        packs = _starts(which[mine])
        earlier = np.repeat(before[packs], np.diff(np.append(packs, end - start)))
        fresh[mine] = (time[mine] > earlier) & (time[mine] >= before)
    return fresh
