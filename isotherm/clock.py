"""The wall clock in the unit that everything here uses: integer microseconds since the epoch, UTC."""

from __future__ import annotations

import time


def now_us() -> int:
    """Return the current time, µs since the epoch UTC."""
    return time.time_ns() // 1000
