"""Series as CSV files: a plain HTTP answer, written while it is sent.

A row is a time with the values of all series that have one then, as fine as the store keeps it and as fits into MAX_ROWS.
Where a row stands for one reading there is its value, where it stands for more their mean, least and greatest. Every cell
begins with a letter or is a number or a time, so that no spreadsheet takes one for a formula.
"""

from __future__ import annotations

import asyncio
import csv
import io
import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Annotated
from urllib.parse import quote, urlencode

import numpy as np
from fastapi import APIRouter, Query, Response
from fastapi.responses import PlainTextResponse, StreamingResponse
from numpy.typing import NDArray

from isotherm.clock import iso, now_us, parse_iso
from isotherm.errors import BadField, Unavailable
from isotherm.limits import DAY, SECOND
from isotherm.names import is_device_name, is_metric_name
from isotherm.store.history import History
from isotherm.store.reader import Reader
from isotherm.units import symbol

MAX_ROWS = 50_000
"""Rows of each series; a range with more comes in wider rows."""

MAX_SERIES = 20
MAX_SPAN = 366 * DAY
MAX_AHEAD = 1 * DAY
"""How far after now a range may end, µs."""

BLOCK_ROWS = 5_000
"""Rows that are written in one go, in a thread."""

Names = Annotated[Sequence[str], Query()]
"""Given once or several times in an address."""

_RANGE = "start, end"


class Impossible(BadField):
    """What was asked for cannot be had; says why, and what is expected."""


def router(reader: Reader) -> APIRouter:
    """Return the routes of the downloads."""
    routes = APIRouter()

    @routes.get("/device/{device}/history.csv")
    async def device(device: str, metric: Names = (), start: str = "", end: str = "") -> Response:
        return await _answer(reader, [f"{device}/{one}" for one in metric], start, end, device)

    @routes.get("/compare/history.csv")
    async def compare(series: Names = (), start: str = "", end: str = "") -> Response:
        return await _answer(reader, series, start, end, "compare")

    return routes


def address(device: str, metrics: Sequence[str], start: int, end: int) -> str:
    """Return the address of some metrics of a device over [start, end), µs."""
    return f"/device/{quote(device, safe='')}/history.csv?" + _query("metric", metrics, start, end)


def compare_address(series: Sequence[str], start: int, end: int) -> str:
    """Return the address of series of any devices over [start, end), µs."""
    return "/compare/history.csv?" + _query("series", series, start, end)


def _query(name: str, values: Sequence[str], start: int, end: int) -> str:
    ends = [(edge, iso(time, "microseconds")) for edge, time in (("start", start), ("end", end))]
    return urlencode([*((name, one) for one in values), *ends])


async def _answer(reader: Reader, series: Sequence[str], start: str, end: str, name: str) -> Response:
    try:
        names = checked_series(series)
        begin, until = checked_range(start, end)
        units = await reader.units()
        found = await reader.query_many(names, begin, until, MAX_ROWS)
    except Impossible as problem:
        return PlainTextResponse(f"{problem}\n", status_code=400)
    except Unavailable as problem:
        return PlainTextResponse(f"{problem}\n", status_code=503)
    named = {column_name(one, names, units.get(one, "")): rows for one, rows in found.items()}
    headers = {"content-disposition": f'attachment; filename="{file_name(name, begin, until)}"'}
    return StreamingResponse(csv_blocks(named), media_type="text/csv; charset=utf-8", headers=headers)


def checked_series(series: Sequence[str]) -> list[str]:
    """Return the series that are asked for, each once.

    Raises:
        Impossible: there is none, there are too many, or one is no name of a series.
    """
    names = list(dict.fromkeys(series))
    if not 1 <= len(names) <= MAX_SERIES:
        raise Impossible(
            "series", f"{len(names)} series were asked for, expected 1 to {MAX_SERIES}: metric=NAME, once for each"
        )
    for name in names:
        device, _, metric = name.partition("/")
        if not is_device_name(device) or not is_metric_name(metric):
            raise Impossible("series", f"{name[:200]!r} is no series, expected device/metric")
    return names


