"""The pipeline: what came in and what became of it, how fast, through which parts, and what was refused."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import asdict, dataclass
from typing import Any

import msgspec
import panel as pn

from dashboards import shell
from dashboards.components import PipelineBoard, RejectTable
from dashboards.feed import Feed
from dashboards.log import LogSource
from dashboards.pages.session import Session
from dashboards.parts import PartSource
from dashboards.pipeline import Figures, PipelineSource
from dashboards.rejects import Rejects, RejectSource
from dashboards.verdict import verdict
from isotherm.analytics import Entry, Status
from isotherm.clock import now_us
from isotherm.ledger import COLUMNS, Line
from isotherm.settings import Settings
from isotherm.store.client import Client

MAX_PROBLEM_CHARS = 2_000


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The sources of the page."""

    figures: PipelineSource
    log: LogSource
    parts: PartSource
    rejects: RejectSource

    @classmethod
    def of(cls, redis: Client, settings: Settings) -> Pipeline:
        """Return the sources of a process."""
        log = LogSource(redis, settings)
        figures = PipelineSource(redis, settings, log)
        return cls(figures, log, PartSource(settings, figures, log), RejectSource(settings, figures))

    def followers(self) -> dict[str, Coroutine[Any, Any, None]]:
        """Return what has to run, by name."""
        return {
            "pipeline": self.figures.run(), "log": self.log.run(), "parts": self.parts.run(), "rejects": self.rejects.run()
        }  # fmt: skip


class _Bytes(msgspec.Struct, frozen=True, tag_field="do", tag="bytes"):
    """Show the original bytes of a reject."""

    id: str
    n: int


def page(feed: Feed, pipeline: Pipeline) -> pn.Template:
    """Build the page for one session."""
    return PipelinePage(feed, pipeline).template


class PipelinePage(Session):
    """One open pipeline page. Everybody may see it, and nothing can be changed here."""

    def __init__(self, feed: Feed, pipeline: Pipeline) -> None:
        super().__init__(feed)
        self._pipeline = pipeline
        self._sampled = 0
        self._rejects: Rejects | None = None
        self._board = PipelineBoard(hear=self._board_ready)
        self._table = RejectTable(hear=self._heard)
        self.template = shell.page(pipeline=self._board, rejects=self._table)

    def end(self) -> None:
        """Let go of everything outside the session."""
        super().end()
        for source in (self._pipeline.figures, self._pipeline.log, self._pipeline.parts, self._pipeline.rejects):
            source.release(self)

    def figures_changed(self) -> None:
        """Draw the ledger and what goes with it."""
        source, log = self._pipeline.figures, self._pipeline.log
        message: dict[str, Any] = {"kind": "figures", "now": now_us() / 1000, "problem": source.problem}
        if (figures := source.value) is not None:
            message |= self._drawn(figures)
            message |= {"kafka": log.problem, "lag": list(log.value.lag) if log.value is not None else None}
        with self.drawing():
            self._board.send(message)
            if figures is not None:
                self._table.send({"kind": "reasons", "reasons": dict(figures.total.reasons)})

    def parts_changed(self) -> None:
        """Draw how the parts are."""
        found = self._pipeline.parts.value or ()
        with self.drawing():
            self._board.send({"kind": "parts", "parts": [asdict(one) for one in found]})

    def rejects_changed(self) -> None:
        """Draw the newest rejects; those that are known stay while Kafka is away."""
        source = self._pipeline.rejects
        message: dict[str, Any] = {"kind": "rejects", "now": now_us() / 1000, "problem": source.problem}
        if source.value is not None and source.value is not self._rejects:
            self._rejects = source.value
            message["rows"] = list(source.value.rows)
        with self.drawing():
            self._table.send(message)

    def _board_ready(self, data: Any) -> None:
        if data == "ready":
            self._pipeline.log.watch(self, PipelinePage.figures_changed)
            self._pipeline.figures.watch(self, PipelinePage.figures_changed)
            self._pipeline.parts.watch(self, PipelinePage.parts_changed)

    def _heard(self, data: Any) -> None:
        if data == "ready":
            self._pipeline.rejects.watch(self, PipelinePage.rejects_changed)
            return
        try:
            asked = msgspec.convert(data, type=_Bytes)
        except msgspec.ValidationError:
            return
        held = self._rejects.bytes.get(asked.id) if self._rejects is not None else None
        with self.drawing():
            self._table.send(
                {"kind": "answer", "n": asked.n, "done": held, "error": None if held is not None else "it is gone"}
            )

    def _drawn(self, figures: Figures) -> dict[str, Any]:
        log_is_known = self._pipeline.log.value is not None
        rates = figures.samples[-1].connectors if figures.samples else {}
        new = [one for one in figures.samples if one.at > self._sampled]
        anew, self._sampled = self._sampled == 0, figures.samples[-1].at if figures.samples else 0
        lines = figures.ledger.connectors
        return {
            "lines": [{"name": name, "rate": rates.get(name, 0.0), **_columns(line)} for name, line in lines.items()],
            "total": _columns(figures.total),
            "verdict": [
                {"level": one.level, "text": one.text}
                for one in verdict(lines, still=figures.still, log_is_known=log_is_known)
            ],
            "anew": anew,
            "samples": [[one.at / 1000, one.accepted, one.stored] for one in new],
            "shards": [[shard.stored, shard.duplicates] for shard in figures.ledger.shards],
            "analytics": analytics_of(figures),
        }


def _columns(line: Line) -> dict[str, int]:
    return {name: getattr(line, name) for name in COLUMNS}


def analytics_of(figures: Figures) -> list[dict[str, Any]]:
    """Return a row for each process of an analytic, and one for each analytic that has none."""
    running = {status.name for status in figures.running}
    rows = [_running(status) for status in figures.running]
    rows += [_waiting(entry) for entry in figures.entries.values() if entry.name not in running]
    return sorted(rows, key=lambda row: str(row["name"]))


def _running(status: Status) -> dict[str, Any]:
    return {
        "name": status.name,
        "state": status.state,
        "pid": status.pid,
        "partitions": len(status.partitions),
        "lag": status.lag,
        "rate": status.readings,
        "us": status.us_per_reading,
        "made": status.made,
        "events": status.events,
        "errors": status.errors,
        "problem": status.problem[:MAX_PROBLEM_CHARS],
    }


def _waiting(entry: Entry) -> dict[str, Any]:
    return {"name": entry.name, "state": "not running" if entry.is_enabled else "off"}
