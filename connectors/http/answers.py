"""Answers: problem details for our own API, and what InfluxDB's clients understand."""

from __future__ import annotations

import re
from http import HTTPStatus

import msgspec
from aiohttp import hdrs, web

import isotherm
from connectors.receipt import Receipt

RETRY_AFTER_SECONDS = 5
MAX_QUOTED_BYTES = 200
"""How much of a refused reading an answer quotes."""

INFLUX_HEADERS = {"X-Influxdb-Version": f"isotherm-{isotherm.__version__}", "X-Influxdb-Build": "isotherm"}
_INFLUX_CODES = {
    400: "invalid",
    401: "unauthorized",
    408: "invalid",
    413: "request too large",
    415: "invalid",
    417: "invalid",
    503: "unavailable",
}


def influx_error(status: int, message: str, **more: object) -> web.Response:
    """Answer as InfluxDB 2 (code, message) and 1 (error) do."""
    body = {"code": _INFLUX_CODES[status], "message": message, "error": message, **more}
    headers = {"X-Influxdb-Error": re.sub(r"[^ -~]", "?", message)[:500], **_headers_of(status)}
    return web.Response(status=status, body=msgspec.json.encode(body), content_type="application/json", headers=headers)


def accepted(receipt: Receipt) -> web.Response:
    """Say that Kafka has everything, and how much of it has a time ahead of the server's clock."""
    headers = {"Isotherm-Skewed": str(receipt.skewed)} if receipt.skewed else {}
    return web.Response(status=204, headers=headers)


def problem(
    status: int, detail: str, *, headers: dict[str, str] | None = None, title: str = "", **more: object
) -> web.Response:
    """Answer with problem details (RFC 9457)."""
    body = {"type": "about:blank", "title": title or HTTPStatus(status).phrase, "status": status, "detail": detail, **more}
    headers = {**_headers_of(status), **(headers or {})}
    return web.Response(
        status=status, body=msgspec.json.encode(body), content_type="application/problem+json", headers=headers
    )


def refusals(receipt: Receipt) -> web.Response:
    """Name the readings of a request that were refused."""
    first = receipt.refusals[0]
    return problem(
        400,
        f"{receipt.rejected} refused, {receipt.accepted} kept; first: {first.detail}",
        title="Readings were refused",
        reason=first.reason,
        accepted=receipt.accepted,
        rejected=receipt.rejected,
        errors=[
            {"reason": one.reason, "detail": one.detail, "at": one.at, "reading": _quoted(one.raw)}
            for one in receipt.refusals
        ],
    )


def influx_refusals(receipt: Receipt) -> web.Response:
    """Name the first line of a request that was refused."""
    first = receipt.refusals[0]
    return influx_error(
        400,
        f"partial write: line {first.at}: {first.reason}: {first.detail}; dropped={receipt.rejected}",
        line=first.at,
    )


def _headers_of(status: int) -> dict[str, str]:
    """Return what an answer of that status must say."""
    if status == 401:
        return {hdrs.WWW_AUTHENTICATE: 'Bearer realm="isotherm"'}
    return {hdrs.RETRY_AFTER: str(RETRY_AFTER_SECONDS)} if status == 503 else {}


def busy(detail: str) -> bytes:
    """Return a whole answer, for who is not let in."""
    response = problem(503, detail)
    head = f"HTTP/1.1 503 Service Unavailable\r\nContent-Type: {response.content_type}\r\nConnection: close\r\n"
    head += f"Retry-After: {RETRY_AFTER_SECONDS}\r\nContent-Length: {response.content_length}\r\n\r\n"
    assert isinstance(response.body, bytes)
    return head.encode() + response.body


def _quoted(raw: bytes) -> str:
    text = raw[:MAX_QUOTED_BYTES].decode(errors="replace")
    return text if len(raw) <= MAX_QUOTED_BYTES else text + "…"
