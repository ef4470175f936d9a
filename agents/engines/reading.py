"""The engine of `forms.per_reading`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from agents.engine import Changes, Derived, Failure, Outputs
from agents.engines.naming import named, output_series
from agents.gather import NEVER, Codes, Rows, begins, gather, in_order, wanted
from agents.readings import Reading
from isotherm.events import Event
from isotherm.pack import Pack

State = dict[str, Any]


class ReadingEngine:
    """Calls a function with each reading, and keeps a dict for each series or device.

    What the function raises concerns the readings of that series (or device) in the pack alone: its state is as before.
    """

    def __init__(
        self, name: str, function: Callable[[Reading, State], Any], inputs: str, output: str, unit: str, per: str
    ) -> None:
        self._name = name
        self._function = function
        self._wanted = wanted(inputs, output)
        self._output = output
        self._unit = unit
        self._per_device = per == "device"
        self._states: dict[str, _Kept] = {}
        self._changed: dict[str, None] = {}
        self._names: list[str] = []
        self._codes = Codes(self._code)
        self._newest = np.empty(0, dtype=np.int64)

    def _code(self, name: str) -> int:
        if not self._wanted(name):
            return -1
        self._names.append(name)
        return len(self._names) - 1

    def load(self, rows: Mapping[str, bytes]) -> None:
        """Begin with a state."""
        self._codes.clear()
        self._names.clear()
        self._newest = np.empty(0, dtype=np.int64)
        self._changed.clear()
        self._states = {key: msgspec.msgpack.decode(row, type=_Kept) for key, row in rows.items()}

    def changes(self) -> Changes:
        """Return what has changed."""
        rows = {key: msgspec.msgpack.encode(self._states[key]) for key in self._changed}
        self._changed.clear()
        return Changes(rows)

    def tick(self, now: int) -> Outputs:
        """Nothing happens by itself."""
        return Outputs()

    def run(self, packs: Sequence[Pack]) -> Outputs:
        """Take in packs."""
        outputs = Outputs()
        gathered = gather(packs, self._codes)
        rows = in_order(gathered, self._times())
        if not len(rows):
            return outputs
        rows = rows.take(np.lexsort((rows.code, rows.time, rows.pack)))
        made = _Made()
        groups: dict[str, list[int]] = {}
        for at, code in enumerate(rows.code.tolist()):
            groups.setdefault(self._key(code), []).append(at)
        for key, group in groups.items():
            chosen = np.array(group)
            for part in np.split(chosen, begins(rows.pack[chosen])[1:]):
                self._apply(key, rows.take(part), made, outputs)
        if made.names:
            outputs.derived.append(made.column(self._unit))
        return outputs

    def _key(self, code: int) -> str:
        name = self._names[code]
        return name.partition("/")[0] if self._per_device else name

    def _times(self) -> NDArray[np.int64]:
        """Return code → newest time."""
        known = len(self._newest)
        if known < len(self._names):
            more = np.full(max(64, len(self._names)), NEVER)
            for at, name in enumerate(self._names[known:]):
                kept = self._states.get(self._key(known + at))
                more[at] = NEVER if kept is None else kept.newest.get(name, NEVER)
            self._newest = np.concatenate([self._newest, more[: len(self._names) - known]])
        return self._newest

    def _apply(self, key: str, rows: Rows, made: _Made, outputs: Outputs) -> None:
        """Call the function with the readings of one state that came in one pack."""
        before = self._states.get(key)
        kept = _Kept({}, {}) if before is None else msgspec.msgpack.decode(msgspec.msgpack.encode(before), type=_Kept)
        answers: list[tuple[Reading, Any]] = []
        try:
            for code, time, value in zip(rows.code.tolist(), rows.time.tolist(), rows.value.tolist(), strict=True):
                device, _, metric = self._names[code].partition("/")
                reading = Reading(device, metric, time, value)
                answers += ((reading, one) for one in _each(self._function(reading, kept.state)))
            msgspec.msgpack.encode(kept)
        except Exception as error:  # noqa: BLE001 - it is the user's code: whatever it raises is told with the readings
            outputs.failures.append(Failure(rows.to_pack(self._name), error))
            kept = _Kept({}, {}) if before is None else before
        else:
            for reading, answer in answers:
                if isinstance(answer, Event):
                    outputs.events.append(named(answer, self._name))
                else:
                    made.add(output_series(f"{reading.device}/{reading.metric}", self._output), reading.time, answer)
        for code, time in zip(rows.code.tolist(), rows.time.tolist(), strict=True):
            kept.newest[self._names[code]] = time
            self._newest[code] = time
        self._states[key] = kept
        self._changed[key] = None


class _Kept(msgspec.Struct, array_like=True):
    """What is kept for a series or a device: the newest time of each of its series, and the function's own state."""

    newest: dict[str, int]
    state: State


class _Made:
    """Derived readings as they are made, one after the other."""

    def __init__(self) -> None:
        self.names: dict[str, int] = {}
        self._rows: list[tuple[int, int, float]] = []

    def add(self, name: str, time: int, value: Any) -> None:
        number = float(value)
        if np.isfinite(number):
            self._rows.append((self.names.setdefault(name, len(self.names)), time, number))

    def column(self, unit: str) -> Derived:
        series, time, value = zip(*self._rows, strict=True) if self._rows else ((), (), ())
        return Derived(
            list(self.names), np.array(series, np.int64), np.array(time, np.int64), np.array(value, np.float64), unit
        )


def _each(answer: Any) -> Iterable[Any]:
    """Return what a function returned or yielded, one after the other."""
    if answer is None:
        return ()
    if isinstance(answer, float | int | Event | np.floating | np.integer):
        return (answer,)
    return [one for one in answer if one is not None]
