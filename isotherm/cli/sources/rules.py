"""Rules: when alarms are raised."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Protocol

import msgspec

from isotherm.cli.sources import devices
from isotherm.cli.sources.opening import opened
from isotherm.client import NotFound, PreconditionFailed, model
from isotherm.errors import SettingsError
from isotherm.registry import Registry
from isotherm.rules import Rule
from isotherm.rules import Rules as Table
from isotherm.rules.targets import unknown
from isotherm.settings import Settings
from isotherm.store.client import Client
from isotherm.store.reader import Reader

if TYPE_CHECKING:
    from isotherm.client import AsyncClient


class Rules(Protocol):
    """What the commands about rules ask."""

    async def all(self) -> list[Rule]:
        """Return every rule, ascending by id."""

    async def get(self, id: str) -> Rule:
        """Return a rule."""

    async def add(self, rule: Rule) -> None:
        """Keep a new rule."""

    async def replace(self, rule: Rule) -> None:
        """Keep a rule in the place of the one with its id."""

    async def enable(self, id: str, enabled: bool) -> None:
        """Have a rule evaluated, or not."""

    async def remove(self, id: str) -> None:
        """Forget a rule."""

    async def why_unknown(self, rule: Rule) -> str:
        """Return why a rule would never look at anything, or nothing when it would."""


class Stored:
    """Rules in the store."""

    def __init__(self, redis: Client, settings: Settings) -> None:
        self._table = Table(redis)
        self._registry = Registry(redis)
        self._reader = Reader(redis, settings.partitions)

    async def all(self) -> list[Rule]:
        return await self._table.all()

    async def get(self, id: str) -> Rule:
        return await self._table.get(id)

    async def add(self, rule: Rule) -> None:
        await self._table.add(rule)

    async def replace(self, rule: Rule) -> None:
        await self._table.replace(rule)

    async def enable(self, id: str, enabled: bool) -> None:
        await self._table.enable(id, enabled)

    async def remove(self, id: str) -> None:
        await self._table.remove(id)

    async def why_unknown(self, rule: Rule) -> str:
        registered = {device.name: device for device in await self._registry.all()}
        return unknown(rule, await self._reader.series(), registered)


class Served:
    """Rules by the REST API."""

    def __init__(self, api: AsyncClient) -> None:
        self._api = api

    async def all(self) -> list[Rule]:
        if broken := await self._api.broken_rules():
            raise SettingsError(broken[0])
        return [_rule(one) async for one in self._api.rules()]

    async def get(self, id: str) -> Rule:
        return _rule(await self._existing(id))

    async def add(self, rule: Rule) -> None:
        try:
            await self._api.create_rule(_model(rule))
        except PreconditionFailed as error:
            raise SettingsError(f"there is a rule {rule.id!r}; --replace puts another in its place") from error

    async def replace(self, rule: Rule) -> None:
        seen = await self._existing(rule.id)
        await self._api.update_rule(msgspec.structs.replace(_model(rule), etag=seen.etag))

    async def enable(self, id: str, enabled: bool) -> None:
        seen = await self._existing(id)
        if seen.enabled != enabled:
            await self._api.update_rule(msgspec.structs.replace(seen, enabled=enabled))

    async def remove(self, id: str) -> None:
        await self._existing(id)
        await self._api.delete_rule(id)

    async def why_unknown(self, rule: Rule) -> str:
        registered = {device.name: device for device in await devices.Served(self._api).all()}
        return unknown(rule, [one.series async for one in self._api.latest()], registered)

    async def _existing(self, id: str) -> model.Rule:
        try:
            return await self._api.rule(id)
        except NotFound as error:
            raise SettingsError(f"there is no rule {id!r}; see: isotherm rules list") from error


def rules(settings: Settings, *scopes: str) -> AbstractAsyncContextManager[Rules]:
    """Open the rules."""
    return opened(settings, Stored, Served, *scopes)


def _rule(one: model.Rule) -> Rule:
    return Rule(**{name: getattr(one, name) for name in Rule.__struct_fields__})


def _model(rule: Rule) -> model.Rule:
    return model.Rule(**{name: getattr(rule, name) for name in Rule.__struct_fields__})
