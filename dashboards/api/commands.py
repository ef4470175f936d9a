"""Commands: what a device is asked to do, and how far that is."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from dashboards.api.answers import DEFAULT_LIMIT, Cursor, Limit, Page, sent
from dashboards.api.caller import may
from dashboards.api.devices import Name
from dashboards.api.once import IdempotencyKey, Once, made_of
from dashboards.api.problems import Conflict, NotFound
from dashboards.desk import Desk
from dashboards.visitor import Visitor
from isotherm import commands as kept
from isotherm.commands.command import MAX_NAME_CHARS, MAX_TIMEOUT, NAME, STATES, described, is_id
from isotherm.errors import BadField, SettingsError, Unavailable
from isotherm.limits import SECOND
from isotherm.registry import Registry
from isotherm.settings import Settings
from isotherm.store.client import Client

MAX_WAIT = 30
"""Seconds that a request may wait for the answer."""

MAX_LISTENING = 100
"""Requests of this process that wait and are told of each change, each over a connection of its own; others look for it."""

LOOK_SECONDS = 1.0

MayRead = Annotated[Visitor, may("commands:read")]
MayWrite = Annotated[Visitor, may("commands:write")]
Id = Annotated[str, Path(max_length=40)]
Wait = Annotated[int, Query(ge=0, le=MAX_WAIT, description="Answer when it has ended, or after so many seconds.")]


class CommandForm(BaseModel):
    """What a device is to do."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(min_length=1, max_length=MAX_NAME_CHARS, pattern=f"^{NAME}$")
    parameters: dict[str, JsonValue] = Field({}, description="With what, at most 16 KiB.")
    timeout: int = Field(60, ge=1, le=MAX_TIMEOUT // SECOND, description="Seconds by when the answer has to be there.")
    idempotent: bool = Field(False, description="It does no harm to do it twice: it is given again while no answer comes.")


class Command(BaseModel):
    """A command. Its state is never ahead of what has happened; a late reply is taken after the end as well."""

    id: str
    device: str
    name: str
    parameters: JsonValue
    idempotent: bool
    by: str
    created: str
    deadline: str
    state: str = Field(description=f"One of {', '.join(STATES)}.")
    attempts: int = Field(description="How often a connector has taken it up.")
    sent: str | None
    delivered: str | None
    ended: str | None
    via: str = Field(description="The connector that took it up last.")
    result: JsonValue = Field(description="What the device has answered.")
    error: str


def router(redis: Client, settings: Settings, desk: Desk, once: Once) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(prefix="/devices/{device}/commands", tags=["commands"], route_class=once.route())
    registry, table = Registry(redis), kept.Table(redis, settings.partitions)
    listening = asyncio.Semaphore(MAX_LISTENING)

    async def existing(device: str, id: str) -> kept.Command:
        found = await table.get(device, id) if is_id(id) else None
        if found is None:
            raise NotFound(f"there is no command {id!r} of {device}, or it is forgotten")
        return found

    @routes.get("", response_model=Page[Command])
    async def list_commands(
        request: Request, _: MayRead, device: Name, cursor: Cursor = "", limit: Limit = DEFAULT_LIMIT
    ) -> Response:
        """List the commands of a device of the last seven days, newest first."""
        await _check(registry, device)
        if cursor and not is_id(cursor):
            raise BadField("cursor", "the cursor is none of ours", "`next` of a page, as it was")
        found = await table.of(device, limit=limit + 1, before=cursor)
        following = found[limit - 1].id if len(found) > limit else None
        return sent(request, Page[Command](items=[_shown(one) for one in found[:limit]], next=following))

    @routes.post("", response_model=Command, status_code=HTTPStatus.ACCEPTED)
    async def send(
        request: Request, who: MayWrite, device: Name, form: CommandForm, wait: Wait = 0, _: IdempotencyKey = None
    ) -> Response:
        """Have a device do something: now, or when it comes before the deadline."""
        await _check(registry, device)
        made = made_of(request)
        command = kept.new(
            device,
            form.name,
            form.parameters,
            timeout=form.timeout * SECOND,
            idempotent=form.idempotent,
            by=who.name,
            id=made.id,
            created=made.created,
        )
        try:
            await desk.send(who, command)
        except SettingsError as error:
            raise Conflict(str(error)) from error
        response = sent(request, _shown(await _after(table, command, wait, listening)), HTTPStatus.ACCEPTED)
        response.headers["location"] = f"{request.url.path}/{command.id}"
        return response

    @routes.get("/{id}", response_model=Command)
    async def get_command(request: Request, _: MayRead, device: Name, id: Id, wait: Wait = 0) -> Response:
        """Return a command, at once or when it has ended."""
        return sent(request, _shown(await _after(table, await existing(device, id), wait, listening)))

    @routes.delete("/{id}", response_model=Command)
    async def cancel_command(request: Request, who: MayWrite, device: Name, id: Id) -> Response:
        """Let a command end that was never given to its device."""
        command = await existing(device, id)
        if not await desk.cancel(who, command):
            raise Conflict(f"it is too late: it is {command.state}, or a connector has taken it up")
        return sent(request, _shown(await existing(device, id)))

    return routes


async def _check(registry: Registry, device: str) -> None:
    if await registry.get(device) is None:
        raise NotFound(f"there is no device {device!r}")


async def _after(table: kept.Table, command: kept.Command, wait: int, listening: asyncio.Semaphore) -> kept.Command:
    """Return a command as it is when it has ended, or after some seconds; 0 is now."""
    if wait:  # redis-py swallows a time-out that is over before it begins
        with suppress(TimeoutError):
            async with asyncio.timeout(wait):
                if listening.locked():
                    await _ended(table, command)
                else:
                    async with listening:
                        async for found in table.changes(command):
                            command = found
    try:
        return await table.get(command.device, command.id) or command
    except Unavailable:
        return command


async def _ended(table: kept.Table, command: kept.Command) -> None:
    """Return when a command has ended, or is forgotten."""
    while True:
        found = await table.get(command.device, command.id)
        if found is None or found.has_ended:
            return
        await asyncio.sleep(LOOK_SECONDS)


def _shown(one: kept.Command) -> Command:
    return Command(**described(one))
