"""Alarms: what is wrong, who has seen it, and what nobody wants to hear of for a while."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from dashboards.api.answers import DEFAULT_LIMIT, Cursor, Limit, Page, page_of, sent
from dashboards.api.caller import may
from dashboards.api.once import IdempotencyKey, Once
from dashboards.api.problems import NotFound
from dashboards.desk import Desk
from dashboards.requests import MAX_SEEN
from dashboards.visitor import Visitor
from isotherm import alarms as kept
from isotherm.alarms import Alarms
from isotherm.alarms.table import MAX_SHELVED
from isotherm.clock import iso
from isotherm.events import SEVERITIES, Severity
from isotherm.limits import SECOND
from isotherm.rules import Rules
from isotherm.rules.targets import matches
from isotherm.settings import Settings
from isotherm.store.client import Client

State = Literal["all", "attention", "active", "cleared", "shelved"]
Key = Annotated[str, Field(max_length=512, description="`rule/device` or `rule/device/metric`.")]

MayRead = Annotated[Visitor, may("alarms:read")]
MayWrite = Annotated[Visitor, may("alarms:write")]


class Mark(BaseModel):
    """Who has seen an alarm, or shelved it, and when."""

    by: str
    time: str
    note: str = ""
    until: str | None = None


class Alarm(BaseModel):
    """An alarm; `since` is when it was raised, µs since the epoch, and names this occurrence of it."""

    key: str
    rule: str
    device: str
    metric: str
    severity: str
    message: str
    value: float | None
    unit: str
    since: int
    raised: str
    cleared: str | None
    times: int = Field(description="How often it was raised in this occurrence.")
    acknowledged: Mark | None
    shelved: Mark | None


class Seen(BaseModel):
    """An occurrence of an alarm."""

    model_config = ConfigDict(extra="forbid", strict=True)

    key: Key
    since: int = Field(ge=0, lt=2**63, description="`since` of the alarm, as it was seen.")


class Acknowledgement(BaseModel):
    """Which occurrences somebody has seen."""

    model_config = ConfigDict(extra="forbid", strict=True)

    alarms: list[Seen] = Field(min_length=1, max_length=MAX_SEEN)
    note: str = Field("", max_length=500)


class Shelf(BaseModel):
    """What is not to be heard of, and for how long."""

    model_config = ConfigDict(extra="forbid", strict=True)

    key: Key = Field(description="Of an alarm; or the id of a rule, for all of its alarms.")
    seconds: int = Field(ge=1, le=MAX_SHELVED // SECOND)


class Unshelf(BaseModel):
    """What is to be heard of again."""

    model_config = ConfigDict(extra="forbid", strict=True)

    key: Key


class Done(BaseModel):
    """What was done, in words."""

    done: str


def router(redis: Client, settings: Settings, desk: Desk, once: Once) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(prefix="/alarms", tags=["alarms"], route_class=once.route())
    alarms, rules = Alarms(redis, settings.partitions), Rules(redis)

    @routes.get("", response_model=Page[Alarm])
    async def list_alarms(
        request: Request,
        _: MayRead,
        state: State = "all",
        severity: Annotated[Severity, Query(description="This one, or worse.")] = "info",
        device: Annotated[str, Query(max_length=256, description="A pattern of a shell over devices.")] = "*",
        cursor: Cursor = "",
        limit: Limit = DEFAULT_LIMIT,
    ) -> Response:
        """List alarms, ascending by key; those cleared and acknowledged a while ago are gone."""
        worst = SEVERITIES[: SEVERITIES.index(severity) + 1]
        found = [
            one
            for one in await alarms.list()
            if _is(one, state) and one.row.severity in worst and matches(device, one.row.device)
        ]
        some, following = page_of(sorted(found, key=_key), _key, cursor, limit)
        return sent(request, Page[Alarm](items=[_shown(one) for one in some], next=following))

    @routes.post("/acknowledge", response_model=Done)
    async def acknowledge(request: Request, who: MayWrite, form: Acknowledgement, _: IdempotencyKey = None) -> Response:
        """Say that somebody has seen alarms. One that was cleared and raised anew since is another occurrence."""
        await _check(alarms, [one.key for one in form.alarms])
        said = await desk.acknowledge(who, [(one.key, one.since) for one in form.alarms], form.note)
        return sent(request, Done(done=said))

    @routes.post("/shelve", response_model=Done)
    async def shelve(request: Request, who: MayWrite, form: Shelf, _: IdempotencyKey = None) -> Response:
        """Not hear of an alarm, or of all alarms of a rule, for a while."""
        if not await rules.is_kept(form.key):
            await _check(alarms, [form.key])
        return sent(request, Done(done=await desk.shelve(who, form.key, form.seconds)))

    @routes.post("/unshelve", response_model=Done)
    async def unshelve(request: Request, who: MayWrite, form: Unshelf, _: IdempotencyKey = None) -> Response:
        """Hear of it again."""
        return sent(request, Done(done=await desk.unshelve(who, form.key)))

    return routes


async def _check(alarms: Alarms, keys: list[str]) -> None:
    there = {one.row.key for one in await alarms.list()}
    for key in keys:
        if key not in there:
            raise NotFound(f"there is no alarm {key!r}")


def _is(one: kept.Alarm, state: State) -> bool:
    match state:
        case "attention":
            return one.needs_attention
        case "active":
            return one.row.is_active
        case "cleared":
            return not one.row.is_active
        case "shelved":
            return one.shelved is not None
    return True


def _key(one: kept.Alarm) -> str:
    return one.row.key


def _shown(one: kept.Alarm) -> Alarm:
    row, seen, shelf = one.row, one.acknowledged, one.shelved
    return Alarm(
        key=row.key,
        rule=row.rule,
        device=row.device,
        metric=row.metric,
        severity=row.severity,
        message=row.message,
        value=row.value,
        unit=row.unit,
        since=row.since,
        raised=iso(row.since),
        cleared=iso(row.cleared) if row.cleared else None,
        times=row.times,
        acknowledged=Mark(by=seen.by, time=iso(seen.time), note=seen.note) if seen else None,
        shelved=Mark(by=shelf.by, time=iso(shelf.time), until=iso(shelf.until)) if shelf else None,
    )
