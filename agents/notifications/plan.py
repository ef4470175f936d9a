"""Events through routers, and what those have due through the courier."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Coroutine, Sequence
from typing import Any

import msgspec

from agents.keeping import Keeper
from agents.notifications.courier import Courier
from agents.notifications.router import Router
from agents.plan import Site, follow
from agents.shard import Log, LogRecord
from isotherm.alarms import Alarms
from isotherm.channels import Channel, Channels
from isotherm.clock import now_us
from isotherm.errors import Unavailable
from isotherm.events import Event
from isotherm.rejects import Rejected, RejectRecord
from isotherm.store.analytic import Outgoing
from isotherm.store.writer import Conflict, Progress
from isotherm.topics import EVENTS, REJECTS

log = logging.getLogger(__name__)


class NotificationPlan:
    """One courier, and a router for each partition."""

    topic = EVENTS

    def __init__(self, site: Site) -> None:
        self._site = site
        self._channels = Channels(site.redis)
        self._alarms = Alarms(site.redis, site.settings.partitions)
        self._seen: tuple[int, Collection[str]] | None = None
        self._known: list[Channel] = []
        self._sinks: dict[int, Notifying] = {}
        self._courier = Courier(lambda partition: self._sinks[partition].save())

    async def begin(self) -> None:
        """Look which channels there are."""
        await self._look()
        await self._tell()

    def open(self, partition: int, source: Log) -> Notifying:
        """Return the sink of a partition."""
        sink = self._sinks[partition] = Notifying(partition, self._site, self._courier, source)
        return sink

    def beside(self) -> Sequence[Coroutine[Any, Any, None]]:
        """Follow channels and shelves, and send."""
        return [follow(self._look, self._tell), self._courier.run()]

    async def _look(self) -> bool:
        seen = await self._channels.version(), frozenset(await self._alarms.shelved(now_us()))
        if seen == self._seen:
            return False
        self._known = await self._channels.all()
        self._seen = seen
        return True

    async def _tell(self) -> None:
        if self._seen is not None:
            self._courier.refresh(self._known, self._seen[1])


class Notifying:
    """Brings the events of one partition into its router."""

    def __init__(self, partition: int, site: Site, courier: Courier, source: Log) -> None:
        self._partition = partition
        self._meter = site.meter
        self._deliver = site.deliver
        self._protocol = f"agent/{site.name}"
        self._courier = courier
        self._source = source
        self._keeper = Keeper(partition, site.store)
        self._router = Router()
        self._turn = asyncio.Lock()
        self._is_overtaken = False

    @property
    def key(self) -> str:
        """The key of the progress."""
        return self._keeper.key

    async def progress(self) -> Progress | None:
        """Begin anew at what the store holds."""
        async with self._turn:
            rows = await self._keeper.load()
            if not self._keeper.held.version:
                self._keeper.progress = Progress(await self._source.end(), "")
                await self._keeper.commit()
                rows = await self._keeper.load()
            self._is_overtaken = False
            self._router = Router()
            self._router.load(rows)
            self._courier.attach(self._partition, self._router)
            return self._keeper.progress

    async def apply(self, records: Sequence[LogRecord], expected: int | None) -> int | Conflict:
        """Take in events; what is none goes to ``rejects``, before its offset is passed."""
        events, rejects = [], []
        for record in records:
            try:
                events.append(Event.from_json(record.value))
            except msgspec.DecodeError as error:
                rejects.append(self._reject(record, error))
        if rejects:
            await self._deliver(self._partition, rejects)
        async with self._turn:
            self._router.take(events, now_us())
            self._keeper.progress = Progress(records[-1].offset + 1, records[-1].mark)
            self._meter.packs += len(records)
            self._meter.events += len(events)
            if not await self._commit():
                return await self._conflict()
        self._courier.wake()
        return len(events)

    def _reject(self, record: LogRecord, error: Exception) -> Outgoing:
        self._meter.errors += 1
        self._meter.problem = f"{EVENTS.name}/{self._partition}/{record.offset} is no event: {error}"
        log.error("%s; it goes to %s", self._meter.problem, REJECTS.name)
        peer = f"{EVENTS.name}/{self._partition}"
        rejected = Rejected("analytic", self._meter.problem, record.value)
        reject = RejectRecord.of([rejected], protocol=self._protocol, peer=peer, received_at=now_us())
        return Outgoing(REJECTS.name, peer, reject.to_json())

    async def rest(self, is_caught_up: bool) -> Conflict | None:
        """Commit what the courier has changed."""
        async with self._turn:
            return None if await self._commit() else await self._conflict()

    async def save(self) -> None:
        """Commit what the courier has changed.

        Raises:
            Unavailable: somebody else has the partition now.
        """
        async with self._turn:
            if not await self._commit():
                raise Unavailable(f"partition {self._partition} of {EVENTS.name} is somebody else's now")

    async def _commit(self) -> bool:
        self._keeper.take(self._router.changes())
        if self._keeper.has_news and not self._is_overtaken:
            self._is_overtaken = not await self._keeper.commit()
        return not self._is_overtaken

    async def _conflict(self) -> Conflict:
        """Return where the store is; the router is loaded anew when that is asked for."""
        progress = await self._keeper.stored()
        return Conflict(None if progress is None else progress.next)
