"""The one place that follows the store, for all open sessions together.

The store announces each commit on its partition's channel. One task holds the one subscription, gathers what was
announced into ticks, reads what somebody watches there, once, and tells the watchers. While nobody watches there is no
subscription and nothing is read. Announcements can be lost, so while somebody watches everything is read now and then
anyway; and after the connection was lost nothing read before is trusted: the store may have come back without it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from prometheus_client import Counter, Gauge
from redis.exceptions import RedisError

from dashboards.audience import Audience, Listener, tell
from dashboards.fleet import Fleet, News
from dashboards.known import Known, KnownReader
from dashboards.window import SPAN, Change, Window
from isotherm.clock import now_us
from isotherm.errors import Unavailable
from isotherm.store import layout
from isotherm.store.client import Client, heard
from isotherm.store.reader import Cursor, Reader
from isotherm.topics import partition_of

TICK_SECONDS = 0.1
"""Announcements within it are answered by one reading."""

FLEET_SECONDS = 1.0
"""The newest values of all series are read at most this often."""

KNOWN_SECONDS = 2.0
"""Presence, alarms and the registry are read this often while somebody watches them: they change in silence, too."""

FALLBACK_SECONDS = 5.0
"""Everything watched is read this often though nothing was announced."""

CATCH_UP_SECONDS = 0.2
"""How often it is looked whether a browser that is behind has taken what it was sent."""

RETRY_SECONDS = 0.5
"""Between two attempts to reach a store that does not answer."""

log = logging.getLogger(__name__)

_WATCHED = Gauge("isotherm_web_watched_series", "Series that open sessions watch.")
_WATCHERS = Gauge("isotherm_web_watchers", "Sessions, and lines of live charts, that watch something.")
_READS = Counter("isotherm_web_reads_total", "Readings of the store for live pages.", ["what"])


class Watcher(Listener, Protocol):
    """A session, as the feed sees it. None of these may wait."""

    def store_changed(self, problem: str | None) -> None:
        """The store has stopped answering, or (None) answers again."""


class SeriesWatcher(Watcher, Protocol):
    """A session that watches a series."""

    def window_changed(self, change: Change) -> None:
        """The window of the series has changed."""


class FleetWatcher(Watcher, Protocol):
    """A session that watches the fleet."""

    def fleet_changed(self, fleet: Fleet, news: News) -> None:
        """The newest values have changed."""


class KnownWatcher(Watcher, Protocol):
    """A session that watches presence, alarms and the registry."""

    def known_changed(self, known: Known) -> None:
        """They were read anew."""


@dataclass(slots=True)
class _Watched:
    """A series that somebody watches."""

    series: str
    partition: int
    window: Window = field(default_factory=Window)
    cursor: Cursor | None = None
    watchers: Audience[SeriesWatcher] = field(default_factory=Audience)

    def catch_up(self) -> None:
        """Tell the window to those who have missed a change."""
        if self.watchers.is_behind:
            everything = self.window.everything()
            self.watchers.catch_up(lambda watcher: watcher.window_changed(everything))


class Feed:
    """Reads the store for all sessions of this process; ``run`` has to run."""

    def __init__(self, redis: Client, reader: Reader, partitions: int) -> None:
        self._redis = redis
        self._reader = reader
        self._partitions = partitions
        self._series: dict[str, _Watched] = {}
        self._fleet = Fleet()
        self._fleet_watchers: Audience[FleetWatcher] = Audience()
        self._fleet_due = 0.0
        self._fleet_stale = True
        self._known_reader = KnownReader(redis, partitions)
        self._known: Known | None = None
        self._known_watchers: Audience[KnownWatcher] = Audience()
        self._known_due = 0.0
        self._announced: set[int] = set()
        self._all_at = 0.0  # when everything was announced last
        self._wake = asyncio.Event()
        self._problem: str | None = None

    def watch_series(self, series: str, watcher: SeriesWatcher) -> None:
        """Tell ``watcher`` every change of the last minutes of a series, beginning with all of them."""
        device = series.partition("/")[0]
        watched = self._series.setdefault(series, _Watched(series, partition_of(device, self._partitions)))
        watched.watchers.add(watcher)
        if watched.cursor is not None:
            watcher.window_changed(watched.window.everything())
        self._begin(watcher)

    def watch_fleet(self, watcher: FleetWatcher) -> None:
        """Tell ``watcher`` every change of the newest values, beginning with all of them."""
        fresh = len(self._fleet_watchers) > 0 and self._fleet.known
        self._fleet_watchers.add(watcher)
        if fresh:
            watcher.fleet_changed(self._fleet, News([], anew=True))
        else:
            self._fleet, self._fleet_stale, self._fleet_due = Fleet(), True, 0.0
        self._begin(watcher)

    def watch_known(self, watcher: KnownWatcher) -> None:
        """Tell ``watcher`` what is known of devices, now and whenever it was read anew."""
        self._known_watchers.add(watcher)
        if self._known is not None:
            watcher.known_changed(self._known)
        self._begin(watcher)

    def release(self, watcher: object) -> None:
        """Tell ``watcher`` nothing more."""
        self._fleet_watchers.discard(watcher)
        self._known_watchers.discard(watcher)
        for watched in self._series.values():
            watched.watchers.discard(watcher)
        self._forget_unwatched()
        self._wake.set()

    async def run(self) -> None:
        """Follow the store until cancelled."""
        while True:
            while not self._is_watched():
                self._wake.clear()
                await self._wake.wait()
            try:
                await self._follow()
            except (RedisError, Unavailable, OSError) as error:
                self._set_problem(f"the store does not answer: {error}")
                await asyncio.sleep(RETRY_SECONDS)

    async def _follow(self) -> None:
        """Hold a subscription and tell watchers what it brings, until nobody watches or the store goes away."""
        self._trust_nothing()
        async with self._redis.pubsub() as pubsub:
            await pubsub.subscribe(*(layout.live_channel(partition) for partition in range(self._partitions)))
            listener = asyncio.create_task(self._listen(pubsub), name="feed-listener")
            listener.add_done_callback(lambda _: self._wake.set())
            try:
                while self._is_watched():
                    await self._read()
                    self._set_problem(None)
                    await asyncio.sleep(TICK_SECONDS)  # gathers announcements: the tick
                    await self._woken()
                    if listener.done():
                        listener.result()
            finally:
                listener.cancel()
                await asyncio.gather(listener, return_exceptions=True)

    async def _listen(self, pubsub: Any) -> None:
        partitions = {layout.live_channel(number).encode(): number for number in range(self._partitions)}
        while True:
            message = await heard(pubsub, FALLBACK_SECONDS)
            if message is not None:
                self._announced.add(partitions[message["channel"]])
                self._wake.set()

    async def _woken(self) -> None:
        """Wait for an announcement, a new watcher, a due reading of the fleet, or until all is read anyway."""
        seconds = CATCH_UP_SECONDS if self._is_somebody_behind() else FALLBACK_SECONDS
        if self._fleet_watchers and self._fleet_stale:
            seconds = max(0.0, self._fleet_due - time.monotonic())
        if self._known_watchers:
            seconds = min(seconds, max(0.0, self._known_due - time.monotonic()))
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        if time.monotonic() - self._all_at >= FALLBACK_SECONDS:
            self._all_at = time.monotonic()
            self._announced.update(range(self._partitions))

    async def _read(self) -> None:
        self._wake.clear()
        announced, self._announced = self._announced, set()
        self._fleet_stale |= bool(announced)
        await self._read_series([w for w in self._series.values() if w.cursor is None or w.partition in announced])
        if self._fleet_watchers and self._fleet_stale and time.monotonic() >= self._fleet_due:
            await self._read_fleet()
        if self._known_watchers and time.monotonic() >= self._known_due:
            await self._read_known()
        self._forget_unwatched()
        for watched in self._series.values():
            watched.catch_up()
        self._fleet_watchers.catch_up(lambda watcher: watcher.fleet_changed(self._fleet, News([], anew=True)))
        if (known := self._known) is not None:
            self._known_watchers.catch_up(lambda watcher: watcher.known_changed(known))

    async def _read_series(self, due: Sequence[_Watched]) -> None:
        if not due:
            return
        since = now_us() - SPAN
        tails = await self._reader.tails({watched.series: watched.cursor for watched in due}, since)
        _READS.labels("series").inc()
        for watched in due:
            first = watched.cursor is None
            points, watched.cursor = tails[watched.series]
            if first:
                points = points[points["time"] >= since]
            change = watched.window.add(points["time"], points["value"])
            if first:
                change = watched.window.everything()
            if change is not None:
                watched.watchers.tell(lambda watcher, change=change: watcher.window_changed(change))  # type: ignore[misc]

    async def _read_fleet(self) -> None:
        self._fleet_stale, self._fleet_due = False, time.monotonic() + FLEET_SECONDS
        fleet = self._fleet
        news = fleet.update(await self._reader.latest())
        _READS.labels("fleet").inc()
        if news.anew or news.changed:
            self._fleet_watchers.tell(lambda watcher: watcher.fleet_changed(fleet, news))

    async def _read_known(self) -> None:
        self._known = known = await self._known_reader.read()
        self._known_due = time.monotonic() + KNOWN_SECONDS
        _READS.labels("known").inc()
        self._known_watchers.tell(lambda watcher: watcher.known_changed(known))

    def _begin(self, watcher: Watcher) -> None:
        if self._problem is not None:
            watcher.store_changed(self._problem)
        self._count()
        self._wake.set()

    def _is_watched(self) -> bool:
        return bool(self._series) or len(self._fleet_watchers) > 0 or len(self._known_watchers) > 0

    def _is_somebody_behind(self) -> bool:
        audiences = self._fleet_watchers.is_behind, self._known_watchers.is_behind
        return any(audiences) or any(watched.watchers.is_behind for watched in self._series.values())

    def _forget_unwatched(self) -> None:
        self._series = {name: watched for name, watched in self._series.items() if len(watched.watchers)}
        self._count()

    def _trust_nothing(self) -> None:
        for watched in self._series.values():
            watched.cursor, watched.window = None, Window()
        self._fleet_stale, self._fleet_due = True, 0.0
        self._known, self._known_due = None, 0.0

    def _set_problem(self, problem: str | None) -> None:
        if (problem is None) == (self._problem is None):
            return
        self._problem = problem
        log.info("the store answers again") if problem is None else log.warning("%s", problem)
        tell(self._watchers(), lambda watcher: watcher.store_changed(problem))

    def _watchers(self) -> set[Watcher]:
        watchers: set[Watcher] = set(self._fleet_watchers) | set(self._known_watchers)
        return watchers.union(*(watched.watchers for watched in self._series.values()))

    def _count(self) -> None:
        _WATCHED.set(len(self._series))
        _WATCHERS.set(len(self._watchers()))
