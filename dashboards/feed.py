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
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar
from weakref import WeakSet

from prometheus_client import Counter, Gauge
from redis.exceptions import RedisError

from dashboards.fleet import Fleet, News
from dashboards.window import SPAN, Change, Window
from isotherm.clock import now_us
from isotherm.errors import Unavailable
from isotherm.store import layout
from isotherm.store.client import Client
from isotherm.store.reader import Cursor, Reader
from isotherm.topics import partition_of

TICK_SECONDS = 0.1
"""Announcements within it are answered by one reading."""

FLEET_SECONDS = 1.0
"""The newest values of all series are read at most this often."""

FALLBACK_SECONDS = 5.0
"""Everything watched is read this often though nothing was announced."""

RETRY_SECONDS = 0.5
"""Between two attempts to reach a store that does not answer."""

log = logging.getLogger(__name__)

_WATCHED = Gauge("isotherm_web_watched_series", "Series that open sessions watch.")
_WATCHERS = Gauge("isotherm_web_watchers", "Sessions that watch something.")
_READS = Counter("isotherm_web_reads_total", "Readings of the store for live pages.", ["what"])


_W = TypeVar("_W")


class Watcher(Protocol):
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


@dataclass(slots=True)
class _Watched:
    """A series that somebody watches; watchers are held weakly, so a session that is forgotten is no leak."""

    series: str
    partition: int
    window: Window = field(default_factory=Window)
    cursor: Cursor | None = None
    watchers: WeakSet[SeriesWatcher] = field(default_factory=WeakSet)


class Feed:
    """Reads the store for all sessions of this process; ``run`` has to run."""

    def __init__(self, redis: Client, reader: Reader, partitions: int) -> None:
        self._redis = redis
        self._reader = reader
        self._partitions = partitions
        self._series: dict[str, _Watched] = {}
        self._fleet = Fleet()
        self._fleet_watchers: WeakSet[FleetWatcher] = WeakSet()
        self._fleet_due = 0.0
        self._fleet_stale = True
        self._announced: set[int] = set()
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

    def release(self, watcher: object) -> None:
        """Tell ``watcher`` nothing more."""
        self._fleet_watchers.discard(watcher)  # type: ignore[arg-type]
        for watched in self._series.values():
            watched.watchers.discard(watcher)  # type: ignore[arg-type]
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
            message = await pubsub.get_message(timeout=FALLBACK_SECONDS)
            if message is not None and message["type"] == "message":
                self._announced.add(partitions[message["channel"]])
                self._wake.set()

    async def _woken(self) -> None:
        """Wait for an announcement, a new watcher, a due reading of the fleet, or until all is read anyway."""
        seconds = FALLBACK_SECONDS
        if self._fleet_watchers and self._fleet_stale:
            seconds = max(0.0, self._fleet_due - time.monotonic())
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            if seconds == FALLBACK_SECONDS:
                self._announced.update(range(self._partitions))

    async def _read(self) -> None:
        self._wake.clear()
        announced, self._announced = self._announced, set()
        self._fleet_stale |= bool(announced)
        await self._read_series([w for w in self._series.values() if w.cursor is None or w.partition in announced])
        if self._fleet_watchers and self._fleet_stale and time.monotonic() >= self._fleet_due:
            await self._read_fleet()
        self._forget_unwatched()

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
                _tell(watched.watchers, lambda watcher, change=change: watcher.window_changed(change))  # type: ignore[misc]

    async def _read_fleet(self) -> None:
        self._fleet_stale, self._fleet_due = False, time.monotonic() + FLEET_SECONDS
        fleet = self._fleet
        news = fleet.update(await self._reader.latest())
        _READS.labels("fleet").inc()
        if news.anew or news.changed:
            _tell(self._fleet_watchers, lambda watcher: watcher.fleet_changed(fleet, news))

    def _begin(self, watcher: Watcher) -> None:
        if self._problem is not None:
            watcher.store_changed(self._problem)
        self._count()
        self._wake.set()

    def _is_watched(self) -> bool:
        return bool(self._series) or len(self._fleet_watchers) > 0

    def _forget_unwatched(self) -> None:
        self._series = {name: watched for name, watched in self._series.items() if len(watched.watchers)}
        self._count()

    def _trust_nothing(self) -> None:
        for watched in self._series.values():
            watched.cursor, watched.window = None, Window()
        self._fleet_stale, self._fleet_due = True, 0.0

    def _set_problem(self, problem: str | None) -> None:
        if (problem is None) == (self._problem is None):
            return
        self._problem = problem
        log.info("the store answers again") if problem is None else log.warning("%s", problem)
        _tell(self._watchers(), lambda watcher: watcher.store_changed(problem))

    def _watchers(self) -> set[Watcher]:
        watchers: set[Watcher] = set(self._fleet_watchers)
        return watchers.union(*(watched.watchers for watched in self._series.values()))

    def _count(self) -> None:
        _WATCHED.set(len(self._series))
        _WATCHERS.set(len(self._watchers()))


def _tell(watchers: Iterable[_W], tell: Callable[[_W], None]) -> None:
    """Tell each; one session that fails does not keep the others from their news."""
    for watcher in list(watchers):
        try:
            tell(watcher)
        except Exception:
            log.exception("a session could not show a change")
