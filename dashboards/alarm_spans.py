"""Occurrences of alarms as spans of time, as charts mark them: from what happened, and from what is the case."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from isotherm.alarms.table import Alarm
from isotherm.events import SEVERITIES, Event, Severity
from isotherm.limits import DAY

COLORS: dict[Severity, str] = {
    "critical": "#d13438",
    "major": "#e0662b",
    "minor": "#d9a300",
    "warning": "#a09d1a",
    "info": "#5b8db8",
}

AHEAD = DAY
"""How far a span reaches beyond now while its alarm is active, µs: the charts go no further."""


@dataclass(frozen=True, slots=True)
class Span:
    """One occurrence.

    Attributes:
        alarm: Key of the alarm.
        start, end: µs since the epoch UTC.
        is_active: It is not cleared; ``end`` is only how far it is drawn.
        severity: How bad it is.
        message: What was said when it was raised.
    """

    alarm: str
    start: int
    end: int
    is_active: bool
    severity: Severity
    message: str

    @property
    def color(self) -> str:
        """Of its mark."""
        return COLORS[self.severity]


Spans = Sequence[Span]


def spans(events: Iterable[Event], alarms: Iterable[Alarm], now: int) -> list[Span]:
    """Return the occurrences that events and the table of alarms tell of, newest first.

    The table knows the last occurrence of each alarm, events those before it, as far as they are kept. One whose clearing
    is no longer known, because an event is missing, ends where the next one of its alarm begins.

    Args:
        events: In any order; those that are not of alarms are passed over.
        alarms: The table.
        now: µs since the epoch UTC.
    """
    raised: dict[tuple[str, int], tuple[Severity, str]] = {}
    cleared: dict[tuple[str, int], int] = {}
    for event in events:
        if event.kind == "alarm.raised":
            raised[event.alarm, event.since or event.time] = event.severity, event.message
        elif event.kind == "alarm.cleared":
            cleared[event.alarm, event.since] = event.time
    for one in alarms:
        row = one.row
        raised.setdefault((row.key, row.since), (row.severity, row.message))
        if row.cleared:
            cleared[row.key, row.since] = row.cleared
    found: list[Span] = []
    following: dict[str, int] = {}
    for (alarm, since), (severity, message) in sorted(raised.items(), key=lambda item: -item[0][1]):
        end = cleared.get((alarm, since)) or following.get(alarm)
        found.append(Span(alarm, since, end or now + AHEAD, end is None, severity, message))
        following[alarm] = since
    return found


def worst(severities: Iterable[Severity]) -> Severity | None:
    """Return the worst of some severities, or None of none.

    >>> worst(["minor", "critical", "info"])
    'critical'
    """
    return min(severities, key=SEVERITIES.index, default=None)
