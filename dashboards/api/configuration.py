"""Configuration of devices: what they should have, what they have; and rollouts, which change that of many."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from dashboards.api.answers import DEFAULT_LIMIT, Cursor, Limit, Page, check_conditions, page_of, sent
from dashboards.api.caller import may
from dashboards.api.devices import Name
from dashboards.api.once import IdempotencyKey, Once, made_of
from dashboards.api.problems import Conflict, NotFound
from dashboards.desk import Desk
from dashboards.visitor import Visitor
from isotherm import configuration as kept
from isotherm.commands.command import is_id
from isotherm.configuration import rollout as rolled
from isotherm.configuration.configuration import KEY, MAX_KEY_CHARS, MAX_KEYS, STATES, described
from isotherm.errors import BadField, SettingsError
from isotherm.firmware import Firmware, Image
from isotherm.firmware.image import NAME as IMAGE_NAME
from isotherm.limits import DAY, SECOND
from isotherm.registry import Registry
from isotherm.store.client import Client

MayRead = Annotated[Visitor, may("configuration:read")]
MayWrite = Annotated[Visitor, may("configuration:write")]
Id = Annotated[str, Path(max_length=40)]
Values = dict[str, JsonValue]
_KEYS: dict[str, Any] = {
    "propertyNames": {"pattern": f"^{KEY}$", "maxLength": MAX_KEY_CHARS},
    "minProperties": 1,
    "maxProperties": MAX_KEYS,
}


class Changes(BaseModel):
    """What a device should have from now on; what is not named stays as it is."""

    model_config = ConfigDict(extra="forbid", strict=True)

    values: Values = Field(description="Setting → value; null removes it. At most 12 KiB in all.", json_schema_extra=_KEYS)


class Configuration(BaseModel):
    """What a device should have and what it has."""

    device: str
    version: int = Field(description="Grows with each change of `desired`; 0 while nothing is desired.")
    state: str = Field(description=f"One of {', '.join(STATES)}.")
    desired: Values
    changed: str | None
    by: str
    rollout: str = Field(description="The rollout that changed it last, or empty.")
    attempts: int = Field(description="How often it was given to the device.")
    given: str | None
    via: str = Field(description="The connector that gave it last.")
    progress: int | None = Field(description="How far the device is with it, %, if it has said so.")
    error: str
    reported: Values
    reported_version: int = Field(description="The version that the device had then.")
    reported_at: str | None
    drift: list[str] = Field(description="Settings of which the device has reported another value than the desired one.")


class Targets(BaseModel):
    """Which devices: those of which all of it is true."""

    model_config = ConfigDict(extra="forbid", strict=True)

    devices: list[Annotated[str, Field(min_length=1, max_length=128)]] = Field(
        [], max_length=10_000, description="Names, and patterns of a shell: `room-*`; `*` is all."
    )
    label: str = Field("", max_length=256, description="A word, a key, or `key=value`.")
    type: str = Field("", max_length=128)
    gateway: str = Field("", max_length=128, description="The gateway whose children they are.")


class RolloutForm(BaseModel):
    """A change for many devices: either `values` or `firmware`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    targets: Targets
    values: Values = Field({}, description="Setting → value; null removes it.")
    firmware: str | None = Field(
        None, pattern=f"^{IMAGE_NAME}/{IMAGE_NAME}$", description="An image, `NAME/VERSION`.", examples=["thermostat/1.2.0"]
    )
    waves: list[float] = Field(
        [],
        max_length=rolled.MAX_WAVES - 1,
        description="Up to which share of the devices each wave goes: 0.01, 0.1 is 1 %, then 9 %, then the rest.",
    )
    continuous: bool = Field(
        False,
        description="Devices that match later are given it as well, until it is halted or a newer one supersedes it.",
    )
    max_failure_rate: float = Field(
        rolled.DEFAULT_FAILURE_RATE, ge=0, le=1, description="A greater share of failures among the answers halts it."
    )
    wave_timeout: int = Field(
        rolled.DEFAULT_WAVE_TIMEOUT // SECOND,
        ge=1,
        le=7 * DAY // SECOND,
        description="Seconds after which devices that are away no longer hold up the next wave.",
    )


