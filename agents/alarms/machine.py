"""The states of one alarm, and how a reading moves it from one to the next.

                 beyond                     held for long enough
        NORMAL ─────────► PENDING ─────────────────────────────► ACTIVE      (raised)
          ▲ ◄───────────────┘ not beyond                          │ ▲
          │                                                within │ │ not within
          │  within for long enough                               ▼ │
          └──────────────────────────────────────────────────── CLEARING     (cleared)

Between the limit that raises and the one that clears, a reading is neither beyond nor within: an alarm stays what it is.
"""

from __future__ import annotations

from typing import Literal

from isotherm.alarms import AlarmRow
from isotherm.rules import Rule

NORMAL, PENDING, ACTIVE, CLEARING = range(4)
WITHIN, BETWEEN, BEYOND = -1, 0, 1

Change = Literal["raised", "cleared"]


class AlarmState:
    """An alarm that has a row.

    Attributes:
        key: What it is known by.
        row: As it is in the table.
        phase: NORMAL, PENDING, ACTIVE or CLEARING.
        waiting: Event time since when a PENDING or CLEARING one is that, µs.
        sources: Numbers of the series it looks at.
        rule: The rule that watches; None when none does any more.
    """

    __slots__ = ("key", "phase", "row", "rule", "sources", "waiting")

    def __init__(self, row: AlarmRow, sources: tuple[int, ...] = (), rule: Rule | None = None) -> None:
        self.key = row.key
        self.row = row
        self.rule = rule
        self.sources = sources
        self.waiting = row.waiting
        if row.is_active:
            self.phase = CLEARING if row.waiting else ACTIVE
        else:
            self.phase = PENDING if row.waiting else NORMAL

    def step(self, verdict: int, time: int, hold: int, clear_after: int) -> Change | None:
        """Take in a reading.

        Args:
            verdict: BEYOND, BETWEEN or WITHIN the rule's limits.
            time: Of the reading, µs.
            hold, clear_after: Of the rule, µs.
        """
        if self.phase < ACTIVE:
            return self._towards(verdict == BEYOND, time, hold, (NORMAL, PENDING, ACTIVE), "raised")
        return self._towards(verdict == WITHIN, time, clear_after, (ACTIVE, CLEARING, NORMAL), "cleared")

    def _towards(self, is_so: bool, time: int, enough: int, phases: tuple[int, int, int], change: Change) -> Change | None:
        resting, moving, there = phases
        if not is_so:
            self.phase, self.waiting = resting, 0
            return None
        if self.phase == resting:
            self.waiting = time
        if time - self.waiting < enough:
            self.phase = moving
            return None
        self.phase, self.waiting = there, 0
        return change

    def elapse(self, lasted: int, hold: int, clear_after: int) -> Change | None:
        """Let time pass without a reading: what is being held has lasted so long, µs."""
        if self.phase == PENDING and lasted >= hold:
            self.phase, self.waiting = ACTIVE, 0
            return "raised"
        if self.phase == CLEARING and lasted >= clear_after:
            self.phase, self.waiting = NORMAL, 0
            return "cleared"
        return None
