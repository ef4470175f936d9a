"""The pipeline in figures, as all sessions of this process see it: the ledger, how fast it grows, and the analytics."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dashboards.log import LogSource
from dashboards.source import Source
from isotherm import ledger
from isotherm.analytics import Analytics, Entry, Status
from isotherm.ledger import Ledger, Line
from isotherm.settings import Settings
from isotherm.store.client import Client

LOOK_SECONDS = 2.0
IDLE_SECONDS = 10.0
"""So that a page opens with the last minutes: a few hashes every ten seconds."""

RATE_SECONDS = 5.0
"""A rate is that of the last so many seconds, or more: connectors report once a second."""

SAMPLES = 300
"""Kept of the throughput: ten minutes that somebody watches, more where nobody does."""

SCAN_SECONDS = 5.0
"""How often is looked for new connector processes, which is a walk over all keys; one that stores something is known
without."""

SCAN_SHARE = 0.01
"""The greatest part of the time that those walks may take."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The throughput at one moment.

    Attributes:
        at: µs since the epoch UTC.
        accepted, stored: Readings a second.
        connectors: Protocol → readings accepted a second.
    """

    at: int
    accepted: float
    stored: float
    connectors: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Figures:
    """What pages draw.

    Attributes:
        ledger: What was received, and what became of it.
        total: The sum of its lines.
        samples: Of the last minutes, ascending by time.
        still: Since when nothing more is stored although something is in flight, s; 0 when that is not so.
        entries: The analytics that there are.
        running: How their processes are doing.
        hosts: The processes that host them.
    """

    ledger: Ledger
    total: Line
    samples: Sequence[Sample]
    still: float
    entries: Mapping[str, Entry]
    running: Sequence[Status]
    hosts: Sequence[str]


class PipelineSource(Source[Figures]):
    """Follows the ledger for all sessions of this process."""

    def __init__(self, redis: Client, settings: Settings, log: LogSource) -> None:
        super().__init__("pipeline", self._figures, seconds=LOOK_SECONDS, idle_seconds=IDLE_SECONDS)
        self._redis = redis
        self._partitions = settings.partitions
        self._log = log
        self._analytics = Analytics(redis)
        self._meter = Meter()
        self._known: set[str] = set()
        self._scan_at = 0.0

    async def _figures(self) -> Figures:
        if (began := time.monotonic()) >= self._scan_at:
            self._known |= await ledger.processes(self._redis)
            self._scan_at = began + max(SCAN_SECONDS, (time.monotonic() - began) / SCAN_SHARE)
        log_id = self._log.value.id if self._log.value is not None else None
        found = await ledger.read_all(self._redis, self._partitions, log_id, self._known)
        self._known.update(found.processes)
        entries, running, hosts = (
            await self._analytics.entries(),
            await self._analytics.running(),
            await self._analytics.hosts(),
        )
        total = sum(found.connectors.values(), Line())
        self._meter.take(found.connectors, total)
        return Figures(found, total, tuple(self._meter.samples), self._meter.still, entries, running, hosts)


class Meter:
    """Makes throughput of one ledger after the other."""

    def __init__(self) -> None:
        self.samples: deque[Sample] = deque(maxlen=SAMPLES)
        self._counts: deque[tuple[float, dict[str, int], int]] = deque()
        self._moved = 0.0
        self._now = 0.0
        self._last: Line | None = None

    @property
    def still(self) -> float:
        """Since when nothing more is stored although something is in flight, s."""
        return self._now - self._moved if self._last is not None and self._last.in_flight else 0.0

    def take(self, lines: Mapping[str, Line], total: Line, now: float | None = None, at: int | None = None) -> None:
        """Take in the next ledger.

        Args:
            lines: Protocol → line.
            total: Their sum.
            now: When it was read, s, of a clock that never goes back.
            at: The same, µs since the epoch UTC.
        """
        self._now = time.monotonic() if now is None else now
        at = time.time_ns() // 1000 if at is None else at
        last = self._last
        if last is None or not last.in_flight or _arrived(last) != _arrived(total):
            self._moved = self._now
        self._last = total
        accepted = {name: line.accepted for name, line in lines.items()}
        while len(self._counts) > 1 and self._counts[1][0] <= self._now - RATE_SECONDS:
            self._counts.popleft()
        if self._counts:
            before, accepted_before, stored_before = self._counts[0]
            seconds = max(self._now - before, 1e-3)
            # A store that lost its last second has smaller numbers than before: that is no negative rate.
            each = {name: max(0, count - accepted_before.get(name, 0)) / seconds for name, count in accepted.items()}
            stored = max(0, _arrived(total) - stored_before) / seconds
            self.samples.append(Sample(at, sum(each.values()), stored, each))
        self._counts.append((self._now, accepted, _arrived(total)))


def _arrived(line: Line) -> int:
    return line.stored + line.duplicates
