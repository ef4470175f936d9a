"""The engine of alarms: one partition's readings against the rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from agents.alarms import wording
from agents.alarms.directory import Directory
from agents.alarms.expressions import Expressions
from agents.alarms.index import RuleIndex
from agents.alarms.machine import NORMAL, PENDING, AlarmState
from agents.alarms.memory import Memory
from agents.alarms.rates import Rates, Window
from agents.alarms.series import Readings, Series, gather
from agents.alarms.silence import Silence
from agents.alarms.states import Move, States
from agents.alarms.thresholds import Thresholds
from agents.engine import Changes, Outputs
from isotherm.alarms import is_alarm_key
from isotherm.events import Event
from isotherm.limits import DAY, SECOND
from isotherm.pack import Pack
from isotherm.registry import Device
from isotherm.rules import Rule

GAP = 30 * SECOND
"""An engine that was not asked for longer, or is behind by more, may not have heard what was sent."""

KEPT = 7 * DAY
"""How long the row of a cleared alarm is kept."""

MAX_CLEARED = 10_000
"""Rows of cleared alarms that a partition keeps; beyond, those go first that were cleared first."""


class AlarmEngine:
    """Implements agents.engine.Engine; `refresh` tells it the rules, before the first pack and whenever they change."""

    def __init__(self, directory: Directory | None = None) -> None:
        self._directory = Directory()
        self._is_told = False  # the directory: before that nobody knows what an alarm is of
        self._index = RuleIndex(())
        self._units: dict[str, str] = {}
        self._recalled: dict[str, Window]  # of rates that nobody watches yet
        self._ending: list[tuple[AlarmState, int, str]]  # to be cleared, what they were, and why
        self._ticked: int | None
        self._resumed: int  # since when everything that was sent was heard, µs
        self._newest_received: int  # since the last tick, µs
        self._reset()
        if directory is not None:
            self.refresh(directory)

    def load(self, rows: Mapping[str, bytes]) -> None:
        """Begin with a state."""
        self._reset()
        alarms = {key: row for key, row in rows.items() if is_alarm_key(key)}
        self._states.load(alarms)
        seen = {key: row for key, row in rows.items() if key not in alarms}
        self._recalled = self._memory.load(seen, self._series)
        if self._is_told:
            self._watch_all()

    def refresh(self, directory: Directory) -> None:
        """Take note of the present rules and devices.

        Alarms of rules that are gone, disabled, or about other things now are cleared with the next `run` or `tick`.
        """
        before, self._directory = self._directory, directory
        is_first, self._is_told = not self._is_told, True
        self._units.update(directory.units)
        had_rules = bool(self._index.rules)
        rules_changed = list(before.rules) != list(directory.rules)
        if rules_changed:
            self._index = RuleIndex(directory.rules)
        if not is_first and not rules_changed and not self._devices_changed(before.devices, directory.devices):
            return
        if not had_rules and not is_first:  # nothing was looked at, so nothing is known of what came meanwhile
            self._series.heard[:] = 0
        self._watch_all(removed=before.devices.keys() - directory.devices.keys())

    def run(self, packs: Sequence[Pack]) -> Outputs:
        """Take in some packs, in the order of their offsets."""
        for pack in packs:
            self._newest_received = max(self._newest_received, pack.received_at)
        packs = [pack for pack in packs if len(pack.value) or pack.units]
        if not packs:
            return Outputs()
        events = self._end(packs[0].received_at)
        moves: list[Move] = []
        if self._index.rules:
            arrived, readings = gather(packs, self._series)
            self._watch_new()
            self._silence.run(arrived, moves)
            self._thresholds.run(readings, moves)
            self._rates.run(readings, moves)
            self._expressions.run(readings, moves)
            self._remember(readings)
        moves.sort(key=lambda move: (move.place, move.rule.id))
        events += self._tell(packs, moves)
        return Outputs(events=events)

    def tick(self, now: int) -> Outputs:
        """Let time pass: what is held, silence, and rows that are old."""
        was_away = self._ticked is None or now - self._ticked > GAP
        is_behind = bool(self._newest_received) and now - self._newest_received > GAP
        if was_away or is_behind:
            self._resumed = now
        self._ticked, self._newest_received = now, 0
        events = self._end(now)
        moves = [*self._elapsed(now), *self._silence.due(now, self._resumed)]
        moves.sort(key=lambda move: move.state.key)
        events += self._states.tell(moves)
        self._states.settle()
        self._forget(now)
        return Outputs(events=events)

    def changes(self) -> Changes:
        """Return the rows that have changed since this was last asked, and the keys of those that are gone."""
        rows, gone = self._states.changes()
        if self._is_told:
            seen = self._memory.changes(self._series, self._silence, self._rates)
            return Changes({**rows, **seen.rows}, [*gone, *seen.gone])
        return Changes(rows, gone)

    def _reset(self) -> None:
        self._series = Series()
        self._states = States(self._series, self._units)
        self._memory = Memory()
        self._recalled = {}
        self._is_rearranged = False
        self._ending = []
        self._ticked = None
        self._resumed = 0
        self._newest_received = 0
        self._no_watches({})

    def _no_watches(self, windows: Mapping[str, Window]) -> None:
        self._watched = 0  # series that have their watches
        self._thresholds = Thresholds(self._series, self._states)
        self._rates = Rates(self._series, self._states, windows)
        self._expressions = Expressions(self._series, self._states)
        self._silence = Silence(self._series, self._states)

    def _watch_all(self, removed: set[str] | frozenset[str] = frozenset()) -> None:
        """Give every series its watches anew, and the alarms to those that go on with them."""
        for state, phase, _ in self._ending:
            state.phase = phase
        self._ending = []
        self._no_watches(self._rates.windows() | self._recalled)
        self._recalled = {}
        self._is_rearranged = True
        if any(rule.kind == "silence" and not rule.metric for rule in self._index.rules.values()):
            for name in self._directory.devices:
                self._series[name]
        held = [state for state in self._states.all() if state.phase != NORMAL]
        for state in held:
            self._series[state.key.partition("/")[2]]
        self._watch_new()
        self._memory.sweep()
        for state in held:
            is_gone = state.row.device in removed
            if is_gone or not self._attach(state):
                self._orphan(state, is_gone)

    def _watch_new(self) -> None:
        """Give the series that have none their watches."""
        series = self._series
        while self._watched < len(series.names):
            number = self._watched
            self._watched += 1
            name, slash, metric = series.names[number].partition("/")
            device = self._directory.devices.get(name)
            of = self._index.of_series if slash else None
            about = device or Device(name, 0)
            rules = of(about, metric) if of else self._index.of_device(about)
            series.is_followed[number] = any(rule.kind != "silence" for rule in rules)
            self._thresholds.add([rule for rule in rules if rule.kind == "threshold"])
            self._rates.add([rule for rule in rules if rule.kind == "rate"])
            self._expressions.add([rule for rule in rules if rule.kind == "expression"])
            for rule in rules:
                if rule.kind == "silence" and device is not None:
                    self._silence.add(rule, number)

    def _attach(self, state: AlarmState) -> bool:
        """Let the watch that an alarm came from go on with it; returns whether there is one."""
        rule = self._index.rules.get(state.row.rule)
        if rule is None or rule.kind != state.row.kind:
            return False
        attach: dict[str, Callable[[AlarmState, Rule, int], bool]] = {
            "threshold": self._thresholds.attach,
            "rate": self._rates.attach,
            "expression": self._expressions.attach,
            "silence": self._silence.attach,
        }
        return attach[rule.kind](state, rule, self._series[state.key.partition("/")[2]])

    def _orphan(self, state: AlarmState, is_gone: bool) -> None:
        """See to an alarm that nothing watches any more."""
        rules = {rule.id: rule for rule in self._directory.rules}
        id = state.row.rule
        why = wording.ended(id, rules.get(id), state.row.device, is_gone)
        was, state.phase = state.phase, NORMAL
        if was == PENDING:
            state.waiting = 0
            self._states.touch(state)
        else:
            self._ending.append((state, was, why))

    def _end(self, time: int) -> list[Event]:
        """Clear the alarms that nothing watches any more."""
        if self._is_rearranged:
            self._series.forget_unfollowed()
            self._memory.sweep()
            self._is_rearranged = False
        ending, self._ending = self._ending, []
        ending.sort(key=lambda one: one[0].key)
        return [self._states.end(state, time, why) for state, _, why in ending]

    def _remember(self, readings: Readings) -> None:
        series = self._series
        followed = np.flatnonzero(series.is_followed[readings.series])
        numbers, last = readings.series[followed], readings.ends[followed] - 1
        series.newest[numbers] = readings.time[last]
        series.last[numbers] = readings.value[last]
        self._memory.touch(numbers)

    def _tell(self, packs: Sequence[Pack], moves: Sequence[Move]) -> list[Event]:
        """Tell moves with the units as they were known when each happened."""
        events: list[Event] = []
        told, place = 0, 0
        for pack in packs:
            self._units.update(pack.units)
            place += len(pack.value)
            first = told
            while told < len(moves) and moves[told].place < place:
                told += 1
            events += self._states.tell(moves[first:told])
        self._states.settle()
        return events

    def _elapsed(self, now: int) -> list[Move]:
        """Return what has been held for long enough while nothing came. A rate is not held by what does not come."""
        found = []
        series = self._series
        for state in self._states.all():
            rule = state.rule
            if not state.waiting or rule is None or rule.kind == "rate" or not state.sources:
                continue
            sources = list(state.sources)
            seen, heard = int(series.newest[sources].max()), int(series.heard[sources].max())
            lasted = seen - state.waiting + now - max(heard, self._resumed)
            since = state.waiting
            change = state.elapse(lasted, rule.hold, rule.clear_after)
            if change is None:
                continue
            inputs = self._states.inputs(state)
            value = None if rule.kind == "expression" else float(series.last[sources[0]])
            time = since + (rule.hold if change == "raised" else rule.clear_after)
            found.append(Move(0, state, rule, change, max(time, seen), value, inputs))
            self._states.see(state)
            self._settle(state)
        return found

    def _settle(self, state: AlarmState) -> None:
        """Tell the watch of an alarm that has changed by itself."""
        assert state.rule is not None
        if state.rule.kind == "threshold":
            self._thresholds.settle(state)
        elif state.phase == NORMAL:
            self._expressions.let_go(state)

    def _forget(self, now: int) -> None:
        """Drop the rows of alarms that were cleared long ago, or are too many."""
        cleared = [state for state in self._states.all() if state.phase == NORMAL and state.row.cleared]
        for state in cleared:
            if now - state.row.cleared > KEPT:
                self._states.forget(state)
        if len(cleared) > MAX_CLEARED:
            cleared.sort(key=lambda state: (state.row.cleared, state.key))
            for state in cleared[: len(cleared) - MAX_CLEARED]:
                self._states.forget(state)

    def _devices_changed(self, before: Mapping[str, Device], now: Mapping[str, Device]) -> bool:
        """Tell whether what rules look at has changed of any device."""
        if before.keys() != now.keys():
            return True
        return any(device.type != now[name].type or device.labels != now[name].labels for name, device in before.items())
