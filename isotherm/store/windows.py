"""Windows of sequence numbers: which numbers of a series are stored, so that a repetition is known whatever offset it has.

A device that hears no acknowledgement sends again; a broker delivers again. The repetition comes as a new record of the log.
If the device numbers its readings, the store can tell: a window holds the numbers that are in, as arithmetic progressions,
because a device counts 1, 2, 3, or, with a number for each of its ten metrics, 7, 17, 27 in one series.

    | bytes | what                                                                             |
    |-------|----------------------------------------------------------------------------------|
    | 0–7   | i64: the newest time among the readings that are in, µs                          |
    | 8–11  | u32: number of runs n                                                            |
    | 12–   | n runs, each 24 bytes, ascending by their last: first u64, last u64, step u64 ≥ 1 |
    | then  | the same of the count before, if the device has begun to count anew              |

A number that is in may still be new: a device that restarts may count from 1 again. A repetition has the time of what it
repeats, so it is never newer than the newest; a number that is in, with a newer time, begins the count anew. What is then
sent again of the count before is known by its time. Where a device has no clock, time says nothing: there a repetition is
believed for REPEAT_US after the newest reading.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from isotherm.limits import MINUTE
from isotherm.pack import NO_SEQ, STAMPED, Pack

MAX_RUNS = 64
"""Runs that a window remembers, the highest; each gap in a device's numbers takes one."""

REPEAT_US = 5 * MINUTE
"""How long after its newest reading a device without a clock repeats itself; later, it has begun to count anew."""

FEW = 16
"""Readings of a series up to which a list is faster than an array."""

_Run = tuple[int, int, int]
_HEAD, _RUN = struct.Struct("<qI"), struct.Struct("<QQQ")
_NEVER = -(2**63)
_STAMPED = np.uint64(STAMPED)


class Window:
    """The numbers of one series that are stored."""

    __slots__ = ("_before", "_newest", "_runs")

    def __init__(self, data: bytes = b"") -> None:
        """Read the stored form; no bytes are a window that has seen nothing."""
        self._newest, count = _HEAD.unpack_from(data) if data else (_NEVER, 0)
        end = _HEAD.size + count * _RUN.size
        self._runs: list[_Run] = list(_RUN.iter_unpack(data[_HEAD.size : end]))
        self._before = Window(data[end:]) if data[end:] else None

    def to_bytes(self) -> bytes:
        """Return the stored form."""
        before = b"" if self._before is None else self._before.to_bytes()
        return _HEAD.pack(self._newest, len(self._runs)) + b"".join(_RUN.pack(*run) for run in self._runs) + before

    def copy(self) -> Window:
        """Return a window that can be changed alone."""
        other = Window()
        other._newest, other._runs, other._before = self._newest, self._runs.copy(), self._before
        return other

    def admit(self, number: int, time: int, is_stamped: bool) -> bool:
        """Tell whether a reading is new, and if so enter it.

        Args:
            number: The device's own number of the reading.
            time: µs since the epoch UTC.
            is_stamped: The time is that of the arrival.
        """
        if self._before is not None and time <= self._before._newest and self._before._holds(number):
            return False
        if not self._holds(number):
            self._enter(number)
        elif time <= self._newest + (REPEAT_US if is_stamped else 0):
            return False
        elif number != self._runs[-1][1]:  # else several samples with the number of their message
            self._begin_anew(number)
        self._newest = max(self._newest, time)
        return True

    def _begin_anew(self, number: int) -> None:
        before = self.copy()
        before._before = None
        self._before, self._runs = before, [(number, number, 1)]

    def extend(self, numbers: NDArray[np.int64], oldest: int, newest: int) -> bool:
        """Enter a run of numbers if it goes on where the highest run ends; else do nothing, and return False.

        Args:
            numbers: Shape (n,), n > 0.
            oldest, newest: Least and greatest time among these readings, µs.
        """
        if not self._runs or (self._before is not None and oldest <= self._before._newest):
            return False
        first, last, step = self._runs[-1]
        if int(numbers[0]) != last + step or (np.diff(numbers) != step).any():
            return False
        self._runs[-1] = first, int(numbers[-1]), step
        self._newest = max(self._newest, newest)
        return True

    def _holds(self, number: int) -> bool:
        return any(first <= number <= last and (number - first) % step == 0 for first, last, step in reversed(self._runs))

    def _enter(self, number: int) -> None:
        runs = self._runs
        at = len(runs)
        while at and runs[at - 1][1] > number:
            at -= 1
        runs.insert(at, (number, number, 1))
        for left in (at, at - 1):  # with the run after it, then with the one before
            if 0 <= left < len(runs) - 1 and (joined := _joined(runs[left], runs[left + 1])):
                runs[left : left + 2] = [joined]
        del runs[:-MAX_RUNS]


def _joined(low: _Run, high: _Run) -> _Run | None:
    """Return two runs as one, if together they are an arithmetic progression."""
    gap = high[0] - low[1]
    fits = gap > 0 and all(first == last or step == gap for first, last, step in (low, high))
    return (low[0], high[1], gap) if fits else None


class Sieve:
    """Takes repetitions out of the packs of one partition, in the order of their offsets."""

    def __init__(self, held: Mapping[str, Window]) -> None:
        """Begin with the windows of at least those series that have numbers in the packs and were seen before."""
        self._held = held
        self.windows: dict[str, Window] = {}
        """Series → window, of those that have changed."""

    def sift(self, pack: Pack) -> Pack:
        """Return a pack without the readings that are stored already."""
        if pack.seq is None:
            return pack
        rows = np.flatnonzero(pack.seq != NO_SEQ)
        # By number, because a pack in whatever order has few runs then; of one number in order of arrival.
        rows = rows[np.lexsort((pack.seq[rows] & ~_STAMPED, pack.series[rows]))]
        series, seq, time = pack.series[rows], pack.seq[rows], pack.time[rows]
        readings = _Readings(
            (seq & ~_STAMPED).astype(np.int64), time, (seq & ~_STAMPED).tolist(), time.tolist(), (seq >= _STAMPED).tolist()
        )
        begins = np.flatnonzero(np.diff(series, prepend=-1)).tolist()
        is_new: list[bool] = []
        for begin, end, code in zip(begins, [*begins, len(rows)][1:], series[begins].tolist(), strict=True):
            is_new += _admit(self._window(pack.names[code]), readings, begin, end)
        if all(is_new):
            return pack
        kept = np.ones(len(pack.series), dtype=np.bool_)
        kept[rows] = is_new
        return pack.rows(kept)

    def _window(self, name: str) -> Window:
        window = self.windows.get(name)
        if window is None:
            held = self._held.get(name)
            window = self.windows[name] = Window() if held is None else held.copy()
        return window


class _Readings(NamedTuple):
    """The numbered readings of a pack, as columns and as lists: one is fast for many, the other for few."""

    numbers: NDArray[np.int64]
    times: NDArray[np.int64]
    number: list[int]
    time: list[int]
    is_stamped: list[bool]


def _admit(window: Window, readings: _Readings, begin: int, end: int) -> Sequence[bool]:
    """Tell which of the readings [begin, end), all of one series, are new, and enter those."""
    mine = slice(begin, end)
    if end - begin > FEW:
        times = readings.times[mine]
        if window.extend(readings.numbers[mine], int(times.min()), int(times.max())):
            return [True] * (end - begin)
    return list(map(window.admit, readings.number[mine], readings.time[mine], readings.is_stamped[mine]))
