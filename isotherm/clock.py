"""The wall clock and lengths of time in the unit that everything here uses: integer microseconds, since the epoch, UTC."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

from isotherm.limits import DAY, HOUR, MILLISECOND, MINUTE, SECOND

_UNITS = {"ms": MILLISECOND, "s": SECOND, "m": MINUTE, "min": MINUTE, "h": HOUR, "d": DAY}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|min|m|h|d)")


def now_us() -> int:
    """Return the current time, µs since the epoch UTC."""
    return time.time_ns() // 1000


def iso(time: int) -> str:
    """Write a time, µs since the epoch, as ISO 8601 in UTC.

    >>> iso(1_500_000)
    '1970-01-01T00:00:01.500Z'
    """
    return datetime.fromtimestamp(time / SECOND, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def duration_us(text: str) -> int:
    """Parse a duration such as ``90s``, ``10m`` or ``10min``, ``24h`` or ``7d`` into µs, at least 1.

    Raises:
        ValueError: it is none.

    >>> duration_us("10m")
    600000000
    """
    match = _DURATION.fullmatch(text.strip())
    duration = int(float(match[1]) * _UNITS[match[2]]) if match else 0
    if duration < 1:
        raise ValueError(f"{text!r}, expected a duration such as 90s, 10m, 24h or 7d")
    return duration
