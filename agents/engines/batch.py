"""The engine of `forms.per_batch`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.engine import Derived, Outputs
from agents.engines.naming import named, output_series
from agents.engines.rows import TableEngine
from agents.gather import begins, gather, in_order, wanted
from agents.readings import Readings
from isotherm.pack import Pack


class BatchEngine(TableEngine):
    """Calls a function with columns, and keeps a row of state for each series."""

    def __init__(
        self, name: str, function: Callable[[Readings], Any], inputs: str, output: str, unit: str, default: NDArray[np.void]
    ) -> None:
        self._name = name
        self._function = function
        is_wanted = wanted(inputs, output)
        self._output = output
        self._unit = unit
        super().__init__(default, lambda name: self._table.code(name) if is_wanted(name) else -1)
        self._made: dict[str, str] = {}  # series → the one that is made from it

    def run(self, packs: Sequence[Pack]) -> Outputs:
        """Take in packs."""
        gathered = gather(packs, self._codes)
        rows = in_order(gathered, self._table.rows["newest"])
        if not len(rows):
            return Outputs()
        first = begins(rows.code)
        codes = rows.code[first]
        starts = np.append(first, len(rows))
        state = self._table.rows[codes]
        readings = Readings([self._table.keys[code] for code in codes.tolist()], starts, rows.time, rows.value, state)
        outputs = self._outputs(readings, self._function(readings))
        state["newest"] = rows.time[starts[1:] - 1]
        self._table.rows[codes] = state
        self._table.touch(codes)
        return outputs

    def _outputs(self, readings: Readings, answer: Any) -> Outputs:
        column, events = answer if isinstance(answer, tuple) else (answer, ())
        if column is not None and not isinstance(column, np.ndarray):
            column, events = None, column
        told = sorted(events, key=lambda event: (event.time, event.device, event.metric))  # codes are others after a restart
        outputs = Outputs(events=[named(event, self._name) for event in told])
        if column is not None:
            if column.shape != readings.time.shape:
                raise ValueError(f"expected an array of shape {readings.time.shape}, got one of {column.shape}")
            made = np.flatnonzero(np.isfinite(column))
            names = [self._made.get(name) or self._name_made(name) for name in readings.names]
            outputs.derived.append(Derived(names, readings.series[made], readings.time[made], column[made], self._unit))
        return outputs

    def _name_made(self, series: str) -> str:
        name = self._made[series] = output_series(series, self._output)
        return name
