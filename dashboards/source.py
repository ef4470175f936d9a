"""A reading of the store that is made once and told to every open session that watches it.

This is for what is not announced reading by reading as series are (`feed.py`): alarms, rules, the ledger. It is made on a
beat, at most a tenth of the CPU is spent on it, and while nobody watches not at all, or on a slower beat where pages
open with a history of it. Watchers look at what is there when they are told, so one whose browser is slow misses nothing
but steps in between.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

from prometheus_client import Gauge
from redis.exceptions import RedisError

from dashboards.audience import Audience, Listener, tell
from isotherm.errors import SettingsError, Unavailable

READ_SECONDS = 10.0
"""How long who asks once waits."""

SHARE = 0.1
"""The greatest part of this process' CPU time that readings may take,"""

LONGEST_PAUSE_SECONDS = 5.0
"""unless that would be a longer pause than this."""

log = logging.getLogger(__name__)

_WATCHERS = Gauge("isotherm_web_source_watchers", "Sessions that watch a source.", ["source"])

_Value = TypeVar("_Value")
_Watcher = TypeVar("_Watcher", bound=Listener)


class _Reading:
    """A watcher that waits once."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    def end(self) -> None:
        self.ended.set()

    def is_behind(self) -> bool:
        return False


class Source(Generic[_Value]):
    """What was read last, and who wants to know; ``run`` has to run.

    Attributes:
        value: What was read last; None before that.
        problem: Why it cannot be read at present, or None when it can.
    """

    def __init__(
        self, name: str, read: Callable[[], Awaitable[_Value]], *, seconds: float, idle_seconds: float | None = None
    ) -> None:
        """Prepare.

        Args:
            name: What it is called in the log.
            read: Reads it; raises Unavailable while it cannot. When nothing has changed it returns the same object.
            seconds: From one reading to the next while somebody watches.
            idle_seconds: The same while nobody does; None for never.
        """
        self.value: _Value | None = None
        self.problem: str | None = None
        self._name = name
        self._of_store = read
        self._seconds = seconds
        self._idle_seconds = idle_seconds
        self._watchers: Audience[Any] = Audience()
        self._changed: WeakKeyDictionary[Any, Callable[[Any], None]] = WeakKeyDictionary()
        self._wake = asyncio.Event()
        self._is_fresh = False
        self._looked_at = -math.inf
        _WATCHERS.labels(name).set_function(lambda: len(self._watchers))

    @property
    def is_known(self) -> bool:
        """Whether it was read, or could not be, since somebody has begun to watch."""
        return self._is_fresh and (self.value is not None or self.problem is not None)

    def watch(self, watcher: _Watcher, changed: Callable[[_Watcher], None]) -> None:
        """Call ``changed(watcher)`` when there is something to show, and after every change of it; it may not wait.

        A watcher is held weakly: ``changed`` is a function or a method of its class, not one that is bound to it.
        """
        self._watchers.add(watcher)
        self._changed[watcher] = changed
        if self.is_known:
            tell([watcher], changed)
        self._wake.set()

    async def read(self) -> _Value:
        """Return what is so now: what was read within the time from one reading to the next.

        Raises:
            Unavailable: it cannot be read.
        """
        reading = _Reading()
        self._is_fresh &= time.monotonic() - self._looked_at <= self._seconds  # where nobody watches it may be older
        self.watch(reading, _Reading.end)
        try:
            async with asyncio.timeout(READ_SECONDS):
                await reading.ended.wait()
        except TimeoutError as error:
            raise Unavailable(f"{self._name} cannot be read within {READ_SECONDS:g} s") from error
        finally:
            self.release(reading)
        if self.problem is not None or self.value is None:
            raise Unavailable(self.problem or f"{self._name} cannot be read")
        return self.value

    def release(self, watcher: object) -> None:
        """Tell a watcher nothing more."""
        self._watchers.discard(watcher)
        self._is_fresh &= bool(self._watchers) or self._idle_seconds is not None

    def hurry(self) -> None:
        """Read at once: something was changed by this process."""
        self._wake.set()

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            began = time.thread_time()
            self._wake.clear()
            if self._watchers or self._idle_seconds is not None:
                await self._look()
            await self._pause(min((time.thread_time() - began) / SHARE, LONGEST_PAUSE_SECONDS))

    async def _look(self) -> None:
        value, problem = self.value, None
        began = time.monotonic()
        try:
            value = await self._of_store()
        except (Unavailable, SettingsError, RedisError, OSError) as error:
            problem = str(error)
        if (problem is None) != (self.problem is None):
            log.info("%s: %s", self._name, problem or "can be read again")
        is_news = value is not self.value or problem != self.problem or not self._is_fresh
        self.value, self.problem, self._is_fresh, self._looked_at = value, problem, True, began
        if is_news:
            self._watchers.tell(self._show)
        self._watchers.catch_up(self._show)

    def _show(self, watcher: Any) -> None:
        self._changed[watcher](watcher)

    async def _pause(self, least: float) -> None:
        """Wait for the next reading; what was read is not fresh any more when nobody has watched meanwhile."""
        await asyncio.sleep(least)
        seconds = self._seconds if self._watchers else self._idle_seconds
        self._is_fresh &= seconds is not None
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return
