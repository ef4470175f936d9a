"""Readings as they come: each once, whatever happens to the connection."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from dashboards.access.sockets import CODE
from isotherm.accounts.accounts import Actor
from isotherm.clock import now_us
from isotherm.limits import MINUTE
from isotherm.settings import Settings
from tests.api.conftest import Login
from tests.dashboards.client import Client
from tests.dashboards.stack import Filler, Web
from tests.dashboards.test_access import PASSWORD, kernel
from tests.dashboards.test_process import eventually, metric

pytestmark = pytest.mark.servers

SERIES = "hall-1/light", "hall-2/light"
PATH = "/api/v1/stream?" + "&".join(f"series={one}" for one in SERIES)


class Events:
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


class Messages:
    """An open WebSocket."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self.id = ""

    async def event(self) -> dict[str, dict[str, list[float]]]:
        """Return the readings of the next message, and remember its id."""
        message = await self._socket.receive_json(timeout=20)
        self.id = message["id"]
        return dict(message.get("readings", {}))


Stream = Events | Messages


async def values(stream: Stream, count: int, series: str = SERIES[0]) -> list[float]:
    """Return the next values of a series."""
    found: list[float] = []
    while len(found) < count:
        found += (await stream.event()).get(series, {}).get("value", [])
    return found


async def token_of(settings: Settings, user: str, *scopes: str) -> dict[str, str]:
    """Return the header with a new token of a user."""
    async with kernel(settings) as accounts:
        token, _ = await accounts.create_token(user, "a test", scopes, 1, Actor("test", "cli"))
    return {"Authorization": f"Bearer {token}"}


@asynccontextmanager
async def following(settings: Settings, web: Web, transport: str = "events", id: str = "") -> AsyncIterator[Stream]:
    headers = await token_of(settings, "vera", "read")
    async with aiohttp.ClientSession() as client:
        if transport == "messages":
            async with client.ws_connect(web.url + PATH + (f"&after={id}" if id else ""), headers=headers) as socket:
                messages = Messages(socket)
                assert await messages.event() == {}, "the first message has the id alone"
                yield messages
            return
        headers |= {"Last-Event-ID": id} if id else {}
        async with client.get(web.url + PATH, headers=headers) as answer:
            assert (answer.status, answer.content_type) == (200, "text/event-stream")
            events = Events(answer)
            assert await events.event() == {}, "the first event has the id alone"
            yield events


@pytest.mark.parametrize("transport", ["events", "messages"])
async def test_every_reading_comes_once_late_ones_and_those_of_a_lost_connection_and_a_restart_too(
    settings: Settings, web: Web, filler: Filler, transport: str
) -> None:
    async def say(*values: float, ago: int = 0) -> None:
        await filler.write({SERIES[0]: [(now_us() - ago, value) for value in values]})

    await say(0.0)
    async with following(settings, web, transport) as stream:
        await say(1.0, 2.0)
        assert await values(stream, 2) == [1.0, 2.0]
        await say(3.0, ago=5 * MINUTE)
        assert await values(stream, 1) == [3.0]
        id = stream.id
    await say(4.0)
    async with following(settings, web, transport, id) as stream:
        assert await values(stream, 1) == [4.0]
        await filler.write({SERIES[1]: [(now_us(), 1.0)]})
        assert await values(stream, 1, SERIES[1]) == [1.0]
        id = stream.id
    web.stop()
    await say(5.0)
    web.start()
    async with following(settings, web, transport, id) as stream:
        assert await values(stream, 1) == [5.0]
    await eventually(lambda: metric(web, "isotherm_web_watchers") == 0)
    assert "Traceback" not in web.log


@pytest.mark.parametrize("transport", ["events", "messages"])
async def test_one_who_asks_for_what_there_is_by_now_is_told_it_and_no_more(
    settings: Settings, web: Web, filler: Filler, transport: str
) -> None:
    async with following(settings, web, transport) as stream:
        id = stream.id
    assert await until_it_ends(settings, web, transport, id) == []
    await filler.write({SERIES[0]: [(now_us(), 8.0), (now_us(), 9.0)]})
    assert await until_it_ends(settings, web, transport, id) == [8.0, 9.0]


async def until_it_ends(settings: Settings, web: Web, transport: str, id: str) -> list[float]:
    """Return the values of the first series in a stream of no seconds."""
    headers = await token_of(settings, "vera", "read")
    path = f"{web.url}{PATH}&after={id}&seconds=0"
    async with aiohttp.ClientSession() as client, asyncio.timeout(20):
        if transport == "messages":
            async with client.ws_connect(path, headers=headers) as socket:
                told = [message.json() async for message in socket]
        else:
            async with client.get(path, headers=headers) as answer:
                lines = (await answer.text()).splitlines()
            told = [{"readings": json.loads(line[6:])} for line in lines if line.startswith("data: ")]
    return [value for one in told for value in one.get("readings", {}).get(SERIES[0], {}).get("value", [])]


@pytest.mark.parametrize("transport", ["events", "messages"])
async def test_an_open_stream_does_not_keep_the_process_from_stopping(settings: Settings, web: Web, transport: str) -> None:
    async with following(settings, web, transport):
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


async def test_a_websocket_that_may_not_be_opened_is_told_why(settings: Settings, web: Web) -> None:
    async def refused(path: str = PATH, **headers: str) -> int:
        async with aiohttp.ClientSession() as client:
            with pytest.raises(aiohttp.WSServerHandshakeError) as error:
                await client.ws_connect(web.url + path, headers=headers)
            assert error.value.headers is not None
            assert error.value.headers["content-type"] == "application/problem+json"
            return error.value.status

    vera = await token_of(settings, "vera", "read")
    assert await refused() == 401
    assert await refused(Authorization="Bearer iso_guessed") == 401
    assert await refused(**await token_of(settings, "vera", "devices:read")) == 403
    assert await refused("/api/v1/stream", **vera) == 422
    assert await refused(PATH + "&after=nonsense", **vera) == 422
    for seconds in ("-1", "901", "nan", "soon"):
        assert await refused(f"{PATH}&seconds={seconds}", **vera) == 422
    async with Client(web.url) as browser:
        await browser.log_in("vera", PASSWORD)
        assert await refused(Cookie=browser.cookie, Origin="http://evil.example") == 403


async def test_the_websocket_of_a_browser_ends_with_its_session(web: Web, filler: Filler) -> None:
    async with Client(web.url) as browser, aiohttp.ClientSession() as client:
        await browser.log_in("vera", PASSWORD)
        headers = {"Cookie": browser.cookie, "Origin": web.url}
        async with client.ws_connect(web.url + PATH, headers=headers) as socket:
            messages = Messages(socket)
            assert await messages.event() == {}
            await socket.send_str("this stream takes no messages")
            await filler.write({SERIES[0]: [(now_us(), 77.0)]})
            assert await values(messages, 1) == [77.0]
            await browser.post("/logout", "/logout")
            closed = await socket.receive(timeout=20)
            assert (closed.type, closed.data) == (aiohttp.WSMsgType.CLOSE, CODE)
    assert "Traceback" not in web.log
