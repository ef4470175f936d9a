"""How many requests a token may make: a bucket that fills at a steady rate (token bucket), one for each.

A web process that has its port alone keeps them in memory. Where several share one (`isotherm web --workers`), they are in
the store, in ``iso:{api}:rate:HASH`` until they are full again: that is another round trip, and the rate is that of all.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict

from isotherm.limits import SECOND
from isotherm.store.client import Client
from isotherm.store.reader import answering
from isotherm.store.script import Script

MAX_KNOWN = 10_000
"""Tokens that are remembered; who has not come for longest is forgotten, and has a full bucket again."""


class Rate:
    """Buckets of ``burst`` requests that fill with ``per_second``."""

    def __init__(self, per_second: float, burst: int) -> None:
        self._per_second = per_second
        self._burst = burst
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    async def wait(self, who: str) -> int:
        """Take a request from a bucket; returns 0, or after how many seconds there will be one to take."""
        return self.take(who)

    def take(self, who: str, now: float | None = None) -> int:
        """Take a request from a bucket; returns 0, or after how many seconds there will be one to take."""
        now = time.monotonic() if now is None else now
        left, at = self._buckets.pop(who, (float(self._burst), now))
        left = min(self._burst, left + (now - at) * self._per_second)
        wait = 0 if left >= 1 else math.ceil((1 - left) / self._per_second)
        self._buckets[who] = (left if wait else left - 1, now)
        if len(self._buckets) > MAX_KNOWN:
            self._buckets.popitem(last=False)
        return wait


class SharedRate:
    """The same for several processes, in the store."""

    def __init__(self, redis: Client, per_second: float, burst: int) -> None:
        self._take = Script(redis, "rate.lua", package=__package__)
        self._interval = round(SECOND / per_second)
        self._burst = burst

    async def wait(self, who: str) -> int:
        """Take a request from a bucket; returns 0, or after how many seconds there will be one to take.

        Raises:
            Unavailable: the store does not answer.
        """
        with answering():
            return int(await self._take([f"iso:{{api}}:rate:{who}"], [self._interval, self._burst]))


def rate_of(redis: Client, per_second: float, burst: int, *, is_shared: bool) -> Rate | SharedRate:
    """Return the buckets of a process; ``is_shared``: others have the same port."""
    return SharedRate(redis, per_second, burst) if is_shared else Rate(per_second, burst)
