"""Expressions: at each reading of one of its metrics an expression is evaluated with the newest values of all of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from agents.alarms.machine import BEYOND, NORMAL, WITHIN, AlarmState
from agents.alarms.series import Column, Readings, Series
from agents.alarms.states import Inputs, Move, States
from isotherm.expression import Expression
from isotherm.rules import Rule


class ExpressionWatch:
    """One expression rule on one device.

    Attributes:
        rule: Which one.
        number: Of the device.
        function: The expression.
        metrics: What it takes.
        sources: Numbers of their series.
        values, times: Of their newest readings; None and 0 before there is one.
        missing: How many have none.
        time: Of the newest of them, µs.
        state: Its alarm, if it has one.
    """

    __slots__ = ("function", "metrics", "missing", "number", "rule", "sources", "state", "time", "times", "values")

    def __init__(self, rule: Rule, expression: Expression, number: int, sources: tuple[int, ...]) -> None:
        self.rule = rule
        self.number = number
        self.function = expression.function
        self.metrics = expression.variables
        self.sources = sources
        self.values = [0.0] * len(sources)
        self.times = [0] * len(sources)
        self.missing = len(sources)
        self.time = 0
        self.state: AlarmState | None = None

    def set(self, slot: int, time: int, value: float) -> None:
        """Take in a reading of one of the metrics."""
        if not self.times[slot]:
            self.missing -= 1
        self.times[slot], self.values[slot] = time, value
        if time > self.time:
            self.time = time

    def inputs(self) -> Inputs:
        """Return the newest readings."""
        return {
            metric: (time, value) for metric, time, value in zip(self.metrics, self.times, self.values, strict=True) if time
        }


class Expressions:
    """The watches of expression rules."""

    def __init__(self, series: Series, states: States) -> None:
        self._series = series
        self._states = states
        self._parsed: dict[str, Expression] = {}
        self._watches: dict[tuple[str, int], ExpressionWatch] = {}
        self._of_series: defaultdict[int, list[tuple[ExpressionWatch, int]]] = defaultdict(list)
        self._is_watched = Column(np.bool_)  # by number of the series

    def add(self, rules: Sequence[Rule]) -> None:
        """Watch the next series, by its number, with these rules."""
        number = len(self._is_watched.values)
        self._is_watched.extend((bool(rules),))
        for rule in rules:
            device = int(self._series.device[number])
            watch = self._watches.get((rule.id, device)) or self._new(rule, device)
            slot = watch.sources.index(number)
            self._of_series[number].append((watch, slot))
            if time := int(self._series.newest[number]):
                watch.set(slot, time, float(self._series.last[number]))

    def attach(self, state: AlarmState, rule: Rule, number: int) -> bool:
        """Let the watch of a rule on a device go on with an alarm; returns whether there is that watch."""
        watch = self._watches.get((rule.id, number))
        if watch is None:
            return False
        watch.state, state.rule, state.sources = state, rule, watch.sources
        return True

    def let_go(self, state: AlarmState) -> None:
        """Take note of an alarm that was cleared by itself."""
        watch = self._watches.get((state.row.rule, self._series[state.row.device]))
        if watch is not None:
            watch.state = None

    def run(self, readings: Readings, moves: list[Move]) -> None:
        """Take in readings, and note what they raise and clear."""
        if not self._watches:
            return
        counts = readings.ends - readings.starts
        rows = np.flatnonzero(np.repeat(self._is_watched.values[readings.series], counts))
        rows = rows[np.argsort(readings.place[rows])]
        numbers = np.repeat(readings.series, counts)[rows].tolist()
        columns = readings.place[rows].tolist(), readings.time[rows].tolist(), readings.value[rows].tolist()
        of_series = self._of_series
        for number, place, time, value in zip(numbers, *columns, strict=True):
            for watch, slot in of_series[number]:
                watch.set(slot, time, value)
                if not watch.missing:
                    self._look(watch, place, moves)

    def _look(self, watch: ExpressionWatch, place: int, moves: list[Move]) -> None:
        result = watch.function(*watch.values)
        is_so = result != 0.0 and result == result  # as isotherm.expression.is_true
        state = watch.state
        if state is None:
            if not is_so:
                return
            watch.state = state = self._states.of(watch.rule, watch.number, watch.sources)
        change = state.step(BEYOND if is_so else WITHIN, watch.time, watch.rule.hold, watch.rule.clear_after)
        if change:
            moves.append(Move(place, state, watch.rule, change, watch.time, None, watch.inputs()))
        self._states.see(state)
        if state.phase == NORMAL:
            watch.state = None

    def _new(self, rule: Rule, device: int) -> ExpressionWatch:
        expression = self._parsed.get(rule.expression)
        if expression is None:
            expression = self._parsed[rule.expression] = Expression.parse(rule.expression)
        name = self._series.names[device]
        sources = tuple(self._series[f"{name}/{metric}"] for metric in expression.variables)
        watch = self._watches[rule.id, device] = ExpressionWatch(rule, expression, device, sources)
        return watch
