"""The engine of the analytic ``presence``: which devices are there, each judged by its own cadence.

A device is heard of when a pack with anything of it is received; what follows within a second belongs to the same arrival,
because many devices send each metric as a message of its own. The median of the last intervals between arrivals is its
cadence: one gap, or one burst, does not change it. Silence is judged as time passes, once all that came is taken in. When
the platform itself was away, silence counts from its return.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.engine import Changes, Outputs
from agents.gather import NEVER, Codes, gather
from agents.table import Table
from isotherm.events import Event, Severity
from isotherm.limits import SECOND
from isotherm.pack import Pack
from isotherm.presence import INTERVALS, ROW, STATUSES

BURST = 1 * SECOND
"""What arrives so shortly after the begin of an arrival belongs to it, µs."""

AWAY = 30 * SECOND
"""Without a tick for so long, it is the platform that was away, µs."""

UNKNOWN_CADENCE = 60 * SECOND
"""Of a device that was heard of once, µs."""

DERIVED = "agent/"
"""Begin of the connector of what analytics make: that is no sign of life."""

ONLINE, LATE, OFFLINE = range(len(STATUSES))
NEW = -1
"""Status of a device that was not heard of yet; never stored."""

_SEVERITIES: tuple[Severity, ...] = ("info", "warning", "minor")


@dataclass(frozen=True, slots=True)
class Limits:
    """When a device is late, and when offline.

    Attributes:
        late_after, offline_after: Cadences without anything.
        least_late, least_offline: However short its cadence, not before that, µs.
    """

    late_after: float
    offline_after: float
    least_late: int
    least_offline: int


class _Arrivals(NamedTuple):
    """Devices that were heard of, in order of arrival; each of shape (n,), one for each device and pack."""

    code: NDArray[np.int64]
    time: NDArray[np.int64]


class PresenceEngine:
    """Keeps a row for each device."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        never = (NEVER, NEVER, 0, [0] * INTERVALS, NEW)
        self._table = Table(np.array(never, dtype=ROW))
        self._codes = Codes(lambda series: self._table.code(series.partition("/")[0]))
        self._cadence = np.empty(0, dtype=np.int64)  # by code
        self._ticked = self._since = NEVER

    def load(self, rows: Mapping[str, bytes]) -> None:
        """Begin with a state; silence counts from the next tick on."""
        self._codes.clear()
        self._table.load(rows)
        self._cadence = _cadences(self._table.rows)
        self._ticked = self._since = NEVER

    def changes(self) -> Changes:
        """Return what has changed."""
        return self._table.changes()

    def run(self, packs: Sequence[Pack]) -> Outputs:
        """Take in packs: every device in them is there."""
        outputs = Outputs()
        arrivals = self._arrivals(packs)
        rows = self._table.rows
        if len(rows) > len(self._cadence):
            new = np.full(len(rows) - len(self._cadence), UNKNOWN_CADENCE)
            self._cadence = np.concatenate([self._cadence, new])
        for code, time in _rounds(arrivals):
            is_back = (rows["status"][code] != ONLINE) & (time > rows["seen"][code])
            outputs.events += map(self._came, code[is_back].tolist(), time[is_back].tolist())
            rows["status"][code[is_back]] = ONLINE
            self._enter(code, time)
        outputs.events.sort(key=lambda event: (event.time, event.device))
        self._table.touch(np.unique(arrivals.code))
        return outputs

    def _arrivals(self, packs: Sequence[Pack]) -> _Arrivals:
        packs = [pack for pack in packs if not pack.connector.startswith(DERIVED)]
        rows = gather(packs, self._codes)
        said = [(self._codes[one.series], at) for at, pack in enumerate(packs) for one in pack.attributes]
        code, number = (np.fromiter((one[column] for one in said), np.int64, len(said)) for column in (0, 1))
        pairs = np.unique(np.concatenate([rows.pack, number]) * len(self._table) + np.concatenate([rows.code, code]))
        received = np.array([pack.received_at for pack in packs], dtype=np.int64)
        pack, code = np.divmod(pairs, max(1, len(self._table)))
        return _Arrivals(code, received[pack])

    def _enter(self, code: NDArray[np.int64], time: NDArray[np.int64]) -> None:
        """Enter that each of some devices was heard of."""
        rows = self._table.rows
        rows["seen"][code] = np.maximum(rows["seen"][code], time)
        arrived = rows["arrived"][code]
        is_next = time >= np.where(arrived == NEVER, time, arrived + BURST)
        code, time, arrived = code[is_next], time[is_next], arrived[is_next]
        before = rows["arrivals"][code]
        known = before > 0
        rows["intervals"][code[known], (before[known] - 1) % INTERVALS] = time[known] - arrived[known]
        rows["arrivals"][code] = before + 1
        rows["arrived"][code] = time
        self._cadence[code] = _cadences(rows[code])

    def tick(self, now: int) -> Outputs:
        """Let time pass: who has been silent for too long is late, and then offline."""
        if now - self._ticked > AWAY or self._ticked == NEVER:
            self._since = now
        self._ticked = now
        rows, limits = self._table.rows, self._limits
        silence = now - np.maximum(rows["seen"], self._since)
        is_late = silence > np.maximum(limits.late_after * self._cadence, limits.least_late)
        is_offline = silence > np.maximum(limits.offline_after * self._cadence, limits.least_offline)
        status = np.where(is_offline, OFFLINE, np.where(is_late, LATE, ONLINE))
        worse = np.flatnonzero((status > rows["status"]) & (rows["status"] != NEW))
        rows["status"][worse] = status[worse]
        self._table.touch(worse)
        return Outputs(
            events=[self._event(code, int(status[code]), now, self._silence(code, now)) for code in worse.tolist()]
        )

    def _silence(self, code: int, now: int) -> str:
        silence = _span(now - int(self._table.rows["seen"][code]))
        if self._table.rows["arrivals"][code] < 2:
            return f"nothing came for {silence}, since it was first heard of"
        return f"nothing came for {silence}, it uses to send every {_span(int(self._cadence[code]))}"

    def _came(self, code: int, time: int) -> Event:
        row = self._table.rows[code]
        if row["status"] == NEW:
            return self._event(code, ONLINE, time, "heard of for the first time")
        return self._event(code, ONLINE, time, f"is there again, after {_span(time - int(row['seen']))}")

    def _event(self, code: int, status: int, time: int, message: str) -> Event:
        kind, severity = f"presence.{STATUSES[status]}", _SEVERITIES[status]
        return Event(kind=kind, device=self._table.keys[code], time=time, message=message, severity=severity)


