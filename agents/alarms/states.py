"""The alarms that have a row, what of them has changed since that was last asked, and how changes are told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from agents.alarms import wording
from agents.alarms.machine import NORMAL, AlarmState, Change
from agents.alarms.series import Series
from isotherm.alarms import AlarmRow, alarm_key
from isotherm.events import Event
from isotherm.rules import Rule

Inputs = dict[str, tuple[int, float]]
"""Metric → time and value of its newest reading."""


class Move(NamedTuple):
    """An alarm was raised or cleared by a reading.

    Attributes:
        place: Of the reading in the order of arrival.
        state: The alarm.
        rule: Its rule.
        change: What happened.
        time: Of the reading, µs.
        value: Of the reading, or the rate; None where there is no one value.
        inputs: What the rule looked at.
    """

    place: int
    state: AlarmState
    rule: Rule
    change: Change
    time: int
    value: float | None
    inputs: Inputs


class States:
    """Alarms by their keys."""

    def __init__(self, series: Series, units: dict[str, str]) -> None:
        """Begin without any; ``units`` are those of the series by name, as far as they are known."""
        self._series = series
        self.units = units
        self._by_key: dict[str, AlarmState] = {}
        self._dirty: set[str] = set()
        self._gone: set[str] = set()
        self._kept: set[str] = set()  # keys whose rows were told
        self._seen: list[AlarmState] = []

    def load(self, rows: Mapping[str, bytes]) -> None:
        """Begin with rows that were kept."""
        decode = msgspec.msgpack.Decoder(AlarmRow).decode
        self._by_key = {key: AlarmState(decode(row)) for key, row in rows.items()}
        self._dirty, self._gone, self._kept = set(), set(), set(self._by_key)

    def all(self) -> list[AlarmState]:
        """Return every alarm that has a row."""
        return list(self._by_key.values())

    def of(self, rule: Rule, number: int, sources: tuple[int, ...]) -> AlarmState:
        """Return the alarm of a rule on a series or device, a new one where there is none."""
        device, _, metric = self._series.names[number].partition("/")
        state = self._by_key.get(alarm_key(rule.id, device, metric))
        if state is None:
            state = AlarmState(AlarmRow(rule=rule.id, kind=rule.kind, device=device, metric=metric, severity=rule.severity))
            self._by_key[state.key] = state
            self._gone.discard(state.key)
        state.rule, state.sources = rule, sources
        return state

    def see(self, state: AlarmState) -> None:
        """Note that an alarm has seen readings; what they moved is told later, by `tell`."""
        self._seen.append(state)

    def touch(self, state: AlarmState) -> None:
        """Note that an alarm is not as it was; one that was never raised and is in order is forgotten."""
        if state.phase == NORMAL and not state.row.since:
            self.forget(state)
        elif state.waiting != state.row.waiting or state.key not in self._kept:
            self._dirty.add(state.key)

    def forget(self, state: AlarmState) -> None:
        """Drop an alarm's row."""
        if self._by_key.pop(state.key, None) is not None:
            self._dirty.discard(state.key)
            if state.key in self._kept:
                self._gone.add(state.key)

    def inputs(self, state: AlarmState) -> Inputs:
        """Return what an alarm looks at, as it is now."""
        series = self._series
        known = (number for number in state.sources if series.newest[number])
        return {series.metric(n): (int(series.newest[n]), float(series.last[n])) for n in known}

    def changes(self) -> tuple[dict[str, bytes], list[str]]:
        """Return the rows that have changed since this was last asked, and the keys of those that are gone."""
        rows = {}
        for key in sorted(self._dirty):
            state = self._by_key[key]
            state.row.waiting = state.waiting
            rows[key] = msgspec.msgpack.encode(state.row)
        gone = sorted(self._gone)
        self._kept.update(rows)
        self._kept.difference_update(gone)
        self._dirty, self._gone = set(), set()
        return rows, gone

    def tell(self, moves: Sequence[Move]) -> list[Event]:
        """Write moves into the rows and return their events, in the order given."""
        return [self._raise(move) if move.change == "raised" else self._clear(move) for move in moves]

    def settle(self) -> None:
        """Note what the alarms have become that have seen readings; call it when all moves are told."""
        for state in self._seen:
            self.touch(state)
        self._seen = []

    def end(self, state: AlarmState, time: int, message: str) -> Event:
        """Clear an alarm for another reason than a reading."""
        row = state.row
        row.cleared, row.message = max(time, row.since), message
        state.phase, state.waiting = NORMAL, 0
        self._dirty.add(row.key)
        return _event("alarm.cleared", row, row.cleared, message, row.value, row.unit)

    def _raise(self, move: Move) -> Event:
        row, rule = move.state.row, move.rule
        row.kind, row.severity = rule.kind, rule.severity
        row.since, row.cleared, row.times = max(move.time, row.since + 1), 0, row.times + 1
        row.value, row.unit = move.value, self._unit(rule, row)
        row.message = wording.raised(rule, row.device, row.metric, row.value, row.unit, self._shown(row, move.inputs))
        self._dirty.add(row.key)
        return _event("alarm.raised", row, row.since, row.message, row.value, row.unit)

    def _clear(self, move: Move) -> Event:
        row = move.state.row
        row.cleared = max(move.time, row.since)
        unit = self._unit(move.rule, row)
        said = wording.cleared(move.rule, row.device, row.metric, move.value, unit, self._shown(row, move.inputs))
        self._dirty.add(row.key)
        return _event("alarm.cleared", row, row.cleared, said, move.value, unit)

    def _unit(self, rule: Rule, row: AlarmRow) -> str:
        if rule.kind not in ("threshold", "rate"):
            return ""
        unit = self.units.get(f"{row.device}/{row.metric}", "")
        return wording.unit_of_rate(rule, unit) if rule.kind == "rate" else unit

    def _shown(self, row: AlarmRow, inputs: Inputs) -> str:
        units = self.units
        return ", ".join(
            f"{metric} {wording.measured(value, units.get(f'{row.device}/{metric}', ''))}"
            for metric, (_, value) in inputs.items()
        )


def _event(kind: str, row: AlarmRow, time: int, message: str, value: float | None, unit: str) -> Event:
    return Event(
        kind=kind,
        device=row.device,
        time=time,
        message=message,
        severity=row.severity,
        metric=row.metric,
        value=value,
        unit=unit,
        alarm=row.key,
        since=row.since,
        rule=row.rule,
    )
