"""The parts of the platform and whether they are ready.

Beside a local stack they are asked themselves. Elsewhere nobody tells a web process where they listen: there it is what
reports to the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dashboards.log import LogSource
from dashboards.pipeline import Figures, PipelineSource
from dashboards.source import Source
from isotherm import stackfile
from isotherm.clock import now_us
from isotherm.errors import IsothermError
from isotherm.limits import DAY, SECOND
from isotherm.local.parts import Part, parts
from isotherm.local.ports import Ports
from isotherm.settings import Settings

LOOK_SECONDS = 5.0
ANSWER_SECONDS = 2.0

SILENT_US = 10 * SECOND
"""A connector reports once a second; one that does not has ended, or cannot reach the store."""

FORGOTTEN_US = 1 * DAY

State = Literal["ready", "not ready", "silent", "unknown"]


@dataclass(frozen=True, slots=True)
class Health:
    """How a part is.

    Attributes:
        name: What it is called.
        state: ``ready``, or not; ``silent`` when it used to report, ``unknown`` before it was asked.
        note: Its address, or what it has to say.
        seen: When it reported last, µs since the epoch UTC; 0 when it is asked instead.
    """

    name: str
    state: State
    note: str = ""
    seen: int = 0


class PartSource(Source[Sequence[Health]]):
    """Asks the parts for all sessions of this process."""

    def __init__(self, settings: Settings, pipeline: PipelineSource, log: LogSource) -> None:
        super().__init__("parts", self._parts, seconds=LOOK_SECONDS)
        self._settings = settings
        self._pipeline = pipeline
        self._log = log

    async def _parts(self) -> Sequence[Health]:
        local = local_parts(self._settings)
        asked = await asyncio.gather(*(_health(part) for part in local))
        if local:
            return asked
        store = Health("store", _state(self._pipeline), self._pipeline.problem or "")
        broker = Health("kafka", _state(self._log), self._settings.kafka)
        figures = self._pipeline.value
        return [broker, store, *(reporting(figures, now_us()) if figures is not None else ())]


def local_parts(settings: Settings) -> list[Part]:
    """Return the parts of the local stack that this process belongs to; none when it belongs to none."""
    try:
        stack = stackfile.read(settings.data_dir)
        if stack is None or stack.settings.get("web_port") != settings.web_port:
            return []
        ports = Ports.from_base(settings.web_port)
    except IsothermError:
        return []
    embedded = {
        "kafka": settings.kafka == f"{settings.host}:{ports.kafka}",
        "store": settings.redis == f"redis://{settings.host}:{ports.redis}/0",
        "mqtt-broker": settings.mqtt == f"{settings.host}:{ports.mqtt}",
    }
    return parts(settings, ports, None, without={name for name, is_ours in embedded.items() if not is_ours})


def _state(source: Source[Any]) -> State:
    """Return how what a source reads is."""
    if not source.is_known:
        return "unknown"
    return "ready" if source.problem is None else "not ready"


async def _health(part: Part) -> Health:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            ready = await part.ready()
    except TimeoutError:
        ready = False
    return Health(part.name, "ready" if ready else "not ready", part.address)


def reporting(figures: Figures, now: int) -> list[Health]:
    """Return the connectors and hosts of analytics that have told the store of themselves within a day."""
    found = [
        Health(name, "ready" if now - seen <= SILENT_US else "silent", "connector", seen)
        for name, seen in figures.ledger.processes.items()
        if now - seen <= FORGOTTEN_US
    ]
    hosts = [Health(host, "ready", "analytics", now) for host in figures.hosts]
    return sorted([*found, *hosts], key=lambda one: (one.state != "ready", one.name))
