"""Readings as they come: each once, whatever happens to the connection."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from isotherm.accounts.accounts import Actor
from isotherm.clock import now_us
from isotherm.limits import MINUTE
from isotherm.settings import Settings
from tests.api.conftest import Login
from tests.dashboards.stack import Filler, Web
from tests.dashboards.test_access import kernel
from tests.dashboards.test_process import eventually, metric

pytestmark = pytest.mark.servers

SERIES = "hall-1/light", "hall-2/light"
PATH = "/api/v1/stream?" + "&".join(f"series={one}" for one in SERIES)


class Stream:
    """An open stream, as EventSource reads one."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._lines = answer.content
        self.id = ""

    async def event(self) -> dict[str, dict[str, list[float]]]:
        """Return the data of the next event, and remember its id."""
        data = ""
        async with asyncio.timeout(20):
            while True:
                name, _, value = (await self._lines.readuntil(b"\n")).decode().rstrip("\n").partition(": ")
                if name == "id":
                    self.id = value
                elif name == "data":
                    data = value
                elif not name and data:
                    return dict(json.loads(data))
                elif not name and self.id and not data:
                    return {}

    async def values(self, count: int, series: str = SERIES[0]) -> list[float]:
        """Return the next values of a series."""
        found: list[float] = []
        while len(found) < count:
            found += (await self.event()).get(series, {}).get("value", [])
        return found


@asynccontextmanager
async def following(settings: Settings, web: Web, id: str = "") -> AsyncIterator[Stream]:
    async with kernel(settings) as accounts:
        token, _ = await accounts.create_token("vera", "a test", ["read"], 1, Actor("test", "cli"))
    headers = {"Authorization": f"Bearer {token}"} | ({"Last-Event-ID": id} if id else {})
    async with aiohttp.ClientSession() as client, client.get(web.url + PATH, headers=headers) as answer:
        assert (answer.status, answer.content_type) == (200, "text/event-stream")
        stream = Stream(answer)
        assert await stream.event() == {}, "the first event has the id alone"
        yield stream


async def test_every_reading_comes_once_late_ones_and_those_of_a_lost_connection_and_a_restart_too(
    settings: Settings, web: Web, filler: Filler
) -> None:
    async def say(*values: float, ago: int = 0) -> None:
        await filler.write({SERIES[0]: [(now_us() - ago, value) for value in values]})

    await say(0.0)
    async with following(settings, web) as stream:
        await say(1.0, 2.0)
        assert await stream.values(2) == [1.0, 2.0]
        await say(3.0, ago=5 * MINUTE)
        assert await stream.values(1) == [3.0]
        id = stream.id
    await say(4.0)
    async with following(settings, web, id) as stream:
        assert await stream.values(1) == [4.0]
        await filler.write({SERIES[1]: [(now_us(), 1.0)]})
        assert await stream.values(1, SERIES[1]) == [1.0]
        id = stream.id
    web.stop()
    await say(5.0)
    web.start()
    async with following(settings, web, id) as stream:
        assert await stream.values(1) == [5.0]
    await eventually(lambda: metric(web, "isotherm_web_watchers") == 0)
    assert "Traceback" not in web.log


async def test_an_open_stream_does_not_keep_the_process_from_stopping(settings: Settings, web: Web) -> None:
    async with following(settings, web):
        seconds = await asyncio.to_thread(web.stop)
        assert seconds < 10
    web.start()
    assert "Traceback" not in web.log


@pytest.mark.parametrize("id", ["nonsense", "1:2", "9999999999:0;", "1:7;1:16", ";;", "1:-16;", "١:16;"])
async def test_an_id_that_is_none_of_ours_is_refused(login: Login, id: str) -> None:
    vera = await login("vera", "read")
    refused = await vera.get(f"{PATH.removeprefix('/api/v1')}&after={id}")
    assert refused.status == 422
    assert refused.json["errors"][0]["field"] == "Last-Event-ID"
