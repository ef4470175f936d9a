"""The engine of `forms.per_reading`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from agents.engine import Changes, Derived, Failure, Outputs
from agents.engines.naming import named, output_series
from agents.gather import NEVER, Codes, begins, gather, in_order, wanted
from agents.readings import Reading
from isotherm.events import Event
from isotherm.pack import Pack

State = dict[str, Any]


class _Kept(msgspec.Struct, array_like=True):
    """What is kept for a series or a device: the newest time of each of its series, and the function's own state."""

    newest: dict[str, int]
    state: State


class _Series(NamedTuple):
    """What is known of a series: its parts, the series that is made from it, and whose state it has."""

    name: str
    device: str
    metric: str
    output: str
    owner: str


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Kept).decode


class ReadingEngine:
    """Calls a function with each reading, and keeps a dict for each series or device.

    Between packs a state is what the store would give back, its bytes: so a restart changes nothing, and what the function
    raises concerns the readings of that series (or device) in the pack alone: its state is as before. With ``any_order``
    nothing is kept, and readings that come late count, too.
    """

    def __init__(
        self,
        name: str,
        function: Callable[[Reading, State], Any],
        inputs: str,
        output: str,
        unit: str,
        per: str,
        any_order: bool = False,
    ) -> None:
        self._name = name
        self._function = function
        self._wanted = wanted(inputs, output)
        self._output = output
        self._unit = unit
        self._per_device = per == "device"
        self._any_order = any_order
        self._codes = Codes(self._code)
        self._states: dict[str, bytes] = {}
        self._changed: dict[str, None] = {}
        self._forget_names()

    def _forget_names(self) -> None:
        self._codes.clear()
        self._series: list[_Series] = []
        self._numbers: dict[str, int] = {}  # of those that have a state
        self._newest = self._owner = self._rank = np.empty(0, dtype=np.int64)  # by code

    def _code(self, name: str) -> int:
        if not self._wanted(name):
            return -1
        device, _, metric = name.partition("/")
        owner = device if self._per_device else name
        self._numbers.setdefault(owner, len(self._numbers))
        self._series.append(_Series(name, device, metric, output_series(name, self._output), owner))
        return len(self._series) - 1

    def load(self, rows: Mapping[str, bytes]) -> None:
        """Begin with a state."""
        self._forget_names()
        self._changed.clear()
        self._states = dict(rows)

    def changes(self) -> Changes:
        """Return what has changed."""
        rows = {key: self._states[key] for key in self._changed}
        self._changed.clear()
        return Changes(rows)

    def tick(self, now: int) -> Outputs:
        """Nothing happens by itself."""
        return Outputs()

    def run(self, packs: Sequence[Pack]) -> Outputs:
        """Take in packs."""
        outputs = Outputs()
        gathered = gather(packs, self._codes)
        self._know_new_names()
        rows = gathered if self._any_order else in_order(gathered, self._newest)
        if not len(rows):
            return outputs
        if not self._any_order:
            self._newest[rows.code] = rows.time  # ascending: the last one stays
        rows = rows.take(np.lexsort((self._rank[rows.code], rows.time, self._owner[rows.code], rows.pack)))
        owner = self._owner[rows.code]
        parts = np.flatnonzero((np.diff(owner, prepend=-1) != 0) | (np.diff(rows.pack, prepend=-1) != 0)).tolist()
        first_of_pack = set(begins(rows.pack).tolist())
        readings = list(zip(rows.code.tolist(), rows.time.tolist(), rows.value.tolist(), strict=True))
        made = _Made()
        for part, end in zip(parts, [*parts[1:], len(rows)], strict=True):
            if part in first_of_pack:
                made.end_pack(outputs)
            error = self._apply(readings[part:end], made)
            if error is not None:
                outputs.failures.append(Failure(rows.take(np.arange(part, end)).to_pack(self._name), error))
        made.end_pack(outputs)
        if made.time:
            outputs.derived.append(made.column(self._unit))
        return outputs

    def _know_new_names(self) -> None:
        new = self._series[len(self._newest) :]
        if new:
            newest = [self._kept(series.owner).newest.get(series.name, NEVER) for series in new]
            self._newest = np.concatenate([self._newest, np.array(newest, dtype=np.int64)])
            self._owner = np.array([self._numbers[series.owner] for series in self._series], dtype=np.int64)
            # What a device measured at one time is taken in order of names: codes are others after a restart.
            self._rank = np.argsort(np.argsort([series.name for series in self._series]))

    def _kept(self, owner: str) -> _Kept:
        state = self._states.get(owner)
        return _Kept({}, {}) if state is None else _decode(state)

    def _apply(self, readings: Sequence[tuple[int, int, float]], made: _Made) -> Exception | None:
        """Call the function with the readings of one state that came in one pack.

        Returns:
            What the function raised: then nothing is made, and the state is as before, but for the times.
        """
        owner = self._series[readings[0][0]].owner
        kept = self._kept(owner)
        mark, problem = made.mark(), None
        try:
            for code, time, value in readings:
                series = self._series[code]
                answer = self._function(Reading(series.device, series.metric, time, value), kept.state)
                if answer is not None:
                    made.add(series.output, time, answer, self._name)
            _encode(kept.state)  # it may hold what cannot be kept
        except Exception as error:  # noqa: BLE001 - it is the user's code: whatever it raises is told with the readings
            problem = error
            made.back_to(mark)
            kept = self._kept(owner)
        if self._any_order:
            return problem
        for code, time, _ in readings:
            kept.newest[self._series[code].name] = time
        self._states[owner] = _encode(kept)
        self._changed[owner] = None
        return problem


class _Made:
    """Derived readings and events as they are made, one after the other."""

    def __init__(self) -> None:
        self.names: dict[str, int] = {}
        self.series: list[int] = []
        self.time: list[int] = []
        self.value: list[float] = []
        self.events: list[Event] = []

    def mark(self) -> tuple[int, int]:
        return len(self.time), len(self.events)

    def back_to(self, mark: tuple[int, int]) -> None:
        """Take back what was made since a mark."""
        del self.series[mark[0] :], self.time[mark[0] :], self.value[mark[0] :], self.events[mark[1] :]

    def end_pack(self, outputs: Outputs) -> None:
        """Tell the events of a pack, in an order that does not depend on which series were heard of first."""
        outputs.events += sorted(self.events, key=lambda event: (event.time, event.device, event.metric))
        self.events.clear()

    def add(self, name: str, time: int, answer: Any, analytic: str) -> None:
        """Enter what a function returned or yielded for a reading."""
        for one in (answer,) if isinstance(answer, _ONE) else answer:
            if isinstance(one, Event):
                self.events.append(named(one, analytic))
            elif one is not None and math.isfinite(number := float(one)):
                self.series.append(self.names.setdefault(name, len(self.names)))
                self.time.append(time)
                self.value.append(number)

    def column(self, unit: str) -> Derived:
        series = np.array(self.series, dtype=np.int64)
        used, series = np.unique(series, return_inverse=True)
        names = list(self.names)
        time, value = np.array(self.time, dtype=np.int64), np.array(self.value, dtype=np.float64)
        return Derived([names[at] for at in used.tolist()], series, time, value, unit)


_ONE = (float, int, Event, np.floating, np.integer)
