"""How many requests a token may make: a bucket that fills at a steady rate (token bucket), one for each, in this process."""

from __future__ import annotations

import math
import time
from collections import OrderedDict

MAX_KNOWN = 10_000
"""Tokens that are remembered; who has not come for longest is forgotten, and has a full bucket again."""


class Rate:
    """Buckets of ``burst`` requests that fill with ``per_second``."""

    def __init__(self, per_second: float, burst: int) -> None:
        self._per_second = per_second
        self._burst = burst
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, who: str, now: float | None = None) -> int:
        """Take a request from a bucket; returns 0, or after how many seconds there will be one to take."""
        now = time.monotonic() if now is None else now
        left, at = self._buckets.pop(who, (float(self._burst), now))
        left = min(self._burst, left + (now - at) * self._per_second)
        wait = 0 if left >= 1 else math.ceil((1 - left) / self._per_second)
        self._buckets[who] = (left if wait else left - 1, now)
        if len(self._buckets) > MAX_KNOWN:
            self._buckets.popitem(last=False)
        return wait
