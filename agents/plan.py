"""How the records of a topic become the work of an analytic: its sinks, and what runs beside them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from agents.analysing import Analysing, Deliver, Meter, Suspicion
from agents.engine import Engine
from agents.shard import Log, Sink
from isotherm.errors import IsothermError
from isotherm.logs import Throttle
from isotherm.settings import Settings
from isotherm.store.analytic import AnalyticStore
from isotherm.store.client import Client
from isotherm.topics import READINGS, Topic

if TYPE_CHECKING:
    from agents.analytic import Analytic

LOOK_SECONDS = 1.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Site:
    """What an analytic is given to work with.

    Attributes:
        name: Of the analytic.
        connector: What the ledger counts its readings by.
        parameters: Checked ones.
        settings, redis: Of the process.
        store: Where its state is.
        deliver: Brings records to Kafka.
        meter: Is told what is done.
        suspicion: Which records to be careful with.
    """

    name: str
    connector: str
    parameters: Any
    settings: Settings
    redis: Client
    store: AnalyticStore
    deliver: Deliver
    meter: Meter
    suspicion: Suspicion


class Plan(Protocol):
    """What is done with which topic."""

    @property
    def topic(self) -> Topic:
        """What is read."""

    async def begin(self) -> None:
        """Get to know what has to be known before the first record; raises Unavailable when the store does not answer."""

    def open(self, partition: int, source: Log) -> Sink:
        """Return the sink of a partition."""

    def beside(self) -> Sequence[Coroutine[Any, Any, None]]:
        """Return what else is to run, until it is cancelled."""


class World(Protocol):
    """What the engines of an analytic have to know beside the readings: rules, devices."""

    async def look(self) -> bool:
        """Look whether it has changed, and take it in; raises IsothermError when it cannot be read."""

    def tell(self, partition: int, engine: Any) -> None:
        """Tell an engine."""


class EnginePlan:
    """Readings through an engine for each partition."""

    topic = READINGS

    def __init__(self, analytic: Analytic, site: Site) -> None:
        self._analytic = analytic
        self._site = site
        self._world = analytic.world(site.settings, site.redis) if analytic.world else None
        self._open: dict[int, Analysing] = {}

    async def begin(self) -> None:
        """Look at the world."""
        if self._world is not None:
            await self._world.look()

    def open(self, partition: int, source: Log) -> Analysing:
        """Return the sink of a partition."""
        site, world = self._site, self._world
        prepare: Callable[[Engine], None] = (lambda engine: world.tell(partition, engine)) if world else lambda _: None
        sink = self._open[partition] = Analysing(
            partition,
            site.name,
            site.connector,
            self._analytic.build(site.name, site.parameters),
            site.store,
            site.deliver,
            source.end,
            site.meter,
            site.suspicion,
            prepare,
        )
        return sink

    def beside(self) -> Sequence[Coroutine[Any, Any, None]]:
        """Follow the world."""
        return [] if self._world is None else [self._follow(self._world)]

    async def _follow(self, world: World) -> None:
        async def tell() -> None:
            for partition, sink in self._open.items():
                world.tell(partition, sink.engine)

        await follow(world.look, tell)


async def follow(look: Callable[[], Awaitable[bool]], tell: Callable[[], Awaitable[None]]) -> None:
    """Look every second, and tell of it when something has changed."""
    throttle = Throttle()
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        try:
            if await look():
                await tell()
        except IsothermError as error:
            if throttle(str(error)) is not None:
                log.warning("%s; what was known before still counts", error)
