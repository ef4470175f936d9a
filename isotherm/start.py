"""The start of a process whose servers start with it, as in a cluster: it waits until they answer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from isotherm import kafka
from isotherm.errors import Unavailable
from isotherm.process import done_before, stop_signal
from isotherm.settings import Settings
from isotherm.store import client

LOOK_SECONDS = 0.5

log = logging.getLogger(__name__)


async def when_servers_answer(settings: Settings, main: Coroutine[Any, Any, None]) -> None:
    """Run a process's main coroutine once the store answers, and Kafka with as many brokers as its topics need.

    After ISOTHERM_START_SECONDS it runs anyway, and says which does not; not at all when a signal ends the process before.
    """
    try:
        if settings.start_seconds:
            asking = _answered(settings, _ask_store, kafka.expect_topics)
            if not await done_before(stop_signal(), asking):
                return
        await main
    finally:
        main.close()


async def store_answered(settings: Settings) -> None:
    """Return when the store answers, or when ISOTHERM_START_SECONDS are over."""
    await _answered(settings, _ask_store)


async def _answered(settings: Settings, *asked: Callable[[Settings], Awaitable[None]]) -> None:
    deadline = time.monotonic() + settings.start_seconds
    for ask in asked:
        said = False
        while time.monotonic() < deadline:
            try:
                await ask(settings)
            except Unavailable as error:
                if not said:
                    log.info("waiting: %s", error)
                said = True
                await asyncio.sleep(LOOK_SECONDS)
            else:
                break


async def _ask_store(settings: Settings) -> None:
    async with client.connected(settings):
        pass
