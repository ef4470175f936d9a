"""What ``isotherm bench agents`` needs in the stack that it measures, and takes away again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from isotherm.analytics import Analytics, Entry
from isotherm.errors import StackError
from isotherm.rules import Rule, Rules
from isotherm.settings import Settings
from isotherm.store import client

START_SECONDS = 30.0
LIMITS = ((8.5, None), (20.0, None), (30.0, None), (None, -5.0), (None, -10.0))
"""Above and below. Of the readings, which are 0 to 9, one in ten holds an alarm of the first kind."""


@asynccontextmanager
async def enabled(settings: Settings, names: Sequence[str]) -> AsyncIterator[None]:
    """Have analytics run for the length of the block.

    Raises:
        StackError: they do not begin to.
    """
    async with client.connected(settings) as redis:
        analytics = Analytics(redis)
        before = await analytics.entries()
        for name in names:
            await analytics.put(Entry(name, before[name].analytic if name in before else name))
        try:
            try:
                async with asyncio.timeout(START_SECONDS):
                    while not await _run(analytics, names):  # noqa: ASYNC110
                        await asyncio.sleep(0.2)  # other processes' progress: there is no event to wait for
            except TimeoutError as error:
                raise StackError(f"{', '.join(names)} do not run; see: isotherm agent status") from error
            yield
        finally:
            for name in names:
                await analytics.put(before.get(name, Entry(name, name, is_enabled=False)))


async def _run(analytics: Analytics, names: Sequence[str]) -> bool:
    return set(names) <= {one.name for one in await analytics.running() if one.state == "running"}


@asynccontextmanager
async def ruled(settings: Settings, count: int, devices: int) -> AsyncIterator[None]:
    """Have rules for the length of the block, several for each device, with hysteresis."""
    async with client.connected(settings) as redis:
        rules = Rules(redis)
        made = [
            Rule(
                id=f"bench-{number}",
                name=f"bench {number}",
                kind="threshold",
                metric="temperature",
                devices=f"load-{number % devices}",
                hysteresis=1.0,
                above=LIMITS[number // devices % len(LIMITS)][0],
                below=LIMITS[number // devices % len(LIMITS)][1],
            )
            for number in range(count)
        ]
        try:
            for rule in made:
                await rules.add(rule)
            yield
        finally:
            for rule in made:
                await rules.remove(rule.id)