def _cadences(rows: NDArray[np.void]) -> NDArray[np.int64]:
    """Return the cadence of each device, as `isotherm.presence.cadence_of` does of one, µs."""
    count = np.minimum(rows["arrivals"] - 1, INTERVALS)
    empty = np.arange(INTERVALS) >= count[:, None]
    ascending = np.sort(np.where(empty, np.iinfo(np.int64).max, rows["intervals"]), axis=1)
    middle = np.maximum(count - 1, 0) // 2
    median = np.take_along_axis(ascending, middle[:, None], axis=1)[:, 0]
    return np.where(count > 0, median, UNKNOWN_CADENCE)


def _rounds(arrivals: _Arrivals) -> Sequence[_Arrivals]:
    """Return the first arrival of every device, then the second of those that have one, and so on."""
    order = np.argsort(arrivals.code, kind="stable")
    code = arrivals.code[order]
    nth = np.arange(len(code)) - np.searchsorted(code, code)
    some = (order[nth == at] for at in range(int(nth.max(initial=-1)) + 1))
    return [_Arrivals(arrivals.code[rows], arrivals.time[rows]) for rows in some]


def _span(span: int) -> str:
    """Return a length of time as people say it.

    >>> _span(42_400_000), _span(150_000_000), _span(11_000_000_000)
    ('42 s', '2.5 min', '3.1 h')
    """
    seconds = max(0, span) / SECOND
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{round(seconds / size, 1):g} {unit}"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
