"""Rates: how fast a value changes, over a window that is at least so long.

The rate at a reading is its difference to the newest reading that is a window or more older, by the time between them;
without such a reading there is none, and an alarm stays what it is. Of a window at most some POINTS are kept, evenly spaced.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from agents.alarms.machine import BETWEEN, BEYOND, NORMAL, WITHIN, AlarmState
from agents.alarms.series import Column, Readings, Series
from agents.alarms.states import Move, States
from isotherm.rules import Rule

POINTS = 32
"""Readings kept of a window, which sets how exactly its length is kept: to a 32nd."""


class Window(msgspec.Struct, array_like=True):
    """What later readings of a series are compared with.

    Attributes:
        span: Length of the window, µs.
        points: Time and value of readings, ascending.
    """

    span: int
    points: list[tuple[int, float]]


class RateWatch:
    """One rate rule on one series.

    Attributes:
        rule: Which one.
        number: Of the series.
        key: Rule and series.
        window: What later readings are compared with.
        state: Its alarm, if it has one.
    """

    __slots__ = ("_per", "_spacing", "key", "number", "rule", "state", "window")

    def __init__(self, rule: Rule, number: int, key: str, window: Window | None = None) -> None:
        self.rule = rule
        self.number = number
        self.key = key
        is_same = window is not None and window.span == rule.window_us
        self.window = window if window is not None and is_same else Window(rule.window_us, [])
        self.state: AlarmState | None = None
        self._spacing = rule.window_us // POINTS
        self._per = rule.per_us

    def rate(self, time: int, value: float) -> float | None:
        """Take in a reading, and return the rate at it, if there is one."""
        points, since = self.window.points, time - self.window.span
        while len(points) > 1 and points[1][0] <= since:
            del points[0]
        rate = None
        if points and points[0][0] <= since:
            then, before = points[0]
            rate = (value - before) / (time - then) * self._per
        if not points or time - points[-1][0] >= self._spacing:
            points.append((time, value))
        return rate


class Rates:
    """The watches of rate rules."""

    def __init__(self, series: Series, states: States, windows: Mapping[str, Window]) -> None:
        """Begin without any; ``windows`` are those of before, by rule and series, good for rules of the same span."""
        self._series = series
        self._states = states
        self._before = windows
        self._touched: dict[str, Window] = {}
        self._watches: defaultdict[int, list[RateWatch]] = defaultdict(list)
        self._is_watched = Column(np.bool_)  # by number of the series

    def add(self, rules: Sequence[Rule]) -> None:
        """Watch the next series, by its number, with these rules."""
        number = len(self._is_watched.values)
        self._is_watched.extend((bool(rules),))
        for rule in rules:
            key = f"{rule.id}/{self._series.names[number]}"
            self._watches[number].append(RateWatch(rule, number, key, self._before.get(key)))

    def windows(self) -> dict[str, Window]:
        """Return the windows by rule and series."""
        return {watch.key: watch.window for watches in self._watches.values() for watch in watches}

    def changes(self) -> dict[str, Window]:
        """Return those that have changed since this was last asked."""
        touched, self._touched = self._touched, {}
        return touched

    def attach(self, state: AlarmState, rule: Rule, number: int) -> bool:
        """Let the watch of a rule on a series go on with an alarm; returns whether there is that watch."""
        watch = self._find(rule.id, number)
        if watch is None:
            return False
        watch.state, state.rule, state.sources = state, rule, (number,)
        points = watch.window.points
        if not points and (time := int(self._series.newest[number])):
            points.append((time, float(self._series.last[number])))
        return True

    def run(self, readings: Readings, moves: list[Move]) -> None:
        """Take in readings, and note what they raise and clear."""
        if not self._watches:
            return
        for run in np.flatnonzero(self._is_watched.values[readings.series]).tolist():
            part = slice(int(readings.starts[run]), int(readings.ends[run]))
            columns = readings.place[part].tolist(), readings.time[part].tolist(), readings.value[part].tolist()
            for watch in self._watches[int(readings.series[run])]:
                self._look(watch, list(zip(*columns, strict=True)), moves)

    def _look(self, watch: RateWatch, rows: Sequence[tuple[int, int, float]], moves: list[Move]) -> None:
        rule, state, number = watch.rule, watch.state, watch.number
        self._touched[watch.key] = watch.window
        limits = rule.limits
        for place, time, value in rows:
            rate = watch.rate(time, value)
            if rate is None:
                continue
            if rate > limits.above or rate < limits.below:
                verdict = BEYOND
            elif state is None:
                continue
            else:
                verdict = WITHIN if limits.clear_below <= rate <= limits.clear_above else BETWEEN
            if state is None:
                state = self._states.of(rule, number, (number,))
            change = state.step(verdict, time, rule.hold, rule.clear_after)
            if change:
                inputs = {self._series.metric(number): (time, value)}
                moves.append(Move(place, state, rule, change, time, rate, inputs))
        if state is not None:
            self._states.see(state)
            watch.state = None if state.phase == NORMAL else state

    def _find(self, rule: str, number: int) -> RateWatch | None:
        return next((watch for watch in self._watches.get(number, ()) if watch.rule.id == rule), None)
