"""What a request says, in its address and, if it is a POST, in its form."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import datetime
from urllib.parse import parse_qsl

from fastapi import Request

from dashboards.prometheus.problems import BadQuery
from dashboards.prometheus.tokens import Token, duration_us
from isotherm.clock import now_us, parse_iso
from isotherm.limits import MILLISECOND, SECOND

MAX_STEPS = 11_000
"""Points of a series, as in Prometheus: enough for a week at a minute, or a year at an hour."""

MAX_FIELDS = 1_000
"""Parameters in a form."""

_DURATION = re.compile(r"(?:[0-9]+(?:ms|[smhdwy]))+")
_LATEST_SECONDS = datetime.max.year * 365 * 86_400


class Parameters:
    """The parameters of a request, each any number of times."""

    def __init__(self, given: Sequence[tuple[str, str]]) -> None:
        self._given = given

    def all(self, name: str) -> list[str]:
        """Return every value of a parameter."""
        return [value for one, value in self._given if one == name]

    def text(self, name: str) -> str:
        """Return the first value of a parameter; empty when there is none."""
        return next(iter(self.all(name)), "")

    def time(self, name: str, default: int | None = None) -> int:
        """Return a time, µs since the epoch UTC, to the ms; by default the present.

        Raises:
            BadQuery: it is none.
        """
        text = self.text(name)
        if not text:
            return (now_us() if default is None else default) // MILLISECOND * MILLISECOND
        try:
            return _time(text)
        except ValueError as error:
            raise _bad(name, f"cannot parse {text[:80]!r} to a valid timestamp") from error

    def duration(self, name: str, default: int | None = None) -> int:
        """Return a length of time, µs, given in seconds or as ``1m30s``.

        Raises:
            BadQuery: it is none, or missing though there is no default.
        """
        text = self.text(name)
        if not text and default is not None:
            return default
        if _DURATION.fullmatch(text):
            return duration_us(Token("duration", text, 0))
        try:
            seconds = float(text)
            if not math.isfinite(seconds) or abs(seconds) > _LATEST_SECONDS:
                raise ValueError(text)
        except ValueError as error:
            raise _bad(name, f"cannot parse {text[:80]!r} to a valid duration") from error
        return round(seconds * 1000) * MILLISECOND

    def limit(self) -> int:
        """Return how many results are wanted at most; 0: all.

        Raises:
            BadQuery: it is no such number.
        """
        text = self.text("limit") or "0"
        if not re.fullmatch(r"[0-9]{1,9}", text):
            raise _bad("limit", f"{text[:80]!r} is no number of results")
        return int(text)

    def steps(self) -> range:
        """Return the times of ``start``, ``end`` and ``step``, µs since the epoch UTC.

        Raises:
            BadQuery: one of them is wrong, or there are more than MAX_STEPS.
        """
        for name in ("start", "end"):
            if not self.text(name):
                raise _bad(name, "cannot parse '' to a valid timestamp")
        start, end, step = self.time("start"), self.time("end"), self.duration("step")
        if end < start:
            raise _bad("end", "end timestamp must not be before start time")
        if step <= 0:
            raise _bad("step", "zero or negative query resolution step widths are not accepted. Try a positive integer")
        times = range(start, end + 1, step)
        if len(times) > MAX_STEPS:
            raise BadQuery(
                f"exceeded maximum resolution of {MAX_STEPS:,} points per timeseries. "
                "Try decreasing the query resolution (?step=XX)"
            )
        return times


async def of(request: Request) -> Parameters:
    """Return the parameters of a request.

    Raises:
        BadQuery: its form is in a form that we do not know.
    """
    given = list(request.query_params.multi_items())
    if request.method == "POST":
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "application/x-www-form-urlencoded":
            given = _fields(await request.body()) + given
        elif await request.body():
            raise BadQuery(f"a form is application/x-www-form-urlencoded, got {kind[:80] or 'no Content-Type'!r}")
    return Parameters(given)


def _fields(form: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(form.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError as error:
        raise BadQuery(f"a form is UTF-8 and has at most {MAX_FIELDS:,} fields: {error}") from error


def _time(text: str) -> int:
    """Return a time given in seconds or by RFC 3339, µs since the epoch UTC, to the ms.

    >>> _time("1435781430.781"), _time("2015-07-01T20:10:30.781Z")
    (1435781430781000, 1435781430781000)
    """
    try:
        seconds = float(text)
    except ValueError:
        if not re.match(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d.*(?:[Zz]|[+-]\d\d:\d\d)$", text):
            raise
        return parse_iso(text.upper()) // MILLISECOND * MILLISECOND
    if not (math.isfinite(seconds) and abs(seconds) <= _LATEST_SECONDS):
        raise ValueError(text)
    return round(seconds * (SECOND // MILLISECOND)) * MILLISECOND


def _bad(name: str, text: str) -> BadQuery:
    return BadQuery(f'invalid parameter "{name}": {text}')
