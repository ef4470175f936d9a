"""The table of alarms and the rules, as all sessions of this process see them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dashboards.rules import form_of
from dashboards.source import Source
from isotherm.alarms import Alarm, Alarms
from isotherm.analytics import Analytics
from isotherm.events import SEVERITIES
from isotherm.rules import Rules
from isotherm.settings import Settings
from isotherm.store.client import Client
from isotherm.store.events import EventLog
from isotherm.units import symbol

LOOK_SECONDS = 0.4
"""How often is looked whether anything has happened: one small round trip."""

ANYWAY_SECONDS = 5.0
"""Everything is read this often though no event says so: a shelf's time passes, and old rows go."""

EVALUATOR = "alarms"
"""The analytic that evaluates the rules."""

MAX_ALARMS = 2_000
"""Alarms that a page has; what needs attention, then the worst, then the newest go before."""


@dataclass(frozen=True, slots=True)
class Board:
    """What pages draw.

    Attributes:
        alarms: Key → row of alarms.js, at most MAX_ALARMS. A row that has not changed is the same object as before.
        count: How many there are.
        rules: What rules.js draws of them. While no rule has changed it is the same object as before.
        unwatched: Why no alarm would be raised now, though there are rules; empty when all is well.
    """

    alarms: Mapping[str, Mapping[str, Any]]
    count: int
    rules: RuleList
    unwatched: str


@dataclass(frozen=True, slots=True)
class RuleList:
    """The rules as forms, ascending by id, and what is wrong with those that cannot be used."""

    forms: Sequence[Mapping[str, Any]]
    broken: Sequence[str]


class AlarmSource(Source[Board]):
    """Follows alarms and rules for all sessions of this process."""

    def __init__(self, redis: Client, settings: Settings) -> None:
        super().__init__("alarms", self._board, seconds=LOOK_SECONDS)
        self._alarms = Alarms(redis, settings.partitions)
        self._rules = Rules(redis)
        self._events = EventLog(redis, settings.partitions)
        self._analytics = Analytics(redis)
        self._partitions = settings.partitions
        self._seen: object = None
        self._anyway_at = 0.0
        self._version: int | None = None
        self._rule_list = RuleList((), ())

    async def _board(self) -> Board:
        # Before the rest: what happens in between is seen the next time.
        ends, version = await self._events.ends(), await self._rules.version()
        if version != self._version or self.problem is not None:  # the store may have come back without what it had
            rules, broken = await self._rules.usable()
            self._rule_list, self._version = RuleList([form_of(rule) for rule in rules], broken), version
        seen = ends, version, (await self._unwatched() if self._rule_list.forms else "")
        if self.value is not None and seen == self._seen and time.monotonic() < self._anyway_at:
            return self.value
        self._seen = None
        alarms = sorted(await self._alarms.list(), key=_rank)
        before = self.value
        rows = {one.row.key: _kept(before, one) for one in alarms[:MAX_ALARMS]}
        self._seen, self._anyway_at = seen, time.monotonic() + ANYWAY_SECONDS
        board = Board(rows, len(alarms), self._rule_list, seen[-1])
        return before if before is not None and before == board else board

    async def _unwatched(self) -> str:
        statuses = [one for one in await self._analytics.running() if one.name == EVALUATOR]
        watched = {partition for one in statuses if one.state == "running" for partition in one.partitions}
        if len(watched) == self._partitions:
            return ""
        if not (await self._analytics.entries())[EVALUATOR].is_enabled:
            return f"The analytic “{EVALUATOR}” is disabled (isotherm agent enable {EVALUATOR})."
        if any(one.state in ("failing", "refused") for one in statuses):
            return f"The analytic “{EVALUATOR}” fails; the Pipeline page says why."
        if statuses:
            return f"The analytic “{EVALUATOR}” is starting, which takes some seconds."
        return f"The analytic “{EVALUATOR}” does not run anywhere (isotherm agent run)."


def _rank(alarm: Alarm) -> tuple[bool, int, int]:
    return not alarm.needs_attention, SEVERITIES.index(alarm.row.severity), -alarm.row.since


def _kept(before: Board | None, alarm: Alarm) -> Mapping[str, Any]:
    """Return the row of an alarm; of one that has not changed, the row that it had."""
    row = row_of(alarm)
    held = before.alarms.get(alarm.row.key) if before is not None else None
    return held if held == row else row


def row_of(alarm: Alarm) -> dict[str, Any]:
    """Return an alarm as alarms.js draws it. Times are µs; what a device has named is text of a stranger's."""
    row, seen, shelf = alarm.row, alarm.acknowledged, alarm.shelved
    return {
        "key": row.key,
        "rule": row.rule,
        "device": row.device,
        "metric": row.metric,
        "severity": row.severity,
        "since": row.since,
        "cleared": row.cleared,
        "times": row.times,
        "message": row.message,
        "value": row.value,
        "unit": symbol(row.unit),
        "acknowledged": {"by": seen.by, "time": seen.time, "note": seen.note} if seen else None,
        "shelved": {"by": shelf.by, "until": shelf.until, "key": alarm.shelf} if shelf else None,
    }
