"""The process as a supervisor sees it, and what it holds for sessions that are gone."""

import asyncio
import re
import socket
from collections.abc import Callable

import aiohttp
import pytest
from redis import Redis

from dashboards.process import MAX_MESSAGE_BYTES, _bind
from isotherm.clock import now_us
from isotherm.settings import Settings
from tests.dashboards.stack import Filler, Web
from tests.support.chromium import Browser
from tests.support.valkey import Valkey

pytestmark = pytest.mark.servers

DEADLINE_SECONDS = 60.0


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110  # another process cannot set an event
            await asyncio.sleep(0.05)


def metric(web: Web, name: str) -> float:
    found = re.search(rf"^{name} (\S+)$", web.text("/metrics"), re.MULTILINE)
    assert found, name
    return float(found[1])


def test_the_second_packet_of_an_answer_does_not_wait_for_the_first() -> None:
    with _bind(Settings.load(web_port=0)) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_it_tells_how_it_is(web: Web, valkey: Valkey) -> None:
    assert [web.status(path) for path in ("/healthz", "/readyz", "/metrics", "/nowhere")] == [200, 200, 200, 404]
    valkey.kill()
    assert [web.status(path) for path in ("/healthz", "/readyz", "/")] == [200, 503, 200]


def test_it_starts_without_a_store_and_ends_when_it_is_told(settings: Settings, valkey: Valkey) -> None:
    valkey.kill()
    with Web(settings) as web:
        assert web.status("/readyz") == 503
        valkey.start()
        assert web.status("/readyz") == 200
        assert web.stop() < 2.0
        assert "Traceback" not in web.log


def test_it_refuses_a_store_of_other_settings(settings: Settings, web: Web) -> None:
    other = Web(settings.model_copy(update={"partitions": 3, "web_port": 0}))
    with pytest.raises(RuntimeError, match="partitions"):
        other.start()


async def test_a_websocket_needs_a_token_of_this_process_and_messages_are_bounded(web: Web) -> None:
    token = re.findall(r'"token":"([^"]+)"', await asyncio.to_thread(web.text, "/"))[0]
    origin = {"Origin": web.url}
    async with aiohttp.ClientSession() as client:
        for bad in (token[:-4] + "AAAA", "AAAA", "a.b"):
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await client.ws_connect(web.url + "/ws", protocols=("bokeh", bad), headers=origin)
        async with client.ws_connect(web.url + "/ws", protocols=("bokeh", token), headers=origin) as socket:
            await socket.send_str("x" * (MAX_MESSAGE_BYTES + 1))
            async with asyncio.timeout(DEADLINE_SECONDS):
                async for _ in socket:  # until it is closed
                    pass
            assert socket.close_code in (1009, 1006)  # too big; or the rest of it met a socket closed already
    assert "Traceback" not in web.log


@pytest.mark.browser
async def test_the_store_is_left_alone_when_nobody_watches(
    settings: Settings, filler: Filler, web: Web, browser: Browser
) -> None:
    await filler.write({"room-1/temperature": [(now_us(), 1.0)]})
    with Redis.from_url(settings.redis) as redis:
        for path, watchers in (("/", 1), ("/device?id=room-1", 2)):  # a page, and the line of its chart
            await browser.open(web.url + path)
            await eventually(lambda: len(redis.pubsub_channels()) == settings.partitions)
            await eventually(lambda watchers=watchers: metric(web, "isotherm_web_watchers") == watchers)  # type: ignore[misc]  # the page before has gone
        await browser.page.goto("about:blank")
        await eventually(lambda: redis.pubsub_channels() == [])
        await eventually(lambda: metric(web, "isotherm_web_watchers") == 0)
        assert metric(web, "isotherm_web_watched_series") == 0


@pytest.mark.browser
async def test_sessions_that_are_gone_are_freed(filler: Filler, web: Web, browser: Browser) -> None:
    await filler.write({"room-1/temperature": [(now_us(), 1.0)]})
    counts = []
    for _ in range(24):
        await browser.open(web.url + "/device?id=room-1")
        counts.append(await asyncio.to_thread(metric, web, "isotherm_web_sessions"))
    assert max(counts) <= 16, f"sessions in memory after each opened page: {counts}"
