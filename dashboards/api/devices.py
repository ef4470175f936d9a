"""Devices: what the registry knows of them, their labels and tokens."""

from __future__ import annotations

from collections import Counter
from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from dashboards.api.answers import DEFAULT_LIMIT, Cursor, Limit, Page, check_conditions, page_of, sent
from dashboards.api.caller import may
from dashboards.api.once import IdempotencyKey, Once
from dashboards.api.problems import NotFound
from dashboards.visitor import Visitor
from isotherm import presence
from isotherm import registry as kept
from isotherm.accounts.audit import Audit
from isotherm.clock import iso
from isotherm.configuration import Configurations
from isotherm.errors import BadField
from isotherm.names import DEVICE_PATTERN
from isotherm.registry import Registry
from isotherm.rules.targets import matches
from isotherm.store.client import Client
from isotherm.store.reader import Reader

Name = Annotated[str, Path(pattern=DEVICE_PATTERN, examples=["room-1"], description="Name of a device.")]
Glob = Annotated[str, Query(max_length=256, description="A pattern of a shell over names: `room-*`.")]
Labelled = Annotated[str, Query(max_length=256, description="A word, a key, or `key=value`.")]

MayRead = Annotated[Visitor, may("devices:read")]
MayWrite = Annotated[Visitor, may("devices:write")]
MayGiveTokens = Annotated[Visitor, may("device-tokens:write")]


class Device(BaseModel):
    """A device; `created` is when it was first seen or added."""

    name: str
    created: str
    type: str
    is_gateway: bool
    gateway: str
    labels: list[str]
    tokens: int = Field(description="How many tokens of it are valid.")


class DeviceForm(BaseModel):
    """What may be said of a device; what is left out is as by default, also when it was otherwise before."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: str = Field("", max_length=128, description="What kind of device it is; a decoder may be for it.")
    is_gateway: bool = Field(False, description="Whether it may speak for its children.")
    gateway: str = Field("", max_length=128, description="The gateway that speaks for it.")
    labels: list[str] = Field([], max_length=64, description="Words, and `key=value` with one value for each key.")


class Token(BaseModel):
    """A token; it is never shown again."""

    device: str
    token: str


class Label(BaseModel):
    """A label, and how many devices have it."""

    label: str
    devices: int


class Presence(BaseModel):
    """Whether a device is there."""

    device: str
    status: Literal["online", "late", "offline"] = Field(
        description="`late`: it has not been heard of for longer than it uses to be."
    )
    seen: str = Field(description="When it was last heard of.")
    cadence: int = Field(description="How far apart its arrivals use to be, µs; 0 when it has been heard of only once.")


class Attribute(BaseModel):
    """A text that a device has reported."""

    name: str
    value: str
    time: str


class Attributes(BaseModel):
    """The texts that a device has reported."""

    device: str
    reported: list[Attribute]


def router(redis: Client, reader: Reader, configurations: Configurations) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(prefix="/devices", tags=["devices"])
    registry, audit = Registry(redis), Audit(redis)

    @routes.get("", response_model=Page[Device])
    async def list_devices(
        request: Request,
        _: MayRead,
        name: Glob = "*",
        label: Labelled = "",
        type: Annotated[str, Query(max_length=128)] = "",
        gateway: Annotated[str, Query(max_length=128)] = "",
        cursor: Cursor = "",
        limit: Limit = DEFAULT_LIMIT,
    ) -> Response:
        """List devices, ascending by name."""
        found = [
            one
            for one in await registry.all()
            if matches(name, one.name)
            and (not label or one.has_label(label))
            and (not type or one.type == type)
            and (not gateway or one.gateway == gateway)
        ]
        some, following = page_of(found, lambda one: one.name, cursor, limit)
        return sent(request, Page[Device](items=[_shown(one) for one in some], next=following))

    @routes.get("/{device}", response_model=Device)
    async def get_device(request: Request, _: MayRead, device: Name) -> Response:
        """Return a device, with an ETag by which it can be changed as it was seen."""
        return sent(request, _shown(await _existing(registry, device)))

    @routes.put("/{device}", response_model=Device, responses={201: {"model": Device, "description": "It is new."}})
    async def put_device(request: Request, who: MayWrite, device: Name, form: DeviceForm) -> Response:
        """Register a device, or say other things of one."""
        before = await registry.get(device)
        is_conditional = check_conditions(request, None if before is None else _shown(before))
        labels = kept.labelled(kept.Device(device, 0), add=form.labels, remove=())
        if len(labels) != len(set(form.labels)):
            raise BadField("labels", "two labels have the same key", "one value for each key")
        wanted = kept.Device(device, 0, is_gateway=form.is_gateway, gateway=form.gateway, type=form.type, labels=labels)
        await registry.put(wanted, seen=before if is_conditional else kept.ANY)
        await audit.write(who.name, "change device" if before else "add device", device, address=who.address)
        status = HTTPStatus.CREATED if before is None else HTTPStatus.OK
        return sent(request, _shown(await _existing(registry, device)), status)

    @routes.delete("/{device}", status_code=204)
    async def delete_device(request: Request, who: MayWrite, device: Name) -> Response:
        """Forget a device with its tokens, labels and configuration; its history stays until it expires."""
        before = await _existing(registry, device)
        is_conditional = check_conditions(request, _shown(before))
        await registry.remove(device, seen=before if is_conditional else kept.ANY)
        await configurations.forget(device)
        await audit.write(who.name, "remove device", device, address=who.address)
        return Response(status_code=HTTPStatus.NO_CONTENT)

    @routes.get("/{device}/attributes", response_model=Attributes)
    async def get_attributes(request: Request, _: MayRead, device: Name) -> Response:
        """Return the texts that a device has reported, ascending by name."""
        found = await reader.attributes(device)
        shown = [Attribute(name=one.series.partition("/")[2], value=one.text, time=iso(one.time)) for one in found]
        return sent(request, Attributes(device=device, reported=shown))

    return routes


def token_router(redis: Client, once: Once) -> APIRouter:
    """Return the routes of devices' tokens."""
    routes = APIRouter(prefix="/devices/{device}/tokens", tags=["devices"], route_class=once.route())
    registry, audit = Registry(redis), Audit(redis)

    @routes.post("", status_code=201, response_model=Token)
    async def create_token(who: MayGiveTokens, device: Name, _: IdempotencyKey = None) -> Response:
        """Give a device a new token, which is never shown again; of its older ones the newest stays valid."""
        await _existing(registry, device)
        token = await registry.new_token(device)
        await audit.write(who.name, "new device token", device, address=who.address)
        body = Token(device=device, token=token).model_dump_json()
        return Response(body, HTTPStatus.CREATED, {"cache-control": "no-store"}, "application/json")

    @routes.delete("", status_code=204)
    async def delete_tokens(who: MayGiveTokens, device: Name) -> Response:
        """Make all tokens of a device invalid; connectors notice within 10 s."""
        await _existing(registry, device)
        await registry.revoke_tokens(device)
        await audit.write(who.name, "revoke device tokens", device, address=who.address)
        return Response(status_code=HTTPStatus.NO_CONTENT)

    return routes


