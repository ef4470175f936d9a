"""How a refusal is said: as Prometheus says it, for that is what Grafana shows."""

from __future__ import annotations

import msgspec

from isotherm.errors import SettingsError

KINDS = {
    400: "bad_data",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "bad_data",
    413: "bad_data",
    422: "execution",
    429: "too_many_requests",
    500: "internal",
    503: "unavailable",
}
"""Status → errorType. Those of 401, 403 and 429 are ours: Prometheus leaves these refusals to others."""

MEDIA_TYPE = "application/json"


class BadQuery(SettingsError):
    """A parameter or a query is wrong: 400."""


class TooMuch(SettingsError):
    """A query is right and cannot be answered: it needs too much, or its parts do not fit together. 422."""


class TooSlow(SettingsError):
    """A query was not answered in its time: 503."""


def at(position: int, text: str) -> BadQuery:
    """Return the refusal of what stands at a place of a query, counted from 0.

    >>> str(at(4, "this"))
    'parse error at char 5: this'
    """
    return BadQuery(f"parse error at char {position + 1}: {text}")


def body(status: int, detail: str, kind: str = "") -> bytes:
    """Return a refusal as JSON.

    >>> body(400, "no")
    b'{"status":"error","errorType":"bad_data","error":"no"}'
    """
    said = {"status": "error", "errorType": kind or KINDS.get(status, "internal"), "error": detail}
    return msgspec.json.encode(said)
