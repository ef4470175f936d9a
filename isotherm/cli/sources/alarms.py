"""Alarms: what is wrong, and what people have to say about it."""

from __future__ import annotations

import getpass
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Protocol, cast

from isotherm.alarms import Alarm, AlarmRow
from isotherm.alarms import Alarms as Table
from isotherm.alarms.delivery import deliver
from isotherm.alarms.table import Acknowledgement, Shelf
from isotherm.cli.sources.opening import micros, opened
from isotherm.client import model
from isotherm.clock import now_us
from isotherm.errors import SettingsError
from isotherm.events import Event, Severity
from isotherm.limits import SECOND
from isotherm.settings import Settings
from isotherm.store.client import Client
from isotherm.store.events import EventLog

if TYPE_CHECKING:
    from isotherm.client import AsyncClient


class Alarms(Protocol):
    """What the commands about alarms ask. ``by`` is who does it, where that is not whoever runs the command."""

    async def all(self) -> list[Alarm]:
        """Return the alarms, newest first."""

    async def acknowledge(self, key: str, note: str, by: str | None) -> None:
        """Say that somebody has seen an alarm, as it is now."""

    async def shelve(self, key: str, seconds: int, by: str | None) -> int:
        """Not hear of an alarm, or of a rule's, for a while; returns until when, µs since the epoch UTC."""

    async def unshelve(self, key: str, by: str | None) -> None:
        """Hear of it again."""


class Stored:
    """Alarms in the store; what people do is told on the topic ``events`` as well."""

    def __init__(self, redis: Client, settings: Settings) -> None:
        self._settings = settings
        self._table = Table(redis, settings.partitions)
        self._log = EventLog(redis, settings.partitions)

    async def all(self) -> list[Alarm]:
        return await self._table.list()

    async def acknowledge(self, key: str, note: str, by: str | None) -> None:
        since = (await self._table.get(key)).row.since
        await self._tell(await self._table.acknowledge(key, since, by or getpass.getuser(), note))

    async def shelve(self, key: str, seconds: int, by: str | None) -> int:
        until = now_us() + seconds * SECOND
        await self._tell(await self._table.shelve(key, until, by or getpass.getuser()))
        return until

    async def unshelve(self, key: str, by: str | None) -> None:
        await self._tell(await self._table.unshelve(key, by or getpass.getuser()))

    async def _tell(self, event: Event) -> None:
        await self._log.append(event)
        await deliver(self._settings, [event])


class Served:
    """Alarms by the REST API."""

    def __init__(self, api: AsyncClient) -> None:
        self._api = api

    async def all(self) -> list[Alarm]:
        found = [_alarm(one) async for one in self._api.alarms()]
        return sorted(found, key=lambda one: (-one.row.since, one.row.key))

    async def acknowledge(self, key: str, note: str, by: str | None) -> None:
        _check(by)
        found = [one async for one in self._api.alarms() if one.key == key]
        if not found:
            raise SettingsError(f"there is no alarm {key!r}; see: isotherm alarms")
        await self._api.acknowledge(found, note)

    async def shelve(self, key: str, seconds: int, by: str | None) -> int:
        _check(by)
        until = now_us() + seconds * SECOND
        await self._api.shelve(key, seconds)
        return until

    async def unshelve(self, key: str, by: str | None) -> None:
        _check(by)
        await self._api.unshelve(key)


def alarms(settings: Settings, *scopes: str) -> AbstractAsyncContextManager[Alarms]:
    """Open the alarms."""
    return opened(settings, Stored, Served, *scopes)


def _check(by: str | None) -> None:
    if by is not None:
        raise SettingsError(f"--by is {by!r}: over ISOTHERM_URL it is the user whose token is shown")


def _alarm(one: model.Alarm) -> Alarm:
    row = AlarmRow(
        rule=one.rule,
        kind="",
        device=one.device,
        metric=one.metric,
        severity=cast(Severity, one.severity),
        since=one.since,
        cleared=micros(one.cleared) if one.cleared else 0,
        times=one.times,
        message=one.message,
        value=one.value,
        unit=one.unit,
    )
    seen, shelf = one.acknowledged, one.shelved
    return Alarm(
        row,
        Acknowledgement(one.since, seen.by, micros(seen.time), seen.note) if seen else None,
        Shelf(micros(shelf.until or shelf.time), shelf.by, micros(shelf.time)) if shelf else None,
    )
