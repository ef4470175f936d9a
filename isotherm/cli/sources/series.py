"""The history of series."""

from __future__ import annotations

import math
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, NamedTuple, Protocol

from isotherm.cli.sources.opening import opened
from isotherm.settings import Settings
from isotherm.store.client import Client
from isotherm.store.reader import Reader

if TYPE_CHECKING:
    from isotherm.client import AsyncClient

COLUMNS = ("time", "count", "min", "mean", "max", "last")


class Row(NamedTuple):
    """What was measured from ``time`` on, µs since the epoch UTC, up to the next row; or a single reading."""

    time: int
    readings: int
    min: float
    mean: float
    max: float
    last: float


class History(Protocol):
    """What the commands about history ask."""

    async def rows(self, series: str, start: int, end: int, points: int) -> list[Row]:
        """Return a series over [start, end), µs since the epoch UTC, in at most so many rows."""


class Stored:
    """History in the store."""

    def __init__(self, redis: Client, settings: Settings) -> None:
        self._reader = Reader(redis, settings.partitions)

    async def rows(self, series: str, start: int, end: int, points: int) -> list[Row]:
        found = await self._reader.query(series, start, end, points)
        return [Row(*row) for row in zip(*(getattr(found, name).tolist() for name in COLUMNS), strict=True)]


class Served:
    """History by the REST API."""

    def __init__(self, api: AsyncClient) -> None:
        self._api = api

    async def rows(self, series: str, start: int, end: int, points: int) -> list[Row]:
        found = (await self._api.series(series, start=start, end=end, points=points))[series]
        values = [[math.nan if one is None else one for one in getattr(found, name)] for name in COLUMNS[2:]]
        return [Row(*row) for row in zip(found.time, found.count, *values, strict=True)]


def history(settings: Settings) -> AbstractAsyncContextManager[History]:
    """Open the history."""
    return opened(settings, Stored, Served, "series:read")