def label_router(redis: Client) -> APIRouter:
    """Return the route of labels."""
    routes = APIRouter(prefix="/labels", tags=["devices"])
    registry = Registry(redis)

    @routes.get("", response_model=Page[Label])
    async def list_labels(request: Request, _: MayRead, cursor: Cursor = "", limit: Limit = DEFAULT_LIMIT) -> Response:
        """List the labels that devices have, in ascending order."""
        counts = Counter(label for device in await registry.all() for label in device.labels)
        some, following = page_of(sorted(counts), str, cursor, limit)
        return sent(request, Page[Label](items=[Label(label=one, devices=counts[one]) for one in some], next=following))

    return routes


def presence_router(redis: Client, partitions: int) -> APIRouter:
    """Return the route of which devices are there."""
    routes = APIRouter(prefix="/presence", tags=["devices"])

    @routes.get("", response_model=Page[Presence])
    async def list_presence(request: Request, _: MayRead, cursor: Cursor = "", limit: Limit = DEFAULT_LIMIT) -> Response:
        """List the devices of which it is known whether they are there, ascending by name."""
        known = await presence.read(redis, partitions)
        names, following = page_of(sorted(known), str, cursor, limit)
        items = [
            Presence(device=one, status=known[one].status, seen=iso(known[one].seen), cadence=known[one].cadence)
            for one in names
        ]
        return sent(request, Page[Presence](items=items, next=following))

    return routes


async def _existing(registry: Registry, name: str) -> kept.Device:
    device = await registry.get(name)
    if device is None:
        raise NotFound(f"there is no device {name!r}")
    return device


def _shown(device: kept.Device) -> Device:
    return Device(
        name=device.name,
        created=iso(device.created),
        type=device.type,
        is_gateway=device.is_gateway,
        gateway=device.gateway,
        labels=sorted(device.labels),
        tokens=len(device.tokens),
    )
