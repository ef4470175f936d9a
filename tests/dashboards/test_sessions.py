"""How pages are opened: HTML without a session, a session with the websocket, whichever process gets it."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from bokeh.application import Application
from bokeh.application.handlers import FunctionHandler
from bokeh.protocol import Protocol
from bokeh.server.contexts import ApplicationContext
from bokeh.util.token import generate_jwt_token, generate_session_id
from bokeh_fastapi import BokehFastAPI
from starlette.websockets import WebSocketDisconnect, WebSocketState

from dashboards.pages.session import MOST_UNSENT
from dashboards.sessions import SocketHandler
from isotherm.clock import now_us
from isotherm.settings import Settings
from simulator.visitors import Visitor
from tests.dashboards.stack import Filler, Web
from tests.dashboards.test_process import eventually, metric
from tests.support.ports import free_port

VALUE = 21.5


class SlowBrowser:
    """A websocket that takes a part of a message only when it is told to."""

    application_state = client_state = WebSocketState.CONNECTED

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.may_take = asyncio.Semaphore(0)

    async def send_text(self, text: str) -> None:
        await self.may_take.acquire()
        self.taken.append(text)


async def test_messages_to_a_slow_browser_are_not_mixed_and_it_is_known_how_many_wait() -> None:
    handler: Any = SocketHandler(None, None)
    browser = handler._socket = SlowBrowser()
    messages = [Protocol().create("ACK") for _ in range(3)]
    sending = [asyncio.create_task(handler.send_message(message)) for message in messages]
    await asyncio.sleep(0)
    assert handler.unsent == 3
    for _ in range(9):
        browser.may_take.release()
    await asyncio.gather(*sending)
    parts = [part for message in messages for part in (message.header_json, message.metadata_json, message.content_json)]
    assert browser.taken == parts
    assert handler.unsent == 0


class LeftBrowser(SlowBrowser):
    """A websocket whose browser has left before the first message."""

    async def accept(self, subprotocol: str) -> None:
        assert subprotocol == "bokeh"

    async def send_text(self, text: str) -> None:
        raise WebSocketDisconnect(1006)


async def test_a_page_that_is_left_while_it_is_built_is_freed_without_a_complaint() -> None:
    server = BokehFastAPI({})
    context = ApplicationContext(Application(FunctionHandler(lambda document: None)), url="/")
    token = generate_jwt_token(generate_session_id(signed=False), signed=False, expiration=60)
    browser: Any = LeftBrowser()
    browser.scope, browser.headers = {"subprotocols": ["bokeh", token]}, {}
    await SocketHandler(server, context).ws_connect(browser)
    assert list(context.sessions) == []


@pytest.mark.servers
async def test_a_page_that_nobody_connects_to_costs_no_session(web: Web) -> None:
    pages = {await asyncio.to_thread(web.text, "/device?id=room-1") for _ in range(5)}
    tokens = {re.findall(r'"token":"([^"]+)"', page)[0] for page in pages}
    assert len(tokens) == 5
    assert metric(web, "isotherm_web_sessions") <= 1  # the one that the HTML was made from


@pytest.mark.servers
async def test_a_page_from_one_process_is_served_by_another(settings: Settings, filler: Filler) -> None:
    await filler.write({"room-1/temperature": [(now_us(), VALUE)]})
    shared = settings.model_copy(update={"web_port": free_port()})
    async with aiohttp.ClientSession() as client:
        with Web(shared, "--workers", "2") as web:
            for _ in range(16):  # the kernel chooses a process for each connection
                visitor = Visitor(client, web.url + "/device?id=room-1")
                await visitor.open()
                async with asyncio.timeout(15):
                    assert await anext(aiter(visitor.values())) == VALUE
                await visitor.close()
            assert "Traceback" not in web.log


@pytest.mark.servers
async def test_a_browser_that_reads_nothing_makes_no_queue_and_sees_how_all_is_when_it_reads_again(
    filler: Filler, web: Web
) -> None:
    points = 2_000
    await filler.write({"room-1/temperature": [(now_us(), 0.0)]})
    address = web.url + "/device?id=room-1"
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(socket_factory=with_a_small_buffer)) as narrow,
        aiohttp.ClientSession() as client,
    ):
        slow, quick = Visitor(narrow, address), Visitor(client, address)
        await slow.open()
        await quick.open()
        news, most, number = aiter(quick.values()), 0.0, 0
        async with asyncio.timeout(240):
            while await anext(news) != 0.0:
                pass
            while most < MOST_UNSENT and number < 400:
                number += 1
                await filler.write({"room-1/temperature": [(now_us(), float(number))] * points})
                while await anext(news) != number:
                    pass
                most = max(most, metric(web, "isotherm_web_unsent_messages"))
            is_stuck = number
            for number in range(is_stuck + 1, is_stuck + 51):
                await filler.write({"room-1/temperature": [(now_us(), float(number))] * points})
                while await anext(news) != number:
                    pass
                most = max(most, metric(web, "isotherm_web_unsent_messages"))
            assert MOST_UNSENT <= most <= MOST_UNSENT + 4, "each part of a page may be told once more"
            seen = [value async for value in until(slow.values(), number)]
        assert len(seen) < is_stuck + 20, "what it has missed was not kept for it"
        await slow.close()
        await quick.close()


async def until(values: AsyncIterator[float], last: float) -> AsyncIterator[float]:
    async for value in values:
        yield value
        if value == last:
            return


def with_a_small_buffer(address: aiohttp.connector.AddrInfoType) -> socket.socket:
    made = socket.socket(*address[:3])
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    return made


@pytest.mark.servers
async def test_what_is_no_message_ends_the_websocket_without_a_traceback(web: Web) -> None:
    async with aiohttp.ClientSession() as client:
        visitor = Visitor(client, web.url + "/device?id=room-1")
        await visitor.open()
        assert visitor._socket is not None
        for _ in range(3):
            await visitor._socket.send_str("no JSON")
        async with asyncio.timeout(15):
            async for _ in visitor._socket:
                pass
    assert "a page sent what is no message" in web.log
    assert "Traceback" not in web.log


@pytest.mark.servers
async def test_sessions_that_end_while_they_are_written_to_are_freed_without_a_complaint(filler: Filler, web: Web) -> None:
    now = now_us()
    await filler.write({"room-1/temperature": [(now - at * 1000, VALUE) for at in range(2_000, 0, -1)]})
    async with aiohttp.ClientSession() as client:
        for _ in range(20):
            visitor = Visitor(client, web.url + "/device?id=room-1")
            await visitor.open()
            assert visitor._socket is not None
            visitor._socket._response.connection.transport.abort()  # type: ignore[union-attr]
        await eventually(lambda: metric(web, "isotherm_web_watchers") == 0)
    assert "Traceback" not in web.log
    assert "never awaited" not in web.log
