"""Thresholds: all watches at once are asked whether anything can have changed; only where it can, readings are looked at.

The watches of a series lie one after another (compressed sparse rows), in columns. Of a series that is in order, a batch can
change nothing unless its greatest or least reading is beyond a limit; of an active alarm, unless one can be within.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from agents.alarms.machine import ACTIVE, BETWEEN, BEYOND, NORMAL, WITHIN, AlarmState
from agents.alarms.series import Column, Readings, Series
from agents.alarms.states import Move, States
from isotherm.rules import Rule


class Thresholds:
    """The watches of threshold rules."""

    def __init__(self, series: Series, states: States) -> None:
        self._series = series
        self._states = states
        self._rules: list[Rule] = []  # of each watch
        self._first = Column(np.int64)  # series → its first watch; one more at the end
        self._first.extend((0,))
        self._above, self._below = Column(np.float64), Column(np.float64)
        self._clear_above, self._clear_below = Column(np.float64), Column(np.float64)
        self._high, self._low = Column(np.float64), Column(np.float64)  # nothing can change between them
        self._phase = Column(np.int8)
        self._alarms: dict[int, AlarmState] = {}  # of the watches that have one

    def add(self, rules: Sequence[Rule]) -> None:
        """Watch the next series, by its number, with these rules."""
        self._rules += rules
        self._first.extend((len(self._rules),))
        if not rules:
            return
        limits = [rule.limits for rule in rules]
        self._above.extend([one.above for one in limits])
        self._below.extend([one.below for one in limits])
        self._clear_above.extend([one.clear_above for one in limits])
        self._clear_below.extend([one.clear_below for one in limits])
        self._high.extend([one.above for one in limits])
        self._low.extend([one.below for one in limits])
        self._phase.extend([NORMAL] * len(rules))

    def attach(self, state: AlarmState, rule: Rule, number: int) -> bool:
        """Let the watch of a rule on a series go on with an alarm; returns whether there is that watch."""
        first, end = self._first.values[number : number + 2].tolist()
        for watch in range(first, end):
            if self._rules[watch].id == rule.id:
                state.rule, state.sources = rule, (number,)
                self._put(watch, state)
                return True
        return False

    def run(self, readings: Readings, moves: list[Move]) -> None:
        """Take in readings, and note what they raise and clear."""
        first = self._first.values
        begin = first[readings.series]
        counts = first[readings.series + 1] - begin
        total = int(counts.sum())
        if not total:
            return
        run = np.repeat(np.arange(len(counts)), counts)  # of each watch of these series: which run of readings
        watch = np.arange(total) + np.repeat(begin - (np.cumsum(counts) - counts), counts)
        least = np.minimum.reduceat(readings.value, readings.starts)[run]
        greatest = np.maximum.reduceat(readings.value, readings.starts)[run]
        some = np.flatnonzero((greatest > self._high.values[watch]) | (least < self._low.values[watch]))
        if not len(some):
            return
        watch, run, least, greatest = watch[some], run[some], least[some], greatest[some]
        outside = (least > self._clear_above.values[watch]) | (greatest < self._clear_below.values[watch])
        stays = outside & (self._phase.values[watch] == ACTIVE)
        for one, of in zip(watch[~stays].tolist(), run[~stays].tolist(), strict=True):
            self._look(one, of, readings, moves)

    def _look(self, watch: int, run: int, readings: Readings, moves: list[Move]) -> None:
        """Take in the readings of one series for one watch, one by one."""
        rule, number = self._rules[watch], int(readings.series[run])
        limits = rule.limits
        above, below, clear_above, clear_below = limits.above, limits.below, limits.clear_above, limits.clear_below
        state = self._alarms.get(watch) or self._states.of(rule, number, (number,))
        hold, clear_after, metric = rule.hold, rule.clear_after, self._series.metric(number)
        part = slice(int(readings.starts[run]), int(readings.ends[run]))
        rows = zip(readings.place[part].tolist(), readings.time[part].tolist(), readings.value[part].tolist(), strict=True)
        for place, time, value in rows:
            if value > above or value < below:
                verdict = BEYOND
            else:
                verdict = WITHIN if clear_below <= value <= clear_above else BETWEEN
            change = state.step(verdict, time, hold, clear_after)
            if change:
                moves.append(Move(place, state, rule, change, time, value, {metric: (time, value)}))
        self._states.see(state)
        self._put(watch, state)

    def settle(self, state: AlarmState) -> None:
        """Take note of an alarm that has changed by itself."""
        for watch in range(*self._first.values[state.sources[0] : state.sources[0] + 2].tolist()):
            if self._alarms.get(watch) is state:
                self._put(watch, state)

    def _put(self, watch: int, state: AlarmState) -> None:
        is_normal = state.phase == NORMAL
        self._phase.values[watch] = state.phase
        self._high.values[watch] = self._above.values[watch] if is_normal else -np.inf
        self._low.values[watch] = self._below.values[watch]
        if is_normal:
            self._alarms.pop(watch, None)
        else:
            self._alarms[watch] = state
