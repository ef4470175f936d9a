"""Streams: each reading once, whatever happens to the connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from isotherm.client import AsyncClient, Client, Invalid, Unavailable
from isotherm.clock import now_us
from isotherm.limits import MINUTE
from isotherm.settings import Settings
from tests.client.conftest import token_of
from tests.dashboards.stack import Filler, Web

pytestmark = pytest.mark.servers

SERIES = "hall-1/light"

Say = Callable[..., Awaitable[None]]


class Way:
    """A way to the web process that is cut in the middle of an answer.

    Attributes:
        port: Where clients come.
        cut: After this many further bytes of answers the connection ends; None for never.
        connections: How many there have been.
    """

    def __init__(self, to: int) -> None:
        self.port = 0
        self.cut: int | None = None
        self.connections = 0
        self._to = to

    async def serve(self, client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self.connections += 1
        try:
            answers, server = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:
            back.close()
            return
        asking = asyncio.create_task(self._ask(client, server))
        try:
            while data := await answers.read(65536):
                if self.cut is not None and len(data) > self.cut:
                    back.write(data[: self.cut])
                    self.cut = None
                    break
                if self.cut is not None:
                    self.cut -= len(data)
                back.write(data)
        except ConnectionError:
            pass
        finally:
            asking.cancel()
            server.close()
            back.close()

    async def _ask(self, client: asyncio.StreamReader, server: asyncio.StreamWriter) -> None:
        while question := await client.read(65536):
            server.write(question)


@asynccontextmanager
async def way_to(web: Web) -> AsyncIterator[Way]:
    way = Way(int(web.url.rpartition(":")[2]))
    server = await asyncio.start_server(way.serve, "127.0.0.1", 0)
    way.port = server.sockets[0].getsockname()[1]
    try:
        yield way
    finally:
        server.close()


@pytest.fixture
def say(filler: Filler) -> Say:
    async def write(*values: float, ago: int = 0) -> None:
        await filler.write({SERIES: [(now_us() - ago, value) for value in values]})

    return write


@pytest.fixture
def token(settings: Settings, web: Web) -> str:
    return token_of(settings, "vera", "read")


async def test_a_stream_that_is_cut_anywhere_goes_on_and_tells_nothing_twice(web: Web, token: str, say: Say) -> None:
    await say(0.0)
    async with way_to(web) as way, AsyncClient(f"http://127.0.0.1:{way.port}", token) as client, asyncio.timeout(120):
        async with client.stream(SERIES, after="") as stream:
            first = asyncio.create_task(anext(stream))
            while not stream.position:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            await say(1.0)
            assert (await first).value == 1.0
            told, said = [1.0], [1.0]
            for number, cut in enumerate((0, 5, 20, 60, 90, 130), start=2):
                way.cut = cut
                values = [number + part / 10 for part in range(3)]
                await say(*values, ago=number % 2 * 5 * MINUTE)
                said += values
                while len(told) < len(said):
                    told.append((await anext(stream)).value)
            assert sorted(told) == said
        assert way.connections >= 6


async def test_a_stream_outlives_a_restart_and_another_one_goes_on_from_its_position(web: Web, token: str, say: Say) -> None:
    await say(0.0)
    async with AsyncClient(web.url, token) as client, asyncio.timeout(120):
        stream = client.stream([SERIES, "hall-2/light"])
        first = asyncio.create_task(anext(stream))
        while not stream.position:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await say(1.0)
        reading = await first
        assert (reading.series, reading.value) == (SERIES, 1.0)
        await asyncio.to_thread(web.stop)
        second = asyncio.create_task(anext(stream))
        await say(2.0)
        await asyncio.to_thread(web.start)
        assert (await second).value == 2.0
        await say(3.0, 4.0)
        assert (await anext(stream)).value == 3.0
        position = stream.position
        await stream.aclose()
        async with client.stream([SERIES, "hall-2/light"], after=position) as another:
            assert [(await anext(another)).value for _ in range(2)] == [3.0, 4.0], "the event that was not gone through"
    assert "Traceback" not in web.log


async def test_the_one_that_blocks_does_the_same(web: Web, token: str, say: Say) -> None:
    await say(0.0)
    async with way_to(web) as way, asyncio.timeout(120):
        with Client(f"http://127.0.0.1:{way.port}", token) as client, client.stream(SERIES) as stream:
            first = asyncio.create_task(asyncio.to_thread(next, stream))
            while not stream.position:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            await say(1.0)
            assert (await first).value == 1.0
            way.cut = 40
            await say(2.0, 3.0)
            assert [(await asyncio.to_thread(next, stream)).value for _ in range(2)] == [2.0, 3.0]
            assert way.connections >= 2


async def test_what_is_no_position_is_refused_and_who_is_away_for_too_long_unavailable(
    web: Web, token: str, say: Say
) -> None:
    await say(0.0)
    async with AsyncClient(web.url, token) as client, asyncio.timeout(120):
        with pytest.raises(Invalid) as refused:
            await anext(client.stream(SERIES, after="nonsense"))
        assert refused.value.field == "Last-Event-ID"
        stream = client.stream(SERIES, patience=0.5)
        waiting = asyncio.create_task(anext(stream))
        while not stream.position:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await asyncio.to_thread(web.stop)
        with pytest.raises(Unavailable):
            await waiting
        await asyncio.to_thread(web.start)
