"""The platform itself: whether the ledger adds up, how the analytics are doing, and what has happened."""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from dashboards.api.answers import DEFAULT_LIMIT, Cursor, Limit, Page, page_of, sent
from dashboards.api.caller import may
from dashboards.pipeline import PipelineSource
from dashboards.visitor import Visitor
from isotherm import ledger
from isotherm.analytics import Analytics, Status
from isotherm.clock import iso
from isotherm.errors import BadField
from isotherm.store.client import Client
from isotherm.store.events import EventLog, Places

_CURSOR = re.compile(r"\d{1,10}:\d{1,19}-\d{1,19}(,\d{1,10}:\d{1,19}-\d{1,19})*", re.ASCII)

MayRead = Annotated[Visitor, may("system:read")]


class Line(BaseModel):
    """Readings: received = accepted + rejected, and accepted = stored + duplicates + in_flight + lost."""

    received: int
    accepted: int
    rejected: int
    stored: int
    duplicates: int
    in_flight: int
    lost: int
    skewed: int = Field(description="Of the accepted, those from a clock that is ahead.")
    reasons: dict[str, int] = Field(description="Why readings were rejected.")


class Ledger(BaseModel):
    """The ledger, of each connector and in all."""

    connectors: dict[str, Line]
    total: Line


class Analytic(BaseModel):
    """How one process of an analytic is doing."""

    name: str
    instance: str
    state: str
    topic: str
    partitions: list[int]
    lag: int
    packs_per_second: float
    readings_per_second: float
    us_per_reading: float
    errors: int
    problem: str


class EventList(BaseModel):
    """Events, newest first, as the topic `events` has them. Times in µs since the epoch."""

    items: list[dict[str, Any]]
    next: str | None = None


def router(redis: Client, figures: PipelineSource, events: EventLog, partitions: int) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(tags=["system"])
    analytics = Analytics(redis)

    @routes.get("/ledger", response_model=Ledger)
    async def get_ledger(request: Request, _: MayRead) -> Response:
        """Return the ledger."""
        found = await figures.read()
        lines = {name: _line(one) for name, one in found.ledger.connectors.items()}
        return sent(request, Ledger(connectors=lines, total=_line(found.total)))

    @routes.get("/analytics", response_model=Page[Analytic])
    async def list_analytics(request: Request, _: MayRead, cursor: Cursor = "", limit: Limit = DEFAULT_LIMIT) -> Response:
        """List the processes of analytics, ascending by name and instance."""
        running = sorted(await analytics.running(), key=_key)
        some, following = page_of(running, _key, cursor, limit)
        found = [
            Analytic(
                name=one.name,
                instance=one.instance,
                state=one.state,
                topic=one.topic,
                partitions=list(one.partitions),
                lag=one.lag,
                packs_per_second=one.packs,
                readings_per_second=one.readings,
                us_per_reading=one.us_per_reading,
                errors=one.errors,
                problem=one.problem,
            )
            for one in some
        ]
        return sent(request, Page[Analytic](items=found, next=following))

    @routes.get("/events", response_model=EventList)
    async def list_events(
        request: Request,
        _: MayRead,
        device: Annotated[str, Query(max_length=128, description="Of this device only.")] = "",
        cursor: Cursor = "",
        limit: Limit = DEFAULT_LIMIT,
    ) -> Response:
        """List events, newest first: alarms, devices online and offline, what people did."""
        found, left = await events.page(limit, device=device, before=_places(cursor, partitions))
        following = ",".join(f"{partition}:{id}" for partition, id in left.items()) or None
        items = [{**msgspec.to_builtins(one), "at": iso(one.time)} for one in found]
        return sent(request, EventList(items=items, next=following))

    return routes


def _key(one: Status) -> str:
    return f"{one.name}/{one.instance}"


def _places(cursor: str, partitions: int) -> Places | None:
    """Return what a cursor of events stands for; None to begin."""
    if not cursor:
        return None
    pairs = [part.split(":") for part in cursor.split(",")] if _CURSOR.fullmatch(cursor) else []
    if not pairs or any(int(partition) >= partitions for partition, _ in pairs):
        raise BadField("cursor", "the cursor is none of ours", "`next` of a page, as it was")
    return {int(partition): id for partition, id in pairs}


def _line(line: ledger.Line) -> Line:
    return Line(**{name: getattr(line, name) for name in ledger.COLUMNS}, reasons=dict(line.reasons))
