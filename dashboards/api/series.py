"""Series: their names, newest values, and history as JSON, CSV or Arrow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Annotated, Any

import msgspec
import numpy as np
import pyarrow as pa
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from dashboards import downloads
from dashboards.api.answers import DEFAULT_LIMIT, Cursor, Limit, Page, page_of, sent
from dashboards.api.caller import may
from dashboards.visitor import Visitor
from isotherm.clock import iso
from isotherm.errors import BadField
from isotherm.rules.targets import matches
from isotherm.store import reader as stored
from isotherm.store.history import History
from isotherm.store.reader import DEFAULT_POINTS, Reader

JSON, CSV, ARROW = "application/json", "text/csv", "application/vnd.apache.arrow.stream"

MAX_POINTS = 50_000
"""Rows of each series in one answer."""

MAX_ROWS = 200_000
"""Rows of all series together: the process has others to answer meanwhile."""

COLUMNS = ("mean", "min", "max", "last")

Glob = Annotated[str, Query(max_length=512, description="A pattern of a shell over names: `room-*/temperature`.")]
Names = Annotated[
    list[str], Query(min_length=1, max_length=downloads.MAX_SERIES, description="`device/metric`, once for each.")
]
Time = Annotated[str, Query(max_length=40, description="ISO 8601; UTC unless it says otherwise.")]

MayRead = Annotated[Visitor, may("series:read")]


class Latest(BaseModel):
    """The newest value of a series: `time` is the device's, `received_at` the platform's."""

    series: str
    device: str
    metric: str
    value: float | None = Field(description="Null when it is not finite.")
    unit: str = Field(description="RFC 8428 §12.1, or empty.")
    time: str
    received_at: str


class Rows(BaseModel):
    """Rows of a series over [start, end), in columns, ascending by time.

    A row stands for `width` µs from `time`, µs since the epoch; a width of 0 is a single reading. What is infinite is null.
    """

    unit: str
    time: list[int]
    width: list[int]
    count: list[int]
    mean: list[float | None]
    min: list[float | None]
    max: list[float | None]
    last: list[float | None]


class Series(BaseModel):
    """Series over a range of time."""

    start: str
    end: str
    series: dict[str, Rows]


def router(reader: Reader) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(tags=["series"])

    @routes.get("/latest", response_model=Page[Latest])
    async def list_latest(
        request: Request,
        _: MayRead,
        series: Glob = "*",
        cursor: Cursor = "",
        limit: Limit = DEFAULT_LIMIT,
    ) -> Response:
        """List series with their newest values, ascending by name."""
        found = sorted((one for one in await reader.latest() if matches(series, _name(one))), key=_name)
        some, following = page_of(found, _name, cursor, limit)
        return sent(request, Page[Latest](items=[_shown(one) for one in some], next=following))

    @routes.get(
        "/series",
        response_model=Series,
        responses={200: {"content": {CSV: {"schema": {"type": "string"}}, ARROW: {"schema": {"type": "string"}}}}},
    )
    async def query_series(
        request: Request,
        _: MayRead,
        series: Names,
        start: Time,
        end: Time,
        points: Annotated[
            int, Query(ge=1, le=MAX_POINTS, description="Greatest number of rows of each series.")
        ] = DEFAULT_POINTS,
    ) -> Response:
        """Return series over [start, end), in rows as wide as `points` allows; every reading where that many suffice.

        The header Accept chooses: JSON, `text/csv`, or an Arrow stream (one table, sorted by series and time). A series of
        which nothing is stored has no rows.
        """
        kind = _accepted(request.headers.get("accept", "*/*"))
        names = downloads.checked_series(series)
        begin, until = downloads.checked_range(start, end)
        if len(names) * points > MAX_ROWS:
            most = MAX_ROWS // len(names)
            raise BadField("points", f"{points} points of {len(names)} series are too much", f"at most {most} points")
        units = await reader.units()
        found = await reader.query_many(names, begin, until, points)
        if kind == CSV:
            named = {downloads.column_name(one, names, units.get(one, "")): rows for one, rows in found.items()}
            return StreamingResponse(downloads.csv_blocks(named), media_type="text/csv; charset=utf-8")
        if kind == ARROW:
            return Response(arrow_stream(found, units), media_type=ARROW)
        shown = {name: _rows(rows, units.get(name, "")) for name, rows in found.items()}
        return Response(
            msgspec.json.encode({"start": iso(begin, "microseconds"), "end": iso(until, "microseconds"), "series": shown}),
            HTTPStatus.OK,
            {"cache-control": "private, no-cache"},
            JSON,
        )

    return routes


def arrow_stream(found: Mapping[str, History], units: Mapping[str, str]) -> bytes:
    """Return histories as one Arrow IPC stream: series, unit, time (µs, UTC), width (µs), count and COLUMNS."""
    schema = pa.schema(
        [("series", pa.dictionary(pa.int32(), pa.utf8())), ("unit", pa.utf8()), ("time", pa.timestamp("us", tz="UTC"))]
        + [("width", pa.int64()), ("count", pa.int64())]
        + [(name, pa.float64()) for name in COLUMNS]
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema, options=pa.ipc.IpcWriteOptions(emit_dictionary_deltas=True)) as writer:
        for number, (name, rows) in enumerate(sorted(found.items())):
            index = np.full(len(rows), number, dtype=np.int32)
            keys = pa.DictionaryArray.from_arrays(index, pa.array(sorted(found)))
            unit = pa.array([units.get(name, "")] * len(rows), pa.utf8())
            values: list[Any] = [rows.time, rows.width, rows.count, *(getattr(rows, column) for column in COLUMNS)]
            writer.write_batch(pa.RecordBatch.from_arrays([keys, unit, *_typed(values, schema)], schema=schema))
    return bytes(sink.getvalue())


def _typed(values: Sequence[NDArray[Any]], schema: pa.Schema) -> list[pa.Array]:
    return [pa.array(column, schema.field(place).type) for place, column in enumerate(values, start=2)]


def _rows(rows: History, unit: str) -> dict[str, Any]:
    columns = {name: getattr(rows, name).tolist() for name in ("time", "width", "count")}
    with np.errstate(over="ignore"):
        values = {name: _finite(getattr(rows, name)) for name in COLUMNS}
    return {"unit": unit, **columns, **values}


def _finite(values: NDArray[np.float64]) -> list[float | None]:
    if np.isfinite(values).all():
        return list(values.tolist())
    return [value if np.isfinite(value) else None for value in values.tolist()]


def _accepted(accept: str) -> str:
    """Return the first kind of ours that is asked for; JSON when none is."""
    kinds = [one.partition(";")[0].strip().lower() for one in accept.split(",")]
    return next((kind for kind in kinds if kind in (JSON, CSV, ARROW)), JSON)


def _name(one: stored.Latest) -> str:
    return f"{one.device}/{one.metric}"


def _shown(one: stored.Latest) -> Latest:
    return Latest(
        series=_name(one),
        device=one.device,
        metric=one.metric,
        value=one.value if np.isfinite(one.value) else None,
        unit=one.unit,
        time=iso(one.time, "microseconds"),
        received_at=iso(one.received_at, "microseconds"),
    )
