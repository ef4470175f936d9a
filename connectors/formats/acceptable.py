"""What any payload and any reading must keep to, whoever sends it: size, name, value, time."""

from __future__ import annotations

import math

from isotherm.errors import InvalidReading
from isotherm.limits import DAY, MAX_FUTURE_US, MAX_PACK_BYTES, MAX_PAST_US, SECOND
from isotherm.names import series_name

SOMEBODY = "somebody"
"""Stands for the peer's own device where a name is bare."""


def check_name(name: str) -> str:
    """Return a SenML name that can be a series.

    Raises:
        InvalidReading: it cannot, whoever sends it.
    """
    series_name(name, SOMEBODY)
    return name


def check_size(payload: bytes) -> None:
    """Make sure that a payload is not too large.

    Raises:
        InvalidReading: it is.
    """
    if len(payload) > MAX_PACK_BYTES:
        raise InvalidReading("too_large", f"a payload of {len(payload)} bytes, expected at most {MAX_PACK_BYTES}")


def check_value(value: float) -> None:
    """Make sure that a value is finite.

    Raises:
        InvalidReading: it is not.
    """
    if not math.isfinite(value):
        raise InvalidReading("not_finite", f"value {value}, expected a finite number")


def check_time(time: int, now: int) -> None:
    """Make sure that a time can be right.

    Args:
        time: µs since the epoch UTC.
        now: The same of the server's clock.

    Raises:
        InvalidReading: it lies too far away.
    """
    if not now - MAX_PAST_US <= time <= now + MAX_FUTURE_US:
        distance = f"{abs(time - now) / SECOND:.0f} s in the {'future' if time > now else 'past'}"
        expected = f"at most {MAX_FUTURE_US // SECOND} s in the future or {MAX_PAST_US // DAY} d in the past"
        raise InvalidReading("time", f"its time lies {distance}, expected {expected}")
