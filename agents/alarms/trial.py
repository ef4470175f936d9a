"""A rule over stored history: when it would have raised its alarms, and when they would have been cleared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agents.alarms.directory import Directory
from agents.alarms.engine import GAP, AlarmEngine
from isotherm.events import Event
from isotherm.limits import SECOND
from isotherm.pack import Pack
from isotherm.registry import Device
from isotherm.rules import Rule
from isotherm.rules.targets import is_for, matches, metrics_of
from isotherm.store.history import History
from isotherm.store.reader import Latest, Reader

STEP = 5 * SECOND
"""How often the engine is asked what time has brought; every GAP over a long range."""

MAX_STEPS = 20_000


@dataclass(frozen=True, slots=True)
class Episode:
    """An alarm from when it was raised to when it was cleared, if it was."""

    raised: Event
    cleared: Event | None


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of a rule.

    Attributes:
        episodes: Ascending by when they were raised.
        series: How many it looked at.
        readings: How many it was given.
        coarsest: Width of the widest rows among them, µs; 0 when all are raw readings.
        skipped: Rows that are too wide for the rule's length of silence.
    """

    episodes: Sequence[Episode]
    series: int
    readings: int
    coarsest: int
    skipped: int


async def tried(rule: Rule, reader: Reader, devices: Mapping[str, Device], start: int, end: int) -> Trial:
    """Run a rule over [start, end); nothing is written.

    Where only rolled-up rows are kept, a threshold sees the greatest value of a row (or the least, for ``below``) at its
    begin and the last at its time; a rate and an expression see the last.

    Raises:
        Unavailable: the store does not answer.
    """
    known = [one for one in await reader.latest() if is_for(rule, devices.get(one.device) or Device(one.device, 0))]
    series = [one for one in known if any(matches(pattern, one.metric) for pattern in metrics_of(rule))]
    names = [f"{one.device}/{one.metric}" for one in series]
    numbers = {name: number for number, name in enumerate(names)}
    times, values, which, skipped, coarsest = [], [], [], 0, 0
    async for name, rows in reader.stored(names, start, end):
        fine = rows.width * 2 <= rule.silence if rule.kind == "silence" else np.ones(len(rows), dtype=np.bool_)
        skipped += int(len(rows) - fine.sum())
        time, value = _readings(rule, rows, fine)
        coarsest = max(coarsest, int(rows.width[fine].max(initial=0)))
        times.append(time)
        values.append(value)
        which.append(np.full(len(time), numbers[name]))
    columns = _sorted(times, values, which)
    events = list(_events(rule, devices, series, names, columns, end))
    return Trial(_episodes(events), len(names), len(columns[0]), coarsest, skipped)


_Columns = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]


def _sorted(times: list[NDArray[np.int64]], values: list[NDArray[np.float64]], which: list[NDArray[np.int64]]) -> _Columns:
    time = np.concatenate([np.empty(0, dtype=np.int64), *times])
    order = np.argsort(time, kind="stable")
    value = np.concatenate([np.empty(0), *values])
    return time[order], value[order], np.concatenate([np.empty(0, dtype=np.int64), *which])[order]


def _readings(rule: Rule, rows: History, fine: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return readings that stand for rows, raw or rolled up: time and value."""
    begin, several = rows.time[fine], (rows.count[fine] > 1)
    times, values = [np.maximum(rows.last_at[fine], begin + 2 * several)], [rows.last[fine]]
    if rule.kind == "threshold":
        for limit, column, after in ((rule.above, rows.max, 0), (rule.below, rows.min, 1)):
            if limit is not None:
                times.append(begin[several] + after)
                values.append(column[fine][several])
    return np.concatenate(times), np.concatenate(values)


def _events(
    rule: Rule, devices: Mapping[str, Device], series: Sequence[Latest], names: Sequence[str], columns: _Columns, end: int
) -> Iterator[Event]:
    """Yield what the engine says."""
    time, value, which = columns
    if not len(time):
        return
    units = {name: one.unit for name, one in zip(names, series, strict=True) if one.unit}
    # A device that sends is registered, or would be soon: its silence is minded.
    about = {one.device: devices.get(one.device) or Device(one.device, 0) for one in series}
    engine = AlarmEngine(Directory([rule], about, units))
    first = int(time[0])
    step = STEP if (end - first) // STEP <= MAX_STEPS else GAP
    yield from engine.tick(first).events
    for now in range(first + step, end + step, step):
        low, high = np.searchsorted(time, (now - step, min(now, end))).tolist()
        if low < high:
            index = which[low:high].astype(np.int32)
            pack = Pack(names, index, time[low:high], value[low:high], "trial/1", int(time[high - 1]))
            yield from engine.run([pack]).events
        yield from engine.tick(min(now, end)).events


def _episodes(events: Sequence[Event]) -> list[Episode]:
    cleared = {(event.alarm, event.since): event for event in events if event.kind == "alarm.cleared"}
    raised = [event for event in events if event.kind == "alarm.raised"]
    return [Episode(event, cleared.get((event.alarm, event.since))) for event in raised]
