"""The newest rejects, read from Kafka once for all sessions of this process, and only when there are new ones."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from dashboards.pipeline import PipelineSource
from dashboards.source import Source
from isotherm import kafka
from isotherm.errors import Unavailable
from isotherm.rejects import RejectRecord
from isotherm.settings import Settings
from isotherm.topics import REJECTS

LOOK_SECONDS = 2.0
ANSWER_SECONDS = 15.0

NEWEST = 50
SHOWN_BYTES = 2_000
"""Bytes of a reject that a page shows; ``isotherm rejects show`` has all that are kept."""

MAX_TEXT_CHARS = 300
"""Of a detail, a peer or a device."""


@dataclass(frozen=True, slots=True)
class Rejects:
    """What pages draw.

    Attributes:
        rows: Of rejects.js, newest first, at most NEWEST.
        bytes: Id → the original, readably.
    """

    rows: Sequence[Mapping[str, Any]]
    bytes: Mapping[str, str]


class RejectSource(Source[Rejects]):
    """Reads the topic again when the ledger has counted further rejects."""

    def __init__(self, settings: Settings, pipeline: PipelineSource) -> None:
        super().__init__("rejects", self._rejects, seconds=LOOK_SECONDS)
        self._settings = settings
        self._pipeline = pipeline
        self._read_at: object = None

    async def _rejects(self) -> Rejects:
        figures = self._pipeline.value
        counted = figures.total.reasons if figures is not None else None
        if self.value is not None and self.problem is None and counted == self._read_at:
            return self.value
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                found = await self._newest()
        except (Unavailable, *kafka.AWAY) as error:
            raise Unavailable(f"Kafka at {self._settings.kafka} does not answer") from error
        self._read_at = counted
        return found

    async def _newest(self) -> Rejects:
        decode = msgspec.json.Decoder(RejectRecord).decode
        newest: list[tuple[int, str, dict[str, Any], str]] = []
        async with kafka.Reader(self._settings) as reader:
            async for record in reader.follow(REJECTS, last=NEWEST, stop=True):
                reject, id = decode(record.value), f"{record.partition}/{record.offset}"
                row = (reject.received_at, id, row_of(id, reject), reject.shown(SHOWN_BYTES))
                if len(newest) < NEWEST:
                    heapq.heappush(newest, row)
                else:
                    heapq.heappushpop(newest, row)
        newest.sort(reverse=True)
        return Rejects([row for _, _, row, _ in newest], {id: text for _, id, _, text in newest})


def row_of(id: str, reject: RejectRecord) -> dict[str, Any]:
    """Return a reject as rejects.js draws it; all of its texts are a stranger's."""
    return {
        "id": id,
        "reason": reject.reason[:MAX_TEXT_CHARS],
        "detail": reject.detail[:MAX_TEXT_CHARS],
        "protocol": reject.protocol[:MAX_TEXT_CHARS],
        "peer": reject.peer[:MAX_TEXT_CHARS],
        "device": (reject.device or "")[:MAX_TEXT_CHARS],
        "received": reject.received_at,
        "size": reject.size,
        "kept": min(SHOWN_BYTES, len(reject.original)),
        "count": reject.count,
    }