class Progress(BaseModel):
    """How many devices are how far."""

    waiting: int
    pending: int
    sent: int
    applied: int
    drifted: int
    failed: int
    superseded: int


class Rollout(BaseModel):
    """A rollout, and how far it is."""

    id: str
    targets: Targets
    values: Values
    by: str
    created: str
    continuous: bool
    back: str = Field(description="The rollout that it takes back, or empty.")
    state: Literal["running", "halted", "watching", "done"] = Field(
        description="`watching`: continuous, and every device that there is has ended."
    )
    why: str = Field(description="Why it is halted, or does not go to all devices that match.")
    devices: int = Field(description="How many it has been for so far.")
    waves: list[int] = Field(description="How many of those that were there when it began are in each wave.")
    wave: int
    wave_at: str
    max_failure_rate: float
    wave_timeout: float
    progress: Progress


class Action(BaseModel):
    """What to do with a rollout."""

    model_config = ConfigDict(extra="forbid", strict=True)

    action: Literal["halt", "resume", "retry"] = Field(
        description="`halt`: give it to nobody more. `resume`: go on. `retry`: give it again to who failed or has drifted."
    )


def device_router(redis: Client, rollouts: kept.Rollouts, desk: Desk, once: Once) -> APIRouter:
    """Return the routes of one device's configuration."""
    routes = APIRouter(prefix="/devices/{device}/configuration", tags=["configuration"], route_class=once.route())
    registry, configurations = Registry(redis), rollouts.configurations

    async def existing(device: str) -> Configuration:
        if await registry.get(device) is None:
            raise NotFound(f"there is no device {device!r}")
        return Configuration(**described(await configurations.get(device)))

    @routes.get("", response_model=Configuration)
    async def get_configuration(request: Request, _: MayRead, device: Name) -> Response:
        """Return what a device should have, what it has, and how far that is."""
        return sent(request, await existing(device))

    @routes.patch("", response_model=Configuration)
    async def change_configuration(
        request: Request, who: MayWrite, device: Name, form: Changes, _: IdempotencyKey = None
    ) -> Response:
        """Change what a device should have; it is given to the device now, or when it comes."""
        before = await existing(device)
        check_conditions(request, before)
        is_conditional = "if-match" in request.headers
        try:
            found = await desk.configure(who, device, form.values, before.version if is_conditional else None)
        except BadField as error:
            if error.field == "version":
                raise Conflict(str(error), HTTPStatus.PRECONDITION_FAILED) from error
            raise
        return sent(request, Configuration(**described(found)))

    @routes.post("/push", response_model=Configuration)
    async def push_configuration(request: Request, who: MayWrite, device: Name, _: IdempotencyKey = None) -> Response:
        """Give a device what it should have once more: one that could not, or has something else."""
        await existing(device)
        return sent(request, Configuration(**described(await desk.push(who, device))))

    return routes


