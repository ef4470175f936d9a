"""Opens the face of a source that is meant."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

from isotherm.settings import Settings
from isotherm.store.client import Client

if TYPE_CHECKING:
    from isotherm.client import AsyncClient

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Source = TypeVar("Source")


@asynccontextmanager
async def opened(
    settings: Settings,
    stored: Callable[[Client, Settings], Source],
    served: Callable[[AsyncClient], Source],
    *scopes: str,
) -> AsyncIterator[Source]:
    """Give a source; what goes wrong with the REST API becomes an error of one line.

    Args:
        settings: Whether the platform is elsewhere, and where it or the store is.
        stored: Makes the face of the store.
        served: Makes that of the REST API.
        scopes: What a token needs for it there.
    """
    if not settings.url:
        from isotherm.store import client

        async with client.connected(settings) as redis:
            yield stored(redis, settings)
        return
    from isotherm.cli.server import connected, translated

    with translated(settings, scopes):
        async with connected(settings) as api:
            yield served(api)


def micros(time: datetime) -> int:
    """Return a time as µs since the epoch UTC."""
    return (time - _EPOCH) // timedelta(microseconds=1)
