"""Rejects: what was refused, why, its original bytes, and how it is taken in after all."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from dashboards.api.answers import DEFAULT_LIMIT, Cursor, Limit, Page, sent
from dashboards.api.caller import may
from dashboards.api.once import IdempotencyKey, Once
from dashboards.api.problems import Conflict, NotFound
from dashboards.visitor import Visitor
from isotherm.accounts.audit import Audit
from isotherm.clock import iso, parse_iso
from isotherm.errors import BadField
from isotherm.names import is_device_name
from isotherm.reject_log import Filter, Kept, RejectLog
from isotherm.settings import Settings
from isotherm.store.client import Client

MAX_OFFSET = 2**63 - 1

MayRead = Annotated[Visitor, may("rejects:read")]
MayWrite = Annotated[Visitor, may("rejects:write")]
Partition = Annotated[int, Path(ge=0, le=2**31 - 1)]
Offset = Annotated[int, Path(ge=0, le=MAX_OFFSET)]
Text = Annotated[str, Query(max_length=128)]

_CURSOR = re.compile(r"\d{1,10}:\d{1,19}(,\d{1,10}:\d{1,19})*", re.ASCII)


class Reject(BaseModel):
    """What was refused, without its bytes. All of its texts are a stranger's."""

    id: str = Field(description="`PARTITION/OFFSET`.")
    reason: str
    detail: str
    protocol: str
    peer: str
    device: str | None
    received: str
    size: int = Field(description="Bytes of the original.")
    is_whole: bool = Field(description="Whether all of them are kept.")
    count: int = Field(description="Inputs in it.")
    format: str = Field(description="As what it was read.")
    is_replayed: bool = Field(description="Whether it was taken in after all.")


class WholeReject(Reject):
    """A reject with its bytes: as text where they are UTF-8, else in Base64."""

    text: str | None
    base64: str | None


class ReplayForm(BaseModel):
    """How it is to be read this time."""

    model_config = ConfigDict(extra="forbid", strict=True)

    format: str = Field(
        "", max_length=128, description="As another format: senml-json, influx, number:METRIC, decoder:NAME."
    )
    device: str = Field("", max_length=128, description="Whose it is, where it names no device.")
    again: bool = Field(False, description="Also when it was replayed before.")


class Outcome(BaseModel):
    """What became of it: what was refused again is a new reject each."""

    accepted: int = Field(description="Readings that are stored now.")
    rejected: int = Field(description="Inputs that were refused again.")
    errors: list[str]


def router(settings: Settings, redis: Client, once: Once) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(prefix="/rejects", tags=["rejects"], route_class=once.route())
    log, audit = RejectLog(settings, redis), Audit(redis)

    async def existing(partition: int, offset: int) -> Kept:
        found = await log.get(partition, offset)
        if found is None:
            raise NotFound(f"there is no reject {partition}/{offset}, or no longer")
        return found

    @routes.get("", response_model=Page[Reject])
    async def list_rejects(
        request: Request,
        _: MayRead,
        reason: Text = "",
        device: Text = "",
        protocol: Text = "",
        since: Annotated[str, Query(max_length=40, description="Received not before: ISO 8601.")] = "",
        cursor: Cursor = "",
        limit: Limit = DEFAULT_LIMIT,
    ) -> Response:
        """List rejects, newest first. A page may have fewer than `limit` although there is a `next`."""
        chosen = Filter(reason or None, device or None, protocol or None, _since(since))
        found, before = await log.newest(chosen, limit, _places(cursor, settings.partitions))
        return sent(request, Page[Reject](items=[_shown(one) for one in found], next=_cursor(before) or None))

    @routes.get("/{partition}/{offset}", response_model=WholeReject)
    async def get_reject(request: Request, _: MayRead, partition: Partition, offset: Offset) -> Response:
        """Return a reject with its bytes."""
        found = await existing(partition, offset)
        fields = _shown(found).model_dump()
        return sent(request, WholeReject(**fields, text=found.record.raw, base64=found.record.raw_base64))

    @routes.get(
        "/{partition}/{offset}/original",
        response_class=Response,
        responses={200: {"content": {"application/octet-stream": {}}}},
    )
    async def get_original(_: MayRead, partition: Partition, offset: Offset) -> Response:
        """Return the bytes that are kept, as they came."""
        found = await existing(partition, offset)
        named = {"content-disposition": f'attachment; filename="reject-{partition}-{offset}"'}
        return Response(found.record.original, HTTPStatus.OK, named, "application/octet-stream")

    @routes.post("/{partition}/{offset}/replay", response_model=Outcome)
    async def replay(
        request: Request,
        who: MayWrite,
        partition: Partition,
        offset: Offset,
        form: ReplayForm,
        _: IdempotencyKey = None,
    ) -> Response:
        """Take a reject in once more, as if it had just come when it came; answers when its readings are kept for good."""
        from connectors.replay import replaying  # what decodes is loaded by web processes that need it

        if form.device and not is_device_name(form.device):
            raise BadField("device", f"{form.device!r} is no name of a device", "letters, digits and - : . _")
        kept = await existing(partition, offset)
        _check(kept, again=form.again)
        async with replaying(settings) as replayer:
            outcome = await replayer.replay(kept.record, form=form.format or None, device=form.device or None)
        await log.mark_replayed(kept)
        said = f"{outcome.accepted} readings accepted, {outcome.rejected} refused"
        await audit.write(who.name, "replay reject", kept.id, address=who.address, detail=said)
        return sent(request, Outcome(accepted=outcome.accepted, rejected=outcome.rejected, errors=outcome.errors))

    return routes


def _check(kept: Kept, *, again: bool) -> None:
    """See that a reject can be replayed.

    Raises:
        Conflict: it cannot.
    """
    if kept.record.reason == "analytic":
        raise Conflict("it is stored: only an analytic failed on it; `isotherm agent` runs that over the past")
    if not kept.record.is_whole:
        raise Conflict(f"of its {kept.record.size} bytes only {len(kept.record.original)} were kept")
    if kept.is_replayed and not again:
        raise Conflict("it was replayed before; say `again` to do it once more")


def _since(text: str) -> int:
    try:
        return parse_iso(text) if text else 0
    except ValueError as error:
        raise BadField("since", f"since is {text[:80]!r}", "a time such as 2026-11-23T08:00:00Z") from error


def _places(cursor: str, partitions: int) -> dict[int, int] | None:
    """Return what a cursor stands for: partition → offset before which to go on."""
    if not cursor:
        return None
    pairs = [part.split(":") for part in cursor.split(",")] if _CURSOR.fullmatch(cursor) else []
    if not pairs or any(int(partition) >= partitions for partition, _ in pairs):
        raise BadField("cursor", "the cursor is none of ours", "`next` of a page, as it was")
    return {int(partition): min(int(offset), MAX_OFFSET) for partition, offset in pairs}


def _cursor(before: dict[int, int]) -> str:
    return ",".join(f"{partition}:{offset}" for partition, offset in before.items())


def _shown(kept: Kept) -> Reject:
    record = kept.record
    return Reject(
        id=kept.id,
        reason=record.reason,
        detail=record.detail,
        protocol=record.protocol,
        peer=record.peer,
        device=record.device,
        received=iso(record.received_at),
        size=record.size,
        is_whole=record.is_whole,
        count=record.count,
        format=record.form,
        is_replayed=kept.is_replayed,
    )
