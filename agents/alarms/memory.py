"""What the engine has seen, in rows beside those of the alarms: with them a restart is not noticed.

| field                        | content                                                                     |
|------------------------------|-----------------------------------------------------------------------------|
| ``heard:DEVICE/METRIC``      | nothing; the series was heard of, and a rule minds its silence              |
| ``newest:DEVICE/METRIC``     | time (µs) and value of its newest reading, if a rule follows it; 16 bytes   |
| ``window:RULE/DEVICE/METRIC``| the readings in the window of a rate, a :class:`Window`                     |
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from agents.alarms.rates import Rates, Window
from agents.alarms.series import Series
from agents.alarms.silence import Silence
from agents.engine import Changes

HEARD, NEWEST, WINDOW = "heard:", "newest:", "window:"

_POINT = np.dtype([("time", "<i8"), ("value", "<f8")])
_NOTHING: NDArray[np.int64] = np.empty(0, dtype=np.int64)


class Memory:
    """Knows which rows the store has, and which of them have changed."""

    def __init__(self) -> None:
        self._stored: set[str] = set()
        self._touched = [_NOTHING]
        self._is_swept = True

    def load(self, rows: Mapping[str, bytes], series: Series) -> dict[str, Window]:
        """Enter what rows know into the series; returns the windows of rates, by rule and series."""
        self._stored, self._touched, self._is_swept = set(rows), [_NOTHING], True
        windows = {}
        decode = msgspec.msgpack.Decoder(Window).decode
        for field, row in rows.items():
            if field.startswith(WINDOW):
                windows[field.removeprefix(WINDOW)] = decode(row)
            elif field.startswith(NEWEST):
                time, value = np.frombuffer(row, _POINT)[0].item()
                series.remember(series[field.removeprefix(NEWEST)], time, value)
            else:
                series.hear(series[field.removeprefix(HEARD)])
        return windows

    def touch(self, numbers: NDArray[np.int64]) -> None:
        """Note that series have newer readings."""
        self._touched.append(numbers)

    def sweep(self) -> None:
        """Note that some of what is kept may be of no use any more."""
        self._is_swept = False

    def changes(self, series: Series, silence: Silence, rates: Rates) -> Changes:
        """Return the rows that have changed since this was last asked, and the fields of those that are of no use now."""
        numbers = np.unique(np.concatenate(self._touched))
        numbers = numbers[series.newest[numbers] != 0]
        points = np.empty(len(numbers), dtype=_POINT)
        points["time"], points["value"] = series.newest[numbers], series.last[numbers]
        fields = [NEWEST + series.names[number] for number in numbers.tolist()]
        rows: dict[str, bytes] = dict(zip(fields, points.view(f"V{_POINT.itemsize}").tolist(), strict=True))
        rows |= {WINDOW + key: msgspec.msgpack.encode(window) for key, window in rates.changes().items()}
        gone: list[str] = []
        if silence.is_minded_changed or not self._is_swept:
            heard = {HEARD + series.names[number] for number in silence.minded}
            rows |= dict.fromkeys(heard - self._stored, b"")
            known = {NEWEST + series.names[number] for number in np.flatnonzero(series.newest).tolist()}
            gone = sorted(self._stored - heard - known - {WINDOW + key for key in rates.windows()})
            silence.is_minded_changed = False
        self._touched, self._is_swept = [_NOTHING], True
        self._stored |= rows.keys()
        self._stored.difference_update(gone)
        return Changes(rows, gone)