def checked_range(start: str, end: str) -> tuple[int, int]:
    """Return the range that two times of ISO 8601 mean, µs since the epoch UTC.

    Raises:
        Impossible: one is no time, they are in the wrong order, too far apart or in the future.
    """
    begin, until = _time("start", start), _time("end", end)
    if not 0 < until - begin <= MAX_SPAN:
        days = MAX_SPAN // DAY
        raise Impossible(_RANGE, f"the range is from {start} to {end}, expected an end after the start, within {days} days")
    if begin < 0 or until > now_us() + MAX_AHEAD:
        raise Impossible(
            _RANGE, f"the range is from {start} to {end}, expected one after 1970 that ends no later than tomorrow"
        )
    return begin, until


def _time(name: str, text: str) -> int:
    try:
        return parse_iso(text)
    except ValueError as error:
        raise Impossible(_RANGE, f"{name} is {text[:80]!r}, expected a time such as 2026-11-23T08:00:00Z") from error


def file_name(name: str, start: int, end: int) -> str:
    """Return a name for the file that is safe everywhere.

    >>> file_name("urn:dev:ow:10e2", 0, 3_600_000_000)
    'urn_dev_ow_10e2_19700101T000000Z_19700101T010000Z.csv'
    """
    ends = (iso(time, "seconds").replace("-", "").replace(":", "") for time in (start, end))
    return "_".join([re.sub(r"[^A-Za-z0-9.-]+", "_", name)[:100], *ends]) + ".csv"


def column_name(series: str, names: Sequence[str], unit: str) -> str:
    devices = {one.partition("/")[0] for one in names}
    name = series if len(devices) > 1 else series.partition("/")[2]
    written = re.sub(r"\s+", " ", symbol(unit)).strip()
    return f"{name} ({written})" if written else name


async def csv_blocks(found: Mapping[str, History]) -> AsyncIterator[bytes]:
    """Yield the file, some thousand rows at a time.

    Args:
        found: What a series' columns are called → its rows.
    """
    time = np.unique(np.concatenate([rows.time for rows in found.values()]))
    yield _text([_head(found)])
    places = {name: np.searchsorted(rows.time, time) for name, rows in found.items()}
    for first in range(0, len(time), BLOCK_ROWS):
        block = slice(first, first + BLOCK_ROWS)
        yield await asyncio.to_thread(_block, found, {name: place[block] for name, place in places.items()}, time[block])


def _is_raw(rows: History) -> bool:
    return not rows.width.any()


def _head(found: Mapping[str, History]) -> list[str]:
    head = ["time (UTC)", "row width (s)"]
    for name, rows in found.items():
        head += [name] if _is_raw(rows) else [f"{name} {kind}" for kind in ("mean", "min", "max")]
    return head


def _block(found: Mapping[str, History], places: Mapping[str, NDArray[np.intp]], time: NDArray[np.int64]) -> bytes:
    width = np.zeros(len(time), dtype=np.int64)
    columns: list[list[str]] = []
    for name, rows in found.items():
        if not len(rows):
            columns += [[""] * len(time)]
            continue
        place = np.minimum(places[name], len(rows) - 1)
        there = rows.time[place] == time
        last = np.minimum(np.searchsorted(rows.time, time, side="right") - 1, len(rows) - 1)
        place = np.where(there, np.maximum(last, 0), place)  # of equal times the last reading counts
        width = np.maximum(width, np.where(there, rows.width[place], 0))
        kinds = (rows.last,) if _is_raw(rows) else (rows.mean, rows.min, rows.max)
        columns += [
            [repr(value) if known else "" for value, known in zip(kind[place].tolist(), there.tolist(), strict=True)]
            for kind in kinds
        ]
    times = np.datetime_as_string(time.view("datetime64[us]"), timezone="UTC").tolist()
    seconds = [f"{one / SECOND:g}" for one in width.tolist()]
    return _text(zip(times, seconds, *columns, strict=True))


def _text(rows: Iterable[Iterable[str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode()
