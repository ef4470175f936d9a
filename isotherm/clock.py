"""The wall clock and lengths of time in the unit that everything here uses: integer microseconds, since the epoch, UTC."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta

from isotherm.limits import DAY, HOUR, MICROSECOND, MILLISECOND, MINUTE, SECOND

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_UNITS = {"ms": MILLISECOND, "s": SECOND, "m": MINUTE, "min": MINUTE, "h": HOUR, "d": DAY}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|min|m|h|d)")


def now_us() -> int:
    """Return the current time, µs since the epoch UTC."""
    return time.time_ns() // 1000


def iso(time: int, precision: str = "milliseconds") -> str:
    """Write a time, µs since the epoch, as ISO 8601 in UTC, to seconds, milliseconds or microseconds.

    >>> iso(1_500_000), iso(1_500_000, "seconds")
    ('1970-01-01T00:00:01.500Z', '1970-01-01T00:00:01Z')
    """
    return (_EPOCH + timedelta(microseconds=time)).isoformat(timespec=precision).replace("+00:00", "Z")


def parse_iso(text: str) -> int:
    """Return the time that a text of ISO 8601 means, µs since the epoch; UTC unless it says otherwise.

    Raises:
        ValueError: it is none.

    >>> parse_iso("1970-01-01T00:00:01.5"), parse_iso("1970-01-01T01:00:00+01:00")
    (1500000, 0)
    """
    time = datetime.fromisoformat(text)
    return ((time if time.tzinfo else time.replace(tzinfo=UTC)) - _EPOCH) // timedelta(microseconds=MICROSECOND)


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
