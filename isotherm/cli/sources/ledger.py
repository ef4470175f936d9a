"""The ledger."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Protocol

import msgspec

from isotherm import kafka, ledger
from isotherm.cli.sources.opening import opened
from isotherm.ledger import Line
from isotherm.settings import Settings
from isotherm.store.client import Client

if TYPE_CHECKING:
    from isotherm.client import AsyncClient


class Ledger(Protocol):
    """What the command about the ledger asks."""

    async def lines(self) -> dict[str, Line]:
        """Return a line for each connector."""


class Stored:
    """The ledger in the store."""

    def __init__(self, redis: Client, settings: Settings) -> None:
        self._redis = redis
        self._settings = settings

    async def lines(self) -> dict[str, Line]:
        log_id = await kafka.cluster_id(self._settings)
        return await ledger.read(self._redis, self._settings.partitions, log_id)


class Served:
    """The ledger by the REST API."""

    def __init__(self, api: AsyncClient) -> None:
        self._api = api

    async def lines(self) -> dict[str, Line]:
        found = await self._api.ledger()
        return {name: Line(**msgspec.to_builtins(line)) for name, line in found.connectors.items()}


def the_ledger(settings: Settings) -> AbstractAsyncContextManager[Ledger]:
    """Open the ledger."""
    return opened(settings, Stored, Served, "system:read")
