"""Rejects: what was refused, and how it is taken in after all."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from isotherm.cli.sources.opening import micros, opened
from isotherm.client import NotFound, model
from isotherm.client.model import Outcome
from isotherm.clock import iso
from isotherm.errors import SettingsError
from isotherm.reject_log import Filter, Kept, RejectLog
from isotherm.rejects import RejectRecord
from isotherm.settings import Settings
from isotherm.store.client import Client

if TYPE_CHECKING:
    from connectors.replay import Correct
    from isotherm.client import AsyncClient

_PLACE = re.compile(r"(\d{1,9})/(\d{1,18})", re.ASCII)

Replay = Callable[[Kept, str | None, str | None], Awaitable[Outcome]]
"""Takes in a reject once more: as another format, of a device, unless these are None."""


class Rejects(Protocol):
    """What the commands about rejects ask."""

    async def all(self, chosen: Filter) -> list[Kept]:
        """Return the rejects that are meant, ascending by time; their bytes may be left out."""

    async def get(self, id: str) -> Kept | None:
        """Return a reject with its bytes, or None."""

    async def whole(self, kept: Kept) -> Kept:
        """Return a reject with its bytes, as far as they are kept."""

    def replaying(self, correct: Correct | None) -> AbstractAsyncContextManager[Replay]:
        """Give what takes in rejects once more, through a decoder of the user's if there is one."""


class Stored:
    """Rejects on their topic."""

    def __init__(self, redis: Client, settings: Settings) -> None:
        self._settings = settings
        self._log = RejectLog(settings, redis)

    async def all(self, chosen: Filter) -> list[Kept]:
        return await self._log.all(chosen)

    async def get(self, id: str) -> Kept | None:
        place = _PLACE.fullmatch(id)
        return await self._log.get(int(place[1]), int(place[2])) if place else None

    async def whole(self, kept: Kept) -> Kept:
        return kept

    @asynccontextmanager
    async def replaying(self, correct: Correct | None) -> AsyncIterator[Replay]:
        from connectors.replay import replaying

        async with replaying(self._settings) as replayer:

            async def replay(kept: Kept, form: str | None, device: str | None) -> Outcome:
                outcome = await replayer.replay(kept.record, form=form, device=device, correct=correct)
                await self._log.mark_replayed(kept)
                return Outcome(outcome.accepted, outcome.rejected, list(outcome.errors))

            yield replay


class Served:
    """Rejects by the REST API."""

    def __init__(self, api: AsyncClient) -> None:
        self._api = api

    async def all(self, chosen: Filter) -> list[Kept]:
        found = self._api.rejects(
            reason=chosen.reason or "",
            device=chosen.device or "",
            protocol=chosen.protocol or "",
            since=iso(chosen.since, "microseconds") if chosen.since else "",
        )
        return sorted([_kept(one) async for one in found], key=lambda kept: kept.record.received_at)

    async def get(self, id: str) -> Kept | None:
        try:
            return _kept(await self._api.reject(id)) if _PLACE.fullmatch(id) else None
        except NotFound:
            return None

    async def whole(self, kept: Kept) -> Kept:
        return _kept(await self._api.reject(kept.id))

    @asynccontextmanager
    async def replaying(self, correct: Correct | None) -> AsyncIterator[Replay]:
        if correct is not None:
            raise SettingsError("--decoder is for who replays on the server; over ISOTHERM_URL --format decoder:NAME is")

        async def replay(kept: Kept, form: str | None, device: str | None) -> Outcome:
            return await self._api.replay_reject(kept.id, format=form or "", device=device or "", again=True)

        yield replay


def rejects(settings: Settings, *scopes: str) -> AbstractAsyncContextManager[Rejects]:
    """Open the rejects."""
    return opened(settings, Stored, Served, *scopes)


def _kept(one: model.Reject) -> Kept:
    record = RejectRecord(
        reason=one.reason,
        detail=one.detail,
        protocol=one.protocol,
        peer=one.peer,
        received_at=micros(one.received),
        size=one.size,
        count=one.count,
        form=one.format,
        device=one.device,
        raw=one.text,
        raw_base64=one.base64,
    )
    return Kept(one.id, record, one.is_replayed)
