"""Silence: nothing came of a series, or of a device, for as long as its rule says."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from agents.alarms.machine import ACTIVE, NORMAL, AlarmState
from agents.alarms.series import Arrived, Column, Series
from agents.alarms.states import Move, States
from isotherm.rules import Rule


class Silence:
    """The watches of silence rules."""

    def __init__(self, series: Series, states: States) -> None:
        self._series = series
        self._states = states
        self._rules: list[Rule] = []  # of each watch
        self._number, self._span, self._is_silent = Column(np.int64), Column(np.int64), Column(np.bool_)
        self._silent: defaultdict[int, dict[int, AlarmState]] = defaultdict(dict)  # number → watch → alarm
        self._watches: dict[tuple[str, int], int] = {}
        self._expected: set[int] = set()
        self.minded: set[int] = set()
        """Numbers of the series, not the devices, that were heard of and whose silence is minded."""
        self.is_minded_changed = True

    def add(self, rule: Rule, number: int) -> None:
        """Watch a series or device."""
        self._watches[rule.id, number] = len(self._rules)
        self._rules.append(rule)
        self._number.extend((number,))
        self._span.extend((rule.silence,))
        self._is_silent.extend((False,))
        if self._series.device[number] != number:
            self._expected.add(number)
            self._note_heard()

    def attach(self, state: AlarmState, rule: Rule, number: int) -> bool:
        """Let the watch of a rule on a series or device go on with an alarm; returns whether there is that watch."""
        watch = self._watches.get((rule.id, number))
        if watch is None:
            return False
        state.rule, state.sources = rule, ()
        self._silent[number][watch] = state
        self._is_silent.values[watch] = True
        return True

    def run(self, arrived: Arrived, moves: list[Move]) -> None:
        """Take note of what came, late readings too."""
        heard, series = self._series.heard, arrived.series
        heard[series] = np.maximum(heard[series], arrived.received_at)
        if not self._rules:
            return
        devices = self._series.device[series]
        np.maximum.at(heard, devices, arrived.received_at)
        if self._expected:
            self._note_heard()
        if self._silent:
            self._end(arrived.series, arrived, moves)
            self._end(devices, arrived, moves)

    def _note_heard(self) -> None:
        """Mind the silence of the expected series that have come."""
        heard = {number for number in self._expected if self._series.heard[number]}
        if heard:
            self._expected -= heard
            self.minded |= heard
            self.is_minded_changed = True

    def _end(self, numbers: NDArray[np.int64], arrived: Arrived, moves: list[Move]) -> None:
        """Clear the alarms of what is heard of again."""
        rows = np.flatnonzero(np.isin(numbers, np.fromiter(self._silent, np.int64)))
        first: dict[int, tuple[int, int]] = {}
        columns = numbers[rows].tolist(), arrived.first[rows].tolist(), arrived.first_received_at[rows].tolist()
        for number, place, received_at in zip(*columns, strict=True):
            first[number] = min(first.get(number, (place, received_at)), (place, received_at))
        for number, (place, received_at) in first.items():
            for watch, state in self._silent.pop(number).items():
                self._is_silent.values[watch] = False
                state.phase = NORMAL
                moves.append(Move(place, state, self._rules[watch], "cleared", received_at, None, {}))

    def due(self, now: int, resumed: int) -> Iterator[Move]:
        """Yield what has been silent for too long, and note it.

        Args:
            now: µs since the epoch UTC.
            resumed: Since when the engine could have heard, µs.
        """
        numbers = self._number.values
        heard = self._series.heard[numbers]
        unheard = numbers[(heard == 0) & (self._series.device[numbers] == numbers)]
        self._series.heard[unheard] = now  # a device is expected from now on, a series when it has come once
        quiet = now - np.maximum(heard, resumed) >= self._span.values
        for watch in np.flatnonzero(quiet & (heard > 0) & ~self._is_silent.values).tolist():
            number, rule = int(self._number.values[watch]), self._rules[watch]
            state = self._states.of(rule, number, ())
            state.phase = ACTIVE
            self._silent[number][watch] = state
            self._is_silent.values[watch] = True
            yield Move(0, state, rule, "raised", now, None, {})