def rollout_router(rollouts: kept.Rollouts, firmware: Firmware, desk: Desk, once: Once) -> APIRouter:
    """Return the routes of rollouts."""
    routes = APIRouter(prefix="/rollouts", tags=["configuration"], route_class=once.route())

    @routes.get("", response_model=Page[Rollout])
    async def list_rollouts(request: Request, _: MayRead, cursor: Cursor = "", limit: Limit = DEFAULT_LIMIT) -> Response:
        """List the rollouts of the last 90 days, newest first."""
        if cursor and not is_id(cursor):
            raise BadField("cursor", "the cursor is none of ours", "`next` of a page, as it was")
        found = await rollouts.newest(limit=limit + 1, before=cursor)
        following = found[limit - 1].id if len(found) > limit else None
        return sent(request, Page[Rollout](items=[await _shown(rollouts, one) for one in found[:limit]], next=following))

    @routes.post("", response_model=Rollout, status_code=HTTPStatus.CREATED)
    async def begin_rollout(request: Request, who: MayWrite, form: RolloutForm, _: IdempotencyKey = None) -> Response:
        """Begin to change what devices should have."""
        image = await _image(firmware, form)
        found = await desk.roll_out(
            who,
            rolled.Targets(**form.targets.model_dump()),
            form.values,
            image,
            waves=form.waves,
            continuous=form.continuous,
            max_failure_rate=form.max_failure_rate,
            wave_timeout=form.wave_timeout * SECOND,
            id=made_of(request).id,
        )
        response = sent(request, await _shown(rollouts, found), HTTPStatus.CREATED)
        response.headers["location"] = f"{request.url.path}/{found.id}"
        return response

    @routes.get("/{id}", response_model=Rollout)
    async def get_rollout(request: Request, _: MayRead, id: Id) -> Response:
        """Return a rollout and how far it is."""
        return sent(request, await _shown(rollouts, await _existing(rollouts, id)))

    @routes.get("/{id}/devices", response_model=Page[Configuration])
    async def list_rollout_devices(
        request: Request,
        _: MayRead,
        id: Id,
        state: Annotated[rolled.Member, Query(description="How far they are.")] = "failed",
        cursor: Cursor = "",
        limit: Limit = DEFAULT_LIMIT,
    ) -> Response:
        """List the devices of a rollout that are so far, ascending by name."""
        names, following = page_of(await rollouts.members((await _existing(rollouts, id)).id, state), str, cursor, limit)
        items = [Configuration(**described(await rollouts.configurations.get(name))) for name in names]
        return sent(request, Page[Configuration](items=items, next=following))

    return routes


def steering_router(rollouts: kept.Rollouts, desk: Desk, once: Once) -> APIRouter:
    """Return the routes of what is done to a rollout that was begun."""
    routes = APIRouter(prefix="/rollouts/{id}", tags=["configuration"], route_class=once.route())

    @routes.post("/actions", response_model=Rollout)
    async def act_on_rollout(request: Request, who: MayWrite, id: Id, form: Action, _: IdempotencyKey = None) -> Response:
        """Halt a rollout, have it go on, or give it again to who failed."""
        await desk.steer(who, await _existing(rollouts, id), form.action)
        return sent(request, await _shown(rollouts, await _existing(rollouts, id)))

    @routes.post("/rollback", response_model=Rollout, status_code=HTTPStatus.CREATED)
    async def roll_back(request: Request, who: MayWrite, id: Id, _: IdempotencyKey = None) -> Response:
        """Begin to make desired what was so before a rollout, where nobody has changed it since; it is a rollout itself."""
        try:
            found = await desk.roll_back(who, await _existing(rollouts, id), id=made_of(request).id)
        except SettingsError as error:
            raise Conflict(str(error)) from error
        response = sent(request, await _shown(rollouts, found), HTTPStatus.CREATED)
        response.headers["location"] = f"{request.url.path.rsplit('/', 2)[0]}/{found.id}"
        return response

    return routes


async def _existing(rollouts: kept.Rollouts, id: str) -> kept.Rollout:
    found = await rollouts.get(id) if is_id(id) else None
    if found is None:
        raise NotFound(f"there is no rollout {id!r}, or it is forgotten")
    return found


async def _shown(rollouts: kept.Rollouts, one: kept.Rollout) -> Rollout:
    return Rollout(**rolled.described(one, await rollouts.progress(one.id)))


async def _image(firmware: Firmware, form: RolloutForm) -> Image | None:
    """Return the image that a rollout is of, or None when it is one of values."""
    if bool(form.values) == bool(form.firmware):
        raise BadField("values", "a rollout has either values or firmware", "either values or firmware")
    if not form.firmware:
        return None
    name, _, version = form.firmware.partition("/")
    image = await firmware.get(name, version)
    if image is None:
        raise BadField("firmware", f"there is no firmware {form.firmware!r}", "an image that was uploaded")
    return image
