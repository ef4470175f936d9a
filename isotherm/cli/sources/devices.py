"""Devices: what is registered, what they last said, and their tokens."""

from __future__ import annotations

import math
from collections.abc import Collection
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from isotherm import presence
from isotherm.cli.sources.opening import micros, opened
from isotherm.client import NotFound, model
from isotherm.configuration import Configurations
from isotherm.pack import Attribute
from isotherm.registry import Device, Registry, labelled
from isotherm.settings import Settings
from isotherm.store.client import Client
from isotherm.store.reader import Latest, Reader

if TYPE_CHECKING:
    from isotherm.client import AsyncClient


@dataclass(frozen=True, slots=True)
class Profile:
    """All that is known of a device; nothing where there is none.

    Attributes:
        device: What is registered of it, but for its tokens; None when it is not.
        tokens: How many of its tokens are valid.
        latest: Its newest values, ascending by metric.
        attributes: What it has reported, ascending by name.
    """

    device: Device | None
    tokens: int
    latest: list[Latest]
    attributes: list[Attribute]


class Devices(Protocol):
    """What the commands about devices ask."""

    async def latest(self) -> list[Latest]:
        """Return the newest value of every series, ascending by name."""

    async def statuses(self) -> dict[str, str]:
        """Return whether devices are there: device → online, late or offline, where that is known."""

    async def all(self) -> list[Device]:
        """Return every device that is registered, ascending by name; without its tokens."""

    async def get(self, name: str) -> Device | None:
        """Return a device, without its tokens, or None."""

    async def profile(self, name: str) -> Profile:
        """Return all that is known of a device."""

    async def add(self, name: str, *, is_gateway: bool = False, gateway: str = "", type: str | None = None) -> None:
        """Register a device, or say other things of it; without a type that stays."""

    async def label(self, name: str, *, add: Collection[str], remove: Collection[str]) -> frozenset[str]:
        """Change the labels of a device; returns those that it has then."""

    async def new_token(self, name: str) -> str:
        """Give a device a new token."""

    async def revoke_tokens(self, name: str) -> int:
        """Make a device's tokens invalid; returns how many."""

    async def remove(self, name: str) -> None:
        """Forget a device and its configuration."""


class Stored:
    """Devices in the store."""

    def __init__(self, redis: Client, settings: Settings) -> None:
        self._redis = redis
        self._partitions = settings.partitions
        self._registry = Registry(redis)
        self._reader = Reader(redis, settings.partitions)

    async def latest(self) -> list[Latest]:
        return await self._reader.latest()

    async def statuses(self) -> dict[str, str]:
        return {device: one.status for device, one in (await presence.read(self._redis, self._partitions)).items()}

    async def all(self) -> list[Device]:
        return await self._registry.all()

    async def get(self, name: str) -> Device | None:
        return await self._registry.get(name)

    async def profile(self, name: str) -> Profile:
        device = await self._registry.get(name)
        latest = [row for row in await self._reader.latest() if row.device == name]
        return Profile(device, len(device.tokens) if device else 0, latest, await self._reader.attributes(name))

    async def add(self, name: str, *, is_gateway: bool = False, gateway: str = "", type: str | None = None) -> None:
        await self._registry.add(name, is_gateway=is_gateway, gateway=gateway, type=type)

    async def label(self, name: str, *, add: Collection[str], remove: Collection[str]) -> frozenset[str]:
        return await self._registry.label(name, add=add, remove=remove)

    async def new_token(self, name: str) -> str:
        return await self._registry.new_token(name)

    async def revoke_tokens(self, name: str) -> int:
        return await self._registry.revoke_tokens(name)

    async def remove(self, name: str) -> None:
        await self._registry.remove(name)
        await Configurations(self._redis, self._partitions).forget(name)


class Served:
    """Devices by the REST API."""

    def __init__(self, api: AsyncClient) -> None:
        self._api = api

    async def latest(self) -> list[Latest]:
        return sorted([_latest(one) async for one in self._api.latest()], key=lambda one: (one.device, one.metric))

    async def statuses(self) -> dict[str, str]:
        return {one.device: one.status async for one in self._api.presence()}

    async def all(self) -> list[Device]:
        return [_device(one) async for one in self._api.devices()]

    async def get(self, name: str) -> Device | None:
        found = await self._find(name)
        return None if found is None else _device(found)

    async def profile(self, name: str) -> Profile:
        found = await self._find(name)
        children = [one.name async for one in self._api.devices(gateway=name)] if found and found.is_gateway else []
        latest = [_latest(one) async for one in self._api.latest(f"{name}/*")]
        attributes = [
            Attribute(f"{name}/{one.name}", micros(one.time), one.value) for one in await self._api.attributes(name)
        ]
        device = None if found is None else _device(found, children)
        return Profile(device, found.tokens if found else 0, latest, attributes)

    async def add(self, name: str, *, is_gateway: bool = False, gateway: str = "", type: str | None = None) -> None:
        found = await self._find(name)
        if found is None:
            await self._api.create_device(name, is_gateway=is_gateway, gateway=gateway, type=type or "")
        else:
            await self._api.update_device(found, is_gateway=is_gateway, gateway=gateway, type=type)

    async def label(self, name: str, *, add: Collection[str], remove: Collection[str]) -> frozenset[str]:
        labelled(_device(await self._api.device(name)), add=add, remove=remove)  # which says what is wrong with them
        return (await self._api.label_device(name, add=add, remove=remove)).labels

    async def new_token(self, name: str) -> str:
        return await self._api.create_device_token(name)

    async def revoke_tokens(self, name: str) -> int:
        count = (await self._api.device(name)).tokens
        await self._api.revoke_device_tokens(name)
        return count

    async def remove(self, name: str) -> None:
        await self._api.delete_device(name)

    async def _find(self, name: str) -> model.Device | None:
        try:
            return await self._api.device(name)
        except NotFound:
            return None


def devices(settings: Settings, *scopes: str) -> AbstractAsyncContextManager[Devices]:
    """Open the devices."""
    return opened(settings, Stored, Served, *scopes)


def _latest(one: model.Latest) -> Latest:
    value = math.nan if one.value is None else one.value
    return Latest(one.device, one.metric, micros(one.time), value, one.unit, micros(one.received_at))


def _device(one: model.Device, children: Collection[str] = ()) -> Device:
    return Device(
        one.name,
        micros(one.created),
        one.is_gateway,
        one.gateway,
        children=frozenset(children),
        type=one.type,
        labels=one.labels,
    )
