"""Alarms: what is wrong and who has seen it, live; and the rules that say so."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
import panel as pn

from dashboards import shell
from dashboards.alarms import AlarmSource, Board, RuleList
from dashboards.components import AlarmTable, RuleTable
from dashboards.desk import Desk, Unmatched
from dashboards.feed import Feed
from dashboards.pages.session import Session
from dashboards.requests import (
    Acknowledge,
    Enable,
    Preview,
    Remove,
    Request,
    Save,
    Shelve,
    Stop,
    Unshelve,
    understood,
)
from dashboards.rules import WrongFields
from dashboards.visitor import Visitor, visitor
from isotherm.accounts.role import Role
from isotherm.clock import now_us
from isotherm.errors import IsothermError

MAX_ASKED = 8
"""Requests of one session that are worked on at a time."""


def page(feed: Feed, source: AlarmSource, desk: Desk) -> pn.Template:
    """Build the page for one session."""
    return AlarmsPage(feed, source, desk, visitor()).template


class AlarmsPage(Session):
    """One open alarms page.

    Each table is told everything when it is ready, then what has changed. A request of the browser is answered to the
    table that asked: ``{kind: "answer", n, …}`` with what was done, or what is wrong.
    """

    def __init__(self, feed: Feed, source: AlarmSource, desk: Desk, visitor: Visitor) -> None:
        super().__init__(feed)
        self._source = source
        self._desk = desk
        self._visitor = visitor
        self._shown: Mapping[str, Mapping[str, Any]] = {}
        self._rules: RuleList | None = None
        self._ready: set[str] = set()
        self._asked: set[asyncio.Task[None]] = set()
        self._preview: asyncio.Task[None] | None = None
        self._alarm_table = AlarmTable(hear=lambda data: self._heard(self._alarm_table, "alarms", data))
        self._rule_table = RuleTable(hear=lambda data: self._heard(self._rule_table, "rules", data))
        self.template = shell.page(alarms=self._alarm_table, rules=self._rule_table)

    def end(self) -> None:
        """Let go of everything outside the session; what was asked for is still done, a preview is not."""
        super().end()
        self._source.release(self)
        if self._preview is not None:
            self._preview.cancel()

    def board_changed(self) -> None:
        """Draw what is new."""
        board, problem = self._source.value, self._source.problem
        with self.drawing():
            if "alarms" in self._ready:
                self._draw_alarms(board, problem)
            if "rules" in self._ready and board is not None and self._rules is not board.rules:
                self._rules = board.rules
                self._rule_table.send(
                    {
                        "kind": "rules",
                        "may": self._visitor.may(Role.OPERATOR),
                        "rules": list(board.rules.forms),
                        "broken": list(board.rules.broken),
                    }
                )

    def _draw_alarms(self, board: Board | None, problem: str | None) -> None:
        before, self._shown = self._shown, board.alarms if board is not None else {}
        self._alarm_table.send(
            {
                "kind": "alarms",
                "now": now_us() / 1000,
                "may": self._visitor.may(Role.OPERATOR),
                "known": board is not None,
                "problem": problem,
                "count": board.count if board is not None else 0,
                "rules": sum(form["enabled"] for form in board.rules.forms) if board is not None else 0,
                "unwatched": board.unwatched if board is not None else "",
                "changed": [row for key, row in self._shown.items() if before.get(key) is not row],
                "gone": [key for key in before if key not in self._shown],
            }
        )

    def _heard(self, table: AlarmTable | RuleTable, name: str, data: Any) -> None:
        if data == "ready":
            self._ready.add(name)
            if len(self._ready) == 2:
                self._source.watch(self, AlarmsPage.board_changed)
            return
        try:
            request = understood(data)
        except msgspec.ValidationError as error:
            self._answer(table, 0, error=f"this is no request: {error}")
            return
        if isinstance(request, (Stop, Preview)) and self._preview is not None:
            self._preview.cancel()
            self._preview = None
        if isinstance(request, Stop):
            return
        if len(self._asked) >= MAX_ASKED:
            self._answer(table, request.n, error="one thing after the other, please")
            return
        task = asyncio.create_task(self._do(table, request), name="alarms-request")
        self._asked.add(task)
        task.add_done_callback(self._asked.discard)
        if isinstance(request, Preview):
            self._preview = task

    async def _do(self, table: AlarmTable | RuleTable, request: Request) -> None:
        try:
            done = await self._deed(request)
        except WrongFields as error:
            self._answer(table, request.n, fields=dict(error.fields), anyway=isinstance(error, Unmatched))
        except IsothermError as error:
            self._answer(table, request.n, error=str(error))
        else:
            self._answer(table, request.n, done=done)

    def _deed(self, request: Request) -> Awaitable[Any]:
        desk, who = self._desk, self._visitor
        deeds: dict[type, Callable[[Any], Awaitable[Any]]] = {
            Acknowledge: lambda one: desk.acknowledge(who, [(seen.key, seen.since) for seen in one.alarms], one.note),
            Shelve: lambda one: desk.shelve(who, one.key, one.seconds),
            Unshelve: lambda one: desk.unshelve(who, one.key),
            Save: lambda one: desk.save(who, one.form, base=one.base, anyway=one.anyway),
            Enable: lambda one: desk.enable(who, one.id, one.enabled),
            Remove: lambda one: desk.remove(who, one.id),
            Preview: lambda one: desk.preview(who, one.form),
        }
        return deeds[type(request)](request)

    def _answer(self, table: AlarmTable | RuleTable, n: int, **answer: Any) -> None:
        with self.drawing():
            table.send({"kind": "answer", "n": n, **answer})
