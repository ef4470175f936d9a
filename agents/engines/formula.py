"""The engine of `forms.formula`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.engine import Derived, Failure, Outputs
from agents.engines.rows import TableEngine
from agents.gather import NEVER, Rows, begins, gather, in_order
from isotherm.pack import Pack

Function = Callable[..., Any]


class FormulaEngine(TableEngine):
    """Joins the metrics of a device by time, and calls a function of their newest values."""

    def __init__(
        self, function: Function, inputs: Sequence[Callable[[str], bool]], output: str, unit: str, max_age: int
    ) -> None:
        """Prepare.

        Args:
            function: Takes an array for each input, shape (n,), and returns one.
            inputs: Each tells whether it is a series.
            output: Metric that is made.
            unit: Its unit.
            max_age: How much older than the newest a value may be, µs.
        """
        self._function = function
        self._wanted = inputs
        self._output = output
        self._unit = unit
        self._max_age = max_age
        width = len(inputs)
        dtype = np.dtype([("time", "<i8", (width,)), ("value", "<f8", (width,))])
        super().__init__(np.array(([NEVER] * width, [0.0] * width), dtype=dtype), self._code)

    def _code(self, name: str) -> int:
        """Return device × inputs + input."""
        for at, is_wanted in enumerate(self._wanted):
            if is_wanted(name):
                return self._table.code(name.partition("/")[0]) * len(self._wanted) + at
        return -1

    def run(self, packs: Sequence[Pack]) -> Outputs:
        """Take in packs."""
        width = len(self._wanted)
        gathered = gather(packs, self._codes)
        newest = self._table.rows["time"].reshape(-1)
        rows = in_order(gathered, newest)
        if not len(rows):
            return Outputs()
        rows = rows.take(np.lexsort((rows.time, rows.pack, rows.code // width)))
        device, which = rows.code // width, rows.code % width
        first = begins(device)
        times, values = self._newest_of_each(rows, device, which, first)
        # One answer for what was measured at one time and came together.
        last = np.append((np.diff(device) != 0) | (np.diff(rows.time) != 0) | (np.diff(rows.pack) != 0), True)
        known = (times > NEVER).all(axis=1) & (times >= (rows.time - self._max_age)[:, None]).all(axis=1)
        ends = np.append(first[1:], len(rows)) - 1
        state = self._table.rows
        state["time"][device[first]], state["value"][device[first]] = times[ends], values[ends]
        self._table.touch(device[first])
        return self._outputs(rows, device, values, np.flatnonzero(last & known))

    def _newest_of_each(
        self, rows: Rows, device: NDArray[np.int64], which: NDArray[np.int64], first: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return for each row the newest time and value of each input then, shapes (n, inputs)."""
        count, width = len(rows), len(self._wanted)
        begin = np.repeat(first, np.diff(np.append(first, count)))
        state = self._table.rows
        times, values = state["time"][device], state["value"][device]
        number = np.arange(count)
        for at in range(width):
            place = np.maximum.accumulate(np.where(which == at, number, -1))
            here = place >= begin
            times[here, at], values[here, at] = rows.time[place[here]], rows.value[place[here]]
        return times, values

    def _outputs(
        self, rows: Rows, device: NDArray[np.int64], values: NDArray[np.float64], chosen: NDArray[np.int64]
    ) -> Outputs:
        outputs = Outputs()
        if not len(chosen):
            return outputs
        answers = self._function(*values[chosen].T)
        if isinstance(answers, tuple):
            answers, errors = answers
            outputs.failures = [Failure(rows.take(chosen[[at]]).to_pack("formula"), error) for at, error in errors]
        answers = np.asarray(answers, dtype=np.float64)
        made = np.isfinite(answers)
        chosen, answers = chosen[made], answers[made]
        devices, series = np.unique(device[chosen], return_inverse=True)
        names = [f"{self._table.keys[code]}/{self._output}" for code in devices.tolist()]
        if names:
            outputs.derived.append(Derived(names, series, rows.time[chosen], answers, self._unit))
        return outputs


def each_row(function: Function) -> Function:
    """Let a function of floats take columns; returns the answers, NaN where there is none, and what it raised where."""

    def call(*columns: NDArray[np.float64]) -> tuple[NDArray[np.float64], list[tuple[int, Exception]]]:
        answers = np.full(len(columns[0]), np.nan)
        errors: list[tuple[int, Exception]] = []
        for at, values in enumerate(zip(*(column.tolist() for column in columns), strict=True)):
            try:
                answer = function(*values)
                if answer is not None:
                    answers[at] = answer
            except Exception as error:  # noqa: BLE001 - it is the user's code: whatever it raises is told with the reading
                errors.append((at, error))
        return answers, errors

    return call
