"""Series: their newest values, and their history."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from isotherm.client.exchange import Listing, Request, Steps, decoded, got
from isotherm.client.model import Latest, Rows, Series
from isotherm.clock import duration_us, iso, now_us, parse_iso

if TYPE_CHECKING:
    import pyarrow as pa

ARROW = "application/vnd.apache.arrow.stream"

Time = datetime | int | str
"""A datetime (without a zone: UTC), µs since the epoch, or ISO 8601."""


def latest(pattern: str = "") -> Listing[Latest]:
    """Go through series with their newest values, ascending by name.

    Args:
        pattern: Of a shell over names: ``room-*/temperature``.
    """
    return Listing("/latest", Latest, series=pattern)


def series(
    names: str | Sequence[str],
    *,
    last: str = "",
    start: Time | None = None,
    end: Time | None = None,
    points: int | None = None,
) -> Steps[dict[str, Rows]]:
    """Return the history of series, by name: every reading where ``points`` suffice, else rows as wide as they must be.

    Args:
        names: ``device/metric``, one or several.
        last: How far back: ``90s``, ``10m``, ``24h``, ``7d``; or else
        start: Where it begins.
        end: Where it ends, that moment excluded; now by default, by the clock of this machine.
        points: Greatest number of rows of each series; 1,000 by default.

    Raises:
        ValueError: neither ``last`` nor ``start`` is given, or both are.
        Invalid: a name, a time or a number is wrong.
    """
    return decoded((yield _asked(names, last, start, end, points, "application/json")).body, Series).series


def table(
    names: str | Sequence[str],
    *,
    last: str = "",
    start: Time | None = None,
    end: Time | None = None,
    points: int | None = None,
) -> Steps[pa.Table]:
    """Return the same as one Arrow table, sorted by series and time; needs pyarrow. ``.to_pandas()`` makes it a frame.

    Columns: series, unit, time (UTC), width (µs), count, mean, min, max, last.
    """
    import pyarrow as pa

    answer = yield _asked(names, last, start, end, points, ARROW)
    return pa.ipc.open_stream(answer.body).read_all()


def _asked(
    names: str | Sequence[str], last: str, start: Time | None, end: Time | None, points: int | None, kind: str
) -> Request:
    if bool(last) == (start is not None):
        raise ValueError("say either how far back (last) or where it begins (start)")
    until = now_us() if end is None else end
    begin = _micros(until) - duration_us(last) if start is None else start
    asked = [("series", name) for name in names_of(names)]
    asked += [("start", _text(begin)), ("end", _text(until))]
    if points is not None:
        asked.append(("points", str(points)))
    return got("/series", *asked, accept=kind)


def names_of(names: str | Sequence[str]) -> list[str]:
    """Return one name, or several, as a list."""
    return [names] if isinstance(names, str) else list(names)


def _text(time: Time) -> str:
    if isinstance(time, int):
        return iso(time, "microseconds")
    return time.isoformat() if isinstance(time, datetime) else time


def _micros(time: Time) -> int:
    return time if isinstance(time, int) else parse_iso(_text(time))
